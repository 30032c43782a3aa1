package vmcore

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"math"
	"slices"
	"testing"
)

func TestFlattened(t *testing.T) {
	spec := kdumpSpec{codec: flagZlib, maxPFN: someMaxPFN, pages: somePages(true), release: "6.1.0"}
	file := spec.build()
	inOrder := inRecords(file, 1111)
	backwards := slices.Clone(inOrder)
	slices.Reverse(backwards)
	// Wrong bytes first, the right ones over them, in other pieces.
	rewritten := append([]flatRecord{{0, bytes.Repeat([]byte{0xee}, len(file))}, {500, bytes.Repeat([]byte{0xdd}, 7000)}}, inRecords(file, 777)...)
	half := append([]flatRecord{{100, bytes.Repeat([]byte{0xcc}, len(file)-300)}}, backwards...)
	for name, records := range map[string][]flatRecord{
		"in order": inOrder, "backwards": backwards, "rewritten": rewritten, "rewritten in part": half,
		"with empty records": slices.Concat([]flatRecord{{1 << 40, nil}}, inOrder, []flatRecord{{3, nil}}),
	} {
		t.Run(name, func(t *testing.T) {
			d := mustOpen(t, flatten(records, true))
			checkPages(t, d, spec.pages)
			if !d.Flattened || d.Format != "kdump-compressed" || d.Incomplete {
				t.Errorf("Flattened %v, Format %q, Incomplete %v", d.Flattened, d.Format, d.Incomplete)
			}
			whole, err := openFlattened(imageOf(flatten(records, true)))
			if err != nil {
				t.Fatal(err)
			}
			got := make([]byte, len(file))
			if n, err := whole.ReadAt(got, 0); n != len(file) || err != nil && err != io.EOF || !bytes.Equal(got, file) {
				t.Errorf("the file inside differs (%d bytes, error %v)", n, err)
			}
		})
	}
	bad := flatten(inOrder, true)
	bad[23] = 2
	if _, err := openBytes(bad); !errors.Is(err, ErrCorrupt) {
		t.Errorf("unknown type: %v", err)
	}
	if d := mustOpen(t, flatten(inOrder, false)); !d.Incomplete {
		t.Error("without an end record: Incomplete = false")
	}
}

// flatOracle replays the records of a flattened file into a flat buffer.
func flatOracle(p []byte, limit int) (file []byte, ok bool) {
	for pos := flatHeaderSize; pos+flatRecordSize <= len(p); {
		off, n := binary.BigEndian.Uint64(p[pos:]), binary.BigEndian.Uint64(p[pos+8:])
		if off > math.MaxInt64 || n > math.MaxInt64-off {
			break
		}
		pos += flatRecordSize
		have := min(n, uint64(len(p)-pos))
		if off+have > uint64(limit) && have > 0 {
			return nil, false
		}
		if have > 0 {
			if need := int(off + have); need > len(file) {
				file = append(file, make([]byte, need-len(file))...)
			}
			copy(file[off:], p[pos:pos+int(have)])
		}
		if have < n {
			break
		}
		pos += int(n)
	}
	return file, true
}

// FuzzFlattened compares the index over the records with writing them out.
func FuzzFlattened(f *testing.F) {
	for _, records := range [][]flatRecord{
		{{0, []byte("abcdefgh")}, {4, []byte("XY")}, {20, []byte("Z")}},
		{{8, []byte("abc")}, {0, []byte("0123456789")}, {9, []byte("..")}, {2, []byte("--------------")}},
	} {
		f.Add(flatten(records, true)[flatHeaderSize:])
		f.Add(flatten(records, false)[flatHeaderSize:])
	}
	f.Fuzz(func(t *testing.T, records []byte) {
		p := append(flatten(nil, false), records...)
		fi, err := openFlattened(imageOf(p))
		if err != nil {
			t.Fatal(err)
		}
		want, ok := flatOracle(p, 1<<16)
		if !ok {
			return
		}
		if fi.Size() != int64(len(want)) {
			t.Fatalf("file of %d bytes, want %d", fi.Size(), len(want))
		}
		fi.cut = false // holes as zeros, as the oracle has them
		got := make([]byte, len(want))
		if n, err := fi.ReadAt(got, 0); len(want) > 0 && (n != len(want) || err != nil) || !bytes.Equal(got, want) {
			t.Fatalf("ReadAt = %d, %v: %q, want %q", n, err, got, want)
		}
		for i := range fi.extents {
			if i > 0 && fi.extents[i].start < fi.extents[i-1].end() {
				t.Fatalf("extents %d and %d overlap", i-1, i)
			}
		}
	})
}

// flatRecord is a record of a flattened dump.
type flatRecord struct {
	off  int
	data []byte
}

// flatten makes a flattened dump of records; with end, it ends as it should.
func flatten(records []flatRecord, end bool) []byte {
	be := binary.BigEndian
	out := make([]byte, pg)
	copy(out, flatSignature)
	be.PutUint64(out[16:], 1)
	be.PutUint64(out[24:], 1)
	for _, r := range records {
		out = be.AppendUint64(out, uint64(r.off))
		out = be.AppendUint64(out, uint64(len(r.data)))
		out = append(out, r.data...)
	}
	if end {
		out = be.AppendUint64(out, ^uint64(0))
		out = be.AppendUint64(out, ^uint64(0))
	}
	return out
}

// inRecords cuts a file into records of at most size bytes.
func inRecords(file []byte, size int) (records []flatRecord) {
	off := 0
	for c := range slices.Chunk(file, size) {
		records = append(records, flatRecord{off, c})
		off += len(c)
	}
	return records
}
