package stack

import (
	"fmt"

	"github.com/cilium/ebpf/btf"

	"inquest/kernel"
	"inquest/kernel/x86"
)

// Reread is a value that was read from memory, read once more.
type Reread struct {
	Value uint64
	Expr  string // what was read, in C, as far as types tell: "entry->state.sk"
}

// readAgain finds, for parameters whose values are lost, where the caller had read
// them from. regs are the registers passed, in the caller's terms.
func (u *Unwinder) readAgain(args []Arg, regs [16]value, caller *activation) {
	if caller.here == nil {
		return
	}
	for i := range args {
		a := &args[i]
		if _, pointer := btf.UnderlyingType(a.BTF).(*btf.Pointer); a.Known || !pointer {
			continue
		}
		if v, e, ok := u.reread(caller, regs[a.reg], 0); ok {
			a.Again = &Reread{Value: v, Expr: e.text}
		}
	}
}

// expression is C text and the type of its value.
type expression struct {
	text string
	typ  btf.Type // nil when not known
}

// reread evaluates a value that was loaded from memory whose address is known, or
// was loaded itself.
func (u *Unwinder) reread(a *activation, v value, depth int) (uint64, expression, bool) {
	const deepest = 4
	from, ok := a.flow.loads[v.root]
	if !ok || from.size != 8 || v.bits != 64 || depth > deepest {
		return 0, expression{}, false
	}
	var at uint64
	var place expression
	if k, ok := a.eval(from.at); ok && k.bits == 64 {
		at, place = k.v, member(a.parameter(from.at.root), from.at.off)
	} else {
		base := from.at
		base.off = 0
		b, e, ok := u.reread(a, base, depth+1)
		if !ok {
			return 0, expression{}, false
		}
		at, place = b+uint64(from.at.off), member(e, from.at.off)
	}
	p, err := u.k.U64(kernel.Addr(at))
	if err != nil {
		return 0, expression{}, false
	}
	if place.text == "" {
		place.text = fmt.Sprintf("*%#x", at)
	}
	if v.off != 0 {
		m := member(place, v.off)
		if m.text == "" {
			m.text = fmt.Sprintf("%s%+#x", place.text, v.off)
		} else {
			m.text = "&" + m.text
		}
		m.typ = nil
		place = m
	}
	return p + uint64(v.off), place, true
}

// parameter is the expression of an entry value: the name of the parameter.
func (a *activation) parameter(r root) expression {
	if r.kind != rootEntry {
		return expression{}
	}
	proto, err := a.code.proto()
	if err != nil {
		return expression{}
	}
	for _, arg := range args(proto, [16]known{}, [stackArgs]known{}) {
		if uint64(arg.reg) == r.addr && arg.Name != "" && arg.reg != rax {
			return expression{arg.Name, arg.BTF}
		}
	}
	return expression{}
}

// member is p->m, for the member at an offset in what the expression p points to.
func member(p expression, off int64) expression {
	ptr, ok := btf.UnderlyingType(p.typ).(*btf.Pointer)
	if p.typ == nil || !ok || off < 0 {
		return expression{}
	}
	place, ok := kernel.PlaceAt(ptr.Target, uint64(off))
	if !ok || place.Rest != 0 || place.Path == "" {
		return expression{}
	}
	return expression{p.text + "->" + place.Path, place.Type}
}

// Source is where a register's value came from.
type Source struct {
	Param string      // the parameter that it is; "" when it was read from memory
	Addr  kernel.Addr // where it was read; 0 for a parameter
	Size  int         // bytes read
	Plus  int64       // added to the parameter, or to what was read
	Const bool        // the code itself has the number: it is Plus
	Expr  string      // in C, as far as types tell: "entry->state.sk"; "" when they do not
}

// Source says where the code of a frame had got the value of a register from. It needs
// [Unwinder.Arguments] to have run on the trace; ok is false where it was neither given
// as a parameter, nor read from memory at a known address, nor a number in the code.
func (u *Unwinder) Source(t *Trace, frame int, r x86.Reg) (s Source, ok bool) {
	if frame >= len(t.acts) || t.acts[frame].here == nil {
		return s, false
	}
	a := t.acts[frame]
	for n, reg := range gprRegs {
		if reg == r {
			return u.source(a, a.here.regs[n])
		}
	}
	return s, false
}

func (u *Unwinder) source(a *activation, v value) (s Source, ok bool) {
	if v.bits != 64 {
		return s, false
	}
	if v.root.kind == rootConst {
		return Source{Plus: v.off, Const: true}, true
	}
	if p := a.parameter(v.root); p.text != "" {
		return Source{Param: p.text, Plus: v.off, Expr: p.text}, true
	}
	from, ok := a.flow.loads[v.root]
	if !ok {
		return s, false
	}
	s = Source{Size: from.size, Plus: v.off}
	if k, ok := a.eval(from.at); ok && k.bits == 64 {
		s.Addr, s.Expr = kernel.Addr(k.v), member(a.parameter(from.at.root), from.at.off).text
		return s, true
	}
	base := from.at
	base.off = 0
	b, e, ok := u.reread(a, base, 0)
	if !ok {
		return s, false
	}
	s.Addr, s.Expr = kernel.Addr(b)+kernel.Addr(from.at.off), member(e, from.at.off).text
	return s, true
}
