package vmcore

import (
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
