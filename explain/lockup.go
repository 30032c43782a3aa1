package explain

import "fmt"

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
		// The stuck CPU may be another than the one that panicked.
		trace := cr.Trace
		at := ""
		if cr.Event.CPU >= 0 && cr.Event.CPU != cr.CPU {
			if t, err := c.Kernel.Current(cr.Event.CPU); err == nil {
				trace = c.Unwinder.Task(t)
				for i := range trace.Frames {
					if !dying(trace.Frames[i].Symbol.Name) {
						at, f.stack = trace.Frames[i].Name(), trace.Frames[i:]
						break
					}
				}
			}
		} else if trace != nil && len(trace.Frames) > 0 {
			at = c.culpritName()
		}
		if at != "" {
			f.Title += " in " + functionOf(at)
			f.Evidence = append(f.Evidence, Evidence{Text: "the CPU was at " + at, Check: fmt.Sprintf("bt --cpu %d", cr.Event.CPU)})
		}
		return []Finding{f}
	},
}
