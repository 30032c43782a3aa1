package kernel

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/cilium/ebpf/btf"
)

// Object is something of a known type at an address. It holds no memory: every
// accessor reads the dump.
//
// Accessors take a path, as C would write it from the object on: "tasks.next",
// "mm->owner->pid", "comm", "cpus_mask.bits[0]". Members of anonymous structs and
// unions are named directly. The empty path is the object itself.
type Object struct {
	k    *Kernel
	Addr Addr
	Type btf.Type
	// Bits is set for a bit-field: its place in the object's memory.
	Bits Bits
}

// Bits is a bit-field's place: Size bits from bit Offset on, counted from the
// lowest bit of the byte at the object's address. Size 0 is no bit-field.
type Bits struct{ Offset, Size uint32 }

// Object returns the object of a type (see [Types.Named]) at an address.
func (k *Kernel) Object(typ string, addr Addr) (Object, error) {
	return k.ObjectFor(typ, "", addr)
}

// ObjectFor is Object for a type as the code of a module means it (see [Types.NamedFor]).
func (k *Kernel) ObjectFor(typ, module string, addr Addr) (Object, error) {
	t, err := k.types()
	if err != nil {
		return Object{}, err
	}
	bt, err := t.NamedFor(typ, module)
	if err != nil {
		return Object{}, err
	}
	return Object{k: k, Addr: addr, Type: bt}, nil
}

// ObjectOf returns the object of a BTF type at an address.
func (k *Kernel) ObjectOf(typ btf.Type, addr Addr) Object {
	return Object{k: k, Addr: addr, Type: typ}
}

// Var returns the variable that a symbol names, as an object of the given type.
func (k *Kernel) Var(symbol, typ string) (Object, error) {
	a, err := k.Symbol(symbol)
	if err != nil {
		return Object{}, err
	}
	return k.Object(typ, a)
}

// SizeOf returns the size of a type in bytes.
func (k *Kernel) SizeOf(typ string) (uint64, error) {
	o, err := k.Object(typ, 0)
	if err != nil {
		return 0, err
	}
	return o.Size()
}

// OffsetOf returns the offset of a member in a type.
func (k *Kernel) OffsetOf(typ, member string) (uint64, error) {
	o, err := k.Object(typ, 0)
	if err != nil {
		return 0, err
	}
	m, err := o.Member(member)
	if err != nil {
		return 0, err
	}
	return uint64(m.Addr), nil
}

// HasMember reports whether the kernel's type has a member of that path. Which
// members exist decides how a kernel is read; its version does not.
func (k *Kernel) HasMember(typ, member string) bool {
	o, err := k.Object(typ, 0)
	return err == nil && o.Has(member)
}

// ContainerOf returns the object of type typ whose member lies at addr.
func (k *Kernel) ContainerOf(addr Addr, typ, member string) (Object, error) {
	off, err := k.OffsetOf(typ, member)
	if err != nil {
		return Object{}, err
	}
	return k.Object(typ, addr-Addr(off))
}

// Has reports whether a path's members exist, without reading memory.
func (o Object) Has(path string) bool {
	p, err := o.compile(path)
	return err == nil && p != nil
}

// IsZero reports whether the object is none, as the zero Object is.
func (o Object) IsZero() bool { return o.k == nil }

// Size returns the object's size in bytes.
func (o Object) Size() (uint64, error) {
	n, err := btf.Sizeof(o.Type)
	if err != nil || n < 0 {
		return 0, fmt.Errorf("size of %s: %w", TypeName(o.Type), ErrNoType)
	}
	return uint64(n), nil
}

// Member returns the part of the object that a path leads to.
func (o Object) Member(path string) (Object, error) {
	p, err := o.compile(path)
	if err != nil {
		return Object{}, err
	}
	at := o.Addr
	for _, off := range p.derefs {
		if at, err = o.k.Pointer(at + Addr(off)); err != nil {
			return Object{}, fmt.Errorf("read %s: %w", path, err)
		}
	}
	return Object{k: o.k, Addr: at + Addr(p.offset), Type: p.typ, Bits: p.bits}, nil
}

// Deref returns what the pointer object points to.
func (o Object) Deref() (Object, error) {
	if o.k == nil {
		return Object{}, fmt.Errorf("no object: %w", ErrNoType)
	}
	p, ok := btf.UnderlyingType(o.Type).(*btf.Pointer)
	if !ok {
		return Object{}, fmt.Errorf("%s is no pointer: %w", TypeName(o.Type), ErrNoType)
	}
	at, err := o.k.Pointer(o.Addr)
	if err != nil {
		return Object{}, err
	}
	return Object{k: o.k, Addr: at, Type: p.Target}, nil
}

// Index returns element i of an array, without a bounds check, as in C.
func (o Object) Index(i int) (Object, error) {
	a, ok := btf.UnderlyingType(o.Type).(*btf.Array)
	if !ok {
		return Object{}, fmt.Errorf("%s is no array: %w", TypeName(o.Type), ErrNoType)
	}
	n, err := btf.Sizeof(a.Type)
	if err != nil {
		return Object{}, fmt.Errorf("size of %s: %w", TypeName(a.Type), ErrNoType)
	}
	return Object{k: o.k, Addr: o.Addr + Addr(i*n), Type: a.Type}, nil
}

// Uint reads an integer, enum, pointer or bit-field as unsigned. A struct or union
// of 1, 2, 4 or 8 bytes is read as one: atomic_t, pte_t.
func (o Object) Uint(path string) (uint64, error) {
	m, err := o.Member(path)
	if err != nil {
		return 0, err
	}
	v, _, err := m.scalar()
	if err != nil {
		return 0, fmt.Errorf("read %s at %v: %w", path, m.Addr, err)
	}
	return v, nil
}

// Int reads an integer as its type's signedness says.
func (o Object) Int(path string) (int64, error) {
	m, err := o.Member(path)
	if err != nil {
		return 0, err
	}
	v, bits, err := m.scalar()
	if err != nil {
		return 0, fmt.Errorf("read %s at %v: %w", path, m.Addr, err)
	}
	if m.signed() {
		return int64(v<<(64-bits)) >> (64 - bits), nil
	}
	return int64(v), nil
}

// Pointer reads a pointer; AddrOf is the address of a member, not its value.
func (o Object) Pointer(path string) (Addr, error) {
	v, err := o.Uint(path)
	return Addr(v), err
}

// AddrOf returns the address of a member.
func (o Object) AddrOf(path string) (Addr, error) {
	m, err := o.Member(path)
	return m.Addr, err
}

// String reads a char array up to its NUL, or the string that a char pointer
// points to (4 KiB at most).
func (o Object) String(path string) (string, error) {
	m, err := o.Member(path)
	if err != nil {
		return "", err
	}
	switch t := btf.UnderlyingType(m.Type).(type) {
	case *btf.Array:
		return o.k.CString(m.Addr, int(min(t.Nelems, pageSize)))
	case *btf.Pointer:
		at, err := o.k.Pointer(m.Addr)
		if err != nil {
			return "", fmt.Errorf("read %s: %w", path, err)
		}
		return o.k.CString(at, pageSize)
	}
	return "", fmt.Errorf("%s: %s is no string: %w", path, TypeName(m.Type), ErrNoType)
}

// Bytes reads the object's memory, 1 MiB at most.
func (o Object) Bytes() ([]byte, error) {
	n, err := o.Size()
	if err != nil {
		return nil, err
	}
	if o.k == nil {
		return nil, fmt.Errorf("no object: %w", ErrNoType)
	}
	return o.k.Slice(o.Addr, int(min(n, 1<<20)))
}

// scalar reads at most 8 bytes and returns how many bits they are.
func (o Object) scalar() (v uint64, bits uint32, err error) {
	if o.k == nil {
		return 0, 0, fmt.Errorf("no object: %w", ErrNoType)
	}
	if o.Bits.Size > 0 {
		return o.bitField()
	}
	n, err := o.Size()
	if err != nil {
		return 0, 0, err
	}
	switch n {
	case 1, 2, 4, 8:
		v, err = o.k.word(o.Addr, int(n))
		return v, uint32(n) * 8, err
	}
	return 0, 0, fmt.Errorf("%s of %d bytes is no number: %w", TypeName(o.Type), n, ErrNoType)
}

// bitField reads the bytes that the field's bits are in, nine of them at most.
func (o Object) bitField() (v uint64, bits uint32, err error) {
	if o.Bits.Size > 64 || o.Bits.Offset > 7 {
		return 0, 0, fmt.Errorf("bit-field of %d bits at bit %d: %w", o.Bits.Size, o.Bits.Offset, ErrCorrupt)
	}
	end := o.Bits.Offset + o.Bits.Size
	if v, err = o.k.word(o.Addr, int(min(end, 64)+7)/8); err != nil {
		return 0, 0, err
	}
	v >>= o.Bits.Offset
	if end > 64 {
		high, err := o.k.U8(o.Addr + 8)
		if err != nil {
			return 0, 0, err
		}
		v |= uint64(high) << (64 - o.Bits.Offset)
	}
	return v & (1<<o.Bits.Size - 1), o.Bits.Size, nil
}

func (o Object) signed() bool {
	switch t := btf.UnderlyingType(o.Type).(type) {
	case *btf.Int:
		return t.Encoding&btf.Signed != 0
	case *btf.Enum:
		return t.Signed
	}
	return false
}

// path is a compiled member path: the offsets to read pointers at, one after the
// other, and then the place in what the last one points to.
type path struct {
	derefs []uint64
	offset uint64
	typ    btf.Type
	bits   Bits
}

type pathKey struct {
	typ  btf.Type
	path string
}

func (o Object) compile(text string) (*path, error) {
	if o.k == nil {
		return nil, fmt.Errorf("%q of no object: %w", text, ErrNoType)
	}
	if text == "" {
		return &path{typ: o.Type, bits: o.Bits}, nil
	}
	key := pathKey{o.Type, text}
	if p, ok := o.k.paths.Load(key); ok {
		return p.(*path), nil
	}
	p, err := compilePath(o.Type, text)
	if err != nil {
		return nil, err
	}
	o.k.paths.Store(key, p)
	return p, nil
}

func compilePath(typ btf.Type, text string) (*path, error) {
	p := &path{typ: typ}
	rest := text
	for first := true; rest != ""; first = false {
		switch {
		case strings.HasPrefix(rest, "["):
			index, after, ok := strings.Cut(rest[1:], "]")
			i, err := strconv.ParseUint(index, 0, 24)
			if !ok || err != nil {
				return nil, fmt.Errorf("%s: bad index %q: %w", text, rest, ErrNoMember)
			}
			if err := p.index(uint32(i)); err != nil {
				return nil, fmt.Errorf("%s: %w", text, err)
			}
			rest = after
			continue
		case strings.HasPrefix(rest, "->"):
			ptr, ok := btf.UnderlyingType(p.typ).(*btf.Pointer)
			if !ok {
				return nil, fmt.Errorf("%s: %s is no pointer: %w", text, TypeName(p.typ), ErrNoType)
			}
			p.derefs, p.offset, p.typ = append(p.derefs, p.offset), 0, ptr.Target
			rest = rest[2:]
		case strings.HasPrefix(rest, ".") && !first:
			rest = rest[1:]
		case !first:
			return nil, fmt.Errorf("%s: cannot read %q: %w", text, rest, ErrNoMember)
		}
		end := strings.IndexAny(rest, ".[-")
		if end < 0 {
			end = len(rest)
		}
		if err := p.member(rest[:end]); err != nil {
			return nil, fmt.Errorf("%s: %w", text, err)
		}
		rest = rest[end:]
	}
	return p, nil
}

func (p *path) index(i uint32) error {
	var elem btf.Type
	switch t := btf.UnderlyingType(p.typ).(type) {
	case *btf.Array:
		elem = t.Type
	case *btf.Pointer:
		p.derefs, p.offset, elem = append(p.derefs, p.offset), 0, t.Target
	default:
		return fmt.Errorf("%s is no array: %w", TypeName(p.typ), ErrNoType)
	}
	n, err := btf.Sizeof(elem)
	if err != nil {
		return fmt.Errorf("size of %s: %w", TypeName(elem), ErrNoType)
	}
	p.offset, p.typ, p.bits = p.offset+uint64(i)*uint64(n), elem, Bits{}
	return nil
}

func (p *path) member(name string) error {
	m, off, ok := FindMember(p.typ, name)
	if !ok {
		return fmt.Errorf("%s in %v: %w", name, TypeName(p.typ), ErrNoMember)
	}
	p.typ = m.Type
	p.bits = Bits{}
	if m.BitfieldSize > 0 {
		// Read from the byte that the field starts in.
		p.offset += uint64(off / 8)
		p.bits = Bits{uint32(off % 8), uint32(m.BitfieldSize)}
		return nil
	}
	p.offset += uint64(off / 8)
	return nil
}

// FindMember looks for a member by name, also inside anonymous members, and
// returns its offset in bits from the start of typ.
func FindMember(typ btf.Type, name string) (btf.Member, btf.Bits, bool) {
	left := maxAnonymous
	return findMember(typ, name, &left)
}

// maxAnonymous bounds the anonymous members that a search goes into: a forged
// struct may hold itself, many times.
const maxAnonymous = 1024

func findMember(typ btf.Type, name string, left *int) (btf.Member, btf.Bits, bool) {
	members := Members(typ)
	for _, m := range members {
		if m.Name == name && name != "" {
			return m, m.Offset, true
		}
	}
	for _, m := range members {
		if m.Name != "" {
			continue
		}
		if *left--; *left < 0 {
			break
		}
		if found, off, ok := findMember(m.Type, name, left); ok {
			return found, m.Offset + off, true
		}
	}
	return btf.Member{}, 0, false
}

// Members returns the members of a struct or union, through typedefs and
// qualifiers; nil for anything else.
func Members(typ btf.Type) []btf.Member {
	switch t := btf.UnderlyingType(typ).(type) {
	case *btf.Struct:
		return t.Members
	case *btf.Union:
		return t.Members
	}
	return nil
}

// TypeName writes a type as C does: "struct sock *", "unsigned int", "u8 [16]".
func TypeName(typ btf.Type) string { return typeName(typ, 0) }

func typeName(typ btf.Type, depth int) string {
	if depth > 32 {
		return "…"
	}
	named := func(tag, name string) string {
		if name == "" {
			return tag + " {…}"
		}
		return tag + " " + name
	}
	switch t := typ.(type) {
	case nil, *btf.Void:
		return "void"
	case *btf.Pointer:
		if f, ok := btf.UnderlyingType(t.Target).(*btf.FuncProto); ok {
			return typeName(f.Return, depth+1) + " (*)()"
		}
		inner := typeName(t.Target, depth+1)
		if strings.HasSuffix(inner, "*") {
			return inner + "*"
		}
		return inner + " *"
	case *btf.Array:
		return fmt.Sprintf("%s [%d]", typeName(t.Type, depth+1), t.Nelems)
	case *btf.Struct:
		return named("struct", t.Name)
	case *btf.Union:
		return named("union", t.Name)
	case *btf.Enum:
		return named("enum", t.Name)
	case *btf.Const:
		if _, pointer := t.Type.(*btf.Pointer); pointer {
			return typeName(t.Type, depth+1) + "const"
		}
		return "const " + typeName(t.Type, depth+1)
	case *btf.Volatile:
		return "volatile " + typeName(t.Type, depth+1)
	case *btf.Restrict:
		return typeName(t.Type, depth+1)
	case *btf.TypeTag:
		return typeName(t.Type, depth+1)
	case *btf.Fwd:
		return t.Kind.String() + " " + t.Name
	case *btf.FuncProto:
		return typeName(t.Return, depth+1) + " ()"
	}
	return typ.TypeName()
}
