package kernel

import (
	"encoding/binary"
	"errors"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cilium/ebpf/btf"

	"inquest/internal/kerneltest"
)

// rawTypes builds BTF by hand, as no builder would.
type rawTypes struct {
	types   []byte
	strings []byte
}

func (r *rawTypes) name(s string) uint32 {
	if len(r.strings) == 0 {
		r.strings = []byte{0}
	}
	if s == "" {
		return 0
	}
	at := len(r.strings)
	r.strings = append(append(r.strings, s...), 0)
	return uint32(at)
}

// add adds a type: its kind, number of parts, third word, and what follows.
func (r *rawTypes) add(name uint32, kind, vlen int, ref uint32, more ...uint32) {
	for _, v := range append([]uint32{name, uint32(kind<<24 | vlen), ref}, more...) {
		r.types = binary.LittleEndian.AppendUint32(r.types, v)
	}
}

func (r *rawTypes) bytes() []byte {
	r.name("")
	out := []byte(btfMagic + "\x00")
	for _, v := range []int{24, 0, len(r.types), len(r.types), len(r.strings)} {
		out = binary.LittleEndian.AppendUint32(out, uint32(v))
	}
	return append(append(out, r.types...), r.strings...)
}

// chain is a chain of n pointers; with a ring, the last points to the first.
func chain(n int, ring bool) []byte {
	var r rawTypes
	name := r.name("chain")
	r.add(name, btfTypedef, 0, 2)
	for i := 2; i <= n; i++ {
		next := uint32(i + 1)
		if i == n {
			next = 0
			if ring {
				next = 1
			}
		}
		r.add(0, btfPtr, 0, next)
	}
	return r.bytes()
}

func hostileBTF() map[string][]byte {
	one := func(f func(r *rawTypes)) []byte {
		var r rawTypes
		f(&r)
		return r.bytes()
	}
	return map[string][]byte{
		"a chain of half a million": chain(500000, false),
		"a ring of half a million":  chain(500000, true),
		"too many types":            chain(maxBTFTypes+1, false),
		"a reference to nothing":    one(func(r *rawTypes) { r.add(r.name("t"), btfTypedef, 0, 77) }),
		"a name of nothing":         one(func(r *rawTypes) { r.add(4711, btfFloat, 0, 8) }),
		"a name within a name":      one(func(r *rawTypes) { r.add(r.name("name")+1, btfFloat, 0, 8) }),
		"a kind of the future":      one(func(r *rawTypes) { r.add(0, 31, 0, 0) }),
		"a struct cut off":          one(func(r *rawTypes) { r.add(r.name("s"), btfStruct, 100, 8) }),
		"a name without end":        one(func(r *rawTypes) { r.add(r.name(strings.Repeat("x", 2*maxNameLen)), btfFloat, 0, 8) }),
		"a tag on a tag": one(func(r *rawTypes) {
			r.add(r.name("a"), btfDeclTag, 0, 2, ^uint32(0))
			r.add(1, btfDeclTag, 0, 1, ^uint32(0))
		}),
		"a tag on no member":          one(func(r *rawTypes) { n := r.name("s"); r.add(n, btfStruct, 0, 8); r.add(n, btfDeclTag, 0, 1, 3) }),
		"a tag on a function of void": one(func(r *rawTypes) { n := r.name("f"); r.add(n, btfFunc, 0, 0); r.add(n, btfDeclTag, 0, 1, ^uint32(0)) }),
		"names used too often": one(func(r *rawTypes) {
			n := r.name(strings.Repeat("x", maxNameLen))
			for range 10 {
				members := make([]uint32, 0, 3*60000)
				for range 60000 {
					members = append(members, n, 0, 0)
				}
				r.add(n, btfStruct, 60000, 8, members...)
			}
		}),
		"strings without end":  append(chain(3, false)[:24+36], "\x00chain"...),
		"a header cut off":     []byte(btfMagic),
		"a size of everything": []byte(btfMagic + "\x00\x18\x00\x00\x00\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"),
	}
}

// No BTF may overflow the stack, which cannot be recovered from, hang, or take
// much more memory than its size.
func TestHostileBTF(t *testing.T) {
	for name, raw := range hostileBTF() {
		t.Run(name, func(t *testing.T) {
			start := time.Now()
			if _, err := parseBTF(raw, nil); !errors.Is(err, ErrCorrupt) {
				t.Errorf("error %v", err)
			}
			var ms runtime.MemStats
			runtime.ReadMemStats(&ms)
			if d := time.Since(start); d > 10*time.Second || ms.Sys > 1<<30 {
				t.Errorf("took %v and %d MiB", d, ms.Sys>>20)
			}
		})
	}
}

// The deepest graph that is let through does not need much of a stack.
func TestDeepBTF(t *testing.T) {
	for _, ring := range []bool{false, true} {
		set, err := parseBTF(chain(maxBTFDepth, ring), nil)
		if err != nil {
			t.Fatal(err)
		}
		if set.index.depth != maxBTFDepth {
			t.Errorf("depth %d", set.index.depth)
		}
		types := &Types{base: set, modules: func() []moduleTypes { return nil }}
		typ, err := types.Named("chain")
		if err != nil {
			t.Fatal(err)
		}
		if s := TypeName(typ); s != "chain" {
			t.Errorf("it is %s", s)
		}
	}
	if _, err := parseBTF(chain(maxBTFDepth+1, false), nil); !errors.Is(err, ErrCorrupt) {
		t.Errorf("one deeper: %v", err)
	}
}

// What BTF allows but C does not must not hang either.
func TestOddTypes(t *testing.T) {
	var r rawTypes
	self := make([]uint32, 0, 3*1000)
	for range 1000 {
		self = append(self, 0, 1, 0)
	}
	r.add(r.name("self"), btfStruct, 1000, 8, self...)                           // 1: a thousand anonymous members of its own type
	r.add(r.name("loop"), btfTypedef, 0, 2)                                      // 2: itself
	r.add(r.name("ping"), btfTypedef, 0, 4)                                      // 3
	r.add(r.name("pong"), btfConst, 0, 3)                                        // 4
	r.add(0, btfArray, 0, 0, 5, 5, 0xffffffff)                                   // 5: of itself
	r.add(0, btfArray, 0, 0, 7, 7, 0xffffffff)                                   // 6
	r.add(0, btfArray, 0, 0, 8, 8, 0xffffffff)                                   // 7
	r.add(0, btfArray, 0, 0, 9, 9, 0xffffffff)                                   // 8: more than 2^64 bytes
	r.add(r.name("int"), btfInt, 0, 4, 32)                                       // 9
	r.add(r.name("huge"), btfStruct, 2, 8, r.name("a"), 5, 0, r.name("b"), 6, 0) // 10
	r.add(r.name("bits"), btfStruct|0x80, 1, 8, r.name("wide"), 9, 0xff000001)   // 11: 255 bits from bit 1
	set, err := parseBTF(r.bytes(), nil)
	if err != nil {
		t.Fatal(err)
	}
	m := kerneltest.New()
	at := Addr(m.Alloc(64, 8))
	k := open(t, m)
	types := &Types{k: k, base: set, modules: func() []moduleTypes { return nil }}
	for _, name := range []string{"self", "loop", "ping", "huge", "bits"} {
		typ, err := types.Named(name)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		o := k.ObjectOf(typ, at)
		o.Size()
		o.Index(7)
		o.Deref()
		o.Bytes()
		TypeName(typ)
		Members(typ)
		for _, path := range []string{"", "no", "a", "b", "a[9]", "b[16777215][16777215]", "wide", "x->y", "self.self"} {
			o.Has(path)
			o.Uint(path)
			o.Int(path)
			o.String(path)
		}
	}
	if _, err := k.ObjectOf(mustNamed(t, types, "bits"), at).Uint("wide"); !errors.Is(err, ErrCorrupt) {
		t.Errorf("a bit-field of 255 bits: %v", err)
	}
	if _, err := k.ObjectOf(mustNamed(t, types, "huge"), at).Uint("b[1]"); !errors.Is(err, ErrNoType) {
		t.Errorf("an array of 2^96 bytes: %v", err)
	}
}

func mustNamed(t *testing.T, types *Types, name string) btf.Type {
	t.Helper()
	typ, err := types.Named(name)
	if err != nil {
		t.Fatal(err)
	}
	return typ
}

func TestNamed(t *testing.T) {
	m := kerneltest.Linux(kerneltest.Options{ModuleTypes: true})
	m.Types(
		kerneltest.Struct("thing", kerneltest.Field{Name: "a", Type: kerneltest.Int}),
		&btf.Typedef{Name: "thing", Type: kerneltest.Long},
		kerneltest.Union("box", kerneltest.Field{Name: "a", Type: kerneltest.Int}),
		&btf.Enum{Name: "colour", Size: 4, Values: []btf.EnumValue{{Name: "RED", Value: 1}}},
		&btf.Enum{Name: "wide", Size: 8, Signed: true, Values: []btf.EnumValue{{Name: "W", Value: 1 << 40}}},
		&btf.Typedef{Name: "u64", Type: kerneltest.Ulong},
		&btf.Func{Name: "do_it", Linkage: btf.StaticFunc, Type: &btf.FuncProto{Return: kerneltest.Void,
			Params: []btf.FuncParam{{Name: "n", Type: kerneltest.Int}}}},
		&btf.Fwd{Name: "nowhere", Kind: btf.FwdStruct},
	)
	k := open(t, m.Machine)
	types, err := k.Types()
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ name, want string }{
		{"struct thing", "struct thing"}, {"thing", "struct thing"}, {"union box", "union box"}, {"box", "union box"},
		{"enum colour", "enum colour"}, {"wide", "enum wide"}, {"u64", "u64"}, {"unsigned long", "unsigned long"},
		{"struct widget", "struct widget"}, // of the module
		{"union thing", ""}, {"struct box", ""}, {"nowhere", ""}, {"struct nowhere", ""}, {"", ""}, {"struct ", ""},
		{"thin", ""}, {"hing", ""}, {"do_it", ""},
	} {
		typ, err := types.Named(tt.name)
		if tt.want == "" {
			if !errors.Is(err, ErrNoType) {
				t.Errorf("%q: %v, %v", tt.name, typ, err)
			}
		} else if err != nil || TypeName(typ) != tt.want {
			t.Errorf("%q is %v, %v", tt.name, typ, err)
		}
	}
	if p, err := types.Func("do_it", ""); err != nil || len(p.Params) != 1 || p.Params[0].Name != "n" {
		t.Errorf("do_it: %v, %v", p, err)
	}
	for _, f := range [][2]string{{"thing", ""}, {"do_it", "widget"}, {"do_it", "none"}} {
		if _, err := types.Func(f[0], f[1]); !errors.Is(err, ErrNoType) {
			t.Errorf("%s in %q: %v", f[0], f[1], err)
		}
	}
	if types.Spec("") == nil || types.Spec("widget") == nil || types.Spec("none") != nil {
		t.Error("Spec")
	}
	var names []string
	for typ := range types.All("widget") {
		names = append(names, TypeName(typ))
	}
	if !slices.Contains(names, "struct widget") {
		t.Errorf("types of the module: %v", names)
	}
	n := 0
	for range types.All("") {
		n++
	}
	if n < 30 {
		t.Errorf("%d types", n)
	}
}

// A module's struct hides the kernel's of the same name from the module's code.
func TestNamedFor(t *testing.T) {
	m := kerneltest.Linux(kerneltest.Options{ModuleTypes: true})
	m.Types(
		kerneltest.Struct("widget", kerneltest.Field{Name: "a", Type: kerneltest.Ulong}, kerneltest.Field{Name: "b", Type: kerneltest.Ulong}),
		kerneltest.Struct("thing", kerneltest.Field{Name: "a", Type: kerneltest.Int}),
	)
	k := open(t, m.Machine)
	types, err := k.Types()
	if err != nil {
		t.Fatal(err)
	}
	for range 2 { // the second time from the cache
		for _, tt := range []struct {
			name, module string
			size         int
			home         string
		}{
			{"struct widget", "", 16, ""}, {"struct widget", "widget", 4, "widget"}, {"widget", "widget", 4, "widget"},
			{"struct widget", "none", 16, ""}, {"struct thing", "widget", 4, ""}, {"struct thing", "", 4, ""},
		} {
			typ, home, err := types.Find(tt.name, tt.module)
			if err != nil || home != tt.home {
				t.Fatalf("%s for %q: in %q, %v", tt.name, tt.module, home, err)
			}
			if size, err := btf.Sizeof(typ); err != nil || size != tt.size {
				t.Errorf("%s for %q has %d bytes (%v), want %d", tt.name, tt.module, size, err, tt.size)
			}
		}
	}
	if o, err := k.ObjectFor("struct widget", "widget", 0); err != nil || !o.Has("knob") {
		t.Errorf("the module's object: %v, %v", o, err)
	}
	if _, err := types.NamedFor("struct nothing", "widget"); !errors.Is(err, ErrNoType) {
		t.Errorf("no such struct: %v", err)
	}
}

// TestSpecConcurrently has the library resolve a module's types, and with them the
// kernel's, while the methods of Types do: run with -race.
func TestSpecConcurrently(t *testing.T) {
	m := kerneltest.Linux(kerneltest.Options{ModuleTypes: true})
	k := open(t, m.Machine)
	types, err := k.Types()
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			module := []string{"", "widget"}[i%2]
			if i < 2 {
				for range types.All(module) {
				}
				return
			}
			n := 0
			for _, err := range types.Spec(module).All() {
				if err != nil {
					t.Error(err)
				}
				n++
			}
			if n == 0 {
				t.Errorf("no types in %q", module)
			}
		})
	}
	wg.Wait()
}

// Functions may all have one name.
func TestFunctionsAllAlike(t *testing.T) {
	var r rawTypes
	name := r.name("same")
	r.add(0, btfFuncProto, 0, 0)
	const n = 300000
	for range n {
		r.add(name, btfFunc, 0, 1)
	}
	r.add(r.name("other"), btfFunc, 0, 1)
	set, err := parseBTF(r.bytes(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if ids := set.index.find("same", btfFunc); len(ids) != n || ids[0] != 2 || ids[n-1] != n+1 {
		t.Errorf("%d functions", len(ids))
	}
	if ids := set.index.find("other", btfFunc); len(ids) != 1 || ids[0] != n+2 {
		t.Errorf("other: %v", ids)
	}
	if ids := set.index.find("none", btfFunc); ids != nil {
		t.Errorf("none: %v", ids)
	}
}

// Sections of data that the library would complete from an ELF file's are left alone.
func TestDataSections(t *testing.T) {
	for _, name := range []string{".data..percpu", ".ksyms", ".kconfig"} {
		for _, size := range []uint32{0, 8} {
			var r rawTypes
			r.add(r.name("int"), btfInt, 0, 4, 32)
			r.add(r.name("f"), btfFunc, 0, 3)
			r.add(0, btfFuncProto, 0, 1)
			r.add(r.name("v"), btfVar, 0, 1, 0)
			r.add(r.name(name), btfDatasec, 2, size, 4, 0, 4, 2, 0, 4)
			set, err := parseBTF(r.bytes(), nil)
			if err != nil {
				t.Fatal(err)
			}
			n := 0
			for _, err := range set.spec.All() {
				if err != nil {
					t.Errorf("%s of %d bytes: %v", name, size, err)
				}
				n++
			}
			if n != 5 && n != 6 { // with void or without
				t.Errorf("%s of %d bytes: %d types", name, size, n)
			}
		}
	}
}

// Without KALLSYMS_ALL the section is found by its header.
func TestFindBTF(t *testing.T) {
	m := kerneltest.New()
	big := make([]btf.Type, 400)
	for i := range big {
		big[i] = kerneltest.Struct("s"+strings.Repeat("x", i%50)+string(rune('a'+i%26)), kerneltest.Field{Name: "f", Type: kerneltest.Int})
	}
	m.Put([]byte(btfMagic + "\x00 not really"))
	m.Put(kerneltest.BTF(append(big, kerneltest.Struct("here", kerneltest.Field{Name: "f", Type: kerneltest.Int}))...))
	k := open(t, m)
	if n, err := k.SizeOf("struct here"); n != 4 || err != nil {
		t.Errorf("%d, %v", n, err)
	}
	if _, err := open(t, kerneltest.New()).Types(); !errors.Is(err, ErrNoBTF) {
		t.Errorf("none: %v", err)
	}
}
