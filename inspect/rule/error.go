package rule

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"inquest/internal/spelling"
)

// Problem is one thing that is wrong, or odd, in a rule file.
type Problem struct {
	Line    int    `json:"line"`   // from 1
	Column  int    `json:"column"` // from 1, in characters
	Message string `json:"message"`
}

// Error has everything that is wrong with a rule file, in the file's order.
type Error struct {
	File     string
	Problems []Problem
}

// Error has one line for each problem: file:line:column: message.
func (e *Error) Error() string {
	lines := make([]string, len(e.Problems))
	for i, p := range e.Problems {
		lines[i] = fmt.Sprintf("%s:%d:%d: %s", e.File, p.Line, p.Column, p.Message)
	}
	return strings.Join(lines, "\n")
}

// maxProblems bounds what one file can make a reader read.
const maxProblems = 100

// problems collects what is wrong with a file.
type problems []Problem

func (p *problems) add(line, column int, format string, args ...any) {
	*p = append(*p, Problem{Line: max(line, 1), Column: max(column, 1), Message: fmt.Sprintf(format, args...)})
}

// sorted returns the problems in the file's order, without repetitions.
func (p problems) sorted() []Problem {
	slices.SortStableFunc(p, func(a, b Problem) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
	p = slices.Compact(p)
	if len(p) > maxProblems {
		more := len(p) - maxProblems
		last := p[maxProblems-1]
		p = append(p[:maxProblems:maxProblems], Problem{last.Line, last.Column, fmt.Sprintf("and %d more problems", more)})
	}
	return p
}

// suggest is "; did you mean x?" when one of the names is near to what was written.
func suggest(written string, names []string) string {
	best := spelling.Closest(written, names)
	return spelling.DidYouMean(best[:min(1, len(best))])
}
