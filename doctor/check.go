package doctor

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
)

// Check looks at one side of a machine.
type Check struct {
	Name string
	Doc  string // one sentence: what it looks at, and what for
	Run  func(s *Subject) []Finding

	// Applies says whether the subject has what the check looks at.
	Applies func(s *Subject) bool
}

// Checks are all checks, in the order in which they run.
var Checks = []*Check{
	KnownBugs,
	KernelLog,
	RequestSockets,
	Queues,
	QueueRules,
	Conntrack,
	Kdump,
	PanicSettings,
}

// State is how a thing that was looked at stands.
type State int

// The states, from the best to the worst. Only Exposed makes a machine exposed.
const (
	Fine    State = iota
	Unknown       // it could not be looked at
	Weak          // it works, but not as well as it could; or it is a sign of something
	Exposed       // it goes wrong, or will once somebody sends the right packets
)

func (s State) String() string { return [...]string{"fine", "unknown", "weak", "exposed"}[s] }

// MarshalText writes the word.
func (s State) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// Sure is how far the evidence reaches.
type Sure int

// From a guess to what was seen.
const (
	Guess Sure = iota
	Likely
	Certain
)

func (s Sure) String() string { return [...]string{"a guess", "likely", "certain"}[s] }

// MarshalText writes the word.
func (s Sure) MarshalText() ([]byte, error) {
	return []byte([...]string{"guess", "likely", "certain"}[s]), nil
}

// Finding is what a check found out about one thing.
type Finding struct {
	Check    string   `json:"check"`
	State    State    `json:"state"`
	Title    string   `json:"title"` // one line, without a full stop
	Sure     Sure     `json:"sure"`
	Looked   []string `json:"looked_at,omitempty"` // files, or what else was read
	Found    []string `json:"found,omitempty"`     // facts that the title rests on
	Advice   []string `json:"advice,omitempty"`    // what to do, in sentences
	Advisory string   `json:"advisory,omitempty"`  // id of the known bug that it is about
}

// Report is all that was found about a subject.
type Report struct {
	Subject  string    `json:"subject"` // "this machine", or a path
	Release  string    `json:"release"` // of its kernel; "" if it is not known
	Exposed  bool      `json:"exposed"`
	Findings []Finding `json:"findings"` // by check, the worst first within each
}

// Examine runs the checks that apply to a subject. One that fails says so in its findings.
func (s *Subject) Examine() *Report {
	r := &Report{Subject: s.Name, Release: s.Release(), Findings: []Finding{}}
	for _, c := range Checks {
		if c.Applies != nil && !c.Applies(s) {
			continue
		}
		found := c.Run(s)
		slices.SortStableFunc(found, func(a, b Finding) int { return int(b.State) - int(a.State) })
		for _, f := range found {
			f.Check = c.Name
			r.Exposed = r.Exposed || f.State == Exposed
			r.Findings = append(r.Findings, f)
		}
	}
	return r
}

// unread is the finding for what could not be looked at. What does not exist is another
// matter: its absence is what the check makes of it.
func unread(what string, err error, looked ...string) Finding {
	f := Finding{State: Unknown, Title: what + " could not be looked at", Sure: Certain, Looked: looked, Found: []string{err.Error()}}
	if errors.Is(err, fs.ErrPermission) {
		f.Advice = []string{"Run it as root."}
	}
	return f
}

// list makes a sentence's list of names.
func list[T any](items []T, most int) string {
	s := ""
	for i, item := range items {
		if i == most {
			return s + fmt.Sprintf(" and %d more", len(items)-most)
		}
		if i > 0 {
			s += ", "
		}
		s += fmt.Sprint(item)
	}
	return s
}
