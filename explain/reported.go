package explain

import (
	"fmt"
	"strings"

	"inquest/console"
)

// Reported takes over what the kernel's own checkers wrote before the end, where that is
// all that is known of the cause: KASAN, KFENCE, UBSAN, lockdep, SLUB's debugging. A
// report and the panic that it led to are one event; one long before is none.
var Reported = &Analyzer{
	Name: "reported",
	Doc:  "reports of the kernel's own checkers: KASAN, KFENCE, UBSAN, SLUB's debugging, lock checks",
	Run: func(c *Case) []Finding {
		// KASAN's reports have two stacks, and all CPUs' backtraces may follow. A machine
		// that lives on is asked for whatever it reported.
		before, end := 400, len(c.Log)
		switch cr := c.Crash; {
		case cr == nil:
			before = maxLog
		case cr.Panic == nil:
			return nil
		default:
			end = cr.Panic.Record + 1
		}
		from := max(0, end-before)
		var text strings.Builder
		for _, r := range c.Log[from:end] {
			for line := range strings.Lines(r.Text) {
				fmt.Fprintf(&text, "[%5d.%06d] %s\n", int64(r.Time.Seconds()), r.Time.Microseconds()%1e6, strings.TrimRight(line, "\n"))
			}
		}
		log, err := console.Read(strings.NewReader(text.String()))
		if err != nil {
			return nil
		}
		for i := len(log.Reports) - 1; i >= 0; i-- {
			for _, a := range []*TextAnalyzer{TextSanitizer, TextSlab, TextLocks} {
				f, ok := a.Run(log.Reports[i])
				if !ok {
					continue
				}
				f.Weight, f.Blame = 3, blameText(log.Reports[i])
				for j := range f.Evidence {
					f.Evidence[j].Line, f.Evidence[j].Check = 0, "log"
				}
				return []Finding{f}
			}
		}
		return nil
	},
}
