package vmcore

import (
	"bytes"
	"errors"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"testing"
)

func writeFile(t testing.TB, data []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "dump")
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestOpenFile(t *testing.T) {
	spec := kdumpSpec{codec: flagZlib, maxPFN: someMaxPFN, pages: somePages(true)}
	file := spec.build()
	d, err := Open(writeFile(t, file))
	if err != nil {
		t.Fatal(err)
	}
	checkPages(t, d, spec.pages)
	if d.FileSize != int64(len(file)) || d.Parts != 1 {
		t.Errorf("FileSize %d, Parts %d", d.FileSize, d.Parts)
	}
	page, err := d.Page(8 * pg)
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Close(); err != nil {
		t.Errorf("Close: %v", err)
	}
	if !bytes.Equal(page, spec.pages[8]) {
		t.Error("a page changed when the dump was closed")
	}
	if err := d.Close(); err != nil {
		t.Errorf("second Close: %v", err)
	}
}

// TestFileShrinks truncates the file of an open dump: reading what is gone
// faults, which must end as an error.
func TestFileShrinks(t *testing.T) {
	for _, codec := range codecs {
		// Enough incompressible pages to reach well beyond the system's page.
		spec := kdumpSpec{codec: codec, maxPFN: 64, pages: make(map[uint64][]byte)}
		for pfn := range uint64(40) {
			spec.pages[pfn] = noisePage(pfn)
			if codec == flagLZO {
				spec.pages[pfn] = testPage(pfn)
			}
		}
		spec.pages[40] = testPage(40)
		if codec == flagLZO {
			// Each page takes some 90 bytes; make the descriptors reach far.
			spec.maxPFN = 4096
			for pfn := range spec.maxPFN {
				spec.pages[pfn] = spec.pages[pfn%41]
			}
		}
		path := writeFile(t, spec.build())
		d, err := Open(path)
		if err != nil {
			t.Fatal(err)
		}
		defer d.Close()
		if err := os.Truncate(path, 5*pg); err != nil {
			t.Fatal(err)
		}
		bad := 0
		for pfn, want := range spec.pages {
			page, err := d.Page(PhysAddr(pfn * pg))
			switch {
			case err == nil && !bytes.Equal(page, want):
				t.Errorf("%s: page %#x read wrong", codecName(codec), pfn)
			case err != nil && !errors.Is(err, ErrCorrupt):
				t.Errorf("%s: %v", codecName(codec), err)
			case err != nil:
				bad++
			}
		}
		if bad == 0 {
			t.Errorf("%s: every page of a truncated file was read", codecName(codec))
		}
		d.Scan("truncated", func(PhysAddr, []byte) bool { return true })
	}
}

func TestOpenErrors(t *testing.T) {
	if _, err := Open(filepath.Join(t.TempDir(), "none")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a missing file: %v", err)
	}
	if _, err := Open(t.TempDir()); !errors.Is(err, ErrNotDump) {
		t.Errorf("a directory: %v", err)
	}
	if _, err := Open(writeFile(t, nil)); !errors.Is(err, ErrNotDump) {
		t.Errorf("an empty file: %v", err)
	}
	if _, err := Open(); !errors.Is(err, ErrNotDump) {
		t.Errorf("no file: %v", err)
	}
	// A /proc file has content, no size, and cannot be mapped; and this one is
	// no dump.
	var nd *NotDumpError
	if _, err := Open("/proc/self/status"); !errors.As(err, &nd) || nd.Is != "a text file" {
		t.Errorf("/proc/self/status: %v", err)
	}
	if _, err := Open(os.DevNull); !errors.As(err, &nd) || nd.Is != "an empty file" {
		t.Errorf("%s: %v", os.DevNull, err)
	}
}

// TestLargeMachine opens a dump of a 1 TiB machine: a sparse file of which next
// to nothing may be read.
func TestLargeMachine(t *testing.T) {
	path := writeLargeDump(t)
	d, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if d.MaxPFN != largeMaxPFN {
		t.Errorf("MaxPFN = %#x", d.MaxPFN)
	}
	last := PhysAddr(largeMaxPFN-1) * pg
	if p, err := d.Page(last); err != nil || !bytes.Equal(p, testPage(largeMaxPFN-1)) {
		t.Errorf("last page: %v", err)
	}
	if _, err := d.Page(last - pg); !errors.Is(err, ErrAbsent) {
		t.Errorf("the page before it: %v", err)
	}
	n := 0
	for addr, size := range d.PhysRanges() {
		if n++; addr != last || size != pg {
			t.Errorf("run %#x+%#x", uint64(addr), size)
		}
	}
	if present, excluded, absent := d.PageCounts(); n != 1 || present != 1 || excluded != 0 || absent != largeMaxPFN-1 {
		t.Errorf("%d runs; PageCounts = %d, %d, %d", n, present, excluded, absent)
	}
}

const largeMaxPFN = 1<<40/pg + 1<<20 // 1 TiB and the 4 GiB hole

// writeLargeDump writes a dump with one page, the last, of a large machine.
func writeLargeDump(t testing.TB) string {
	t.Helper()
	small := kdumpSpec{codec: flagZstd, maxPFN: 8, pages: map[uint64][]byte{0: testPage(largeMaxPFN - 1)}}.build()
	f, err := os.Create(filepath.Join(t.TempDir(), "large"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	s := &shrinker{w: f, src: &Dump{PageSize: pg, MaxPFN: largeMaxPFN}}
	mapSize := s.bitmapBlocks() / 2 * pg
	head := bytes.Clone(small[:2*pg])
	put := func(off int, v uint64, n int) {
		for i := range n {
			head[off+i] = byte(v >> (8 * i))
		}
	}
	put(hdrBitmapBlocks, s.bitmapBlocks(), 4)
	put(hdrMaxMapNr, largeMaxPFN, 4)
	put(pg+subMaxMapNr64, largeMaxPFN, 8)
	descs := 2*pg + 2*mapSize
	tail := bytes.Clone(small[4*pg:])
	put2 := uint64(descs + descSize)
	for i := range 8 {
		tail[i] = byte(put2 >> (8 * i))
	}
	const lastBit = byte(1 << ((largeMaxPFN - 1) % 8))
	for _, w := range []struct {
		p   []byte
		off uint64
	}{
		{head, 0}, {[]byte{lastBit}, 2*pg + (largeMaxPFN-1)/8}, {[]byte{lastBit}, 2*pg + mapSize + (largeMaxPFN-1)/8}, {tail, descs},
	} {
		if _, err := f.WriteAt(w.p, int64(w.off)); err != nil {
			t.Fatal(err)
		}
	}
	return f.Name()
}

// TestUnknownSize opens a dump through a reader that does not know its size.
func TestUnknownSize(t *testing.T) {
	spec := kdumpSpec{codec: flagZlib, maxPFN: someMaxPFN, pages: somePages(true)}
	d, err := NewReader(Part{R: bytes.NewReader(spec.build()), Size: math.MaxInt64, Name: "stream"})
	if err != nil {
		t.Fatal(err)
	}
	checkPages(t, d, spec.pages)
}
