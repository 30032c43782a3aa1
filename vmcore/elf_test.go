package vmcore

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"io"
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

func TestNotDump(t *testing.T) {
	user := elfSpec{notes: slices.Concat(prstatus(1, 0), note("CORE", 6, make([]byte, 32))), segs: []elfSeg{{virt: 0x400000, data: span(1, 1)}}}.build()
	be := elfSpec{data: 2, segs: []elfSeg{{data: span(1, 1)}}}.build()
	binary.BigEndian.PutUint16(be[16:], 4)
	kdump32 := make([]byte, 2*pg)
	copy(kdump32, "KDUMP   ")
	binary.LittleEndian.PutUint32(kdump32[hdrBlockSize32:], pg)
	bzImage := make([]byte, 0x400)
	copy(bzImage, "MZ")
	copy(bzImage[0x202:], "HdrS")
	tar := make([]byte, 512)
	copy(tar[257:], "ustar")
	tar[0] = 'x'
	for _, c := range []struct {
		name string
		file []byte
		say  string
	}{
		{"empty", nil, "an empty file"},
		{"zeros", make([]byte, 9000), "all zeros"},
		{"gzip", []byte("\x1f\x8b\x08\x00aaaaaaaaaaa"), "gzip-compressed"},
		{"xz", []byte("\xfd7zXZ\x00\x00\x04"), "xz-compressed"},
		{"zstd", []byte("\x28\xb5\x2f\xfd\x00\x00"), "zstd-compressed"},
		{"qcow2", []byte("QFI\xfb\x00\x00\x00\x03"), "qcow2"},
		{"vmss", []byte("\xd2\xbe\xd2\xbe\x08\x00\x00\x00"), "VMware suspended state"},
		{"windows", []byte("PAGEDU64\x0f\x00\x00\x00"), "Windows crash dump"},
		{"lime", []byte("EMiL\x01\x00\x00\x00"), "LiME"},
		{"bzImage", bzImage, "boot image"},
		{"tar", tar, "tar archive"},
		{"log", []byte("[    0.000000] Linux version 6.1.0\n[   12.3] Call Trace:\n"), "kernel log"},
		{"text", []byte("hällo, wörld\n"), "a text file"},
		{"html", []byte("<!DOCTYPE html><html>"), "HTML"},
		{"noise", noisePage(1), "of unknown format"},
		{"vmlinux", elfSpec{typ: 2}.build(), "ELF executable"},
		{"module", elfSpec{typ: 1}.build(), "ELF object file"},
		{"user core", user, "core of a user process"},
		{"ELF32", elfSpec{class: 1, segs: []elfSeg{{data: span(1, 1)}}}.build(), "32-bit ELF core"},
		{"big endian", be, "big-endian"},
		{"VirtualBox", elfSpec{notes: note("VBCORE", 0xb00, make([]byte, 8)), segs: []elfSeg{{data: span(1, 1)}}}.build(), "VirtualBox"},
		{"kdump of 32 bits", kdump32, "32-bit machine"},
		{"text in a flattened file", flatten([]flatRecord{{0, []byte("some text\n")}}, true), "a text file"},
	} {
		_, err := openBytes(c.file)
		var nd *NotDumpError
		if !errors.Is(err, ErrNotDump) || !errors.As(err, &nd) || !strings.Contains(err.Error(), c.say) || !strings.Contains(err.Error(), "part 0") {
			t.Errorf("%s: error %v, want one that says %q", c.name, err, c.say)
		}
	}
	if _, err := NewReader(); !errors.Is(err, ErrNotDump) {
		t.Errorf("no parts: %v", err)
	}
	core := elfSpec{notes: infoNote, segs: []elfSeg{{data: span(1, 1)}}}.build()
	if _, err := openBytes(core, core); !errors.Is(err, ErrMissingPart) && !errors.Is(err, ErrNotDump) {
		t.Errorf("two ELF cores: %v", err)
	}
	if _, err := NewReader(Part{R: failingReader{}, Size: 100, Name: "disk"}); err == nil || !strings.Contains(err.Error(), "disk: no luck") {
		t.Errorf("a reader that fails: %v", err)
	}
}

type failingReader struct{}

func (failingReader) ReadAt([]byte, int64) (int, error) { return 0, errors.New("no luck") }

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

func FuzzELF(f *testing.F) {
	seg := []elfSeg{{phys: 0x1000, data: []byte("some memory"), mem: 2 * pg}, {virt: 1 << 63, phys: 0x1004, data: []byte("over it")}}
	f.Add(elfSpec{notes: slices.Concat(prstatus(1, 0), infoNote), segs: seg}.build())
	f.Add(elfSpec{ehsize: 8, xnum: true, notes: qemuState(0, true), segs: seg}.build())
	f.Add(elfSpec{notes: kcoreNotes(), segs: seg}.build())
	f.Fuzz(func(t *testing.T, p []byte) {
		if len(p) > 4 {
			copy(p, "\x7fELF")
		}
		exercise(t, p)
	})
}

func FuzzOpen(f *testing.F) {
	kd := kdumpSpec{codec: flagZlib, maxPFN: 100, pages: map[uint64][]byte{1: testPage(1), 2: testPage(2), 99: testPage(99)}, notes: prstatus(1, 0)}
	for _, codec := range codecs {
		kd.codec = codec
		f.Add(kd.build())
	}
	kd.version = 3
	f.Add(kd.build())
	f.Add(flatten(inRecords(kd.build(), 4000), true))
	f.Add(flatten([]flatRecord{{100, []byte("a hole where the header should be")}}, false))
	f.Add(elfSpec{notes: infoNote, segs: []elfSeg{{phys: 0x1000, data: testPage(1)}}}.build())
	f.Fuzz(func(t *testing.T, p []byte) { exercise(t, p) })
}

// exercise opens a file of any content and uses it. Nothing may panic, hang or
// take memory out of proportion, and errors must be of the known kinds.
func exercise(t *testing.T, p []byte) {
	d, err := openBytes(p)
	if err != nil {
		if !errors.Is(err, ErrNotDump) && !errors.Is(err, ErrCorrupt) && !errors.Is(err, ErrMissingPart) {
			t.Fatalf("Open: %v", err)
		}
		return
	}
	if len(d.Segments)*phdrSize > len(p) {
		t.Fatalf("%d segments from %d bytes", len(d.Segments), len(p))
	}
	check := func(addr PhysAddr) {
		page, err := d.Page(addr)
		if err != nil {
			var pe *PageError
			if !errors.As(err, &pe) || !errors.Is(err, ErrExcluded) && !errors.Is(err, ErrAbsent) && !errors.Is(err, ErrCorrupt) {
				t.Fatalf("Page(%#x): %v", uint64(addr), err)
			}
			return
		}
		if len(page) != d.PageSize || !d.Present(addr) {
			t.Fatalf("Page(%#x) has %d bytes, Present %v", uint64(addr), len(page), d.Present(addr))
		}
		buf := make([]byte, 16)
		if err := d.ReadPhys(buf, addr); err == nil && uint64(addr)%uint64(d.PageSize) == 0 && !bytes.Equal(buf, page[:16]) && !d.live {
			t.Fatalf("ReadPhys(%#x) differs from Page", uint64(addr))
		}
	}
	runs, last := 0, PhysAddr(0)
	for addr, size := range d.PhysRanges() {
		if size == 0 || runs > 0 && addr < last {
			t.Fatalf("run %#x+%#x after %#x", uint64(addr), size, uint64(last))
		}
		last = addr + PhysAddr(size)
		check(addr)
		check(last - 1)
		check(last)
		if runs++; runs > 50 {
			break
		}
	}
	for _, addr := range []PhysAddr{0, 0x1000, 1 << 32, 1<<52 - 1, math.MaxUint64} {
		check(addr)
	}
	d.PageCounts()
}
