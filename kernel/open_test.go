package kernel

import (
	"errors"
	"testing"

	"inquest/internal/kerneltest"
	"inquest/kernel/x86"
	"inquest/vmcore"
)

// open opens the kernel of a synthetic machine.
func open(t testing.TB, m *kerneltest.Machine) *Kernel {
	t.Helper()
	k, err := Open(m.Dump())
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestOpen(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(*kerneltest.Kernel)
		source string
	}{
		{"4 levels", func(m *kerneltest.Kernel) {}, "VMCOREINFO"},
		{"VMCOREINFO of another kernel", func(m *kerneltest.Kernel) { m.OtherInfo = true; m.CPU(0, 0, 0) }, "CR3 of CPU 0"},
		{"from CR3", func(m *kerneltest.Kernel) { m.NoInfo = true; m.CPU(0, 0, 0) }, "CR3 of CPU 0"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := kerneltest.Linux(kerneltest.Options{})
			tt.change(m)
			k := open(t, m.Machine)
			want := Layout{
				KASLROffset: m.KASLR, PhysBase: m.PhysBase(), Text: Addr(m.Text()),
				PageTable: vmcore.PhysAddr(m.Root()), FiveLevel: m.FiveLevel, Source: tt.source,
			}
			if m.NoInfo || m.OtherInfo {
				want.KASLROffset = 0
			}
			if k.Layout != want {
				t.Errorf("layout %+v\nwant   %+v", k.Layout, want)
			}
			if tasks, err := k.Tasks(); len(tasks) != 6 || err != nil {
				t.Errorf("%d tasks, %v", len(tasks), err)
			}
		})
	}
}

func TestPagingModes(t *testing.T) {
	for _, tt := range []struct {
		name string
		five bool
		mask uint64
	}{{"4 levels", false, 0}, {"5 levels", true, 0}, {"encrypted", false, 1 << 47}, {"5 levels, encrypted", true, 1 << 51}} {
		t.Run(tt.name, func(t *testing.T) {
			m := kerneltest.New()
			m.FiveLevel, m.EncryptMask = tt.five, tt.mask
			const small, mid, big = 0xffffc90000001000, 0xffffc90000200000, 0xffffc90040000000
			for virt, size := range map[uint64]uint64{small: 4 << 10, mid: 2 << 20, big: 1 << 30} {
				m.Map(virt, size)
				m.Write64(virt+size-8, virt)
			}
			k := open(t, m)
			for virt, size := range map[uint64]uint64{small: 4 << 10, mid: 2 << 20, big: 1 << 30} {
				if v, err := k.U64(Addr(virt + size - 8)); v != virt || err != nil {
					t.Errorf("%#x: read %#x, %v", virt, v, err)
				}
				want, _ := m.Phys(virt + 5)
				if phys, err := k.Translate(Addr(virt + 5)); uint64(phys) != want || err != nil {
					t.Errorf("%#x is at %#x, want %#x, %v", virt+5, phys, want, err)
				}
			}
		})
	}
}

func TestOpenErrors(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(*kerneltest.Machine)
		want   error
	}{
		{"nothing to go by", func(m *kerneltest.Machine) { m.NoInfo = true }, ErrNotKernel},
		{"CR3 of nothing", func(m *kerneltest.Machine) {
			m.NoInfo = true
			m.CPU(0, 0, 0)
			m.Missing[m.Root()] = true
		}, ErrNotKernel},
	} {
		m := kerneltest.New()
		m.Alloc(8, 8)
		tt.change(m)
		if _, err := Open(m.Dump()); !errors.Is(err, tt.want) {
			t.Errorf("%s: %v, want %v", tt.name, err, tt.want)
		}
	}
	d := kerneltest.New().Dump()
	d.Machine = "aarch64"
	if _, err := Open(d); !errors.Is(err, ErrNotMachine) {
		t.Errorf("aarch64: %v", err)
	}
}

func TestRead(t *testing.T) {
	m := kerneltest.New()
	a := m.Alloc(3*4096, 4096)
	for i := range uint64(3 * 4096 / 8) {
		m.Write64(a+8*i, i)
	}
	m.Write(a+4090, []byte("a string over the seam\x00"))
	m.Lose(a + 8192)
	k := open(t, m)

	var p [16]byte
	if err := k.Read(p[:], Addr(a+4088)); err != nil || string(p[2:]) != "a string over " {
		t.Errorf("over the seam: %q, %v", p[2:], err)
	}
	if s, err := k.CString(Addr(a+4090), 100); s != "a string over the seam" || err != nil {
		t.Errorf("CString: %q, %v", s, err)
	}
	if s, err := k.CString(Addr(a+4090), 8); s != "a string" || err != nil {
		t.Errorf("CString of 8: %q, %v", s, err)
	}
	if v, err := k.U16(Addr(a + 4091)); v != 0x7320 || err != nil {
		t.Errorf("U16: %#x, %v", v, err)
	}
	if v, err := k.U32(Addr(a + 4093)); v != 0x6e697274 || err != nil {
		t.Errorf("U32 over the seam: %#x, %v", v, err)
	}
	for _, tt := range []struct {
		name string
		addr uint64
		n    int
		want error
	}{
		{"excluded", a + 8192, 8, vmcore.ErrAbsent},
		{"into excluded", a + 8188, 8, vmcore.ErrAbsent},
		{"not mapped", m.Text() + 64<<20, 8, x86.ErrNotMapped},
		{"not canonical", 0x8000_0000_0000_0000, 8, x86.ErrNonCanonical},
		{"past the end of all", ^uint64(0) - 3, 8, x86.ErrNonCanonical},
	} {
		if err := k.Read(make([]byte, tt.n), Addr(tt.addr)); !errors.Is(err, tt.want) {
			t.Errorf("%s: %v, want %v", tt.name, err, tt.want)
		}
		if _, err := k.Slice(Addr(tt.addr), tt.n); !errors.Is(err, tt.want) {
			t.Errorf("%s: Slice: %v, want %v", tt.name, err, tt.want)
		}
	}
	if _, err := k.Slice(Addr(a), maxSlice+1); !errors.Is(err, ErrCorrupt) {
		t.Errorf("Slice of too much: %v", err)
	}
	if _, err := k.Slice(Addr(a), -1); !errors.Is(err, ErrCorrupt) {
		t.Errorf("Slice of less than nothing: %v", err)
	}
	if p, err := k.Slice(Addr(a+4088), 16); err != nil || string(p[2:]) != "a string over " {
		t.Errorf("Slice: %q, %v", p, err)
	}
}

// The image is readable even where its page tables are not in the dump.
func TestReadWithoutPageTables(t *testing.T) {
	m := kerneltest.New()
	a := m.Put([]byte("still here\x00"))
	m.Missing[m.Root()] = true
	k := open(t, m)
	if s, err := k.CString(Addr(a), 20); s != "still here" || err != nil {
		t.Errorf("%q, %v", s, err)
	}
	if _, err := k.CString(0xffff888000000000, 20); !errors.Is(err, vmcore.ErrAbsent) {
		t.Errorf("outside the image: %v", err)
	}
}

func TestReadDoesNotAllocate(t *testing.T) {
	m := kerneltest.New()
	a := Addr(m.Alloc(2*4096, 4096))
	k := open(t, m)
	buf := make([]byte, 256)
	for name, f := range map[string]func() error{
		"U64":        func() error { _, err := k.U64(a + 8); return err },
		"Read":       func() error { return k.Read(buf, a+4000) },
		"Slice":      func() error { _, err := k.Slice(a+16, 256); return err },
		"U64 (seam)": func() error { _, err := k.U64(a + 4092); return err },
	} {
		if err := f(); err != nil {
			t.Fatal(name, err)
		}
		if n := testing.AllocsPerRun(100, func() { f() }); n > 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}
