package stack

import (
	"fmt"

	"inquest/kernel"
	"inquest/kernel/x86"
)

// Frame is one function on a stack.
type Frame struct {
	PC     kernel.Addr // the return address, or where the function was interrupted
	SP     kernel.Addr // stack pointer at PC
	Symbol kernel.Symbol
	Offset uint64 // of PC in Symbol; meaningless without one
	// Exact is set where PC is the instruction that was running or about to run:
	// the frame a trap interrupted, or the innermost one of a running CPU. Else PC
	// is behind a call.
	Exact bool
	// Guess is set where only a scan of the stack suggests the frame: crash and the
	// kernel mark these with a question mark.
	Guess bool
	// Regs are the registers known at PC; those of an exception are complete.
	Regs x86.Regs
	// Args are the function's parameters, once [Unwinder.Arguments] has looked for them.
	Args []Arg
	// Tail are functions between this one and its caller that left the stack by a tail
	// call: the caller called the last of them, which jumped on, and so on to here.
	Tail []TailCall
	// RegsAt is where the exception's struct pt_regs lies, 0 for an ordinary frame.
	RegsAt kernel.Addr
}

// Name returns "symbol+0xoffset [module]", or the bare address.
func (f *Frame) Name() string {
	if f.Symbol.Name == "" {
		return f.PC.String()
	}
	s := fmt.Sprintf("%s+%#x", f.Symbol.Name, f.Offset)
	if f.Symbol.Module != "" {
		s += " [" + f.Symbol.Module + "]"
	}
	return s
}

// Trace is the stack of one task.
type Trace struct {
	Task     *kernel.Task
	CPU      int       // it was on, or ran on last
	Running  bool      // unwound from a CPU's registers
	Source   string    // where the first frame comes from
	Frames   []Frame   // innermost first
	User     *x86.Regs // the registers of user mode in which the stack ends, nil for a kernel thread
	Reliable bool      // every frame follows from the tables, down to a proper end
	Problem  string    // why it is not reliable

	acts []*activation // of each frame, once Arguments has run
}

// Find returns the innermost frame of a function, and its number.
func (t *Trace) Find(function string) (*Frame, int) {
	for i := range t.Frames {
		if t.Frames[i].Symbol.Name == function {
			return &t.Frames[i], i
		}
	}
	return nil, -1
}
