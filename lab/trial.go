package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"time"

	"inquest/lab/guest/wire"
)

// trial is one boot of an experiment's machine.
type trial struct {
	*Experiment
	vm     *VM
	events *Events
	result *Result
}

// boot waits until the guest stands, not too long where it may never do.
func (t *trial) boot(ctx context.Context) error {
	limit := bootByTCG
	if t.result.Accel == KVM {
		limit = bootByKVM
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	ctx, end := context.WithCancelCause(ctx)
	defer end(nil)
	go func() {
		if t.vm.WaitConsole(ctx, endOfPanic) != nil {
			return
		}
		select { // what the guest said before is to be heard first
		case <-time.After(time.Second):
			end(errPanicked)
		case <-ctx.Done():
		}
	}()
	up, err := t.events.Wait(ctx, wire.Up)
	var failed *GuestError
	switch {
	case errors.As(err, &failed):
		return err
	case err != nil && errors.Is(context.Cause(ctx), errPanicked):
		return fmt.Errorf("%w: %w", errNotBooted, errPanicked)
	case err != nil:
		return fmt.Errorf("%w: %w", errNotBooted, err)
	case up.Guest != nil:
		t.result.Guest = *up.Guest
	}
	ready, err := t.events.Wait(ctx, wire.Ready)
	if err != nil && errors.Is(context.Cause(ctx), errPanicked) {
		err = fmt.Errorf("%w: %w", errNotBooted, errPanicked)
	}
	t.result.Tasks = ready.Tasks
	return err
}

// Ways for a scenario to end that no event tells.
var (
	errPanicked = errors.New("the kernel panicked")
	errHung     = errors.New("nothing happened in time")
)

// endOfPanic is the last thing that a kernel says which stays where it panicked.
const endOfPanic = "---[ end Kernel panic"

// lastEvents is how long what the guest said before it died may take to be heard: it
// comes another way than the console.
const lastEvents = 200 * time.Millisecond

// play follows the scenario until its outcome is known.
func (t *trial) play(ctx context.Context) error {
	playing, end := context.WithCancelCause(ctx)
	defer time.AfterFunc(t.Timeout, func() { end(errHung) }).Stop()
	meanwhile := make(chan struct{})
	go func() {
		defer close(meanwhile)
		if t.Scenario.Meanwhile == nil {
			return
		}
		if err := t.Scenario.Meanwhile(playing, t.vm, t.Experiment); err != nil {
			end(fmt.Errorf("the host's part: %w", err))
		}
	}()
	go func() {
		if t.vm.WaitConsole(playing, endOfPanic) == nil {
			time.Sleep(lastEvents)
			end(errPanicked)
		}
	}()
	err := t.follow(playing)
	if cause := context.Cause(playing); cause != nil && ctx.Err() == nil {
		err = cause
	}
	end(nil)
	<-meanwhile
	switch {
	case errors.Is(err, errPanicked):
		t.result.Outcome = Panicked
	case errors.Is(err, errHung):
		t.result.Outcome = Hung
	case err != nil:
		return err
	default:
		t.result.Outcome = Alive
	}
	return nil
}

// follow reads events until the scenario has ended; it returns errPanicked when a
// capture kernel has come up.
func (t *trial) follow(ctx context.Context) error {
	for {
		event, err := t.events.Next(ctx)
		if err != nil {
			return err
		}
		switch event.Kind {
		case wire.Begin, wire.Crasher:
			t.result.Crasher = event.Task
		case wire.Step:
			t.Progress(event.Text)
			t.result.Steps = append(t.result.Steps, event.Text)
		case wire.Fact:
			t.Tell(event.Name, event.Value)
		case wire.Paused:
			if t.Scenario.Meanwhile == nil {
				if err := t.vm.Resume(); err != nil {
					return err
				}
			}
		case wire.Up:
			if event.Guest != nil && event.Guest.Capture {
				return errPanicked
			}
		case wire.Ended:
			return nil
		}
	}
}

// warning matches what a kernel says first when something is wrong with it.
var warning = regexp.MustCompile(`(?m)^\[ *\d+\.\d+\] ((?:WARNING: |BUG: |BUG \S+ \(|Object already free|Oops: |refcount_t: |list_(?:add|del) corruption|general protection fault|kernel BUG at |UBSAN: |INFO: task |INFO: rcu_|watchdog: ).*?)\s*$`)

// maxWarnings bounds how many warnings a result has.
const maxWarnings = 32

// conclude completes the result when the machine has stopped.
func (t *trial) conclude() error {
	r := t.result
	console, err := os.ReadFile(r.Console)
	if err != nil {
		return err
	}
	for _, match := range warning.FindAllSubmatch(console, maxWarnings) {
		r.Warnings = append(r.Warnings, string(match[1]))
	}
	if r.Outcome == Alive && len(r.Warnings) > 0 {
		r.Outcome = Warned
	}
	if r.Outcome != Panicked {
		r.Crasher = nil
	}
	if t.Scenario.Truth != nil {
		r.Truth = t.Scenario.Truth(t.Experiment)
	}
	r.Facts = t.Facts()
	return nil
}

// dumpOutside has QEMU dump the machine: as is asked for, and where that was kdump, to
// which it did not come, so that there is something to look at.
func (t *trial) dumpOutside(ctx context.Context) ([]Dump, error) {
	if err := t.vm.Stop(ctx); err != nil {
		return nil, err
	}
	wanted := t.QEMU
	if len(t.Kdump) > 0 {
		wanted = []string{FormatELF}
	}
	formats, err := t.vm.formats(ctx, wanted)
	if err != nil {
		return nil, err
	}
	var dumps []Dump
	for _, format := range formats {
		t.Progress("dump " + format)
		path := filepath.Join(t.Dir, "qemu."+format)
		if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
			return dumps, err
		}
		if err := t.vm.Dump(ctx, format, path); err != nil {
			return dumps, err
		}
		if err := os.Chmod(path, 0o644); err != nil {
			return dumps, err
		}
		switch {
		case format == FormatELF:
			err = makeSparse(path)
		case t.Unflatten && isFlattened(format):
			err = unflatten(path)
		}
		if err != nil {
			return dumps, err
		}
		dumps = append(dumps, Dump{Path: path, By: "qemu", How: format})
	}
	return dumps, nil
}

// dumpInside waits until the capture kernel, which is up, has saved the dumps.
func (t *trial) dumpInside(ctx context.Context, disk string) ([]Dump, error) {
	t.Progress("save the dump")
	done, err := t.events.Wait(ctx, wire.Done)
	if err != nil {
		return nil, err
	}
	return t.extract(disk, done.Bytes)
}
