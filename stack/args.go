package stack

import (
	"github.com/cilium/ebpf/btf"

	"inquest/kernel"
	"inquest/kernel/x86"
)

// Arg is one parameter of a function on the stack: what it was at the call.
type Arg struct {
	Name  string // of the parameter; that of the register where the prototype is not known
	Type  string // as C writes it; "" when not known
	BTF   btf.Type
	Known bool
	Value uint64 // of Type's size, the rest zero
	From  string // how the value was found, in words
	// Again is set where the value itself is lost, but the memory that it was read
	// from is known: what that holds now, which need not be what it held then.
	Again *Reread

	reg gpr // that it was passed in
}

// TailCall is a function that jumped to the next one instead of calling it.
type TailCall struct {
	Symbol kernel.Symbol
	Args   []Arg
	// OneOf is set where jumps lead from the call to the frame in more ways than one;
	// this is the shortest.
	OneOf bool
}

// known is a concrete value of some low bits, and how it was found.
type known struct {
	v    uint64
	bits uint8
	from origin
}

func mask(v uint64, bits uint8) uint64 {
	if bits >= 64 {
		return v
	}
	return v & (1<<bits - 1)
}

// activation is one frame while its values are being worked out.
type activation struct {
	frame *Frame
	code  *code
	flow  *flow
	cfa   kernel.Addr
	here  *locations // at pc, or behind the call that has not returned
	call  *locations // in front of that call; nil in an interrupted frame
	regs  [16]known  // registers at pc
	entry [16]known  // registers at the entry
	stack [stackArgs]known
	link  *link // to the frame that called it; nil when it is not proven
	roots map[root]known
	bad   map[root]bool // roots on which two witnesses disagree
	wild  bool          // a call to where no code is
	wrong bool          // a known place holds another value than it must: believe nothing
}

// Arguments works out the parameters of every frame of a trace, and the frames that
// tail calls removed. It never guesses: what several witnesses of the code and the
// stack do not agree on stays unknown.
func (u *Unwinder) Arguments(t *Trace) {
	acts := make([]*activation, len(t.Frames))
	for i := range t.Frames {
		acts[i] = u.activate(t, i)
	}
	// Values are learnt from the callee's pushes outwards, and from what the caller
	// loaded inwards; a few rounds carry them along the whole stack.
	for range 3 {
		for i, a := range acts {
			if i > 0 {
				a.inherit(acts[i-1])
			}
			a.solve(u, calleeOf(acts, i))
		}
		for i := len(acts) - 2; i >= 0; i-- {
			u.connect(acts[i], acts[i+1])
			acts[i].fromCaller(acts[i+1])
		}
	}
	t.acts = acts
	for i, a := range acts {
		t.Frames[i].Args = u.parameters(a)
		if a.link != nil {
			t.Frames[i].Tail = u.tails(a.link, acts[i+1])
			u.readAgain(t.Frames[i].Args, a.link.regs, acts[i+1])
		}
	}
}

// calleeOf returns the frame that frame i called, nil when an exception is between.
func calleeOf(acts []*activation, i int) *activation {
	if i == 0 || acts[i].call == nil {
		return nil
	}
	return acts[i-1]
}

// activate prepares frame i: its code, where its stack is, and what its locations
// hold at pc.
func (u *Unwinder) activate(t *Trace, i int) *activation {
	f := &t.Frames[i]
	a := &activation{frame: f}
	for r := range a.regs {
		if v, ok := f.Regs.Get(gprRegs[r]); ok && (f.Exact || isSaved(gpr(r))) {
			a.regs[r] = known{v, 64, origin{kind: originRegister, frame: f, reg: gpr(r)}}
		}
	}
	if i == 0 && !f.Exact {
		for _, r := range savedRegs {
			a.regs[r].from.kind = originSwitched
		}
	}
	if f.Guess || i+1 >= len(t.Frames) || t.Frames[i+1].RegsAt != 0 || t.Frames[i+1].Guess {
		return a // what it returns to is not known
	}
	if f.Exact && !u.k.Text(f.PC) && t.Frames[i+1].SP == f.SP+8 {
		a.entry, a.wild = a.regs, true // a call to where no code is: nothing has changed since
		return a
	}
	pc := f.PC
	if !f.Exact {
		pc--
	}
	c, err := u.codeAt(pc)
	if err != nil {
		return a
	}
	flow, err := c.flow()
	if err != nil {
		return a
	}
	var here, call *locations
	if f.Exact {
		here, err = flow.during(uint64(f.PC))
	} else {
		here, call, _, err = flow.after(uint64(f.PC))
	}
	cfa := t.Frames[i+1].SP
	if err != nil || !agree(here, f, cfa) {
		return a
	}
	a.code, a.flow, a.here, a.call, a.cfa = c, flow, here, call, cfa
	return a
}

// agree checks the analysis against the unwinder: both must put the stack pointer
// at the same place.
func agree(l *locations, f *Frame, cfa kernel.Addr) bool {
	if sp := l.regs[rsp]; sp.root.kind == rootCFA {
		return cfa+kernel.Addr(sp.off) == f.SP
	}
	bp, ok := f.Regs.Get(x86.RBP)
	v := l.regs[rbp]
	return ok && v.root.kind == rootCFA && uint64(cfa)+uint64(v.off) == bp
}

// inherit takes the registers that the callee preserved.
func (a *activation) inherit(callee *activation) {
	if a.frame.RegsAt != 0 || a.call == nil {
		return
	}
	for _, r := range savedRegs {
		switch k := callee.entry[r]; {
		case k.bits < 64:
		case a.regs[r].bits == 0 || a.regs[r].v == k.v:
			a.regs[r] = k
		default: // the unwinder found another
			a.regs[r] = known{}
		}
	}
}

// solve turns everything concrete that is known of the frame into values of roots,
// and those of the entry registers among them into what the function was given.
func (a *activation) solve(u *Unwinder, callee *activation) {
	if a.here == nil {
		return
	}
	a.roots, a.bad = map[root]known{}, map[root]bool{}
	a.learn(onStack(0), known{uint64(a.cfa), 64, origin{kind: originFrame, name: a.code.name}})
	a.learn(constant(0), known{0, 64, origin{kind: originConstant}})
	for r := range a.regs {
		a.learn(a.here.regs[r], a.regs[r])
	}
	for _, s := range a.here.slots {
		if sp := a.here.regs[rsp]; sp.root.kind == rootCFA && s.off < sp.off+callee.incoming() {
			continue // outgoing arguments belong to the callee
		}
		at := a.cfa + kernel.Addr(s.off)
		if v, err := u.k.U64(at); err == nil {
			a.learn(s.val, known{mask(v, uint8(8*s.size)), uint8(8 * s.size), a.slotOrigin(s, at)})
		}
	}
	if callee != nil && callee.link != nil {
		for _, r := range argRegs {
			k := callee.entry[r]
			if k.bits > 0 {
				of := k.from
				k.from = origin{kind: originPassed, name: callee.frame.Symbol.Name, of: &of}
				a.learn(callee.link.regs[r], k)
			}
		}
	}
	if a.wrong {
		a.here, a.entry, a.stack = nil, [16]known{}, [stackArgs]known{}
		return
	}
	for r := range a.entry {
		if k, ok := a.eval(entryValue(gpr(r))); ok && a.entry[r].bits < k.bits {
			a.entry[r] = k
		}
	}
	for i := range a.stack {
		if k, ok := a.roots[root{kind: rootStack, addr: uint64(i)}]; ok {
			a.stack[i] = k
		}
	}
}

func (a *activation) slotOrigin(s slot, at kernel.Addr) origin {
	switch {
	case s.saved:
		return origin{kind: originSaved, reg: gpr(s.val.root.addr), name: a.code.name, at: at}
	case s.off >= 0:
		return origin{kind: originStack, at: at}
	}
	return origin{kind: originSpilled, name: a.code.name, at: at}
}

// incoming returns how many bytes of arguments on the caller's stack a function, or one
// that jumped to it, may have changed.
func (a *activation) incoming() int64 {
	if a == nil || a.flow == nil {
		return 0
	}
	n := a.flow.mayChange()
	if a.link != nil {
		for _, h := range a.link.tails {
			if f, err := h.code.flow(); err == nil {
				n = max(n, f.mayChange())
			}
		}
	}
	return n
}

// learn notes that a symbolic value has a concrete one.
func (a *activation) learn(v value, k known) {
	if v.root.kind == rootNone || k.bits == 0 || a.bad[v.root] {
		return
	}
	bits := min(v.bits, k.bits)
	fact := known{mask(k.v-uint64(v.off), bits), bits, k.from}
	have, ok := a.roots[v.root]
	if v.root.kind == rootConst || v.root.kind == rootCFA {
		if !ok {
			a.roots[v.root] = fact
		}
		a.wrong = a.wrong || ok && mask(have.v, bits) != fact.v
		return
	}
	fact.from.off += v.off
	if ok && mask(have.v, min(have.bits, bits)) != mask(fact.v, min(have.bits, bits)) {
		delete(a.roots, v.root)
		a.bad[v.root] = true
		return
	}
	if !ok || have.bits < bits {
		a.roots[v.root] = fact
	}
}

// eval returns the concrete value of a symbolic one.
func (a *activation) eval(v value) (known, bool) {
	k, ok := a.roots[v.root]
	if !ok {
		k = a.given(v.root)
	}
	if k.bits == 0 || v.root.kind == rootNone {
		return known{}, false
	}
	bits := min(k.bits, v.bits)
	out := known{mask(k.v+uint64(v.off), bits), bits, k.from}
	if v.bits < 64 && k.bits >= v.bits {
		// The rest of the register is known too: zero, or copies of the sign.
		if v.signed && out.v>>(v.bits-1)&1 == 1 {
			out.v |= ^uint64(0) << v.bits
		}
		out.bits = 64
	}
	return out, true
}

// given returns what the caller is known to have passed in a register or a word of the
// stack that the function's own frame says nothing of.
func (a *activation) given(r root) known {
	switch {
	case a.bad[r]:
	case r.kind == rootEntry && r.addr < uint64(len(a.entry)):
		return a.entry[r.addr]
	case r.kind == rootStack && r.addr < uint64(len(a.stack)):
		return a.stack[r.addr]
	}
	return known{}
}

// fromCaller fills in what the caller knows of the arguments it loaded.
func (a *activation) fromCaller(caller *activation) {
	if a.link == nil || caller.here == nil {
		return
	}
	for _, r := range argRegs {
		if k, ok := caller.eval(a.link.regs[r]); ok && k.bits > a.entry[r].bits {
			a.entry[r] = caller.sets(k, a.frame.Symbol.Name)
			if setter := a.link.setter(r); setter != "" {
				a.entry[r].from = origin{kind: originSet, name: setter, of: &k.from}
			}
		}
	}
}

// sets says of a value that the frame set it for a function that it called.
func (a *activation) sets(k known, callee string) known {
	of := k.from
	if of.kind == originPassed && of.name == callee {
		of = origin{kind: originEqual, of: of.of, off: of.off}
	}
	if k.bits == 64 && kernel.Addr(k.v) >= a.frame.SP && kernel.Addr(k.v) < a.cfa {
		of = origin{kind: originFrame, name: a.code.name}
	}
	k.from = origin{kind: originSet, name: a.code.name, of: &of}
	return k
}
