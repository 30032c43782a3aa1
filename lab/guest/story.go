//go:build linux

package guest

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"inquest/lab/guest/wire"
)

// stories are the scenarios' parts in the guest, by the names that package lab gives
// the scenarios. A family's name alone ("lkdtm") serves all of it ("lkdtm/BUG").
//
// A story runs on the main thread of PID 1. One that returns has survived.
var stories = map[string]func(*story) error{
	"none":          func(*story) error { return nil },
	"nfqueue-reqsk": reqsk,
	"sysrq":         sysrq,
}

// story is what a scenario's code in the guest gets, and tells the host through.
type story struct {
	Name   string // of the scenario
	family string
	set    map[string]string
}

func newStory(name string, assignments []string) *story {
	family, _, _ := strings.Cut(name, "/")
	s := &story{Name: name, family: family, set: make(map[string]string)}
	for _, a := range assignments {
		key, value, _ := strings.Cut(a, "=")
		s.set[key] = value
	}
	return s
}

// tell has the story happen.
func (s *story) tell() error {
	f := stories[s.Name]
	if f == nil {
		f = stories[s.family]
	}
	if f == nil {
		return fmt.Errorf("the guest knows only %s", strings.Join(slices.Sorted(maps.Keys(stories)), ", "))
	}
	return f(s)
}

// Option is the value of an option. The host has filled in the defaults, and refused
// what the scenario has not.
func (s *story) Option(key string) string { return s.set[key] }

// Number is the value of an option that is a whole number.
func (s *story) Number(key string) (int, error) {
	n, err := strconv.Atoi(s.set[key])
	if err != nil {
		return 0, fmt.Errorf("option %s: %w", key, err)
	}
	return n, nil
}

// Duration is the value of an option that is a time, such as "1.5s".
func (s *story) Duration(key string) (time.Duration, error) {
	d, err := time.ParseDuration(s.set[key])
	if err != nil {
		return 0, fmt.Errorf("option %s: %w", key, err)
	}
	return d, nil
}

// Fact has the host note something that the dump, or the reader, is to be held
// against. Numbers above 2^53 do not survive JSON: give addresses as text.
func (s *story) Fact(key string, value any) {
	report(wire.Event{Kind: wire.Fact, Name: key, Value: value})
}

// Step says what is about to be done.
func (s *story) Step(text string) { report(wire.Event{Kind: wire.Step, Text: text}) }

// Pause waits until the host has done what it has to do at this point: take a dump of
// the living machine, or arrange its memory through the debugger.
func (s *story) Pause(name string) error {
	report(wire.Event{Kind: wire.Paused, Name: name})
	if err := awaitResume(); err != nil {
		return fmt.Errorf("pause %s: %w", name, err)
	}
	return nil
}

// Crasher says that the calling thread is the one that is going to crash, where that
// is not init's main thread. The caller has locked the thread.
func (s *story) Crasher() error {
	tid := unix.Gettid()
	comm, err := os.ReadFile(fmt.Sprintf("/proc/self/task/%d/comm", tid))
	if err != nil {
		return err
	}
	report(wire.Event{Kind: wire.Crasher, Task: &wire.Task{PID: tid, TGID: os.Getpid(), Comm: strings.TrimSpace(string(comm))}})
	return nil
}
