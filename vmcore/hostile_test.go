package vmcore

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math"
	"math/rand/v2"
	"runtime"
	"slices"
	"testing"
)

// TestTruncated cuts dumps of every format everywhere. What is left must be
// refused or read right; it must never be read wrong.
func TestTruncated(t *testing.T) {
	kd := kdumpSpec{codec: flagZlib, maxPFN: someMaxPFN, pages: somePages(true), release: "6.1.0",
		info: someInfo("6.1.0"), notes: slices.Concat(prstatus(1, 0), qemuState(0, true))}
	core := elfSpec{notes: slices.Concat(prstatus(1, 0), note("VMCOREINFO", 0, []byte(someInfo("6.1.0")))), noteAlign: pg}
	for pfn, page := range kd.pages {
		core.segs = append(core.segs, elfSeg{phys: pfn * pg, data: page})
	}
	files := map[string][]byte{
		"kdump":           kd.build(),
		"elf":             core.build(),
		"flattened kdump": flatten(inRecords(kd.build(), 3000), true),
		"flattened elf":   flatten(inRecords(core.build(), 3000), true),
	}
	for name, file := range files {
		opened, read := 0, 0
		cuts := []int{0, 1, 7, 8, 463, 464, pg - 1, pg, pg + 1, pg + 103, pg + 104, 2*pg - 1, 2 * pg, len(file) - 1, len(file) - 16}
		for n := 0; n < len(file); n += 97 {
			cuts = append(cuts, n)
		}
		for _, n := range cuts {
			d, err := openBytes(file[:n])
			if err != nil {
				if !errors.Is(err, ErrCorrupt) && !errors.Is(err, ErrNotDump) {
					t.Fatalf("%s cut to %d bytes: %v", name, n, err)
				}
				continue
			}
			opened++
			if !d.Incomplete {
				t.Errorf("%s cut to %d of %d bytes: Incomplete = false", name, n, len(file))
			}
			for pfn, want := range kd.pages {
				got, err := d.Page(PhysAddr(pfn * pg))
				switch {
				case err == nil && !bytes.Equal(got, want):
					t.Errorf("%s cut to %d bytes: page %#x read wrong", name, n, pfn)
				case err == nil:
					read++
				case !errors.Is(err, ErrCorrupt) && !errors.Is(err, ErrExcluded) && !errors.Is(err, ErrAbsent):
					t.Errorf("%s cut to %d bytes: %v", name, n, err)
				}
			}
			for range d.PhysRanges() {
			}
			d.PageCounts()
		}
		if opened < len(cuts)/2 || read == 0 {
			t.Errorf("%s: only %d of %d cuts could be opened, %d pages read", name, opened, len(cuts), read)
		}
	}
}

// TestBrokenPages breaks one thing in a page's descriptor or data at a time.
func TestBrokenPages(t *testing.T) {
	for _, codec := range codecs {
		spec := kdumpSpec{codec: codec, maxPFN: 8, pages: map[uint64][]byte{1: testPage(1), 2: testPage(2)}}
		good := spec.build()
		desc := 4 * pg // header, sub header and two bitmaps come first
		for name, breakIt := range map[string]func(d []byte){
			"no size":            func(d []byte) { binary.LittleEndian.PutUint32(d[8:], 0) },
			"size over a page":   func(d []byte) { binary.LittleEndian.PutUint32(d[8:], pg+1) },
			"size of 4 GiB":      func(d []byte) { binary.LittleEndian.PutUint32(d[8:], 1<<32-1) },
			"short":              func(d []byte) { d[8]--; d[9]-- },
			"offset past end":    func(d []byte) { binary.LittleEndian.PutUint64(d, 1<<40) },
			"offset negative":    func(d []byte) { binary.LittleEndian.PutUint64(d, 1<<63+100) },
			"unknown codec":      func(d []byte) { d[12] = 0x21 },
			"uncompressed short": func(d []byte) { d[12] = 0; binary.LittleEndian.PutUint32(d[8:], 100) },
		} {
			bad := bytes.Clone(good)
			breakIt(bad[desc:])
			d := mustOpen(t, bad)
			if _, err := d.Page(pg); !errors.Is(err, ErrCorrupt) {
				t.Errorf("%s, %s: %v", codecName(codec), name, err)
			}
			if p, err := d.Page(2 * pg); err != nil || !bytes.Equal(p, spec.pages[2]) {
				t.Errorf("%s, %s: the page beside the broken one: %v", codecName(codec), name, err)
			}
		}
	}
}

// TestHostileDecompression feeds every decompressor damaged data.
func TestHostileDecompression(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	dst := make([]byte, pg)
	for _, codec := range codecs[1:] {
		good := compressPage(testPage(1), codec)
		for range 20000 {
			src := bytes.Clone(good)
			for range 1 + r.IntN(4) {
				src[r.IntN(len(src))] = byte(r.Uint32())
			}
			src = src[:1+r.IntN(len(src))]
			if err := decompress(dst, src, codec); err != nil && !errors.Is(err, ErrCorrupt) {
				t.Fatalf("%s: %v", codecName(codec), err)
			}
		}
		// A bomb: much more than a page.
		bomb := compressPage(bytes.Repeat(testPage(1), 3), codec)
		if err := decompress(dst, bomb, codec); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%s: three pages where one should be: %v", codecName(codec), err)
		}
	}
}

// TestHostileHeader opens headers that claim the world. They must cost what
// the file is worth.
func TestHostileHeader(t *testing.T) {
	base := kdumpSpec{codec: flagZlib, maxPFN: someMaxPFN, pages: somePages(true), info: someInfo("x"), notes: prstatus(1, 0)}.build()
	fields := map[string]struct{ off, size int }{
		"version": {8, 4}, "block size": {428, 4}, "sub header size": {432, 4}, "bitmap blocks": {436, 4}, "max_mapnr": {440, 4},
		"split": {pg + 12, 4}, "start_pfn": {pg + 16, 8}, "end_pfn": {pg + 24, 8},
		"vmcoreinfo offset": {pg + 32, 8}, "vmcoreinfo size": {pg + 40, 8}, "note offset": {pg + 48, 8}, "note size": {pg + 56, 8},
		"start_pfn_64": {pg + 80, 8}, "end_pfn_64": {pg + 88, 8}, "max_mapnr_64": {pg + 96, 8},
	}
	values := []uint64{0, 1, 7, 4095, 4096, 65536, 1 << 20, 1<<31 - 1, 1 << 31, 1<<32 - 1, 1 << 40, 1 << 52, 1<<63 - 1, 1 << 63, 1<<64 - 1}
	for name, f := range fields {
		for _, v := range values {
			file := bytes.Clone(base)
			for i := range f.size {
				file[f.off+i] = byte(v >> (8 * i))
			}
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			d, err := openBytes(file)
			if err == nil {
				for pfn := range somePages(true) {
					d.Page(PhysAddr(pfn * pg))
				}
				d.Page(1 << 50)
				d.PageCounts()
				for range d.PhysRanges() {
				}
			} else if !errors.Is(err, ErrCorrupt) && !errors.Is(err, ErrNotDump) && !errors.Is(err, ErrMissingPart) {
				t.Errorf("%s = %#x: %v", name, v, err)
			}
			runtime.ReadMemStats(&after)
			if n := after.TotalAlloc - before.TotalAlloc; n > 4<<20 {
				t.Errorf("%s = %#x: took %d bytes of memory", name, v, n)
			}
		}
	}
}

// TestHostileELF damages the places in the file header and program headers.
func TestHostileELF(t *testing.T) {
	base := elfSpec{notes: slices.Concat(prstatus(1, 0), infoNote), segs: []elfSeg{{phys: 0x1000, data: span(1, 3)}, {phys: 0x100000, data: span(0x100, 1)}}}.build()
	type field struct{ off, size int }
	fields := []field{{32, 8}, {40, 8}, {54, 2}, {56, 2}}
	for ph := 64; ph < 64+3*56; ph += 56 {
		for _, off := range []int{8, 16, 24, 32, 40} {
			fields = append(fields, field{ph + off, 8})
		}
	}
	opened := 0
	for _, f := range fields {
		for _, v := range []uint64{0, 1, 4095, 0xffff, 1 << 20, 1<<32 - 1, 1 << 40, 1 << 52, 1<<63 - 1, 1 << 63, math.MaxUint64 - 4095, math.MaxUint64} {
			file := bytes.Clone(base)
			for i := range f.size {
				file[f.off+i] = byte(v >> (8 * i))
			}
			d, err := openBytes(file)
			if err != nil {
				if !errors.Is(err, ErrCorrupt) && !errors.Is(err, ErrNotDump) {
					t.Errorf("field at %d = %#x: %v", f.off, v, err)
				}
				continue
			}
			opened++
			d.PageCounts()
			n := 0
			for addr := range d.PhysRanges() {
				d.Page(addr)
				n++
			}
			if n > 4 {
				t.Errorf("field at %d = %#x: %d runs of memory", f.off, v, n)
			}
			d.Page(0x1000)
			d.Page(PhysAddr(v))
		}
	}
	if opened < 100 {
		t.Errorf("only %d of the damaged files could be opened", opened)
	}
}
