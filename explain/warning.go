package explain

import "fmt"

// WarnTrap explains WARN() on a kernel that panics on warnings.
var WarnTrap = &Analyzer{
	Name: "warning",
	Doc:  "WARN() with panic_on_warn",
	Run: func(c *Case) []Finding {
		cr := c.Crash
		if cr == nil || cr.Event == nil || cr.Event.Kind != KindWarning {
			return nil
		}
		return []Finding{{
			Class:      Warning,
			Title:      fmt.Sprintf("warning in %s, which panic_on_warn made fatal", functionOf(c.culpritName())),
			Confidence: Certain,
			Evidence:   []Evidence{{Text: cr.Event.Message, Check: "log"}},
			Advice:     []string{"Without kernel.panic_on_warn=1 the machine would have gone on after this warning."},
		}}
	},
}
