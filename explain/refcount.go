package explain

import (
	"fmt"
	"strings"
)

// RefCounter reports a reference counter that the kernel caught in an impossible
// change (lib/refcount.c).
var RefCounter = &Analyzer{
	Name: "refcount",
	Doc:  "a reference counter that went below zero, came back from zero, or overflowed",
	Run: func(c *Case) []Finding {
		rec, text := c.lastLine("refcount_t: ")
		if rec < 0 || !c.during(rec) {
			return nil
		}
		caller, _ := c.outside(plumbing) // refcount_warn_saturate, and what refcount_t's functions are where they are not inlined
		if e := c.Crash.Event; caller == "" && strings.Contains(e.Trigger+e.RIP, "refcount_warn_saturate") {
			// It may jump to a trap that all warnings share, whose frame is its caller (seen in 7.3).
			caller = c.culpritName()
		}
		if caller == "" {
			return nil
		}
		return []Finding{{
			Class:      RefCount,
			Title:      fmt.Sprintf("%s in %s", strings.TrimSuffix(strings.TrimPrefix(text, "refcount_t: "), "."), functionOf(caller)),
			Confidence: Certain,
			Weight:     2,
			culprit:    functionOf(caller),
			Evidence: []Evidence{
				{Text: "the kernel says: " + text, Check: "log"},
				{Text: "the counter was changed in " + caller, Check: "bt"},
			},
		}}
	},
}
