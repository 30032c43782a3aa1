package doctor

import (
	"fmt"
	"io"
	"strings"
)

// Style is how a report is shown.
type Style struct {
	Width   int // columns to wrap at; 0 for none
	Colour  bool
	Verbose bool // say also of what is fine what was found
}

// marks are what a line begins with, and its colour (SGR).
var marks = map[State][2]string{
	Fine:    {"ok", "32"},
	Unknown: {"?", "36"},
	Weak:    {"weak", "33"},
	Exposed: {"EXPOSED", "1;31"},
}

// Text writes the report for people.
func (r *Report) Text(w io.Writer, style Style) error {
	p := &printer{w: w, style: style}
	subject := r.Subject
	if r.Release != "" {
		subject += ", kernel " + r.Release
	}
	p.paragraph("", "", subject)
	check := ""
	var absent []*Finding // known bugs that the kernel has not
	for i := range r.Findings {
		f := &r.Findings[i]
		if f.Check != check {
			check = f.Check
			p.line("")
			p.line(check)
		}
		if f.Check != KnownBugs.Name || f.State != Fine || style.Verbose {
			p.finding(f)
			continue
		}
		// They are many, and come last.
		if absent = append(absent, f); i+1 == len(r.Findings) || r.Findings[i+1].Check != check {
			p.finding(together(absent))
		}
	}
	p.line("")
	p.paragraph("", "", r.Summary())
	return p.err
}

// together says in one line which known bugs a kernel has not.
func together(bugs []*Finding) *Finding {
	f := &Finding{State: Fine, Sure: Certain}
	var ids []string
	for _, b := range bugs {
		ids = append(ids, b.Advisory)
		f.Sure = min(f.Sure, b.Sure)
	}
	f.Title = "This kernel is not affected by " + list(ids, len(ids))
	return f
}

// Summary is the outcome in a sentence.
func (r *Report) Summary() string {
	count := map[State]int{}
	for _, f := range r.Findings {
		count[f.State]++
	}
	s := "Nothing is exposed"
	if n := count[Exposed]; n > 0 {
		s = fmt.Sprintf("Exposed in %d of %d findings", n, len(r.Findings))
	}
	if n := count[Weak]; n > 0 {
		s += fmt.Sprintf("; %d could be better", n)
	}
	if n := count[Unknown]; n > 0 {
		s += fmt.Sprintf("; %d could not be told", n)
	}
	return s + "."
}

type printer struct {
	w     io.Writer
	style Style
	err   error
}

func (p *printer) line(text string) {
	if p.err == nil {
		_, p.err = fmt.Fprintln(p.w, text)
	}
}

const indent = "           "

func (p *printer) finding(f *Finding) {
	mark := marks[f.State]
	head := fmt.Sprintf("  %-9s", mark[0])
	coloured := head
	if p.style.Colour {
		coloured = "\x1b[" + mark[1] + "m" + head + "\x1b[0m"
	}
	title := f.Title
	short := f.State == Fine && !p.style.Verbose
	if short && f.Sure != Certain {
		title += fmt.Sprintf(" (%s)", f.Sure)
	}
	p.paragraphAs(coloured, len(head), indent, title)
	if short {
		return
	}
	if len(f.Looked) > 0 {
		p.paragraph(indent, indent, fmt.Sprintf("(%s; looked at %s)", f.Sure, list(f.Looked, 5)))
	}
	for _, text := range f.Found {
		p.paragraph(indent+"- ", indent+"  ", text)
	}
	for _, text := range f.Advice {
		p.paragraph(indent+"> ", indent+"  ", text)
	}
}

func (p *printer) paragraph(first, rest, text string) { p.paragraphAs(first, len(first), rest, text) }

// paragraphAs writes text, wrapped, after first, which takes so many columns, and rest
// before each further line.
func (p *printer) paragraphAs(first string, columns int, rest, text string) {
	const narrowest = 20
	line, width := first, columns
	empty := true
	for word := range strings.FieldsSeq(printable(text)) {
		n := len([]rune(word))
		if limit := p.style.Width; !empty && limit > 0 && width+1+n > max(limit, len(rest)+narrowest) {
			p.line(line)
			line, width, empty = rest, len(rest), true
		}
		if !empty {
			line, width = line+" ", width+1
		}
		line, width, empty = line+word, width+n, false
	}
	p.line(strings.TrimRight(line, " "))
}

// printable replaces what could control a terminal: logs and rules come from anywhere.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' && r != '\n' && r != '\t' || r >= 0x7f && r < 0xa0 {
			return '?'
		}
		return r
	}, s)
}
