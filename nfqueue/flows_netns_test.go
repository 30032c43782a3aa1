//go:build netns

package nfqueue_test

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"inquest/nfqueue"
)

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
	rule(t, "mangle -A INPUT -p udp --dport 4009 -m connmark --mark 0 -j CONNMARK --set-mark 0x70")
	rule(t, "mangle -A INPUT -p udp --dport 4009 -m connmark ! --mark 0x73 -j NFQUEUE --queue-num 56")
	rule(t, "nat -A INPUT -p udp --dport 4009 -j ACCEPT")
	g = open(t, cfg, func(p *nfqueue.Packet) nfqueue.Verdict {
		ct, has = p.Conntrack()
		return nfqueue.Accept().WithConnmarkBits(0xf3, 0xf)
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
		ct.Reply.DstPort != want.Port() || ct.Mark != 0x70 || ct.State != nfqueue.CTNew {
		t.Errorf("%v %+v", has, ct)
	}
	if n := g.Stats()[0].Received; n != 1 {
		t.Errorf("%d packets queued, want 1: the mark was not set", n)
	}
}
