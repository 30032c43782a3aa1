package stack

import (
	"slices"

	"golang.org/x/arch/x86/x86asm"

	"inquest/kernel"
	"inquest/kernel/x86"
)

// follow makes the link from what a frame called to an entry, also through functions that
// jump on to where a pointer says, as long as the caller's values tell where that points.
func (u *Unwinder) follow(caller *activation, called, entry uint64, regs [16]value, hops int) *link {
	if ways, _ := u.ways(called, entry); len(ways) == 0 && hops < maxHops {
		if l := u.jumpOn(caller, called, entry, regs, hops); l != nil {
			return l
		}
	}
	return u.through(called, entry, regs)
}

// jumpOn follows a function's only indirect jump; nil where that does not lead to the entry.
func (u *Unwinder) jumpOn(caller *activation, called, entry uint64, regs [16]value, hops int) *link {
	c, err := u.codeAt(kernel.Addr(called))
	if err != nil || c.entry != called {
		return nil
	}
	f, err := c.flow()
	if err != nil {
		return nil
	}
	i := u.indirectJump(f)
	if i < 0 {
		return nil
	}
	at, err := f.at(f.nodes[i].Insn.Addr)
	if err != nil {
		return nil
	}
	target, ok := u.jumpTarget(caller, f, at, f.nodes[i].Insn, regs)
	if !ok || target == called {
		return nil
	}
	first := hop{c, regs}
	regs = compose(at.regs, regs)
	if target == entry {
		return &link{regs: regs, tails: []hop{first}}
	}
	if ways, _ := u.ways(target, entry); len(ways) == 0 && hops+1 >= maxHops {
		return nil
	}
	l := u.follow(caller, target, entry, regs, hops+1)
	if l == nil {
		return nil
	}
	l.tails = slices.Concat([]hop{first}, l.tails)
	return l
}

// indirectJump is the number of the only instruction by which a function jumps to where
// a pointer says; -1 where there is none, or more than one.
func (u *Unwinder) indirectJump(f *flow) int {
	found := -1
	for i := range f.nodes {
		insn := f.nodes[i].Insn
		if insn.Op != x86asm.JMP || !f.nodes[i].leaves {
			continue
		}
		t, direct := insn.Target()
		if _, thunk := u.thunks()[t]; direct && !thunk {
			continue
		}
		if found >= 0 {
			return -1
		}
		found = i
	}
	return found
}

// jumpTarget reads the pointer that an indirect jump takes. regs are the registers at the
// function's entry, in the terms of the caller.
func (u *Unwinder) jumpTarget(caller *activation, f *flow, l *locations, insn x86.Insn, regs [16]value) (uint64, bool) {
	entry := func(v value) (uint64, bool) { // of a value in the terms of the function's entry
		all := [16]value{0: v}
		k, ok := caller.eval(compose(all, regs)[0])
		return k.v, ok && k.bits == 64
	}
	var place value
	if t, direct := insn.Target(); direct {
		from, ok := f.loads[l.regs[u.thunks()[t]].root]
		if !ok || from.size != 8 || l.regs[u.thunks()[t]].off != 0 {
			return 0, false
		}
		place = from.at
	} else {
		switch arg := insn.Args[0].(type) {
		case x86asm.Mem:
			place = f.address(l, insn, arg)
		case x86asm.Reg:
			bits, r, ok := width(arg)
			from, loaded := f.loads[l.regs[r].root]
			if !ok || bits != 64 || !loaded || from.size != 8 || l.regs[r].off != 0 {
				return 0, false
			}
			place = from.at
		}
	}
	at, ok := entry(place)
	if !ok {
		return 0, false
	}
	return u.textAt(at)
}
