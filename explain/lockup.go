package explain

import (
	"fmt"

	"inquest/stack"
)

// Lockup explains a CPU that one task kept for too long.
var Lockup = &Analyzer{
	Name: "lockup",
	Doc:  "soft and hard lockups: where the CPU was stuck",
	Run: func(c *Case) []Finding {
		cr := c.Crash
		if cr == nil || cr.Event == nil {
			return nil
		}
		f := Finding{Confidence: Certain, Evidence: []Evidence{{Text: cr.Event.Message, Check: "log"}}}
		switch cr.Event.Kind {
		case KindSoftLockup:
			f.Class = SoftLockup
			f.Title = "soft lockup"
		case KindHardLockup:
			f.Class = HardLockup
			f.Title = "hard lockup"
		default:
			return nil
		}
		if trace, frames := c.stuckFrames(); len(frames) > 0 {
			f.stack = frames
			if trace != cr.Trace {
				f.Trace = trace
			}
			f.Title += " in " + BlameFor(c.places(frames)).Function
			f.Evidence = append(f.Evidence, Evidence{
				Text:  fmt.Sprintf("%s kept CPU %d; it was at %s", c.stuckTask(), cr.Event.CPU, frames[0].Name()),
				Check: fmt.Sprintf("bt --cpu %d", cr.Event.CPU),
			})
			f.Evidence = append(f.Evidence, c.spinsFor(frames, cr.Event.CPU)...)
		}
		return []Finding{f}
	},
}

// stuckFrames is where the CPU of a lockup's report was. It may be another than the one
// that panicked.
func (c *Case) stuckFrames() (*stack.Trace, []stack.Frame) {
	cr := c.Crash
	trace, from := cr.Trace, cr.Culprit
	if trace != nil {
		end := endOfPanic(trace.Frames)
		for i := end; i < len(trace.Frames); i++ {
			if trace.Frames[i].RegsAt != 0 { // what the watchdog's timer interrupted
				from = i
				break
			}
		}
	}
	if cr.Event.CPU >= 0 && cr.Event.CPU != cr.CPU {
		t, _ := c.Kernel.Current(cr.Event.CPU)
		if t == nil {
			return nil, nil
		}
		trace, from = c.Unwinder.Task(t), 0
		for from < len(trace.Frames) && (dying(trace.Frames[from].Symbol.Name) || stopping[base(trace.Frames[from].Symbol.Name)]) {
			from++
		}
	}
	if trace == nil {
		return nil, nil
	}
	c.Unwinder.Arguments(trace)
	return trace, trace.Frames[min(from, len(trace.Frames)):]
}

// stuckTask is who ran there.
func (c *Case) stuckTask() string {
	if e := c.Crash.Event; e.Comm != "" {
		return fmt.Sprintf("%s (pid %d)", e.Comm, e.PID)
	}
	return "something"
}
