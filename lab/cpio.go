package lab

import (
	"fmt"
	"io"
	"path"
)

// Archive writes an initramfs: a cpio archive in the format "newc" of the kernel's
// Documentation/driver-api/early-userspace/buffer-format.rst. Parent directories are
// added where they are missing. The first error sticks, and Close returns it.
type Archive struct {
	w     io.Writer
	size  int64
	inode int
	dirs  map[string]bool
	err   error
}

// NewArchive returns an empty archive that is written to w.
func NewArchive(w io.Writer) *Archive {
	return &Archive{w: w, dirs: map[string]bool{"": true}}
}

// The types of files, as in st_mode of stat(2).
const (
	modeDir  = 0o040000
	modeFile = 0o100000
	modeLink = 0o120000
)

// Dir adds a directory.
func (a *Archive) Dir(name string) {
	if name = clean(name); !a.dirs[name] {
		a.Dir(path.Dir(name))
		a.dirs[name] = true
		a.entry(name, modeDir|0o755, nil)
	}
}

// File adds a file with the given permissions.
func (a *Archive) File(name string, perm uint32, data []byte) {
	a.Dir(path.Dir(name))
	a.entry(clean(name), modeFile|perm, data)
}

// Link adds a symbolic link.
func (a *Archive) Link(name, target string) {
	a.Dir(path.Dir(name))
	a.entry(clean(name), modeLink|0o777, []byte(target))
}

// clean returns a path as an archive has it, without a slash in front; the root is "".
func clean(name string) string { return path.Clean("/" + name)[1:] }

// Close ends the archive. It does not close the writer.
func (a *Archive) Close() error {
	a.inode = -1 // the trailer has inode 0
	a.entry("TRAILER!!!", 0, nil)
	return a.err
}

func (a *Archive) entry(name string, mode uint32, data []byte) {
	const magic, links = "070701", 1
	if a.err == nil && int64(len(data)) > 1<<32-1 {
		a.err = fmt.Errorf("%s: a file of an initramfs must be smaller than 4 GiB", name)
	}
	a.inode++
	a.write([]byte(magic))
	for _, field := range []uint32{
		uint32(a.inode), mode, 0, 0, links, 0, uint32(len(data)), // ino mode uid gid nlink mtime filesize
		0, 0, 0, 0, uint32(len(name) + 1), 0, // dev rdev namesize check
	} {
		a.write(fmt.Appendf(nil, "%08x", field))
	}
	a.write(append([]byte(name), 0))
	a.pad()
	a.write(data)
	a.pad()
}

// pad fills up to the next multiple of 4.
func (a *Archive) pad() { a.write(make([]byte, -a.size&3)) }

func (a *Archive) write(p []byte) {
	if a.err != nil {
		return
	}
	n, err := a.w.Write(p)
	a.size += int64(n)
	a.err = err
}
