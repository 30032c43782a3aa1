package report

import (
	"fmt"
	"strings"

	"inquest/explain"
	"inquest/kernel"
	"inquest/kernel/x86"
	"inquest/stack"
)

// hex is a number that JSON has as a string: "0xffffffff81000000".
type hex uint64

func (h hex) MarshalText() ([]byte, error) { return fmt.Appendf(nil, "%#x", uint64(h)), nil }

// Stacks is what `bt --json` prints.
type Stacks struct {
	Release string      `json:"release"`
	Crashed *TaskID     `json:"crashed"` // null when no CPU panicked
	Tasks   []TaskStack `json:"tasks"`
}

// TaskID names a task.
type TaskID struct {
	PID  int    `json:"pid"`
	CPU  int    `json:"cpu"`
	Task hex    `json:"task"`
	Comm string `json:"comm"`
}

// TaskStack is one task and its frames, innermost first.
type TaskStack struct {
	PID      int            `json:"pid"`
	Comm     string         `json:"comm"`
	Task     hex            `json:"task"`
	CPU      int            `json:"cpu"`
	State    string         `json:"state"`
	Reliable bool           `json:"reliable"`
	Problem  string         `json:"problem,omitempty"`
	Frames   []StackFrame   `json:"frames"`
	User     map[string]hex `json:"user_registers,omitempty"`
}

// StackFrame is one frame. Registers are there where an exception interrupted it.
type StackFrame struct {
	PC        hex            `json:"pc"`
	SP        hex            `json:"sp"`
	Symbol    string         `json:"symbol"`
	Offset    uint64         `json:"offset"`
	Module    string         `json:"module"`
	Guess     bool           `json:"guess,omitempty"`
	Exception bool           `json:"exception,omitempty"`
	Registers map[string]hex `json:"registers,omitempty"`
	Args      []Argument     `json:"args,omitempty"`
	TailCalls []TailCall     `json:"tail_calls,omitempty"`
}

// Argument is a parameter of a frame's function; its value is null where unknown.
type Argument struct {
	Name  string `json:"name"`
	Type  string `json:"type"`
	Value *hex   `json:"value"`
	From  string `json:"from"`
	// Where the value is lost, but not where it was read from: the C expression that
	// was read, and what it is now.
	Expr string `json:"expr,omitempty"`
	Now  *hex   `json:"now,omitempty"`
}

// TailCall is a function between a frame and its caller that a jump replaced.
type TailCall struct {
	Symbol string     `json:"symbol"`
	Module string     `json:"module"`
	OneOf  bool       `json:"one_of_several,omitempty"`
	Args   []Argument `json:"args,omitempty"`
}

func argumentList(args []stack.Arg) []Argument {
	var out []Argument
	for _, a := range args {
		arg := Argument{Name: a.Name, Type: a.Type, From: a.From}
		if a.Known {
			v := hex(a.Value)
			arg.Value = &v
		}
		if a.Again != nil {
			v := hex(a.Again.Value)
			arg.Expr, arg.Now = a.Again.Expr, &v
		}
		out = append(out, arg)
	}
	return out
}

// StacksJSON puts stacks into the shape of `bt --json`.
func StacksJSON(release string, crashed *kernel.Task, traces []*stack.Trace) Stacks {
	s := Stacks{Release: release, Tasks: []TaskStack{}}
	if crashed != nil {
		s.Crashed = &TaskID{crashed.PID, crashed.CPU, hex(crashed.Addr), crashed.Comm}
	}
	for _, t := range traces {
		s.Tasks = append(s.Tasks, taskStack(t))
	}
	return s
}

func taskStack(t *stack.Trace) TaskStack {
	ts := TaskStack{
		PID: t.Task.PID, Comm: t.Task.Comm, Task: hex(t.Task.Addr), CPU: t.CPU, State: t.Task.State,
		Reliable: t.Reliable, Problem: t.Problem, Frames: []StackFrame{},
	}
	for i := range t.Frames {
		f := &t.Frames[i]
		sf := StackFrame{
			PC: hex(f.PC), SP: hex(f.SP), Symbol: f.Symbol.Name, Offset: f.Offset, Module: f.Symbol.Module,
			Guess: f.Guess, Exception: f.RegsAt != 0,
		}
		if f.RegsAt != 0 || f.Exact && i == 0 {
			sf.Registers = registerMap(&f.Regs)
		}
		sf.Args = argumentList(f.Args)
		for _, tail := range f.Tail {
			sf.TailCalls = append(sf.TailCalls, TailCall{tail.Symbol.Name, tail.Symbol.Module, tail.OneOf, argumentList(tail.Args)})
		}
		ts.Frames = append(ts.Frames, sf)
	}
	if t.User != nil {
		ts.User = registerMap(t.User)
	}
	return ts
}

func registerMap(r *x86.Regs) map[string]hex {
	m := map[string]hex{}
	for n := x86.Reg(0); n < x86.NumRegs; n++ {
		if v, ok := r.Get(n); ok {
			m[n.String()] = hex(v)
		}
	}
	return m
}

// Explanation is what `explain --json` prints.
type Explanation struct {
	Dump     DumpFacts  `json:"dump"`
	Crash    *Crash     `json:"crash"` // null when nothing says that the machine crashed
	Findings []Finding  `json:"findings"`
	Stack    *TaskStack `json:"stack"`
	Log      []string   `json:"log"` // the lines before the crash, and the report
}

// DumpFacts says what was read.
type DumpFacts struct {
	Format  string `json:"format"`
	Release string `json:"release"`
	BuildID string `json:"build_id,omitempty"`
	Machine string `json:"machine"`
	Taint   string `json:"taint,omitempty"`
}

// Crash is how the machine died.
type Crash struct {
	Kind        string         `json:"kind"`
	Message     string         `json:"message"`
	Panic       string         `json:"panic,omitempty"`
	CPU         int            `json:"cpu"`
	PID         *int           `json:"pid"`
	Comm        string         `json:"comm,omitempty"`
	PC          *hex           `json:"pc,omitempty"`
	Symbol      string         `json:"symbol,omitempty"`
	Instruction string         `json:"instruction,omitempty"`
	Registers   map[string]hex `json:"registers,omitempty"`
	Doubts      []string       `json:"doubts,omitempty"`
}

// Finding is explain.Finding with its addresses as strings.
type Finding struct {
	explain.Finding
	Evidence []Evidence `json:"evidence"`
	Objects  []Object   `json:"objects"`
	Pointer  *Pointer   `json:"pointer,omitempty"`
	Overrun  []Overrun  `json:"overrun,omitempty"`
	Advice   []string   `json:"advice"`
}

// Evidence is explain.Evidence with its address as a string.
type Evidence struct {
	explain.Evidence
	Addr hex `json:"addr,omitempty"`
}

// Object is explain.Object with its address as a string.
type Object struct {
	explain.Object
	Addr hex `json:"addr"`
}

// Pointer is explain.Pointer with its value as a string.
type Pointer struct {
	explain.Pointer
	Value hex `json:"value"`
}

// Overrun is explain.Overrun with its address as a string.
type Overrun struct {
	explain.Overrun
	Addr hex `json:"addr"`
}

// JSON puts a case and its findings into the shape of `explain --json`.
func JSON(c *explain.Case, findings []explain.Finding) Explanation {
	k := c.Kernel
	e := Explanation{
		Dump:     DumpFacts{Format: k.Dump.Format, Release: k.Release, BuildID: k.BuildID, Machine: k.Dump.Machine, Taint: k.Taint()},
		Findings: findingsJSON(findings),
		Log:      []string{},
	}
	if c.Crash != nil {
		e.Crash = crashJSON(c)
		if c.Crash.Trace != nil {
			ts := taskStack(c.Crash.Trace)
			e.Stack = &ts
		}
	}
	for _, l := range logLines(c, 100, 0) {
		e.Log = append(e.Log, l.Text)
	}
	return e
}

// findingsJSON puts findings into their shape in JSON.
func findingsJSON(findings []explain.Finding) []Finding {
	all := []Finding{}
	for _, f := range findings {
		out := Finding{Finding: f, Evidence: []Evidence{}, Objects: []Object{}, Advice: append([]string{}, f.Advice...)}
		for _, ev := range f.Evidence {
			out.Evidence = append(out.Evidence, Evidence{ev, hex(ev.Addr)})
		}
		for _, o := range f.Objects {
			out.Objects = append(out.Objects, Object{o, hex(o.Addr)})
		}
		if f.Pointer != nil {
			out.Pointer = &Pointer{*f.Pointer, hex(f.Pointer.Value)}
		}
		for _, o := range f.Overrun {
			out.Overrun = append(out.Overrun, Overrun{o, hex(o.Addr)})
		}
		all = append(all, out)
	}
	return all
}

func crashJSON(c *explain.Case) *Crash {
	cr := c.Crash
	out := &Crash{Kind: "unknown", CPU: cr.CPU, Doubts: cr.Doubts}
	if cr.Panic != nil {
		out.Kind, out.Message, out.Panic = string(cr.Panic.Kind), cr.Panic.Message, cr.Panic.Trigger
	}
	if cr.Event != nil {
		out.Kind, out.Message = string(cr.Event.Kind), cr.Event.Message
	}
	if cr.Task != nil {
		out.PID, out.Comm = &cr.Task.PID, cr.Task.Comm
	}
	if cr.Trace != nil && len(cr.Trace.Frames) > 0 {
		f := &cr.Trace.Frames[cr.Culprit]
		pc := hex(f.PC)
		out.PC, out.Symbol = &pc, f.Name()
	}
	if cr.Fault != nil {
		if cr.Fault.Known {
			out.Instruction = strings.TrimSpace(cr.Fault.Insn.Text(nil))
		}
		out.Registers = registerMap(&cr.Fault.Regs)
	}
	return out
}
