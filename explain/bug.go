package explain

import (
	"fmt"
	"strings"

	"golang.org/x/arch/x86/x86asm"
)

// BugTrap explains BUG(): the kernel found itself in a state that must not be.
var BugTrap = &Analyzer{
	Name: "bug",
	Doc:  "BUG() and BUG_ON(), with the place in the source",
	Run: func(c *Case) []Finding {
		cr := c.Crash
		if cr == nil || cr.Event == nil || cr.Event.Kind != KindBug && cr.Event.Kind != KindProtector {
			return nil
		}
		at := c.culpritName()
		if cr.Event.Kind == KindProtector {
			return []Finding{{
				Class:      StackOverflow,
				Title:      "stack protector found a smashed stack in " + functionOf(c.protected()),
				Confidence: Certain,
				Weight:     1,
				Evidence:   []Evidence{{Text: cr.Event.Message, Check: "log"}},
			}}
		}
		f := Finding{
			Class:      Bug,
			Title:      "BUG in " + functionOf(at),
			Confidence: Certain,
			Weight:     1,
			Evidence:   []Evidence{{Text: cr.Event.Message, Check: "log"}},
		}
		if cr.Fault != nil && isUD(cr.Fault.Insn.Op, cr.Fault.Insn.Text(nil)) {
			f.Evidence = append(f.Evidence, Evidence{
				Text: fmt.Sprintf("the CPU stopped at the ud2 of that BUG(), at %s", at), Addr: cr.Fault.PC,
				Check: fmt.Sprintf("dis -r %v", cr.Fault.PC),
			})
		} else if cr.Fault != nil {
			f.Confidence = Likely
		}
		return []Finding{f}
	},
}

// protected is the function whose stack protector failed: it called
// __stack_chk_fail, and the message names it.
func (c *Case) protected() string {
	if i := strings.LastIndex(c.Crash.Event.Message, "in: "); i >= 0 {
		return c.Crash.Event.Message[i+4:]
	}
	return c.culpritName()
}

func isUD(op x86asm.Op, text string) bool {
	return op == x86asm.UD2 || op == x86asm.UD1 || text == "ud1"
}
