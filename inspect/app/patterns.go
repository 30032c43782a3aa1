package app

import (
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"sync"
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

// Reasons of a [PatternError]; others are those of the packages hex and regexp.
var (
	ErrEmptyPattern  = errors.New("nothing to look for")
	ErrSamePattern   = errors.New("the name is taken")
	ErrPatternSize   = errors.New("longer than 4096 bytes")
	ErrPatternsSize  = errors.New("all patterns together are too large")
	ErrUnknownKind   = errors.New("unknown kind of pattern")
	ErrEndOfStream   = errors.New(`$ and \z: a stream has no end that could be waited for; use (?m)$ for the end of a line`)
	ErrMatchesAlways = errors.New("matches the empty string, so everything")
)

const maxPattern = 4096

// Patterns is a set of patterns that are looked for in one pass. It is immutable and
// safe for concurrent use; what belongs to one flow is in a [Scan].
type Patterns struct {
	list        []Pattern
	names       map[string]int
	exact, fold *automaton // nil: none of the kind
	regexps     []expression
	always      uint64    // groups of regexps that have no literal to wait for
	windows     sync.Pool // of *[2 * RegexpWindow]byte
}

// RegexpWindow is how many bytes of a stream an expression can look back over the
// boundary of two pieces, and forward behind it.
const RegexpWindow = 512

// NewPatterns compiles a set. The error is a *[PatternError].
//
// Of a regular expression (RE2, as package regexp takes it) a match is found wherever
// it lies within one piece, and across pieces when it has at most [RegexpWindow] bytes
// on either side of the boundary. An expression with ^ or \A looks at the first
// RegexpWindow bytes only, or at the first piece when that is longer. \b and (?m)$
// take the end of what has come so far for an end. Bytes that are not UTF-8 match as
// U+FFFD: [Hex] is for those. An expression that needs a literal of three bytes or
// more costs nothing until that is seen.
func NewPatterns(list []Pattern) (*Patterns, error) {
	p := &Patterns{list: list, names: make(map[string]int, len(list))}
	p.windows.New = func() any { return new([2 * RegexpWindow]byte) }
	exact, fold := newBuilder(false), newBuilder(true)
	for i, pattern := range list {
		if _, taken := p.names[pattern.Name]; taken {
			return nil, &PatternError{i, pattern, ErrSamePattern}
		}
		p.names[pattern.Name] = i
		if err := p.add(i, pattern, exact, fold); err != nil {
			return nil, &PatternError{i, pattern, err}
		}
	}
	p.exact, p.fold = exact.build(), fold.build()
	return p, nil
}

func (p *Patterns) add(i int, pattern Pattern, exact, fold *builder) error {
	switch pattern.Kind {
	case Literal:
		return exact.add([]byte(pattern.Text), i)
	case Fold:
		return fold.add([]byte(pattern.Text), i)
	case Hex:
		b, err := hex.DecodeString(strings.Join(strings.Fields(pattern.Text), ""))
		if err != nil {
			return err
		}
		return exact.add(b, i)
	case Regexp:
		e, err := compileExpression(pattern.Text, i)
		if err != nil {
			return err
		}
		group := len(p.regexps) % 64
		p.regexps = append(p.regexps, e)
		switch {
		case e.literal == "":
			p.always |= 1 << group
		case e.fold:
			return fold.add([]byte(e.literal), -1-group)
		default:
			return exact.add([]byte(e.literal), -1-group)
		}
		return nil
	}
	return ErrUnknownKind
}

// Len is how many patterns there are.
func (p *Patterns) Len() int { return len(p.list) }

// Index finds a pattern by its name.
func (p *Patterns) Index(name string) (int, bool) {
	i, ok := p.names[name]
	return i, ok
}

// Scan is how far one flow has been searched, and which patterns were found in it.
// The zero value is a flow that begins. It belongs to one set: after a reload it is
// started anew with the next set.
type Scan struct {
	hits  []uint64 // nil until the first
	sides [2]scanSide
}

// scanSide is one direction.
type scanSide struct {
	exact, fold uint32 // states of the automata
	regexps     *window
}

// Hit reports whether pattern index was found, in either direction.
func (s *Scan) Hit(index int) bool {
	return index>>6 < len(s.hits) && s.hits[index>>6]>>(index&63)&1 != 0
}

// Any reports whether any pattern was found.
func (s *Scan) Any() bool { return s.hits != nil }

// Hits has a bit for each pattern that was found, nil when none was. It is not to be
// changed, and does change with the next Search.
func (s *Scan) Hits() []uint64 { return s.hits }

// set notes a hit and reports whether it is new.
func (s *Scan) set(index, of int) bool {
	if s.hits == nil {
		s.hits = make([]uint64, (of+63)/64)
	}
	word, bit := &s.hits[index>>6], uint64(1)<<(index&63)
	was := *word&bit != 0
	*word |= bit
	return !was
}

// Search looks through the next bytes of one side and reports whether a pattern was
// found that had not been. A match may lie across the boundary of two calls. It
// allocates at a flow's first match, and when the set has regular expressions, once
// for each direction.
func (p *Patterns) Search(s *Scan, dir Dir, data []byte) (found bool) {
	side := &s.sides[dir&1]
	var triggered uint64
	if a := p.exact; a != nil {
		found = a.search(&side.exact, data, s, len(p.list), &triggered) || found
	}
	if a := p.fold; a != nil {
		found = a.search(&side.fold, data, s, len(p.list), &triggered) || found
	}
	if len(p.regexps) > 0 && len(data) > 0 {
		found = p.searchRegexps(s, side, data, triggered) || found
	}
	return found
}

// Gap tells that bytes of one side were lost: no match reaches across.
func (p *Patterns) Gap(s *Scan, dir Dir) {
	side := &s.sides[dir&1]
	side.exact, side.fold = 0, 0
	if w := side.regexps; w != nil {
		w.n, w.armed, w.later = 0, 0, true
	}
}
