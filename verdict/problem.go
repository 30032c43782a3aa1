package verdict

import (
	"errors"
	"fmt"
	"strings"

	"inquest/inspect/rule"
)

// Problems returns what is wrong with a rule file, if that is what the error is.
func Problems(err error) ([]rule.Problem, bool) {
	var e *rule.Error
	if !errors.As(err, &e) {
		return nil, false
	}
	return e.Problems, true
}

// Excerpt writes every problem of a file with the line that it is in and a caret under
// the place.
func Excerpt(e *rule.Error, text []byte) string {
	lines := strings.Split(string(text), "\n")
	var b strings.Builder
	for i, p := range e.Problems {
		if i > 0 {
			b.WriteString("\n")
		}
		fmt.Fprintf(&b, "%s:%d:%d: %s\n", e.File, p.Line, p.Column, p.Message)
		if p.Line < 1 || p.Line > len(lines) {
			continue
		}
		line := strings.TrimRight(lines[p.Line-1], "\r")
		fmt.Fprintf(&b, "%6d | %s\n       | %s^\n", p.Line, printable(line), indent(line, p.Column))
	}
	return b.String()
}

// indent is as wide as the first column-1 characters of a line: a tab stays a tab.
func indent(line string, column int) string {
	var b strings.Builder
	n := 1
	for _, r := range line {
		if n >= column {
			break
		}
		if n++; r == '\t' {
			b.WriteByte('\t')
		} else {
			b.WriteByte(' ')
		}
	}
	return b.String()
}

// printable keeps control characters of a file away from the terminal.
func printable(line string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' && r != '\t' || r >= 0x7f && r < 0xa0 {
			return '·'
		}
		return r
	}, line)
}
