package inspect_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"inquest/inspect"
	"inquest/inspect/app"
	"inquest/inspect/flow"
	"inquest/inspect/packet"
	"inquest/inspect/rule"
)

// received is the receiver of a stream: what passes the engine arrives here.
type received struct {
	bytes.Buffer
	stream flow.Stream
	limits flow.Limits
}

func (r *received) Data(b []byte) { r.Write(b) }
func (r *received) Gap(int)       { panic("the receiver has no gaps") }

func (r *received) take(p *packet.Packet) {
	r.stream.Add(flow.Segment{Seq: p.TCP.Seq, SYN: p.TCP.Flags&packet.SYN != 0, Data: p.Payload, Len: p.PayloadLen}, &r.limits, r)
}

// TestStreamsPass sends many HTTP connections, cut at random, reordered, with parts
// sent twice. Of a connection without a blocked request no packet may be lost; of
// one with, everything before must arrive and the request itself never be whole.
func TestStreamsPass(t *testing.T) {
	e := inspect.New(load(t, `
default: accept
rules:
- {name: blocked, when: 'http.host == "blocked.example"', verdict: drop}
- {name: ads, when: 'tls.sni == "blocked.example"', verdict: drop}
`), inspect.Config{})
	w := e.Worker()
	r := rand.New(rand.NewPCG(1, 2))
	passed, blocked := 0, 0
	for n := range 400 {
		var text strings.Builder
		before := -1 // where the blocked request begins
		for i := range 1 + r.IntN(6) {
			host := "fine.example"
			if r.IntN(8) == 0 {
				host = "blocked.example"
				if before < 0 {
					before = text.Len()
				}
			}
			fmt.Fprintf(&text, "GET /%d HTTP/1.1\r\nX-Pad: %s\r\nHost: %s\r\n\r\n", i, strings.Repeat("x", r.IntN(100)), host)
		}
		request := text.String()
		c := connect(fmt.Sprintf("10.1.%d.%d:40000", n/250, n%250), "192.0.2.1:80")
		rx := &received{}
		var p packet.Packet
		send := func(b []byte) bool {
			d := w.Inspect(b, nil, int64(n))
			if d.Verdict.Kind != rule.Accept {
				return false
			}
			p.Decode(b)
			if p.SrcPort == 40000 {
				rx.take(&p)
			}
			return true
		}
		for _, b := range c.open() {
			send(b)
		}
		base := c.seq[0]
		type piece struct{ from, to int }
		var pieces []piece
		for at := 0; at < len(request); {
			to := min(len(request), at+1+r.IntN(120))
			pieces = append(pieces, piece{max(0, at-r.IntN(20)), to})
			at = to
		}
		for i := range pieces {
			j := min(len(pieces)-1, i+r.IntN(4))
			pieces[i], pieces[j] = pieces[j], pieces[i]
		}
		// What is dropped is sent again, three times.
		for range 3 {
			var again []piece
			for _, s := range pieces {
				if !send(c.tcp(packet.ACK, base+uint32(s.from), c.seq[1], request[s.from:s.to])) {
					if before < 0 {
						t.Fatalf("connection %d: a packet of %q was dropped", n, request)
					}
					again = append(again, s)
				}
				if r.IntN(3) == 0 {
					send(c.back().tcp(packet.ACK, c.seq[1], base+uint32(rx.Len()), ""))
				}
			}
			pieces = again
		}
		if before < 0 {
			if rx.String() != request {
				t.Fatalf("connection %d: %d of %d bytes arrived", n, rx.Len(), len(request))
			}
			passed++
			continue
		}
		blocked++
		end := before + strings.Index(request[before:], "\r\n\r\n") + 4
		if rx.Len() >= end {
			t.Fatalf("connection %d: the blocked request arrived: %q of %q", n, rx.String()[before:], request)
		}
	}
	if passed < 50 || blocked < 50 {
		t.Errorf("%d passed, %d blocked", passed, blocked)
	}
	if held := e.Stats().StreamMemory; held > 400*flow.DefaultMaxBytes {
		t.Errorf("%d bytes held", held)
	}
}

// TestReload: decided flows are judged anew, what was learnt of flows is not lost.
func TestReload(t *testing.T) {
	first := load(t, "default: accept\nrules:\n- {name: none, when: 'tls.sni == \"nobody.example\"', verdict: drop}\n")
	e := inspect.New(first, inspect.Config{})
	w := e.Worker()
	c := connect("10.0.0.1:40000", "192.0.2.1:443")
	u := between("10.0.0.1:40000", "192.0.2.1:9")
	send := func(want string, b []byte) {
		t.Helper()
		if got := judge(e, w.Inspect(b, nil, 0)); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
	for _, b := range c.open() {
		send("accept none pending", b)
	}
	send("accept decided", c.say(clientHello(t, "www.example")))
	send("accept decided cached", c.answer("hello"))
	if s := e.Stats(); s.Apps[app.ProtoTLS] != 1 || s.ParserMemory+s.StreamMemory != 0 {
		t.Errorf("%v flows by protocol; a decided flow holds %d bytes", s.Apps, s.ParserMemory+s.StreamMemory)
	}
	send("accept decided", u.udp(nil)) // no TLS there
	if s := e.Stats(); s.Generation != 1 || s.Default != 3 || s.Rules[0] != 3 {
		t.Errorf("generation %d, default %d, rules %v", s.Generation, s.Default, s.Rules)
	}

	e.Reload(load(t, "default: accept\nrules:\n- {name: www, when: 'tls.sni == \"www.example\"', verdict: drop}\n- {name: nine, when: 'udp.dport == 9', verdict: drop}\n"))
	send("drop www decided", c.say("more"))
	send("drop www decided cached", c.answer("more"))
	send("drop nine decided", u.udp(nil))
	if s := e.Stats(); s.Generation != 2 || s.Rules[0] != 2 || s.Rules[1] != 1 || s.Default != 0 || s.Packets != 9 || s.Decided != 4 {
		t.Errorf("%+v", s)
	}
	if e.Set() == first {
		t.Error("the first set is still in force")
	}
}

// TestReloadConcurrent: workers judge while sets are exchanged; each packet gets the
// verdict of one of them, whole.
func TestReloadConcurrent(t *testing.T) {
	sets := make([]*rule.Set, 4)
	for i := range sets {
		// The rule's number and the mark always agree within a set.
		var b strings.Builder
		fmt.Fprintf(&b, "default: drop\nrules:\n")
		for k := range i {
			fmt.Fprintf(&b, "- {name: filler%d, when: 'udp.dport == %d', verdict: drop}\n", k, 60000+k)
		}
		fmt.Fprintf(&b, "- {name: all, when: 'ip.version == 4', verdict: {mark: %d}}\n", i+1)
		sets[i] = load(t, b.String())
	}
	e := inspect.New(sets[0], inspect.Config{MaxFlows: 2000})
	var stop atomic.Bool
	var wg sync.WaitGroup
	var judged atomic.Int64
	for n := range 3 {
		w := e.Worker()
		wg.Go(func() {
			for i := 0; !stop.Load(); i++ {
				c := between(fmt.Sprintf("10.%d.%d.1:1000", n, i%200), "192.0.2.1:53")
				d := w.Inspect(c.udp(nil), nil, int64(i)*int64(time.Millisecond))
				if d.Verdict.Kind != rule.Mark || int(d.Verdict.Mark) != d.Rule+1 {
					t.Errorf("rule %d: %v", d.Rule, d.Verdict)
					return
				}
				judged.Add(1)
			}
		})
	}
	for i := 0; judged.Load() < 20_000; i++ {
		e.Reload(sets[i%len(sets)])
		e.Stats()
		e.Expire(int64(i))
		time.Sleep(200 * time.Microsecond)
		if t.Failed() {
			break
		}
	}
	stop.Store(true)
	wg.Wait()
	if s := e.Stats(); s.Packets != uint64(judged.Load()) || s.Verdicts[rule.Mark] != s.Packets {
		t.Errorf("%d packets counted, %d judged", s.Packets, judged.Load())
	}
}

// TestManyFlows: a million flows, and twice as many that begin and are given up.
func TestManyFlows(t *testing.T) {
	n := 1_000_000
	if testing.Short() {
		n = 100_000
	}
	e := inspect.New(load(t, rules), inspect.Config{MaxFlows: n})
	w := e.Worker()
	query := dnsQuery(t, "good.example.")
	b := between("10.0.0.1:5353", "192.0.2.53:53").udp(query)
	meta := &rule.Meta{Checksum: packet.ChecksumVerified}
	for i := range 2 * n {
		binary.BigEndian.PutUint32(b[12:], 0x0b000000+uint32(i))
		if d := w.Inspect(b, meta, int64(i)); d.Verdict.Kind != rule.Accept {
			t.Fatalf("flow %d: %v", i, d)
		}
	}
	s := e.Stats()
	memory := s.Flows.Memory + s.SessionMemory + s.StreamMemory + s.ParserMemory
	t.Logf("%d flows, %d sessions, %d taken, %.0f MB, %d bytes a flow", s.Flows.Flows, s.Sessions, s.Taken, float64(memory)/1e6, s.Flows.Memory/int64(s.Flows.Flows))
	if s.Flows.Flows > n || s.Flows.Flows < n*9/10 || s.Sessions > s.MaxSessions {
		t.Errorf("%d flows of %d, %d sessions of %d", s.Flows.Flows, n, s.Sessions, s.MaxSessions)
	}
	if limit := int64(n)*250 + inspect.DefaultMaxMemory; memory > limit {
		t.Errorf("%d bytes held, more than %d", memory, limit)
	}
}

// TestFloodOfPayload: new flows with payload take sessions from each other, not from
// a connection that is in use.
func TestFloodOfPayload(t *testing.T) {
	e := inspect.New(load(t, rules), inspect.Config{MaxMemory: 1 << 20})
	w := e.Worker()
	hello := clientHello(t, "x.ads.example")
	c := connect("10.0.0.1:40000", "192.0.2.1:443")
	for _, b := range c.open() {
		w.Inspect(b, nil, 0)
	}
	flood := between("10.0.0.1:5353", "192.0.2.53:53").udp(dnsQuery(t, "good.example."))
	meta := &rule.Meta{Checksum: packet.ChecksumVerified}
	for i := range len(hello) - 1 {
		if d := w.Inspect(c.say(hello[i:i+1]), nil, int64(i)); d.Verdict.Kind != rule.Accept {
			t.Fatalf("byte %d: %v", i, d)
		}
		for k := range 50 {
			binary.BigEndian.PutUint32(flood[12:], 0x0b000000+uint32(i*50+k))
			w.Inspect(flood, meta, int64(i))
		}
	}
	if got := judge(e, w.Inspect(c.say(hello[len(hello)-1:]), nil, 1)); got != "drop ads decided" {
		t.Errorf("after the flood: %q", got)
	}
	s := e.Stats()
	if s.Taken == 0 || s.Sessions > s.MaxSessions {
		t.Errorf("%d sessions of %d, %d taken", s.Sessions, s.MaxSessions, s.Taken)
	}
}

// TestBudgets: connections that leave holes hold no more than they may, together.
func TestBudgets(t *testing.T) {
	const memory = 4 << 20
	e := inspect.New(load(t, rules), inspect.Config{MaxMemory: memory})
	w := e.Worker()
	body := strings.Repeat("x", 1400)
	for n := range 400 {
		c := connect(fmt.Sprintf("10.2.%d.%d:40000", n/250, n%250), "192.0.2.1:80")
		for _, b := range c.open() {
			w.Inspect(b, nil, 0)
		}
		c.say("G") // never sent
		for range 30 {
			w.Inspect(c.say(body), nil, 0)
		}
		if s := e.Stats(); s.StreamMemory > memory/2 || s.ParserMemory > memory/4 {
			t.Fatalf("%d bytes of streams, %d of parsers", s.StreamMemory, s.ParserMemory)
		}
	}
	s := e.Stats()
	if s.Streams.Gaps == 0 || s.StreamMemory < memory/4 {
		t.Errorf("%d gaps, %d bytes held", s.Streams.Gaps, s.StreamMemory)
	}
	e.Expire(int64(24 * time.Hour))
	if s := e.Stats(); s.StreamMemory != 0 || s.ParserMemory != 0 || s.Sessions != 0 || s.Flows.Flows != 0 {
		t.Errorf("after all have expired: %+v", s)
	}
}
