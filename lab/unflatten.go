package lab

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// ErrNotFlattened is the error for a file that is not in makedumpfile's flattened format.
var ErrNotFlattened = errors.New("not a flattened dump")

// The flattened format: a header of a page, then records of offset, size (both 64 bits,
// big-endian) and data, until an offset of -1 (makedumpfile's IMPLEMENTATION).
const (
	flatHeader    = 4096
	flatSignature = "makedumpfile\x00"
	flatMaxRecord = 1 << 30 // makedumpfile and QEMU write some megabytes at a time
)

// unflatten replaces a flattened dump by the file that was flattened, as makedumpfile -R
// would write it.
func unflatten(path string) error {
	in, err := os.Open(path)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.CreateTemp(filepath.Dir(path), unfinished)
	if err != nil {
		return err
	}
	defer os.Remove(out.Name())
	err = writeUnflattened(out, bufio.NewReaderSize(in, 1<<20))
	if err = errors.Join(err, out.Close()); err != nil {
		return fmt.Errorf("unflatten %s: %w", path, err)
	}
	if err := os.Chmod(out.Name(), 0o644); err != nil {
		return err
	}
	return os.Rename(out.Name(), path)
}

func writeUnflattened(out io.WriterAt, in io.Reader) error {
	head := make([]byte, flatHeader)
	if _, err := io.ReadFull(in, head); err != nil || string(head[:len(flatSignature)]) != flatSignature {
		return ErrNotFlattened
	}
	for {
		var record struct{ Offset, Size int64 }
		if err := binary.Read(in, binary.BigEndian, &record); err != nil {
			return fmt.Errorf("it ends too early: %w", err)
		}
		switch {
		case record.Offset == -1:
			return nil
		case record.Offset < 0 || record.Size < 0 || record.Size > flatMaxRecord || record.Offset > 1<<62:
			return fmt.Errorf("record of %d bytes at %d", record.Size, record.Offset)
		}
		n, err := io.CopyN(io.NewOffsetWriter(out, record.Offset), in, record.Size)
		if err != nil {
			return fmt.Errorf("record of %d bytes at %d ends after %d: %w", record.Size, record.Offset, n, err)
		}
	}
}
