package vmcore

import (
	"errors"
	"io"
	"runtime/debug"
)

// An image is the bytes of one dump file. There are three kinds: a mapped
// file, a reader, and the file inside a flattened file.
type image interface {
	io.ReaderAt
	// Size is the number of bytes. Of /proc/kcore it is a bound, not a fact.
	Size() int64
}

// readerImage reads through an io.ReaderAt.
type readerImage struct {
	io.ReaderAt
	size int64
}

func (im readerImage) Size() int64 { return im.size }

// mappedImage is a file mapped into memory.
//
// If the file is truncated while it is mapped, or its disk fails, an access
// faults (SIGBUS), which outside of ReadAt would end the program. So nobody
// ever gets a slice of the mapping: a copy of a page costs a tenth of a
// microsecond, stays valid after Close, and cannot change under a decompressor
// that has already checked it.
type mappedImage struct{ data []byte }

func (im mappedImage) Size() int64 { return int64(len(im.data)) }

func (im mappedImage) ReadAt(p []byte, off int64) (n int, err error) {
	if off < 0 || off >= int64(len(im.data)) {
		return 0, io.EOF
	}
	old := debug.SetPanicOnFault(true)
	defer func() {
		debug.SetPanicOnFault(old)
		if r := recover(); r != nil {
			fault, ok := r.(interface{ Addr() uintptr })
			if !ok {
				panic(r)
			}
			n, err = 0, corrupt("file shrank or cannot be read while mapped (fault at %#x)", fault.Addr())
		}
	}()
	if n = copy(p, im.data[off:]); n < len(p) {
		err = io.EOF
	}
	return n, err
}

// readAt fills p from off or fails with an error that wraps ErrCorrupt.
func readAt(im image, p []byte, off uint64) error {
	if size := uint64(im.Size()); off > size || uint64(len(p)) > size-off {
		return corrupt("%d bytes at file offset %#x lie beyond the end of the file (%#x)", len(p), off, size)
	}
	n, err := im.ReadAt(p, int64(off))
	if n == len(p) {
		return nil
	}
	if err == nil || err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	if errors.Is(err, ErrCorrupt) {
		return err
	}
	return corrupt("read %d bytes at file offset %#x: %v", len(p), off, err)
}

// readNew reads n bytes at off into new memory, which it takes only after
// it knows that the file has them.
func readNew(im image, off, n uint64) ([]byte, error) {
	if size := uint64(im.Size()); off > size || n > size-off {
		return nil, corrupt("%d bytes at file offset %#x lie beyond the end of the file (%#x)", n, off, size)
	}
	p := make([]byte, n)
	return p, readAt(im, p, off)
}
