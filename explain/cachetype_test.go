package explain

import (
	"testing"

	"inquest/internal/kerneltest"
	"inquest/kernel"
)

// TestStructNamed: what a struct's name means depends on whose code asks.
func TestStructNamed(t *testing.T) {
	m := kerneltest.Linux(kerneltest.Options{ModuleTypes: true})
	m.Types(kerneltest.Struct("widget", kerneltest.Field{Name: "kernels_own", Type: kerneltest.Int}))
	k, err := kernel.Open(m.Dump())
	if err != nil {
		t.Fatal(err)
	}
	types, err := k.Types()
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ module, home, check string }{
		{"", "", "struct widget 0x1000"},
		{"widget", "widget", "struct widget --module widget 0x1000"},
	} {
		s := structNamed(types, "widget", tt.module, 4)
		if s == nil {
			t.Fatalf("no struct for %q", tt.module)
		}
		if s.module != tt.home || s.check(0x1000) != tt.check {
			t.Errorf("for %q: of %q, shown by %q", tt.module, s.module, s.check(0x1000))
		}
		c := &Case{Kernel: k}
		if got := c.structFor(s.Struct, "widget"); got.module != tt.home {
			t.Errorf("the struct of %q is said to be of %q", tt.home, got.module)
		}
	}
	if s := structNamed(types, "widget", "widget", 8); s != nil {
		t.Errorf("a struct of another size: %v", s)
	}
}
