package kernel

import (
	"fmt"
	"slices"
	"strings"
)

// maxPathNames bounds how deep a file may lie. The kernel itself has no bound but what
// PATH_MAX makes of each call.
const maxPathNames = 4096

// Path returns the path of a dentry within a mount, struct vfsmount, as d_path() would
// for a task whose root is that of the mount's namespace. Files that no path leads to
// have names as in /proc/PID/fd: "socket:[4711]", "anon_inode:[eventfd]"; those that
// were unlinked end in " (deleted)".
//
// What could be found of the path comes with the error, behind "…/".
func (k *Kernel) Path(mnt, dentry Addr) (string, error) {
	if dentry == 0 {
		return "", nil
	}
	d, err := k.Object("dentry", dentry)
	if err != nil {
		return "", err
	}
	name, pseudoErr := k.pseudoPath(d)
	if name != "" {
		return name, nil
	}
	names, err := k.pathNames(mnt, d)
	slices.Reverse(names)
	text := "/" + strings.Join(names, "/")
	if err == nil && len(names) == 0 {
		err = pseudoErr // a root, or what has no path at all
	}
	if err != nil {
		return "…" + text, fmt.Errorf("find the path of the dentry at %v: %w", dentry, err)
	}
	if k.unlinked(d) {
		text += " (deleted)"
	}
	return text, nil
}

// pathNames collects the names from a dentry up to the root of all mounts.
func (k *Kernel) pathNames(mnt Addr, d Object) ([]string, error) {
	var names []string
	var root Addr // of the mount
	v, err := k.Object("vfsmount", mnt)
	if err != nil {
		return nil, err
	}
	if mnt != 0 {
		if root, err = v.Pointer("mnt_root"); err != nil {
			return nil, err
		}
	}
	for range maxPathNames {
		if d.Addr == root {
			m, err := k.ContainerOf(mnt, "mount", "mnt")
			if err != nil {
				return names, err
			}
			parent, err := m.Pointer("mnt_parent")
			if err != nil {
				return names, err
			}
			if parent == m.Addr || parent == 0 {
				return names, nil
			}
			if d.Addr, err = m.Pointer("mnt_mountpoint"); err != nil {
				return names, err
			}
			above := k.ObjectOf(m.Type, parent)
			if mnt, err = above.AddrOf("mnt"); err != nil {
				return names, err
			}
			if root, err = above.Pointer("mnt.mnt_root"); err != nil {
				return names, err
			}
			continue
		}
		parent, err := d.Pointer("d_parent")
		if err != nil {
			return names, err
		}
		if parent == d.Addr || parent == 0 {
			// The top of a file system of which the mount shows another part, or none.
			return names, nil
		}
		name, err := d.String("d_name.name")
		if err != nil {
			return names, err
		}
		names = append(names, name)
		d.Addr = parent
	}
	return names, fmt.Errorf("more than %d deep: %w", maxPathNames, ErrCorrupt)
}

// pseudoPath names a file of a file system that cannot be mounted, as their d_dname()
// do (net/socket.c, fs/pipe.c, fs/anon_inodes.c, fs/pidfs.c, fs/nsfs.c); "" for others.
func (k *Kernel) pseudoPath(d Object) (string, error) {
	fs, err := d.String("d_sb->s_type->name")
	if err != nil {
		return "", err
	}
	switch fs {
	case "pipefs", "sockfs":
		ino, err := d.Uint("d_inode->i_ino")
		return fmt.Sprintf("%s:[%d]", map[string]string{"pipefs": "pipe", "sockfs": "socket"}[fs], ino), err
	case "nsfs":
		at, err := d.Pointer("d_inode->i_private")
		if err != nil {
			return "", err
		}
		ns, err := k.Object("ns_common", at)
		if err != nil {
			return "", err
		}
		name, _ := ns.String("ops->name")
		ino, err := ns.Uint("inum")
		return fmt.Sprintf("%s:[%d]", name, ino), err
	case "pidfs":
		return "anon_inode:[pidfd]", nil
	case "anon_inodefs":
		name, err := d.String("d_name.name")
		return "anon_inode:" + name, err
	case "dmabuf":
		name, err := d.String("d_name.name")
		return "/dmabuf:" + name, err
	}
	return "", nil
}

// unlinked is d_unlinked(): the dentry is in no hash table, and is no root.
func (k *Kernel) unlinked(d Object) bool {
	hashed, err := d.Pointer("d_hash.pprev")
	if err != nil || hashed != 0 {
		return false
	}
	parent, err := d.Pointer("d_parent")
	return err == nil && parent != d.Addr
}

// PathAt returns the path that a struct path holds.
func (k *Kernel) PathAt(path Object) (string, error) {
	mnt, err := path.Pointer("mnt")
	if err != nil {
		return "", err
	}
	dentry, err := path.Pointer("dentry")
	if err != nil {
		return "", err
	}
	return k.Path(mnt, dentry)
}
