package gdb

import (
	"bufio"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"inquest/kernel"
)

// stub is a machine of two CPUs that speaks as QEMU's stub does. Its program is a
// loop of eight instructions of one byte each, which CPU 2 executes.
type stub struct {
	conn   net.Conn
	in     *bufio.Reader
	damage int // packets to be sent with a bad checksum first

	mu     sync.Mutex
	memory map[uint64]byte
	regs   [2][]byte // "g" packets
	cpu    int       // selected by Hg
	breaks []uint64
	asked  []string // commands, in order
}

const (
	loopStart = 0xffffffff81000000
	loopSize  = 8
	dataStart = 0xffff888000001000
	dataSize  = 5000 // more than a packet takes
)

// connection returns the two ends of one that takes a few packets without a reader, as
// QEMU's does.
func connection(t *testing.T) (ours, theirs net.Conn) {
	l, err := net.Listen("unix", t.TempDir()+"/stub")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if ours, err = net.Dial("unix", l.Addr().String()); err != nil {
		t.Fatal(err)
	}
	if theirs, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ours.Close(); theirs.Close() })
	return ours, theirs
}

// attach returns a client that is attached to a new stub.
func attach(t *testing.T) (*Client, *stub) {
	ours, theirs := connection(t)
	s := &stub{conn: theirs, in: bufio.NewReader(theirs), memory: make(map[uint64]byte)}
	for i := range s.regs {
		s.regs[i] = make([]byte, 8*int(numRegisters)+40)
		Registers(s.regs[i]).Set(RIP, loopStart)
		Registers(s.regs[i]).Set(RDI, dataStart)
	}
	for i := range uint64(dataSize) {
		s.memory[dataStart+i] = byte(i * 7)
	}
	go func() {
		// QEMU says that it stopped the machine, before it is asked.
		s.conn.Write(frame([]byte("T02thread:01;")))
		s.serve()
	}()
	c, err := Attach(t.Context(), ours)
	if err != nil {
		t.Fatal(err)
	}
	return c, s
}

func (s *stub) commands() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.asked)
}

func (s *stub) serve() {
	for {
		b, err := s.in.ReadByte()
		if err != nil {
			return
		}
		if b != '$' { // + for the last answer
			continue
		}
		s.in.UnreadByte()
		command, err := readPacket(s.in)
		if err != nil {
			return
		}
		s.conn.Write([]byte("+"))
		s.mu.Lock()
		s.asked = append(s.asked, string(command))
		answer := s.answer(string(command))
		s.mu.Unlock()
		if answer == "runs" { // until it is interrupted
			for b != 3 {
				if b, err = s.in.ReadByte(); err != nil {
					return
				}
			}
			answer = "T02thread:01;"
		}
		if s.damage > 0 {
			s.damage--
			s.conn.Write([]byte("$" + answer + "#zz"))
			if b, _ := s.in.ReadByte(); b != '-' {
				return
			}
		}
		s.conn.Write(frame([]byte(answer)))
	}
}

func (s *stub) answer(command string) string {
	var addr uint64
	var size int
	var cpu int
	regs := Registers(s.regs[s.cpu])
	switch name, rest := command[:1], command[1:]; {
	case strings.HasPrefix(command, "qSupported"):
		return "PacketSize=1000;vContSupported+"
	case command == "?":
		return "T05thread:01;"
	case command == "qfThreadInfo":
		return "m01,02"
	case command == "qsThreadInfo":
		return "l"
	case name == "H":
		fmt.Sscanf(rest, "g%x", &cpu)
		if cpu < 1 || cpu > 2 {
			return "E22"
		}
		s.cpu = cpu - 1
	case name == "g":
		return hex.EncodeToString(regs)
	case name == "G":
		s.regs[s.cpu], _ = hex.DecodeString(rest)
	case name == "m":
		fmt.Sscanf(rest, "%x,%x", &addr, &size)
		var text strings.Builder
		for i := range uint64(size) {
			b, ok := s.memory[addr+i]
			if !ok {
				return "E14"
			}
			fmt.Fprintf(&text, "%02x", b)
		}
		return text.String()
	case name == "M":
		fmt.Sscanf(rest, "%x,%x", &addr, &size)
		_, digits, _ := strings.Cut(rest, ":")
		data, _ := hex.DecodeString(digits)
		for i, b := range data {
			s.memory[addr+uint64(i)] = b
		}
	case name == "Z":
		fmt.Sscanf(rest, "1,%x", &addr)
		s.breaks = append(s.breaks, addr)
	case name == "z":
		fmt.Sscanf(rest, "1,%x", &addr)
		s.breaks = slices.DeleteFunc(s.breaks, func(b uint64) bool { return b == addr })
	case name == "c":
		if len(s.breaks) == 0 {
			return "runs"
		}
		for r := Registers(s.regs[1]); ; s.step() {
			if slices.Contains(s.breaks, r.Get(RIP)) {
				return "T05thread:02;"
			}
		}
	case command == "vCont;s:2":
		s.step()
		return "T05thread:p01.02;"
	case name == "D":
	default:
		return ""
	}
	return "OK"
}

func (s *stub) step() {
	r := Registers(s.regs[1])
	r.Set(RIP, loopStart+(r.Get(RIP)-loopStart+1)%loopSize)
	r.Set(RAX, r.Get(RAX)+1)
}

func TestBreakpoint(t *testing.T) {
	c, s := attach(t)
	ctx := t.Context()
	const at = kernel.Addr(loopStart + 3)
	if err := c.Break(ctx, at); err != nil {
		t.Fatal(err)
	}
	for round, steps := range []uint64{3, 3 + loopSize, 3 + 2*loopSize} {
		stop, err := c.Continue(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if want := (Stop{SigTrap, 2}); stop != want {
			t.Fatalf("round %d: %+v, want %+v", round, stop, want)
		}
		r, err := c.Registers(ctx, stop.Thread)
		if err != nil {
			t.Fatal(err)
		}
		// That the CPU goes on from a breakpoint, and comes round to it again.
		if r.Get(RIP) != uint64(at) || r.Get(RAX) != steps {
			t.Errorf("round %d: at %#x after %d steps, want %#x and %d", round, r.Get(RIP), r.Get(RAX), at, steps)
		}
	}
	if err := c.Detach(ctx); err != nil {
		t.Error(err)
	}
	if len(s.breaks) != 0 {
		t.Errorf("breakpoints %#x are left behind", s.breaks)
	}
	if got := s.commands(); got[len(got)-1] != "D" {
		t.Errorf("the last command was %q, not D", got[len(got)-1])
	}
}

func TestMemory(t *testing.T) {
	c, s := attach(t)
	ctx := t.Context()
	got := make([]byte, dataSize)
	if err := c.ReadMemory(ctx, dataStart, got); err != nil {
		t.Fatal(err)
	}
	for i := range got {
		if got[i] != byte(i*7) {
			t.Fatalf("byte %d is %#x", i, got[i])
		}
	}
	if err := c.WriteMemory(ctx, dataStart+4000, make([]byte, 1200)); err != nil {
		t.Fatal(err)
	}
	if s.memory[dataStart+3999] == 0 || s.memory[dataStart+4000] != 0 || s.memory[dataStart+5199] != 0 {
		t.Error("the memory was not written as it should have been")
	}
	var refused *Error
	err := c.ReadMemory(ctx, dataStart+5200, make([]byte, 8))
	if !errors.As(err, &refused) || refused.Number != 0x14 || !strings.Contains(err.Error(), "0xffff888000002450") {
		t.Errorf("memory that is not there: %v", err)
	}
	if err := c.ReadMemory(ctx, dataStart, got[:1]); err != nil {
		t.Errorf("after a refusal: %v", err)
	}
}

func TestRegisters(t *testing.T) {
	c, _ := attach(t)
	ctx := t.Context()
	threads, err := c.Threads(ctx)
	if err != nil || !slices.Equal(threads, []Thread{1, 2}) {
		t.Fatalf("threads %v, %v", threads, err)
	}
	for _, thread := range threads {
		r, err := c.Registers(ctx, thread)
		if err != nil {
			t.Fatal(err)
		}
		r.Set(R15, uint64(thread)<<60)
		if err := c.SetRegisters(ctx, thread, r); err != nil {
			t.Fatal(err)
		}
	}
	for _, thread := range threads {
		r, err := c.Registers(ctx, thread)
		if err != nil {
			t.Fatal(err)
		}
		if r.Get(R15) != uint64(thread)<<60 || r.Get(RDI) != dataStart {
			t.Errorf("CPU %d: r15 %#x, rdi %#x", thread, r.Get(R15), r.Get(RDI))
		}
	}
	var refused *Error
	if _, err := c.Registers(ctx, 3); !errors.As(err, &refused) {
		t.Errorf("a CPU that is not there: %v", err)
	}
	if err := c.tell(ctx, "unknown"); !errors.Is(err, ErrUnsupported) {
		t.Errorf("an unknown command: %v", err)
	}
}

func TestInterrupt(t *testing.T) {
	c, _ := attach(t)
	if err := c.Resume(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Threads(t.Context()); !errors.Is(err, ErrRunning) {
		t.Errorf("a question to a running machine: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := c.Wait(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("Wait with a context that ended: %v", err)
	}
	if err := c.Interrupt(); err != nil {
		t.Fatal(err)
	}
	stop, err := c.Wait(t.Context())
	if want := (Stop{SigInt, 1}); err != nil || stop != want {
		t.Errorf("stopped with %+v, %v, want %+v", stop, err, want)
	}
	if _, err := c.Threads(t.Context()); err != nil {
		t.Errorf("after the stop: %v", err)
	}
}

func TestDamagedPacket(t *testing.T) {
	c, s := attach(t)
	s.damage = 2
	if _, err := c.Threads(t.Context()); err != nil {
		t.Error(err)
	}
}

// A peer that is no stub, or a hostile one, gets an error and not a hold of the client.
func TestHostilePeer(t *testing.T) {
	for name, tt := range map[string]struct{ sends, want string }{
		"nothing":                {"", "EOF"},
		"noise":                  {strings.Repeat("x", maxNoise+1), ErrProtocol.Error()},
		"only packets":           {strings.Repeat("$OK#9a", maxNoise), ErrProtocol.Error()},
		"no end of a packet":     {"+$" + strings.Repeat("x", maxPacket+1), ErrProtocol.Error()},
		"a packet cut short":     {"+$PacketS", "unexpected EOF"},
		"a tiny size of packets": {"+" + string(frame([]byte("PacketSize=4"))), ErrProtocol.Error()},
		"an odd stop reply":      {"+" + string(frame([]byte("PacketSize=1000"))) + "+" + string(frame([]byte("Txx"))), ErrProtocol.Error()},
		"damage for ever":        {"+" + strings.Repeat("$x#00", maxResend), ErrProtocol.Error()},
		"nothing taken":          {strings.Repeat("-", maxResend), ErrProtocol.Error()},
	} {
		t.Run(name, func(t *testing.T) {
			ours, theirs := connection(t)
			go func() { // whatever the client says
				buf := make([]byte, 1024)
				for {
					if _, err := theirs.Read(buf); err != nil {
						return
					}
				}
			}()
			go func() {
				theirs.Write([]byte(tt.sends))
				if strings.Contains(tt.want, "EOF") {
					theirs.Close()
				}
			}()
			_, err := Attach(t.Context(), ours)
			theirs.Close()
			// A peer that is gone may show when the client reads or when it writes.
			gone := strings.Contains(tt.want, "EOF") && (errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE))
			if err == nil || !strings.Contains(err.Error(), tt.want) && !gone {
				t.Errorf("error %v, want %q", err, tt.want)
			}
		})
	}
}
