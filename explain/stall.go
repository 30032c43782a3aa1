package explain

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"inquest/kernel"
	"inquest/stack"
)

// Stall explains tasks and CPUs that made no progress.
var Stall = &Analyzer{
	Name: "stall",
	Doc:  "hung tasks and RCU stalls that a panic was set for",
	Run: func(c *Case) []Finding {
		cr := c.Crash
		if cr == nil || cr.Event == nil {
			return nil
		}
		f := Finding{Confidence: Certain, Evidence: []Evidence{{Text: cr.Event.Message, Check: "log"}}}
		switch cr.Event.Kind {
		case KindHungTask:
			f.Class = HungTask
			f.Title = "task blocked for too long"
			t, err := c.Kernel.FindTask(cr.Event.PID)
			if err != nil {
				break
			}
			f.Evidence = append(f.Evidence, c.heldBy(t)...)
			trace := c.Unwinder.Task(t)
			c.Unwinder.Arguments(trace) // finds what left the stack by a tail call, too
			frames := trace.Frames
			for i, fr := range frames {
				if name := base(fr.Symbol.Name); !scheduling[name] {
					f.Trace, f.stack = trace, frames[max(0, i-1):] // with what the last of the scheduler's replaced
					f.Title += " in " + BlameFor(c.places(f.stack)).Function
					f.Evidence = append(f.Evidence, Evidence{
						Text: fmt.Sprintf("pid %d waits in %s", t.PID, fr.Name()), Check: fmt.Sprintf("bt %d", t.PID),
					})
					break
				}
			}
		case KindRCUStall:
			f.Class = RCUStall
			f.Title = "RCU grace period stalled"
			c.stalledBy(&f)
		default:
			return nil
		}
		return []Finding{f}
	},
}

// holdsUp are the lines that name what a grace period waits for (kernel/rcu/tree_stall.h,
// tree_exp.h): a CPU with its flags ("1-....: (2 GPs behind)"), or a task ("P42").
var holdsUp = regexp.MustCompile(`(?:^(?:rcu:)?\s*|\{ )(\d+)-[.!ODoN?0-9]+(?::| )|(?:blocked on level-\d+ rcu_node .*:|\{|\}) P(\d+)`)

// stalledBy says which CPU or task the grace period waits for, and where that is.
func (c *Case) stalledBy(f *Finding) {
	const after = 12 // lines
	from := c.Crash.Event.Record
	for _, rec := range c.Log[from:min(from+after, len(c.Log))] {
		for line := range strings.Lines(rec.Text) {
			m := holdsUp.FindStringSubmatch(strings.TrimSpace(line))
			if m == nil {
				continue
			}
			var t *kernel.Task
			text, check := "", ""
			if cpu, err := strconv.Atoi(m[1]); err == nil {
				t, _ = c.Kernel.Current(cpu)
				text, check = fmt.Sprintf("it waits for CPU %d", cpu), fmt.Sprintf("bt --cpu %d", cpu)
			} else if pid, err := strconv.Atoi(m[2]); err == nil {
				t, _ = c.Kernel.FindTask(pid)
				text, check = fmt.Sprintf("it waits for pid %d, inside of a reader's critical section", pid), fmt.Sprintf("bt %d", pid)
			}
			if t == nil {
				continue
			}
			trace := c.Unwinder.Task(t)
			c.Unwinder.Arguments(trace)
			f.Trace, f.stack = trace, trace.Frames[interruptedAt(trace):]
			if b := BlameFor(c.places(f.stack)); b.Function != "" {
				f.Title += " by " + b.Function
				text += ", which is in " + f.stack[0].Name()
			}
			f.Evidence = append(f.Evidence, Evidence{Text: text, Check: check})
			return
		}
	}
}

// interruptedAt is the frame in which a CPU was when the innermost interrupt came; 0 when
// there was none.
func interruptedAt(t *stack.Trace) int {
	for i := range t.Frames {
		if t.Frames[i].RegsAt != 0 {
			return i
		}
	}
	return 0
}

// scheduling are the functions in which every sleeping task is.
var scheduling = set("__schedule", "schedule", "schedule_timeout", "schedule_preempt_disabled", "io_schedule", "io_schedule_timeout",
	"schedule_hrtimeout_range", "schedule_hrtimeout_range_clock", "schedule_hrtimeout", "context_switch", "__switch_to_asm",
	"wait_for_completion", "__wait_for_common", "wait_for_common", "do_wait_for_common")
