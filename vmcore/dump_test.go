package vmcore

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
)

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
