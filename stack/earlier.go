package stack

import (
	"golang.org/x/arch/x86/x86asm"

	"inquest/kernel"
	"inquest/kernel/x86"
)

// Call is a call that the code of a frame made before it got to where it is, whichever
// way it took.
type Call struct {
	At       kernel.Addr   // of the call instruction
	Function kernel.Symbol // that was called
	Frame    int           // whose code it is
	Args     [6]CallArg    // the registers that pass arguments, in their order
	// Offset is how far behind the pointer that was passed the memory lies that was
	// used later, Reads how many pointers were read from there on up to the register: 0
	// where the register itself is the pointer.
	Offset uint64
	Reads  int
}

// CallArg is what a call was given in a register.
type CallArg struct {
	Value uint64
	Known bool
	// Again is set where the value is lost and was read again from where it came from.
	Again bool
}

// Bounds of the search for calls.
const (
	maxChain    = 4  // pointers read through pointers
	maxCallSeen = 64 // calls looked at in one function
	maxOutwards = 4  // frames
)

// PassedBefore finds a call that had been given the pointer by way of which a register
// of a frame got its value: the register's own, or one that led to it, in the frame's
// code or in its callers'. arg says of a function which of its arguments is meant, and
// returns -1 for those that are not. The call must be on every path from where the
// pointer was made to where it was used. It needs [Unwinder.Arguments] to have run.
func (u *Unwinder) PassedBefore(t *Trace, frame int, r x86.Reg, arg func(function string) int) (Call, bool) {
	if frame >= len(t.acts) || t.acts[frame].here == nil {
		return Call{}, false
	}
	a := t.acts[frame]
	for n, reg := range gprRegs {
		if reg != r {
			continue
		}
		v := a.here.regs[n]
		for reads := range maxChain {
			if call, ok := u.passedOutwards(t, frame, v, arg); ok {
				call.Reads = reads
				return call, true
			}
			from, ok := a.flow.loads[v.root]
			if !ok || from.size != 8 || v.bits != 64 {
				break
			}
			v = from.at
		}
	}
	return Call{}, false
}

// passedOutwards looks for the pointer in a frame's code, and in that of its callers as
// long as they passed it on.
func (u *Unwinder) passedOutwards(t *Trace, frame int, v value, arg func(string) int) (Call, bool) {
	for i := frame; i < min(frame+maxOutwards, len(t.acts)); i++ {
		a := t.acts[i]
		if a.here == nil || v.bits != 64 {
			break
		}
		if call, ok := u.passedIn(a, v, arg); ok {
			call.Frame = i
			return call, true
		}
		if v.root.kind != rootEntry || a.link == nil {
			break
		}
		off := v.off
		v = a.link.regs[v.root.addr]
		v.off += off
	}
	return Call{}, false
}

// passedIn looks for the pointer in one frame's code.
func (u *Unwinder) passedIn(a *activation, v value, arg func(string) int) (c Call, ok bool) {
	f := a.flow
	from, to := f.madeAt(v.root), f.find(uint64(a.frame.PC))
	if !a.frame.Exact {
		to = none
		if insn, ok := f.callBefore(uint64(a.frame.PC)); ok {
			to = f.find(insn.Addr)
		}
	}
	if from == none || to == none {
		return c, false
	}
	seen := 0
	for i := range f.nodes {
		n := &f.nodes[i]
		target, direct := n.Insn.Target()
		if n.Op != x86asm.CALL || !direct || int32(i) == to || seen == maxCallSeen {
			continue
		}
		sym, off, known := u.k.SymbolAt(kernel.Addr(target))
		if !known || off != 0 {
			continue
		}
		which := arg(sym.Name)
		if which < 0 || which >= len(argRegs) {
			continue
		}
		seen++
		l, err := f.at(n.Addr)
		if err != nil {
			continue
		}
		p := l.regs[argRegs[which]]
		if p.root != v.root || p.bits != 64 || v.off < p.off || !f.always(from, int32(i), to) {
			continue
		}
		c = Call{At: kernel.Addr(n.Addr), Function: sym, Offset: uint64(v.off - p.off)}
		for r := range c.Args {
			c.Args[r] = u.callArg(a, l.regs[argRegs[r]])
		}
		ok = true // the last one counts
	}
	return c, ok
}

func (u *Unwinder) callArg(a *activation, v value) CallArg {
	if k, ok := a.eval(v); ok && k.bits == 64 {
		return CallArg{Value: k.v, Known: true}
	}
	if again, _, ok := u.reread(a, v, 0); ok {
		return CallArg{Value: again, Known: true, Again: true}
	}
	return CallArg{}
}

// madeAt returns the node that gave a value its root, or none. What an earlier turn of
// a loop made cannot be told from what this one did.
func (f *flow) madeAt(r root) int32 {
	switch r.kind {
	case rootEntry, rootStack:
		return 0
	case rootDef, rootPhi:
		if r.loc&staleBit == 0 {
			return f.find(r.addr)
		}
	}
	return none
}

// always reports whether every path from one node to another leads by way of a third.
func (g *graph) always(from, via, to int32) bool {
	return from != via && g.reaches(from, to, none) && !g.reaches(from, to, via)
}

// reaches reports whether a path leads from one node to another, without one of them.
func (g *graph) reaches(from, to, without int32) bool {
	seen := make([]bool, len(g.nodes))
	work := []int32{from}
	visit := func(i int32) {
		if i != none && i != without && !seen[i] {
			seen[i] = true
			work = append(work, i)
		}
	}
	for len(work) > 0 {
		n := &g.nodes[work[len(work)-1]]
		work = work[:len(work)-1]
		visit(n.next)
		visit(n.fault)
		for _, t := range n.targets {
			visit(t)
		}
		if seen[to] {
			return true
		}
	}
	return false
}
