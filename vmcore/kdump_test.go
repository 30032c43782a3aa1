package vmcore

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

var codecs = []uint32{0, flagZlib, flagLZO, flagSnappy, flagZstd}

func TestKdump(t *testing.T) {
	for version := 1; version <= 6; version++ {
		for _, codec := range codecs {
			t.Run(fmt.Sprintf("v%d/%s", version, codecName(codec)), func(t *testing.T) {
				noise := codec != flagLZO
				spec := kdumpSpec{version: version, codec: codec, maxPFN: someMaxPFN, pages: somePages(noise),
					excluded: []uint64{3, 10000}, release: "6.1.0", dumpLevel: 31, time: 1690000000,
					info: someInfo("6.1.0"), notes: prstatus(42, 0x1000), physBase: 0x2000}
				d := mustOpen(t, spec.build())
				checkPages(t, d, spec.pages)

				type facts struct {
					Format, Writer, Compression, Machine, Release string
					Version, PageSize, DumpLevel, CPUs, Notes     int
					MaxPFN, PhysBase                              uint64
					Time                                          time.Time
					Incomplete, Flattened                         bool
				}
				got := facts{d.Format, d.Writer, d.Compression, d.Machine, d.Release,
					d.HeaderVersion, d.PageSize, d.DumpLevel, len(d.CPUs), len(d.Notes),
					d.MaxPFN, d.PhysBase, d.CrashTime, d.Incomplete, d.Flattened}
				want := facts{"kdump-compressed", "makedumpfile", codecName(codec), "x86_64", "6.1.0",
					version, pg, 31, 0, 0, someMaxPFN, 0x2000, time.Unix(1690000000, 0).UTC(), false, false}
				if version >= 3 { // VMCOREINFO
					want.PhysBase = 16777216
					want.Time = time.Unix(1700000000, 0).UTC()
				}
				if version >= 4 { // notes
					want.CPUs, want.Notes = 1, 1
				}
				if got != want {
					t.Errorf("facts\n got %+v\nwant %+v", got, want)
				}
				if version >= 3 {
					if v, err := d.VMCoreInfo(); err != nil || v.Source != "note" || v.Raw != spec.info {
						t.Errorf("VMCoreInfo = %+v, %v", v, err)
					}
				}
			})
		}
	}
}

func TestDiskdump(t *testing.T) {
	spec := kdumpSpec{signature: "DISKDUMP", version: 1, codec: flagZlib, maxPFN: someMaxPFN, pages: somePages(true), oneBitmap: true}
	d := mustOpen(t, spec.build())
	checkPages(t, d, spec.pages)
	if d.DumpLevel != -1 {
		t.Errorf("DumpLevel = %d, want -1: an old dump's sub header is not ours", d.DumpLevel)
	}
}

func TestPageStates(t *testing.T) {
	spec := kdumpSpec{codec: flagZstd, maxPFN: someMaxPFN, pages: somePages(true), excluded: []uint64{3, 10000, 39998}}
	d := mustOpen(t, spec.build())
	for addr, want := range map[PhysAddr]error{
		3 * pg:           ErrExcluded,
		39998*pg + 4095:  ErrExcluded,
		4 * pg:           ErrAbsent,
		someMaxPFN * pg:  ErrAbsent,
		1 << 51:          ErrAbsent,
		^PhysAddr(0) - 1: ErrAbsent,
	} {
		if d.Present(addr) {
			t.Errorf("Present(%#x) = true", uint64(addr))
		}
		_, err := d.Page(addr)
		var pe *PageError
		if !errors.Is(err, want) || !errors.As(err, &pe) || pe.Addr != addr {
			t.Errorf("Page(%#x): %v, want %v there", uint64(addr), err, want)
		}
	}
	present, excluded, absent := d.PageCounts()
	if present != 14 || excluded != 3 || absent != someMaxPFN-17 {
		t.Errorf("PageCounts = %d, %d, %d", present, excluded, absent)
	}

	// A read fails at the first page that is missing, and says so.
	buf := make([]byte, 3*pg)
	err := d.ReadPhys(buf, 1*pg+100)
	var pe *PageError
	if !errors.As(err, &pe) || pe.Addr != 3*pg || !errors.Is(err, ErrExcluded) {
		t.Errorf("ReadPhys over a gap: %v", err)
	}
	if !bytes.Equal(buf[:2*pg-100], slices.Concat(spec.pages[1], spec.pages[2])[100:]) {
		t.Error("ReadPhys did not fill in what comes before the gap")
	}
	if err := d.ReadPhys(nil, 3*pg); err != nil {
		t.Errorf("ReadPhys of nothing: %v", err)
	}
}

func TestReadPhysAcrossPages(t *testing.T) {
	spec := kdumpSpec{codec: flagZlib, maxPFN: someMaxPFN, pages: somePages(true)}
	d := mustOpen(t, spec.build())
	all := slices.Concat(spec.pages[0], spec.pages[1], spec.pages[2])
	for _, c := range [][2]int{{0, 1}, {4095, 2}, {1, 3*pg - 1}, {0, 3 * pg}, {100, 4000}, {pg, pg}} {
		buf := make([]byte, c[1])
		if err := d.ReadPhys(buf, PhysAddr(c[0])); err != nil || !bytes.Equal(buf, all[c[0]:c[0]+c[1]]) {
			t.Errorf("ReadPhys of %d bytes at %#x differs (error %v)", c[1], c[0], err)
		}
	}
}

func TestSplit(t *testing.T) {
	for _, version := range []int{2, 5, 6} {
		spec := kdumpSpec{version: version, codec: flagZlib, maxPFN: someMaxPFN, pages: somePages(true), excluded: []uint64{3}, split: true}
		part := func(start, end uint64) []byte {
			s := spec
			s.start, s.end = start, end
			return s.build()
		}
		a, b, c := part(0, 60), part(60, 9001), part(9001, someMaxPFN)
		for _, order := range [][][]byte{{a, b, c}, {c, a, b}, {b, c, a}} {
			d := mustOpen(t, order...)
			checkPages(t, d, spec.pages)
			if d.Parts != 3 {
				t.Errorf("Parts = %d", d.Parts)
			}
			if _, err := d.Page(3 * pg); !errors.Is(err, ErrExcluded) {
				t.Errorf("excluded page: %v", err)
			}
		}
		whole := spec
		whole.split = false
		other := spec
		other.release, other.start, other.end = "other", 60, someMaxPFN
		for name, bad := range map[string]struct {
			files [][]byte
			say   string
		}{
			"first missing":  {[][]byte{b, c}, "pages 0x0-0x3c"},
			"middle missing": {[][]byte{c, a}, "pages 0x3c-0x2329"},
			"last missing":   {[][]byte{a, b}, "pages 0x2329-0x9c40"},
			"twice":          {[][]byte{a, b, b, c}, "give each part once"},
			"two wholes":     {[][]byte{whole.build(), whole.build()}, "one dump at a time"},
			"foreign part":   {[][]byte{a, other.build()}, "not parts of the same dump"},
		} {
			if _, err := openBytes(bad.files...); !errors.Is(err, ErrMissingPart) || !strings.Contains(err.Error(), bad.say) {
				t.Errorf("v%d, %s: error %v, want %q", version, name, err, bad.say)
			}
		}
		if _, err := openBytes(a, []byte("text\n")); !errors.Is(err, ErrNotDump) {
			t.Errorf("a part that is text: %v", err)
		}
	}
}

func TestQEMUKdump(t *testing.T) {
	spec := kdumpSpec{codec: flagSnappy, maxPFN: someMaxPFN, pages: somePages(true), dumpLevel: 1,
		physBase: 0xfffffff8a8f8e78e, // NUMBER(phys_base) read as hexadecimal
		notes: slices.Concat(prstatus(1, 0x1000), prstatus(2, 0x2000), qemuState(0x5000, true), qemuState(0x6000, false),
			note("VMCOREINFO", 0, []byte(someInfo("4.18.0-305.el8")+"\x00")))}
	for name, file := range map[string][]byte{
		"raw":       spec.build(),
		"flattened": flatten(inRecords(spec.build(), 1000), true),
	} {
		t.Run(name, func(t *testing.T) {
			d := mustOpen(t, file)
			checkPages(t, d, spec.pages)
			if d.Writer != "qemu" || d.Release != "4.18.0-305.el8" || d.PhysBase != 16777216 || d.Flattened != (name == "flattened") {
				t.Errorf("Writer %q, Release %q, PhysBase %#x, Flattened %v", d.Writer, d.Release, d.PhysBase, d.Flattened)
			}
			if v, err := d.VMCoreInfo(); err != nil || v.Source != "qemu note" {
				t.Errorf("VMCoreInfo: %+v, %v", v, err)
			}
			if len(d.CPUs) != 2 || d.CPUs[1].Control[3] != 0x6000+96+3 || d.CPUs[0].KernelGSBase != 0x5000+128 || d.CPUs[1].KernelGSBase != 0 {
				t.Errorf("CPUs = %+v", d.CPUs)
			}
		})
	}
}

func TestIncomplete(t *testing.T) {
	spec := kdumpSpec{codec: flagZlib, status: flagIncomplete, maxPFN: someMaxPFN, pages: somePages(true), cutDescs: 3}
	d := mustOpen(t, spec.build())
	if !d.Incomplete {
		t.Error("Incomplete = false")
	}
	pfns := spec.pfns()
	for _, pfn := range pfns[len(pfns)-3:] {
		if _, err := d.Page(PhysAddr(pfn * pg)); !errors.Is(err, ErrCorrupt) {
			t.Errorf("page %#x that was never written: %v", pfn, err)
		}
	}
	for _, pfn := range pfns[:len(pfns)-3] {
		if p, err := d.Page(PhysAddr(pfn * pg)); err != nil || !bytes.Equal(p, spec.pages[pfn]) {
			t.Errorf("page %#x: %v", pfn, err)
		}
	}
}

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

func FuzzDecompress(f *testing.F) {
	for _, codec := range codecs {
		f.Add(compressPage(testPage(1), codec), codec)
	}
	f.Fuzz(func(t *testing.T, src []byte, flags uint32) {
		// Room behind the page shows a write past its end.
		buf := bytes.Repeat([]byte{0xa5}, pg+64)
		if err := decompress(buf[:pg], src, flags); err != nil && !errors.Is(err, ErrCorrupt) {
			t.Fatal(err)
		}
		if !bytes.Equal(buf[pg:], bytes.Repeat([]byte{0xa5}, 64)) {
			t.Fatalf("%s wrote past the page", codecName(flags))
		}
	})
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

func TestConcurrentReads(t *testing.T) {
	spec := kdumpSpec{codec: flagZstd, maxPFN: someMaxPFN, pages: make(map[uint64][]byte)}
	for pfn := range uint64(300) {
		spec.pages[pfn*131] = testPage(pfn * 131)
	}
	d := mustOpen(t, spec.build())
	d.cache = newPageCache(64*pg, pg) // small: pages come and go
	pfns := spec.pfns()
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(uint64(g), 0))
			buf := make([]byte, 100)
			for range 2000 {
				pfn := pfns[r.IntN(len(pfns))]
				p, err := d.Page(PhysAddr(pfn * pg))
				if err != nil || !bytes.Equal(p, spec.pages[pfn]) {
					t.Errorf("page %#x read wrong (error %v)", pfn, err)
					return
				}
				if err := d.ReadPhys(buf, PhysAddr(pfn*pg+50)); err != nil || !bytes.Equal(buf, spec.pages[pfn][50:150]) {
					t.Errorf("ReadPhys in page %#x read wrong (error %v)", pfn, err)
					return
				}
			}
		})
	}
	wg.Wait()
	kept := 0
	for i := range d.cache.sets {
		for j := range d.cache.sets[i].slots {
			if d.cache.sets[i].slots[j].Load() != nil {
				kept++
			}
		}
	}
	if kept == 0 || kept > 64 {
		t.Errorf("cache keeps %d pages, its bound is 64", kept)
	}
}

// TestCachedReadsDoNotAllocate holds the hot path to its promise.
func TestCachedReadsDoNotAllocate(t *testing.T) {
	spec := kdumpSpec{codec: flagZstd, maxPFN: someMaxPFN, pages: somePages(true)}
	d, err := Open(writeFile(t, spec.build()))
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	buf := make([]byte, 8)
	if n := testing.AllocsPerRun(100, func() { d.ReadPhys(buf, 8*pg+16) }); n != 0 {
		t.Errorf("ReadPhys of a cached page allocates %v times", n)
	}
	if n := testing.AllocsPerRun(100, func() { d.Present(8 * pg) }); n != 0 {
		t.Errorf("Present allocates %v times", n)
	}
	whole := make([]byte, pg)
	for name, codec := range map[string]uint32{"lzo": flagLZO, "snappy": flagSnappy, "zstd": flagZstd, "zlib": flagZlib} {
		spec.codec, spec.pages = codec, map[uint64][]byte{1: testPage(1)}
		d, err := Open(writeFile(t, spec.build()))
		if err != nil {
			t.Fatal(err)
		}
		defer d.Close()
		if n := testing.AllocsPerRun(100, func() { d.ReadPhys(whole, pg) }); n > 1 && !raceEnabled {
			t.Errorf("%s: a whole page read allocates %v times", name, n)
		}
	}
}

func TestScan(t *testing.T) {
	spec := kdumpSpec{codec: flagZlib, maxPFN: someMaxPFN, pages: somePages(true), excluded: []uint64{3}}
	d := mustOpen(t, spec.build())
	var (
		mu   sync.Mutex
		got  = make(map[uint64][]byte)
		last int64
	)
	d.OnProgress = func(what string, done, total int64) {
		mu.Lock()
		defer mu.Unlock()
		if last = max(last, done); what != "look" || total != int64(len(spec.pages)) {
			t.Errorf("progress of %q: %d of %d", what, done, total)
		}
	}
	d.Scan("look", func(addr PhysAddr, page []byte) bool {
		mu.Lock()
		defer mu.Unlock()
		got[uint64(addr)/pg] = bytes.Clone(page)
		return true
	})
	if !maps.EqualFunc(got, spec.pages, bytes.Equal) {
		t.Errorf("Scan gave %d pages, want %d, or gave them wrong", len(got), len(spec.pages))
	}
	if last != int64(len(spec.pages)) {
		t.Errorf("progress ended at %d of %d", last, len(spec.pages))
	}
	d.OnProgress = nil
	calls := 0
	d.Scan("stop", func(PhysAddr, []byte) bool {
		mu.Lock()
		defer mu.Unlock()
		calls++
		return false
	})
	if calls == 0 || calls > runtime.GOMAXPROCS(0) {
		t.Errorf("Scan called f %d times after it said stop", calls)
	}
}
