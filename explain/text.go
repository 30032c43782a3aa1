package explain

import (
	"fmt"
	"slices"

	"inquest/advisory"
	"inquest/console"
	"inquest/kernel/x86"
)

// TextCase is a kernel's log under examination, where there is no dump: what the kernel
// itself wrote is all the evidence that there is.
type TextCase struct {
	Log    *console.Log
	Report *console.Report   // what went wrong first; nil when the text has no report
	Others []*console.Report // what the same machine reported after it, and before if that is another matter
	Doubts []string
}

// TextAnalyzer looks at a report for the kinds of failure that it knows.
type TextAnalyzer struct {
	Name string // as in Finding.Analyzer
	Doc  string // one sentence: what it explains
	Run  func(*console.Report) (Finding, bool)
}

// TextAnalyzers are all analyzers of text. The first that knows a report explains it.
var TextAnalyzers = []*TextAnalyzer{
	TextSanitizer,
	TextSlab,
	TextChecks,
	TextFault,
	TextTrap,
	TextBug,
	TextStuck,
	TextLocks,
	TextPanic,
	TextSession,
	TextWarning,
}

// NewText puts a case together from a log.
func NewText(log *console.Log) *TextCase {
	c := &TextCase{Log: log}
	c.Report, c.Others = cause(log.Reports)
	if r := c.Report; r != nil && r.Cut {
		c.doubt("the report is longer than what is looked at: its end is not known")
	}
	if log.Dropped > 0 {
		c.doubt("the text has %d more reports than can be looked at; those in the middle were left out", log.Dropped)
	}
	return c
}

func (c *TextCase) doubt(format string, args ...any) {
	c.Doubts = append(c.Doubts, fmt.Sprintf(format, args...))
}

// Findings explains the reports: the first finding is the cause, the others came after
// it or have nothing to do with it. Known bugs whose stack it is are attached to it.
func (c *TextCase) Findings() []Finding {
	if c.Report == nil {
		return nil
	}
	const most = 12
	var all []Finding
	again := map[string]int{}
	for _, r := range append([]*console.Report{c.Report}, c.Others...) {
		f, ok := explainReport(r)
		if !ok {
			continue
		}
		if i, seen := again[f.Title]; seen {
			if n := len(all[i].Evidence); n < 12 {
				all[i].Evidence = append(all[i].Evidence, Evidence{Text: "and again: " + r.Message, Line: r.Opening.Number})
			}
			continue
		}
		if len(all) == most {
			break
		}
		again[f.Title] = len(all)
		all = append(all, f)
	}
	if len(all) > 0 {
		attachKnownText(&all[0], c.Report)
	}
	for i := range all {
		all[i].Signature = Signature(&all[i])
	}
	return all
}

// explainReport explains one report.
func explainReport(r *console.Report) (Finding, bool) {
	for _, a := range TextAnalyzers {
		f, ok := a.Run(r)
		if !ok {
			continue
		}
		f.Analyzer = a.Name
		f.Evidence = append([]Evidence{{Text: r.Message, Line: r.Opening.Number}}, f.Evidence...)
		for _, also := range r.Also {
			if len(f.Evidence) < 12 && also.Text != r.Message {
				f.Evidence = append(f.Evidence, Evidence{Text: also.Text})
			}
		}
		if f.Blame == nil && blames(f.Class) {
			f.Blame = blameText(r)
		}
		f.Evidence = distinct(append(f.Evidence, surroundings(r)...))
		return f, true
	}
	return Finding{}, false
}

// distinct leaves out what is said already.
func distinct(all []Evidence) []Evidence {
	said := map[string]bool{}
	return slices.DeleteFunc(all, func(e Evidence) bool {
		again := said[e.Text]
		said[e.Text] = true
		return again
	})
}

// blames reports whether failures of a class are some function's doing.
func blames(class Class) bool {
	return class != OutOfMemory && class != UserPanic && class != MachineCheck
}

// attachKnownText compares the stack of a report with those of the known bugs. That a
// kernel has the bug cannot be told from its log.
func attachKnownText(f *Finding, r *console.Report) {
	known, err := advisory.All()
	if err != nil {
		return
	}
	var names []string
	for _, fr := range textFrames(r) {
		names = append(names, fr.Name())
	}
	for _, adv := range known {
		matched := adv.MatchStack(names)
		if matched == nil {
			continue
		}
		k := &Known{Advisory: adv, Stack: true, Code: advisory.Undecided.String()}
		for _, name := range matched {
			k.Signs = append(k.Signs, name+" is on the stack")
		}
		f.Advisory = k
		f.Advice = append(f.Advice, adv.Advice()...)
		return
	}
}

// fatal are the kinds that damage memory or end a task or the machine; the others can
// be unrelated to what comes after them.
func fatal(r *console.Report) bool {
	switch r.Kind {
	case console.Warning, console.RCUUsage, console.Lockdep, console.LockUse, console.Preemptible, console.Atomic, console.OutOfMemory, console.HungTask,
		console.RCUStall, console.SoftLockup, console.Workqueue, console.Leak, console.KCSAN, console.KMSAN, console.UBSAN, console.NMI, console.DebugObject:
		return r.Fatal
	case console.MachineCheck:
		return uncorrected(r)
	}
	return true
}

// cause chooses the report to explain: of the last boot in which a machine died, or else
// of the last in which it complained, the first report that is serious. A lesser one
// shortly in front of it comes first: who warns and then dies died of that.
func cause(reports []*console.Report) (first *console.Report, others []*console.Report) {
	if len(reports) == 0 {
		return nil, nil
	}
	type machine struct {
		source string
		boot   int
	}
	of := func(r *console.Report) machine { return machine{r.Opening.Source, r.Boot} }
	at := of(reports[len(reports)-1])
	dead := false
	for i := len(reports) - 1; i >= 0; i-- {
		if r := reports[i]; fatal(r) {
			at, dead = of(r), true
			break
		}
	}
	var all []*console.Report
	for _, r := range reports {
		if of(r) == at {
			all = append(all, r)
		}
	}
	chosen := 0
	if dead {
		chosen = slices.IndexFunc(all, fatal)
		for chosen > 0 && shortly(all[chosen-1], all[chosen]) {
			chosen--
		}
	}
	others = append(others, all[chosen+1:]...)
	return all[chosen], append(others, all[:chosen]...)
}

// shortly reports whether one report can have led to the next.
func shortly(a, b *console.Report) bool {
	const seconds = 5
	if a.Opening.Timed && b.Opening.Timed {
		d := (b.Opening.Time - a.Opening.Time).Seconds()
		return d >= 0 && d < seconds
	}
	return b.Opening.Number-a.Opening.Number < 200
}

// surroundings are facts on who and what, for the reader.
func surroundings(r *console.Report) []Evidence {
	var out []Evidence
	add := func(format string, args ...any) { out = append(out, Evidence{Text: fmt.Sprintf(format, args...)}) }
	if r.Panic != "" {
		add("it ended in a panic: %s", r.Panic)
	}
	if r.Workqueue != "" {
		add("it ran from the workqueue %s", r.Workqueue)
	}
	return out
}

// Stack is the stack that the report is about, innermost first.
func (c *TextCase) Stack() []console.Frame {
	if c.Report == nil {
		return nil
	}
	if c.Report.Kind.Watchdog() {
		if s := stuckSection(c.Report); s != nil {
			return stuckFrames(s)
		}
	}
	return textFrames(c.Report)
}

// Release is the kernel's release; "" when the text does not say it.
func (c *TextCase) Release() string {
	if c.Report != nil && c.Report.Release != "" {
		return c.Report.Release
	}
	return c.Log.Release
}

// Registers are those of x86-64 where the report has them, nil where it has not.
func (c *TextCase) Registers() *x86.Regs {
	m := c.Report.Main()
	if m == nil {
		return nil
	}
	if _, ok := m.Get("rsp"); !ok {
		return nil
	}
	regs := textRegs(m)
	return &regs
}
