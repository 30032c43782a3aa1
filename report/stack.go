package report

import (
	"fmt"
	"io"
	"strings"

	"inquest/kernel/x86"
	"inquest/stack"
)

// Stack writes one stack as crash(8)'s bt does: the task, then each frame with the
// stack address behind its return address; the registers of an exception stand
// below the frame of its handler, those of user mode at the end.
func Stack(w io.Writer, t *stack.Trace, s Style) {
	fmt.Fprintf(w, "PID: %-8d TASK: %x  CPU: %-4d COMMAND: %s\n",
		t.Task.PID, uint64(t.Task.Addr), t.CPU, s.paint(bold, fmt.Sprintf("%q", clean(t.Task.Comm))))
	n := 0
	for i := range t.Frames {
		f := &t.Frames[i]
		if f.RegsAt != 0 {
			fmt.Fprintf(w, "    [exception RIP: %s]\n", s.paint(red, frameName(f)))
			registers(w, &f.Regs)
			called(w, f, s)
			continue
		}
		mark := ""
		if f.Guess {
			mark = "? "
		}
		fmt.Fprintf(w, "%3s [%016x] %s%s at %x\n", fmt.Sprintf("#%d", n), uint64(f.SP), mark, s.paint(cyan, frameName(f)), uint64(f.PC))
		if f.Exact && i == 0 && t.Running {
			registers(w, &f.Regs)
		}
		called(w, f, s)
		n++
	}
	if t.User != nil {
		if len(t.Frames) == 0 {
			fmt.Fprintln(w, "    (in user mode)")
		}
		registers(w, t.User)
	}
	if !t.Reliable {
		fmt.Fprintf(w, "    %s\n", s.paint(red, "not reliable: "+clean(t.Problem)))
	}
}

// called writes how a frame's function was called: its parameters, and the functions
// on the way that tail calls removed.
func called(w io.Writer, f *stack.Frame, s Style) {
	arguments(w, f.Args, s)
	for _, tail := range f.Tail {
		fmt.Fprintf(w, "    [%s: %s]\n", s.paint(cyan, clean(tail.Symbol.Name)), tailNote(tail))
		arguments(w, tail.Args, s)
	}
}

// arguments writes parameters, once they have been looked for.
func arguments(w io.Writer, args []stack.Arg, s Style) {
	for _, a := range args {
		switch {
		case a.Known:
			fmt.Fprintf(w, "        %s = %#x  %s\n", clean(declare(a)), a.Value, s.paint(dim, "("+clean(a.From)+")"))
		case a.Again != nil:
			fmt.Fprintf(w, "        %s: lost; it was %s, which is now %#x\n", clean(declare(a)), clean(a.Again.Expr), a.Again.Value)
		default:
			fmt.Fprintf(w, "        %s: unknown\n", clean(declare(a)))
		}
	}
}

// declare writes a parameter as C does.
func declare(a stack.Arg) string {
	switch {
	case a.Type == "":
		return a.Name
	case strings.HasSuffix(a.Type, "*"):
		return a.Type + a.Name
	case strings.Contains(a.Type, "(*)"):
		return strings.Replace(a.Type, "(*)", "(*"+a.Name+")", 1)
	}
	return a.Type + " " + a.Name
}

// registers writes a register file in crash's layout; those not known are left out.
func registers(w io.Writer, r *x86.Regs) {
	lines := [][]struct {
		label string
		reg   x86.Reg
		width int
	}{
		{{"RIP", x86.RIP, 16}, {"RSP", x86.RSP, 16}, {"RFLAGS", x86.EFlags, 8}},
		{{"RAX", x86.RAX, 16}, {"RBX", x86.RBX, 16}, {"RCX", x86.RCX, 16}},
		{{"RDX", x86.RDX, 16}, {"RSI", x86.RSI, 16}, {"RDI", x86.RDI, 16}},
		{{"RBP", x86.RBP, 16}, {"R8", x86.R8, 16}, {"R9", x86.R9, 16}},
		{{"R10", x86.R10, 16}, {"R11", x86.R11, 16}, {"R12", x86.R12, 16}},
		{{"R13", x86.R13, 16}, {"R14", x86.R14, 16}, {"R15", x86.R15, 16}},
		{{"ORIG_RAX", x86.OrigRAX, 16}, {"CS", x86.CS, 4}, {"SS", x86.SS, 4}},
	}
	for _, line := range lines {
		var parts []string
		for _, f := range line {
			if v, ok := r.Get(f.reg); ok {
				parts = append(parts, fmt.Sprintf("%s: %0*x", f.label, f.width, v))
			}
		}
		if len(parts) > 0 {
			fmt.Fprintf(w, "    %s\n", strings.Join(parts, "  "))
		}
	}
}
