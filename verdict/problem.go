package verdict

import (
	"fmt"
	"slices"
	"strings"
)

// Error is what is wrong with a rule file, all of it.
type Error struct {
	File     string
	Problems []Problem // by line
}

// Problem is one thing that is wrong, and where.
type Problem struct {
	Line, Column int // from 1; 0 where it is the whole file
	Text         string
}

// Error names the first problem, and says how many more there are.
func (e *Error) Error() string {
	s := e.File + e.Problems[0].String()
	if n := len(e.Problems) - 1; n > 0 {
		s += fmt.Sprintf(" (and %d more)", n)
	}
	return s
}

func (p Problem) String() string {
	if p.Line == 0 {
		return ": " + p.Text
	}
	return fmt.Sprintf(":%d:%d: %s", p.Line, p.Column, p.Text)
}

func (e *Error) sort() {
	slices.SortStableFunc(e.Problems, func(a, b Problem) int {
		if a.Line != b.Line {
			return a.Line - b.Line
		}
		return a.Column - b.Column
	})
}

// Excerpt writes every problem with the line of the file that it is in and a caret
// under the place.
func (e *Error) Excerpt(text []byte) string {
	lines := strings.Split(string(text), "\n")
	var b strings.Builder
	for i, p := range e.Problems {
		if i > 0 {
			b.WriteString("\n")
		}
		fmt.Fprintf(&b, "%s%s\n", e.File, p)
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
