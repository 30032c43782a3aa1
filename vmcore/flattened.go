package vmcore

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"math"
)

// A flattened dump (makedumpfile -F; QEMU's kdump formats) was written to a
// pipe: a header of 4 KiB, then records of where in the real file the bytes
// belong, how many there are, and the bytes. The numbers are big-endian.
// A record with offset -1 ends it.
const (
	flatHeaderSize = 4096
	flatType       = 16 // u64, 1
	flatVersion    = 24 // u64, 1
	flatRecordSize = 16
)

var flatSignature = []byte("makedumpfile\x00\x00\x00\x00")

func isFlattened(head []byte) bool { return bytes.HasPrefix(head, flatSignature) }

// flatImage is the file inside a flattened file, read in place.
type flatImage struct {
	im      image
	extents []extent // of the real file, disjoint and ascending
	size    int64    // of the real file
	cut     bool     // the end record is missing
}

// openFlattened indexes the records of a flattened file. Records may come in any
// order and write over earlier ones. Damage ends the index: what comes before
// it can be read.
func openFlattened(im image) (*flatImage, error) {
	var header [flatVersion + 8]byte
	if err := readAt(im, header[:], 0); err != nil {
		return nil, fmt.Errorf("read flattened header: %w", err)
	}
	if t, v := binary.BigEndian.Uint64(header[flatType:]), binary.BigEndian.Uint64(header[flatVersion:]); t != 1 || v != 1 {
		return nil, corrupt("flattened dump of unknown type %d, version %d", t, v)
	}
	fi := &flatImage{im: im, cut: true}
	var (
		list []extent
		size = uint64(im.Size())
		rec  [flatRecordSize]byte
	)
	for pos := uint64(flatHeaderSize); readAt(im, rec[:], pos) == nil; {
		off, n := binary.BigEndian.Uint64(rec[:]), binary.BigEndian.Uint64(rec[8:])
		if off == math.MaxUint64 {
			fi.cut = false
			break
		}
		if off > math.MaxInt64 || n > math.MaxInt64-off {
			break
		}
		pos += flatRecordSize
		have := min(n, size-pos)
		if have > 0 {
			list = append(list, extent{start: off, size: have, off: pos})
			fi.size = max(fi.size, int64(off+have))
		}
		if have < n {
			break
		}
		pos += n
	}
	fi.extents = disjoint(list)
	return fi, nil
}

func (fi *flatImage) Size() int64 { return fi.size }

var errNotWritten = corrupt("the flattened dump ends before this part of it was written")

// ReadAt reads bytes no record wrote as zeros, as they would be in the real
// file; if records are missing at the end, it fails there.
func (fi *flatImage) ReadAt(p []byte, off int64) (n int, err error) {
	if off < 0 || off >= fi.size {
		return 0, io.EOF
	}
	for _, e := range from(fi.extents, uint64(off)) {
		if n == len(p) {
			return n, nil
		}
		pos := uint64(off) + uint64(n)
		if e.start > pos {
			if fi.cut {
				return n, errNotWritten
			}
			hole := min(e.start-pos, uint64(len(p)-n))
			clear(p[n : n+int(hole)])
			n += int(hole)
			pos += hole
			if n == len(p) {
				return n, nil
			}
		}
		m := min(e.end()-pos, uint64(len(p)-n))
		got, err := fi.im.ReadAt(p[n:n+int(m)], int64(e.off+(pos-e.start)))
		n += got
		if uint64(got) < m {
			return n, err
		}
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}
