package lab

import (
	"bytes"
	"errors"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// sparseBlock is the size, and alignment, of the holes that are looked for.
const sparseBlock = 64 << 10

// makeSparse gives the zeros in a file back to the file system: half of a machine's
// memory was never written, or more. What the file reads as does not change. Where
// the file system has no holes nothing happens.
func makeSparse(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	zeros, block := make([]byte, sparseBlock), make([]byte, sparseBlock)
	for at := int64(0); ; at += sparseBlock {
		if _, err := io.ReadFull(f, block); err != nil {
			if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
				return nil
			}
			return err
		}
		if !bytes.Equal(block, zeros) {
			continue
		}
		err := unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, at, sparseBlock)
		if errors.Is(err, unix.EOPNOTSUPP) {
			return nil
		}
		if err != nil {
			return os.NewSyscallError("fallocate", err)
		}
	}
}
