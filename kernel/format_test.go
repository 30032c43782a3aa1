package kernel

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/cilium/ebpf/btf"
	"github.com/google/go-cmp/cmp"

	"inquest/kernel/x86"
	"inquest/vmcore"
)

// memoryBase is where the kernel of newMemoryKernel sees physical address 0.
const memoryBase = Addr(0xffff888000000000)

// newMemoryKernel returns a kernel without symbols whose memory at memoryBase is
// mem, behind three pages of page tables; what follows mem is absent.
func newMemoryKernel(t testing.TB, mem []byte) (*Kernel, Addr) {
	t.Helper()
	const tables = 3 * pageSize
	phys := make([]byte, tables+(len(mem)+pageSize-1)/pageSize*pageSize)
	copy(phys[tables:], mem)
	const present, large = 0x63, 0x80
	le.PutUint64(phys[1*pageSize+8*(uint64(memoryBase)>>39&511):], 2*pageSize|present)
	le.PutUint64(phys[2*pageSize:], present|large)

	var file bytes.Buffer
	header := elf.Header64{
		Ident: [16]byte{0x7f, 'E', 'L', 'F', byte(elf.ELFCLASS64), byte(elf.ELFDATA2LSB), byte(elf.EV_CURRENT)},
		Type:  uint16(elf.ET_CORE), Machine: uint16(elf.EM_X86_64), Version: 1,
		Phoff: 64, Ehsize: 64, Phentsize: 56, Phnum: 1,
	}
	load := elf.Prog64{Type: uint32(elf.PT_LOAD), Off: pageSize, Filesz: uint64(len(phys)), Memsz: uint64(len(phys))}
	for _, v := range []any{header, load} {
		if err := binary.Write(&file, binary.LittleEndian, v); err != nil {
			t.Fatal(err)
		}
	}
	file.Write(make([]byte, pageSize-file.Len()))
	file.Write(phys)
	d, err := vmcore.NewReader(vmcore.Part{R: bytes.NewReader(file.Bytes()), Size: int64(file.Len()), Name: "memory"})
	if err != nil {
		t.Fatal(err)
	}
	k := &Kernel{
		Dump:    d,
		mem:     newMemory(d, Layout{PageTable: pageSize}),
		symbols: func() (*Symbols, error) { return nil, ErrNoSymbol },
		modules: func() ([]*Module, error) { return nil, nil },
	}
	return k, memoryBase + tables
}

// The types of the C programs below.
var (
	cChar   = &btf.Int{Name: "char", Size: 1, Encoding: btf.Signed}
	cU8     = &btf.Typedef{Name: "u8", Type: &btf.Int{Name: "unsigned char", Size: 1}}
	cBool   = &btf.Int{Name: "_Bool", Size: 1, Encoding: btf.Bool}
	cShort  = &btf.Int{Name: "short int", Size: 2, Encoding: btf.Signed}
	cInt    = &btf.Int{Name: "int", Size: 4, Encoding: btf.Signed}
	cUint   = &btf.Int{Name: "unsigned int", Size: 4}
	cUlong  = &btf.Int{Name: "long unsigned int", Size: 8}
	cVoid   = &btf.Void{}
	cAtomic = &btf.Typedef{Name: "atomic_t", Type: &btf.Struct{Size: 4, Members: []btf.Member{{Name: "counter", Type: cInt}}}}
	cState  = &btf.Enum{Name: "state", Size: 4, Values: []btf.EnumValue{{Name: "IDLE", Value: 0}, {Name: "BUSY", Value: 2}}}
	cList   = listHead()
)

func listHead() *btf.Struct {
	s := &btf.Struct{Name: "list_head", Size: 16}
	s.Members = []btf.Member{{Name: "next", Type: &btf.Pointer{Target: s}}, {Name: "prev", Type: &btf.Pointer{Target: s}, Offset: 64}}
	return s
}

func array(elem btf.Type, n uint32) *btf.Array {
	return &btf.Array{Index: cUint, Type: elem, Nelems: n}
}

func pointer(to btf.Type) *btf.Pointer { return &btf.Pointer{Target: to} }

func TestDeclare(t *testing.T) {
	fn := &btf.FuncProto{Return: cInt, Params: []btf.FuncParam{{Type: pointer(cList)}, {Type: cInt}}}
	for _, c := range []struct {
		typ  btf.Type
		name string
		want string
	}{
		{cInt, "x", "int x"},
		{cInt, "", "int"},
		{pointer(cList), "next", "struct list_head *next"},
		{pointer(pointer(cVoid)), "p", "void **p"},
		{pointer(&btf.Const{Type: cChar}), "name", "const char *name"},
		{&btf.Const{Type: pointer(cChar)}, "name", "char *const name"},
		{array(array(cU8, 6), 2), "mac", "u8 mac[2][6]"},
		{pointer(fn), "fn", "int (*fn)(struct list_head *, int)"},
		{array(pointer(fn), 4), "ops", "int (*ops[4])(struct list_head *, int)"},
		{pointer(array(cInt, 3)), "row", "int (*row)[3]"},
		{pointer(&btf.FuncProto{Return: cVoid}), "", "void (*)(void)"},
		{&btf.FuncProto{Return: cInt, Params: []btf.FuncParam{{Type: cInt}, {Type: cVoid}}}, "printk", "int printk(int, ...)"},
		{&btf.Volatile{Type: cUlong}, "flags", "volatile long unsigned int flags"},
		{&btf.Struct{}, "", "struct"},
		{cState, "s", "enum state s"},
	} {
		if got := Declare(c.typ, c.name); got != c.want {
			t.Errorf("got %q, want %q", got, c.want)
		}
	}
}

// sample is
//
//	struct sample {
//	        u8 kind;
//	        int count;
//	        union { long unsigned int raw; struct { short int lo; short int hi; }; };
//	        unsigned int a : 3;
//	        unsigned int b : 5;
//	        char name[8];
//	        struct { int x; } at[2];
//	        u8 last;
//	};
var sample = &btf.Struct{Name: "sample", Size: 48, Members: []btf.Member{
	{Name: "kind", Type: cU8},
	{Name: "count", Type: cInt, Offset: 32},
	{Type: &btf.Union{Size: 8, Members: []btf.Member{
		{Name: "raw", Type: cUlong},
		{Type: &btf.Struct{Size: 4, Members: []btf.Member{{Name: "lo", Type: cShort}, {Name: "hi", Type: cShort, Offset: 16}}}},
	}}, Offset: 64},
	{Name: "a", Type: cUint, Offset: 128, BitfieldSize: 3},
	{Name: "b", Type: cUint, Offset: 131, BitfieldSize: 5},
	{Name: "name", Type: array(cChar, 8), Offset: 160},
	{Name: "at", Type: array(&btf.Struct{Size: 4, Members: []btf.Member{{Name: "x", Type: cInt}}}, 2), Offset: 224},
	{Name: "last", Type: cU8, Offset: 288},
}}

// compact squeezes runs of spaces, so that tests need not count columns.
func compact(s string) string {
	var b strings.Builder
	for line := range strings.Lines(s) {
		b.WriteString(strings.Join(strings.Fields(line), " ") + "\n")
	}
	return b.String()
}

func TestFormatType(t *testing.T) {
	for _, c := range []struct {
		name  string
		typ   btf.Type
		style Style
		want  string
	}{
		{"struct", sample, Style{}, `struct sample {
[0] u8 kind; /* 1 */
/* hole of 3 */
[4] int count; /* 4 */
[8] union {
[8] long unsigned int raw; /* 8 */
[8] struct {
[8] short int lo; /* 2 */
[10] short int hi; /* 2 */
}; /* 4 */
}; /* 8 */
[16:0] unsigned int a : 3;
[16:3] unsigned int b : 5;
/* hole of 3 */
[20] char name[8]; /* 8 */
[28] struct {
[28] int x; /* 4 */
} at[2]; /* 8 */
[36] u8 last; /* 1 */
}
PADDING: 11 at 37
SIZE: 48
`},
		{"hex", cList, Style{Hex: true}, `struct list_head {
[0x0] struct list_head *next; /* 0x8 */
[0x8] struct list_head *prev; /* 0x8 */
}
SIZE: 0x10
`},
		{"typedef of a nameless struct", cAtomic, Style{}, `typedef struct {
[0] int counter; /* 4 */
} atomic_t;
SIZE: 4
`},
		{"typedef", cU8, Style{}, "typedef unsigned char u8;\nSIZE: 1\n"},
		{"enum", cState, Style{}, "enum state {\nIDLE = 0,\nBUSY = 2,\n}\nSIZE: 4\n"},
		{"empty", &btf.Struct{Name: "lock_class_key"}, Style{}, "struct lock_class_key {\n}\nSIZE: 0\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if diff := cmp.Diff(c.want, compact(FormatType(c.typ, c.style))); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestFieldsEndForHostileTypes(t *testing.T) {
	endless := &btf.Struct{Size: 4}
	endless.Members = []btf.Member{{Type: endless}, {Type: endless}}
	if got := FormatType(endless, Style{}); got == "" {
		t.Error("nothing printed")
	}
	k, at := newMemoryKernel(t, make([]byte, 64))
	if v, _ := k.ObjectOf(endless, at).Value(); len(v.Format(Style{})) > 64<<20 {
		t.Error("a type that contains itself prints without bounds")
	}
}

// value reads an object whose memory is mem.
func value(t *testing.T, typ btf.Type, mem []byte) Value {
	t.Helper()
	k, at := newMemoryKernel(t, mem)
	v, err := k.ObjectOf(typ, at).Value()
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func words(list ...uint64) []byte {
	var b []byte
	for _, w := range list {
		b = le.AppendUint64(b, w)
	}
	return b
}

func TestFormatValue(t *testing.T) {
	sampleMem := make([]byte, 48)
	sampleMem[0] = 7
	le.PutUint32(sampleMem[4:], 0xffffffff)
	le.PutUint64(sampleMem[8:], 0xfffe0001)
	sampleMem[16] = 5 | 9<<3
	copy(sampleMem[20:], "repro")
	le.PutUint32(sampleMem[28:], 1)
	le.PutUint32(sampleMem[32:], 2)
	many := make([]byte, 4*40)
	many[4] = 1
	for _, c := range []struct {
		name  string
		typ   btf.Type
		mem   []byte
		style Style
		want  string
	}{
		{"struct", sample, sampleMem, Style{}, `struct sample {
  kind = 7,
  count = -1,
  { raw = 4294836225, { lo = 1, hi = -2 } },
  a = 5,
  b = 9,
  name = "repro",
  at = {
    [0] = { x = 1 },
    [1] = { x = 2 }
  },
  last = 0
}
`},
		{"hex", sample, sampleMem, Style{Hex: true}, `struct sample {
  kind = 0x7,
  count = 0xffffffff,
  { raw = 0xfffe0001, { lo = 0x1, hi = 0xfffe } },
  a = 0x5,
  b = 0x9,
  name = "repro",
  at = {
    [0] = { x = 0x1 },
    [1] = { x = 0x2 }
  },
  last = 0x0
}
`},
		{"pointers", cList, words(0xffff888000004000, 0), Style{}, "struct list_head {\n  next = 0xffff888000004000,\n  prev = 0x0\n}\n"},
		{"typedef", cAtomic, []byte{3, 0, 0, 0}, Style{}, "atomic_t {\n  counter = 3\n}\n"},
		{"enum", cState, []byte{2, 0, 0, 0}, Style{}, "BUSY\n"},
		{"unknown enum", cState, []byte{5, 0, 0, 0}, Style{}, "5\n"},
		{"bool", cBool, []byte{1}, Style{}, "true\n"},
		{"bad bool", cBool, []byte{0x40}, Style{}, "64\n"},
		{"char", cChar, []byte{'a'}, Style{}, "97 'a'\n"},
		{"repeats", array(cInt, 40), many, Style{}, "{0, 1, 0 <repeats 38 times>}\n"},
		{"long", array(cShort, 500), ramp(500), Style{Width: 20000}, long500},
		{"text", array(cChar, 12), []byte("ab\"\\\n\x01\x00c\x00\x00\x00\x00"), Style{}, `"ab\"\\\n\001\000c"` + "\n"},
		{"bytes that are text", array(cU8, 8), []byte("eth0\x00\x00\x00\x00"), Style{}, "\"eth0\"\n"},
		{"bytes that are none", array(cU8, 6), []byte{2, 0, 0x5e, 0, 0, 1}, Style{}, "{0x2, 0x0, 0x5e, 0x0, 0x0, 0x1}\n"},
		{"an address in a number", cUlong, words(0xffff888000004000), Style{}, "0xffff888000004000\n"},
		{"equal structs", array(cAtomic, 3), []byte{1, 0, 0, 0, 2, 0, 0, 0, 2, 0, 0, 0}, Style{},
			"{\n  [0] = { counter = 1 },\n  [1 ... 2] = { counter = 2 }\n}\n"},
		{"addresses", cAtomic, []byte{1, 0, 0, 0}, Style{Addrs: true}, "atomic_t {\n[ffff888000003000]   counter = 1\n}\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if diff := cmp.Diff(c.want, value(t, c.typ, c.mem).Format(c.style)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// long500 is how an array of 500 numbers, each one more than the last, is printed.
var long500 = func() string {
	s := "{"
	for i := range maxItems {
		s += fmt.Sprintf("%d, ", i)
	}
	return s + "<300 more>}\n"
}()

// ramp is the memory of n short ints that count up.
func ramp(n int) []byte {
	var b []byte
	for i := range n {
		b = le.AppendUint16(b, uint16(i))
	}
	return b
}

func TestFormatCharPointer(t *testing.T) {
	typ := &btf.Struct{Name: "named", Size: 8, Members: []btf.Member{{Name: "name", Type: pointer(&btf.Const{Type: cChar})}}}
	mem := append(words(uint64(memoryBase)+3*pageSize+8), "lo\x00"...)
	want := "struct named {\n  name = 0xffff888000003008 \"lo\"\n}\n"
	if got := value(t, typ, mem).Format(Style{}); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestValueOverMissingMemory(t *testing.T) {
	k, at := newMemoryKernel(t, make([]byte, pageSize))
	at += pageSize - 8 // the second pointer lies on a page that is not there
	v, err := k.ObjectOf(cList, at).Value()
	if err != nil {
		t.Fatal(err)
	}
	want := "struct list_head {\n  next = 0x0,\n  prev = <no memory at this address in the dump>\n}\n"
	if got := v.Format(Style{}); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	text, err := json.Marshal(v)
	if err != nil || string(text) != `{"next":"0x0","prev":null}` {
		t.Errorf("JSON %s, %v", text, err)
	}
	if _, err := k.ObjectOf(cList, at+8).Value(); err == nil {
		t.Error("an object that is wholly missing reads without an error")
	}
	if _, err := k.ObjectOf(cList, 0x1234).Value(); err == nil || !strings.Contains(err.Error(), x86.ErrNotMapped.Error()) {
		t.Errorf("an unmapped object: %v", err)
	}
}

func TestValueJSON(t *testing.T) {
	mem := make([]byte, 48)
	copy(mem[20:], "a\"b")
	text, err := json.Marshal(value(t, sample, mem))
	if err != nil {
		t.Fatal(err)
	}
	want := `{"kind":0,"count":0,"raw":0,"lo":0,"hi":0,"a":0,"b":0,"name":"a\"b","at":[{"x":0},{"x":0}],"last":0}`
	if string(text) != want {
		t.Errorf("got  %s\nwant %s", text, want)
	}
}

func BenchmarkFormatStruct(b *testing.B) {
	k, at := newMemoryKernel(b, make([]byte, 4096))
	o := k.ObjectOf(array(sample, 64), at)
	for b.Loop() {
		v, err := o.Value()
		if err != nil {
			b.Fatal(err)
		}
		v.Format(Style{})
	}
}

// FuzzFormat prints the types of forged BTF, and objects of them.
func FuzzFormat(f *testing.F) {
	b, err := btf.NewBuilder([]btf.Type{sample, cList, cAtomic, cState}, nil)
	if err != nil {
		f.Fatal(err)
	}
	raw, err := b.Marshal(nil, nil)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(raw)
	k, at := newMemoryKernel(f, make([]byte, 2*pageSize))
	f.Fuzz(func(t *testing.T, raw []byte) {
		set, err := parseBTF(raw, nil)
		if err != nil {
			return
		}
		for typ, err := range set.spec.All() {
			if err != nil {
				return
			}
			FormatType(typ, Style{})
			v, err := k.ObjectOf(typ, at).Value()
			if err != nil {
				continue
			}
			v.Format(Style{})
			if text, err := json.Marshal(v); err != nil {
				t.Errorf("%s does not marshal: %v\n%s", TypeName(typ), err, text)
			}
		}
	})
}
