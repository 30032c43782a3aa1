package explain

import (
	"fmt"
	"slices"

	"github.com/cilium/ebpf/btf"
	"golang.org/x/arch/x86/x86asm"

	"inquest/kernel"
	"inquest/kernel/x86"
)

// lead is a bad pointer that the trapped code used, and the memory it had it from.
type lead struct {
	at    kernel.Addr // of the pointer
	value uint64
	bad   badness
	frame int    // of the function that used it
	param string // the parameter by which that function came to it: "s"
	expr  string // in C: "s->ops"; "" when not known
	// sure is set where the code says that it read the pointer there. Else the same
	// value lies there, in a struct that the function was given.
	sure   bool
	others int // members of the struct that hold the same, if not sure
}

// leads finds where the bad pointers of the crash had been read from.
func (c *Case) leads() []lead {
	cr := c.Crash
	if cr == nil || cr.Fault == nil || cr.Trace == nil || !c.trapped() {
		return nil
	}
	cr.leadsOnce.Do(func() {
		c.arguments(nil)
		if target, ok := c.badTarget(); ok {
			cr.leads = c.called(target)
			return
		}
		cr.leads = c.readLeads()
	})
	return cr.leads
}

// readLeads follows the registers of the trapped instruction's address.
func (c *Case) readLeads() []lead {
	site := c.Crash.Fault
	if !site.Known {
		return nil
	}
	var all []lead
	for _, a := range site.Insn.Accesses() {
		addr, ok := a.Address(&site.Regs)
		if !ok {
			continue
		}
		if _, isBad := c.judge(addr, a.Write && !a.Read, false); !isBad && !c.logSays(addr) {
			continue
		}
		for _, r := range a.Registers() {
			v, ok := site.Regs.Get(r)
			if !ok {
				continue
			}
			src, ok := c.Unwinder.Source(c.Crash.Trace, site.Frame, r)
			switch {
			case ok && src.Addr != 0 && src.Size == 8:
				value := v - uint64(src.Plus)
				if bad, isBad := c.judge(value, false, false); isBad {
					param, _ := cutExpr(src.Expr)
					all = append(all, lead{at: src.Addr, value: value, bad: bad, frame: site.Frame, param: param, expr: src.Expr, sure: true})
				}
			case ok && src.Param != "":
				all = append(all, c.holding(v-uint64(src.Plus), 0)...)
			case !ok:
				all = append(all, c.holding(v, r)...)
			}
		}
	}
	return all
}

// badTarget is where a bad call, jump or return of the crash was to go.
func (c *Case) badTarget() (uint64, bool) {
	site := c.Crash.Fault
	if bad, ok := c.judge(uint64(site.PC), false, true); ok && bad.sure {
		return uint64(site.PC), true
	}
	if !site.Known {
		return 0, false
	}
	var target uint64
	switch site.Insn.Op {
	case x86asm.CALL, x86asm.JMP:
		r, ok := site.Insn.Args[0].(x86asm.Reg)
		if !ok {
			return 0, false
		}
		reg, _, ok := x86.General(r)
		if !ok {
			return 0, false
		}
		if target, ok = site.Regs.Get(reg); !ok {
			return 0, false
		}
	case x86asm.RET:
		v, err := c.Kernel.U64(kernel.Addr(site.Regs.SP()))
		if err != nil {
			return 0, false
		}
		target = v
	default:
		return 0, false
	}
	bad, ok := c.judge(target, false, true)
	return target, ok && bad.sure
}

// holding finds a bad pointer in the structs that the innermost functions were given:
// a member that holds just this value. Of several in one struct, the one stands for all
// whose offset the code read the register from, or else the first. NULL and small
// numbers prove nothing so, unless they lie at just that offset.
func (c *Case) holding(value uint64, in x86.Reg) []lead {
	bad, isBad := c.judge(value, false, false)
	if !isBad {
		return nil
	}
	weak := bad.class == NullDereference || value > ^uint64(0)-nullZone
	offset, loaded := c.loadOffset(c.Crash.Fault.Frame, in)
	return c.search(value, bad, func(m pointerMember) (eligible, best bool) {
		best = loaded && m.offset == offset
		return best || !weak, best
	})
}

// called finds the pointer to a function that a bad call went through.
func (c *Case) called(target uint64) []lead {
	bad, isBad := c.judge(target, false, true)
	if !isBad {
		return nil
	}
	weak := bad.class == NullDereference
	site := c.Crash.Fault
	var offset uint64
	loaded := false
	for _, r := range gprs {
		if v, ok := site.Regs.Get(r); ok && v == target && !loaded {
			offset, loaded = c.loadOffset(site.Frame+1, r)
		}
	}
	return c.search(target, bad, func(m pointerMember) (eligible, best bool) {
		_, function := m.target.(*btf.FuncProto)
		best = loaded && m.offset == offset
		return function && (best || !weak), best
	})
}

// search looks for a value in the pointers of the structs that functions near the
// trap were given.
func (c *Case) search(value uint64, bad badness, pick func(pointerMember) (eligible, best bool)) []lead {
	const near = 4 // frames that a pointer is passed through before it is used
	var all []lead
	for _, p := range c.promises() {
		pass := p.passings[0]
		if pass.frame > c.Crash.Fault.Frame+near {
			continue
		}
		found, others := lead{}, -1
		for _, m := range pointerMembers(p.typ) {
			eligible, best := pick(m)
			at := p.ptr + kernel.Addr(m.offset)
			if v, err := c.Kernel.U64(at); !eligible || err != nil || v != value {
				continue
			}
			if others++; others == 0 || best {
				found = lead{at: at, value: value, bad: bad, frame: pass.frame, param: pass.param, expr: pass.param + "->" + m.path}
			}
		}
		found.others = others
		if others >= 0 && !slices.ContainsFunc(all, func(l lead) bool { return l.at == found.at }) {
			all = append(all, found)
		}
	}
	return all
}

// loadOffset is the offset that the code of a frame last read a register from, in
// the order of addresses: a hint, since the code may have come another way.
func (c *Case) loadOffset(frame int, r x86.Reg) (offset uint64, ok bool) {
	const longest = 64 << 10
	if frame >= len(c.Crash.Trace.Frames) {
		return 0, false
	}
	f := &c.Crash.Trace.Frames[frame]
	if r == 0 || f.Symbol.Name == "" || f.Offset == 0 || f.Offset > longest {
		return 0, false
	}
	code, err := c.Kernel.Slice(f.PC-kernel.Addr(f.Offset), int(f.Offset))
	if err != nil {
		return 0, false
	}
	for at := 0; at < len(code); {
		insn, err := x86.Decode(code[at:], uint64(f.PC)-f.Offset+uint64(at))
		if err != nil || insn.Len <= 0 {
			return 0, false
		}
		at += insn.Len
		to, isReg := insn.Args[0].(x86asm.Reg)
		if !insn.Known() || !isReg {
			continue
		}
		if reg, _, known := x86.General(to); !known || reg != r {
			continue
		}
		from, isMem := insn.Args[1].(x86asm.Mem)
		ok = insn.Op == x86asm.MOV && isMem && from.Disp >= 0
		offset = uint64(from.Disp)
	}
	return offset, ok
}

// use says in words what the code did with the member that held the pointer.
func (l *lead) use() string {
	if l.bad.class == NullDereference {
		return fmt.Sprintf("it holds %#x, which the code used as a pointer", l.value)
	}
	text := fmt.Sprintf("the code used %#x as a pointer", l.value)
	if l.sure {
		return text + ", which it had read there"
	}
	text += ", which lies there"
	if l.others > 0 {
		text += fmt.Sprintf(" and in %d more of the struct's pointers", l.others)
	}
	return text
}

// cutExpr splits "s->ops" after its first name.
func cutExpr(expr string) (param, rest string) {
	for i := 0; i+1 < len(expr); i++ {
		if expr[i:i+2] == "->" {
			return expr[:i], expr[i+2:]
		}
	}
	return "", expr
}

// blames reports whether a lead speaks of a promise: the pointer was read by way of
// it. Where the code does not say by way of what, a struct that lies properly in its
// object explains the read, and none that does not is blamed.
func (c *Case) blames(l lead, p *promise, all []promise) bool {
	if !p.covers(l.at) {
		return false
	}
	if l.param != "" {
		named := false
		for i := range all {
			q := &all[i]
			if !q.covers(l.at) || !slices.ContainsFunc(q.passings, func(s passing) bool { return s.frame == l.frame && s.param == l.param }) {
				continue
			}
			if q.ptr == p.ptr && q.typ.Name == p.typ.Name || p.leadsTo(q) {
				return true
			}
			named = true
		}
		if named {
			return false
		}
	}
	return !c.explained(l.at, p, all)
}

// explained reports whether another promise than p reaches an address in a proper way:
// pointer and address lie in one object, which the promised struct fits into.
func (c *Case) explained(at kernel.Addr, p *promise, all []promise) bool {
	for _, q := range all {
		if q.ptr == p.ptr && q.typ.Name == p.typ.Name || !q.covers(at) {
			continue
		}
		mem, err := c.heap().Identify(q.ptr)
		if err != nil || mem.Slab == nil || mem.Slab.Start == 0 || mem.Slab.Offset > mem.Slab.Size {
			continue
		}
		if o := mem.Slab; o.Offset+uint64(q.typ.Size) <= o.Size && at < o.Start+kernel.Addr(o.Size) {
			return true
		}
	}
	return false
}

// leadsTo reports whether a pointer to a member of the promised struct is what another
// promise, further in, is about.
func (p *promise) leadsTo(q *promise) bool {
	return q.ptr > p.ptr && p.covers(q.ptr) && q.outermost().frame <= p.outermost().frame && contains(p.typ, uint64(q.ptr-p.ptr), q.typ)
}

// covers reports whether an address lies in the promised struct.
func (p *promise) covers(at kernel.Addr) bool {
	return at >= p.ptr && uint64(at-p.ptr) < uint64(p.typ.Size)
}
