package report

import (
	"fmt"
	"strings"
	"time"

	"inquest/explain"
	"inquest/kernel"
	"inquest/kernel/x86"
	"inquest/stack"
)

// story is what a report says, before it is laid out as text, Markdown or a page. All
// that came out of the dump is clean in it; only the trace is as it was found.
type story struct {
	headline string
	about    []fact // the dump and its kernel
	crashed  bool
	findings []explain.Finding // the first is the cause
	lead     string            // on the first
	waits    *waits            // nil when nobody waits for a lock
	other    *other            // nil when the cause is about the crashed task
	drawing  *drawing          // of the first; nil where there is nothing to draw
	doubts   []string
	code     []codeLine
	regs     *x86.Regs    // at the trap; nil when there was none
	trace    *stack.Trace // nil when unknown
	dying    []frame      // innermost: those of panicking
	frames   []frame      // the others
	problem  string
	modules  string
	log      []logLine
	logError string
}

// fact is something that has a name.
type fact struct{ Name, Value string }

// tell puts a case into words, with the given numbers of log lines up to the report of
// the crash and after its first line.
func tell(c *explain.Case, findings []explain.Finding, before, after int) *story {
	st := &story{
		headline: clean(headline(c)),
		about:    about(c.Kernel),
		crashed:  c.Crash != nil,
		modules:  clean(modules(c)),
		log:      logLines(c, before, after),
	}
	if c.LogError != nil {
		st.logError = clean(c.LogError.Error())
	}
	st.find(findings)
	graph, finder := c.Waits(findings)
	st.waits = newWaits(c.Kernel, graph, finder)
	if cr := c.Crash; cr != nil {
		st.crash(c.Kernel, cr)
	}
	if len(findings) > 0 {
		st.other = newOther(c, findings[0].Trace)
	}
	return st
}

// title is what the story is of, in a few words.
func (st *story) title() string {
	switch {
	case len(st.findings) > 0:
		return st.findings[0].Title
	case st.crashed:
		return "The cause of the crash is not known"
	}
	return "Nothing here says that the machine crashed"
}

// find takes the findings.
func (st *story) find(findings []explain.Finding) {
	for _, f := range findings {
		st.findings = append(st.findings, cleanFinding(f))
	}
	if len(findings) > 0 {
		st.drawing = newDrawing(st.findings[0])
		st.lead = lead(st.findings[0], st.drawing)
	}
}

func (st *story) crash(k *kernel.Kernel, cr *explain.Crash) {
	for _, d := range cr.Doubts {
		st.doubts = append(st.doubts, clean(d))
	}
	if cr.Fault != nil {
		st.code = disassemble(k, cr.Fault.PC)
		st.regs = &cr.Fault.Regs
	}
	if cr.Trace != nil {
		st.follow(cr)
	}
}

// follow takes the stack.
func (st *story) follow(cr *explain.Crash) {
	st.trace = cr.Trace
	for i := range cr.Trace.Frames {
		f := newFrame(i, &cr.Trace.Frames[i])
		f.Trap = cr.Fault != nil && i == cr.Fault.Frame
		last := len(st.frames) - 1
		switch {
		case i > cr.Culprit && last >= 0 && st.frames[last].PC == f.PC:
			st.frames[last].Again++
		case i < cr.Culprit:
			st.dying = append(st.dying, f)
		default:
			st.frames = append(st.frames, f)
		}
	}
	if !cr.Trace.Reliable {
		st.problem = clean(cr.Trace.Problem)
	}
}

// other is the stack of a task that the cause is about, which is not the one that crashed.
type other struct {
	title  string
	trace  *stack.Trace
	frames []frame
}

func newOther(c *explain.Case, t *stack.Trace) *other {
	if t == nil || t.Task == nil || c.Crash != nil && c.Crash.Task != nil && c.Crash.Task.Addr == t.Task.Addr {
		return nil
	}
	o := &other{title: clean(fmt.Sprintf("Stack of %s (pid %d)", t.Task.Comm, t.Task.PID)), trace: t}
	for i := range t.Frames {
		o.frames = append(o.frames, newFrame(i, &t.Frames[i]))
	}
	return o
}

// cleanFinding copies a finding with all its text clean.
func cleanFinding(f explain.Finding) explain.Finding {
	f.Title = capital(clean(f.Title))
	f.Class = explain.Class(clean(string(f.Class)))
	f.Evidence = append([]explain.Evidence(nil), f.Evidence...)
	for i := range f.Evidence {
		e := &f.Evidence[i]
		e.Text, e.Check = clean(e.Text), clean(e.Check)
	}
	f.Objects = append([]explain.Object(nil), f.Objects...)
	for i := range f.Objects {
		o := &f.Objects[i]
		o.Type, o.Module, o.Role, o.Cache = clean(o.Type), clean(o.Module), clean(o.Role), clean(o.Cache)
		if o.TakenFor != nil {
			t := *o.TakenFor
			t.Type, t.Module = clean(t.Type), clean(t.Module)
			o.TakenFor = &t
		}
	}
	f.Overrun = append([]explain.Overrun(nil), f.Overrun...)
	for i := range f.Overrun {
		o := &f.Overrun[i]
		o.Member, o.By, o.How, o.Is = clean(o.Member), clean(o.By), clean(o.How), clean(o.Is)
	}
	if f.Advisory != nil {
		known := *f.Advisory
		known.Signs, known.Check = cleanAll(known.Signs), clean(known.Check)
		f.Advisory = &known
	}
	f.Advice = cleanAll(f.Advice)
	return f
}

func cleanAll(texts []string) []string {
	var out []string
	for _, t := range texts {
		out = append(out, clean(t))
	}
	return out
}

func headline(c *explain.Case) string {
	k, cr := c.Kernel, c.Crash
	line := "Linux " + k.Release
	if cr == nil {
		line += ": nothing in this dump says that the machine crashed"
	} else {
		line += " crashed"
		if up := uptime(c); up > 0 {
			line += fmt.Sprintf(" %s after boot", span(up))
		}
		if cr.CPU >= 0 {
			line += fmt.Sprintf(", on CPU %d", cr.CPU)
		}
		if cr.Task != nil {
			line += fmt.Sprintf(", in %s (pid %d)", cr.Task.Comm, cr.Task.PID)
		}
	}
	if when := k.Dump.CrashTime; !when.IsZero() {
		line += when.UTC().Format(", 2006-01-02 15:04:05 UTC")
	}
	return line
}

func about(k *kernel.Kernel) []fact {
	facts := []fact{{"Kernel", k.Release}, {"Machine", k.Dump.Machine}, {"Dump", k.Dump.Format}}
	if k.BuildID != "" {
		facts = append(facts, fact{"Build ID", k.BuildID})
	}
	if !k.Dump.CrashTime.IsZero() {
		facts = append(facts, fact{"Crash time", k.Dump.CrashTime.UTC().Format(time.RFC3339)})
	}
	for i := range facts {
		facts[i].Value = clean(facts[i].Value)
	}
	return facts
}

// opening is the record in the log that reports the crash, -1 when there is none.
func opening(c *explain.Case) int {
	if cr := c.Crash; cr != nil {
		for _, e := range []*explain.Event{cr.Event, cr.Panic} {
			if e != nil {
				return e.Record
			}
		}
	}
	return -1
}

// uptime is the time of the crash's report in the log.
func uptime(c *explain.Case) time.Duration {
	if i := opening(c); i >= 0 && i < len(c.Log) {
		return c.Log[i].Time
	}
	return 0
}

func span(d time.Duration) string {
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%.1f s", d.Seconds())
	case d < 48*time.Hour:
		return d.Round(time.Second).String()
	}
	return fmt.Sprintf("%d days", d/(24*time.Hour))
}

// modules are those that matter, and the taint.
func modules(c *explain.Case) string {
	k := c.Kernel
	var parts []string
	mods, _ := k.Modules()
	onStack := map[string]bool{}
	if cr := c.Crash; cr != nil && cr.Trace != nil {
		for _, f := range cr.Trace.Frames {
			if m := f.Symbol.Module; m != "" && !onStack[m] {
				onStack[m] = true
				parts = append(parts, m+" is on the stack")
			}
		}
	}
	foreign := 0
	for _, m := range mods {
		if strings.ContainsAny(m.Taints, "POE") {
			if foreign++; foreign <= 8 {
				parts = append(parts, fmt.Sprintf("%s is %s", m.Name, and(taintWords(m.Taints))))
			}
		}
	}
	if foreign > 8 {
		parts = append(parts, fmt.Sprintf("%d more modules are from outside the kernel", foreign-8))
	}
	line := fmt.Sprintf("%s loaded", plural(len(mods), "module"))
	if len(mods) == 0 {
		line = "No module is loaded"
	}
	if len(parts) > 0 {
		line += "; " + strings.Join(parts, "; ")
	}
	if taint := k.Taint(); taint != "" {
		line += fmt.Sprintf(". The kernel is tainted %s: %s", taint, strings.Join(taintWords(taint), ", "))
	}
	return line + "."
}

// logLine is a line of the log, with its time.
type logLine struct {
	Text  string
	Opens bool // the report of the crash
}

// logLines returns up to so many lines that end with the report of the crash, or with
// the log where there is none, and up to so many after that line.
func logLines(c *explain.Case, before, after int) []logLine {
	opens := opening(c)
	end := len(c.Log)
	if opens >= 0 {
		end = min(opens+1, end)
	}
	var lines, rest []logLine
	for i := max(0, end-before); i < end; i++ {
		lines = append(lines, recordLines(&c.Log[i], i == opens)...)
	}
	for i := end; i < len(c.Log) && len(rest) < after; i++ {
		rest = append(rest, recordLines(&c.Log[i], false)...)
	}
	return append(lines[max(0, len(lines)-before):], rest[:min(after, len(rest))]...)
}

func recordLines(r *kernel.Record, opens bool) []logLine {
	var lines []logLine
	for line := range strings.Lines(r.Text) {
		text := fmt.Sprintf("[%5d.%06d] %s", r.Time/time.Second, r.Time%time.Second/time.Microsecond, clean(strings.TrimRight(line, "\n")))
		lines = append(lines, logLine{text, opens})
		opens = false
	}
	return lines
}
