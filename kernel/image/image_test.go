package image

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"strings"
	"testing"

	"inquest/internal/kerneltest"
	"inquest/kernel"
	"inquest/vmcore"
)

const text = kerneltest.LinkText

// fakeVmlinux is the file of a small kernel: sk_free, sock_gen_put, and a function that
// calls the former.
func fakeVmlinux(t *testing.T, l kerneltest.Kallsyms) []byte {
	t.Helper()
	m := kerneltest.New()
	m.KASLR = 0
	l.NotInInfo = true
	m.Kallsyms = l
	m.Symbol("sk_free", 'T', text+0x100)
	m.Symbol("sock_gen_put", 'T', text+0x200)
	m.Symbol("nf_queue_entry_free", 'T', text+0x300)
	m.PutString("Linux version 6.1.0-test (me@here) (gcc 12) #1 SMP Debian 6.1.7-1")
	m.Symbols()
	m.Call(text+0x310, text+0x100)
	return m.Vmlinux()
}

func TestNew(t *testing.T) {
	layouts := map[string]kerneltest.Kallsyms{
		"4.18": {Markers64: true},
		"6.2":  {Seqs: true},
		"6.4":  {Seqs: true, NamesFirst: true},
		"7.0":  {Seqs: true, PlaceRelative: true, PlainPerCPU: true},
	}
	for name, l := range layouts {
		file := fakeVmlinux(t, l)
		for kind, data := range map[string][]byte{
			"vmlinux":    file,
			"vmlinux.gz": kerneltest.Gzip(file),
			"vmlinuz":    kerneltest.BzImage(file),
		} {
			img, err := New(data)
			if err != nil {
				t.Errorf("%s, %s: %v", name, kind, err)
				continue
			}
			if img.Release != "6.1.0-test" || !strings.HasSuffix(img.Banner, "#1 SMP Debian 6.1.7-1") {
				t.Errorf("%s, %s: release %q, banner %q", name, kind, img.Release, img.Banner)
			}
			syms, err := img.LookupAll("nf_queue_entry_free")
			if err != nil || syms[0].Addr != text+0x300 {
				t.Errorf("%s, %s: nf_queue_entry_free is %v, %v", name, kind, syms, err)
			}
			code, err := img.Slice(text+0x310, 5)
			if err != nil || string(code) != "\xe8\xeb\xfd\xff\xff" {
				t.Errorf("%s, %s: code % x, %v", name, kind, code, err)
			}
		}
	}
}

func TestNewRefuses(t *testing.T) {
	file := fakeVmlinux(t, kerneltest.Kallsyms{})
	dump := bytes.Clone(file)
	dump[16] = byte(elf.ET_CORE)
	short := file[:len(file)/2]
	tests := []struct {
		name string
		data []byte
		want error
	}{
		{"nothing", nil, ErrNotKernel},
		{"text", []byte("hello"), ErrNotKernel},
		{"a dump", dump, ErrNotKernel},
		{"cut", short, ErrCorrupt},
		{"cut payload", kerneltest.BzImage(file)[:5000], ErrCorrupt},
		{"payload that is none", kerneltest.BzImage([]byte("hello")), ErrNotKernel},
		{"no symbols", noSymbols(), ErrNotKernel},
		{"header only", file[:ehdrSize-1], ErrCorrupt},
	}
	for _, tt := range tests {
		if _, err := New(tt.data); !errors.Is(err, tt.want) {
			t.Errorf("%s: %v, want %v", tt.name, err, tt.want)
		}
	}
}

// moduleOf is a module file with the functions first, at 0, and second, at 32, and
// these relocations of its code.
func moduleOf(code []byte, relocations []kerneltest.Relocation) []byte {
	return kerneltest.ModuleFile(code, []kerneltest.Function{{Name: "first", Size: 32}, {Name: "second", Offset: 32, Size: uint64(len(code) - 32)}}, relocations)
}

func TestAddModule(t *testing.T) {
	img, err := New(fakeVmlinux(t, kerneltest.Kallsyms{}))
	if err != nil {
		t.Fatal(err)
	}
	code := bytes.Repeat([]byte{0x90}, 64)
	for _, at := range []int{0, 8, 32} {
		code[at] = 0xe8
	}
	file := moduleOf(code, []kerneltest.Relocation{
		{Offset: 1, Kind: elf.R_X86_64_PLT32, Symbol: "sk_free", Addend: -4},
		{Offset: 9, Kind: elf.R_X86_64_PC32, Symbol: "elsewhere", Addend: -4},
		{Offset: 33, Kind: elf.R_X86_64_PLT32, Symbol: "first", Addend: -4},
		{Offset: 200, Kind: elf.R_X86_64_PLT32, Symbol: "first", Addend: -4}, // behind the code
	})
	for _, name := range []string{"one", "two"} {
		if err := img.AddModule(name, kerneltest.Gzip(file)); err != nil {
			t.Fatal(err)
		}
	}
	targets := func(fn string, offs ...int) (names []string) {
		syms, err := img.LookupAll(fn)
		if err != nil || len(syms) != 2 || syms[0].Module != "one" || syms[1].Module != "two" || syms[0].Size != 32 {
			t.Fatalf("%s: %v, %v", fn, syms, err)
		}
		code, err := img.Slice(syms[1].Addr, int(syms[1].Size))
		if err != nil {
			t.Fatal(err)
		}
		for _, off := range offs {
			to := syms[1].Addr + kernel.Addr(off+5) + kernel.Addr(int64(int32(binary.LittleEndian.Uint32(code[off+1:]))))
			sym, at, ok := img.SymbolAt(to)
			if !ok || at != 0 {
				t.Errorf("%s+%d leads to %v: %v+%d", fn, off, to, sym, at)
			}
			names = append(names, sym.Name+sym.Module)
		}
		return names
	}
	if got := strings.Join(append(targets("first", 0, 8), targets("second", 0)...), " "); got != "sk_free elsewhere firsttwo" {
		t.Errorf("calls lead to %s", got)
	}
	if _, err := img.LookupAll("third"); !errors.Is(err, kernel.ErrNoSymbol) {
		t.Errorf("third: %v", err)
	}
	syms, _ := img.LookupAll("second")
	if _, err := img.Slice(syms[0].Addr, 1000); !errors.Is(err, kernel.ErrCorrupt) {
		t.Errorf("reading past a section: %v", err)
	}
	for name, bad := range map[string][]byte{"vmlinux": fakeVmlinux(t, kerneltest.Kallsyms{}), "cut": file[:len(file)-100], "text": []byte("x")} {
		if err := img.AddModule(name, bad); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzAddModule(f *testing.F) {
	code := bytes.Repeat([]byte{0x90}, 64)
	f.Add(moduleOf(code, []kerneltest.Relocation{{Offset: 1, Kind: elf.R_X86_64_PLT32, Symbol: "x", Addend: -4}, {Offset: 33, Kind: elf.R_X86_64_64, Symbol: "first", Addend: 1 << 40}}))
	f.Fuzz(func(t *testing.T, file []byte) {
		img := &Image{Kernel: emptyKernel(t)}
		if img.AddModule("m", file) == nil {
			for _, s := range img.modules[0].symbols {
				img.Slice(s.Addr, int(s.Size))
				img.SymbolAt(s.Addr + 1)
			}
		}
	})
}

// noSymbols is the file of a kernel that has none.
func noSymbols() []byte {
	m := kerneltest.New()
	m.KASLR, m.NoSymbols = 0, true
	m.PutString("Linux version 6.1 (x)")
	return m.Vmlinux()
}

// emptyKernel is a kernel without any symbols.
func emptyKernel(t *testing.T) *kernel.Kernel {
	c, err := asCore(noSymbols())
	if err != nil {
		t.Fatal(err)
	}
	dump, err := vmcore.NewReader(vmcore.Part{R: c, Size: c.size(), Name: "vmlinux"})
	if err != nil {
		t.Fatal(err)
	}
	k, err := kernel.Open(dump)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func FuzzNew(f *testing.F) {
	f.Add(noSymbols()[:8192])
	f.Add(kerneltest.BzImage(noSymbols()[:8192]))
	f.Fuzz(func(t *testing.T, file []byte) {
		New(file)
	})
}
