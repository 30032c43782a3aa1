package explain

import (
	"testing"

	"inquest/kernel"
	"inquest/vmcore"
)

// openCase makes a case of a dump.
func openCase(t *testing.T, path string) *Case {
	t.Helper()
	d, err := vmcore.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	k, err := kernel.Open(d)
	if err != nil {
		t.Fatal(err)
	}
	c, err := New(k)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// TestPoison: a number that looks like poison is a wild pointer. What it says of memory
// depends on whether this kernel, which does not poison slab objects, can have put it there.
func TestPoison(t *testing.T) {
	c := openCase(t, "../testdata/example.kdump")
	for _, tt := range []struct {
		addr   uint64
		poison poison
		class  Class
	}{
		{0x6b6b6b6b6b6b6b6b, freePoison, WildPointer},
		{0x6b6b6b6b6b6b6b6b + 0x40, freePoison, WildPointer},
		{0x5a5a5a5a5a5a5a5a, usePoison, WildPointer},
		{0xaaaaaaaaaaaaaaaa, pagePoison, WildPointer},
		{0xcccccccccccccccc, initPoison, WildPointer},
		{0xbbbbbbbbbbbbbbbb, redPoison, WildPointer},
		{0xdead000000000100, listPoison, ListCorruption},
		{0xdead000000000122 + 8, listPoison, ListCorruption},
		{0x4141414141414141, notPoison, WildPointer},
	} {
		bad, ok := c.judge(tt.addr, false, false)
		if !ok || !bad.sure || bad.class != WildPointer || bad.poison != tt.poison {
			t.Errorf("%#x: %+v, %v", tt.addr, bad, ok)
		}
		f := Finding{Class: bad.class, Confidence: Certain}
		c.poisoned(&f, bad)
		if f.Class != tt.class || f.Class != WildPointer && f.Confidence != Likely {
			t.Errorf("%#x is %s, %s; want %s", tt.addr, f.Class, f.Confidence, tt.class)
		}
	}
}
