package vmcore

import (
	"os"

	"golang.org/x/sys/unix"
)

// mapFile maps a regular file read-only. ok is false if the file cannot be
// mapped (a /proc file, a block device) and must be read instead.
func mapFile(f *os.File, size int64) (data []byte, ok bool) {
	if size <= 0 || size != int64(int(size)) {
		return nil, false
	}
	data, err := unix.Mmap(int(f.Fd()), 0, int(size), unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return nil, false
	}
	return data, true
}

func unmapFile(data []byte) error { return unix.Munmap(data) }
