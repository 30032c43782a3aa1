package report

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Style is how a report is shown.
type Style struct {
	Width   int  // columns; 0 for plain text, which is wrapped at 100
	Colour  bool // use ANSI colours
	Verbose bool // everything, however long
}

// Colours (ECMA-48, SGR).
const (
	bold  = "1"
	dim   = "2"
	red   = "1;31"
	green = "32"
	cyan  = "36"
)

func (s Style) paint(sgr, text string) string {
	if !s.Colour || text == "" {
		return text
	}
	return "\x1b[" + sgr + "m" + text + "\x1b[0m"
}

func (s Style) width() int {
	const most, least = 100, 40
	if s.Width == 0 {
		return most
	}
	return max(least, min(most, s.Width))
}

// wrap breaks text at spaces to the style's width, and words that are longer than a
// line anywhere. The first line begins with first, the others with rest.
func (s Style) wrap(first, rest, text string) []string {
	room := max(s.width()-max(utf8.RuneCountInString(first), utf8.RuneCountInString(rest)), 1)
	var lines []string
	var line []rune
	flush := func() {
		lead := rest
		if len(lines) == 0 {
			lead = first
		}
		lines = append(lines, lead+string(line))
		line = line[:0]
	}
	for word := range strings.FieldsSeq(text) {
		w := []rune(word)
		if len(line) > 0 && len(line)+1+len(w) > room {
			flush()
		}
		if len(line) > 0 {
			line = append(line, ' ')
		}
		for len(w) > room {
			line = append(line, w[:room]...)
			w = w[room:]
			flush()
		}
		line = append(line, w...)
	}
	if len(line) > 0 || len(lines) == 0 {
		flush()
	}
	return lines
}

// atMost is wrap that leaves lines out, unless the style is verbose.
func (s Style) atMost(n int, first, rest, text string) []string {
	lines := s.wrap(first, rest, text)
	if s.Verbose || len(lines) <= n {
		return lines
	}
	lines = lines[:n]
	lines[n-1] = shorten(lines[n-1]+" …", s.width())
	return lines
}

// cut shortens a line that must not wrap, unless the style is verbose.
func (s Style) cut(line string) string {
	if s.Verbose {
		return line
	}
	return shorten(line, s.width())
}

// shorten makes text at most n characters long.
func shorten(text string, n int) string {
	if utf8.RuneCountInString(text) <= n {
		return text
	}
	r := []rune(text)
	return string(r[:max(n-1, 0)]) + "…"
}

// clean makes text that came out of a dump safe to show on one line: control
// characters could drive the terminal, others could turn the order of the text around.
func clean(text string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\n' || r == '\t':
			return ' '
		case !unicode.IsPrint(r):
			return '·'
		}
		return r
	}, text)
}

// fold breaks a line that keeps its spaces into at most n; a verbose style has all of it.
func (s Style) fold(n int, first, rest, line string) []string {
	var lines []string
	left, r := first, []rune(line)
	for {
		room := max(s.width()-utf8.RuneCountInString(left), 1)
		if len(r) <= room {
			return append(lines, left+string(r))
		}
		if len(lines) == n-1 && !s.Verbose {
			return append(lines, left+string(r[:room-1])+"…")
		}
		at := room
		for i := room; i > room/2; i-- {
			if r[i] == ' ' {
				at = i
				break
			}
		}
		lines = append(lines, left+string(r[:at]))
		for r = r[at:]; len(r) > 0 && r[0] == ' '; {
			r = r[1:]
		}
		left = rest
	}
}

// headOf keeps the front of a path that is too long: "sock.sk_callback_lock...".
func headOf(path string, n int) string {
	if utf8.RuneCountInString(path) <= n {
		return path
	}
	r := []rune(path)
	for i := n - len("..."); i > 0; i-- {
		if r[i] == '.' {
			return string(r[:i]) + "..."
		}
	}
	return shorten(path, n)
}

// tailOf keeps its end: "...skc_portpair".
func tailOf(path string, n int) string {
	if utf8.RuneCountInString(path) <= n {
		return path
	}
	r := []rune(path)
	for i := len(r) + len("..") - n; i < len(r); i++ {
		if i >= 0 && r[i] == '.' {
			return ".." + string(r[i:])
		}
	}
	return shorten(path, n)
}

func plural(n int, one string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %ss", n, one)
}
