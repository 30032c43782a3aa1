package report

import (
	"fmt"
	"io"
	"strings"
	"time"

	"inquest/console"
	"inquest/explain"
	"inquest/kernel/x86"
)

// LogText writes the story of a log for a person: at most two screens, unless the style
// is verbose.
func LogText(w io.Writer, c *explain.TextCase, findings []explain.Finding, s Style) error {
	lines := maxLog
	if s.Verbose {
		lines = 60
	}
	t := &text{s: s, story: tellLog(c, findings, lines, 0)}
	t.write()
	_, err := w.Write(t.Bytes())
	return err
}

// LogMarkdown is [Markdown] for a log.
func LogMarkdown(w io.Writer, c *explain.TextCase, findings []explain.Finding) error {
	m := &markdown{story: tellLog(c, findings, 20, 60)}
	m.write()
	_, err := w.Write(m.Bytes())
	return err
}

// LogHTML is [HTML] for a log. What the addresses in it are, a log does not say.
func LogHTML(w io.Writer, c *explain.TextCase, findings []explain.Finding) error {
	return writePage(w, tellLog(c, findings, pageLogBefore, pageLogAfter), &addresses{rows: map[uint64]*address{}, other: map[uint64]string{}})
}

// tellLog puts the case of a log into words, with the given numbers of log lines up to
// the report and after its first line.
func tellLog(c *explain.TextCase, findings []explain.Finding, before, after int) *story {
	r := c.Report
	st := &story{headline: clean(logHeadline(c)), about: aboutLog(c), crashed: r != nil, doubts: cleanAll(c.Doubts)}
	for _, f := range findings { // where a log says it is the line, not a command
		f.Evidence = append([]explain.Evidence(nil), f.Evidence...)
		for i := range f.Evidence {
			if e := &f.Evidence[i]; e.Line > 0 {
				e.Text = fmt.Sprintf("%s (line %d)", e.Text, e.Line)
			}
		}
		st.findings = append(st.findings, cleanFinding(f))
	}
	if len(findings) > 0 {
		st.lead = lead(st.findings[0], nil)
	}
	if r == nil {
		for _, l := range lastOf(c.Log.Tail, before) {
			st.log = append(st.log, logLine{lineText(l), false})
		}
		return st
	}
	for i, f := range c.Stack() {
		st.frames = append(st.frames, frame{Index: i, Name: clean(f.String()), Trap: i == 0 && trapped(r), Guess: f.Guess})
		if f.File != "" {
			st.frames[i].Name += " " + clean(f.File)
		}
	}
	if m := r.Main(); m != nil {
		st.code = codeOf(r, m)
		st.regs = c.Registers()
	}
	st.modules = clean(logModules(c))
	for _, l := range lastOf(r.Before, before-1) {
		st.log = append(st.log, logLine{lineText(l), false})
	}
	for i, l := range r.Lines[:min(len(r.Lines), after+1)] {
		st.log = append(st.log, logLine{lineText(l), i == 0})
	}
	return st
}

func lastOf(lines []console.Line, most int) []console.Line {
	return lines[max(0, len(lines)-max(most, 0)):]
}

func lineText(l console.Line) string {
	if !l.Timed {
		return clean(l.Text)
	}
	return clean(fmt.Sprintf("[%5d.%06d] %s", l.Time/time.Second, l.Time%time.Second/time.Microsecond, l.Text))
}

// trapped reports whether the first frame is where the CPU was, rather than what it called.
func trapped(r *console.Report) bool {
	m := r.Main()
	return m != nil && m.PC != nil
}

func logHeadline(c *explain.TextCase) string {
	r := c.Report
	line := "Linux"
	if rel := c.Release(); rel != "" {
		line += " " + rel
	}
	if r == nil {
		return line + ": nothing in this text says that the kernel had trouble"
	}
	line += " reported trouble"
	if r.Fatal {
		line = strings.TrimSuffix(line, " reported trouble") + " crashed"
	}
	if r.Opening.Timed {
		line += fmt.Sprintf(" %s after boot", span(r.Opening.Time))
	}
	if r.CPU >= 0 {
		line += fmt.Sprintf(", on CPU %d", r.CPU)
	}
	if r.Comm != "" && r.PID >= 0 {
		line += fmt.Sprintf(", in %s (pid %d)", r.Comm, r.PID)
	}
	if r.Opening.Source != "" {
		line += ", says " + r.Opening.Source
	}
	return line
}

func aboutLog(c *explain.TextCase) []fact {
	facts := []fact{{"Text", fmt.Sprintf("%s of %d lines", c.Log.Format, c.Log.Lines)}}
	add := func(name, value string) {
		if value != "" {
			facts = append(facts, fact{name, clean(value)})
		}
	}
	add("Kernel", c.Release())
	add("Machine", c.Log.Machine)
	if r := c.Report; r != nil {
		add("Hardware", r.Hardware)
	}
	return facts
}

// logModules are those that matter, and the taint.
func logModules(c *explain.TextCase) string {
	r := c.Report
	var parts []string
	seen := map[string]bool{}
	for _, f := range c.Stack() {
		if f.Module != "" && !seen[f.Module] {
			seen[f.Module] = true
			parts = append(parts, f.Module+" is on the stack")
		}
	}
	foreign := 0
	for _, m := range r.Modules {
		if strings.ContainsAny(m.Taints, "POE") {
			if foreign++; foreign <= 8 {
				parts = append(parts, fmt.Sprintf("%s is %s", m.Name, and(taintWords(m.Taints))))
			}
		}
	}
	if foreign > 8 {
		parts = append(parts, fmt.Sprintf("%d more modules are from outside the kernel", foreign-8))
	}
	line := "The report lists no modules"
	if len(r.Modules) > 0 {
		line = fmt.Sprintf("%s loaded", plural(len(r.Modules), "module"))
	}
	if len(parts) > 0 {
		line += "; " + strings.Join(parts, "; ")
	}
	if r.Taint != "" {
		line += fmt.Sprintf(". The kernel is tainted %s: %s", r.Taint, strings.Join(taintWords(r.Taint), ", "))
	}
	return line + "."
}

// codeOf is the trapped instruction and those behind it, of x86-64.
func codeOf(r *console.Report, m *console.Section) []codeLine {
	if _, ok := m.Get("rsp"); !ok || r.CodeAt < 0 {
		return nil
	}
	var lines []codeLine
	for at := r.CodeAt; at < len(r.Code) && len(lines) < 4; {
		insn, err := x86.Decode(r.Code[at:], 0)
		if err != nil {
			break
		}
		place := fmt.Sprintf("pc+%d", at-r.CodeAt)
		if m.PC != nil && m.PC.Symbol != "" {
			place = fmt.Sprintf("%s+%#x", clean(m.PC.Symbol), m.PC.Offset+uint64(at-r.CodeAt))
		}
		lines = append(lines, codeLine{Place: place, Text: strings.TrimSpace(insn.Text(nil)), Here: at == r.CodeAt})
		at += insn.Len
	}
	return lines
}
