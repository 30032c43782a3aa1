package nfqueue

import (
	"context"
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// start binds a Queues to models of queues.
func start(t testing.TB, cfg Config, kernels ...*kernel) *Queues {
	t.Helper()
	cfg.Count = len(kernels)
	cfg, err := cfg.withDefaults()
	if err != nil {
		t.Fatal(err)
	}
	g := &Queues{cfg: cfg, done: make(chan struct{})}
	for i, k := range kernels {
		q := newQueue(uint16(i), &g.cfg, k)
		q.lastID = k.seq
		g.queues = append(g.queues, q)
	}
	return g
}

// plan is the verdict that packet n is to get, so that each says which it is
// for if it is not one for a batch.
func plan(n int) (Verdict, string) {
	switch n % 16 {
	case 3:
		return Drop(), "0"
	case 7:
		return Accept().WithMark(uint32(n)), fmt.Sprintf("1 mark %d", n)
	case 8:
		return Accept().WithPayload(fmt.Appendf(nil, "p%d", n)), fmt.Sprintf("1 payload %q", fmt.Sprintf("p%d", n))
	case 9, 10:
		return Repeat().WithMark(5), "4 mark 5"
	case 11:
		return ToQueue(3), fmt.Sprint(3<<16 | 3)
	case 12:
		return Drop().WithConnmark(uint32(n)), fmt.Sprintf("0 ct %d", n)
	case 13:
		return ToQueue(4).WithBypass(), fmt.Sprint(4<<16 | 0x8000 | 3)
	default:
		return Accept(), "1"
	}
}

// TestVerdicts sends random traffic through several queues whose packets are
// judged at once, or held and judged by many goroutines in any order, and
// checks that each packet gets its own verdict, once. Ids wrap on the way.
func TestVerdicts(t *testing.T) {
	for _, holds := range []int{0, 1, 10, 50, 100} { // percent
		t.Run(fmt.Sprintf("%d%% held", holds), func(t *testing.T) {
			const packets = 6000
			kernels := []*kernel{newKernel(), newKernel(), newKernel()}
			for _, k := range kernels {
				k.seq = ^uint32(0) - packets/2
				k.noMemory = 3
			}
			g := start(t, Config{Default: Accept()}, kernels...)
			work := make(chan func(), 1000)
			var workers sync.WaitGroup
			for range 4 {
				workers.Go(func() {
					// A pile of packets, taken from in any order.
					var pile []func()
					for f := range work {
						pile = append(pile, f)
						if rand.IntN(4) == 0 {
							rand.Shuffle(len(pile), func(i, j int) { pile[i], pile[j] = pile[j], pile[i] })
							for _, f := range pile {
								f()
							}
							pile = pile[:0]
						}
					}
					for _, f := range pile {
						f()
					}
				})
			}
			served := make(chan error)
			var handled atomic.Int64
			go func() {
				served <- g.Serve(context.Background(), func(p *Packet) Verdict {
					defer handled.Add(1)
					v, _ := plan(int(p.Mark))
					if rand.IntN(100) >= holds {
						return v
					}
					h := p.Hold()
					if p.Hold() != h {
						t.Error("another Held for the same packet")
					}
					work <- func() {
						if err := h.Judge(v); err != nil {
							t.Errorf("judge: %v", err)
						}
						if err := h.Judge(Drop()); err != ErrJudged {
							t.Errorf("judge again: %v", err)
						}
					}
					return Drop() // is ignored
				})
			}()
			var senders sync.WaitGroup
			for _, k := range kernels {
				senders.Go(func() {
					for n := range packets {
						k.arrive(n)
						if rand.IntN(50) == 0 {
							runtime.Gosched()
						}
					}
				})
			}
			senders.Wait()
			for handled.Load() < int64(len(kernels)*packets) {
				time.Sleep(time.Millisecond)
			}
			close(work)
			workers.Wait()
			if err := g.Close(); err != nil {
				t.Fatal(err)
			}
			if err := <-served; err != nil {
				t.Fatal(err)
			}
			for i, k := range kernels {
				for n := range packets {
					if _, want := plan(n); k.fate(t, n) != want {
						t.Fatalf("queue %d: packet %d: %s, want %s", i, n, k.fate(t, n), want)
					}
				}
				s := g.Stats()[i]
				if got := s.Accepted + s.Dropped + s.Repeated + s.Requeued; got != packets || s.Latency.Count != packets {
					t.Errorf("queue %d: %d verdicts and %d latencies counted, want %d", i, got, s.Latency.Count, packets)
				}
				if s.Flushed+s.Refused+s.Lost+s.Malformed > 0 || s.Held != 0 {
					t.Errorf("queue %d: %+v", i, s)
				}
				if holds == 0 && k.judged < packets/4 {
					t.Errorf("queue %d: only %d packets judged by %d batches", i, k.judged, k.batches)
				}
			}
		})
	}
}

// FuzzVerdicts runs a program of steps, each one byte, against the model of the
// kernel, on one goroutine.
func FuzzVerdicts(f *testing.F) {
	f.Add([]byte{0x3f, 0x40, 0x05, 0x41, 0x80, 0x40, 0xc0, 0x81, 0x40}, uint32(0))
	f.Add([]byte{0x1f, 0x40, 0x3f, 0x41, 0xe0, 0x3f, 0x40, 0x80, 0x80}, ^uint32(0)-20)
	f.Add([]byte{0x1f, 0x60, 0x3f, 0xf0, 0x43, 0x3f, 0x40, 0x80, 0x80, 0x3f, 0x40}, uint32(1<<31))
	f.Fuzz(func(t *testing.T, steps []byte, first uint32) {
		if len(steps) > 200 {
			return
		}
		k := newKernel()
		k.seq = first
		g := start(t, Config{}, k)
		q := g.queues[0]
		type held struct {
			Held
			n int
		}
		var pile []held
		got := map[int]bool{} // packets that reached the handler
		next := 0
		handler := func(every byte) Handler {
			return func(p *Packet) Verdict {
				n := int(p.Mark)
				got[n] = true
				v, _ := plan(n)
				if every != 0 && n%int(every) == 0 {
					pile = append(pile, held{p.Hold(), n})
				}
				return v
			}
		}
		judge := func(i int) {
			h := pile[i%len(pile)]
			pile[i%len(pile)] = pile[len(pile)-1]
			pile = pile[:len(pile)-1]
			v, _ := plan(h.n)
			if err := h.Judge(v); err != nil && err != ErrFlushed {
				t.Fatal(err)
			}
		}
		for _, s := range steps {
			arg := s & 0x1f
			switch s >> 5 {
			case 0, 1: // packets come
				for range arg {
					k.arrive(next)
					next++
				}
			case 2, 3: // some are received, and every arg-th is held
				n, _ := q.receiveNow()
				q.handle(n, handler(arg))
			case 4: // one that is held is judged
				if len(pile) > 0 {
					judge(int(arg))
				}
			case 5:
				k.noMemory = int(arg % 2)
			case 6:
				k.flush()
			case 7:
				if arg&1 == 0 {
					k.maxLen = 1 + int(arg)
				} else if arg&16 != 0 {
					k.vanish()
				}
			}
		}
		for len(pile) > 0 {
			judge(0)
		}
		if err := q.drain(handler(0)); err != nil {
			t.Fatal(err)
		}
		for n := range next {
			_, want := plan(n)
			switch fate := k.fate(t, n); fate {
			case want, "flushed", "full", "unbound":
			default:
				// What was not handled before the queue vanished is
				// swept by Default.
				if got[n] || fate != "0" {
					t.Fatalf("packet %d: %s, want %s", n, fate, want)
				}
			}
		}
	})
}

// receiveNow receives without waiting.
func (q *queue) receiveNow() (int, error) {
	n, err := q.out.sock.receive(false)
	return q.received(n, err)
}

// Seeds of random programs, so that the plain test run covers what the fuzzer does.
func TestVerdictPrograms(t *testing.T) {
	for seed := range uint64(300) {
		r := rand.New(rand.NewPCG(seed, 1))
		k := newKernel()
		k.seq = -uint32(r.IntN(300))
		g := start(t, Config{MaxDelay: time.Hour}, k)
		q := g.queues[0]
		held := map[int]Held{}
		next := 0
		for range 200 {
			switch r.IntN(3) {
			case 0:
				for range r.IntN(40) {
					k.arrive(next)
					next++
				}
			case 1:
				n, _ := q.receiveNow()
				q.handle(n, func(p *Packet) Verdict {
					if r.IntN(20) == 0 {
						held[int(p.Mark)] = p.Hold()
					}
					// Another packet's verdict may come in between.
					for n, h := range held {
						if r.IntN(10) == 0 {
							v, _ := plan(n)
							if err := h.Judge(v); err != nil {
								t.Fatal(err)
							}
							delete(held, n)
						}
						break
					}
					v, _ := plan(int(p.Mark))
					return v
				})
			case 2:
				for n, h := range held {
					v, _ := plan(n)
					if err := h.Judge(v); err != nil {
						t.Fatal(err)
					}
					delete(held, n)
					break
				}
			}
			// Nothing that is held may have been judged.
			for n := range held {
				if f := k.fates[n]; len(f) != 0 {
					t.Fatalf("seed %d: packet %d is held and got %q", seed, n, f)
				}
			}
		}
		for n, h := range held {
			v, _ := plan(n)
			h.Judge(v)
		}
		if err := q.drain(func(p *Packet) Verdict { v, _ := plan(int(p.Mark)); return v }); err != nil {
			t.Fatal(err)
		}
		for n := range next {
			if _, want := plan(n); k.fate(t, n) != want {
				t.Fatalf("seed %d: packet %d: %s, want %s", seed, n, k.fate(t, n), want)
			}
		}
	}
}
