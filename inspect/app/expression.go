package app

import (
	"regexp"
	"regexp/syntax"
)

// expression is one regular expression of a set.
type expression struct {
	index  int
	start  bool           // it looks at the beginning of a stream only
	whole  *regexp.Regexp // for text that a stream begins with
	inside *regexp.Regexp // for text within one: the first byte is only looked back at

	literal string // that every match contains, "" when none is known
	fold    bool   // in either case
}

// minTrigger is the length from which a literal is worth waiting for.
const minTrigger = 3

func compileExpression(text string, index int) (e expression, err error) {
	if len(text) > maxPattern {
		return e, ErrPatternSize
	}
	parsed, err := syntax.Parse(text, syntax.Perl)
	if err != nil {
		return e, err
	}
	if contains(parsed, syntax.OpEndText) {
		return e, ErrEndOfStream
	}
	e = expression{index: index, start: contains(parsed, syntax.OpBeginText)}
	if e.whole, err = regexp.Compile(text); err != nil {
		return e, err
	}
	if e.whole.MatchString("") {
		return e, ErrMatchesAlways
	}
	e.inside = e.whole
	if contains(parsed, syntax.OpWordBoundary) || contains(parsed, syntax.OpNoWordBoundary) || contains(parsed, syntax.OpBeginLine) {
		if e.inside, err = regexp.Compile(`(?s:.)(?:` + text + `)`); err != nil {
			return e, err
		}
	}
	if literal := required(parsed.Simplify()); literal != nil && len(string(literal.Rune)) >= minTrigger {
		e.literal, e.fold = string(literal.Rune), literal.Flags&syntax.FoldCase != 0
	}
	return e, nil
}

func contains(re *syntax.Regexp, op syntax.Op) bool {
	if re.Op == op {
		return true
	}
	for _, sub := range re.Sub {
		if contains(sub, op) {
			return true
		}
	}
	return false
}

// required is the longest literal that every match of re contains, nil when there
// is none. Letters beyond ASCII fold in ways that the automaton does not know.
func required(re *syntax.Regexp) *syntax.Regexp {
	switch re.Op {
	case syntax.OpLiteral:
		for _, r := range re.Rune {
			// U+017F and U+212A fold to the ASCII letters s and k.
			if folds := re.Flags&syntax.FoldCase != 0; folds && (r >= 0x80 || r|0x20 == 's' || r|0x20 == 'k') || r == 0xfffd {
				return nil
			}
		}
		return re
	case syntax.OpCapture, syntax.OpPlus:
		return required(re.Sub[0])
	case syntax.OpConcat:
		var longest *syntax.Regexp
		for _, sub := range re.Sub {
			if l := required(sub); l != nil && (longest == nil || len(l.Rune) > len(longest.Rune)) {
				longest = l
			}
		}
		return longest
	}
	return nil
}

// window is what regular expressions need of one direction.
type window struct {
	tail  [RegexpWindow]byte // the last bytes before the next piece
	n     int                // how many there are
	later bool               // they are not all that the stream had so far
	armed uint64             // groups whose literal was seen not long ago
	left  int                // bytes until armed is out of date
}

// searchRegexps runs the expressions whose literal was seen, and those without one.
func (p *Patterns) searchRegexps(s *Scan, side *scanSide, data []byte, triggered uint64) (found bool) {
	w := side.regexps
	if w == nil {
		w = new(window)
		side.regexps = w
	}
	if triggered != 0 {
		w.armed |= triggered
		w.left = RegexpWindow + len(data)
	}
	if run := w.armed | p.always; run != 0 {
		joint := p.windows.Get().(*[2 * RegexpWindow]byte)
		n := copy(joint[:], w.tail[:w.n])
		n += copy(joint[n:], data[:min(len(data), RegexpWindow)])
		for i := range p.regexps {
			e := &p.regexps[i]
			if run>>(i%64)&1 == 0 || s.Hit(e.index) {
				continue
			}
			if e.match(joint[:n], data, w) && s.set(e.index, len(p.list)) {
				found = true
			}
		}
		p.windows.Put(joint)
	}
	if w.left -= len(data); w.left <= 0 {
		w.armed = 0
	}
	w.keep(data)
	return found
}

// match looks at the text around the boundary to the pieces before, and at the piece.
func (e *expression) match(joint, data []byte, w *window) bool {
	if !w.later {
		if w.n == 0 {
			return e.whole.Match(data)
		}
		return e.whole.Match(joint) || !e.start && e.inside.Match(data)
	}
	return !e.start && (w.n > 0 && e.inside.Match(joint) || e.inside.Match(data))
}

// keep makes the end of data the tail.
func (w *window) keep(data []byte) {
	if len(data) >= RegexpWindow {
		w.later = w.later || w.n > 0 || len(data) > RegexpWindow
		w.n = copy(w.tail[:], data[len(data)-RegexpWindow:])
		return
	}
	if over := w.n + len(data) - RegexpWindow; over > 0 {
		w.later = true
		w.n = copy(w.tail[:], w.tail[over:w.n])
	}
	w.n += copy(w.tail[w.n:], data)
}
