package vmcore

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"testing"
)

func TestVMCoreInfo(t *testing.T) {
	v := parseVMCoreInfo([]byte(`OSRELEASE=6.1.0-1-amd64
BUILD-ID=0123=456
PAGESIZE=4096
SYMBOL(init_uts_ns)=ffffffffb0f054e0
SYMBOL(bad)=xyz
OFFSET(list_head.next)=0
OFFSET(page.flags)=8
SIZE(page)=64
LENGTH(zone.free_area)=11
NUMBER(phys_base)=-757071872
NUMBER(PG_lru)=5
NUMBER(huge)=18446744073709551615
NUMBER(kimage_voffset)=0xffff7fffb8000000
NUMBER(bad)=0xzz
SIZE(page)=65

no key value line
CRASHTIME=1700000000
`+"\x00SIZE(hidden)=1\n"), "note")
	if s, ok := v.Get("BUILD-ID"); !ok || s != "0123=456" {
		t.Errorf("Get(BUILD-ID) = %q, %v", s, ok)
	}
	if _, ok := v.Get("no key value line"); ok {
		t.Error("a line without = became a key")
	}
	unsigned := func(f func(string) (uint64, bool), name string, want uint64, wantOK bool) {
		t.Helper()
		if n, ok := f(name); n != want && ok || ok != wantOK {
			t.Errorf("%s = %#x, %v; want %#x, %v", name, n, ok, want, wantOK)
		}
	}
	unsigned(v.Symbol, "init_uts_ns", 0xffffffffb0f054e0, true)
	unsigned(v.Symbol, "bad", 0, false)
	unsigned(v.Symbol, "none", 0, false)
	unsigned(v.Offset, "page.flags", 8, true)
	unsigned(v.Offset, "list_head.next", 0, true)
	unsigned(v.Offset, "page.none", 0, false)
	unsigned(v.SizeOf, "page", 64, true)
	unsigned(v.SizeOf, "hidden", 0, false)
	unsigned(v.Length, "zone.free_area", 11, true)
	for name, want := range map[string]int64{"phys_base": -757071872, "PG_lru": 5, "huge": -1, "kimage_voffset": -0x800048000000} {
		if n, ok := v.Number(name); !ok || n != want {
			t.Errorf("Number(%s) = %d, %v; want %d", name, n, ok, want)
		}
	}
	for _, name := range []string{"bad", "none"} {
		if n, ok := v.Number(name); ok {
			t.Errorf("Number(%s) = %d", name, n)
		}
	}
}

// infoDump is a dump without notes; its memory holds the given texts, and at
// 16 MiB + 0x5000 an init_uts_ns of the given release.
func infoDump(t *testing.T, release string, texts map[uint64]string) *Dump {
	spec := kdumpSpec{codec: flagZstd, maxPFN: someMaxPFN, pages: make(map[uint64][]byte)}
	for pfn := range uint64(40) {
		spec.pages[pfn] = make([]byte, pg)
	}
	for pfn := uint64(0x1000); pfn < 0x1010; pfn++ {
		spec.pages[pfn] = make([]byte, pg)
	}
	put := func(addr uint64, s string) {
		for i := range len(s) {
			spec.pages[(addr+uint64(i))/pg][(addr+uint64(i))%pg] = s[i]
		}
	}
	put(16<<20+0x5000, "\x01\x00\x00\x00Linux\x00")
	put(16<<20+0x5000+4+65, "host\x00")
	put(16<<20+0x5000+4+2*65, release+"\x00")
	put(16<<20+0x5000+4+3*65, "#1 SMP\x00")
	for addr, s := range texts {
		put(addr, s)
	}
	return mustOpen(t, spec.build())
}

func TestScanVMCoreInfo(t *testing.T) {
	own, guest := someInfo("5.14.0-own"), someInfo("5.14.0-guest")
	for _, c := range []struct {
		name  string
		texts map[uint64]string
		want  string // release
		at    string
	}{
		{"its own page", map[uint64]string{30 * pg: own}, "5.14.0-own", "memory scan at 0x1e000"},
		{"a guest's before it", map[uint64]string{10 * pg: guest, 30 * pg: own}, "5.14.0-own", "memory scan at 0x1e000"},
		{"the note's copy before it", map[uint64]string{10*pg + 24: own, 30 * pg: own}, "5.14.0-own", "memory scan at 0x1e000"},
		{"a static array over a page boundary", map[uint64]string{31*pg - 32: own}, "5.14.0-own", "memory scan at 0x1efe0"},
		{"only a guest's", map[uint64]string{10 * pg: guest}, "5.14.0-guest", "memory scan at 0xa000"},
		{"something shorter before it", map[uint64]string{10 * pg: "OSRELEASE=5.14.0-own\n", 11 * pg: own}, "5.14.0-own", "memory scan at 0xb000"},
		{"two in a page", map[uint64]string{10*pg + 8: "OSRELEASE=\x00", 10*pg + 64: own}, "5.14.0-own", "memory scan at 0xa040"},
	} {
		d := infoDump(t, "5.14.0-own", c.texts)
		v, err := d.VMCoreInfo()
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		if s, _ := v.Get("OSRELEASE"); s != c.want || v.Source != c.at || !strings.HasSuffix(v.Raw, "CRASHTIME=1700000000\n") {
			t.Errorf("%s: release %q from %q, text %q", c.name, s, v.Source, v.Raw)
		}
		if again, _ := d.VMCoreInfo(); again != v {
			t.Errorf("%s: searched twice", c.name)
		}
	}
	d := infoDump(t, "5.14.0-own", nil)
	if _, err := d.VMCoreInfo(); !errors.Is(err, ErrNoVMCoreInfo) {
		t.Errorf("no VMCOREINFO anywhere: %v", err)
	}
}

// TestScanVMCoreInfoFlood fills memory with texts that look right.
func TestScanVMCoreInfoFlood(t *testing.T) {
	text := []byte("OSRELEASE=x\nPAGESIZE=4096\n")
	page := bytes.Repeat(text, pg/len(text)+1)[:pg]
	spec := kdumpSpec{codec: flagZstd, maxPFN: someMaxPFN, pages: make(map[uint64][]byte)}
	for pfn := range uint64(200) {
		spec.pages[pfn] = page
	}
	d := mustOpen(t, spec.build())
	v, err := d.VMCoreInfo()
	if err != nil || v.Source != "memory scan at 0x0" {
		t.Errorf("VMCoreInfo: %+v, %v", v, err)
	}
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
