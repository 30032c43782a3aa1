package kernel

import (
	"errors"
	"math"
	"testing"

	"github.com/cilium/ebpf/btf"

	"inquest/internal/kerneltest"
)

type field = kerneltest.Field

func objectKernel(t testing.TB) (*Kernel, Addr) {
	m := kerneltest.New()
	inner := kerneltest.Struct("inner", field{Name: "x", Type: kerneltest.Int}, field{Name: "y", Type: kerneltest.U16})
	node := &btf.Struct{Name: "node"}
	e64 := &btf.Enum{Name: "e64", Size: 8, Values: []btf.EnumValue{{Name: "BIG", Value: 1 << 63}}}
	signedEnum := &btf.Enum{Name: "e32", Size: 4, Signed: true, Values: []btf.EnumValue{{Name: "NEG", Value: math.MaxUint64}}}
	kerneltest.Complete(node,
		field{Name: "next", Type: &btf.Const{Type: kerneltest.Ptr(&btf.Volatile{Type: node})}},
		field{Name: "", Type: kerneltest.Union("", field{Name: "whole", Type: kerneltest.U32},
			field{Name: "", Type: kerneltest.Struct("", field{Name: "low", Type: kerneltest.U16}, field{Name: "high", Type: kerneltest.U16})})},
		field{Name: "b1", Type: kerneltest.U32, Bits: 3}, field{Name: "b2", Type: kerneltest.Int, Bits: 5},
		field{Name: "b3", Type: kerneltest.Ulong, Bits: 33},
		field{Name: "in", Type: &btf.Typedef{Name: "inner_t", Type: inner}},
		field{Name: "name", Type: kerneltest.Array(kerneltest.Char, 8)},
		field{Name: "label", Type: kerneltest.Ptr(&btf.Const{Type: kerneltest.Char})},
		field{Name: "e64", Type: e64}, field{Name: "e32", Type: signedEnum},
		field{Name: "s8", Type: kerneltest.Char},
		field{Name: "grid", Type: kerneltest.Array(kerneltest.Array(kerneltest.U16, 4), 3)},
		field{Name: "vec", Type: kerneltest.Ptr(kerneltest.U32)},
		field{Name: "fn", Type: kerneltest.Ptr(&btf.FuncProto{Return: kerneltest.Int})},
		field{Name: "tail", Type: kerneltest.Array(kerneltest.U32, 0)},
	)
	m.Types(node)
	a, b := m.Alloc(256, 8), m.Alloc(256, 8)
	at := func(path string) uint64 { off, _ := kerneltest.Offset(node, path); return a + off }
	m.Set(a, node, "next", b)
	m.Set(b, node, "next", a)
	m.Set(a, node, "whole", 0x22221111)
	b3, _ := kerneltest.Offset(node, "b3")
	m.Write64(a+b3, 0x1_2345_6789)
	m.Write(at("whole")+4, []byte{0x5 | 0x1e<<3&0xff})
	m.Set(a, node, "in.x", 0xfffffffe)
	m.Set(b, node, "in.y", 77)
	m.SetString(a, node, "name", "short")
	m.Write(at("name"), []byte("exactly8"))
	m.Set(a, node, "label", m.PutString("a label"))
	m.Set(a, node, "e64", 1<<63)
	m.Set(a, node, "e32", 0xffffffff)
	m.Set(a, node, "s8", 0x80)
	m.Write(at("grid")+2*(4*1+2), []byte{0x34, 0x12})
	m.Set(a, node, "vec", m.Put([]byte{1, 0, 0, 0, 2, 0, 0, 0}))
	m.Write32(at("tail")+4, 99)
	return open(t, m), Addr(a)
}

func TestObjectNumbers(t *testing.T) {
	k, a := objectKernel(t)
	o, err := k.Object("struct node", a)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		path string
		u    uint64
		i    int64
	}{
		{"whole", 0x22221111, 0x22221111},
		{"low", 0x1111, 0x1111},
		{"high", 0x2222, 0x2222},
		{"b1", 5, 5},
		{"b2", 0x1e, -2},
		{"b3", 0x1_2345_6789, 0x1_2345_6789},
		{"in.x", 0xfffffffe, -2},
		{"next->in.y", 77, 77},
		{"next->next->in.x", 0xfffffffe, -2},
		{"e64", 1 << 63, math.MinInt64},
		{"e32", 0xffffffff, -1},
		{"s8", 0x80, -128},
		{"grid[1][2]", 0x1234, 0x1234},
		{"vec[1]", 2, 2},
		{"name[7]", '8', '8'},
		{"tail[1]", 99, 99},
		{"next[0].in.y", 77, 77},
	} {
		if u, err := o.Uint(tt.path); u != tt.u || err != nil {
			t.Errorf("%s is %#x, %v; want %#x", tt.path, u, err, tt.u)
		}
		if i, err := o.Int(tt.path); i != tt.i || err != nil {
			t.Errorf("%s is %d, %v; want %d", tt.path, i, err, tt.i)
		}
		if !o.Has(tt.path) {
			t.Errorf("has no %s", tt.path)
		}
	}
	for _, tt := range []struct {
		path string
		want error
	}{
		{"none", ErrNoMember}, {"in.none", ErrNoMember}, {"grid", ErrNoType}, {"low->x", ErrNoType}, {"low[0]", ErrNoType},
		{"grid[x]", ErrNoMember}, {"grid[", ErrNoMember}, {"grid[-1]", ErrNoMember}, {"grid[1]x", ErrNoMember},
		{"fn->x", ErrNoMember}, {"fn[1]", ErrNoType}, {".in", ErrNoMember}, {"in..x", ErrNoMember}, {"in-x", ErrNoMember},
	} {
		if _, err := o.Uint(tt.path); !errors.Is(err, tt.want) {
			t.Errorf("%s: %v, want %v", tt.path, err, tt.want)
		}
	}
}

func TestObjectStrings(t *testing.T) {
	k, a := objectKernel(t)
	o, _ := k.Object("node", a)
	for path, want := range map[string]string{"name": "exactly8", "label": "a label"} {
		if s, err := o.String(path); s != want || err != nil {
			t.Errorf("%s is %q, %v", path, s, err)
		}
	}
	if _, err := o.String("low"); !errors.Is(err, ErrNoType) {
		t.Errorf("a number as a string: %v", err)
	}
}

func TestObjectPlaces(t *testing.T) {
	k, a := objectKernel(t)
	o, _ := k.Object("node", a)
	in, err := o.Member("in")
	if err != nil {
		t.Fatal(err)
	}
	if back, err := k.ContainerOf(in.Addr, "node", "in"); back.Addr != a || err != nil {
		t.Errorf("ContainerOf: %v, %v", back.Addr, err)
	}
	if off, err := k.OffsetOf("node", "in.y"); Addr(off) != in.Addr+4-a || err != nil {
		t.Errorf("OffsetOf: %d, %v", off, err)
	}
	next, err := o.Member("next")
	if err != nil {
		t.Fatal(err)
	}
	n, err := next.Deref()
	if err != nil {
		t.Fatal(err)
	}
	if y, err := n.Uint("in.y"); y != 77 || err != nil {
		t.Errorf("*next: %d, %v", y, err)
	}
	if _, err := in.Deref(); !errors.Is(err, ErrNoType) {
		t.Errorf("*in: %v", err)
	}
	grid, _ := o.Member("grid")
	row, err := grid.Index(1)
	if err != nil {
		t.Fatal(err)
	}
	cell, err := row.Index(2)
	if v, _ := cell.Uint(""); v != 0x1234 || err != nil {
		t.Errorf("grid[1][2]: %#x, %v", v, err)
	}
	if n, err := grid.Size(); n != 24 || err != nil {
		t.Errorf("size of grid: %d, %v", n, err)
	}
	if b, err := in.Bytes(); len(b) != 8 || err != nil {
		t.Errorf("bytes: %x, %v", b, err)
	}
	for member, want := range map[string]string{
		"next": "volatile struct node *const", "in": "inner_t", "name": "char [8]", "label": "const char *",
		"grid": "unsigned short [4] [3]", "fn": "int (*)()",
	} {
		m, _ := o.Member(member)
		if got := TypeName(m.Type); got != want {
			t.Errorf("%s is %q, want %q", member, got, want)
		}
	}
	var zero Object
	if !zero.IsZero() || o.IsZero() || zero.Has("x") {
		t.Error("the zero object")
	}
	for name, f := range map[string]func() error{
		"Uint":   func() error { _, err := zero.Uint("x"); return err },
		"Deref":  func() error { _, err := zero.Deref(); return err },
		"String": func() error { _, err := zero.String(""); return err },
		"Bytes":  func() error { _, err := zero.Bytes(); return err },
		"Index":  func() error { _, err := zero.Index(0); return err },
	} {
		if f() == nil {
			t.Errorf("%s of the zero object is no error", name)
		}
	}
}

// A bit-field may lie anywhere, also across nine bytes, and in the layout of
// before BTF's kind_flag, where the int has its bits.
func TestBitFields(t *testing.T) {
	m := kerneltest.New()
	bits := []byte{0xef, 0xcd, 0xab, 0x89, 0x67, 0x45, 0x23, 0x01, 0xff, 0x10}
	at := Addr(m.Put(bits))
	k := open(t, m)
	for _, tt := range []struct {
		offset, size uint32
		want         uint64
	}{
		{0, 1, 1}, {4, 8, 0xde}, {0, 64, 0x0123456789abcdef}, {1, 63, 0x0123456789abcdef >> 1},
		{4, 64, 0xf0123456789abcde}, {7, 64, 0x0123456789abcdef>>7 | 0x7f<<57}, {7, 60, (0x0123456789abcdef>>7 | 0x7f<<57) & (1<<60 - 1)},
	} {
		o := Object{k: k, Addr: at, Type: kerneltest.Ulong, Bits: Bits{tt.offset, tt.size}}
		if v, err := o.Uint(""); v != tt.want || err != nil {
			t.Errorf("%d bits at %d: %#x, %v; want %#x", tt.size, tt.offset, v, err, tt.want)
		}
	}
	var r rawTypes
	r.add(r.name("int"), btfInt, 0, 4, 32)
	r.add(r.name("int"), btfInt, 0, 4, 1<<24|3<<16|5) // signed, 5 bits from bit 3 on
	r.add(r.name("old"), btfStruct, 2, 8, r.name("a"), 1, 0, r.name("f"), 2, 8)
	set, err := parseBTF(r.bytes(), nil)
	if err != nil {
		t.Fatal(err)
	}
	types := &Types{k: k, base: set, modules: func() []moduleTypes { return nil }}
	o := k.ObjectOf(mustNamed(t, types, "old"), at)
	if v, err := o.Uint("f"); v != 0xcd>>3 || err != nil { // bits 11 to 15
		t.Errorf("legacy: %#x, %v", v, err)
	}
	if v, err := o.Int("f"); v != 0xcd>>3-32 || err != nil {
		t.Errorf("legacy, signed: %d, %v", v, err)
	}
}

func TestNoTypes(t *testing.T) {
	k := open(t, kerneltest.Linux(kerneltest.Options{NoBTF: true}).Machine)
	if _, err := k.Object("task_struct", 0); !errors.Is(err, ErrNoBTF) {
		t.Errorf("Object: %v", err)
	}
	if k.HasMember("task_struct", "pid") {
		t.Error("HasMember")
	}
	if _, err := k.Tasks(); !errors.Is(err, ErrNoBTF) {
		t.Errorf("Tasks: %v", err)
	}
	// What needs no types still works.
	if name := k.Name(k.Layout.Text); name != "_text" {
		t.Errorf("Name: %q", name)
	}
	n := 0
	for _, err := range k.Log() {
		if err != nil {
			t.Error(err)
		}
		n++
	}
	if n != 3 {
		t.Errorf("%d messages", n)
	}
	if s := k.CPUStates(); len(s) != 1 || s[0].CPU != 0 {
		t.Errorf("CPUs: %v", s)
	}
	if k.Taint() != "DO" {
		t.Errorf("taint %q", k.Taint())
	}
}
