package kernel

import (
	"testing"

	"inquest/internal/kerneltest"
	"inquest/kernel/x86"
)

// use does all that can be done with a kernel. Whatever the dump says, it must come
// to an end, and without a panic.
func use(k *Kernel) {
	k.Tasks()
	if mods, err := k.Modules(); err == nil {
		for _, m := range mods {
			m.Symbols()
		}
	}
	for range k.Log() {
	}
	k.CPUStates()
	k.Crashed()
	k.Name(k.Layout.Text + 0x1234)
	k.Name(0xffffffffc0000110)
	k.LookupAll("sys_read")
	useSymbols(k)
	k.SizeOf("struct widget")
}

func useSymbols(k *Kernel) {
	s, err := k.Symbols()
	if err != nil {
		return
	}
	for i := range min(s.Len(), 100) {
		sym := s.At(i)
		s.Lookup(sym.Name)
		s.Find(sym.Addr)
		s.Find(sym.Addr + 8)
	}
	s.At(s.Len() - 1)
}

// damage overwrites a machine's memory as the fuzzer says: pairs of a place in an
// area and a byte, three bytes each.
func damage(m *kerneltest.Machine, area, size uint64, edits []byte) {
	for ; len(edits) >= 3 && size > 0; edits = edits[3:] {
		at := (uint64(edits[0]) | uint64(edits[1])<<8) % size
		if _, mapped := m.Phys(area + at); mapped {
			m.Write(area+at, edits[2:3])
		}
	}
}

func seed(f *testing.F) {
	f.Add([]byte{})
	f.Add([]byte{0, 0, 0xff, 1, 0, 0xff, 8, 0, 0x80})
	f.Add([]byte{0, 1, 0x80, 0, 2, 0, 100, 0, 1, 200, 0, 0xff, 0xff, 0xff, 0xff})
}

func FuzzKallsyms(f *testing.F) {
	seed(f)
	all := []string{"4.18", "6.0", "6.2 not named", "6.4 not named", "7.0", "7.0 not named"}
	f.Fuzz(func(t *testing.T, edits []byte) {
		if len(edits) == 0 {
			return
		}
		m := symbolMachine(layouts[all[int(edits[0])%len(all)]])
		before := m.Alloc(8, 8)
		m.Symbols()
		damage(m, before, m.Alloc(8, 8)-before, edits[1:])
		if k, err := Open(m.Dump()); err == nil {
			useSymbols(k)
		}
	})
}

// FuzzModuleSymbols writes what the fuzzer likes over a module's symbol table,
// strings, and the struct that says where they are.
func FuzzModuleSymbols(f *testing.F) {
	seed(f)
	f.Add([]byte{1, 1, 0, 0, 0, 2, 0, 1, 0, 0x10, 0, 0, 0xc0, 0xff, 0xff, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) == 0 {
			return
		}
		m := kerneltest.Linux(kerneltest.Options{OldSymbols: data[0]&1 == 1, OldModules: data[0]&2 == 2})
		at := m.ModuleKallsyms + uint64(data[0]>>5)*8
		if data[0]&4 == 0 {
			at = readWord(m.Machine, m.ModuleKallsyms)
		}
		m.Write(at, data[1:min(len(data), 1000)])
		k, err := Open(m.Dump())
		if err != nil {
			t.Fatal(err)
		}
		mods, _ := k.Modules()
		for _, mod := range mods {
			for _, s := range mod.Symbols() {
				if k.ModuleAt(s.Addr) != mod {
					t.Errorf("%s at %v is not in its module", s.Name, s.Addr)
				}
				k.Name(s.Addr + 1)
			}
		}
	})
}

func FuzzBTF(f *testing.F) {
	for name, raw := range hostileBTF() {
		if len(raw) < 1<<10 {
			f.Add(raw, "struct "+name+".a->b")
		}
	}
	f.Add(kerneltest.BTF(kerneltest.XANode, kerneltest.ListHead, kerneltest.RadixRoot), "xa_node.slots[3]")
	m := kerneltest.New()
	at := Addr(m.Alloc(4096, 8))
	k, err := Open(m.Dump())
	if err != nil {
		f.Fatal(err)
	}
	base, err := parseBTF(kerneltest.BTF(kerneltest.ListHead, kerneltest.Int), nil)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, raw []byte, path string) {
		for _, base := range []*typeSet{nil, base} {
			set, err := parseBTF(raw, base)
			if err != nil {
				continue
			}
			types := &Types{k: k, base: set, modules: func() []moduleTypes { return nil }}
			for typ := range types.All("") {
				TypeName(typ)
				o := k.ObjectOf(typ, at)
				o.Size()
				o.Int(path)
				o.String(path)
				for _, m := range Members(typ) {
					if m.Type == nil {
						t.Fatalf("%v has a member of no type", typ)
					}
					o.Uint(m.Name)
				}
			}
		}
	})
}

func FuzzObjectPath(f *testing.F) {
	for _, p := range []string{"next->next->in.x", "grid[1][2]", "vec[1]", "b3", "", "a..b", "[", "->", "[0]->", "name[0x7]", "tail[16777215]"} {
		f.Add(p)
	}
	k, at := objectKernel(f)
	o, err := k.Object("node", at)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, path string) {
		m, err := compilePath(o.Type, path)
		if err == nil && m.typ == nil {
			t.Errorf("%q leads to no type", path)
		}
		o.Uint(path)
		o.String(path)
	})
}

func FuzzPrintkRing(f *testing.F) {
	seed(f)
	f.Fuzz(func(t *testing.T, edits []byte) {
		m := kerneltest.New()
		rb := m.PrintkRing(4, 11, messages(20)...)
		damage(m, rb, m.Alloc(8, 8)-rb, edits)
		k, err := Open(m.Dump())
		if err != nil {
			t.Fatal(err)
		}
		n := 0
		for range k.Log() {
			n++
		}
		if n > maxRecords {
			t.Errorf("%d messages", n)
		}
	})
}

func FuzzLogBuf(f *testing.F) {
	seed(f)
	f.Fuzz(func(t *testing.T, edits []byte) {
		m := kerneltest.New()
		buf := m.LogBuf(1024, len(edits)%2 == 1, messages(30)...)
		damage(m, buf, m.Alloc(8, 8)-buf, edits)
		k, err := Open(m.Dump())
		if err != nil {
			t.Fatal(err)
		}
		for range k.Log() {
		}
	})
}

// FuzzLinux damages everything of a whole kernel but its page tables: lists,
// modules and their symbols, crash_notes, per-CPU data, BTF.
func FuzzLinux(f *testing.F) {
	seed(f)
	names := []string{"4.18", "5.10", "6.1", "6.12", "6.15"}
	f.Fuzz(func(t *testing.T, edits []byte) {
		if len(edits) < 2 {
			return
		}
		o := kernels[names[int(edits[0])%len(names)]]
		o.NoPanic = edits[1]&1 == 1
		m := kerneltest.Linux(o)
		first := m.Text() + 4<<20
		m.Symbols()
		damage(m.Machine, first, m.Alloc(8, 8)-first, edits[2:])
		for cpu := range m.Offsets {
			damage(m.Machine, m.PerCPUVar(m.Symbols()[0].Addr, cpu), 4096, edits[2:min(len(edits), 20)])
		}
		if k, err := Open(m.Dump()); err == nil {
			use(k)
		}
	})
}

func FuzzPageTables(f *testing.F) {
	f.Add([]byte{0, 0, 0xff}, uint64(0xffffffff81000000))
	f.Add([]byte{1, 2, 3, 4, 5, 6}, uint64(0xffff888000000000))
	f.Fuzz(func(t *testing.T, edits []byte, va uint64) {
		m := kerneltest.New()
		m.FiveLevel = len(edits)%2 == 1
		m.Map(va&^4095, 4096)
		for page := uint64(0); page < 4; page++ {
			for e := edits; len(e) >= 3; e = e[3:] {
				m.WritePhys(m.Root()+page*4096+(uint64(e[0])|uint64(e[1])<<8)%4096, e[2:3])
			}
		}
		k, err := Open(m.Dump())
		if err != nil {
			return
		}
		var buf [64]byte
		k.Read(buf[:], Addr(va))
		k.CString(Addr(va), 100)
		mapping, steps, err := k.PageTable().Trace(va)
		if err == nil && (len(steps) == 0 || mapping.Size == 0) {
			t.Errorf("%#x: %+v in %d steps", va, mapping, len(steps))
		}
		if len(steps) > 5 {
			t.Errorf("%#x: %d steps", va, len(steps))
		}
	})
}

func FuzzCrashNotes(f *testing.F) {
	f.Add([]byte{5, 0, 0, 0, 0x50, 1, 0, 0, 1, 0, 0, 0, 'C', 'O', 'R', 'E'})
	f.Fuzz(func(t *testing.T, note []byte) {
		m := kerneltest.Linux(kerneltest.Options{})
		m.Write(m.PerCPUVar(0x200, 0), note[:min(len(note), 512)])
		k, err := Open(m.Dump())
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range k.CPUStates() {
			if _, ok := s.Regs.Get(x86.RIP); !ok {
				t.Errorf("CPU %d has no rip", s.CPU)
			}
		}
	})
}
