package kernel

import (
	"fmt"
	"iter"
	"strings"
)

// Mount is a mounted file system: struct mount.
type Mount struct {
	Object
	SuperBlock Addr
	Type       string // of the file system: "ext4", "fuse.sshfs"
	Device     string
	Dir        string   // where it is mounted
	Options    []string // of the mount and of its super block, as mount(8) has them
}

// maxMounts bounds the mounts of a namespace; the kernel's own bound is sysctl
// fs.mount-max, 100,000.
const maxMounts = 1 << 20

// Mounts returns the mounts of the struct mnt_namespace at an address. What could be
// read comes with the error.
func (k *Kernel) Mounts(namespace Addr) ([]Mount, error) {
	ns, err := k.Object("mnt_namespace", namespace)
	if err != nil {
		return nil, err
	}
	nodes, err := k.mountNodes(ns)
	if err != nil {
		return nil, err
	}
	var list []Mount
	var first error
	keep := func(err error) {
		if err != nil && first == nil {
			first = fmt.Errorf("mounts of the namespace at %v: %w", namespace, err)
		}
	}
	for o, err := range nodes {
		if err == nil && len(list) == maxMounts {
			err = fmt.Errorf("more than %d: %w", maxMounts, ErrCorrupt)
		}
		if err != nil {
			keep(err)
			break
		}
		// A cursor of somebody who reads /proc/self/mounts is in the list, too (5.8 to 6.7).
		const cursor = 0x10000000
		if flags, err := o.Uint("mnt.mnt_flags"); err == nil && flags&cursor != 0 && o.Has("mnt_list") && !o.Has("mnt_node") {
			continue
		}
		m, err := k.mount(o)
		keep(err)
		list = append(list, m)
	}
	return list, first
}

// mountNodes iterates over the mounts of a namespace: a red-black tree by id since 6.8
// (commit 2eea9ce4310d), a list before.
func (k *Kernel) mountNodes(ns Object) (iter.Seq2[Object, error], error) {
	if !ns.Has("mounts.rb_node") {
		head, err := ns.AddrOf("list")
		if err != nil {
			return nil, err
		}
		return k.Structs("mount", "mnt_list", head)
	}
	root, err := ns.AddrOf("mounts")
	if err != nil {
		return nil, err
	}
	member := "mnt_node" // first in a union with mnt_list's place, by itself since 6.13
	if !k.HasMember("mount", member) {
		member = "mnt_list"
	}
	return func(yield func(Object, error) bool) {
		for node, err := range k.RBTree(root) {
			var o Object
			if err == nil {
				o, err = k.ContainerOf(node, "mount", member)
			}
			if !yield(o, err) || err != nil {
				return
			}
		}
	}, nil
}

func (k *Kernel) mount(o Object) (Mount, error) {
	m := Mount{Object: o}
	var first error
	keep := func(err error) {
		if err != nil && first == nil {
			first = err
		}
	}
	var err error
	m.SuperBlock, err = o.Pointer("mnt.mnt_sb")
	keep(err)
	m.Type, err = o.String("mnt.mnt_sb->s_type->name")
	keep(err)
	if sub, err := o.Pointer("mnt.mnt_sb->s_subtype"); err == nil && sub != 0 {
		if text, err := k.CString(sub, pageSize); err == nil && text != "" {
			m.Type += "." + text
		}
	}
	if name, err := o.Pointer("mnt_devname"); err == nil && name != 0 {
		m.Device, err = k.CString(name, pageSize)
		keep(err)
	}
	m.Options = k.mountOptions(o)
	parent, err := o.Pointer("mnt_parent")
	keep(err)
	if parent == o.Addr || err != nil {
		m.Dir = "/"
		return m, first
	}
	above := k.ObjectOf(o.Type, parent)
	mnt, err := above.AddrOf("mnt")
	keep(err)
	point, err := o.Pointer("mnt_mountpoint")
	keep(err)
	m.Dir, err = k.Path(mnt, point)
	keep(err)
	return m, first
}

// mountOptions are the flags of a mount, MNT_* of include/linux/mount.h, and of its
// super block, SB_* of include/linux/fs.h.
func (k *Kernel) mountOptions(o Object) []string {
	mnt, err1 := o.Uint("mnt.mnt_flags")
	sb, err2 := o.Uint("mnt.mnt_sb->s_flags")
	if err1 != nil || err2 != nil {
		return nil
	}
	const readOnly = 0x40
	list := []string{"rw"}
	if mnt&readOnly != 0 || sb&1 != 0 {
		list[0] = "ro"
	}
	for _, f := range []struct {
		flags, bit uint64
		name       string
	}{
		{mnt, 1, "nosuid"}, {mnt, 2, "nodev"}, {mnt, 4, "noexec"}, {mnt, 8, "noatime"}, {mnt, 0x10, "nodiratime"}, {mnt, 0x20, "relatime"},
		{sb, 0x10, "sync"}, {sb, 0x80, "dirsync"}, {sb, 0x40, "mand"}, {sb, 1 << 25, "lazytime"},
	} {
		if f.flags&f.bit != 0 {
			list = append(list, f.name)
		}
	}
	return list
}

// MountNamespace returns the address of the struct mnt_namespace that a task is in, 0
// for one that has left its namespaces.
func (t *Task) MountNamespace() (Addr, error) {
	proxy, err := t.Pointer("nsproxy")
	if err != nil || proxy == 0 {
		return 0, err
	}
	return t.Pointer("nsproxy->mnt_ns")
}

// String is the mount as a line of /proc/mounts.
func (m Mount) String() string {
	return fmt.Sprintf("%s %s %s %s", m.Device, m.Dir, m.Type, strings.Join(m.Options, ","))
}
