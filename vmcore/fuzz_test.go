package vmcore

import (
	"bytes"
	"errors"
	"math"
	"slices"
	"strings"
	"testing"
)

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

func FuzzVMCoreInfo(f *testing.F) {
	f.Add([]byte(someInfo("6.1.0")), "phys_base")
	f.Add([]byte("NUMBER(x)=0x"), "x")
	f.Add([]byte("SYMBOL()=\n=\n"), "")
	f.Fuzz(func(t *testing.T, text []byte, name string) {
		v := parseVMCoreInfo(text, "fuzz")
		if len(v.Raw) > maxVMCoreInfo || strings.ContainsRune(v.Raw, 0) {
			t.Errorf("Raw has %d bytes, or a NUL", len(v.Raw))
		}
		for line := range strings.Lines(v.Raw) {
			key, _, ok := strings.Cut(strings.TrimRight(line, "\r\n"), "=")
			if _, got := v.Get(key); ok && !got {
				t.Errorf("key %q of line %q is lost", key, line)
			}
		}
		v.Symbol(name)
		v.Offset(name)
		v.SizeOf(name)
		v.Number(name)
		v.Length(name)
	})
}

func FuzzNotes(f *testing.F) {
	f.Add(slices.Concat(prstatus(1, 0), qemuState(0, true), note("VMCOREINFO", 0, []byte(someInfo("6.1.0")))))
	f.Add(slices.Concat(make([]byte, 12), note("QEMU", 0, nil)))
	f.Fuzz(func(t *testing.T, p []byte) {
		total := 0
		for n := range parseNotes(p) {
			total += 12 + len(n.Desc)
		}
		if total > len(p) {
			t.Errorf("notes of %d bytes out of %d", total, len(p))
		}
		d := &Dump{Machine: "x86_64"}
		d.setNotes(p)
		for i, c := range d.CPUs {
			if c.Index != i || !c.HasRegs {
				t.Errorf("CPU %d: %+v", i, c)
			}
		}
	})
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
