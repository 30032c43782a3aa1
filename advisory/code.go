package advisory

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"inquest/kernel"
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

// Code is a kernel whose code can be read: a dump's, a running one's or a file's.
type Code interface {
	LookupAll(name string) ([]kernel.Symbol, error)
	SymbolAt(addr kernel.Addr) (kernel.Symbol, uint64, bool)
	Slice(addr kernel.Addr, n int) ([]byte, error)
}

// Signature tells exposed code from fixed code.
type Signature struct {
	// In are functions to look into: the one that has the bug, and those that the
	// compiler may have inlined it into.
	In      []string `yaml:"in" json:"in"`
	Modules []string `yaml:"module" json:"module,omitempty"` // where they may be, when the kernel itself has none of them
	Exposed Look     `yaml:"exposed" json:"exposed"`
	Fixed   Look     `yaml:"fixed" json:"fixed"`
}

// Look is what a function looks like: all that is said here holds of it. Without a
// word it holds of none.
type Look struct {
	Any      []string `yaml:"calls" json:"calls,omitempty"`       // it calls, or jumps to, at least one of these
	None     []string `yaml:"not" json:"not,omitempty"`           // and none of these
	Compares []int64  `yaml:"compares" json:"compares,omitempty"` // it compares something with at least one of these numbers
	Uses     []string `yaml:"uses" json:"uses,omitempty"`         // it has at least one of these instructions
	Defines  []string `yaml:"defines" json:"defines,omitempty"`   // the kernel has at least one of these symbols
	Lacks    []string `yaml:"lacks" json:"lacks,omitempty"`       // the kernel has none of these symbols
}

func (l Look) empty() bool {
	return len(l.Any)+len(l.None)+len(l.Compares)+len(l.Uses)+len(l.Defines)+len(l.Lacks) == 0
}

// CheckCode looks at the code that has the bug, as it lies in memory. The first
// signature and the first function that decide it do: it is fixed when it looks fixed,
// and exposed when it looks exposed, does not look fixed, and was understood to its
// last instruction. A function that looks like neither decides nothing.
func (a *Advisory) CheckCode(k Code) Verdict {
	for _, sig := range a.Code {
		for _, name := range sig.In {
			for _, sym := range lookup(k, name) {
				f := read(k, sym)
				switch {
				case sig.Fixed.holds(k, f):
					return Verdict{Fixed, name, name + " " + sig.Fixed.words(f) + ", as the fixed code does"}
				case f.whole && sig.Exposed.holds(k, f):
					return Verdict{Exposed, name, exposedReason(name, sig, f)}
				}
			}
		}
	}
	return Verdict{}
}

// exposedReason says what of the bug is there, and what of the fix is not.
func exposedReason(name string, sig Signature, f *function) string {
	missing := sig.Fixed
	missing.None = sig.Exposed.None
	for _, c := range sig.Fixed.Any {
		if !slices.Contains(f.calls, c) && !slices.Contains(missing.None, c) {
			missing.None = append(slices.Clip(missing.None), c)
		}
	}
	look := sig.Exposed
	look.None = missing.None
	s := name + " " + look.words(f)
	if len(missing.Compares) > 0 {
		s += " and compares nothing with " + numbers(missing.Compares)
	}
	if len(missing.Uses) > 0 {
		s += " and has no " + strings.Join(missing.Uses, " or ")
	}
	return s + " in this kernel's own code"
}

func (l Look) holds(k Code, f *function) bool {
	has := func(name string) bool { return len(lookup(k, name)) > 0 }
	switch {
	case l.empty(),
		len(l.Any) > 0 && len(common(l.Any, f.calls)) == 0,
		len(common(l.None, f.calls)) > 0,
		len(l.Compares) > 0 && len(common(l.Compares, f.compares)) == 0,
		len(l.Uses) > 0 && len(f.has(l.Uses)) == 0,
		len(l.Defines) > 0 && !slices.ContainsFunc(l.Defines, has),
		slices.ContainsFunc(l.Lacks, has):
		return false
	}
	// What is not there can only be said of a function that was read whole.
	return len(l.None) == 0 || f.whole
}

// words says what of the look was found in the function, and what was not.
func (l Look) words(f *function) string {
	var all []string
	if found := common(l.Any, f.calls); len(found) > 0 {
		all = append(all, "calls "+strings.Join(found, ", "))
	}
	if len(l.None) > 0 {
		never := "never "
		if len(all) == 0 {
			never = "never calls "
		}
		all = append(all, never+strings.Join(l.None, " or "))
	}
	if found := common(l.Compares, f.compares); len(found) > 0 {
		all = append(all, "compares something with "+numbers(found))
	}
	if found := f.has(l.Uses); len(found) > 0 {
		all = append(all, "has "+strings.Join(found, ", "))
	}
	text := strings.Join(all, " and ")
	lacks := slices.DeleteFunc(slices.Clone(l.Lacks), func(n string) bool { return slices.Contains(l.None, n) })
	if len(lacks) > 0 {
		text = strings.TrimSpace(text + " in a kernel without " + strings.Join(lacks, " or "))
	}
	return text
}

func numbers(all []int64) string {
	var words []string
	for _, n := range all {
		words = append(words, strconv.FormatInt(n, 10))
	}
	return strings.Join(words, " or ")
}

// common returns what is wanted and found, in the order of wanted.
func common[T comparable](wanted, found []T) []T {
	var both []T
	for _, w := range wanted {
		if slices.Contains(found, w) {
			both = append(both, w)
		}
	}
	return both
}

// variants are what gcc appends to the name of a function that it has changed so that
// others cannot call it as it was written.
var variants = []string{"", ".isra.0", ".constprop.0", ".part.0", ".isra.0.constprop.0"}

// lookup returns the symbols of a function, under whatever name the compiler gave it.
func lookup(k Code, name string) []kernel.Symbol {
	var all []kernel.Symbol
	for _, v := range variants {
		if syms, err := k.LookupAll(name + v); err == nil {
			all = append(all, syms...)
		}
	}
	return all
}

// String describes the look as it is written in a file.
func (l Look) String() string {
	var all []string
	add := func(key string, values []string) {
		if len(values) > 0 {
			all = append(all, fmt.Sprintf("%s %s", key, strings.Join(values, ", ")))
		}
	}
	add("calls", l.Any)
	add("calls not", l.None)
	if len(l.Compares) > 0 {
		add("compares with", []string{numbers(l.Compares)})
	}
	add("uses", l.Uses)
	add("kernel defines", l.Defines)
	add("kernel lacks", l.Lacks)
	return strings.Join(all, "; ")
}
