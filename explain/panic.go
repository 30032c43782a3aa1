package explain

import (
	"fmt"
	"strings"
)

// Panic explains a panic that the kernel decided on without a trap.
var Panic = &Analyzer{
	Name: "panic",
	Doc:  "panics by decision: sysrq, init killed, out of memory, no root file system …",
	Run: func(c *Case) []Finding {
		cr := c.Crash
		if cr == nil || cr.Event != nil && cr.Event.Kind != KindMemory && cr.Event.Kind != KindNMI {
			return nil
		}
		if cr.Panic == nil {
			return noReport(c)
		}
		reason := cr.Panic.Trigger
		if outOfMemory(reason) {
			return nil // see NoMemory
		}
		f := Finding{
			Class:      Unknown,
			Title:      "panic: " + reason,
			Confidence: Certain,
			Evidence:   []Evidence{{Text: cr.Panic.Message, Check: "log"}},
		}
		if cr.Trace != nil && len(cr.Trace.Frames) > 0 {
			text := "panic() was called from " + c.culpritName()
			if cr.Fault != nil || cr.Event != nil && cr.Event.Kind == KindNMI {
				text = "the CPU was interrupted in " + c.culpritName()
			}
			f.Evidence = append(f.Evidence, Evidence{Text: text, Check: "bt"})
			if who := BlameFor(c.places(cr.Trace.Frames[cr.Culprit:])).Function; who != "" && cr.Event == nil {
				f.Class, f.Title, f.culprit = Bug, "panic by decision of "+who, who
			}
		}
		switch {
		case c.onStack("sysrq_handle_crash") || strings.Contains(reason, "sysrq triggered crash"):
			f.Class = UserPanic
			f.Title = "somebody crashed the machine on purpose, by sysrq"
			f.Evidence = append(f.Evidence, c.by()...)
		case strings.Contains(reason, "Attempted to kill init"):
			f.Class, f.Title, f.culprit = Unknown, "init died, and a kernel cannot go on without it", ""
			f.Advice = append(f.Advice, "exitcode is init's wait status: the low byte is the signal that killed it, the next one its exit code.")
		case strings.Contains(reason, "NMI"), strings.Contains(reason, "IOCK"):
			f.Class, f.Title, f.culprit = Unknown, "panic by a non-maskable interrupt", ""
			if cr.Event != nil {
				f.Title += ": " + cr.Event.Message
				f.Evidence = append(f.Evidence, Evidence{Text: cr.Event.Message, Check: "log"})
			}
		case strings.Contains(reason, "VFS: Unable to mount root fs"), strings.Contains(reason, "No working init found"):
			f.Class, f.Title, f.culprit = Unknown, "the machine could not boot: "+reason, ""
		case strings.Contains(reason, "stack-protector"):
			f.Class = StackOverflow
		case strings.Contains(reason, "achine check"):
			f.Class = MachineCheck
		}
		return []Finding{f}
	},
}

// noReport is a crash of which the log says nothing: the CPU panicked, and that is
// all there is.
func noReport(c *Case) []Finding {
	if c.Crash.Trace == nil {
		return nil
	}
	if c.onStack("sysrq_handle_crash") {
		on := Evidence{Text: "sysrq_handle_crash is on the stack of the CPU that panicked", Check: "bt"}
		return []Finding{{
			Class:      UserPanic,
			Title:      "somebody crashed the machine on purpose, by sysrq",
			Confidence: Certain,
			Evidence:   append([]Evidence{on}, c.by()...),
		}}
	}
	return []Finding{{
		Class:      Unknown,
		Title:      "panic in " + functionOf(c.culpritName()) + "; the log has no report of it",
		Confidence: Possible,
		Evidence:   []Evidence{{Text: fmt.Sprintf("CPU %d panicked", c.Crash.CPU), Check: "bt"}},
	}}
}

// by says who pressed the key, where it was a program.
func (c *Case) by() []Evidence {
	t := c.Crash.Task
	if t == nil || t.Idle || !c.onStack("write_sysrq_trigger") {
		return nil
	}
	return []Evidence{{Text: fmt.Sprintf("%s (pid %d) wrote to /proc/sysrq-trigger", t.Comm, t.PID), Check: fmt.Sprintf("bt %d", t.PID)}}
}

// onStack reports whether a function is on the crashed task's stack.
func (c *Case) onStack(function string) bool {
	if c.Crash.Trace == nil {
		return false
	}
	f, _ := c.Crash.Trace.Find(function)
	return f != nil
}
