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

// ways finds how direct jumps may have led from one entry to another: the functions
// passed through, the shortest way first. all is set if no other way was left to try; a
// jump through a pointer counts only where no direct one leads there.
func (u *Unwinder) ways(from, to uint64) (ways [][]*code, all bool) {
	seen := map[uint64]*code{}
	direct := isSyscall(u.k, to)
	all = true
	elsewhere := false
	for todo, hops := []uint64{from}, 0; len(todo) > 0 && hops < maxHops; hops++ {
		var further []uint64
		for _, at := range todo {
			if seen[at] != nil || at == to {
				continue
			}
			c, err := u.codeAt(kernel.Addr(at))
			if err != nil || c.entry != at {
				elsewhere = true
				continue
			}
			if len(seen) == maxSeen {
				all = false
				break
			}
			seen[at] = c
			elsewhere = elsewhere || c.tails().elsewhere
			if direct && slices.Contains(c.tails().to, to) {
				return [][]*code{{c}}, true
			}
			further = append(further, c.tails().to...)
		}
		todo = further
	}
	leads := leadsTo(seen, to)
	for todo := [][]*code{{seen[from]}}; len(todo) > 0 && leads[from]; todo = todo[1:] {
		way := todo[0]
		if len(way) > maxHops || len(ways) == maxWays {
			all = false
			continue
		}
		for _, t := range way[len(way)-1].tails().to {
			switch c := seen[t]; {
			case t == to:
				ways = append(ways, way)
			case leads[t] && !slices.Contains(way, c):
				todo = append(todo, append(slices.Clone(way), c))
			}
		}
	}
	return ways, all && (len(ways) > 0 || !elsewhere)
}

// leadsTo returns which of the functions lead to an entry by jumps among them.
func leadsTo(seen map[uint64]*code, to uint64) map[uint64]bool {
	leads := map[uint64]bool{}
	for grew := true; grew; {
		grew = false
		for at, c := range seen {
			if !leads[at] && slices.ContainsFunc(c.tails().to, func(t uint64) bool { return t == to || leads[t] }) {
				leads[at], grew = true, true
			}
		}
	}
	return leads
}

// isSyscall reports whether a function is the entry of a system call. It is called, or
// jumped to, only by what decodes the number, never by another one.
func isSyscall(k *kernel.Kernel, entry uint64) bool {
	sym, _, _ := k.SymbolAt(kernel.Addr(entry))
	return strings.HasPrefix(sym.Name, "__x64_sys_") || strings.HasPrefix(sym.Name, "__ia32_sys_") || strings.HasPrefix(sym.Name, "__ia32_compat_sys_")
}

// tailTargets are the functions that one jumps to directly, each once.
type tailTargets struct {
	to        []uint64
	elsewhere bool // it also goes to where a pointer says, or its code is not known
}

func (c *code) findTails() (t tailTargets) {
	f, err := c.graph()
	if err != nil {
		return tailTargets{elsewhere: true}
	}
	t.elsewhere = f.falls
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
