package report

import (
	"fmt"
	"strings"
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

// wrap breaks text at spaces to the style's width. The first line begins with
// first, the others with rest.
func (s Style) wrap(first, rest, text string) string {
	var b strings.Builder
	line, empty := first, true
	for _, word := range strings.Fields(text) {
		if !empty && utf8.RuneCountInString(line)+1+utf8.RuneCountInString(word) > s.width() {
			b.WriteString(line + "\n")
			line, empty = rest, true
		}
		if !empty {
			line += " "
		}
		line += word
		empty = false
	}
	b.WriteString(line + "\n")
	return b.String()
}

// cut shortens a line that must not wrap.
func (s Style) cut(line string) string {
	limit := s.Width
	if limit == 0 || s.Verbose || utf8.RuneCountInString(line) <= limit {
		return line
	}
	r := []rune(line)
	return string(r[:limit-1]) + "…"
}

// clean makes text that came out of a dump safe to show: control characters could
// drive the terminal.
func clean(text string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' && r != '\t' && r != '\n' || r >= 0x7f && r < 0xa0 {
			return '·'
		}
		return r
	}, text)
}

func plural(n int, one string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %ss", n, one)
}
