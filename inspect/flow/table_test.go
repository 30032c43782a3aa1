package flow_test

import (
	"encoding/binary"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"inquest/inspect/flow"
	"inquest/inspect/packet"
)

// ends makes an IPv4 or IPv6 packet between two numbered endpoints.
type ends struct {
	v6       bool
	src, dst uint32
	sport    uint16
	dport    uint16
}

func (e ends) back() ends {
	e.src, e.dst, e.sport, e.dport = e.dst, e.src, e.dport, e.sport
	return e
}

func (e ends) header(b []byte, proto uint8, n int) []byte {
	if e.v6 {
		h := make([]byte, 40)
		h[0], h[6], h[7] = 0x60, proto, 64
		binary.BigEndian.PutUint16(h[4:], uint16(n))
		h[8], h[24] = 0x20, 0x20
		binary.BigEndian.PutUint32(h[20:], e.src)
		binary.BigEndian.PutUint32(h[36:], e.dst)
		return append(b, h...)
	}
	h := make([]byte, 20)
	h[0], h[8], h[9] = 0x45, 64, proto
	binary.BigEndian.PutUint16(h[2:], uint16(20+n))
	binary.BigEndian.PutUint32(h[12:], e.src)
	binary.BigEndian.PutUint32(h[16:], e.dst)
	return append(b, h...)
}

func (e ends) udp(payload int) *packet.Packet {
	b := e.header(nil, packet.ProtoUDP, 8+payload)
	u := make([]byte, 8+payload)
	binary.BigEndian.PutUint16(u, e.sport)
	binary.BigEndian.PutUint16(u[2:], e.dport)
	binary.BigEndian.PutUint16(u[4:], uint16(len(u)))
	return decoded(append(b, u...))
}

func (e ends) tcp(flags packet.Flags, seq, ack uint32, payload string) *packet.Packet {
	b := e.header(nil, packet.ProtoTCP, 20+len(payload))
	t := make([]byte, 20)
	binary.BigEndian.PutUint16(t, e.sport)
	binary.BigEndian.PutUint16(t[2:], e.dport)
	binary.BigEndian.PutUint32(t[4:], seq)
	binary.BigEndian.PutUint32(t[8:], ack)
	binary.BigEndian.PutUint16(t[12:], 5<<12|uint16(flags))
	return decoded(append(append(b, t...), payload...))
}

func (e ends) echo(reply bool, id uint16) *packet.Packet {
	kind := uint8(8)
	if reply {
		kind = 0
	}
	return decoded(append(e.header(nil, packet.ProtoICMP, 8), kind, 0, 0, 0, byte(id>>8), byte(id), 0, 1))
}

func decoded(b []byte) *packet.Packet {
	p := new(packet.Packet)
	if err := p.Decode(b); err != nil {
		panic(err)
	}
	return p
}

func TestTrack(t *testing.T) {
	for _, v6 := range []bool{false, true} {
		for _, e := range []ends{{v6, 1, 2, 10, 20}, {v6, 2, 1, 10, 20}, {v6, 1, 1, 10, 20}, {v6, 1, 1, 20, 10}, {v6, 1, 1, 10, 10}, {v6, 9, 2, 20, 10}} {
			table := flow.NewTable(flow.Config[int]{})
			p, q := e.udp(100), e.back().udp(50)

			r := table.Track(p, 1000)
			if !r.Created || r.Dir != flow.Original || r.Flow.Tuple() != p.Tuple() || r.Flow.State() != flow.Unreplied {
				t.Errorf("%v: first packet: %+v", e, r)
			}
			r.Flow.Value = 42
			r.Release()

			r = table.Track(q, 2000)
			// One who talks to himself from one port to the same has but one direction.
			self := e == e.back()
			if r.Created || r.Flow.Value != 42 || r.Flow.Tuple() != p.Tuple() || (r.Dir == flow.Reply) == self {
				t.Errorf("%v: answer: %+v", e, r)
			}
			if !self && (r.Flow.State() != flow.Replied || r.Flow.Packets != [2]uint64{1, 1} || r.Flow.Bytes != [2]uint64{uint64(p.Len), uint64(q.Len)} || r.Flow.Started != 1000 || r.Flow.Seen != 2000) {
				t.Errorf("%v: answer: %+v", e, r.Flow)
			}
			r.Release()

			r = table.Lookup(p, 3000)
			if r.Flow == nil || r.Dir != flow.Original || r.Flow.Packets[0]+r.Flow.Packets[1] != 2 {
				t.Errorf("%v: lookup: %+v", e, r)
			}
			r.Release()

			other := e
			other.sport++
			if r := table.Lookup(other.udp(0), 3000); r.Flow != nil {
				t.Errorf("%v: found %v", other, r.Flow.Tuple())
			}
			other = e
			other.v6 = !v6
			if r := table.Lookup(other.udp(0), 3000); r.Flow != nil {
				t.Errorf("%v: found %v", other, r.Flow.Tuple())
			}
		}
	}
}

func TestEcho(t *testing.T) {
	table := flow.NewTable(flow.Config[int]{})
	e := ends{src: 5, dst: 3}
	table.Track(e.echo(false, 7), 0).Release()
	r := table.Track(e.back().echo(true, 7), 1)
	if r.Created || r.Dir != flow.Reply {
		t.Errorf("%+v", r)
	}
	r.Release()
	r = table.Track(e.echo(false, 8), 1)
	if !r.Created {
		t.Error("another ping is the same flow")
	}
	r.Release()
}

func TestNoFlow(t *testing.T) {
	e := ends{src: 1, dst: 2}
	later := e.header(nil, packet.ProtoUDP, 16)
	later[7] = 2
	unreachable := append(e.header(nil, packet.ProtoICMP, 8), 3, 3, 0, 0, 0, 0, 0, 0)
	for name, b := range map[string][]byte{
		"later fragment":      append(later, make([]byte, 16)...),
		"ICMP error":          unreachable,
		"TCP without header":  append(e.header(nil, packet.ProtoTCP, 10), make([]byte, 10)...),
		"ICMP without header": append(e.header(nil, packet.ProtoICMP, 2), 8, 0),
	} {
		table := flow.NewTable(flow.Config[int]{})
		if r := table.Track(decoded(b), 0); r.Flow != nil {
			t.Errorf("%s: %+v", name, r.Flow.Tuple())
		} else {
			r.Release()
		}
		if r := table.Lookup(decoded(b), 0); r.Flow != nil {
			t.Errorf("%s found", name)
		}
	}
}

func TestStates(t *testing.T) {
	const (
		syn, ack, fin, rst = packet.SYN, packet.ACK, packet.FIN, packet.RST
	)
	type step struct {
		dir      flow.Dir
		flags    packet.Flags
		seq, ack uint32
		payload  string
		want     flow.State
	}
	tests := []struct {
		name  string
		steps []step
	}{
		{"whole connection", []step{
			{0, syn, 100, 0, "", flow.Half},
			{1, syn | ack, 500, 101, "", flow.Half},
			{0, ack, 101, 501, "", flow.Established},
			{0, ack, 101, 501, "request", flow.Established},
			{1, ack, 501, 108, "answer", flow.Established},
			{0, fin | ack, 108, 507, "", flow.Closing},
			{1, fin | ack, 507, 109, "", flow.Closed},
			{0, ack, 109, 508, "", flow.Closed},
		}},
		{"a guess does not establish", []step{
			{0, syn, 100, 0, "", flow.Half},
			{1, syn | ack, 500, 101, "", flow.Half},
			{0, ack, 101, 777, "", flow.Half},
			{0, ack, 101, 777, "data", flow.Half},
			{0, ack, 101, 501, "data", flow.Established},
		}},
		{"refused", []step{
			{0, syn, 100, 0, "", flow.Half},
			{1, rst | ack, 0, 101, "", flow.Closed},
		}},
		{"from the middle", []step{
			{0, ack, 5000, 9000, "abc", flow.Half},
			{0, ack, 5003, 9000, "abc", flow.Half},
			{1, ack, 9000, 5006, "", flow.Established},
		}},
		{"from the middle, forged", []step{
			{0, ack, 5000, 9000, "abc", flow.Half},
			{1, ack, 9000, 5006 + 1<<30, "", flow.Half},
		}},
		{"one side seen", []step{
			{0, syn, 100, 0, "", flow.Half},
			{0, ack, 101, 501, "", flow.Half},
			{0, ack, 101, 501, "request", flow.OneWay},
			{0, fin | ack, 108, 507, "", flow.Closing},
		}},
		{"reset out of the window", []step{
			{0, syn, 100, 0, "", flow.Half},
			{1, syn | ack, 500, 101, "", flow.Half},
			{0, ack, 101, 501, "", flow.Established},
			{1, rst, 1 << 30, 0, "", flow.Established},
			{1, rst, 501, 0, "", flow.Closed},
		}},
		{"sequence numbers wrap", []step{
			{0, syn, 0xffffffff, 0, "", flow.Half},
			{1, syn | ack, 0xfffffffe, 0, "", flow.Half},
			{0, ack, 0, 0xffffffff, "", flow.Established},
			{1, ack, 0xffffffff, 0, "12345", flow.Established},
			{1, rst, 4, 0, "", flow.Closed},
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			table := flow.NewTable(flow.Config[int]{})
			e := ends{src: 1, dst: 2, sport: 40000, dport: 80}
			for i, s := range tt.steps {
				from := e
				if s.dir == flow.Reply {
					from = e.back()
				}
				r := table.Track(from.tcp(s.flags, s.seq, s.ack, s.payload), int64(i))
				if r.Flow.State() != s.want || r.Dir != s.dir || r.Created != (i == 0) {
					t.Fatalf("step %d: %v, %v, created %t; want %v", i, r.Flow.State(), r.Dir, r.Created, s.want)
				}
				r.Release()
			}
		})
	}
}

// TestSYNACKFirst: a connection whose SYN was not seen is told the right way round.
func TestSYNACKFirst(t *testing.T) {
	table := flow.NewTable(flow.Config[int]{})
	e := ends{src: 1, dst: 2, sport: 40000, dport: 80}
	r := table.Track(e.back().tcp(packet.SYN|packet.ACK, 500, 101, ""), 0)
	if !r.Created || r.Dir != flow.Reply || r.Flow.Tuple().DstPort != 80 || r.Flow.Packets != [2]uint64{0, 1} {
		t.Errorf("%+v", r)
	}
	if seq, ok := r.Flow.FirstSeq(flow.Reply); seq != 501 || !ok {
		t.Errorf("first byte %d, %t", seq, ok)
	}
	if seq, ok := r.Flow.FirstSeq(flow.Original); seq != 101 || !ok {
		t.Errorf("first byte of the side that was answered: %d, %t", seq, ok)
	}
	r.Release()
	r = table.Track(e.tcp(packet.ACK, 101, 501, ""), 1)
	if r.Dir != flow.Original || r.Flow.State() != flow.Established {
		t.Errorf("%v, %v", r.Dir, r.Flow.State())
	}
	r.Release()
}

// TestFirstSeq: which SYN counts is told by the SYN/ACK.
func TestFirstSeq(t *testing.T) {
	table := flow.NewTable(flow.Config[int]{})
	e := ends{src: 1, dst: 2, sport: 40000, dport: 80}
	for i, p := range []*packet.Packet{
		e.tcp(packet.SYN, 1000, 0, ""), e.tcp(packet.SYN, 7_000_000, 0, ""), e.tcp(packet.SYN, 3000, 0, ""),
		e.back().tcp(packet.SYN|packet.ACK, 500, 1001, ""),
		e.tcp(packet.SYN, 9000, 0, ""), e.back().tcp(packet.SYN|packet.ACK, 800, 9001, ""),
		e.tcp(packet.ACK, 1001, 501, ""), e.tcp(packet.SYN, 9000, 0, ""),
	} {
		r := table.Track(p, int64(i))
		if seq, ok := r.Flow.FirstSeq(flow.Original); i >= 3 && (seq != 1001 || !ok) {
			t.Errorf("packet %d: first byte %d, %t", i, seq, ok)
		}
		r.Release()
	}
}

func TestReopen(t *testing.T) {
	var removed []flow.Reason
	table := flow.NewTable(flow.Config[int]{Removed: func(f *flow.Flow[int], why flow.Reason) { removed = append(removed, why) }})
	e := ends{src: 1, dst: 2, sport: 40000, dport: 80}
	table.Track(e.tcp(packet.SYN, 1, 0, ""), 0).Release()
	table.Track(e.tcp(packet.SYN, 1, 0, ""), 1).Release() // sent again
	if removed != nil {
		t.Fatal("a SYN that is sent again begins a new flow")
	}
	table.Track(e.back().tcp(packet.RST|packet.ACK, 0, 2, ""), 2).Release()
	r := table.Track(e.tcp(packet.SYN, 100, 0, ""), 3)
	if !r.Created || r.Flow.State() != flow.Half || len(removed) != 1 || removed[0] != flow.Reopened {
		t.Errorf("%+v, %v", r, removed)
	}
	r.Remove(flow.Expired)
	r.Release()
	if n := table.Stats().Flows; n != 0 {
		t.Errorf("%d flows after Remove", n)
	}
}

// TestPortsUsedAgain: a connection whose end was not seen, as the kernel took it out of
// the queue, does not lend its flow to the next one on its ports.
func TestPortsUsedAgain(t *testing.T) {
	table := flow.NewTable(flow.Config[int]{})
	e := ends{src: 1, dst: 2, sport: 40000, dport: 80}
	bad := func(p *packet.Packet) *packet.Packet { p.Anomalies |= packet.BadChecksum; return p }
	for i, s := range []struct {
		p              *packet.Packet
		created, knock bool
		state          flow.State
	}{
		{bad(e.tcp(packet.SYN|packet.ACK, 1, 1, "")), true, false, flow.Half},
		{e.tcp(packet.SYN, 100, 0, ""), true, false, flow.Half},
		{e.back().tcp(packet.SYN|packet.ACK, 500, 101, ""), false, false, flow.Half},
		{e.tcp(packet.ACK, 101, 501, "x"), false, false, flow.Established},
		{bad(e.tcp(packet.RST, 102, 0, "")), false, false, flow.Established},
		{e.tcp(packet.SYN, 100, 0, ""), false, false, flow.Established},
		{e.back().tcp(packet.SYN|packet.ACK, 500, 101, ""), false, false, flow.Established},
		{e.tcp(packet.SYN, 9000, 0, ""), false, true, flow.Established},
		{e.back().tcp(packet.ACK, 501, 102, ""), false, false, flow.Established}, // a challenge
		{e.tcp(packet.SYN|packet.ACK, 9000, 7, ""), false, false, flow.Established},
		{e.back().tcp(packet.SYN|packet.ACK, 800, 9001, ""), true, false, flow.Half},
		{e.tcp(packet.ACK, 9001, 801, "x"), false, false, flow.Established},
	} {
		r := table.Track(s.p, int64(i))
		if r.Created != s.created || r.Knocks != s.knock || r.Flow.State() != s.state {
			t.Errorf("packet %d: created %t, knocks %t, %v", i, r.Created, r.Knocks, r.Flow.State())
		}
		if i > 0 && (r.Flow.Tuple().SrcPort != 40000) {
			t.Errorf("packet %d: %v", i, r.Flow.Tuple())
		}
		if seq, ok := r.Flow.FirstSeq(flow.Original); i > 9 && (seq != 9001 || !ok) {
			t.Errorf("packet %d: first byte %d, %t", i, seq, ok)
		}
		r.Release()
	}
}

func TestTimeouts(t *testing.T) {
	const second = int64(time.Second)
	for _, lazy := range []bool{true, false} {
		removed := map[flow.State]int{}
		table := flow.NewTable(flow.Config[int]{Shards: 1, Removed: func(f *flow.Flow[int], why flow.Reason) {
			if why != flow.Expired {
				t.Errorf("removed: %v", why)
			}
			removed[f.State()]++
		}})
		idle, busy := ends{src: 1, dst: 2, sport: 1, dport: 1}, ends{src: 1, dst: 2, sport: 2, dport: 2}
		table.Track(idle.udp(0), 0).Release()
		for now := int64(0); now <= 300*second; now += second {
			r := table.Track(busy.udp(0), now)
			if r.Created != (now == 0) {
				t.Fatalf("a flow with a packet each second was forgotten after %d s", now/second)
			}
			r.Release()
			if !lazy {
				table.Expire(now)
			}
			want := 0
			if now >= int64(flow.DefaultTimeouts[flow.Unreplied]) {
				want = 1
			}
			if removed[flow.Unreplied] != want {
				t.Fatalf("after %d s: removed %v", now/second, removed)
			}
		}
		// A flow whose time is over is not found, even before it is removed.
		if r := table.Lookup(busy.udp(0), 400*second); r.Flow != nil {
			t.Error("found after its timeout")
		}
		r := table.Track(busy.udp(0), 400*second)
		if !r.Created {
			t.Error("went on after its timeout")
		}
		r.Release()
	}
}

// TestModel compares the table with a map under random packets, times and evictions.
func TestModel(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	model := map[ends]int64{}
	removed := map[packet.Tuple]bool{}
	table := flow.NewTable(flow.Config[ends]{MaxFlows: 500, Shards: 1, Removed: func(f *flow.Flow[ends], _ flow.Reason) {
		removed[f.Tuple()] = true
		if _, ok := model[f.Value]; !ok {
			t.Errorf("removed %v, which was not there", f.Tuple())
		}
		delete(model, f.Value)
	}})
	now := int64(0)
	for i := range 300_000 {
		now += int64(r.IntN(int(20 * time.Millisecond)))
		e := ends{v6: r.IntN(2) == 0, src: uint32(r.IntN(10)), dst: uint32(r.IntN(10)), sport: uint16(r.IntN(30)), dport: 7}
		if e.src == e.dst {
			continue
		}
		key := e
		if _, ok := model[e.back()]; ok {
			key = e.back()
		}
		ref := table.Track(e.udp(0), now)
		_, known := model[key]
		if known == ref.Created {
			t.Fatalf("packet %d: created %t, known %t", i, ref.Created, known)
		}
		if ref.Created {
			key = e
			ref.Flow.Value = e
		} else if ref.Flow.Value != key {
			t.Fatalf("packet %d: %v got the flow of %v", i, e, ref.Flow.Value)
		}
		model[key] = now
		ref.Release()
		stats := table.Stats()
		if stats.Flows != len(model) || stats.Flows > 500 {
			t.Fatalf("packet %d: %d flows, want %d", i, stats.Flows, len(model))
		}
	}
	if len(removed) == 0 {
		t.Error("nothing was removed")
	}
	n := 0
	table.Each(func(f *flow.Flow[ends]) bool {
		if model[f.Value] != f.Seen {
			t.Errorf("%v seen %d, want %d", f.Value, f.Seen, model[f.Value])
		}
		n++
		return true
	})
	if n != len(model) {
		t.Errorf("Each: %d of %d", n, len(model))
	}
	table.Expire(now + int64(24*time.Hour))
	if len(model) != 0 {
		t.Errorf("%d flows never expire", len(model))
	}
}

// TestFlood fills the table with half-open connections; established ones must stay.
func TestFlood(t *testing.T) {
	flood := 10_000_000
	if testing.Short() {
		flood = 500_000
	}
	const max, real = 100_000, 10_000
	table := flow.NewTable(flow.Config[uint64]{MaxFlows: max})
	for i := range uint32(real) {
		e := ends{src: 1000 + i, dst: 1, sport: 40000, dport: 443}
		table.Track(e.tcp(packet.SYN, 100, 0, ""), 0).Release()
		table.Track(e.back().tcp(packet.SYN|packet.ACK, 500, 101, ""), 0).Release()
		table.Track(e.tcp(packet.ACK, 101, 501, ""), 0).Release()
	}
	p := ends{dst: 1, sport: 1, dport: 443}.tcp(packet.SYN, 1, 0, "")
	for i := range flood {
		binary.BigEndian.PutUint32(p.Data[12:], 0x40000000+uint32(i))
		table.Track(p, int64(i)).Release()
	}
	stats := table.Stats()
	if stats.Flows > max || stats.Flows < max*9/10 {
		t.Errorf("%d flows of %d", stats.Flows, max)
	}
	if stats.States[flow.Established] != real || stats.Evicted[flow.Established] != 0 {
		t.Errorf("%d of %d established connections are left", stats.States[flow.Established], real)
	}
	if stats.Created != uint64(flood)+real || stats.Removed[flow.Evicted] != stats.Created-uint64(stats.Flows) {
		t.Errorf("created %d, evicted %d, %d left", stats.Created, stats.Removed[flow.Evicted], stats.Flows)
	}
	t.Logf("%d SYNs: %d flows, %.1f MB", flood, stats.Flows, float64(stats.Memory)/1e6)
	if perFlow := stats.Memory / max; perFlow > 300 {
		t.Errorf("%d bytes a flow", perFlow)
	}
}

func TestConcurrent(t *testing.T) {
	table := flow.NewTable(flow.Config[int]{MaxFlows: 1000, Shards: 4})
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(uint64(w), 0))
			for i := range 20_000 {
				e := ends{src: uint32(r.IntN(50)), dst: 100, sport: uint16(r.IntN(50)), dport: 7}
				if r.IntN(2) == 0 {
					e = e.back()
				}
				ref := table.Track(e.udp(0), int64(i)*int64(time.Millisecond))
				ref.Flow.Value++
				ref.Release()
				if i%1000 == 0 {
					table.Stats()
					table.Expire(int64(i))
					table.Each(func(f *flow.Flow[int]) bool { return f.Value > 0 })
				}
			}
		})
	}
	wg.Wait()
}

func TestLimits(t *testing.T) {
	for _, max := range []int{1, 2, 3, 63, 64, 65, 1000} {
		table := flow.NewTable(flow.Config[int]{MaxFlows: max})
		for i := range uint32(5000) {
			table.Track(ends{src: i, dst: 1 << 20, sport: 1, dport: 1}.udp(0), 0).Release()
		}
		if n := table.Stats().Flows; n > max || n < (max+1)/2 {
			t.Errorf("%d flows of %d", n, max)
		}
	}
}
