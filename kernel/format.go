package kernel

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"strings"

	"github.com/cilium/ebpf/btf"

	"inquest/kernel/x86"
	"inquest/vmcore"
)

// Limits on what one value shows.
const (
	maxElements     = 4096 // of one array
	maxStringShown  = 200  // bytes behind a char pointer
	maxItems        = 200  // numbers of an array that are printed
	repeatThreshold = 10   // equal numbers in a row are counted from here on, as gdb does
)

// errTooMuch stands where a value was cut.
var errTooMuch = errors.New("too much to show")

// Value is an object's contents at the time it was read, ready to print: see
// [Value.Format]. It marshals to JSON as an object of the members by name, with
// addresses as "0x…" strings and null for what cannot be read.
type Value struct {
	Name  string // of the member; "" for anonymous ones and elements
	Type  btf.Type
	Addr  Addr
	Bits  Bits
	Err   error   // it could not be read; nothing else is then set
	Parts []Value // of a struct, a union or an array
	Count int     // of an array element: that so many equal ones follow each other

	Uint uint64 // of a number, an enum or a pointer
	Str  string // of a char array, or behind a char pointer, without the NULs at the end
	Sym  string // what a pointer points into: "init_net", "inet_sock_destruct"

	kind valueKind
	more int // array elements left out
}

type valueKind uint8

const (
	kindStruct valueKind = iota + 1
	kindArray
	kindString
	kindInt
	kindSigned
	kindBool
	kindChar
	kindEnum
	kindPointer
	kindCharPointer
	kindFloat
)

// Value reads the object and all that it contains. Members that cannot be read
// carry an error each; Value itself fails if nothing at all could be read.
func (o Object) Value() (Value, error) {
	r := valueReader{k: o.k, left: maxFormatParts}
	v := r.read(o, 0)
	return v, v.Err
}

// valueReader reads a tree of values of bounded size.
type valueReader struct {
	k    *Kernel
	left int
}

func (r *valueReader) read(o Object, depth int) Value {
	v := Value{Type: o.Type, Addr: o.Addr, Bits: o.Bits, Count: 1}
	if r.left--; r.left < 0 || depth > maxFormatDepth {
		v.Err = errTooMuch
		return v
	}
	switch t := btf.UnderlyingType(o.Type).(type) {
	case *btf.Struct:
		r.members(&v, o, t.Members, depth)
	case *btf.Union:
		r.members(&v, o, t.Members, depth)
	case *btf.Array:
		r.array(&v, o, t, depth)
	case *btf.Pointer:
		r.pointer(&v, o, t)
	case *btf.Enum:
		v.kind = kindEnum
		v.Uint, _, v.Err = o.scalar()
	case *btf.Int:
		r.integer(&v, o, t)
	case *btf.Float:
		v.kind = kindFloat
		v.Uint, _, v.Err = o.scalar()
	default:
		v.Err = fmt.Errorf("%s has no contents: %w", TypeName(o.Type), ErrNoType)
	}
	return v
}

func (r *valueReader) members(v *Value, o Object, members []btf.Member, depth int) {
	v.kind = kindStruct
	failed := 0
	for _, m := range members {
		part := Object{k: o.k, Addr: o.Addr + Addr(m.Offset/8), Type: m.Type}
		if m.BitfieldSize > 0 {
			part.Bits = Bits{uint32(m.Offset % 8), uint32(m.BitfieldSize)}
		}
		p := r.read(part, depth+1)
		p.Name = m.Name
		v.Parts = append(v.Parts, p)
		if p.Err != nil {
			failed++
		}
		if r.left < 0 {
			break
		}
	}
	if failed > 0 && failed == len(v.Parts) {
		v.Err, v.Parts = v.Parts[0].Err, nil
	}
}

func (r *valueReader) array(v *Value, o Object, t *btf.Array, depth int) {
	size, err := btf.Sizeof(t.Type)
	if err != nil {
		v.Err = fmt.Errorf("%s: %w", TypeName(t.Type), ErrNoType)
		return
	}
	n := int(min(t.Nelems, maxElements))
	if elem, ok := btf.UnderlyingType(t.Type).(*btf.Int); ok && elem.Size == 1 && elem.Encoding&btf.Bool == 0 && n > 0 {
		if r.chars(v, o, elem, n, int(t.Nelems)) {
			return
		}
	}
	v.kind, v.more = kindArray, int(t.Nelems)-n
	var last []byte
	cost := 0
	for i := range n {
		at := o.Addr + Addr(i*size)
		raw, err := r.k.Slice(at, min(size, maxElements))
		if k := len(v.Parts); k > 0 && size <= maxElements {
			prev := &v.Parts[k-1]
			same := err == nil && prev.Err == nil && bytes.Equal(raw, last)
			if same || err != nil && prev.Err != nil && reason(err) == reason(prev.Err) {
				if r.left -= cost; r.left < 0 {
					v.more += n - i
					break
				}
				prev.Count++
				continue
			}
		}
		before := r.left
		part := r.read(Object{k: o.k, Addr: at, Type: t.Type}, depth+1)
		cost = before - r.left
		v.Parts = append(v.Parts, part)
		last = raw
		if r.left < 0 {
			v.more += n - i - 1
			break
		}
	}
	if len(v.Parts) == 1 && v.Parts[0].Err != nil {
		v.Err, v.Parts = v.Parts[0].Err, nil
	}
}

// chars reads an array of char as a string. Arrays of unsigned char hold
// numbers more often than text: those it takes only when they are text.
func (r *valueReader) chars(v *Value, o Object, elem *btf.Int, n, total int) bool {
	raw, err := r.k.Slice(o.Addr, n)
	if err != nil {
		v.Err = err
		return true
	}
	text := bytes.TrimRight(raw, "\x00")
	if elem.Name != "char" && !isText(text) {
		return false
	}
	v.kind, v.Str, v.more = kindString, string(text), total-n
	return true
}

func isText(b []byte) bool {
	for _, c := range b {
		if (c < ' ' || c > '~') && c != '\n' && c != '\t' {
			return false
		}
	}
	return len(b) > 0
}

func (r *valueReader) integer(v *Value, o Object, t *btf.Int) {
	switch {
	case t.Encoding&btf.Bool != 0:
		v.kind = kindBool
	case t.Name == "char" && o.Bits.Size == 0:
		v.kind = kindChar
	case o.signed():
		v.kind = kindSigned
	default:
		v.kind = kindInt
	}
	if t.Size == 16 { // __int128: the low half tells most
		v.kind = kindInt
		v.Uint, v.Err = r.k.U64(o.Addr)
		return
	}
	var bits uint32
	v.Uint, bits, v.Err = o.scalar()
	if v.kind == kindSigned || v.kind == kindChar {
		v.Uint = uint64(int64(v.Uint<<(64-bits)) >> (64 - bits))
	}
}

func (r *valueReader) pointer(v *Value, o Object, t *btf.Pointer) {
	v.kind = kindPointer
	if v.Uint, _, v.Err = o.scalar(); v.Err != nil || v.Uint == 0 {
		return
	}
	if v.Uint >= startKernelMap {
		v.Sym = r.k.Name(Addr(v.Uint))
	}
	if elem, ok := btf.UnderlyingType(t.Target).(*btf.Int); ok && elem.Name == "char" {
		text, err := r.k.CString(Addr(v.Uint), maxStringShown)
		if err == nil && (text == "" || isText([]byte(text))) {
			v.kind, v.Str = kindCharPointer, text
		}
	}
}

// reason says in a few words why something could not be read.
func reason(err error) string {
	for _, known := range []error{vmcore.ErrExcluded, vmcore.ErrAbsent, vmcore.ErrCorrupt, x86.ErrNotMapped, x86.ErrNonCanonical, errTooMuch} {
		if errors.Is(err, known) {
			return known.Error()
		}
	}
	return err.Error()
}

// Format writes the value as crash(8) and gdb do, but for structs that fit on a
// line, which take one, and array elements, which are numbered.
func (v Value) Format(style Style) string {
	if style.Width == 0 {
		style.Width = 80
	}
	p := valuePrinter{style: style}
	switch {
	case v.Err == nil && v.kind == kindStruct && v.Name == "":
		p.b.WriteString(Declare(v.Type, "") + " {\n")
		p.parts(v, 1)
		p.b.WriteString("}\n")
	case v.Name == "":
		p.value(v, 0, 0)
		p.b.WriteString("\n")
	default:
		p.member(v, 1, "")
	}
	return p.b.String()
}

type valuePrinter struct {
	style Style
	b     strings.Builder
}

func (p *valuePrinter) indent(depth int) string { return strings.Repeat("  ", depth) }

// member writes one member on lines of its own.
func (p *valuePrinter) member(v Value, depth int, end string) {
	lead := p.indent(depth)
	if p.style.Addrs {
		lead = fmt.Sprintf("[%016x] ", uint64(v.Addr)) + lead
	}
	if v.Name != "" {
		lead += v.Name + " = "
	}
	p.b.WriteString(lead)
	p.value(v, depth, len(lead))
	p.b.WriteString(end + "\n")
}

// value writes a value that starts at a column of a line.
func (p *valuePrinter) value(v Value, depth, column int) {
	leaf := v.Err != nil || v.kind != kindStruct && v.kind != kindArray
	switch {
	case leaf:
		p.b.WriteString(v.leaf(p.style))
		return
	case v.kind == kindArray && v.flat():
		p.numbers(v, depth, column)
		return
	}
	if !p.style.Addrs {
		if s, ok := v.line(p.style, p.style.Width-column-2); ok {
			p.b.WriteString(s)
			return
		}
	}
	p.b.WriteString("{\n")
	p.parts(v, depth+1)
	if p.style.Addrs {
		p.b.WriteString(strings.Repeat(" ", len("[0123456789abcdef] ")))
	}
	p.b.WriteString(p.indent(depth) + "}")
}

// parts writes the members of a struct or the elements of an array.
func (p *valuePrinter) parts(v Value, depth int) {
	index := 0
	for i, part := range v.Parts {
		if v.kind == kindArray {
			part.Name = span(index, part.Count)
			index += part.Count
		}
		end := ","
		if i == len(v.Parts)-1 && v.more == 0 {
			end = ""
		}
		p.member(part, depth, end)
	}
	if v.more > 0 {
		fmt.Fprintf(&p.b, "%s<%d more>\n", p.indent(depth), v.more)
	}
}

// span numbers count array elements from first on, in the notation of a
// designated initializer.
func span(first, count int) string {
	if count > 1 {
		return fmt.Sprintf("[%d ... %d]", first, first+count-1)
	}
	return fmt.Sprintf("[%d]", first)
}

// flat reports whether an array's elements are numbers and the like.
func (v Value) flat() bool {
	for _, e := range v.Parts {
		if e.Err != nil || e.kind == kindStruct || e.kind == kindArray {
			return false
		}
	}
	return true
}

// items returns the elements of a flat array as text, as many as gdb shows. Bytes
// are in hexadecimal: nobody reads a hardware address in decimal.
func (v Value) items(style Style) []string {
	var items []string
	if len(v.Parts) > 0 && v.Parts[0].kind == kindInt {
		n, _ := btf.Sizeof(v.Parts[0].Type)
		style.Hex = style.Hex || n == 1
	}
	shown := 0
	for _, e := range v.Parts {
		if len(items) >= maxItems {
			return append(items, fmt.Sprintf("<%d more>", v.elements()-shown))
		}
		shown += e.Count
		text := e.leaf(style)
		if e.Count >= repeatThreshold {
			items = append(items, fmt.Sprintf("%s <repeats %d times>", text, e.Count))
			continue
		}
		for range e.Count {
			items = append(items, text)
		}
	}
	if v.more > 0 {
		items = append(items, fmt.Sprintf("<%d more>", v.more))
	}
	return items
}

// elements is how many elements an array has.
func (v Value) elements() int {
	n := v.more
	for _, e := range v.Parts {
		n += e.Count
	}
	return n
}

// numbers fills lines with the elements of a flat array.
func (p *valuePrinter) numbers(v Value, depth, column int) {
	p.b.WriteString("{")
	column++
	for i, item := range v.items(p.style) {
		switch {
		case i == 0:
		case column+len(item)+3 > p.style.Width:
			p.b.WriteString(",\n" + p.indent(depth+2))
			column = 2 * (depth + 2)
		default:
			p.b.WriteString(", ")
			column += 2
		}
		p.b.WriteString(item)
		column += len(item)
	}
	p.b.WriteString("}")
}

// line writes the value on one line, if it needs no more than limit columns.
func (v Value) line(style Style, limit int) (string, bool) {
	if v.Err != nil || v.kind != kindStruct && v.kind != kindArray {
		s := v.leaf(style)
		return s, len(s) <= limit
	}
	var list []string
	left := limit - 4
	switch {
	case v.kind == kindArray && v.flat():
		s := "{" + strings.Join(v.items(style), ", ") + "}"
		return s, len(s) <= limit
	case v.kind == kindArray:
		return "", false
	}
	for _, part := range v.Parts {
		s, ok := part.line(style, left)
		if !ok {
			return "", false
		}
		if part.Name != "" {
			s = part.Name + " = " + s
		}
		if left -= len(s) + 2; left < -2 {
			return "", false
		}
		list = append(list, s)
	}
	if len(list) == 0 {
		return "{}", true
	}
	return "{ " + strings.Join(list, ", ") + " }", true
}

// kernelHalf is where addresses of the kernel begin; numbers above it are
// addresses or masks, which nobody reads in decimal.
const kernelHalf = 0xff00000000000000

// leaf writes a value that has no parts.
func (v Value) leaf(style Style) string {
	if v.Err != nil {
		return "<" + reason(v.Err) + ">"
	}
	size, _ := btf.Sizeof(v.Type)
	switch v.kind {
	case kindString:
		s := quote(v.Str)
		if v.more > 0 {
			s += fmt.Sprintf(" <%d more>", v.more)
		}
		return s
	case kindBool:
		switch v.Uint {
		case 0:
			return "false"
		case 1:
			return "true"
		}
	case kindEnum:
		return v.enum(style)
	case kindPointer, kindCharPointer:
		s := fmt.Sprintf("%#x", v.Uint)
		if v.Sym != "" {
			s += " <" + v.Sym + ">"
		}
		if v.kind == kindCharPointer {
			s += " " + quote(v.Str)
		}
		return s
	case kindFloat:
		if size == 4 {
			return fmt.Sprint(math.Float32frombits(uint32(v.Uint)))
		}
		return fmt.Sprint(math.Float64frombits(v.Uint))
	case kindSigned, kindChar:
		if !style.Hex {
			s := fmt.Sprint(int64(v.Uint))
			if v.kind == kindChar && v.Uint >= ' ' && v.Uint <= '~' {
				s += fmt.Sprintf(" '%c'", rune(v.Uint))
			}
			return s
		}
		if size > 0 && size < 8 {
			return fmt.Sprintf("%#x", v.Uint&(1<<(8*size)-1))
		}
	}
	if v.kind == kindInt && v.Uint >= kernelHalf && v.Bits.Size == 0 {
		return fmt.Sprintf("%#x", v.Uint)
	}
	return style.number(v.Uint)
}

func (v Value) enum(style Style) string {
	if name := v.enumName(); name != "" {
		return name
	}
	return style.number(v.Uint)
}

// enumName returns the name of an enum's value, "" when it has none.
func (v Value) enumName() string {
	t, ok := btf.UnderlyingType(v.Type).(*btf.Enum)
	if !ok {
		return ""
	}
	mask := uint64(1)<<(8*t.Size-1)<<1 - 1
	if v.Bits.Size > 0 {
		mask = 1<<v.Bits.Size - 1
	}
	for _, e := range t.Values {
		if e.Value&mask == v.Uint&mask {
			return e.Name
		}
	}
	return ""
}

// quote writes a C string literal.
func quote(s string) string {
	var b strings.Builder
	b.WriteByte('"')
	for i := range len(s) {
		switch c := s[i]; {
		case c == '"', c == '\\':
			b.WriteByte('\\')
			b.WriteByte(c)
		case c == '\n':
			b.WriteString(`\n`)
		case c == '\t':
			b.WriteString(`\t`)
		case c < ' ' || c > '~':
			fmt.Fprintf(&b, `\%03o`, c)
		default:
			b.WriteByte(c)
		}
	}
	b.WriteByte('"')
	return b.String()
}
