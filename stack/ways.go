package stack

import (
	"fmt"
	"slices"
	"strings"

	"inquest/kernel"
)

// ways finds how direct jumps may have led from one entry to another: the functions
// passed through, the shortest way first. all is set if no other way was left to try; a
// jump through a pointer counts only where no direct one leads there.
func (u *Unwinder) ways(from, to uint64) (ways [][]*code, all bool) {
	seen := map[uint64]jumps{}
	direct := isSyscall(u.k, to)
	all = true
	elsewhere := false
	for open, hops := []uint64{from}, 0; len(open) > 0 && hops < maxHops; hops++ {
		var further []uint64
		for _, at := range open {
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
		open = further
	}
	leads := leadsTo(seen, to)
	for open := [][]uint64{{from}}; len(open) > 0 && leads[from]; open = open[1:] {
		way := open[0]
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
				open = append(open, append(slices.Clone(way), t))
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
