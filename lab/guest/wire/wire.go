// Package wire is what a lab guest and its host tell each other over the guest's
// second serial port: the guest sends events, one JSON document a line; the host
// sends Resume.
package wire

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
)

// Processes are what init starts: /bin has a link to init for each.
var Processes = []string{"waiters", "spinner"}

// Resume is the line by which the host ends a guest's pause.
const Resume = "resume\n"

// Kind says what an event is about.
type Kind string

// The kinds, in the order in which a guest sends them.
const (
	Up      Kind = "up"      // a kernel has booted and its modules are loaded: Guest is set
	Ready   Kind = "ready"   // everything is in place: Tasks is set
	Ran     Kind = "ran"     // the command Name ended, with Output and perhaps an Error
	Begin   Kind = "begin"   // the scenario Name begins, in task Task
	Step    Kind = "step"    // the scenario is about to do what Text says
	Fact    Kind = "fact"    // the scenario knows that Name is Value
	Crasher Kind = "crasher" // the scenario expects Task to be the one that crashes
	Paused  Kind = "paused"  // the scenario waits at Name until the host sends Resume
	Ended   Kind = "ended"   // the scenario is over, and the machine lives
	Saved   Kind = "saved"   // the capture kernel wrote the dump Name
	Done    Kind = "done"    // the capture kernel wrote all: the disk holds Bytes
	Failed  Kind = "failed"  // Text did not work, because of Error; the guest gives up
)

// Event is one line of a guest's report.
type Event struct {
	Kind   Kind   `json:"event"`
	Guest  *Guest `json:"guest,omitempty"`
	Tasks  []Task `json:"tasks,omitempty"`
	Task   *Task  `json:"task,omitempty"`
	Name   string `json:"name,omitempty"`
	Value  any    `json:"value,omitempty"` // numbers as float64; 64-bit ones, addresses above all, as text
	Text   string `json:"text,omitempty"`
	Output string `json:"output,omitempty"`
	Bytes  int64  `json:"bytes,omitempty"`
	Error  string `json:"error,omitempty"`
}

// Guest is a booted kernel, as it describes itself.
type Guest struct {
	Release string `json:"release"` // uname -r
	Version string `json:"version"` // uname -v
	BuildID string `json:"build_id"`
	CPUs    int    `json:"cpus"`    // online
	Capture bool   `json:"capture"` // it is the capture kernel of a kdump
}

// Task is a thread that the guest's init started, or init itself.
type Task struct {
	PID  int    `json:"pid"` // of the thread
	TGID int    `json:"tgid"`
	Comm string `json:"comm"`
	// Stack is the kernel's own unwinding of a thread that sleeps for good:
	// function+offset, innermost first, without the scheduler's functions. It is
	// empty for threads that run, or may run again.
	Stack []string `json:"stack,omitempty"`
}

// ErrNotEvent is the error for a line that is no event.
var ErrNotEvent = errors.New("not an event of a lab guest")

// Parse reads one line.
func Parse(line []byte) (Event, error) {
	var e Event
	if err := json.Unmarshal(bytes.TrimSpace(line), &e); err != nil {
		return Event{}, fmt.Errorf("%w: %.80q: %w", ErrNotEvent, line, err)
	}
	if e.Kind == "" {
		return Event{}, fmt.Errorf("%w: %.80q", ErrNotEvent, line)
	}
	return e, nil
}

// Line is the event as Parse reads it, newline included. A Value that JSON has no
// form for becomes its text.
func (e Event) Line() []byte {
	text, err := json.Marshal(e)
	if err != nil {
		e.Value = fmt.Sprint(e.Value)
		if text, err = json.Marshal(e); err != nil { // no other member has a type that can fail
			panic(err)
		}
	}
	return append(text, '\n')
}
