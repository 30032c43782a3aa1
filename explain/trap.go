package explain

import (
	"fmt"
	"strings"
)

// Machine explains traps that no memory access raises.
var Machine = &Analyzer{
	Name: "trap",
	Doc:  "divide errors, invalid instructions, double faults, stack overflows, machine checks",
	Run: func(c *Case) []Finding {
		cr := c.Crash
		if cr == nil || cr.Event == nil {
			return nil
		}
		f := Finding{Confidence: Certain, Evidence: []Evidence{{Text: cr.Event.Message, Check: "log"}}}
		in := functionOf(c.culpritName())
		switch cr.Event.Kind {
		case KindDivide:
			f.Class, f.Title = DivideError, "division by zero, or an overflowing quotient, in "+in
		case KindInvalidOp:
			f.Class, f.Title = BadInstruction, "invalid instruction in "+in
		case KindStack:
			f.Class, f.Title, f.Weight = StackOverflow, "kernel stack overflow in "+in, 2
		case KindDouble:
			f.Class, f.Title, f.Weight = DoubleFault, "double fault in "+in, 1
			if ev, ok := c.stackGuard(); ok {
				f.Class, f.Title = StackOverflow, "kernel stack overflow in "+in
				f.Evidence = append(f.Evidence, ev)
			}
		case KindMachine:
			f.Class, f.Title = MachineCheck, "machine check: the hardware reported an error it could not correct"
		case KindOtherTrap:
			f.Class, f.Title = BadInstruction, cr.Event.Trigger+" trap in "+in
			if strings.HasPrefix(cr.Event.Trigger, "int3") {
				f.Title = "int3 breakpoint that nothing handled, in " + in
			}
		default:
			return nil
		}
		return []Finding{f}
	},
}

// stackGuard reports whether the trapped stack pointer had left the task's stack
// at its lower end.
func (c *Case) stackGuard() (Evidence, bool) {
	cr := c.Crash
	if cr.Fault == nil || cr.Task == nil {
		return Evidence{}, false
	}
	sp, low := cr.Fault.Regs.SP(), uint64(cr.Task.Stack)
	if low-sp > 64<<10 || sp >= low+256 {
		return Evidence{}, false
	}
	return Evidence{
		Text: fmt.Sprintf("rsp = %#x is at the lower end of the task's stack, which begins at %#x", sp, low),
		Addr: cr.Task.Stack,
	}, true
}
