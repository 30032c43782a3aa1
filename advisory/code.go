package advisory

import (
	"fmt"
	"slices"
	"strings"

	"inquest/kernel"
	"inquest/kernel/x86"
)

// State is what a kernel's code says of a bug.
type State int

// The states.
const (
	Undecided State = iota
	Exposed
	Fixed
)

func (s State) String() string { return [...]string{"unknown", "exposed", "fixed"}[s] }

// Verdict is the outcome of a code check.
type Verdict struct {
	State    State
	Function string // that decided it
	Reason   string // in words
}

// Code is a kernel whose code can be read.
type Code interface {
	LookupAll(name string) ([]kernel.Symbol, error)
	SymbolAt(addr kernel.Addr) (kernel.Symbol, uint64, bool)
	Slice(addr kernel.Addr, n int) ([]byte, error)
}

// CheckCode looks at the code that has the bug, as it lies in memory. The first
// signature and the first function that decide it do.
func (a *Advisory) CheckCode(k Code) Verdict {
	for _, sig := range a.Code {
		for _, name := range sig.In {
			syms, err := k.LookupAll(name)
			if err != nil {
				continue
			}
			for _, sym := range syms {
				calls := callees(k, sym)
				switch {
				case sig.Fixed.hold(calls):
					return Verdict{Fixed, name, fmt.Sprintf("%s calls %s, as the fixed code does", name, strings.Join(sig.Fixed.found(calls), ", "))}
				case sig.Exposed.hold(calls):
					return Verdict{Exposed, name, exposedReason(name, sig, calls)}
				}
			}
		}
	}
	return Verdict{}
}

func exposedReason(name string, sig Signature, calls []string) string {
	s := fmt.Sprintf("%s calls %s", name, strings.Join(sig.Exposed.found(calls), ", "))
	if len(sig.Exposed.None) > 0 {
		s += " and never " + strings.Join(sig.Exposed.None, " or ")
	}
	return s + " in this kernel's own code"
}

func (c Calls) hold(calls []string) bool {
	return len(c.found(calls)) > 0 && !slices.ContainsFunc(c.None, func(n string) bool { return slices.Contains(calls, n) })
}

func (c Calls) found(calls []string) []string {
	var found []string
	for _, n := range c.Any {
		if slices.Contains(calls, n) {
			found = append(found, n)
		}
	}
	return found
}

// callees returns the functions that sym's code calls or jumps to directly, each
// once.
func callees(k Code, sym kernel.Symbol) []string {
	const maxFunction = 64 << 10
	code, err := k.Slice(sym.Addr, int(min(sym.Size, maxFunction)))
	if err != nil {
		return nil
	}
	var names []string
	for off := 0; off < len(code); {
		insn, err := x86.Decode(code[off:], uint64(sym.Addr)+uint64(off))
		if err != nil {
			off++ // resynchronise
			continue
		}
		off += insn.Len
		target, ok := insn.Target()
		if !ok || target-uint64(sym.Addr) < uint64(len(code)) {
			continue
		}
		if to, at, ok := k.SymbolAt(kernel.Addr(target)); ok && at == 0 && !slices.Contains(names, to.Name) {
			names = append(names, to.Name)
		}
	}
	return names
}
