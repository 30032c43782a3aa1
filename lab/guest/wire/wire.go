// Package wire is what a lab guest tells the host: events, one JSON document a line,
// on the second serial port.
package wire

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
)

// Processes are what init starts: /bin has a link to init for each.
var Processes = []string{"waiters", "spinner"}

// Kind says what an event is about.
type Kind string

// The kinds, in the order in which a guest sends them.
const (
	Up     Kind = "up"     // a kernel has booted and its modules are loaded: Guest is set
	Ready  Kind = "ready"  // everything is in place for the crash: Tasks is set
	Ran    Kind = "ran"    // the command Way ended, with Output and perhaps an Error
	Crash  Kind = "crash"  // the next thing that the guest does is Way, in task Crasher
	Saved  Kind = "saved"  // the capture kernel wrote File
	Done   Kind = "done"   // the capture kernel wrote all: the disk holds Bytes
	Failed Kind = "failed" // Step did not work, because of Error; the guest gives up
)

// Event is one line of a guest's report.
type Event struct {
	Kind    Kind   `json:"event"`
	Guest   *Guest `json:"guest,omitempty"`
	Tasks   []Task `json:"tasks,omitempty"`
	Way     string `json:"way,omitempty"`
	Crasher *Task  `json:"crasher,omitempty"`
	Output  string `json:"output,omitempty"`
	File    string `json:"file,omitempty"`
	Bytes   int64  `json:"bytes,omitempty"`
	Step    string `json:"step,omitempty"`
	Error   string `json:"error,omitempty"`
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

// Line is the event as Parse reads it, newline included.
func (e Event) Line() []byte {
	text, err := json.Marshal(e)
	if err != nil { // no member has a type that can fail
		panic(err)
	}
	return append(text, '\n')
}
