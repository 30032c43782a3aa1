package stack

import (
	"fmt"
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

// ways finds how direct jumps may have led from one entry to another: the functions
// passed through, the shortest way first. all is set if no other way was left to try; a
// jump through a pointer counts only where no direct one leads there.
func (u *Unwinder) ways(from, to uint64) (ways [][]*code, all bool) {
	seen := map[uint64]jumps{}
	direct := isSyscall(u.k, to)
	all = true
	elsewhere := false
	for todo, hops := []uint64{from}, 0; len(todo) > 0 && hops < maxHops; hops++ {
		var further []uint64
		for _, at := range todo {
			if _, been := seen[at]; been || at == to {
				continue
			}
			if len(seen) == maxSeen {
				all = false
				break
			}
			j := u.jumps(at)
			seen[at] = j
			elsewhere = elsewhere || j.elsewhere
			if direct && slices.Contains(j.to, to) {
				further, all = nil, true
				seen = map[uint64]jumps{at: {to: []uint64{to}}}
				break
			}
			further = append(further, j.to...)
		}
		todo = further
	}
	leads := leadsTo(seen, to)
	for todo := [][]uint64{{from}}; len(todo) > 0 && leads[from]; todo = todo[1:] {
		way := todo[0]
		if len(way) > maxHops || len(ways) == maxWays {
			all = false
			continue
		}
		for _, t := range seen[way[len(way)-1]].to {
			if t == to {
				codes, err := u.codesAt(way)
				if err != nil {
					all = false
				} else if jumpAlong(codes, to) {
					ways = append(ways, codes)
				}
			} else if leads[t] && !slices.Contains(way, t) {
				todo = append(todo, append(slices.Clone(way), t))
			}
		}
	}
	if len(ways) == 0 && elsewhere {
		all = all && !u.elsewhere(seen)
	}
	return ways, all
}

// elsewhere reports whether one of some functions jumps to where a pointer says.
func (u *Unwinder) elsewhere(seen map[uint64]jumps) bool {
	const most = 32
	if len(seen) > most {
		return true
	}
	for at, j := range seen {
		if !j.elsewhere {
			continue
		}
		c, err := u.codeAt(kernel.Addr(at))
		if err != nil || c.entry != at {
			return true
		}
		g, err := c.graph()
		if err != nil || g.falls || slices.ContainsFunc(g.nodes, func(n node) bool {
			target, direct := n.Target()
			_, thunk := u.thunks()[target]
			return n.leaves && (!direct || thunk)
		}) {
			return true
		}
	}
	return false
}

// findThunks finds the retpolines, which jump to where a register says. The first
// shares its address with the whole array of them.
func findThunks(k *kernel.Kernel) map[uint64]gpr {
	thunks := map[uint64]gpr{}
	for _, kind := range []string{"", "call_", "jump_", "its_"} {
		for r := range gprRegs {
			if at, err := k.Symbol(fmt.Sprintf("__x86_indirect_%sthunk_%v", kind, gpr(r))); err == nil {
				thunks[uint64(at)] = gpr(r)
			}
		}
	}
	return thunks
}

// jumpAlong reports whether the functions really jump from one to the next.
func jumpAlong(way []*code, to uint64) bool {
	for i, c := range way {
		next := to
		if i+1 < len(way) {
			next = way[i+1].entry
		}
		g, err := c.graph()
		if err != nil || !slices.ContainsFunc(g.nodes, func(n node) bool { t, ok := n.Target(); return ok && n.leaves && t == next }) {
			return false
		}
	}
	return true
}

func (u *Unwinder) codesAt(entries []uint64) ([]*code, error) {
	codes := make([]*code, len(entries))
	for i, at := range entries {
		c, err := u.codeAt(kernel.Addr(at))
		if err != nil {
			return nil, err
		}
		codes[i] = c
	}
	return codes, nil
}

// leadsTo returns which of the functions lead to an entry by jumps among them.
func leadsTo(seen map[uint64]jumps, to uint64) map[uint64]bool {
	leads := map[uint64]bool{}
	for grew := true; grew; {
		grew = false
		for at, j := range seen {
			if !leads[at] && slices.ContainsFunc(j.to, func(t uint64) bool { return t == to || leads[t] }) {
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

// jumps are the functions that one may jump to.
type jumps struct {
	to        []uint64
	elsewhere bool // perhaps it also jumps to where a pointer says, or its code is not known
}

// jumps looks through a function's bytes for jumps to other functions. That may find
// more than there are, never fewer, and costs much less than decoding: a system call's
// dispatcher leads to hundreds of functions.
func (u *Unwinder) jumps(entry uint64) jumps {
	if j, ok := u.jumped.Load(entry); ok {
		return j.(jumps)
	}
	var j jumps
	sym, off, ok := u.k.SymbolAt(kernel.Addr(entry))
	if p, err := readPart(u.k, sym); !ok || off != 0 || err != nil {
		j.elsewhere = true
	} else {
		j.scan(u, sym.Name, p, map[uint64]bool{p.start: true})
	}
	slices.Sort(j.to)
	j.to = slices.Compact(j.to)
	u.jumped.Store(entry, j)
	return j
}

func (j *jumps) scan(u *Unwinder, name string, p part, parts map[uint64]bool) {
	for i := 0; i+2 <= len(p.bytes); i++ {
		b := p.bytes[i:]
		target := p.start + uint64(i)
		switch {
		case b[0] == 0xeb, b[0]&0xf0 == 0x70: // jmp rel8, jcc rel8
			target += 2 + uint64(int64(int8(b[1])))
		case b[0] == 0xe9 && len(b) >= 5: // jmp rel32
			target += 5 + uint64(int64(int32(le.Uint32(b[1:]))))
		case b[0] == 0x0f && b[1]&0xf0 == 0x80 && len(b) >= 6: // jcc rel32
			target += 6 + uint64(int64(int32(le.Uint32(b[2:]))))
		case b[0] == 0xff && b[1]>>3&7 == 4: // jmp *r/m
			j.elsewhere = true
		}
		if target-p.start < uint64(len(p.bytes)) || !u.k.Text(kernel.Addr(target)) {
			continue
		}
		if _, thunk := u.thunks()[target]; thunk {
			j.elsewhere = true
			continue
		}
		sym, off, ok := u.k.SymbolAt(kernel.Addr(target))
		if hot, cold := cutCold(sym.Name); ok && cold && hot == name && !parts[uint64(sym.Addr)] {
			parts[uint64(sym.Addr)] = true
			if q, err := readPart(u.k, sym); err == nil {
				j.scan(u, name, q, parts)
			} else {
				j.elsewhere = true
			}
		} else if ok && off == 0 && sym.IsCode() && !cold {
			j.to = append(j.to, target)
		}
	}
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
