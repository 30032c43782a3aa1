package kerneltest

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"

	"github.com/cilium/ebpf/btf"
)

// Basic types.
var (
	Char  = &btf.Int{Name: "char", Size: 1, Encoding: btf.Signed}
	U8    = &btf.Int{Name: "unsigned char", Size: 1}
	U16   = &btf.Int{Name: "unsigned short", Size: 2}
	Int   = &btf.Int{Name: "int", Size: 4, Encoding: btf.Signed}
	U32   = &btf.Int{Name: "unsigned int", Size: 4}
	Long  = &btf.Int{Name: "long", Size: 8, Encoding: btf.Signed}
	Ulong = &btf.Int{Name: "unsigned long", Size: 8}
	Void  = (*btf.Void)(nil)
)

// Ptr returns a pointer to a type.
func Ptr(t btf.Type) *btf.Pointer { return &btf.Pointer{Target: t} }

// Array returns an array type.
func Array(t btf.Type, n uint32) *btf.Array { return &btf.Array{Index: U32, Type: t, Nelems: n} }

// Field is a member to be laid out; without a name, an anonymous one. Bits makes
// it a bit-field.
type Field struct {
	Name string
	Type btf.Type
	Bits int
}

// Struct lays out members as a C compiler does.
func Struct(name string, fields ...Field) *btf.Struct {
	s := &btf.Struct{Name: name}
	Complete(s, fields...)
	return s
}

// Complete gives a struct its members, which may then refer to itself.
func Complete(s *btf.Struct, fields ...Field) {
	bit, most := 0, 1
	for _, f := range fields {
		size, align := sizeAlign(f.Type)
		most = max(most, align)
		if f.Bits > 0 {
			if bit/(8*size) != (bit+f.Bits-1)/(8*size) {
				bit = (bit + 8*size - 1) / (8 * size) * 8 * size
			}
			s.Members = append(s.Members, btf.Member{Name: f.Name, Type: f.Type, Offset: btf.Bits(bit), BitfieldSize: btf.Bits(f.Bits)})
			bit += f.Bits
			continue
		}
		bit = (bit + 8*align - 1) / (8 * align) * 8 * align
		s.Members = append(s.Members, btf.Member{Name: f.Name, Type: f.Type, Offset: btf.Bits(bit)})
		bit += 8 * size
	}
	s.Size = uint32(((bit+7)/8 + most - 1) / most * most)
}

// Union returns a union type.
func Union(name string, fields ...Field) *btf.Union {
	u := &btf.Union{Name: name}
	for _, f := range fields {
		size, _ := sizeAlign(f.Type)
		u.Size = max(u.Size, uint32(size))
		u.Members = append(u.Members, btf.Member{Name: f.Name, Type: f.Type})
	}
	return u
}

func sizeAlign(t btf.Type) (size, align int) {
	switch t := btf.UnderlyingType(t).(type) {
	case *btf.Int:
		return int(t.Size), int(t.Size)
	case *btf.Enum:
		return int(t.Size), int(t.Size)
	case *btf.Pointer:
		return 8, 8
	case *btf.Array:
		size, align = sizeAlign(t.Type)
		return size * int(t.Nelems), align
	case *btf.Struct:
		for _, m := range t.Members {
			_, a := sizeAlign(m.Type)
			align = max(align, a)
		}
		return int(t.Size), max(align, 1)
	case *btf.Union:
		for _, m := range t.Members {
			_, a := sizeAlign(m.Type)
			align = max(align, a)
		}
		return int(t.Size), max(align, 1)
	}
	panic(fmt.Sprintf("no size for %v", t))
}

// Types adds to the kernel's BTF. Without any, it has none.
func (m *Machine) Types(types ...btf.Type) { m.types = append(m.types, types...) }

// BTF returns a BTF section.
func BTF(types ...btf.Type) []byte {
	b, err := btf.NewBuilder(types, nil)
	if err != nil {
		panic(err)
	}
	raw, err := b.Marshal(nil, &btf.MarshalOptions{Order: le})
	if err != nil {
		panic(err)
	}
	return raw
}

// SplitBTF returns the BTF of a module, which has one struct with one int, in terms
// of the kernel's.
func SplitBTF(base []byte, name, member string) []byte {
	spec, err := btf.LoadSpecFromReader(bytes.NewReader(base))
	if err != nil {
		panic(err)
	}
	intID := btf.TypeID(0)
	for id := btf.TypeID(1); ; id++ {
		t, err := spec.TypeByID(id)
		if err != nil {
			break
		}
		if t.TypeName() == Int.Name {
			intID = id
		}
	}
	baseStrings := le.Uint32(base[20:])
	strs := name + "\x00" + member + "\x00"
	raw := append([]byte{}, base[:8]...)
	for _, v := range []uint32{
		0, 24, 24, uint32(len(strs)),
		baseStrings, 4<<24 | 1, 4, // struct of 4 bytes
		baseStrings + uint32(len(name)) + 1, uint32(intID), 0,
	} {
		raw = le.AppendUint32(raw, v)
	}
	return append(raw, strs...)
}

func (m *Machine) writeTypes() {
	if len(m.types) == 0 {
		return
	}
	raw := BTF(m.types...)
	if m.split != nil {
		m.split(raw)
	}
	a := m.Put(raw)
	m.Symbol("__start_BTF", 'R', a)
	m.Symbol("__stop_BTF", 'R', a+uint64(len(raw)))
}

// Offset returns the place and the type of a member, for a path like "a.b[2].c".
// Members of anonymous members are named directly.
func Offset(t btf.Type, path string) (uint64, btf.Type) {
	off := uint64(0)
	for _, name := range strings.Split(path, ".") {
		name, index, indexed := strings.Cut(name, "[")
		at, mt, ok := member(t, name)
		if !ok {
			panic("no member " + path)
		}
		off, t = off+at, mt
		if indexed {
			i, err := strconv.Atoi(strings.TrimSuffix(index, "]"))
			if err != nil {
				panic(err)
			}
			t = btf.UnderlyingType(t).(*btf.Array).Type
			size, _ := sizeAlign(t)
			off += uint64(i * size)
		}
	}
	return off, t
}

func member(t btf.Type, name string) (uint64, btf.Type, bool) {
	var members []btf.Member
	switch t := btf.UnderlyingType(t).(type) {
	case *btf.Struct:
		members = t.Members
	case *btf.Union:
		members = t.Members
	}
	for _, m := range members {
		if m.Name == name {
			return uint64(m.Offset / 8), m.Type, true
		}
		if m.Name == "" {
			if off, t, ok := member(m.Type, name); ok {
				return uint64(m.Offset/8) + off, t, true
			}
		}
	}
	return 0, nil, false
}

// New allocates an object of a type.
func (m *Machine) New(t btf.Type) uint64 {
	size, _ := sizeAlign(t)
	return m.Alloc(size, 16)
}

// Set stores a number in a member of the object at an address.
func (m *Machine) Set(obj uint64, t btf.Type, path string, v uint64) {
	off, mt := Offset(t, path)
	size, _ := sizeAlign(mt)
	m.Write(obj+off, le.AppendUint64(nil, v)[:size])
}

// SetString stores a string in a char array.
func (m *Machine) SetString(obj uint64, t btf.Type, path, s string) {
	off, _ := Offset(t, path)
	m.Write(obj+off, append([]byte(s), 0))
}
