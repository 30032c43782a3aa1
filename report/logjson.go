package report

import (
	"strings"

	"inquest/console"
	"inquest/explain"
)

// LogExplanation is what `explain --json` prints for a log: an [Explanation] without
// what a log does not say.
type LogExplanation struct {
	Dump     DumpFacts   `json:"dump"`
	Crash    *LogCrash   `json:"crash"` // null when the text has no report
	Findings []Finding   `json:"findings"`
	Stack    *LogStack   `json:"stack"`
	Log      []string    `json:"log"`
	Reports  []LogReport `json:"reports"`
}

// LogCrash is [Crash] for a log.
type LogCrash struct {
	Kind        string         `json:"kind"`
	Message     string         `json:"message"`
	Panic       string         `json:"panic,omitempty"`
	Fatal       bool           `json:"fatal"` // the machine did not survive it
	CPU         *int           `json:"cpu,omitempty"`
	PID         *int           `json:"pid,omitempty"`
	Comm        string         `json:"comm,omitempty"`
	Host        string         `json:"host,omitempty"` // that wrote the report
	Hardware    string         `json:"hardware,omitempty"`
	Workqueue   string         `json:"workqueue,omitempty"`
	PC          *hex           `json:"pc,omitempty"`
	Symbol      string         `json:"symbol,omitempty"`
	Address     *hex           `json:"address,omitempty"` // that was accessed
	Instruction string         `json:"instruction,omitempty"`
	Registers   map[string]hex `json:"registers,omitempty"`
	Doubts      []string       `json:"doubts,omitempty"`
}

// LogStack is [TaskStack] for a log.
type LogStack struct {
	PID    *int       `json:"pid,omitempty"`
	Comm   string     `json:"comm,omitempty"`
	CPU    *int       `json:"cpu,omitempty"`
	Frames []LogFrame `json:"frames"`
}

// LogFrame is [StackFrame] for a log.
type LogFrame struct {
	PC        *hex    `json:"pc,omitempty"`
	Symbol    string  `json:"symbol"`
	Offset    *uint64 `json:"offset,omitempty"`
	Module    string  `json:"module"`
	File      string  `json:"file,omitempty"` // and line, where a symbolizer added it
	Guess     bool    `json:"guess,omitempty"`
	Inline    bool    `json:"inline,omitempty"`
	Exception bool    `json:"exception,omitempty"`
}

// LogReport is a report of the log, in short.
type LogReport struct {
	Line    int64    `json:"line"`
	Time    *float64 `json:"time,omitempty"` // seconds since boot
	Host    string   `json:"host,omitempty"`
	Boot    int      `json:"boot"` // number of the boot in the text
	Kind    string   `json:"kind"`
	Message string   `json:"message"`
}

// LogJSON puts the case of a log into the shape of `explain --json`.
func LogJSON(c *explain.TextCase, findings []explain.Finding) LogExplanation {
	e := LogExplanation{
		Dump:     DumpFacts{Format: c.Log.Format, Release: c.Release(), Machine: c.Log.Machine},
		Findings: findingsJSON(findings),
		Log:      []string{},
		Reports:  []LogReport{},
	}
	for _, r := range c.Log.Reports {
		lr := LogReport{Line: r.Opening.Number, Host: r.Opening.Source, Boot: r.Boot, Kind: string(r.Kind), Message: r.Message}
		if r.Opening.Timed {
			s := r.Opening.Time.Seconds()
			lr.Time = &s
		}
		e.Reports = append(e.Reports, lr)
	}
	r := c.Report
	if r == nil {
		return e
	}
	e.Dump.Taint = r.Taint
	e.Crash = logCrash(c)
	e.Stack = logStack(c)
	for _, l := range r.Before {
		e.Log = append(e.Log, lineText(l))
	}
	for _, l := range r.Lines[:min(len(r.Lines), 100)] {
		e.Log = append(e.Log, lineText(l))
	}
	return e
}

func logCrash(c *explain.TextCase) *LogCrash {
	r := c.Report
	out := &LogCrash{
		Kind: string(r.Kind), Message: r.Message, Panic: r.Panic, Fatal: r.Fatal, CPU: orNil(r.CPU), PID: orNil(r.PID), Comm: r.Comm,
		Host: r.Opening.Source, Hardware: r.Hardware, Workqueue: r.Workqueue, Doubts: c.Doubts,
	}
	if r.HasAddress {
		a := hex(r.Address)
		out.Address = &a
	}
	m := r.Main()
	if m == nil {
		return out
	}
	if m.PC != nil {
		if out.Symbol = m.PC.String(); m.PC.Symbol == "" || m.PC.Addr != 0 {
			pc := hex(m.PC.Addr)
			out.PC = &pc
		}
	}
	if code := codeOf(r, m); len(code) > 0 {
		out.Instruction = strings.TrimSpace(code[0].Text)
	}
	for _, reg := range m.Registers {
		if out.Registers == nil {
			out.Registers = map[string]hex{}
		}
		out.Registers[registerAs(reg.Name)] = hex(reg.Value)
	}
	return out
}

// registerAs is a register's name as the reports of dumps have it: r08 is r8.
func registerAs(name string) string {
	if name == "r08" || name == "r09" {
		return "r" + name[2:]
	}
	return name
}

func logStack(c *explain.TextCase) *LogStack {
	frames := c.Stack()
	if len(frames) == 0 {
		return nil
	}
	out := &LogStack{PID: orNil(c.Report.PID), Comm: c.Report.Comm, CPU: orNil(c.Report.CPU), Frames: []LogFrame{}}
	for i := range frames {
		out.Frames = append(out.Frames, logFrame(&frames[i]))
	}
	return out
}

func logFrame(f *console.Frame) LogFrame {
	lf := LogFrame{Symbol: f.Symbol, Module: f.Module, File: f.File, Guess: f.Guess, Inline: f.Inline, Exception: f.Trap}
	if f.Addr != 0 || f.Symbol == "" {
		pc := hex(f.Addr)
		lf.PC = &pc
	}
	if f.Symbol != "" && !f.Inline {
		off := f.Offset
		lf.Offset = &off
	}
	return lf
}

// orNil is a number that may be -1 for unknown.
func orNil(n int) *int {
	if n < 0 {
		return nil
	}
	return &n
}
