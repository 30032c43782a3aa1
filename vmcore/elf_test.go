package vmcore

import (
	"bytes"
	"debug/elf"
	"errors"
	"maps"
	"math"
	"slices"
	"strings"
	"testing"
	"time"
)

// span is the contents of n pages from pfn on.
func span(pfn, n uint64) (data []byte) {
	for i := range n {
		data = append(data, testPage(pfn+i)...)
	}
	return data
}

// pagesOf is the pages of a span.
func pagesOf(pfn, n uint64) map[uint64][]byte {
	m := make(map[uint64][]byte)
	for i := range n {
		m[pfn+i] = testPage(pfn + i)
	}
	return m
}

func join(ms ...map[uint64][]byte) map[uint64][]byte {
	all := make(map[uint64][]byte)
	for _, m := range ms {
		maps.Copy(all, m)
	}
	return all
}

var infoNote = note("VMCOREINFO", 0, []byte(someInfo("6.1.0")))

func TestELF(t *testing.T) {
	ram := []elfSeg{{phys: 0x1000, data: span(1, 3)}, {virt: 0xffff888000100000, phys: 0x100000, data: span(0x100, 4)}}
	ramPages := join(pagesOf(1, 3), pagesOf(0x100, 4))
	var many []elfSeg
	for i := range uint64(70000) {
		many = append(many, elfSeg{phys: i * 2 * pg, data: []byte{byte(i)}, mem: pg})
	}
	manyPages := make(map[uint64][]byte)
	for i := range uint64(70000) {
		p := make([]byte, pg)
		p[0] = byte(i)
		manyPages[2*i] = p
	}

	for _, c := range []struct {
		name     string
		spec     elfSpec
		pages    map[uint64][]byte
		writer   string
		maxPFN   uint64
		excluded uint64
		cpus     int
	}{
		{"/proc/vmcore", elfSpec{notes: slices.Concat(prstatus(5, 0), infoNote), noteAlign: pg, segs: ram}, ramPages, "kernel", 0x104, 0, 1},
		{"makedumpfile -E", elfSpec{notes: slices.Concat(prstatus(5, 0), infoNote),
			segs: []elfSeg{{phys: 0x1000, data: span(1, 3), mem: 10 * pg}, {phys: 0x100000, mem: 2 * pg}, {phys: 0x102000, data: span(0x102, 1)}}},
			join(pagesOf(1, 3), pagesOf(0x102, 1)), "makedumpfile", 0x103, 9, 1},
		{"QEMU, header size 8", elfSpec{ehsize: 8, notes: slices.Concat(prstatus(1, 0), prstatus(2, 0), qemuState(0, true), qemuState(0, true)), segs: ram},
			ramPages, "qemu", 0x104, 0, 2},
		{"QEMU, paging", elfSpec{notes: slices.Concat(prstatus(1, 0), qemuState(0, true)), segs: []elfSeg{
			{phys: 0, data: span(0, 8)},
			{virt: 0xffffffff81000000, phys: 0x2000, shares: 1}, // the same bytes, as if they were 8 pages from 2 on
			{virt: 0xffff888000000000, phys: 0x10000, data: span(16, 2)},
		}}, join(pagesOf(0, 8), map[uint64][]byte{8: testPage(6), 9: testPage(7)}, pagesOf(16, 2)), "qemu", 18, 0, 1},
		{"more than 65535 segments", elfSpec{xnum: true, notes: infoNote, segs: many}, manyPages, "makedumpfile", 139999, 0, 0},
		{"RAM that begins and ends within a page", elfSpec{notes: infoNote, segs: []elfSeg{
			{phys: 0x1c00, data: testPage(1)[0xc00:]}, {phys: 0x2000, data: testPage(2)[:0x400]}, {phys: 0x2800, data: testPage(2)[0x800:]}}},
			map[uint64][]byte{1: append(make([]byte, 0xc00), testPage(1)[0xc00:]...), 2: slices.Concat(testPage(2)[:0x400], make([]byte, 0x400), testPage(2)[0x800:])},
			"makedumpfile", 3, 0, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			file := c.spec.build()
			d := mustOpen(t, file)
			checkPages(t, d, c.pages)
			if d.Format != "elf" || d.Writer != c.writer || d.MaxPFN != c.maxPFN || len(d.CPUs) != c.cpus || d.Machine != "x86_64" || d.Compression != "none" || d.Incomplete {
				t.Errorf("Format %q, Writer %q, MaxPFN %#x, %d CPUs, Machine %q, Compression %q, Incomplete %v",
					d.Format, d.Writer, d.MaxPFN, len(d.CPUs), d.Machine, d.Compression, d.Incomplete)
			}
			present, excluded, absent := d.PageCounts()
			if present != uint64(len(c.pages)) || excluded != c.excluded || absent != c.maxPFN-present-excluded {
				t.Errorf("PageCounts = %d, %d, %d", present, excluded, absent)
			}
			if len(d.Segments) != len(c.spec.segs) || d.Segments[0].Virt != c.spec.segs[0].virt || d.Segments[0].Phys != c.spec.segs[0].phys {
				t.Errorf("%d segments, the first %+v", len(d.Segments), d.Segments[0])
			}
			if bytes.Contains(file, []byte("VMCOREINFO")) && (d.Release != "6.1.0" || !d.CrashTime.Equal(time.Unix(1700000000, 0))) {
				t.Errorf("Release %q, CrashTime %v", d.Release, d.CrashTime)
			}
			checkPages(t, mustOpen(t, flatten(inRecords(file, 1<<16), true)), c.pages)
		})
	}
}

func TestELFPageStates(t *testing.T) {
	d := mustOpen(t, elfSpec{notes: infoNote, segs: []elfSeg{{phys: 0x1000, data: span(1, 1), mem: 3 * pg}}}.build())
	for addr, want := range map[PhysAddr]error{0: ErrAbsent, 2 * pg: ErrExcluded, 3*pg + 5: ErrExcluded, 4 * pg: ErrAbsent, 1 << 60: ErrAbsent} {
		if _, err := d.Page(addr); !errors.Is(err, want) || d.Present(addr) {
			t.Errorf("Page(%#x): %v, want %v", uint64(addr), err, want)
		}
	}
}

func TestELFPageSize(t *testing.T) {
	info := strings.Replace(someInfo("6.1.0"), "PAGESIZE=4096", "PAGESIZE=65536", 1)
	d := mustOpen(t, elfSpec{machine: uint16(elf.EM_AARCH64), notes: note("VMCOREINFO", 0, []byte(info)), segs: []elfSeg{{phys: 0x40000000, data: span(0x40000, 16)}}}.build())
	if p, err := d.Page(0x40000000); err != nil || !bytes.Equal(p, span(0x40000, 16)) || d.PageSize != 65536 || d.Machine != "aarch64" {
		t.Errorf("page of %d bytes, PageSize %d, Machine %q, error %v", len(p), d.PageSize, d.Machine, err)
	}
}

// kcoreNotes are those of fs/proc/kcore.c.
func kcoreNotes() []byte {
	info := make([]byte, 136)
	copy(info[40:], "vmlinux")
	return slices.Concat(prstatus(0, 0), note("CORE", ntPRPSInfo, info), note("CORE", 4, make([]byte, 100)), infoNote)
}

func TestKcore(t *testing.T) {
	file := elfSpec{notes: kcoreNotes(), segs: []elfSeg{
		{virt: 0xffffffff81000000, phys: 0x2000, data: span(2, 1)},
		{virt: 0xffffc90000000000, phys: NoPhys, data: span(77, 1), mem: 1 << 40},
		{virt: 0xffff888000001000, phys: 0x1000, data: span(1, 3)},
	}}.build()
	memory := bytes.Clone(file)
	// What the file says of its size is wrong either way.
	for _, size := range []int64{math.MaxInt64, 1 << 47} {
		d, err := NewReader(Part{R: bytes.NewReader(memory), Size: size, Name: "kcore"})
		if err != nil {
			t.Fatal(err)
		}
		checkPages(t, d, pagesOf(1, 3))
		if d.Format != "kcore" || d.Writer != "kernel" || len(d.CPUs) != 0 || d.FileSize != 0 || d.Release != "6.1.0" || d.Incomplete {
			t.Errorf("Format %q, Writer %q, %d CPUs, FileSize %d, Release %q, Incomplete %v", d.Format, d.Writer, len(d.CPUs), d.FileSize, d.Release, d.Incomplete)
		}
		if d.MaxPFN != 4 || d.Segments[1].Phys != NoPhys || d.Segments[1].Virt != 0xffffc90000000000 {
			t.Errorf("MaxPFN %d, segments %+v", d.MaxPFN, d.Segments)
		}
		// It is live: what changes is seen.
		memory[len(memory)-1]++
		if p, err := d.Page(3 * pg); err != nil || p[pg-1] != memory[len(memory)-1] {
			t.Errorf("a changed page was not read anew (error %v)", err)
		}
		memory[len(memory)-1]--
	}
}

// TestKcoreWithoutPhys is a kernel before 4.11: all p_paddr are 0.
func TestKcoreWithoutPhys(t *testing.T) {
	file := elfSpec{notes: kcoreNotes(), segs: []elfSeg{
		{virt: 0xffffffff81000000, data: span(2, 1)}, {virt: 0xffff888000001000, data: span(1, 3)}}}.build()
	d, err := NewReader(Part{R: bytes.NewReader(file), Size: 1 << 47, Name: "kcore"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.Page(0); !errors.Is(err, ErrAbsent) || d.MaxPFN != 0 {
		t.Errorf("memory at an unknown physical address was read as page 0 (error %v)", err)
	}
}
