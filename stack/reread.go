package stack

import (
	"fmt"

	"github.com/cilium/ebpf/btf"

	"inquest/kernel"
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
