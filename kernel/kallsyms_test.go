package kernel

import (
	"errors"
	"strings"
	"testing"

	"inquest/internal/kerneltest"
)

// layouts are the symbol tables of all kernels from 4.18 on.
var layouts = map[string]kerneltest.Kallsyms{
	"4.18":            {Markers64: true, NotInInfo: true},
	"4.20":            {NotInInfo: true},
	"6.0":             {},
	"6.2":             {Seqs: true},
	"6.2 not named":   {Seqs: true, NotInInfo: true},
	"6.4":             {Seqs: true, NamesFirst: true},
	"6.4 not named":   {Seqs: true, NamesFirst: true, NotInInfo: true},
	"6.15":            {Seqs: true, NamesFirst: true, PlainPerCPU: true},
	"6.15 not named":  {Seqs: true, NamesFirst: true, PlainPerCPU: true, NotInInfo: true},
	"7.0":             {Seqs: true, PlaceRelative: true, PlainPerCPU: true},
	"7.0 not named":   {Seqs: true, PlaceRelative: true, PlainPerCPU: true, NotInInfo: true},
	"no SMP, 4.18":    {Markers64: true, PlainPerCPU: true, NotInInfo: true},
	"markers to fill": {FillTo: 1024, NotInInfo: true},
	"no padding":      {Seqs: true, FillTo: 1023, NotInInfo: true},
}

func symbolMachine(l kerneltest.Kallsyms) *kerneltest.Machine {
	m := kerneltest.New()
	m.Kallsyms = l
	long := strings.Repeat("long_", 60) // over 127 tokens
	m.Symbol(long, 't', m.Text()+0x100)
	m.Symbol("sys_read", 't', m.Text()+0x200)
	m.Symbol("alias_of_sys_read", 'T', m.Text()+0x200)
	m.Symbol("twice", 't', m.Text()+0x300)
	m.Symbol("twice", 't', m.Text()+0x400)
	m.Symbol("x", 'W', m.Text()+0x500)
	if !l.PlainPerCPU {
		m.Symbol("runqueues", 'd', 0x1000)
		m.Symbol("cpu_number", 'd', 0x2000)
	}
	return m
}

func TestSymbolLayouts(t *testing.T) {
	for name, l := range layouts {
		t.Run(name, func(t *testing.T) {
			m := symbolMachine(l)
			k := open(t, m)
			s, err := k.Symbols()
			if err != nil {
				t.Fatal(err)
			}
			if found := strings.HasPrefix(s.Source, "found at 0x"); found != l.NotInInfo {
				t.Errorf("tables from %s", s.Source)
			}
			want := m.Symbols()
			if s.Len() != len(want) {
				t.Fatalf("%d symbols, want %d", s.Len(), len(want))
			}
			for i, w := range want {
				got := s.At(i)
				if got.Name != w.Name || got.Addr != Addr(w.Addr) || got.Type != w.Type {
					t.Fatalf("symbol %d is %v %c %s, want %#x %c %s", i, got.Addr, got.Type, got.Name, w.Addr, w.Type, w.Name)
				}
				size := uint64(0)
				for _, next := range want[i:] {
					if next.Addr > w.Addr && next.Addr-w.Addr < maxText {
						size = next.Addr - w.Addr
						break
					}
				}
				if got.Size != size {
					t.Errorf("%s has size %#x, want %#x", got.Name, got.Size, size)
				}
				found := false
				for _, g := range s.Lookup(w.Name) {
					found = found || g == got
				}
				if !found {
					t.Errorf("Lookup(%s) is %v", w.Name, s.Lookup(w.Name))
				}
			}
			if twice := s.Lookup("twice"); len(twice) != 2 || twice[0].Addr >= twice[1].Addr {
				t.Errorf("twice: %v", twice)
			}
			if none := s.Lookup("no_such"); none != nil {
				t.Errorf("no_such: %v", none)
			}
		})
	}
}

func TestSymbolAt(t *testing.T) {
	m := symbolMachine(kerneltest.Kallsyms{})
	k := open(t, m)
	end, err := k.Lookup("_end")
	if err != nil {
		t.Fatal(err)
	}
	text := Addr(m.Text())
	for _, tt := range []struct {
		addr Addr
		want string
		code bool
	}{
		{text, "_text", true},
		{text + 0x200, "alias_of_sys_read", true}, // of several, that which kallsyms has first
		{text + 0x2ff, "alias_of_sys_read+0xff", true},
		{text + 0x500, "x", false}, // weak
		{text - 1, "", false},
		{end.Addr - 1, "filler", true},
		{end.Addr, "_end", false},
		{end.Addr + 1, "", false},
		{0x1000, "", false}, // a per-CPU variable's offset is no address
		{0, "", false},
		{^Addr(0), "", false},
	} {
		got := k.Name(tt.addr)
		if tt.want == "filler" {
			got, _, _ = strings.Cut(got, "6")
		}
		if tt.want == "alias_of_sys_read" || tt.want == "alias_of_sys_read+0xff" {
			// The builder's sort is stable: sys_read came first.
			tt.want = strings.TrimPrefix(tt.want, "alias_of_")
		}
		if got != tt.want {
			t.Errorf("%v is %q, want %q", tt.addr, got, tt.want)
		}
		if code := k.Text(tt.addr); code != (tt.code || tt.want == "x") {
			t.Errorf("%v (%s) is text: %v", tt.addr, tt.want, code)
		}
	}
	if _, err := k.Lookup("no_such"); !errors.Is(err, ErrNoSymbol) {
		t.Errorf("no_such: %v", err)
	}
	if a, err := k.Symbol("runqueues"); a != 0x1000 || err != nil {
		t.Errorf("runqueues: %v, %v", a, err)
	}
}

func TestSymbolErrors(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(*kerneltest.Machine)
		want   error
	}{
		{"no tables", func(m *kerneltest.Machine) { m.NoSymbols = true }, ErrNoSymbol},
		{"a name of no length", func(m *kerneltest.Machine) { m.Kallsyms.CorruptNames = true }, ErrNoSymbol},
		{"not sorted", func(m *kerneltest.Machine) { m.Kallsyms.CorruptOffsets = true }, ErrCorrupt},
		{"tables elsewhere", func(m *kerneltest.Machine) {
			m.NoSymbols = true
			for _, s := range []string{"names", "num_syms", "token_table", "token_index", "offsets", "relative_base"} {
				m.Info("SYMBOL(kallsyms_%s)=ffffffff%08x", s, 0xfffff000)
			}
		}, ErrNoSymbol},
	} {
		m := symbolMachine(kerneltest.Kallsyms{})
		tt.change(m)
		k := open(t, m)
		if _, err := k.Symbols(); !errors.Is(err, tt.want) {
			t.Errorf("%s: %v, want %v", tt.name, err, tt.want)
		}
		if name := k.Name(Addr(m.Text())); name != "" {
			t.Errorf("%s: _text is %q", tt.name, name)
		}
	}
}

// Many symbols of one name, at one address, must not make look-ups slow.
func TestSymbolsAllAlike(t *testing.T) {
	m := kerneltest.New()
	for range 20000 {
		m.Symbol("same", 't', m.Text()+0x1000)
	}
	k := open(t, m)
	s, err := k.Symbols()
	if err != nil {
		t.Fatal(err)
	}
	if n := len(s.Lookup("same")); n != 20000 {
		t.Errorf("%d symbols", n)
	}
	if sym, ok := s.Find(Addr(m.Text() + 0x1000)); !ok || sym.Name != "same" {
		t.Errorf("found %v", sym)
	}
}

func TestTokenHash(t *testing.T) {
	var s Symbols
	for i, token := range []string{"tsys", "_", "read", "x", ""} {
		s.tokens[i] = []byte(token)
		s.hashes[i] = hashToken(s.tokens[i])
	}
	for _, tokens := range [][]byte{{0, 1, 2}, {3, 2}, {3}, {0}, {0, 4, 1}} {
		full := s.expand(nil, tokens)
		h, chars := s.hashTokens(tokens)
		if want := hashToken(full[1:]).hash; h != want || chars != len(full) {
			t.Errorf("%s: hash %#x of %d, want %#x of %d", full, h, chars, want, len(full))
		}
	}
}

// An image full of what looks like the beginning of tables is given up on.
func TestFindTablesGivesUp(t *testing.T) {
	m := kerneltest.New()
	m.NoSymbols = true
	var table []byte
	for i := range 256 {
		table = append(table, byte(max(i, 1)), 0)
	}
	for range 2000 {
		m.Put(table)
	}
	k := open(t, m)
	if _, err := k.Symbols(); !errors.Is(err, ErrNoSymbol) {
		t.Errorf("%v", err)
	}
}
