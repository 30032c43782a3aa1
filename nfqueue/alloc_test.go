package nfqueue

import (
	"testing"
)

// still is a transport whose messages are always the same and that takes all
// verdicts: what is left is this package's own work.
type still struct{ messages [][]byte }

func (s *still) receive(bool) (int, error)    { return len(s.messages), nil }
func (s *still) message(i int) ([]byte, bool) { return s.messages[i], false }
func (s *still) send(b []byte) (int, error)   { return len(b), nil }
func (s *still) close() error                 { return nil }

func newStill(n int) *still {
	s := &still{}
	for i := range n {
		s.messages = append(s.messages, packetMessage(uint32(i+1), 7))
	}
	return s
}

// The ways to judge whose cost is measured and that must not allocate.
var ways = []struct {
	name   string
	handle Handler
}{
	{"accept", func(*Packet) Verdict { return Accept() }},
	{"mixed", func(p *Packet) Verdict {
		if p.ID%2 == 0 {
			return Drop()
		}
		return Accept()
	}},
	{"marked", func(p *Packet) Verdict { return Accept().WithMark(p.ID).WithConnmark(p.ID) }},
	{"replaced", func(p *Packet) Verdict { return Accept().WithPayload(p.Payload) }},
	{"held", func(p *Packet) Verdict { p.Hold().Judge(Accept()); return Verdict{} }},
	{"conntrack", func(p *Packet) Verdict { p.Conntrack(); return Accept() }},
}

func TestAllocations(t *testing.T) {
	for _, w := range ways {
		q := newQueue(0, &Config{MaxDelay: 1 << 62}, newStill(64))
		step := func() {
			n, _ := q.receiveNow()
			q.lastID = 0
			q.handle(n, w.handle)
		}
		step()
		if n := testing.AllocsPerRun(100, step); n != 0 {
			t.Errorf("%s: %v allocations for 64 packets", w.name, n)
		}
	}
}

func BenchmarkHandle(b *testing.B) {
	for _, w := range ways {
		b.Run(w.name, func(b *testing.B) {
			q := newQueue(0, &Config{MaxDelay: 1 << 62}, newStill(64))
			b.ReportAllocs()
			for i := 0; i < b.N; i += 64 {
				q.lastID = 0
				q.handle(64, w.handle)
			}
		})
	}
}

func BenchmarkParse(b *testing.B) {
	b.ReportAllocs()
	var p Packet
	for b.Loop() {
		p = Packet{}
		if _, err := p.parse(whole); err != nil {
			b.Fatal(err)
		}
	}
}
