package kernel

import "fmt"

// OpenFile is an open file of a task: struct file.
type OpenFile struct {
	FD     int
	File   Object
	Dentry Addr
	Inode  Addr
	Type   string // as crash(8) has it: REG, DIR, CHR, BLK, FIFO, SOCK, LNK, UNKN
	Path   string
}

// maxFiles bounds the open files of a task that are looked at. It is the default of
// sysctl fs.nr_open.
const maxFiles = 1 << 20

// OpenFiles returns the files that a task has open, by their number: none for a task that
// has given up its files. What could be read comes with the error.
func (k *Kernel) OpenFiles(t *Task) ([]OpenFile, error) {
	files, err := t.Pointer("files")
	if err != nil || files == 0 {
		return nil, err
	}
	o, err := k.Object("files_struct", files)
	if err != nil {
		return nil, err
	}
	var first error
	keep := func(err error) {
		if err != nil && first == nil {
			first = fmt.Errorf("open files of pid %d: %w", t.PID, err)
		}
	}
	n, err := o.Uint("fdt->max_fds")
	keep(err)
	table, err := o.Pointer("fdt->fd")
	keep(err)
	if first != nil || table == 0 {
		return nil, first
	}
	if n > maxFiles {
		keep(fmt.Errorf("a table of %d: %w", n, ErrCorrupt))
		n = maxFiles
	}
	var list []OpenFile
	const chunk = pageSize / 8
	for at := uint64(0); at < n; at += chunk {
		part, err := k.Slice(table+Addr(8*at), int(min(n-at, chunk))*8)
		if err != nil {
			keep(err)
			break
		}
		for i := 0; 8*i < len(part); i++ {
			file := Addr(le.Uint64(part[8*i:]))
			if file == 0 {
				continue
			}
			f, err := k.openFile(file)
			keep(err)
			f.FD = int(at) + i
			list = append(list, f)
		}
	}
	return list, first
}

func (k *Kernel) openFile(at Addr) (OpenFile, error) {
	o, err := k.Object("file", at)
	if err != nil {
		return OpenFile{}, err
	}
	f := OpenFile{File: o, Type: "UNKN"}
	if f.Dentry, err = o.Pointer("f_path.dentry"); err != nil {
		return f, err
	}
	if f.Inode, err = o.Pointer("f_inode"); err != nil {
		return f, err
	}
	if f.Inode != 0 {
		mode, err := o.Uint("f_inode->i_mode")
		if err == nil {
			f.Type = fileType(mode)
		}
		if f.Type == "SOCK" { // one that has a path cannot be opened
			ino, err := o.Uint("f_inode->i_ino")
			f.Path = fmt.Sprintf("socket:[%d]", ino)
			return f, err
		}
	}
	path, err := o.Member("f_path")
	if err != nil {
		return f, err
	}
	f.Path, err = k.PathAt(path)
	return f, err
}

// fileType names the S_IFMT bits of a mode.
func fileType(mode uint64) string {
	names := map[uint64]string{1: "FIFO", 2: "CHR", 4: "DIR", 6: "BLK", 8: "REG", 10: "LNK", 12: "SOCK"}
	if name, ok := names[mode>>12&15]; ok {
		return name
	}
	return "UNKN"
}

// Directories returns a task's root and working directory, "" for a task that has given
// up both.
func (k *Kernel) Directories(t *Task) (root, cwd string, err error) {
	fs, err := t.Pointer("fs")
	if err != nil || fs == 0 {
		return "", "", err
	}
	o, err := k.Object("fs_struct", fs)
	if err != nil {
		return "", "", err
	}
	for _, d := range []struct {
		member string
		to     *string
	}{{"root", &root}, {"pwd", &cwd}} {
		path, err := o.Member(d.member)
		if err != nil {
			return root, cwd, err
		}
		if *d.to, err = k.PathAt(path); err != nil {
			return root, cwd, fmt.Errorf("directories of pid %d: %w", t.PID, err)
		}
	}
	return root, cwd, nil
}
