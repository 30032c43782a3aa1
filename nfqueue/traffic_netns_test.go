//go:build netns

package nfqueue_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"inquest/nfqueue"
)

func TestVerdictsOnTraffic(t *testing.T) {
	rule(t, "mangle -A INPUT -m mark --mark 9 -j ACCEPT")
	rule(t, "mangle -A INPUT -p udp --dport 4001 -j NFQUEUE --queue-num 10")
	var repeated, other atomic.Int64
	open(t, nfqueue.Config{First: 11}, func(p *nfqueue.Packet) nfqueue.Verdict {
		other.Add(1)
		return nfqueue.Accept()
	})
	g := open(t, nfqueue.Config{First: 10, GSO: true}, func(p *nfqueue.Packet) nfqueue.Verdict {
		switch verb, arg, _ := bytes.Cut(datagram(p), []byte(" ")); string(verb) {
		case "drop":
			return nfqueue.Drop()
		case "repeat":
			repeated.Add(1)
			return nfqueue.Repeat().WithMark(9)
		case "other":
			return nfqueue.ToQueue(11)
		case "nobody":
			return nfqueue.ToQueue(12)
		case "bypass":
			return nfqueue.ToQueue(12).WithBypass()
		case "shrink":
			return nfqueue.Accept().WithPayload(redatagram(p, string(arg[:2])))
		case "grow":
			return nfqueue.Accept().WithPayload(redatagram(p, strings.Repeat(string(arg), 500)))
		case "same":
			return nfqueue.Accept().WithPayload(redatagram(p, "SAME "+string(arg)))
		case "wrong":
			b := redatagram(p, "wrong")
			b[27] ^= 1
			return nfqueue.Accept().WithPayload(b)
		case "none":
			return nfqueue.Verdict{}
		}
		return nfqueue.Accept()
	})
	c := newPair(t, "127.0.0.1:4001")
	for in, want := range map[string][]string{
		"accept me":  {"accept me"},
		"drop me":    nil,
		"repeat me":  {"repeat me"},
		"other me":   {"other me"},
		"nobody me":  nil,
		"bypass me":  {"bypass me"},
		"shrink abc": {"ab"},
		"grow abc":   {strings.Repeat("abc", 500)},
		"same abc":   {"SAME abc"},
		"wrong sum":  nil,
		"none":       nil,
	} {
		c.send(t, in)
		if got := c.receive(t, len(want)); !slices.Equal(got, want) {
			t.Errorf("%s: received %.80q, want %.80q", in, got, want)
		}
	}
	if repeated.Load() != 1 || other.Load() != 1 {
		t.Errorf("repeated %d times, in the other queue %d, want once", repeated.Load(), other.Load())
	}
	s := g.Stats()[0]
	if s.Received != 11 || s.Accepted != 5 || s.Dropped != 2 || s.Repeated != 1 || s.Requeued != 3 || s.Modified != 4 {
		t.Errorf("%+v", s)
	}
	if s.Kernel == nil || s.Kernel.LastID != 11 || s.Kernel.Waiting != 0 || s.Kernel.CopyRange != nfqueue.MaxPayload {
		t.Errorf("%+v", s.Kernel)
	}
}

func TestAttributes(t *testing.T) {
	var mu sync.Mutex
	seen := map[nfqueue.Hook]*nfqueue.Packet{}
	handle := func(p *nfqueue.Packet) nfqueue.Verdict {
		mu.Lock()
		defer mu.Unlock()
		seen[p.Hook] = p.Clone()
		return nfqueue.Accept()
	}
	open(t, nfqueue.Config{First: 20, UIDGID: true, GSO: true, Timestamps: true, CopyRange: 40}, handle)
	rule(t, "mangle -A OUTPUT -p udp --dport 4002 -j MARK --set-mark 77")
	rule(t, "mangle -A OUTPUT -p udp --dport 4002 -j NFQUEUE --queue-num 20")
	rule(t, "mangle -A POSTROUTING -p udp --dport 4002 -j NFQUEUE --queue-num 20")
	rule(t, "mangle -A PREROUTING -p udp --dport 4002 -j NFQUEUE --queue-num 20")
	rule(t, "mangle -A INPUT -p udp --dport 4002 -j NFQUEUE --queue-num 20")
	c := newPair(t, "127.0.0.1:4002")
	eventually(t, "packets with timestamps", func() bool {
		c.send(t, strings.Repeat("x", 100))
		if got := c.receive(t, 1); len(got) != 1 || len(got[0]) != 100 {
			t.Fatalf("received %q", got)
		}
		mu.Lock()
		defer mu.Unlock()
		return !seen[nfqueue.PreRouting].Timestamp.IsZero() && !seen[nfqueue.LocalIn].Timestamp.IsZero()
	})
	mu.Lock()
	for hook := nfqueue.PreRouting; hook <= nfqueue.PostRouting; hook++ {
		p := seen[hook]
		if hook == nfqueue.Forward {
			continue
		}
		if p == nil {
			t.Errorf("%v: not seen", hook)
			continue
		}
		local := hook == nfqueue.LocalOut || hook == nfqueue.PostRouting
		in, out := uint32(1), uint32(0)
		if local {
			in, out = 0, 1
		}
		if p.Queue != 20 || p.Family != 2 || p.Protocol != 0x800 || p.In != in || p.Out != out || p.Mark != 77 ||
			len(p.Payload) != 40 || p.Len != 128 || !p.Truncated() || p.Info != nfqueue.ChecksumNotReady {
			t.Errorf("%v: %+v", hook, p)
		}
		if p.HasOwner != local || p.UID != 0 || p.GID != 0 {
			t.Errorf("%v: owner %v %d %d", hook, p.HasOwner, p.UID, p.GID)
		}
		if _, ok := p.Conntrack(); ok {
			t.Errorf("%v: a connection was not asked for", hook)
		}
		if local {
			continue
		}
		if p.HWAddr.String() != "00:00:00:00:00:00" {
			t.Errorf("%v: sender %v", hook, p.HWAddr)
		}
		if d := time.Since(p.Timestamp); d < 0 || d > 10*time.Second {
			t.Errorf("%v: came in %v", hook, p.Timestamp)
		}
	}

	mu.Unlock()

	rule6(t, "mangle -A INPUT -p udp --dport 4003 -j NFQUEUE --queue-num 20")
	c6 := newPair(t, "[::1]:4003")
	c6.send(t, "six")
	if got := c6.receive(t, 1); !slices.Equal(got, []string{"six"}) {
		t.Errorf("received %q", got)
	}
	mu.Lock()
	defer mu.Unlock()
	if p := seen[nfqueue.LocalIn]; p.Family != 10 || p.Protocol != 0x86dd || p.Payload[0]>>4 != 6 {
		t.Errorf("IPv6: %+v", p)
	}
}

func TestCopyMeta(t *testing.T) {
	rule(t, "mangle -A INPUT -p udp --dport 4004 -j NFQUEUE --queue-num 25")
	payload := make(chan int, 1)
	open(t, nfqueue.Config{First: 25, Mode: nfqueue.CopyMeta}, func(p *nfqueue.Packet) nfqueue.Verdict {
		payload <- len(p.Payload)
		return nfqueue.Accept()
	})
	c := newPair(t, "127.0.0.1:4004")
	c.send(t, "x")
	if got := c.receive(t, 1); len(got) != 1 || <-payload != 0 {
		t.Error(got)
	}
}

// Verdicts in reverse order deliver the packets in reverse order.
func TestReorder(t *testing.T) {
	rule(t, "mangle -A INPUT -p udp --dport 4005 -j NFQUEUE --queue-num 30")
	const n = 100
	held := make(chan nfqueue.Held, n)
	g := open(t, nfqueue.Config{First: 30}, func(p *nfqueue.Packet) nfqueue.Verdict {
		if bytes.HasPrefix(datagram(p), []byte("now")) {
			return nfqueue.Accept()
		}
		held <- p.Hold()
		return nfqueue.Verdict{}
	})
	c := newPair(t, "127.0.0.1:4005")
	var want, order []string
	for i := range n {
		c.send(t, fmt.Sprint(i))
		c.send(t, fmt.Sprint("now ", i)) // overtakes what is held
		want = append(want, fmt.Sprint("now ", i))
		order = append(order, fmt.Sprint(i))
	}
	if got := c.receive(t, n); !slices.Equal(got, want) {
		t.Errorf("received %q while others were held, want %q", got, want)
	}
	var all []nfqueue.Held
	for range n {
		all = append(all, <-held)
	}
	if s := g.Stats()[0]; s.Held != n || s.Kernel.Waiting != n {
		t.Errorf("%d held, %d waiting in the kernel, want %d", s.Held, s.Kernel.Waiting, n)
	}
	for _, h := range slices.Backward(all) {
		if err := h.Judge(nfqueue.Accept()); err != nil {
			t.Fatal(err)
		}
	}
	slices.Reverse(order)
	if got := c.receive(t, n); !slices.Equal(got, order) {
		t.Errorf("received %q, want %q", got, order)
	}
	if s := g.Stats()[0]; s.Flushed+s.Refused != 0 || s.Held != 0 {
		t.Errorf("%+v", s)
	}
}

// A mixture of verdicts at once and later, over several queues: what is
// accepted arrives, and nothing else does.
func TestMixtureUnderLoad(t *testing.T) {
	rule(t, "mangle -A INPUT -p udp --dport 4006 -j NFQUEUE --queue-balance 40:43")
	var workers sync.WaitGroup
	work := make(chan func(), 4096)
	for range 4 {
		workers.Go(func() {
			for f := range work {
				f()
			}
		})
	}
	g := open(t, nfqueue.Config{First: 40, Count: 4, GSO: true, MaxLen: 1 << 16, ReadBuffer: 128 << 20}, func(p *nfqueue.Packet) nfqueue.Verdict {
		verdict := nfqueue.Accept()
		if bytes.HasPrefix(datagram(p), []byte("drop")) {
			verdict = nfqueue.Drop()
		}
		if rand.IntN(30) == 0 {
			h := p.Hold()
			work <- func() {
				if rand.IntN(2) == 0 {
					time.Sleep(time.Duration(rand.IntN(1000)) * time.Microsecond)
				}
				if err := h.Judge(verdict); err != nil {
					t.Error(err)
				}
			}
		}
		return verdict
	})
	const flows, packets = 16, 2000
	var senders sync.WaitGroup
	first := newPair(t, "127.0.0.1:4006")
	for f := range flows {
		senders.Go(func() {
			// The balance is by address.
			d := net.Dialer{LocalAddr: &net.UDPAddr{IP: net.IPv4(127, 0, 1, byte(f))}}
			c, err := d.Dial("udp", "127.0.0.1:4006")
			if err != nil {
				t.Error(err)
				return
			}
			defer c.Close()
			for i := range packets {
				verb := "accept"
				if i%3 == 0 {
					verb = "drop"
				}
				fmt.Fprintf(c, "%s %d %d", verb, f, i)
				if i%200 == 199 {
					time.Sleep(2 * time.Millisecond) // do not fill the queues
				}
			}
		})
	}
	got := map[string]int{}
	accepted := flows * (packets - (packets+2)/3)
	for _, s := range first.receive(t, accepted) {
		got[s]++
	}
	senders.Wait()
	eventually(t, "all packets handled", func() bool {
		var n uint64
		for _, s := range g.Stats() {
			n += s.Received
		}
		return n == flows*packets
	})
	close(work)
	workers.Wait()
	var received, lost uint64
	for _, s := range g.Stats() {
		received += s.Received
		lost += s.Lost + uint64(s.Kernel.Dropped) + s.Flushed + s.Refused
		if s.Received == 0 {
			t.Errorf("queue %d saw nothing", s.Queue)
		}
	}
	if received != flows*packets || lost != 0 {
		t.Errorf("%d packets reached the handler, %d were lost; %d were sent", received, lost, flows*packets)
	}
	if len(got) != accepted {
		t.Errorf("%d different packets arrived, want %d", len(got), accepted)
	}
	for s, n := range got {
		if strings.HasPrefix(s, "drop") || n != 1 {
			t.Errorf("%q arrived %d times", s, n)
		}
	}
}
