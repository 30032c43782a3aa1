package explain

import "fmt"

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
			frames := c.Unwinder.Task(t).Frames
			for i, fr := range frames {
				if name := base(fr.Symbol.Name); !scheduling[name] {
					f.stack = frames[i:]
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
		default:
			return nil
		}
		return []Finding{f}
	},
}

// scheduling are the functions in which every sleeping task is.
var scheduling = set("__schedule", "schedule", "schedule_timeout", "schedule_preempt_disabled", "io_schedule", "io_schedule_timeout",
	"schedule_hrtimeout_range", "schedule_hrtimeout_range_clock", "schedule_hrtimeout", "context_switch", "__switch_to_asm",
	"wait_for_completion", "__wait_for_common", "wait_for_common", "do_wait_for_common")
