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
	maxHops   = 6
	maxChains = 8
	maxLooked = 64 // functions
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
	if !ok {
		return
	}
	if target == a.code.entry {
		a.link = &link{regs: caller.call.regs}
		return
	}
	a.link = u.through(target, a.code.entry, caller.call.regs)
}

// through makes a link of the ways by which jumps may have led from what was called to
// an entry: the shortest is shown, but only what is the same on all of them is known.
// It is nil where there is no way at all.
func (u *Unwinder) through(called, entry uint64, regs [16]value) *link {
	chains, all := u.chains(called, entry)
	if !all && len(chains) == 0 {
		// Jumped on through a pointer, or too many hops: that it was called is sure.
		c, err := u.codeAt(kernel.Addr(called))
		if err != nil || c.entry != called {
			return nil
		}
		return &link{tails: []hop{{c, regs}}, oneOf: true}
	}
	var l *link
	for _, chain := range chains {
		w := &link{regs: regs, oneOf: len(chains) > 1 || !all}
		for i, c := range chain {
			h := hop{c, w.regs}
			if i > 0 && w.oneOf {
				h.regs = [16]value{} // perhaps it was not there
			}
			w.tails = append(w.tails, h)
			next := entry
			if i+1 < len(chain) {
				next = chain[i+1].entry
			}
			w.regs = compose(jumpState(c, next), w.regs)
		}
		if l == nil {
			l = w
		}
		for r := range l.regs {
			if !all || l.regs[r] != w.regs[r] {
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

// chains finds the functions by which direct jumps lead from one entry to another,
// the last one left out: the shortest first. all is set if there are no other ways.
func (u *Unwinder) chains(from, to uint64) (found [][]*code, all bool) {
	todo := [][]*code{nil}
	next := []uint64{from}
	all = true
	for looked := 0; len(todo) > 0; looked++ {
		path, at := todo[0], next[0]
		todo, next = todo[1:], next[1:]
		if looked >= maxLooked || len(found) > maxChains {
			return found, false
		}
		c, err := u.codeAt(kernel.Addr(at))
		if err != nil || c.entry != at || len(path) >= maxHops {
			all = false
			continue
		}
		if slices.Contains(path, c) {
			continue
		}
		path = append(slices.Clone(path), c)
		tails := c.tails()
		all = all && !tails.elsewhere
		for _, t := range tails.to {
			if t == to {
				found = append(found, path)
				if syscall(u.k, to) {
					return found, true
				}
				continue
			}
			todo, next = append(todo, path), append(next, t)
		}
	}
	return found, all
}

// syscall reports whether a function is the entry of a system call. It is called, or
// jumped to, only by what decodes the number, never by another one.
func syscall(k *kernel.Kernel, entry uint64) bool {
	sym, _, _ := k.SymbolAt(kernel.Addr(entry))
	return strings.HasPrefix(sym.Name, "__x64_sys_") || strings.HasPrefix(sym.Name, "__ia32_sys_") || strings.HasPrefix(sym.Name, "__ia32_compat_sys_")
}

// tailTargets are the functions that one jumps to directly, each once.
type tailTargets struct {
	to        []uint64
	elsewhere bool // it also jumps to where a pointer says, or its code is not known
}

func (c *code) findTails() (t tailTargets) {
	f, err := c.graph()
	if err != nil {
		return tailTargets{elsewhere: true}
	}
	for _, insn := range f.insns {
		if !c.leaves(insn) {
			continue
		}
		target, direct := insn.Target()
		if name := c.symbol(target); !direct || strings.HasPrefix(name, "__x86_indirect_thunk_") {
			t.elsewhere = true
		} else if name != "" && !slices.Contains(t.to, target) {
			t.to = append(t.to, target)
		}
	}
	slices.Sort(t.to)
	return t
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
