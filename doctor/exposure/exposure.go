package exposure

import (
	"fmt"

	"inquest/advisory"
	"inquest/kernel"
)

// Sure is what an answer rests on.
type Sure int

// From a guess to what cannot be wrong.
const (
	Nothing Sure = iota // it is not known
	Version             // what the kernel calls itself: distributions backport, so this is a guess
	File                // the code in the file that the kernel was booted from
	Code                // the code in the kernel's memory, or of the file that was asked about
)

func (s Sure) String() string { return [...]string{"unknown", "version", "file", "code"}[s] }

// MarshalText writes the word.
func (s Sure) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// Answer is what is known of one bug in one kernel.
type Answer struct {
	advisory.Verdict
	Sure   Sure
	Source string // what was read: a file, or "the version 5.10.104"
}

// Words says it in a sentence that can stand alone.
func (a Answer) Words() string {
	switch a.Sure {
	case Nothing:
		return a.Reason
	case Version:
		return a.Reason + " (a guess by the version: distributions backport)"
	}
	return fmt.Sprintf("%s (%s)", a.Reason, a.Source)
}

// Kernel is a kernel that can be asked about bugs. What costs is done when it is first
// needed.
type Kernel struct {
	ID      ID
	sources []*source         // the surest first
	answers map[string]Answer // by the advisory's id
}

// source is one way to the kernel's code.
type source struct {
	sure Sure
	open func() (code advisory.Code, name string, err error)
	add  func(module string) // adds a module's code; nil where there is all that there can be

	tried   bool
	name    string // of the file
	code    advisory.Code
	err     error
	modules map[string]bool // that were added
}

// get opens the source, once, with the modules.
func (s *source) get(modules []string) (advisory.Code, error) {
	if !s.tried {
		s.tried, s.modules = true, make(map[string]bool)
		s.code, s.name, s.err = s.open()
	}
	if s.err == nil && s.add != nil {
		for _, m := range modules {
			if !s.modules[m] {
				s.modules[m] = true
				s.add(m)
			}
		}
	}
	return s.code, s.err
}

// Of asks a kernel that is open already, a dump's. name is the file's.
func Of(code advisory.Code, id ID, name string) *Kernel {
	open := func() (advisory.Code, string, error) { return code, name, nil }
	return &Kernel{ID: id, sources: []*source{{sure: Code, open: open}}}
}

// Check answers whether the kernel has a bug. The first source whose code is like
// the faulty or the fixed one decides. It is not for several goroutines at a time.
func (k *Kernel) Check(a *advisory.Advisory) Answer {
	answer, ok := k.answers[a.ID]
	if !ok {
		answer = k.check(a)
		if k.answers == nil {
			k.answers = make(map[string]Answer)
		}
		k.answers[a.ID] = answer
	}
	return answer
}

func (k *Kernel) check(a *advisory.Advisory) Answer {
	for _, s := range k.sources {
		code, err := s.get(a.Modules())
		if err != nil {
			continue
		}
		if v := a.CheckCode(code); v.State != advisory.Undecided {
			return Answer{Verdict: v, Sure: s.sure, Source: s.name}
		}
	}
	if v := k.ID.guess(a); v.State != advisory.Undecided {
		return Answer{Verdict: v, Sure: Version, Source: "the version " + k.ID.String()}
	}
	return Answer{Verdict: advisory.Verdict{Reason: k.why()}}
}

// Close releases what was opened.
func (k *Kernel) Close() {
	for _, s := range k.sources {
		if c, ok := s.code.(CodeOf); ok {
			c.Dump.Close()
		}
	}
}

// Problems says which ways to the code are barred.
func (k *Kernel) Problems() []string {
	var all []string
	for _, s := range k.sources {
		if s.tried && s.err != nil {
			all = append(all, s.err.Error())
		}
	}
	return all
}

// why says why nothing is known.
func (k *Kernel) why() string {
	for _, s := range k.sources {
		if s.err == nil {
			return "its code is like neither the faulty nor the fixed one, and the version " + k.ID.String() + " does not tell"
		}
	}
	return "its code cannot be read, and the version " + k.ID.String() + " does not tell"
}

// Running asks the running kernel about the advisory with an id. It takes root's rights to
// be sure.
func Running(id string) (Answer, error) {
	all, err := advisory.All()
	if err != nil {
		return Answer{}, err
	}
	a := advisory.Find(all, id)
	if a == nil {
		return Answer{}, fmt.Errorf("there is no advisory %s", id)
	}
	k, err := Open("/")
	if err != nil {
		return Answer{}, err
	}
	defer k.Close()
	return k.Check(a), nil
}

// CodeOf is the code of a kernel, in which functions that a livepatch replaced are
// those that replace them.
type CodeOf struct {
	*kernel.Kernel
	Replaced map[string]string // names of functions, and of the modules with the new ones
}

// LookupAll returns every symbol of that name, those that run.
func (c CodeOf) LookupAll(name string) ([]kernel.Symbol, error) {
	if module, ok := c.Replaced[name]; ok {
		if all := c.LookupIn(module, name); len(all) > 0 {
			return all, nil
		}
	}
	return c.Kernel.LookupAll(name)
}
