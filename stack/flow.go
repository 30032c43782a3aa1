package stack

import (
	"errors"
	"fmt"
	"slices"

	"golang.org/x/arch/x86/x86asm"

	"inquest/kernel/x86"
)

// errFlow reports code whose data flow cannot be followed.
var errFlow = errors.New("the code cannot be followed")

// flow follows where values go in one function: an abstract interpretation over the
// control flow graph from the entry. A location holds a value if it does so on every
// path. What cannot be followed becomes a value of its own, equal to nothing else,
// so that a wrong answer would need a wrong reading of an instruction.
type flow struct {
	code    *code
	insns   map[uint64]x86.Insn
	leaders map[uint64]bool // where paths meet
	falls   bool            // the end of the function can be reached
	in      map[uint64]*locations
	loads   map[root]load // where values read from memory came from
	escapes escapes
	// incoming is how far up the function writes to the words of its caller's stack,
	// which are its to change where they are arguments.
	incoming int64
}

// escapes says of what parts of the stack somebody else may have the address.
// Registers that were saved there are nobody's variable.
type escapes struct{ locals, args bool }

// load is a read of memory: size bytes at a value.
type load struct {
	at   value
	size int
}

const maxInsns = 20_000

// follow analyses a function.
func follow(c *code) (*flow, error) {
	f, err := c.graph()
	if err != nil {
		return nil, err
	}
	f = &flow{code: c, insns: f.insns, leaders: f.leaders}
	// That an address was taken changes what calls may overwrite from the beginning on.
	for {
		before := f.escapes
		f.in, f.loads = map[uint64]*locations{}, map[root]load{}
		if err := f.settle(); err != nil {
			return nil, err
		}
		if f.escapes == before {
			return f, nil
		}
	}
}

// discover decodes every instruction that can be reached.
func discover(c *code) (*flow, error) {
	f := &flow{code: c, insns: map[uint64]x86.Insn{}, leaders: map[uint64]bool{c.entry: true}}
	return f, f.discover()
}

// mayChange returns how many bytes of its caller's stack a function may have changed.
func (f *flow) mayChange() int64 {
	if f.escapes.args {
		return 8 * stackArgs
	}
	return f.incoming
}

func (f *flow) discover() error {
	todo := []uint64{f.code.entry}
	for len(todo) > 0 {
		at := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		for {
			if _, been := f.insns[at]; been {
				f.leaders[at] = true
				break
			}
			insn, err := f.code.decode(at)
			if err != nil {
				return fmt.Errorf("%w: %w", errFlow, err)
			}
			if len(f.insns) >= maxInsns {
				return fmt.Errorf("more than %d instructions: %w", maxInsns, errFlow)
			}
			f.insns[at] = insn
			if target, ok := insn.Target(); ok && insn.Op != x86asm.CALL && f.code.within(target) == nil {
				if err := f.code.addCold(target); err != nil {
					return err
				}
			}
			next, targets, err := f.code.successors(insn)
			if err != nil {
				return err
			}
			if fix, ok := f.code.fixups[at]; ok {
				targets = append(targets, fix.to)
			}
			for _, t := range targets {
				f.leaders[t] = true
				if _, been := f.insns[t]; !been {
					todo = append(todo, t)
				}
			}
			if !next {
				break
			}
			if at += uint64(insn.Len); f.code.within(at) == nil {
				f.falls = true // behind a call that never returns, or into the next function
				break
			}
		}
	}
	return nil
}

// settle runs the blocks until nothing changes.
func (f *flow) settle() error {
	f.in[f.code.entry] = entryLocations()
	todo := []uint64{f.code.entry}
	for budget := 64 * (len(f.leaders) + 16); len(todo) > 0; budget-- {
		if budget == 0 {
			return fmt.Errorf("no fixed point: %w", errFlow)
		}
		at := todo[0]
		todo = todo[1:]
		flowInto := func(to uint64, l *locations) {
			if f.merge(to, l) && !slices.Contains(todo, to) {
				todo = append(todo, to)
			}
		}
		l := f.in[at].clone()
		for {
			insn, ok := f.insns[at]
			if !ok {
				break
			}
			if fix, ok := f.code.fixups[at]; ok {
				faulted := l.clone()
				for _, r := range fix.regs {
					f.set(faulted, r, f.def(faulted, insn, fixupLoc+int64(r)))
				}
				flowInto(fix.to, faulted)
			}
			f.run(l, insn)
			if sp := l.regs[rsp]; sp.root.kind == rootCFA && sp != onStack(-8) && f.code.leaves(insn) {
				return fmt.Errorf("jump at %#x out of the function with its frame: %w", at, errFlow)
			}
			next, targets, err := f.code.successors(insn)
			if err != nil {
				return err
			}
			for _, t := range targets {
				flowInto(t, l)
			}
			if !next {
				break
			}
			if at += uint64(insn.Len); f.leaders[at] {
				flowInto(at, l)
				break
			}
		}
	}
	return nil
}

// merge joins what is known on one more way into a leader; it reports a change.
func (f *flow) merge(to uint64, l *locations) bool {
	have := f.in[to]
	if have == nil {
		n := l.clone()
		for i := range n.regs {
			n.regs[i] = own(to, int64(i), n.regs[i])
		}
		for i := range n.slots {
			n.slots[i].val = own(to, slotLoc(n.slots[i].off), n.slots[i].val)
		}
		f.in[to] = n
		return true
	}
	changed := false
	join := func(loc int64, a *value, b value) {
		if b = own(to, loc, b); *a != b {
			if phi := phiValue(to, loc); *a != phi {
				*a, changed = phi, true
			}
		}
	}
	for i := range have.regs {
		join(int64(i), &have.regs[i], l.regs[i])
	}
	kept := have.slots[:0]
	for _, s := range have.slots {
		if o, ok := l.slot(s.off); ok && o.size == s.size {
			join(slotLoc(s.off), &s.val, o.val)
			s.saved = s.saved && o.saved
			kept = append(kept, s)
		} else {
			changed = true
		}
	}
	have.slots = kept
	return changed
}

// own keeps a phi of this very place apart from those of other places that an
// earlier turn of a loop left in the location: they were of that turn.
func own(at uint64, loc int64, v value) value {
	if v.root.kind == rootPhi && v.root.addr == at && v != phiValue(at, loc) {
		return phiValue(at, loc)
	}
	return v
}

// at returns what is known right before the instruction at pc.
func (f *flow) at(pc uint64) (*locations, error) {
	// The leader that the instruction's block begins with.
	for leader := range f.in {
		at := leader
		for first := true; first || !f.leaders[at]; first = false {
			if at == pc {
				l := f.in[leader].clone()
				for a := leader; a != pc; {
					insn := f.insns[a]
					f.run(l, insn)
					a += uint64(insn.Len)
				}
				return l, nil
			}
			insn, ok := f.insns[at]
			if !ok {
				break
			}
			if next, _, err := f.code.successors(insn); err != nil || !next {
				break
			}
			at += uint64(insn.Len)
		}
	}
	return nil, fmt.Errorf("no path to %#x: %w", pc, errFlow)
}

// during is at for where an exception struck. A repeated string instruction counts its
// registers along, so that what they hold is somewhere in between.
func (f *flow) during(pc uint64) (*locations, error) {
	l, err := f.at(pc)
	if insn := f.insns[pc]; err == nil && repeats(insn) {
		for _, r := range implicit[insn.Op] {
			f.set(l, r, f.def(l, insn, int64(r)))
		}
	}
	return l, err
}

// callBefore returns the call instruction that returns to pc.
func (f *flow) callBefore(pc uint64) (x86.Insn, bool) {
	for n := uint64(2); n <= 8; n++ {
		if insn, ok := f.insns[pc-n]; ok && uint64(insn.Len) == n && insn.Op == x86asm.CALL {
			return insn, true
		}
	}
	return x86.Insn{}, false
}
