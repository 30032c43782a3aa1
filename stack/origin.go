package stack

import (
	"fmt"

	"inquest/kernel"
)

// origin is how a value was found.
type origin struct {
	kind  originKind
	frame *Frame      // whose register it is, or whose function saved or passed it
	name  string      // of the function, where it is not the frame's
	reg   gpr         // that held it
	at    kernel.Addr // on the stack
	off   int64       // that was taken from what was found
	of    *origin     // of a value set or passed on: how that was found
}

type originKind uint8

const (
	originUnknown  originKind = iota
	originRegister            // a register at the frame's pc
	originSwitched            // a register that __switch_to_asm() saved
	originSaved               // a callee-saved register, saved on the stack
	originSpilled             // kept on the function's own stack
	originStack               // an argument that was passed on the stack
	originFrame               // an address in the frame, or a register that is one
	originConstant
	originSet    // what the caller set
	originPassed // what the function passed on to the one it called
	originEqual  // what is equal to another argument, as the caller set both
)

func (o origin) String() string {
	s := o.words()
	switch {
	case o.off < 0:
		return fmt.Sprintf("%s, plus %#x", s, -o.off)
	case o.off > 0:
		return fmt.Sprintf("%s, minus %#x", s, o.off)
	}
	return s
}

func (o origin) words() string {
	switch o.kind {
	case originRegister:
		return fmt.Sprintf("%v at %s", o.reg, o.frame.Name())
	case originSwitched:
		return fmt.Sprintf("%v, saved when the task was switched out", o.reg)
	case originSaved:
		return fmt.Sprintf("%v, saved by %s at %v", o.reg, o.name, o.at)
	case originSpilled:
		return fmt.Sprintf("spilled by %s at %v", o.name, o.at)
	case originStack:
		return fmt.Sprintf("passed on the stack at %v", o.at)
	case originFrame:
		return fmt.Sprintf("address in %s's frame", o.name)
	case originConstant:
		return "constant"
	case originPassed:
		return fmt.Sprintf("passed on to %s: %v", o.name, o.of)
	case originEqual:
		return fmt.Sprintf("equal to %v", o.of)
	case originSet:
		switch o.of.kind {
		case originConstant:
			return fmt.Sprintf("constant in %s", o.name)
		case originFrame, originPassed:
			if o.of.name == o.name || o.of.kind == originFrame {
				return o.of.words()
			}
		case originSpilled:
			if o.of.name == o.name {
				return o.of.String()
			}
		case originSaved, originSwitched, originRegister:
			return fmt.Sprintf("set by %s from %v", o.name, o.of)
		}
		return fmt.Sprintf("set by %s, %v", o.name, o.of)
	}
	return "unknown"
}
