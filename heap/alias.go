package heap

import (
	"slices"

	"inquest/kernel"
)

// readAliases reads the symbolic links in /sys/kernel/slab, by the kernfs_node that
// they lead to. sysfs_slab_alias() of mm/slub.c makes one for each cache that is
// merged into another; the kernel keeps the names nowhere else.
func (h *Heap) readAliases() map[kernel.Addr][]string {
	const (
		kernfsType = 0xf // KERNFS_TYPE_MASK
		kernfsLink = 4
	)
	links := map[kernel.Addr][]string{}
	at, err := h.k.Symbol("slab_kset")
	if err != nil {
		return links
	}
	kset, err := h.k.Pointer(at)
	if err != nil || kset == 0 {
		return links
	}
	set, err := h.k.Object("kset", kset)
	if err != nil {
		return links
	}
	children, err := set.AddrOf("kobj.sd->dir.children")
	if err != nil {
		return links
	}
	n := 0
	for node, err := range h.k.RBTree(children) {
		if n++; err != nil || n > maxCaches {
			break
		}
		kn, err := h.k.ContainerOf(node, "kernfs_node", "rb")
		if err != nil {
			break
		}
		flags, err := kn.Uint("flags")
		if err != nil || flags&kernfsType != kernfsLink {
			continue
		}
		target, err := kn.Pointer("symlink.target_kn")
		if err != nil {
			continue
		}
		if name, err := kn.String("name"); err == nil {
			links[target] = append(links[target], name)
		}
	}
	// The cache's own name is a link as well, when others can be merged into it.
	all, _ := h.Caches()
	for _, c := range all {
		if names := links[c.sd]; names != nil {
			names = slices.DeleteFunc(names, func(n string) bool { return n == c.Name })
			slices.Sort(names)
			links[c.sd] = names
		}
	}
	return links
}
