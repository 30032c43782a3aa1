package report

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"time"

	"inquest/explain"
	"inquest/kernel"
	"inquest/kernel/x86"
)

// Text writes the story of a crash for a person: at most two screens, unless the
// style is verbose.
func Text(w io.Writer, c *explain.Case, findings []explain.Finding, s Style) {
	t := &text{s: s, c: c}
	t.headline()
	t.findings(findings)
	t.stack()
	t.surroundings()
	t.log()
	w.Write(t.Bytes())
}

type text struct {
	bytes.Buffer
	s Style
	c *explain.Case
}

func (t *text) printf(format string, args ...any) { fmt.Fprintf(&t.Buffer, format, args...) }

func (t *text) title(title string) { t.printf("\n%s\n", t.s.paint(bold, title)) }

func (t *text) headline() {
	k, cr := t.c.Kernel, t.c.Crash
	line := "Linux " + clean(k.Release)
	if cr == nil {
		line += ": nothing in this dump says that the machine crashed"
	} else {
		line += " crashed"
		if up := uptime(t.c); up > 0 {
			line += fmt.Sprintf(" %s after boot", span(up))
		}
		if cr.CPU >= 0 {
			line += fmt.Sprintf(", on CPU %d", cr.CPU)
		}
		if cr.Task != nil {
			line += fmt.Sprintf(", in %s (pid %d)", clean(cr.Task.Comm), cr.Task.PID)
		}
	}
	if when := k.Dump.CrashTime; !when.IsZero() {
		line += when.UTC().Format(", 2006-01-02 15:04:05 UTC")
	}
	t.WriteString(t.s.wrap("", "", line))
}

// uptime is the time of the crash's report in the log.
func uptime(c *explain.Case) time.Duration {
	e := c.Crash.Event
	if e == nil {
		e = c.Crash.Panic
	}
	if e == nil {
		return 0
	}
	return c.Log[e.Record].Time
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

func (t *text) findings(findings []explain.Finding) {
	if len(findings) == 0 {
		if t.c.Crash != nil {
			t.WriteString(t.s.wrap("\n  ", "  ", "What made it crash could not be concluded. The stack and the log below are what there is."))
		}
		return
	}
	first := findings[0]
	t.printf("\n  %s\n", t.s.paint(red, clean(first.Title)))
	t.printf("  %s\n\n", t.s.paint(dim, fmt.Sprintf("%s, %s", first.Class, first.Confidence)))
	t.evidence(first)
	t.registers()
	if adv := first.Advisory; adv != nil {
		t.title("Known bug: " + adv.Title)
		t.WriteString(t.s.wrap("  ", "  ", adv.Summary))
		for _, sign := range adv.Signs {
			t.WriteString(t.s.wrap("  * ", "    ", sign))
		}
	}
	if len(first.Advice) > 0 {
		t.title("What to do")
		for _, a := range first.Advice {
			t.WriteString(t.s.wrap("  * ", "    ", a))
		}
	}
	for i, f := range findings[1:] {
		if i == 0 {
			t.title("Also found")
		}
		t.WriteString(t.s.wrap("  * ", "    ", fmt.Sprintf("%s (%s, %s)", clean(f.Title), f.Class, f.Confidence)))
		if t.s.Verbose {
			t.evidence(f)
		}
	}
	if cr := t.c.Crash; len(cr.Doubts) > 0 {
		t.title("What does not fit")
		for _, d := range cr.Doubts {
			t.WriteString(t.s.wrap("  * ", "    ", clean(d)))
		}
	}
}

func (t *text) evidence(f explain.Finding) {
	for _, e := range f.Evidence {
		t.WriteString(t.s.wrap("  * ", "    ", clean(e.Text)))
		if t.s.Verbose && e.Check != "" {
			t.printf("    %s\n", t.s.paint(dim, "see: inquest "+strings.Replace(e.Check+" ", " ", " DUMP ", 1)))
		}
	}
}

// registers shows the code around the trapped instruction, and the registers that
// the instruction used; all of them when verbose.
func (t *text) registers() {
	cr := t.c.Crash
	if cr == nil || cr.Fault == nil {
		return
	}
	t.WriteString("\n")
	for _, l := range t.code(cr.Fault) {
		t.WriteString(l)
	}
	if t.s.Verbose {
		t.WriteString("\n")
		registers(&t.Buffer, &cr.Fault.Regs)
	}
}

// code disassembles a few instructions up to the trapped one and one more.
func (t *text) code(site *explain.FaultSite) []string {
	const before = 4
	k := t.c.Kernel
	sym, off, ok := k.SymbolAt(site.PC)
	if !ok || off > 64<<10 {
		return nil
	}
	code := make([]byte, off+2*x86.MaxInsn)
	if err := k.Read(code, sym.Addr); err != nil {
		if code = code[:off+x86.MaxInsn]; k.Read(code, sym.Addr) != nil {
			return nil
		}
	}
	name := func(a uint64) (string, uint64) {
		s, _, ok := k.SymbolAt(kernel.Addr(a))
		if !ok {
			return "", 0
		}
		return s.Name, uint64(s.Addr)
	}
	var lines []string
	seen := -1
	for at := uint64(0); at < uint64(len(code)) && (seen < 0 || len(lines) <= seen+1); {
		insn, err := x86.Decode(code[at:], uint64(sym.Addr)+at)
		text, n := "(bad)", uint64(1)
		if err == nil {
			text, n = insn.Text(name), uint64(insn.Len)
		}
		mark := "   "
		if at == off {
			mark, seen = "-> ", len(lines)
			text = t.s.paint(red, text)
		}
		lines = append(lines, fmt.Sprintf("  %s%s+%#x:  %s\n", mark, clean(sym.Name), at, text))
		at += n
	}
	if seen < 0 {
		return nil
	}
	return lines[max(0, seen-before):]
}

func (t *text) stack() {
	cr := t.c.Crash
	if cr == nil || cr.Trace == nil {
		return
	}
	trace := cr.Trace
	if t.s.Verbose {
		t.title("Stack")
		Stack(&t.Buffer, trace, t.s)
		return
	}
	t.title("Stack, innermost first")
	const most = 24
	skipped := cr.Culprit
	if skipped > 0 {
		t.printf("   %s\n", t.s.paint(dim, fmt.Sprintf("(%s of panicking left out)", plural(skipped, "frame"))))
	}
	shown := 0
	for i := skipped; i < len(trace.Frames); i++ {
		if shown == most {
			t.printf("   %s\n", t.s.paint(dim, fmt.Sprintf("(%s more: bt shows them)", plural(len(trace.Frames)-i, "frame"))))
			break
		}
		f := &trace.Frames[i]
		mark := "   "
		switch {
		case f.Guess:
			mark = " ? "
		case cr.Fault != nil && i == cr.Fault.Frame:
			mark = "-> "
		}
		t.printf("  %s%s\n", mark, t.s.paint(cyan, frameName(f)))
		shown++
		again := 0
		for i+1 < len(trace.Frames) && trace.Frames[i+1].PC == f.PC {
			again++
			i++
		}
		if again > 0 {
			t.printf("     %s\n", t.s.paint(dim, fmt.Sprintf("(and %d times more)", again)))
		}
	}
	switch {
	case !trace.Reliable:
		t.WriteString(t.s.wrap("   ", "   ", "This stack is not reliable: "+trace.Problem))
	case trace.User != nil:
		t.printf("   %s\n", t.s.paint(dim, "(user mode)"))
	}
}

// surroundings are the modules and the taint that matter.
func (t *text) surroundings() {
	k := t.c.Kernel
	var parts []string
	mods, _ := k.Modules()
	onStack := map[string]bool{}
	if cr := t.c.Crash; cr != nil && cr.Trace != nil {
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
				parts = append(parts, fmt.Sprintf("%s is %s", m.Name, strings.Join(taintWords(m.Taints), ", ")))
			}
		}
	}
	if foreign > 8 {
		parts = append(parts, fmt.Sprintf("%d more modules are from outside the kernel", foreign-8))
	}
	line := fmt.Sprintf("%s loaded", plural(len(mods), "module"))
	if len(parts) > 0 {
		line += "; " + strings.Join(parts, "; ")
	}
	if taint := k.Taint(); taint != "" {
		line += fmt.Sprintf(". The kernel is tainted %s: %s", taint, strings.Join(taintWords(taint), ", "))
	}
	t.title("Modules")
	t.WriteString(t.s.wrap("  ", "  ", clean(line)+"."))
}

// taintWords says what taint letters mean (Documentation/admin-guide/tainted-kernels.rst).
func taintWords(letters string) []string {
	words := map[rune]string{
		'P': "proprietary", 'F': "force loaded", 'S': "on hardware out of specification", 'R': "force unloaded",
		'M': "machine check seen", 'B': "bad page seen", 'U': "tainted by user request", 'D': "oopsed before",
		'A': "ACPI table overridden", 'W': "warned before", 'C': "staging driver", 'I': "firmware workaround",
		'O': "out of tree", 'E': "unsigned", 'L': "soft lockup seen", 'K': "live patched", 'X': "auxiliary taint",
		'T': "struct layout randomised", 'N': "in-kernel test run", 'J': "fwctl used",
	}
	var out []string
	for _, l := range letters {
		if w, ok := words[l]; ok {
			out = append(out, w)
		}
	}
	return out
}

type logLine struct {
	text   string
	opens  bool // the report of the crash
	record int
}

// lastLines returns the lines before the crash and the one that reports it, at
// most n; without a crash the last ones.
func lastLines(c *explain.Case, n int) []logLine {
	end := len(c.Log)
	opens := -1
	if cr := c.Crash; cr != nil {
		for _, e := range []*explain.Event{cr.Event, cr.Panic} {
			if e != nil {
				opens, end = e.Record, min(e.Record+1, end)
				break
			}
		}
	}
	var lines []logLine
	for i := max(0, end-n); i < end; i++ {
		r := c.Log[i]
		for line := range strings.Lines(r.Text) {
			lines = append(lines, logLine{
				fmt.Sprintf("[%5d.%06d] %s", r.Time/time.Second, r.Time%time.Second/time.Microsecond, clean(strings.TrimRight(line, "\n"))),
				i == opens, i,
			})
		}
	}
	return lines[max(0, len(lines)-n):]
}

func (t *text) log() {
	n := 8
	if t.s.Verbose {
		n = 60
	}
	lines := lastLines(t.c, n)
	if len(lines) == 0 {
		if t.c.LogError != nil {
			t.title("Log")
			t.WriteString(t.s.wrap("  ", "  ", "The log cannot be read: "+t.c.LogError.Error()))
		}
		return
	}
	title := "Last lines of the log"
	if t.c.Crash != nil {
		title += " before the crash"
	}
	t.title(title)
	for _, l := range lines {
		line := t.s.cut("  " + l.text)
		if l.opens {
			line = t.s.paint(red, line)
		}
		t.printf("%s\n", line)
	}
}
