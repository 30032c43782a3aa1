package vmcore

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"iter"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// memFile is a new file in memory.
type memFile struct {
	data []byte
	pos  int64
	fail int // writes until one fails, if not 0
}

func (f *memFile) Seek(off int64, whence int) (int64, error) {
	if whence != io.SeekStart {
		return 0, errors.ErrUnsupported
	}
	f.pos = off
	return off, nil
}

func (f *memFile) Write(p []byte) (int, error) {
	if f.fail > 0 {
		if f.fail--; f.fail == 0 {
			return 0, errors.New("disk full")
		}
	}
	if need := f.pos + int64(len(p)); need > int64(len(f.data)) {
		f.data = append(f.data, make([]byte, need-int64(len(f.data)))...)
	}
	copy(f.data[f.pos:], p)
	f.pos += int64(len(p))
	return len(p), nil
}

func allPages(d *Dump) iter.Seq[uint64] {
	return func(yield func(uint64) bool) {
		for pfn := range d.MaxPFN {
			if !yield(pfn) {
				return
			}
		}
	}
}

func shrink(t *testing.T, src *Dump, pages iter.Seq[uint64]) (*Dump, []byte) {
	t.Helper()
	var f memFile
	if err := Shrink(&f, src, pages); err != nil {
		t.Fatal(err)
	}
	return mustOpen(t, f.data), f.data
}

func TestShrink(t *testing.T) {
	pages := somePages(true)
	pages[50] = make([]byte, pg)
	pages[39990] = make([]byte, pg)
	spec := kdumpSpec{codec: flagZlib, maxPFN: someMaxPFN, pages: pages, excluded: []uint64{3, 10000}, release: "6.1.0", dumpLevel: 17,
		notes: slices.Concat(prstatus(1, 0x1000), prstatus(2, 0x2000), note("VMCOREINFO", 0, []byte(someInfo("6.1.0"))))}
	src := mustOpen(t, spec.build())
	d, file := shrink(t, src, allPages(src))
	checkPages(t, d, pages)

	if d.Compression != "zstd" || d.HeaderVersion != 6 || d.Release != "6.1.0" || d.Machine != "x86_64" || d.MaxPFN != src.MaxPFN ||
		!d.CrashTime.Equal(src.CrashTime) || d.PhysBase != src.PhysBase || d.DumpLevel != 31 || d.Incomplete || d.Flattened {
		t.Errorf("facts: %+v", d)
	}
	if !reflect.DeepEqual(d.CPUs, src.CPUs) || !reflect.DeepEqual(d.Notes, src.Notes) {
		t.Errorf("CPUs or notes differ:\n%+v\n%+v", d.Notes, src.Notes)
	}
	p1, e1, a1 := src.PageCounts()
	if p2, e2, a2 := d.PageCounts(); p1 != p2 || e1 != e2 || a1 != a2 {
		t.Errorf("PageCounts = %d, %d, %d; the source has %d, %d, %d", p2, e2, a2, p1, e1, a1)
	}
	v, err := d.VMCoreInfo()
	if err != nil || v.Raw != someInfo("6.1.0") || v.Source != "note" {
		t.Errorf("VMCoreInfo: %+v, %v", v, err)
	}
	// The text is also where readers that do not parse notes look.
	off, size := binary.LittleEndian.Uint64(file[pg+subInfoOffset:]), binary.LittleEndian.Uint64(file[pg+subInfoSize:])
	if got := string(file[off : off+size]); got != someInfo("6.1.0") {
		t.Errorf("VMCOREINFO at the sub header's offset: %q", got)
	}

	_, again := shrink(t, src, allPages(src))
	if !bytes.Equal(file, again) {
		t.Error("the same pages make a different file")
	}
}

func TestShrinkChosenPages(t *testing.T) {
	spec := kdumpSpec{codec: flagLZO, maxPFN: someMaxPFN, pages: somePages(false), excluded: []uint64{3}}
	src := mustOpen(t, spec.build())
	d, _ := shrink(t, src, slices.Values([]uint64{1, 3, 4, 64, 32768, 39999, 1 << 60}))
	want := maps.Clone(spec.pages)
	maps.DeleteFunc(want, func(pfn uint64, _ []byte) bool { return !slices.Contains([]uint64{1, 64, 32768, 39999}, pfn) })
	checkPages(t, d, want)
	for pfn, state := range map[uint64]error{0: ErrExcluded, 3: ErrExcluded, 4: ErrAbsent, 9000: ErrExcluded, 9001: ErrAbsent} {
		if _, err := d.Page(PhysAddr(pfn * pg)); !errors.Is(err, state) {
			t.Errorf("page %#x: %v, want %v", pfn, err, state)
		}
	}

	d, _ = shrink(t, src, slices.Values([]uint64(nil)))
	checkPages(t, d, nil)
	if err := Shrink(new(memFile), src, slices.Values([]uint64{5, 5})); err == nil || !strings.Contains(err.Error(), "must ascend") {
		t.Errorf("a page twice: %v", err)
	}
}

// TestShrinkFormats shrinks what is not a plain kdump.
func TestShrinkFormats(t *testing.T) {
	half := kdumpSpec{codec: flagZlib, maxPFN: someMaxPFN, pages: somePages(true), split: true}
	first, second := half, half
	first.end, second.start, second.end = 1000, 1000, someMaxPFN
	for name, c := range map[string]struct {
		files [][]byte
		pages map[uint64][]byte
	}{
		"split": {[][]byte{first.build(), second.build()}, half.pages},
		"elf": {[][]byte{elfSpec{notes: slices.Concat(prstatus(1, 0), infoNote),
			segs: []elfSeg{{phys: 0x1000, data: span(1, 3), mem: 10 * pg}}}.build()}, pagesOf(1, 3)},
		"flattened QEMU": {[][]byte{flatten(inRecords(kdumpSpec{codec: flagSnappy, maxPFN: someMaxPFN, pages: somePages(true),
			notes: slices.Concat(prstatus(1, 0), qemuState(0, true))}.build(), 1000), true)}, somePages(true)},
	} {
		src := mustOpen(t, c.files...)
		d, _ := shrink(t, src, allPages(src))
		checkPages(t, d, c.pages)
		if !reflect.DeepEqual(d.CPUs, src.CPUs) || d.Writer == "qemu" != (src.Writer == "qemu") {
			t.Errorf("%s: CPUs %+v, want %+v; Writer %q", name, d.CPUs, src.CPUs, d.Writer)
		}
		p1, e1, a1 := src.PageCounts()
		if p2, e2, a2 := d.PageCounts(); p1 != p2 || e1 != e2 || a1 != a2 {
			t.Errorf("%s: PageCounts = %d, %d, %d; the source has %d, %d, %d", name, p2, e2, a2, p1, e1, a1)
		}
	}
}

// TestShrinkScannedInfo: VMCOREINFO that only memory has goes into the file.
func TestShrinkScannedInfo(t *testing.T) {
	src := infoDump(t, "5.14.0-own", map[uint64]string{30 * pg: someInfo("5.14.0-own")})
	d, _ := shrink(t, src, slices.Values([]uint64{5}))
	v, err := d.VMCoreInfo()
	if err != nil || v.Source != "note" || v.Raw != someInfo("5.14.0-own") {
		t.Errorf("VMCoreInfo: %+v, %v", v, err)
	}
	if d.Release != "5.14.0-own" || d.NodeName != "host" || d.Version != "#1 SMP" {
		t.Errorf("Release %q, NodeName %q, Version %q: not those of init_uts_ns", d.Release, d.NodeName, d.Version)
	}
}

// TestShrinkBrokenPage leaves out a page that the source cannot read.
func TestShrinkBrokenPage(t *testing.T) {
	spec := kdumpSpec{codec: flagZlib, maxPFN: 8, pages: map[uint64][]byte{1: testPage(1), 2: testPage(2), 3: testPage(3)}}
	file := spec.build()
	binary.LittleEndian.PutUint64(file[4*pg+descSize:], 1<<50)
	src := mustOpen(t, file)
	d, _ := shrink(t, src, allPages(src))
	delete(spec.pages, 2)
	checkPages(t, d, spec.pages)
	if _, err := d.Page(2 * pg); !errors.Is(err, ErrExcluded) {
		t.Errorf("the broken page: %v", err)
	}
}

func TestShrinkDiskFull(t *testing.T) {
	spec := kdumpSpec{codec: flagZlib, maxPFN: someMaxPFN, pages: somePages(true)}
	src := mustOpen(t, spec.build())
	for n := 1; ; n++ {
		f := &memFile{fail: n}
		if err := Shrink(f, src, allPages(src)); err == nil {
			if n < 6 {
				t.Errorf("no error although write %d failed", n)
			}
			break
		} else if !strings.Contains(err.Error(), "disk full") {
			t.Errorf("write %d failed: %v", n, err)
		}
		if _, err := openBytes(f.data); err == nil {
			t.Errorf("write %d failed, yet what was written opens as a dump", n)
		}
	}
}
