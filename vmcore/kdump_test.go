package vmcore

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
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
		// makedumpfile may leave nothing to the later parts of a small dump: the first
		// is whole then, the others are no dump at all.
		all, none := part(0, someMaxPFN), part(someMaxPFN, someMaxPFN)
		for _, files := range [][][]byte{{all}, {all, none}, {none, none, all}} {
			checkPages(t, mustOpen(t, files...), spec.pages)
		}
		if _, err := openBytes(none); !errors.Is(err, ErrMissingPart) || !strings.Contains(err.Error(), "pages 0x0-0x9c40") {
			t.Errorf("v%d, an empty part: error %v", version, err)
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
