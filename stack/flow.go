package stack

import (
	"errors"
	"fmt"

	"inquest/kernel/x86"
)

// errFlow reports code whose data flow cannot be followed.
var errFlow = errors.New("the code cannot be followed")

// flow follows where values go in one function: an abstract interpretation over the
// control flow graph from the entry. A location holds a value if it does so on every
// path. What cannot be followed becomes a value of its own, equal to nothing else,
// so that a wrong answer would need a wrong reading of an instruction.
type flow struct {
	*graph
	in      []*locations  // of the leaders
	loads   map[root]load // where values read from memory came from
	escapes escapes
	// incoming is how far up the function writes to the words of its caller's stack,
	// which are its to change where they are arguments.
	incoming int64
	kept     int // how much is in in
}

const (
	maxKept = 1 << 18 // of 64 bytes
	maxRuns = 64      // of each instruction, on average
)

// escapes says of what parts of the stack somebody else may have the address.
// Registers that were saved there are nobody's variable.
type escapes struct{ locals, args bool }

// load is a read of memory: size bytes at a value.
type load struct {
	at   value
	size int
}

// follow analyses a function.
func follow(c *code) (*flow, error) {
	g, err := c.graph()
	if err != nil {
		return nil, err
	}
	f := &flow{graph: g}
	// That an address was taken changes what calls may overwrite from the beginning on.
	for {
		before := f.escapes
		f.in, f.loads, f.kept = make([]*locations, len(g.nodes)), map[root]load{}, 0
		if err := f.settle(); err != nil {
			return nil, err
		}
		if f.escapes == before {
			return f, nil
		}
	}
}

// mayChange returns how many bytes of its caller's stack a function may have changed.
func (f *flow) mayChange() int64 {
	if f.escapes.args {
		return 8 * stackArgs
	}
	return f.incoming
}

// settle runs the blocks until nothing changes.
func (f *flow) settle() error {
	f.in[0] = entryLocations()
	work := []int32{0}
	waiting := make([]bool, len(f.nodes))
	into := func(to int32, l *locations) {
		if f.merge(to, l) && !waiting[to] {
			work, waiting[to] = append(work, to), true
		}
	}
	for budget := maxRuns * (len(f.nodes) + 16); len(work) > 0; {
		i := work[0]
		work, waiting[i] = work[1:], false
		l := f.in[i].clone()
		for {
			if budget--; budget < 0 || f.kept > maxKept {
				return fmt.Errorf("no fixed point: %w", errFlow)
			}
			n := &f.nodes[i]
			if n.fault != none {
				into(n.fault, f.faulted(l, n.Insn))
			}
			f.run(l, n.Insn)
			if sp := l.regs[rsp]; n.leaves && sp.root.kind == rootCFA && sp != onStack(-8) {
				return fmt.Errorf("jump at %#x out of the function with its frame: %w", n.Addr, errFlow)
			}
			for _, t := range n.targets {
				into(t, l)
			}
			if i = n.next; i == none {
				break
			}
			if f.nodes[i].leads {
				into(i, l)
				break
			}
		}
	}
	return nil
}

// faulted is what is known where the kernel goes on after a fault of an instruction.
func (f *flow) faulted(l *locations, insn x86.Insn) *locations {
	l = l.clone()
	for _, r := range f.code.fixups[insn.Addr].regs {
		f.set(l, r, f.def(l, insn, fixupLoc+int64(r)))
	}
	return l
}

// merge joins what is known on one more way into a leader; it reports a change.
func (f *flow) merge(leader int32, l *locations) bool {
	have, to := f.in[leader], f.nodes[leader].Addr
	if have == nil {
		n := l.clone()
		for i := range n.regs {
			n.regs[i] = own(to, int64(i), n.regs[i])
		}
		for i := range n.slots {
			n.slots[i].val = own(to, slotLoc(n.slots[i].off), n.slots[i].val)
		}
		f.in[leader] = n
		f.kept += len(n.regs) + len(n.slots)
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
	i := f.find(pc)
	if i == none || f.in[f.nodes[i].block] == nil {
		return nil, fmt.Errorf("no path to %#x: %w", pc, errFlow)
	}
	at := f.nodes[i].block
	l := f.in[at].clone()
	for ; at != i; at = f.nodes[at].next {
		f.run(l, f.nodes[at].Insn)
	}
	return l, nil
}

// during is at for where an exception struck. A repeated string instruction counts its
// registers along, so that what they hold is somewhere in between.
func (f *flow) during(pc uint64) (*locations, error) {
	l, err := f.at(pc)
	if err != nil {
		return nil, err
	}
	if insn := f.nodes[f.find(pc)].Insn; repeats(insn) {
		for _, r := range implicit[insn.Op] {
			f.set(l, r, f.def(l, insn, int64(r)))
		}
	}
	return l, nil
}
