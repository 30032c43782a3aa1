package stack

import (
	"slices"

	"golang.org/x/arch/x86/x86asm"

	"inquest/kernel"
	"inquest/kernel/x86"
)

// link is a proven way from a call to the function that is on the stack: directly,
// or through functions that jumped on.
type link struct {
	regs  [16]value // the callee's registers at its entry, in the caller's terms
	tails []hop     // outermost first: what was called, and what that jumped to, the callee left out
	oneOf bool      // there are other ways
}

// setter names the function on the way that loaded a register with what it has at the
// end; "" where it was the caller.
func (l *link) setter(r gpr) string {
	for _, h := range slices.Backward(l.tails) {
		if h.regs[r] != l.regs[r] {
			return h.code.name
		}
	}
	return ""
}

// hop is a function passed through, and its registers at its entry in the terms of
// the caller at the bottom.
type hop struct {
	code *code
	regs [16]value
}

const (
	maxHops = 6
	maxWays = 16
	maxSeen = 600 // functions
)

// connect finds out how a frame's function was reached from its caller.
func (u *Unwinder) connect(a, caller *activation) {
	if a.link != nil || a.code == nil && !a.wild || caller.here == nil || caller.call == nil {
		return
	}
	if a.wild {
		a.link = &link{regs: caller.call.regs}
		return
	}
	insn, ok := caller.flow.callBefore(uint64(caller.frame.PC))
	if !ok {
		return
	}
	target, ok := u.target(caller, insn)
	if !ok && !isSyscall(u.k, a.code.entry) {
		return
	}
	if !ok || target == a.code.entry {
		a.link = &link{regs: caller.call.regs}
		return
	}
	a.link = u.follow(caller, target, a.code.entry, caller.call.regs, 0)
}

// through makes a link of the ways by which jumps may have led from what was called to
// an entry: the shortest is shown, but only what is the same on all of them is known.
// It is nil where there is no way at all.
func (u *Unwinder) through(called, entry uint64, regs [16]value) *link {
	ways, all := u.ways(called, entry)
	if len(ways) == 0 {
		c, err := u.codeAt(kernel.Addr(called))
		if all || err != nil || c.entry != called {
			return nil
		}
		ways = [][]*code{{c}} // which jumped on through a pointer, or too often
	}
	var l *link
	for _, way := range ways {
		w := pass(way, entry, regs)
		if l == nil {
			l = w
			l.oneOf = len(ways) > 1 || !all
		}
		for i := range l.tails {
			h := &l.tails[i]
			same := slices.IndexFunc(w.tails, func(o hop) bool { return o.code == h.code })
			if i > 0 && (!all || same < 0) {
				h.regs = [16]value{} // perhaps it was not there
			} else {
				agreed(&h.regs, w.tails[same].regs)
			}
		}
		if agreed(&l.regs, w.regs); !all {
			l.regs = [16]value{}
		}
	}
	return l
}

// pass follows the registers along a way.
func pass(way []*code, entry uint64, regs [16]value) *link {
	l := &link{}
	for i, c := range way {
		l.tails = append(l.tails, hop{c, regs})
		next := entry
		if i+1 < len(way) {
			next = way[i+1].entry
		}
		regs = compose(jumpState(c, next), regs)
	}
	l.regs = regs
	return l
}

// agreed keeps the registers that are the same.
func agreed(a *[16]value, b [16]value) {
	for r := range a {
		if a[r] != b[r] {
			a[r] = value{}
		}
	}
}

// target returns where a call goes. An indirect one is followed through the table
// that it was loaded from, if that can be read.
func (u *Unwinder) target(caller *activation, insn x86.Insn) (uint64, bool) {
	if t, ok := insn.Target(); ok {
		if r, ok := u.thunks()[t]; ok {
			return u.pointer(caller, caller.call.regs[r])
		}
		return t, true
	}
	switch arg := insn.Args[0].(type) {
	case x86asm.Reg:
		if bits, r, ok := width(arg); ok && bits == 64 {
			return u.pointer(caller, caller.call.regs[r])
		}
	case x86asm.Mem:
		at := caller.flow.address(caller.call.clone(), insn, arg)
		base := at
		base.off = 0
		if k, ok := caller.eval(at); ok && k.bits == 64 {
			return u.textAt(k.v)
		} else if p, _, ok := u.reread(caller, base, 0); ok {
			return u.textAt(p + uint64(at.off))
		}
	}
	return 0, false
}

// textAt reads a pointer to a function.
func (u *Unwinder) textAt(at uint64) (uint64, bool) {
	p, err := u.k.U64(kernel.Addr(at))
	return p, err == nil && u.k.Text(kernel.Addr(p))
}

// pointer returns a function pointer that the caller held: its value if that is
// known, else what is now where it was read from.
func (u *Unwinder) pointer(caller *activation, v value) (uint64, bool) {
	if k, ok := caller.eval(v); ok && k.bits == 64 {
		return k.v, u.k.Text(kernel.Addr(k.v))
	}
	p, _, ok := u.reread(caller, v, 0)
	return p, ok && u.k.Text(kernel.Addr(p))
}

// jumpState is what the registers hold at c's jump to an address, in the terms of
// c's entry; where several jumps differ, nothing.
func jumpState(c *code, to uint64) (regs [16]value) {
	f, err := c.flow()
	if err != nil {
		return regs
	}
	first := true
	for i := range f.nodes {
		insn := f.nodes[i].Insn
		if t, ok := insn.Target(); !ok || t != to || insn.Op == x86asm.CALL {
			continue
		}
		l, err := f.at(insn.Addr)
		if err != nil {
			return [16]value{}
		}
		for r := range regs {
			if first {
				regs[r] = l.regs[r]
			} else if regs[r] != l.regs[r] {
				regs[r] = value{}
			}
		}
		first = false
	}
	return regs
}

// compose puts registers that are known in the terms of a function's entry into
// those of its caller.
func compose(regs, entry [16]value) (out [16]value) {
	for r, v := range regs {
		switch v.root.kind {
		case rootConst:
			out[r] = v
		case rootEntry:
			o := entry[v.root.addr].add(v.off)
			if o.root.kind == rootNone || o.bits != 64 && (v.off != 0 || v.bits < o.bits) {
				continue
			}
			if v.bits < 64 && o.bits == 64 {
				o.bits, o.signed = v.bits, v.signed
			}
			out[r] = o
		}
	}
	return out
}

// tails describes the functions of a link, innermost first.
func (u *Unwinder) tails(l *link, caller *activation) []TailCall {
	var out []TailCall
	for _, h := range slices.Backward(l.tails) {
		sym, _, _ := u.k.SymbolAt(kernel.Addr(h.code.entry))
		t := TailCall{Symbol: sym, OneOf: l.oneOf}
		var entry [16]known
		if caller.here != nil {
			for _, r := range argRegs {
				if k, ok := caller.eval(h.regs[r]); ok {
					entry[r] = caller.sets(k, sym.Name)
				}
			}
		}
		if proto, err := h.code.proto(); err == nil {
			t.Args = args(proto, entry, [stackArgs]known{})
			u.readAgain(t.Args, h.regs, caller)
		} else {
			t.Args = registerArgs(entry)
		}
		out = append(out, t)
	}
	return out
}
