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

// fold breaks a line that keeps its spaces into at most n; the style may want all of it.
func (s Style) fold(n int, first, rest, line string) []string {
	var lines []string
	r := []rune(first + line)
	for width := s.width(); len(r) > width; {
		if len(lines) == n-1 && !s.Verbose {
			return append(lines, shorten(string(r), width))
		}
		at := width
		for i := width; i > width/2; i-- {
			if r[i] == ' ' {
				at = i
				break
			}
		}
		lines = append(lines, string(r[:at]))
		r = append([]rune(rest), []rune(strings.TrimLeft(string(r[at:]), " "))...)
	}
	return append(lines, string(r))
}

// headOf keeps the front of a path that is too long: "sock.sk_callback_lock...".
func headOf(path string, n int) string {
	return shortPath(path, n, func(parts []string) string {
		return strings.Join(parts[:len(parts)-1], ".") + "..."
	})
}

// tailOf keeps its end: "...skc_portpair".
func tailOf(path string, n int) string {
	return shortPath(path, n, func(parts []string) string {
		return "..." + strings.Join(parts[1:], ".")
	})
}

func shortPath(path string, n int, less func(parts []string) string) string {
	for short := path; ; {
		parts := strings.Split(strings.Trim(short, "."), ".")
		if utf8.RuneCountInString(short) <= n {
			return short
		}
		if len(parts) < 2 {
			return shorten(short, n)
		}
		short = less(parts)
	}
}

func plural(n int, one string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %ss", n, one)
}
