package lab

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"

	"inquest/lab/guest/wire"
)

// report collects what a guest says over its second serial port.
type report struct {
	conn net.Conn

	mu     sync.Mutex
	events []wire.Event
	err    error         // that ended it: io.EOF, or what it could not make sense of
	more   chan struct{} // closed, and replaced, when there are more events or there is an error
	done   chan struct{} // closed when all is read
}

// maxEvent bounds the length of one event.
const maxEvent = 16 << 20

// newReport reads events from conn, and keeps them in a file.
func newReport(conn net.Conn, path string) (*report, error) {
	file, err := os.Create(path)
	if err != nil {
		conn.Close()
		return nil, err
	}
	r := &report{conn: conn, more: make(chan struct{}), done: make(chan struct{})}
	go func() {
		defer close(r.done)
		defer file.Close()
		r.read(io.TeeReader(conn, file))
	}()
	return r, nil
}

func (r *report) read(from io.Reader) {
	in := bufio.NewScanner(from)
	in.Buffer(nil, maxEvent)
	for in.Scan() {
		line := bytes.TrimSpace(in.Bytes())
		if len(line) == 0 {
			continue
		}
		e, err := wire.Parse(line)
		r.add(e, err)
		if err != nil {
			io.Copy(io.Discard, from) // the file has it, and the guest is not to wait
			return
		}
	}
	err := in.Err()
	if err == nil || errors.Is(err, net.ErrClosed) {
		err = io.EOF
	}
	r.add(wire.Event{}, err)
}

func (r *report) add(e wire.Event, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.err = err; err == nil {
		r.events = append(r.events, e)
	}
	close(r.more)
	r.more = make(chan struct{})
}

// at returns event i. If there is none yet it returns a channel, which is closed when
// there may be.
func (r *report) at(i int) (*wire.Event, <-chan struct{}, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if i < len(r.events) {
		return &r.events[i], nil, nil
	}
	return nil, r.more, r.err
}

// Close ends the report when what was sent so far is read.
func (r *report) Close() {
	r.conn.Close()
	<-r.done
}

// Events reads a guest's events, one after the other, from the first one on. It is to
// be used by one goroutine; others have their own.
type Events struct {
	vm   *VM
	next int
}

// Events returns a reader of all the guest's events.
func (vm *VM) Events() *Events { return &Events{vm: vm} }

// Next waits for the next event. Failed is an error, a [GuestError].
func (e *Events) Next(ctx context.Context) (wire.Event, error) {
	for {
		event, more, err := e.vm.report.at(e.next)
		switch {
		case event != nil:
			e.next++
			if event.Kind == wire.Failed {
				return wire.Event{}, &GuestError{event.Text, event.Error}
			}
			return *event, nil
		case errors.Is(err, io.EOF): // QEMU closed the port, and is about to end
			select {
			case <-e.vm.ended:
				return wire.Event{}, e.vm.err
			case <-ctx.Done():
				return wire.Event{}, ctx.Err()
			}
		case err != nil:
			return wire.Event{}, err
		}
		select {
		case <-more:
		case <-ctx.Done():
			return wire.Event{}, ctx.Err()
		}
	}
}

// Wait waits for an event of a kind, and skips those in front of it.
func (e *Events) Wait(ctx context.Context, kind wire.Kind) (wire.Event, error) {
	for {
		event, err := e.Next(ctx)
		if err != nil {
			return event, fmt.Errorf("wait for event %q of the guest: %w", kind, err)
		}
		if event.Kind == kind {
			return event, nil
		}
	}
}

// WaitPause waits until the guest has come to a pause.
func (e *Events) WaitPause(ctx context.Context, name string) error {
	for {
		paused, err := e.Wait(ctx, wire.Paused)
		if err != nil || paused.Name == name {
			return err
		}
	}
}

// WaitFact waits until the guest has told a fact.
func (e *Events) WaitFact(ctx context.Context, key string) (any, error) {
	for {
		fact, err := e.Wait(ctx, wire.Fact)
		if err != nil || fact.Name == key {
			return fact.Value, err
		}
	}
}

// Resume ends a pause of the guest.
func (vm *VM) Resume() error {
	_, err := vm.report.conn.Write([]byte(wire.Resume))
	return err
}

// GuestError is a step that failed inside of the guest.
type GuestError struct{ Step, Text string }

func (e *GuestError) Error() string { return "guest: " + e.Step + ": " + e.Text }
