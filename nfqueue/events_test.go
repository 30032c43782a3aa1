package nfqueue

import (
	"context"
	"errors"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

func accept(*Packet) Verdict { return Accept() }

// step receives what is there and has it handled.
func step(q *queue, h Handler) {
	n, _ := q.receiveNow()
	q.handle(n, h)
}

func TestEvents(t *testing.T) {
	var events []Event
	k := newKernel()
	g := start(t, Config{Event: func(e Event) { events = append(events, e) }}, k)
	q := g.queues[0]
	for _, tt := range []struct {
		name string
		do   func()
		want Event
		stat func(s Stats) uint64
		n    uint64
	}{
		{"flushed", func() {
			k.arrive(0)
			k.flush()
			step(q, accept)
		}, Event{Err: ErrFlushed, Packets: 1, Errno: uint32(syscall.ENOENT)}, func(s Stats) uint64 { return s.Flushed }, 1},
		{"lost", func() {
			k.room = 1
			for n := range 5 {
				k.arrive(n)
			}
			step(q, accept)
			k.room = 0
			k.arrive(6)
		}, Event{Err: ErrOverrun, Packets: 4}, func(s Stats) uint64 { return s.Lost }, 4},
		{"malformed", func() {
			k.inbox = append(k.inbox, []byte("this is not a netlink message"))
		}, Event{Err: ErrMalformed, Packets: 1}, func(s Stats) uint64 { return s.Malformed }, 1},
		{"malformed with an id", func() {
			k.arrive(7)
			b := k.inbox[0]
			k.inbox[0] = end(attrBytes(b, attrMark, []byte{1}), 0)
		}, Event{Err: ErrMalformed, Packets: 1}, func(s Stats) uint64 { return s.Malformed + s.Dropped }, 3},
		{"payload too long", func() {
			k.arrive(8)
			step(q, func(*Packet) Verdict { return Accept().WithPayload(make([]byte, MaxPayload+1)) })
		}, Event{Err: ErrPayload, Packets: 1}, func(s Stats) uint64 { return s.Refused + s.Dropped }, 3},
		{"vanished", func() {
			k.arrive(9)
			k.vanish()
			step(q, accept)
		}, Event{Err: ErrVanished, Errno: 0}, func(s Stats) uint64 { return s.Vanished }, 1},
	} {
		events = nil
		tt.do()
		step(q, accept)
		if len(events) != 1 || !errors.Is(events[0].Err, tt.want.Err) || events[0].Packets != tt.want.Packets || events[0].Errno != tt.want.Errno {
			t.Errorf("%s: %v, want %v", tt.name, events, tt.want)
		}
		if got := tt.stat(g.Stats()[0]); got != tt.n {
			t.Errorf("%s: counted %d, want %d: %+v", tt.name, got, tt.n, g.Stats()[0].Malformed)
		}
	}
	if k.fate(t, 7) != "0" || k.fate(t, 8) != "0" {
		t.Error("a packet that could not be read or judged did not get the default verdict")
	}
	k.arrive(10)
	step(q, accept)
	if k.fate(t, 10) != "1" {
		t.Error("the queue that vanished was not bound again")
	}
}

// A queue that vanished starts its ids anew; what was held of the old one must
// not be judged as one of the new.
func TestVanishedHeld(t *testing.T) {
	k := newKernel()
	q := start(t, Config{}, k).queues[0]
	k.arrive(0)
	var old, other Held
	step(q, func(p *Packet) Verdict { old = p.Hold(); return Verdict{} })
	k.vanish()
	k.arrive(1)
	k.mu.Lock()
	k.deliver(func() []byte { // the error of some verdict
		e, start := message(nil, typeError, 0, 0, 0)
		errno := syscall.ENODEV
		e = native.AppendUint32(e[:start+headerLen], -uint32(errno))
		return end(append(e, appendVerdict(nil, 0, 1, &Verdict{code: 1})[:headerLen]...), start)
	}())
	k.mu.Unlock()
	step(q, accept)
	k.arrive(2)
	step(q, func(p *Packet) Verdict { other = p.Hold(); return Verdict{} })
	if err := old.Judge(Drop()); err != ErrFlushed {
		t.Errorf("judge a packet of a queue that is gone: %v", err)
	}
	if len(k.fates[2]) > 0 {
		t.Errorf("the new packet with the same id got %q", k.fates[2])
	}
	if err := other.Judge(Accept()); err != nil || k.fate(t, 2) != "1" {
		t.Error(err, k.fates[2])
	}
}

func TestClose(t *testing.T) {
	for _, tt := range []struct {
		def                Verdict
		held, unread, late string
	}{
		{Accept(), "1", "1", "failopen"},
		{Drop(), "0", "0", "full"},
		{Verdict{}, "0", "0", "full"},
		{Accept().WithMark(3), "1 mark 3", "1", "failopen"},
	} {
		t.Run(tt.def.String(), func(t *testing.T) {
			k := newKernel()
			g := start(t, Config{Default: tt.def, Grace: 30 * time.Millisecond}, k)
			ctx, cancel := context.WithCancel(context.Background())
			held := make(chan Held, 2)
			served := make(chan error)
			go func() {
				served <- g.Serve(ctx, func(p *Packet) Verdict {
					held <- p.Hold()
					return Verdict{}
				})
			}()
			k.arrive(0)
			k.arrive(1)
			first, second := <-held, <-held
			cancel()
			for {
				k.mu.Lock()
				refusing := k.maxLen == 0
				k.mu.Unlock()
				if refusing {
					break
				}
				time.Sleep(time.Millisecond)
			}
			k.arrive(2) // while it drains
			if err := second.Judge(Repeat()); err != nil {
				t.Error("judge in the time of grace:", err)
			}
			if err := <-served; err != nil {
				t.Error(err)
			}
			if err := first.Judge(Repeat()); err != ErrClosed {
				t.Error("judge after the end:", err)
			}
			for n, want := range []string{tt.held, "4", tt.late} {
				if got := k.fate(t, n); got != want {
					t.Errorf("packet %d: %s, want %s", n, got, want)
				}
			}
			if err := g.Serve(context.Background(), accept); !errors.Is(err, ErrClosed) {
				t.Error("serve again:", err)
			}
			if err := g.Close(); err != nil {
				t.Error("close again:", err)
			}
		})
		t.Run(tt.def.String()+" never served", func(t *testing.T) {
			k := newKernel()
			g := start(t, Config{Default: tt.def}, k)
			k.arrive(0)
			if err := g.Close(); err != nil || k.fate(t, 0) != tt.unread {
				t.Error(err, k.fates)
			}
		})
	}
}

// The kernel may say that the buffer was full, and the loop goes on.
func TestOverrunReported(t *testing.T) {
	var events []Event
	k := newKernel()
	k.overruns = 2
	g := start(t, Config{Event: func(e Event) { events = append(events, e) }}, k)
	served := make(chan error)
	go func() { served <- g.Serve(context.Background(), accept) }()
	k.arrive(0)
	for g.Stats()[0].Received == 0 {
		time.Sleep(time.Millisecond)
	}
	g.Close()
	if err := <-served; err != nil {
		t.Error(err)
	}
	if s := g.Stats()[0]; s.Overruns != 2 || len(events) != 2 || events[0].Err != ErrOverrun || k.fate(t, 0) != "1" {
		t.Errorf("%d overruns, events %v, packet %q", s.Overruns, events, k.fates[0])
	}
}

// Verdicts that the kernel had no memory for are sent before later ones.
func TestSendFails(t *testing.T) {
	var events []Event
	k := newKernel()
	q := start(t, Config{Event: func(e Event) { events = append(events, e) }}, k).queues[0]
	var held Held
	k.arrive(0)
	k.arrive(1)
	step(q, func(p *Packet) Verdict {
		if p.Mark == 0 {
			held = p.Hold()
		}
		return Accept()
	})
	k.noMemory = 101 // more often than one send is tried
	if err := held.Judge(Drop()); !errors.Is(err, errAgain) {
		t.Errorf("judge without memory: %v", err)
	}
	// Nothing is held now, so this may be a batch, which would judge 0 too.
	k.arrive(2)
	k.arrive(3)
	step(q, accept)
	for n, want := range []string{"0", "1", "1", "1"} {
		if got := k.fate(t, n); got != want {
			t.Errorf("packet %d: %s, want %s", n, got, want)
		}
	}
	if k.batches != 1 {
		t.Errorf("%d batches, want 1: the test shows nothing", k.batches)
	}
}

// A verdict that could not be sent waits for no later packet: a queue that is full of
// packets without verdicts gets none.
func TestSendFailsLast(t *testing.T) {
	k := newKernel()
	k.maxLen, k.noMemory = 1, 150
	g := start(t, Config{}, k)
	k.arrive(0)
	done := make(chan error, 1)
	go func() { done <- g.Serve(t.Context(), accept) }()
	waiting := func() bool {
		k.mu.Lock()
		defer k.mu.Unlock()
		return len(k.queue) > 0
	}
	for until := time.Now().Add(5 * time.Second); waiting(); time.Sleep(time.Millisecond) {
		if time.Now().After(until) {
			t.Error("packet 0 has no verdict")
			break
		}
	}
	if g.Close(); <-done != nil || k.fate(t, 0) != "1" {
		t.Errorf("packet 0: %s", k.fate(t, 0))
	}
	if n := g.Stats()[0].Refused; n != 1 {
		t.Errorf("refused %d, want 1", n)
	}
}

// A queue that vanished and that another program has now is bound when that
// one lets go of it.
func TestTaken(t *testing.T) {
	events := make(chan Event, 10)
	k := newKernel()
	g := start(t, Config{Event: func(e Event) { events <- e }}, k)
	served := make(chan error)
	go func() { served <- g.Serve(context.Background(), accept) }()
	k.mu.Lock()
	k.taken = true
	k.mu.Unlock()
	k.arrive(0)
	k.vanish()
	// Whether or not the first packet's verdict came in time, the next one's does not.
	k.mu.Lock()
	k.deliver(packetMessage(2, 1))
	k.mu.Unlock()
	for _, want := range []error{ErrVanished, ErrBusy} {
		if e := <-events; e.Err != want {
			t.Fatalf("%v, want %v", e, want)
		}
	}
	k.mu.Lock()
	k.taken = false
	k.mu.Unlock()
	for bound := false; !bound; time.Sleep(10 * time.Millisecond) {
		k.mu.Lock()
		bound = k.bound
		k.mu.Unlock()
	}
	k.arrive(2)
	for k.mu.Lock(); len(k.fates[2]) == 0; k.mu.Lock() {
		k.mu.Unlock()
		time.Sleep(time.Millisecond)
	}
	k.mu.Unlock()
	g.Close()
	if err := <-served; err != nil || k.fate(t, 2) != "1" {
		t.Error(err, k.fates[2])
	}
}

// Verdicts that are given while the queue is closed arrive, or Judge says that
// the default did.
func TestCloseWhileJudging(t *testing.T) {
	for range 50 {
		const packets = 200
		k := newKernel()
		g := start(t, Config{Default: Repeat()}, k)
		held := make(chan Held, packets)
		served := make(chan error)
		go func() {
			served <- g.Serve(context.Background(), func(p *Packet) Verdict {
				held <- p.Hold()
				return Verdict{}
			})
		}()
		for n := range packets {
			k.arrive(n)
		}
		var judged, late atomic.Int64
		var workers sync.WaitGroup
		for range 4 {
			workers.Go(func() {
				for range packets / 4 {
					switch err := (<-held).Judge(Accept()); err {
					case nil:
						judged.Add(1)
					case ErrClosed:
						late.Add(1)
					default:
						t.Error(err)
					}
				}
			})
		}
		for judged.Load() == 0 {
			runtime.Gosched()
		}
		g.Close()
		if err := <-served; err != nil {
			t.Fatal(err)
		}
		workers.Wait()
		fates := map[string]int64{}
		for n := range packets {
			fates[k.fate(t, n)]++
		}
		if fates["1"] != judged.Load() || fates["4"] != late.Load() || judged.Load()+late.Load() != packets {
			t.Fatalf("%v, of which %d were judged and %d too late", fates, judged.Load(), late.Load())
		}
	}
}

// A slow handler must not keep the verdicts of the packets before it.
func TestMaxDelay(t *testing.T) {
	k := newKernel()
	q := start(t, Config{MaxDelay: time.Millisecond}, k).queues[0]
	for n := range 4 {
		k.arrive(n)
	}
	step(q, func(p *Packet) Verdict {
		switch p.Mark {
		case 1:
			time.Sleep(2 * time.Millisecond)
		case 2:
			for n := range 2 {
				if len(k.fates[n]) != 1 {
					t.Errorf("packet %d has no verdict after 2 ms", n)
				}
			}
		}
		return Accept()
	})
}

func TestConfigErrors(t *testing.T) {
	for _, tt := range []struct {
		cfg  Config
		want string
	}{
		{Config{First: 65535, Count: 2}, "16 bits"},
		{Config{Count: -1}, "16 bits"},
		{Config{Batch: 5000}, "batch"},
		{Config{Batch: -1}, "batch"},
		{Config{CPUs: []int{-1}}, "no CPU -1"},
		{Config{Default: Accept().WithPayload([]byte("x"))}, "default"},
	} {
		if _, err := Open(tt.cfg); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%+v: %v, want %q", tt.cfg, err, tt.want)
		}
	}
	if err := (Held{}).Judge(Accept()); !errors.Is(err, ErrJudged) {
		t.Error("judge no packet:", err)
	}
}

func TestVerdictString(t *testing.T) {
	for want, v := range map[string]Verdict{
		"none":                          {},
		"accept":                        Accept(),
		"drop mark 0x7":                 Drop().WithMark(7),
		"repeat ct mark 0x2/0xf":        Repeat().WithConnmarkBits(0x12, 0xf),
		"queue 65535 bypass":            ToQueue(65535).WithBypass(),
		"accept payload 3 bytes":        Accept().WithBypass().WithPayload([]byte("abc")),
		"accept ct mark 0x1/0xffffffff": Accept().WithConnmark(1),
	} {
		if v.String() != want {
			t.Errorf("%s, want %s", v, want)
		}
	}
}
