package x86_test

import (
	"errors"
	"slices"
	"testing"

	"inquest/internal/kerneltest"
	"inquest/kernel/x86"
	"inquest/vmcore"
)

// areas are mapped in every machine of these tests, by size of page.
var areas = map[uint64]uint64{0xffffc90000001000: 4 << 10, 0xffffc90000200000: 2 << 20, 0xffffc90040000000: 1 << 30}

func machine(five bool, mask uint64) (*kerneltest.Machine, *x86.PageTable) {
	m := kerneltest.New()
	m.FiveLevel, m.EncryptMask = five, mask
	for virt, size := range areas {
		m.Map(virt, size)
	}
	return m, &x86.PageTable{Mem: m, Root: vmcore.PhysAddr(m.Root()), FiveLevel: five, EncryptMask: mask}
}

func TestWalk(t *testing.T) {
	for _, five := range []bool{false, true} {
		for _, mask := range []uint64{0, 1 << 47, 1 << 51} {
			m, pt := machine(five, mask)
			for virt, size := range areas {
				for _, off := range []uint64{0, 8, size / 2, size - 1} {
					want, _ := m.Phys(virt + off)
					got, steps, err := pt.Trace(virt + off)
					if err != nil || uint64(got.Phys) != want || got.Size != size {
						t.Errorf("%#x: %+v, %v; want %#x of %#x", virt+off, got, err, want, size)
					}
					if got.Flags&x86.PageNoExecute == 0 || got.Flags&x86.PageWrite == 0 || got.Flags&x86.PageUser != 0 {
						t.Errorf("%#x: flags %#x", virt+off, got.Flags)
					}
					var names []string
					for _, s := range steps {
						names = append(names, s.Level)
					}
					want5 := []string{"PGD", "P4D", "PUD", "PMD", "PTE"}
					if !five {
						want5 = want5[1:]
					}
					want5 = want5[:len(want5)-map[uint64]int{4 << 10: 0, 2 << 20: 1, 1 << 30: 2}[size]]
					if !slices.Equal(names, want5) {
						t.Errorf("%#x: steps %v, want %v", virt+off, names, want5)
					}
				}
			}
			if got, err := pt.Walk(m.Text()); err != nil || got.Flags&x86.PageNoExecute != 0 || got.Size != 2<<20 {
				t.Errorf("text: %+v, %v", got, err)
			}
		}
	}
}

// Write permission is what every level grants, and one level's NX is enough.
func TestWalkFlags(t *testing.T) {
	m, pt := machine(false, 0)
	const va = 0xffffc90000001000
	_, steps, err := pt.Trace(va)
	if err != nil {
		t.Fatal(err)
	}
	top := steps[1]
	m.WritePhys(uint64(top.Entry), []byte{byte(top.Value &^ x86.PageWrite)})
	got, err := pt.Walk(va)
	if err != nil || got.Flags&x86.PageWrite != 0 {
		t.Errorf("flags %#x, %v", got.Flags, err)
	}
}

func TestWalkErrors(t *testing.T) {
	for _, tt := range []struct {
		five bool
		va   uint64
		want error
	}{
		{false, 0x0000_8000_0000_0000, x86.ErrNonCanonical},
		{false, 0xffff_7fff_ffff_ffff, x86.ErrNonCanonical},
		{false, 0x00ff_ffff_ffff_ffff, x86.ErrNonCanonical},
		{true, 0x0100_0000_0000_0000, x86.ErrNonCanonical},
		{true, 0xfeff_ffff_ffff_ffff, x86.ErrNonCanonical},
		{true, 0x0000_8000_0000_0000, x86.ErrNotMapped},
		{true, 0x00ff_ffff_ffff_ffff, x86.ErrNotMapped},
		{true, 0xff00_0000_0000_0000, x86.ErrNotMapped},
		{false, 0, x86.ErrNotMapped},
		{false, 0x0000_7fff_ffff_ffff, x86.ErrNotMapped},
		{false, 0xffffc90000002000, x86.ErrNotMapped},
		{false, 0xffffc90000400000, x86.ErrNotMapped},
		{false, ^uint64(0), x86.ErrNotMapped},
	} {
		_, pt := machine(tt.five, 0)
		if got, err := pt.Walk(tt.va); !errors.Is(err, tt.want) {
			t.Errorf("%#x (5 levels: %v): %+v, %v; want %v", tt.va, tt.five, got, err, tt.want)
		}
		if want := tt.want != x86.ErrNonCanonical; pt.Canonical(tt.va) != want {
			t.Errorf("%#x is canonical: %v", tt.va, !want)
		}
	}
	m, _ := machine(false, 0)
	m.Missing[m.Root()] = true
	pt := x86.PageTable{Mem: m.Dump(), Root: vmcore.PhysAddr(m.Root())}
	if _, steps, err := pt.Trace(m.Text()); !errors.Is(err, vmcore.ErrAbsent) || len(steps) != 0 {
		t.Errorf("no table: %d steps, %v", len(steps), err)
	}
	pt.Root = ^vmcore.PhysAddr(0)
	if _, err := pt.Walk(m.Text()); !errors.Is(err, vmcore.ErrAbsent) {
		t.Errorf("a root of ones: %v", err)
	}
}

func TestWalkDoesNotAllocate(t *testing.T) {
	m, pt := machine(true, 0)
	pt.Mem = m.Dump()
	if _, err := pt.Walk(0xffffc90000001000); err != nil {
		t.Fatal(err)
	}
	if n := testing.AllocsPerRun(100, func() { pt.Walk(0xffffc90000001000) }); n > 0 {
		t.Errorf("%v allocations", n)
	}
}

func FuzzWalk(f *testing.F) {
	f.Add(uint64(0xffffc90000001000), uint64(0), []byte{0, 0, 0xff}, true)
	f.Add(uint64(0), ^uint64(0), []byte{1, 2, 3}, false)
	f.Fuzz(func(t *testing.T, va, root uint64, edits []byte, five bool) {
		m, pt := machine(five, 0)
		for ; len(edits) >= 3; edits = edits[3:] {
			m.WritePhys(m.Root()+uint64(edits[0])<<8+uint64(edits[1]), edits[2:3])
		}
		for _, pt.Root = range []vmcore.PhysAddr{vmcore.PhysAddr(m.Root()), vmcore.PhysAddr(root)} {
			for _, pt.Mem = range []x86.PhysReader{m, m.Dump()} {
				got, steps, err := pt.Trace(va)
				if len(steps) > 5 || err == nil && uint64(got.Phys)&(got.Size-1) != va&(got.Size-1) {
					t.Errorf("%#x: %+v in %d steps, %v", va, got, len(steps), err)
				}
			}
		}
	})
}

func BenchmarkWalk(b *testing.B) {
	m, pt := machine(true, 0)
	pt.Mem = m.Dump()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := pt.Walk(0xffffc90000001000); err != nil {
			b.Fatal(err)
		}
	}
}
