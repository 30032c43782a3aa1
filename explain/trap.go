package explain

import (
	"encoding/binary"
	"fmt"
	"strings"

	"golang.org/x/arch/x86/x86asm"

	"inquest/kernel"
	"inquest/kernel/x86"
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
			if v, operand, ok := c.divisor(); ok {
				f.Title = "division by zero in " + in
				if v != 0 {
					f.Title = "division whose quotient overflows in " + in
				}
				f.Evidence = append(f.Evidence, Evidence{
					Text: fmt.Sprintf("%s at %s: %s is %#x", cr.Fault.Insn.Text(c.symname), c.culpritName(), operand, v),
					Addr: cr.Fault.PC, Check: fmt.Sprintf("dis -r %v", cr.Fault.PC),
				})
			}
		case KindInvalidOp:
			f.Class, f.Title = BadInstruction, "invalid instruction in "+in
		case KindStack:
			f.Class, f.Title, f.Weight = StackOverflow, "kernel stack overflow in "+in, 2
			if ev, ok := c.farFromGuard(); ok {
				f.Class, f.Title = OutOfBounds, "access beyond the end of a stack that is not full, in "+in
				f.Evidence = append(f.Evidence, ev)
			}
		case KindDouble:
			f.Class, f.Title, f.Weight = DoubleFault, "double fault in "+in, 1
			if ev, ok := c.stackGuard(); ok {
				f.Class, f.Title = StackOverflow, "kernel stack overflow in "+in
				f.Evidence = append(f.Evidence, ev)
			}
		case KindMachine:
			f.Class, f.Title = MachineCheck, "machine check: the hardware reported an error it could not correct"
			c.explainMachineCheck(&f)
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

// divisor is what the trapped instruction divided by.
func (c *Case) divisor() (v uint64, operand string, ok bool) {
	site := c.Crash.Fault
	if site == nil || !site.Known || site.Insn.Op != x86asm.DIV && site.Insn.Op != x86asm.IDIV {
		return 0, "", false
	}
	if r, isReg := site.Insn.Args[0].(x86asm.Reg); isReg {
		reg, mask, known := x86.General(r)
		if v, ok = site.Regs.Get(reg); !known || !ok {
			return 0, "", false
		}
		return v & mask, strings.ToLower(r.String()), true
	}
	for _, a := range site.Insn.Accesses() {
		at, known := a.Address(&site.Regs)
		size := site.Insn.MemBytes
		if !known || size < 1 || size > 8 {
			continue
		}
		var b [8]byte
		if c.Kernel.Read(b[:size], kernel.Addr(at)) == nil {
			return binary.LittleEndian.Uint64(b[:]), fmt.Sprintf("what lies at %#x", at), true
		}
	}
	return 0, "", false
}

// farFromGuard reports whether the trapped stack pointer was well inside of the task's
// stack: then the guard page was hit by an address that has nothing to do with it.
func (c *Case) farFromGuard() (Evidence, bool) {
	cr := c.Crash
	if cr.Fault == nil || cr.Task == nil {
		return Evidence{}, false
	}
	const room = 1 << 10 // more than the access of any one frame's beginning reaches down
	sp, low := cr.Fault.Regs.SP(), uint64(cr.Task.Stack)
	if low == 0 || sp < low+room || sp-low > 64<<10 {
		return Evidence{}, false
	}
	return Evidence{
		Text: fmt.Sprintf("rsp = %#x is %d bytes above the lower end of the task's stack: it had not overflowed", sp, sp-low),
		Addr: cr.Task.Stack,
	}, true
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
