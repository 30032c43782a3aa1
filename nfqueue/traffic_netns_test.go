//go:build netns

package nfqueue_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
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

// Large TCP segments come as one packet each, and the stream is whole.
func TestGSO(t *testing.T) {
	run(t, "ip", "link", "set", "lo", "mtu", "1500")
	defer run(t, "ip", "link", "set", "lo", "mtu", "65536")
	rule(t, "mangle -A OUTPUT -p tcp --dport 4007 -j NFQUEUE --queue-num 50")
	var largest, segments, cut atomic.Int64
	g := open(t, nfqueue.Config{First: 50, GSO: true}, func(p *nfqueue.Packet) nfqueue.Verdict {
		largest.Store(max(largest.Load(), int64(p.Len)))
		if p.Info&nfqueue.Segments != 0 {
			segments.Add(1)
		}
		if p.Truncated() {
			cut.Add(1)
		}
		return nfqueue.Accept()
	})
	const size = 8 << 20
	if n := transfer(t, "127.0.0.1:4007", size); n != size {
		t.Errorf("%d bytes arrived, want %d", n, size)
	}
	if largest.Load() < 10000 || segments.Load() == 0 {
		t.Errorf("largest packet %d bytes, %d with several segments", largest.Load(), segments.Load())
	}
	if s := g.Stats()[0]; s.Malformed+s.Refused+s.Flushed != 0 || cut.Load() != 0 {
		t.Errorf("%d truncated, %+v", cut.Load(), s)
	}
}

// transfer sends bytes over TCP and returns how many arrive unchanged.
func transfer(t testing.TB, address string, size int) int {
	t.Helper()
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	data := make([]byte, size)
	for i := range data {
		data[i] = byte(i * 7 >> 3)
	}
	go func() {
		c, err := net.Dial("tcp", address)
		if err != nil {
			t.Error(err)
			return
		}
		defer c.Close()
		c.Write(data)
	}()
	c, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetReadDeadline(time.Now().Add(20 * time.Second))
	got, err := io.ReadAll(c)
	if err != nil {
		t.Error(err)
	}
	for i := range min(len(got), size) {
		if got[i] != data[i] {
			return i
		}
	}
	return len(got)
}

// A mark on the packet, saved to the connection, takes the rest of the flow
// out of the queue.
func TestConnmarkShortcut(t *testing.T) {
	rule(t, "mangle -A INPUT -p udp --dport 4008 -j CONNMARK --restore-mark")
	rule(t, "mangle -A INPUT -p udp --dport 4008 -m mark --mark 5 -j RETURN")
	rule(t, "mangle -A INPUT -p udp --dport 4008 -j NFQUEUE --queue-num 55")
	rule(t, "nat -A INPUT -p udp --dport 4008 -j ACCEPT")
	rule(t, "filter -A INPUT -p udp --dport 4008 -m mark --mark 5 -j CONNMARK --save-mark")
	g := open(t, nfqueue.Config{First: 55}, func(p *nfqueue.Packet) nfqueue.Verdict {
		return nfqueue.Accept().WithMark(5)
	})
	c := newPair(t, "127.0.0.1:4008")
	for i := range 10 {
		c.send(t, fmt.Sprint(i))
		if got := c.receive(t, 1); len(got) != 1 {
			t.Fatalf("packet %d did not arrive", i)
		}
	}
	if n := g.Stats()[0].Received; n != 1 {
		t.Errorf("%d of 10 packets were queued, want 1", n)
	}
}

// Kernels built with NETFILTER_NETLINK_GLUE_CT show connections and set their
// marks; others must say that they do not.
func TestConntrack(t *testing.T) {
	var ct nfqueue.Conntrack
	var has bool
	cfg := nfqueue.Config{First: 56, Conntrack: true}
	g, err := nfqueue.Open(cfg)
	if errors.Is(err, nfqueue.ErrUnsupported) {
		if !strings.Contains(err.Error(), "conntrack") {
			t.Errorf("the error does not name the flag: %v", err)
		}
		if g, err = nfqueue.Open(nfqueue.Config{First: 56}); err != nil {
			t.Fatal("the queue cannot be bound after the error:", err)
		}
		g.Close()
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	g.Close()
	rule(t, "mangle -A INPUT -p udp --dport 4009 -m connmark ! --mark 3 -j NFQUEUE --queue-num 56")
	rule(t, "nat -A INPUT -p udp --dport 4009 -j ACCEPT")
	g = open(t, cfg, func(p *nfqueue.Packet) nfqueue.Verdict {
		ct, has = p.Conntrack()
		return nfqueue.Accept().WithConnmark(3)
	})
	c := newPair(t, "127.0.0.1:4009")
	for range 3 {
		c.send(t, "x")
		if got := c.receive(t, 1); len(got) != 1 {
			t.Fatal("not arrived")
		}
	}
	want := netip.MustParseAddrPort(c.LocalAddr().String())
	if !has || ct.Original.Src != want.Addr() || ct.Original.SrcPort != want.Port() || ct.Original.DstPort != 4009 ||
		ct.Reply.DstPort != want.Port() || ct.State != nfqueue.CTNew {
		t.Errorf("%v %+v", has, ct)
	}
	if n := g.Stats()[0].Received; n != 1 {
		t.Errorf("%d packets queued, want 1: the mark was not set", n)
	}
}
