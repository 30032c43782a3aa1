package stack

import (
	"fmt"
	"strings"

	"github.com/cilium/ebpf/btf"

	"inquest/kernel"
)

// prototype returns the BTF prototype of a function, if it is the one that the code
// was compiled to: not of a clone whose parameters the compiler changed, nor of one
// of several static functions of a name.
func prototype(k *kernel.Kernel, name string, entry kernel.Addr) (*btf.FuncProto, error) {
	if strings.Contains(name, ".") {
		return nil, fmt.Errorf("%s: the compiler changed its parameters: %w", name, kernel.ErrNoType)
	}
	sym, _, _ := k.SymbolAt(entry)
	if len(k.LookupIn(sym.Module, name)) != 1 {
		return nil, fmt.Errorf("%s: one of several: %w", name, kernel.ErrNoType)
	}
	types, err := k.Types()
	if err != nil {
		return nil, err
	}
	return types.Func(name, sym.Module)
}

// parameters puts what is known of the entry into the terms of the prototype.
func (u *Unwinder) parameters(a *activation) []Arg {
	if a.code == nil {
		return u.unanalysed(a)
	}
	proto, err := a.code.proto()
	if err != nil {
		return registerArgs(a.entry)
	}
	return args(proto, a.entry, a.stack)
}

// unanalysed lists the parameters of a function of which nothing else is known.
func (u *Unwinder) unanalysed(a *activation) []Arg {
	sym := a.frame.Symbol
	if sym.Name == "" || strings.Contains(sym.Name, ".") {
		return nil
	}
	proto, err := prototype(u.k, sym.Name, sym.Addr)
	if err != nil {
		return nil
	}
	return args(proto, a.entry, a.stack)
}

// registerArgs lists the argument registers that are known, for a function whose
// prototype is not.
func registerArgs(entry [16]known) []Arg {
	var out []Arg
	for _, r := range argRegs {
		if k := entry[r]; k.bits == 64 {
			out = append(out, Arg{Name: r.String(), Known: true, Value: k.v, From: k.from.String()})
		}
	}
	return out
}

// args assigns registers and stack words to parameters, as the System V ABI does for
// integers, pointers and small structs; the kernel passes nothing else.
func args(proto *btf.FuncProto, entry [16]known, stack [stackArgs]known) []Arg {
	regs, words := argRegs[:], stack[:]
	if size, err := btf.Sizeof(proto.Return); err == nil && size > 16 {
		regs = regs[1:] // where to put the struct that is returned
	}
	var out []Arg
	for _, p := range proto.Params {
		if _, variadic := p.Type.(*btf.Void); variadic || p.Type == nil {
			break
		}
		arg := Arg{Name: p.Name, Type: kernel.TypeName(p.Type), BTF: p.Type, From: "unknown"}
		size, err := btf.Sizeof(p.Type)
		if err != nil || size < 0 {
			break
		}
		_, isStruct := btf.UnderlyingType(p.Type).(*btf.Struct)
		_, isUnion := btf.UnderlyingType(p.Type).(*btf.Union)
		n := (size + 7) / 8
		var k known
		switch {
		case n == 0: // an empty struct takes nothing
		case n <= 2 && n <= len(regs) && aligned(p.Type, 0):
			arg.reg = regs[0]
			k, regs = entry[regs[0]], regs[n:]
		case n <= len(words):
			k, words = words[0], words[n:]
		default:
			words = nil
		}
		if bits := uint8(min(8*size, 64)); n == 1 && k.bits >= bits && !isStruct && !isUnion {
			arg.Known, arg.Value, arg.From = true, mask(k.v, bits), k.from.String()
		}
		out = append(out, arg)
	}
	return out
}

// aligned reports whether all members of a type lie where C puts them: structs that
// are packed otherwise are passed in memory, however small.
func aligned(t btf.Type, off uint32) bool {
	const deepest = 16 // bytes, of what is passed in registers
	t = btf.UnderlyingType(t)
	var members []btf.Member
	switch t := t.(type) {
	case *btf.Struct:
		members = t.Members
	case *btf.Union:
		members = t.Members
	case *btf.Array:
		size, err := btf.Sizeof(t.Type)
		if err != nil || size <= 0 {
			return err == nil
		}
		for i := range min(t.Nelems, deepest) {
			if !aligned(t.Type, off+i*uint32(size)) {
				return false
			}
		}
		return true
	default:
		size, err := btf.Sizeof(t)
		return err == nil && size > 0 && off%min(uint32(size), 8) == 0
	}
	for _, m := range members {
		if m.BitfieldSize == 0 && !aligned(m.Type, off+uint32(m.Offset/8)) {
			return false
		}
	}
	return true
}
