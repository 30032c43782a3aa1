package kernel

import (
	"fmt"
	"strings"

	"github.com/cilium/ebpf/btf"
)

// Limits on printing: a forged type may claim to nest for ever.
const (
	maxFormatDepth = 24
	maxFormatParts = 1 << 17 // members and elements in one print
)

// Field is a member in the definition of a struct or union.
type Field struct {
	Name   string // "" for an anonymous struct or union
	Type   btf.Type
	Decl   string  // as C declares it, without the semicolon: "void (*destructor)(struct sock *)"
	Offset uint64  // in bytes from the start of the outermost type
	Size   uint64  // in bytes; of a bit-field's type
	Bits   Bits    // set for a bit-field, from Offset on
	Hole   uint64  // bytes in front that no member uses
	Fields []Field // the members of a struct or union that has no name of its own
}

// Fields returns the members of a struct or union, and those of nested types
// that have no name; nil for any other type.
func Fields(typ btf.Type) []Field {
	left := maxFormatParts
	return fields(typ, 0, 0, &left)
}

func fields(typ btf.Type, base uint64, depth int, left *int) []Field {
	var list []Field
	_, isStruct := btf.UnderlyingType(typ).(*btf.Struct)
	var end btf.Bits // of what the members so far cover, in bits
	for _, m := range Members(typ) {
		if *left--; *left < 0 || depth > maxFormatDepth {
			break
		}
		size, _ := btf.Sizeof(m.Type)
		f := Field{
			Name:   m.Name,
			Type:   m.Type,
			Decl:   Declare(m.Type, m.Name),
			Offset: base + uint64(m.Offset/8),
			Size:   uint64(max(size, 0)),
		}
		width := btf.Bits(f.Size * 8)
		if m.BitfieldSize > 0 {
			f.Decl += fmt.Sprintf(" : %d", m.BitfieldSize)
			f.Bits = Bits{uint32(m.Offset % 8), uint32(m.BitfieldSize)}
			width = m.BitfieldSize
		}
		if isStruct && m.Offset > end {
			f.Hole = uint64(m.Offset-end) / 8
		}
		end = max(end, m.Offset+width)
		if anonymous(m.Type) {
			f.Fields = fields(elemType(m.Type), f.Offset, depth+1, left)
		}
		list = append(list, f)
	}
	return list
}

// anonymous reports whether a type is a struct or union without a name, so that
// only its members can say what it is.
func anonymous(typ btf.Type) bool {
	switch t := elemType(typ).(type) {
	case *btf.Struct:
		return t.Name == ""
	case *btf.Union:
		return t.Name == ""
	}
	return false
}

// elemType strips arrays and qualifiers, but keeps typedefs.
func elemType(typ btf.Type) btf.Type {
	for range maxFormatDepth {
		switch t := typ.(type) {
		case *btf.Array:
			typ = t.Type
		case *btf.Const:
			typ = t.Type
		case *btf.Volatile:
			typ = t.Type
		case *btf.TypeTag:
			typ = t.Type
		default:
			return typ
		}
	}
	return typ
}

// Declare writes the declaration of a name of some type as C does:
// "int (*fn)(struct sk_buff *, int)", "char comm[16]", "struct list_head *next".
// An empty name gives the bare type.
func Declare(typ btf.Type, name string) string { return declare(typ, name, 0) }

func declare(typ btf.Type, inner string, depth int) string {
	if depth > maxFormatDepth {
		return "… " + inner
	}
	switch t := typ.(type) {
	case *btf.Pointer:
		switch target := unqualified(t.Target).(type) {
		case *btf.FuncProto, *btf.Array:
			return declare(target, "(*"+inner+")", depth+1)
		}
		return declare(t.Target, "*"+inner, depth+1)
	case *btf.Array:
		return declare(t.Type, fmt.Sprintf("%s[%d]", inner, t.Nelems), depth+1)
	case *btf.FuncProto:
		return declare(t.Return, inner+"("+params(t, depth)+")", depth+1)
	case *btf.Const:
		if _, ok := t.Type.(*btf.Pointer); ok {
			return declare(t.Type, "const "+inner, depth+1)
		}
		return "const " + declare(t.Type, inner, depth+1)
	case *btf.Volatile:
		if _, ok := t.Type.(*btf.Pointer); ok {
			return declare(t.Type, "volatile "+inner, depth+1)
		}
		return "volatile " + declare(t.Type, inner, depth+1)
	case *btf.Restrict:
		return declare(t.Type, inner, depth+1)
	case *btf.TypeTag:
		return declare(t.Type, inner, depth+1)
	}
	base := strings.TrimSuffix(TypeName(typ), " {…}")
	if inner == "" {
		return base
	}
	return base + " " + inner
}

func params(proto *btf.FuncProto, depth int) string {
	if len(proto.Params) == 0 {
		return "void"
	}
	var list []string
	for i, p := range proto.Params {
		if _, void := p.Type.(*btf.Void); void && i == len(proto.Params)-1 {
			list = append(list, "...")
			break
		}
		list = append(list, declare(p.Type, "", depth+1))
	}
	return strings.Join(list, ", ")
}

func unqualified(typ btf.Type) btf.Type {
	for range maxFormatDepth {
		switch t := typ.(type) {
		case *btf.Const:
			typ = t.Type
		case *btf.Volatile:
			typ = t.Type
		case *btf.TypeTag:
			typ = t.Type
		default:
			return typ
		}
	}
	return typ
}

// Style says how types and values are printed.
type Style struct {
	Hex   bool // numbers, offsets and sizes in hexadecimal
	Addrs bool // with values, the address of each member
	Width int  // columns to fill; 0 means 80
}

func (s Style) number(n uint64) string {
	if s.Hex {
		return fmt.Sprintf("%#x", n)
	}
	return fmt.Sprint(n)
}

// FormatType writes the definition of a type as crash(8) does, with the offset
// of each member in front, its size behind it, and the holes between them.
func FormatType(typ btf.Type, style Style) string {
	var b strings.Builder
	switch t := typ.(type) {
	case *btf.Typedef:
		if _, plain := unqualified(t.Type).(*btf.Array); plain || !anonymous(t.Type) {
			fmt.Fprintf(&b, "typedef %s;\n", Declare(t.Type, t.Name))
			break
		}
		body := FormatType(unqualified(t.Type), style)
		return "typedef " + strings.Replace(body, "\n}\n", "\n} "+t.Name+";\n", 1)
	case *btf.Struct, *btf.Union:
		list := Fields(typ)
		b.WriteString(Declare(typ, "") + " {\n")
		writeFields(&b, list, style, 0)
		b.WriteString("}\n")
		writePadding(&b, typ, list, style)
	case *btf.Enum:
		b.WriteString(strings.TrimSpace("enum "+t.Name) + " {\n")
		for _, v := range t.Values {
			fmt.Fprintf(&b, "  %s = %s,\n", v.Name, enumNumber(t, v.Value, style))
		}
		b.WriteString("}\n")
	default:
		b.WriteString(Declare(typ, "") + "\n")
	}
	if n, err := btf.Sizeof(typ); err == nil && n >= 0 {
		fmt.Fprintf(&b, "SIZE: %s\n", style.number(uint64(n)))
	}
	return b.String()
}

// FormatFields writes some members as [FormatType] does, under the name of the
// type they are from.
func FormatFields(typ btf.Type, list []Field, style Style) string {
	var b strings.Builder
	b.WriteString(Declare(typ, "") + " {\n")
	for i := range list {
		list[i].Hole = 0
	}
	writeFields(&b, list, style, 0)
	b.WriteString("}\n")
	return b.String()
}

// commentColumn is where sizes stand, unless the declaration is longer.
const commentColumn = 56

func writeFields(b *strings.Builder, list []Field, style Style, depth int) {
	indent := strings.Repeat("    ", depth)
	line := func(offset, decl, comment string) {
		text := fmt.Sprintf("%9s %s%s", offset, indent, decl)
		if comment != "" {
			text = fmt.Sprintf("%-*s  /* %s */", commentColumn, text, comment)
		}
		b.WriteString(text + "\n")
	}
	for _, f := range list {
		if f.Hole > 0 {
			line("", "", "hole of "+style.number(f.Hole))
		}
		offset := "[" + style.number(f.Offset)
		size := style.number(f.Size)
		if f.Bits.Size > 0 {
			offset += fmt.Sprintf(":%d", f.Bits.Offset)
			size = ""
		}
		offset += "]"
		if !anonymous(f.Type) {
			line(offset, f.Decl+";", size)
			continue
		}
		head, tail := anonymousDecl(f)
		line(offset, head+" {", "")
		writeFields(b, f.Fields, style, depth+1)
		line("", "}"+tail+";", size)
	}
}

// anonymousDecl splits the declaration of a member of nameless type around its body.
func anonymousDecl(f Field) (head, tail string) {
	head, tail, _ = strings.Cut(f.Decl, " ")
	if tail != "" {
		tail = " " + tail
	}
	return head, tail
}

// writePadding tells of the bytes behind the last member: what else lies there
// is nobody's.
func writePadding(b *strings.Builder, typ btf.Type, list []Field, style Style) {
	if _, ok := btf.UnderlyingType(typ).(*btf.Struct); !ok || len(list) == 0 {
		return
	}
	var end uint64
	for _, f := range list {
		n := f.Size
		if f.Bits.Size > 0 {
			n = uint64(f.Bits.Offset+f.Bits.Size+7) / 8
		}
		end = max(end, f.Offset+n)
	}
	if n, err := btf.Sizeof(typ); err == nil && uint64(n) > end {
		fmt.Fprintf(b, "PADDING: %s at %s\n", style.number(uint64(n)-end), style.number(end))
	}
}

func enumNumber(t *btf.Enum, v uint64, style Style) string {
	if style.Hex {
		return fmt.Sprintf("%#x", v&(1<<(8*t.Size-1)<<1-1))
	}
	if t.Signed {
		return fmt.Sprint(int64(v))
	}
	return fmt.Sprint(v)
}
