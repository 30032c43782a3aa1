package stack

import (
	"slices"
	"strings"

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

// hop is a function passed through, and its registers at its entry in the terms of
// the caller at the bottom.
type hop struct {
	code *code
	regs [16]value
}

const (
	maxHops  = 6
	maxChain = 400 // functions looked at
)

// connect finds out how a frame's function was reached from its caller.
func (u *Unwinder) connect(a, caller *activation) {
	if a.link != nil || a.code == nil || caller.here == nil || caller.call == nil {
		return
	}
	insn, ok := caller.flow.callBefore(uint64(caller.frame.PC))
	if !ok {
		return
	}
	target, ok := u.target(caller, insn)
	if !ok {
		return
	}
	if target == a.code.entry {
		a.link = &link{regs: caller.call.regs}
		return
	}
	a.link = u.through(u.chains(target, a.code.entry), a.code.entry, caller.call.regs)
}

// through makes a link of the ways by which jumps may have led to an entry: the
// shortest is shown, but only what is the same on all of them is known.
func (u *Unwinder) through(chains [][]*code, entry uint64, regs [16]value) *link {
	var l *link
	for _, chain := range chains {
		w := &link{regs: regs, oneOf: len(chains) > 1}
		for i, c := range chain {
			w.tails = append(w.tails, hop{c, w.regs})
			next := entry
			if i+1 < len(chain) {
				next = chain[i+1].entry
			}
			w.regs = compose(jumpState(c, next), w.regs)
		}
		if l == nil {
			l = w
			continue
		}
		for r := range l.regs {
			if l.regs[r] != w.regs[r] {
				l.regs[r] = value{}
			}
		}
	}
	return l
}

// target returns where a call goes. An indirect one is followed through the table
// that it was loaded from, if that can be read.
func (u *Unwinder) target(caller *activation, insn x86.Insn) (uint64, bool) {
	if t, ok := insn.Target(); ok {
		name := caller.code.symbol(t)
		reg, thunk := strings.CutPrefix(name, "__x86_indirect_thunk_")
		if !thunk {
			return t, true
		}
		for r := range gprRegs {
			if gpr(r).String() == reg {
				return u.pointer(caller, caller.call.regs[r])
			}
		}
		return 0, false
	}
	switch arg := insn.Args[0].(type) {
	case x86asm.Reg:
		if bits, r, ok := width(arg); ok && bits == 64 {
			return u.pointer(caller, caller.call.regs[r])
		}
	case x86asm.Mem:
		at := caller.flow.address(caller.call.clone(), insn, arg)
		if k, ok := caller.eval(at); ok && k.bits == 64 {
			p, err := u.k.U64(kernel.Addr(k.v))
			return p, err == nil && u.k.Text(kernel.Addr(p))
		}
	}
	return 0, false
}

// pointer returns a function pointer that the caller held: its value if that is
// known, else what is now where it was read from.
func (u *Unwinder) pointer(caller *activation, v value) (uint64, bool) {
	if k, ok := caller.eval(v); ok && k.bits == 64 {
		return k.v, u.k.Text(kernel.Addr(k.v))
	}
	from, ok := caller.flow.loads[v.root]
	if !ok || from.size != 8 || v.off != 0 {
		return 0, false
	}
	at, ok := caller.eval(from.at)
	if !ok || at.bits != 64 {
		return 0, false
	}
	p, err := u.k.U64(kernel.Addr(at.v))
	return p, err == nil && u.k.Text(kernel.Addr(p))
}

// chains finds the functions by which direct jumps lead from one entry to another,
// the last one left out: every way, the shortest first; nil when there is none, or
// too many to tell.
func (u *Unwinder) chains(from, to uint64) [][]*code {
	const most = 8
	var found [][]*code
	todo := [][]*code{nil}
	next := []uint64{from}
	for looked := 0; len(todo) > 0; looked++ {
		path, at := todo[0], next[0]
		todo, next = todo[1:], next[1:]
		if looked >= maxChain || len(found) > most {
			return nil
		}
		c, err := u.codeAt(kernel.Addr(at))
		if err != nil || c.entry != at || slices.Contains(path, c) || len(path) >= maxHops {
			continue
		}
		path = append(slices.Clone(path), c)
		for _, t := range c.tails() {
			if t == to {
				found = append(found, path)
				continue
			}
			todo, next = append(todo, path), append(next, t)
		}
	}
	return found
}

// tailTargets are the functions that c jumps to directly, each once.
func (c *code) tailTargets() []uint64 {
	f, err := c.flow()
	if err != nil {
		return nil
	}
	var targets []uint64
	for _, insn := range f.insns {
		if t, ok := insn.Target(); ok && insn.Op != x86asm.CALL && c.within(t) == nil && !slices.Contains(targets, t) && c.symbol(t) != "" {
			targets = append(targets, t)
		}
	}
	slices.Sort(targets)
	return targets
}

// jumpState is what the registers hold at c's jump to an address, in the terms of
// c's entry; where several jumps differ, nothing.
func jumpState(c *code, to uint64) (regs [16]value) {
	f, err := c.flow()
	if err != nil {
		return regs
	}
	first := true
	for _, insn := range f.insns {
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
					k.from = "loaded by " + caller.code.name + ": " + k.from
					entry[r] = k
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
