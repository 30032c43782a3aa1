package gdb

import (
	"bufio"
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"strconv"
	"sync"
	"time"

	"inquest/kernel"
)

// Client controls a machine. It is for one goroutine at a time, but for Interrupt.
type Client struct {
	conn     net.Conn
	in       *bufio.Reader
	packet   int // bytes that a packet may have
	breaks   map[kernel.Addr]bool
	last     Stop        // valid unless running
	at       kernel.Addr // a breakpoint that last was at, or 0
	selected Thread      // by Hg; 0 for none
	running  bool
	err      error // that put the connection out of step

	write sync.Mutex // of conn
}

// Error is a stub's refusal of a command.
type Error struct{ Number int }

func (e *Error) Error() string { return fmt.Sprintf("the stub says E%02x", e.Number) }

// Errors that callers tell apart.
var (
	ErrUnsupported = errors.New("the stub does not know the command")
	ErrRunning     = errors.New("the machine is running")
)

// Bounds of a conversation. The stub answers at once unless the machine runs.
const (
	answerTime = 30 * time.Second
	minPacket  = 64
	chunk      = 1 << 10 // of memory a packet; QEMU's buffer holds twice as much
	maxThreads = 1 << 12
	maxResend  = 3
)

// Attach speaks to the stub at the other end of a connection, which stops the
// machine. It closes the connection if that fails.
func Attach(ctx context.Context, conn net.Conn) (*Client, error) {
	c := &Client{conn: conn, in: bufio.NewReader(conn), packet: 4 * minPacket, breaks: make(map[kernel.Addr]bool)}
	err := c.greet(ctx)
	if err != nil {
		conn.Close()
		return nil, fmt.Errorf("attach to the GDB stub: %w", err)
	}
	return c, nil
}

func (c *Client) greet(ctx context.Context) error {
	features, err := c.ask(ctx, "qSupported:swbreak+;hwbreak+")
	if err != nil && !errors.Is(err, ErrUnsupported) {
		return err
	}
	for feature := range bytes.SplitSeq(features, []byte(";")) {
		if size, ok := bytes.CutPrefix(feature, []byte("PacketSize=")); ok {
			n, err := strconv.ParseUint(string(size), 16, 32)
			if err != nil || n < minPacket {
				return fmt.Errorf("%w: %.40q", ErrProtocol, feature)
			}
			c.packet = int(min(n, maxPacket))
		}
	}
	answer, err := c.ask(ctx, "?")
	if err != nil {
		return err
	}
	c.last, err = parseStop(answer)
	return c.note(err)
}

// Threads lists the machine's CPUs.
func (c *Client) Threads(ctx context.Context) ([]Thread, error) {
	var all []Thread
	for query := "qfThreadInfo"; ; query = "qsThreadInfo" {
		answer, err := c.ask(ctx, query)
		if err != nil {
			return nil, fmt.Errorf("list the threads: %w", err)
		}
		threads, more, err := parseThreads(answer)
		if err == nil && len(all)+len(threads) > maxThreads {
			err = fmt.Errorf("%w: more than %d threads", ErrProtocol, maxThreads)
		}
		if err != nil {
			return nil, fmt.Errorf("list the threads: %w", c.note(err))
		}
		if !more {
			return all, nil
		}
		all = append(all, threads...)
	}
}

// Break stops the machine whenever a CPU is about to execute the instruction at an
// address. It is a hardware breakpoint: the kernel's code stays as it is, for
// whoever dumps it. A CPU has four of them where it is not QEMU's own.
func (c *Client) Break(ctx context.Context, addr kernel.Addr) error {
	if err := c.insert(ctx, addr); err != nil {
		return fmt.Errorf("set a breakpoint at %v: %w", addr, err)
	}
	c.breaks[addr] = true
	return nil
}

// Clear takes a breakpoint away.
func (c *Client) Clear(ctx context.Context, addr kernel.Addr) error {
	if !c.breaks[addr] {
		return nil
	}
	if err := c.remove(ctx, addr); err != nil {
		return fmt.Errorf("clear the breakpoint at %v: %w", addr, err)
	}
	delete(c.breaks, addr)
	return nil
}

func (c *Client) insert(ctx context.Context, addr kernel.Addr) error {
	return c.tell(ctx, fmt.Sprintf("Z1,%x,1", uint64(addr)))
}

func (c *Client) remove(ctx context.Context, addr kernel.Addr) error {
	return c.tell(ctx, fmt.Sprintf("z1,%x,1", uint64(addr)))
}

// Continue is Resume and Wait.
func (c *Client) Continue(ctx context.Context) (Stop, error) {
	if err := c.Resume(ctx); err != nil {
		return Stop{}, err
	}
	return c.Wait(ctx)
}

// Resume lets all CPUs run on. One that stands at a breakpoint executes the
// instruction there first.
func (c *Client) Resume(ctx context.Context) error {
	if c.at != 0 && c.breaks[c.at] {
		over := c.at
		if err := c.remove(ctx, over); err != nil {
			return fmt.Errorf("step over the breakpoint at %v: %w", over, err)
		}
		_, err := c.Step(ctx, c.last.Thread)
		if err := errors.Join(err, c.insert(ctx, over)); err != nil {
			return fmt.Errorf("step over the breakpoint at %v: %w", over, err)
		}
	}
	return c.run(ctx, "c")
}

// Step executes one instruction of one CPU while the others stand still, and
// interrupts wait.
func (c *Client) Step(ctx context.Context, thread Thread) (Stop, error) {
	if err := c.run(ctx, fmt.Sprintf("vCont;s:%x", uint64(thread))); err != nil {
		return Stop{}, fmt.Errorf("step CPU %d: %w", thread, err)
	}
	return c.Wait(ctx)
}

// run sends a command that is not answered until the machine stops.
func (c *Client) run(ctx context.Context, command string) error {
	if err := c.send(ctx, command); err != nil {
		return err
	}
	c.running, c.at, c.selected = true, 0, 0
	return nil
}

// Wait waits until a running machine stops. When the context ends before, the machine
// still runs, and Wait may be called again.
func (c *Client) Wait(ctx context.Context) (Stop, error) {
	if c.err != nil {
		return Stop{}, c.err
	}
	if !c.running {
		return c.last, nil
	}
	defer c.deadline(ctx, 0)()
	if _, err := c.in.Peek(1); err != nil {
		if ctx.Err() != nil {
			return Stop{}, fmt.Errorf("wait for the machine to stop: %w", ctx.Err())
		}
		return Stop{}, c.note(err)
	}
	answer, err := c.receive(ctx)
	if err != nil {
		return Stop{}, err
	}
	stop, err := parseStop(answer)
	if err != nil {
		return Stop{}, c.note(err)
	}
	c.running, c.last = false, stop
	if stop.Signal == SigTrap && len(c.breaks) > 0 {
		registers, err := c.Registers(ctx, stop.Thread)
		if err != nil {
			return Stop{}, err
		}
		if pc := kernel.Addr(registers.Get(RIP)); c.breaks[pc] {
			c.at = pc
		}
	}
	return stop, nil
}

// Running reports whether the machine was let run, and no Wait has seen it stop.
func (c *Client) Running() bool { return c.running }

// Interrupt asks a running machine to stop, which ends Wait. It may be called from
// another goroutine.
func (c *Client) Interrupt() error {
	c.write.Lock()
	defer c.write.Unlock()
	_, err := c.conn.Write([]byte{3})
	return err
}

// Registers returns a CPU's registers.
func (c *Client) Registers(ctx context.Context, thread Thread) (Registers, error) {
	err := c.selectThread(ctx, thread)
	if err == nil {
		var answer []byte
		if answer, err = c.ask(ctx, "g"); err == nil {
			var r Registers
			if r, err = parseRegisters(answer); err == nil {
				return r, nil
			}
			err = c.note(err)
		}
	}
	return nil, fmt.Errorf("read the registers of CPU %d: %w", thread, err)
}

// SetRegisters writes all of a CPU's registers, as Registers returned and Set
// changed them.
func (c *Client) SetRegisters(ctx context.Context, thread Thread, r Registers) error {
	err := c.selectThread(ctx, thread)
	if err == nil {
		err = c.tell(ctx, "G"+hex.EncodeToString(r))
	}
	if err != nil {
		return fmt.Errorf("write the registers of CPU %d: %w", thread, err)
	}
	return nil
}

// selectThread says whose registers and memory are meant.
func (c *Client) selectThread(ctx context.Context, thread Thread) error {
	if thread == c.selected {
		return nil
	}
	if err := c.tell(ctx, fmt.Sprintf("Hg%x", uint64(thread))); err != nil {
		return err
	}
	c.selected = thread
	return nil
}

// ReadMemory fills buf with the memory at an address, as the CPU that stopped last
// sees it.
func (c *Client) ReadMemory(ctx context.Context, addr kernel.Addr, buf []byte) error {
	for len(buf) > 0 {
		n := min(len(buf), chunk, (c.packet-8)/2)
		answer, err := c.askMemory(ctx, fmt.Sprintf("m%x,%x", uint64(addr), n))
		if err == nil {
			var data []byte
			if data, err = parseHex(answer); err == nil && len(data) != n {
				err = fmt.Errorf("%w: %d bytes for %d", ErrProtocol, len(data), n)
			}
			err = c.note(err)
			copy(buf, data)
		}
		if err != nil {
			return fmt.Errorf("read memory at %v: %w", addr, err)
		}
		buf, addr = buf[n:], addr+kernel.Addr(n)
	}
	return nil
}

// WriteMemory writes data to an address, as the CPU that stopped last sees it. That
// the page is read-only does not matter.
func (c *Client) WriteMemory(ctx context.Context, addr kernel.Addr, data []byte) error {
	for len(data) > 0 {
		n := min(len(data), chunk, (c.packet-32)/2)
		answer, err := c.askMemory(ctx, fmt.Sprintf("M%x,%x:%x", uint64(addr), n, data[:n]))
		if err == nil {
			err = c.ok(answer)
		}
		if err != nil {
			return fmt.Errorf("write memory at %v: %w", addr, err)
		}
		data, addr = data[n:], addr+kernel.Addr(n)
	}
	return nil
}

func (c *Client) askMemory(ctx context.Context, command string) ([]byte, error) {
	if err := c.selectThread(ctx, c.last.Thread); err != nil {
		return nil, err
	}
	return c.ask(ctx, command)
}

// Detach takes all breakpoints away, lets the machine run, and closes the connection.
func (c *Client) Detach(ctx context.Context) error {
	var err error
	for addr := range c.breaks {
		err = errors.Join(err, c.Clear(ctx, addr))
	}
	if err == nil {
		err = c.tell(ctx, "D")
	}
	return errors.Join(err, c.Close())
}

// Close closes the connection. A machine that stands still stays so.
func (c *Client) Close() error { return c.conn.Close() }

// tell runs a command that is answered OK.
func (c *Client) tell(ctx context.Context, command string) error {
	answer, err := c.ask(ctx, command)
	if err != nil {
		return err
	}
	return c.ok(answer)
}

func (c *Client) ok(answer []byte) error {
	if string(answer) == "OK" {
		return nil
	}
	return c.note(fmt.Errorf("%w: %.40q for OK", ErrProtocol, answer))
}

// ask sends a command to a stub whose machine stands still, and returns its answer.
func (c *Client) ask(ctx context.Context, command string) ([]byte, error) {
	if err := c.send(ctx, command); err != nil {
		return nil, err
	}
	answer, err := c.receive(ctx)
	switch {
	case err != nil:
		return nil, err
	case len(answer) == 0:
		return nil, ErrUnsupported
	case len(answer) == 3 && answer[0] == 'E':
		n, err := strconv.ParseUint(string(answer[1:]), 16, 8)
		if err != nil {
			return nil, c.note(fmt.Errorf("%w: %q", ErrProtocol, answer))
		}
		return nil, &Error{int(n)}
	}
	return answer, nil
}

// send sends a command, and again when it was damaged, until it is acknowledged.
func (c *Client) send(ctx context.Context, command string) error {
	switch {
	case c.err != nil:
		return c.err
	case c.running:
		return ErrRunning
	}
	defer c.deadline(ctx, answerTime)()
	packet := frame([]byte(command))
	for range maxResend {
		c.write.Lock()
		_, err := c.conn.Write(packet)
		c.write.Unlock()
		if err != nil {
			return c.broken(ctx, err)
		}
		ack, err := c.acknowledged()
		if err != nil {
			return c.broken(ctx, err)
		}
		if ack {
			return nil
		}
	}
	return c.note(fmt.Errorf("%w: the stub takes no packet", ErrProtocol))
}

// acknowledged waits for + or -.
func (c *Client) acknowledged() (bool, error) {
	for range maxNoise {
		switch b, err := c.in.ReadByte(); {
		case err != nil:
			return false, err
		case b == '+' || b == '-':
			return b == '+', nil
		case b == '$': // that a machine which ran was stopped by the attaching
			c.in.UnreadByte()
			if _, err := readPacket(c.in); err != nil {
				return false, err
			}
		}
	}
	return false, fmt.Errorf("%w: no acknowledgement", ErrProtocol)
}

// receive takes a packet and acknowledges it; a damaged one is asked for again.
func (c *Client) receive(ctx context.Context) ([]byte, error) {
	defer c.deadline(ctx, answerTime)()
	for range maxResend {
		payload, err := readPacket(c.in)
		ack := []byte("+")
		switch {
		case errors.Is(err, errChecksum):
			ack = []byte("-")
		case err != nil:
			return nil, c.broken(ctx, err)
		}
		c.write.Lock()
		_, writeErr := c.conn.Write(ack)
		c.write.Unlock()
		if writeErr != nil {
			return nil, c.broken(ctx, writeErr)
		}
		if err == nil {
			return payload, nil
		}
	}
	return nil, c.note(errChecksum)
}

// deadline has reads and writes fail after a time (0 for never) and when the context
// ends, until the returned function is called.
func (c *Client) deadline(ctx context.Context, d time.Duration) (stop func()) {
	if d > 0 {
		c.conn.SetDeadline(time.Now().Add(d))
	}
	expired := make(chan struct{})
	unregister := context.AfterFunc(ctx, func() {
		c.conn.SetDeadline(time.Unix(1, 0))
		close(expired)
	})
	return func() {
		if !unregister() {
			<-expired
		}
		c.conn.SetDeadline(time.Time{})
	}
}

// broken notes an error of the connection; that of the context comes first.
func (c *Client) broken(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		err = ctx.Err()
	}
	return c.note(err)
}

// note keeps the first error that puts the connection out of step.
func (c *Client) note(err error) error {
	if c.err == nil {
		c.err = err
	}
	return err
}
