package flow_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"inquest/inspect/flow"
)

// sink notes what a stream hands on; a gap of n bytes is n times '_'.
type sink struct{ bytes.Buffer }

func (s *sink) Data(b []byte) { s.Write(b) }
func (s *sink) Gap(n int) {
	if n <= 0 {
		panic(fmt.Sprintf("gap of %d", n))
	}
	s.WriteString(strings.Repeat("_", min(n, 1<<20)))
}

func TestStream(t *testing.T) {
	type seg struct {
		seq  uint32
		data string
		kind string // of S, F, A: SYN, FIN, an ACK of the other side up to seq
	}
	tests := []struct {
		name   string
		policy flow.Policy
		segs   []seg
		want   string
		check  func(s *flow.Stream) bool
	}{
		{"in order", 0, []seg{{99, "", "S"}, {100, "ab", ""}, {102, "cd", ""}, {104, "", "F"}}, "abcd", (*flow.Stream).Ended},
		{"data on the SYN", 0, []seg{{99, "ab", "S"}, {102, "cd", ""}}, "abcd", nil},
		{"out of order", 0, []seg{{99, "", "S"}, {104, "ef", ""}, {102, "cd", ""}, {100, "ab", ""}}, "abcdef", nil},
		{"FIN before its data", 0, []seg{{99, "", "S"}, {102, "cd", "F"}, {100, "ab", ""}}, "abcd", (*flow.Stream).Ended},
		{"not ended", 0, []seg{{99, "", "S"}, {102, "cd", "F"}}, "", func(s *flow.Stream) bool { return !s.Ended() }},
		{"sent again", 0, []seg{{99, "", "S"}, {100, "abcd", ""}, {100, "abcd", ""}, {102, "cdef", ""}}, "abcdef", func(s *flow.Stream) bool { return s.Retransmitted == 6 }},
		{"sent again otherwise", flow.Last, []seg{{99, "", "S"}, {100, "abcd", ""}, {100, "XXXXef", ""}}, "abcdef", nil},
		{"window probe", 0, []seg{{99, "", "S"}, {100, "ab", ""}, {101, "b", ""}, {101, "", ""}, {102, "c", ""}}, "abc", nil},
		{"SYN again", 0, []seg{{99, "", "S"}, {100, "ab", ""}, {5000, "", "S"}, {102, "cd", ""}}, "abcd", nil},
		{"wraps", 0, []seg{{0xfffffffd, "", "S"}, {0, "cd", ""}, {0xfffffffe, "ab", ""}, {2, "ef", ""}}, "abcdef", nil},
		{"from the middle", 0, []seg{{500, "", ""}, {500, "ab", ""}, {502, "cd", ""}}, "abcd", (*flow.Stream).Midstream},
		{"out of the window", 0, []seg{{99, "", "S"}, {100 + 1<<31, "xx", ""}, {100 + 1<<31 + 5, "xx", ""}, {100, "ab", ""}}, "ab", func(s *flow.Stream) bool { return s.Held() == 0 }},
		{"acknowledged, never seen", 0, []seg{{99, "", "S"}, {100, "ab", ""}, {104, "ef", ""}, {104, "", "A"}}, "ab__ef", func(s *flow.Stream) bool { return s.Gaps == 1 }},
		{"acknowledged before it waits", 0, []seg{{99, "", "S"}, {104, "ef", ""}, {110, "gh", ""}, {111, "", "A"}}, "____ef____gh", nil},
		{"acknowledged in part", 0, []seg{{99, "", "S"}, {104, "ef", ""}, {102, "", "A"}, {102, "cd", ""}}, "__cdef", nil},
		{"FIN acknowledged", 0, []seg{{99, "", "S"}, {100, "ab", "F"}, {103, "", "A"}}, "ab", (*flow.Stream).Ended},
		{"acknowledged before it began", 0, []seg{{104, "", "A"}, {99, "", "S"}, {100, "ab", ""}}, "ab", nil},

		{"overlap, the same", 0, []seg{{99, "", "S"}, {102, "cdef", ""}, {101, "bcd", ""}, {104, "efgh", ""}, {100, "a", ""}}, "abcdefgh",
			func(s *flow.Stream) bool { return s.Overlaps == 2 && s.Conflicts == 0 }},
		{"left overlap, first", flow.First, []seg{{99, "", "S"}, {102, "cdef", ""}, {101, "BCD", ""}, {100, "a", ""}}, "aBcdef", func(s *flow.Stream) bool { return s.Conflicts == 1 }},
		{"left overlap, last", flow.Last, []seg{{99, "", "S"}, {102, "cdef", ""}, {101, "BCD", ""}, {100, "a", ""}}, "aBCDef", nil},
		{"left overlap, linux", flow.Linux, []seg{{99, "", "S"}, {102, "cdef", ""}, {101, "BCD", ""}, {100, "a", ""}}, "aBCDef", nil},
		{"right overlap, first", flow.First, []seg{{99, "", "S"}, {101, "bcd", ""}, {102, "CDEF", ""}, {100, "a", ""}}, "abcdEF", nil},
		{"right overlap, last", flow.Last, []seg{{99, "", "S"}, {101, "bcd", ""}, {102, "CDEF", ""}, {100, "a", ""}}, "abCDEF", nil},
		{"right overlap, linux", flow.Linux, []seg{{99, "", "S"}, {101, "bcd", ""}, {102, "CDEF", ""}, {100, "a", ""}}, "abcdEF", nil},
		{"inside, first", flow.First, []seg{{99, "", "S"}, {101, "bcdef", ""}, {102, "CD", ""}, {100, "a", ""}}, "abcdef", nil},
		{"inside, last", flow.Last, []seg{{99, "", "S"}, {101, "bcdef", ""}, {102, "CD", ""}, {100, "a", ""}}, "abCDef", nil},
		{"inside, linux", flow.Linux, []seg{{99, "", "S"}, {101, "bcdef", ""}, {102, "CD", ""}, {100, "a", ""}}, "abcdef", nil},
		{"around, first", flow.First, []seg{{99, "", "S"}, {102, "cd", ""}, {105, "f", ""}, {101, "BCDEFG", ""}, {100, "a", ""}}, "aBcdEfG", nil},
		{"around, last", flow.Last, []seg{{99, "", "S"}, {102, "cd", ""}, {105, "f", ""}, {101, "BCDEFG", ""}, {100, "a", ""}}, "aBCDEFG", nil},
		{"around, linux", flow.Linux, []seg{{99, "", "S"}, {102, "cd", ""}, {105, "f", ""}, {101, "BCDEFG", ""}, {100, "a", ""}}, "aBCDEFG", nil},
		{"same place, linux", flow.Linux, []seg{{99, "", "S"}, {101, "bc", ""}, {101, "BC", ""}, {100, "a", ""}}, "abc", nil},
		{"same start and longer, linux", flow.Linux, []seg{{99, "", "S"}, {101, "bc", ""}, {101, "BCD", ""}, {100, "a", ""}}, "aBCD", nil},
		{"over a segment in order, first", flow.First, []seg{{99, "", "S"}, {102, "cd", ""}, {100, "ABCDE", ""}}, "ABcdE", nil},
		{"over a segment in order, linux", flow.Linux, []seg{{99, "", "S"}, {102, "cd", ""}, {100, "ABCDE", ""}}, "ABCDE", nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var s flow.Stream
			var got sink
			l := &flow.Limits{Policy: tt.policy, Budget: flow.NewBudget(1 << 20)}
			for _, g := range tt.segs {
				if g.kind == "A" {
					s.Ack(g.seq, l, &got)
					continue
				}
				s.Add(flow.Segment{Seq: g.seq, SYN: g.kind == "S", FIN: g.kind == "F", Data: []byte(g.data)}, l, &got)
			}
			if got.String() != tt.want {
				t.Errorf("read %q, want %q", got.String(), tt.want)
			}
			if tt.check != nil && !tt.check(&s) {
				t.Errorf("%+v", s)
			}
			if int64(s.Held()) != l.Budget.Used() {
				t.Errorf("holds %d, budget says %d", s.Held(), l.Budget.Used())
			}
			s.Close(l)
			if l.Budget.Used() != 0 {
				t.Errorf("%d bytes after Close", l.Budget.Used())
			}
		})
	}
}

func TestStreamCopiedInPart(t *testing.T) {
	var s flow.Stream
	var got sink
	l := &flow.Limits{}
	s.Add(flow.Segment{Seq: 0, SYN: true}, l, &got)
	s.Add(flow.Segment{Seq: 11, Data: []byte("cd"), Len: 10}, l, &got)
	s.Add(flow.Segment{Seq: 1, Data: []byte("ab"), Len: 10}, l, &got)
	s.Add(flow.Segment{Seq: 19, Data: []byte("YZef"), Len: 4}, l, &got)
	if want := "ab________cd________ef"; got.String() != want {
		t.Errorf("read %q, want %q", got.String(), want)
	}
}

// TestStreamBounds: what waits stays within its bounds, and a stream whose hole is
// never filled goes on after it.
func TestStreamBounds(t *testing.T) {
	tests := []struct {
		name string
		l    flow.Limits
		size int
	}{
		{"bytes", flow.Limits{MaxBytes: 10_000}, 1000},
		{"segments", flow.Limits{MaxSegments: 8}, 10},
		{"one segment too large", flow.Limits{MaxBytes: 500}, 1000},
		{"budget", flow.Limits{Budget: flow.NewBudget(5000)}, 1000},
		{"no budget", flow.Limits{Budget: flow.NewBudget(0)}, 1000},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var s flow.Stream
			var got sink
			s.Add(flow.Segment{Seq: 0, SYN: true}, &tt.l, &got)
			data := bytes.Repeat([]byte("x"), tt.size)
			seq := uint32(101)
			for range 200 {
				s.Add(flow.Segment{Seq: seq, Data: data}, &tt.l, &got)
				seq += uint32(tt.size)
				if tt.l.MaxBytes > 0 && s.Held() > tt.l.MaxBytes || tt.l.Budget != nil && tt.l.Budget.Used() > 5000 {
					t.Fatalf("holds %d", s.Held())
				}
			}
			if s.Gaps != 1 {
				t.Errorf("%d gaps", s.Gaps)
			}
			want := strings.Repeat("_", 100) + strings.Repeat("x", 200*tt.size)
			if got.String() != want {
				t.Errorf("read %d bytes, want %d", got.Len(), len(want))
			}
		})
	}
}

// TestStreamRoom: segments that the receiver is far from reading take no room from
// those that it is about to read.
func TestStreamRoom(t *testing.T) {
	var s flow.Stream
	var got sink
	l := &flow.Limits{MaxSegments: 8}
	s.Add(flow.Segment{Seq: 99, SYN: true}, l, &got)
	for i := range uint32(8) {
		s.Add(flow.Segment{Seq: 1<<29 + 2*i, Data: []byte("x")}, l, &got)
	}
	s.Add(flow.Segment{Seq: 102, Data: []byte("cd")}, l, &got)
	s.Add(flow.Segment{Seq: 100, Data: []byte("ab")}, l, &got)
	if got.String() != "abcd" {
		t.Errorf("read %d bytes", got.Len())
	}
}

// model is a stream kept byte by byte.
type model struct {
	policy flow.Policy
	next   int
	bytes  map[int]owned
	out    []byte
}

type owned struct {
	value       byte
	first, last int
}

func (m *model) add(at int, data []byte) {
	first, last := at, at+len(data)
	for i, b := range data {
		pos := at + i
		if pos < m.next {
			continue
		}
		old, there := m.bytes[pos]
		wins := !there
		if there {
			switch m.policy {
			case flow.Last:
				wins = true
			case flow.Linux:
				wins = first < old.first || first == old.first && last > old.last
			}
		}
		if wins {
			m.bytes[pos] = owned{b, first, last}
		}
	}
	for {
		b, ok := m.bytes[m.next]
		if !ok {
			return
		}
		delete(m.bytes, m.next)
		m.out = append(m.out, b.value)
		m.next++
	}
}

// play sends segments that do not agree with each other to a stream and to the model.
func play(t *testing.T, policy flow.Policy, isn uint32, segments [][2]int, value func(i, pos int) byte) {
	t.Helper()
	var s flow.Stream
	var got sink
	l := &flow.Limits{Policy: policy, MaxBytes: 1 << 30, MaxSegments: 1 << 20, Budget: flow.NewBudget(1 << 40)}
	m := &model{policy: policy, bytes: map[int]owned{}}
	s.Add(flow.Segment{Seq: isn, SYN: true}, l, &got)
	for i, seg := range segments {
		data := make([]byte, seg[1])
		for k := range data {
			data[k] = value(i, seg[0]+k)
		}
		s.Add(flow.Segment{Seq: isn + 1 + uint32(seg[0]), Data: data}, l, &got)
		m.add(seg[0], data)
		if !bytes.Equal(got.Bytes(), m.out) {
			t.Fatalf("%v, after segment %d of %v:\n got %x\nwant %x", policy, i, segments, got.Bytes(), m.out)
		}
	}
	s.Close(l)
	if l.Budget.Used() != 0 {
		t.Fatalf("%d bytes after Close", l.Budget.Used())
	}
}

func TestStreamModel(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 3000 {
		segments := make([][2]int, 1+r.IntN(40))
		for i := range segments {
			segments[i] = [2]int{r.IntN(60), 1 + r.IntN(15)}
		}
		isn := r.Uint32()
		if r.IntN(4) == 0 {
			isn = -uint32(r.IntN(60))
		}
		for _, policy := range []flow.Policy{flow.Linux, flow.First, flow.Last} {
			play(t, policy, isn, segments, func(i, pos int) byte { return byte(i) })
		}
	}
}

// TestStreamConsistent cuts a known stream at random, with overlaps, duplicates and
// disorder; whatever the policy, exactly it must come out.
func TestStreamConsistent(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for range 300 {
		want := make([]byte, 1+r.IntN(20_000))
		for i := range want {
			want[i] = byte(r.Uint32())
		}
		type piece struct{ from, to int }
		var pieces []piece
		for at := 0; at < len(want); {
			n := min(1+r.IntN(1500), len(want)-at)
			pieces = append(pieces, piece{max(0, at-r.IntN(300)), at + n})
			if r.IntN(5) == 0 {
				from := r.IntN(len(want))
				pieces = append(pieces, piece{from, min(len(want), from+r.IntN(2000))})
			}
			at += n
		}
		for i := range pieces {
			j := min(len(pieces)-1, i+r.IntN(12))
			pieces[i], pieces[j] = pieces[j], pieces[i]
		}
		isn := -uint32(r.IntN(20_000))
		for _, policy := range []flow.Policy{flow.Linux, flow.First, flow.Last} {
			var s flow.Stream
			var got sink
			l := &flow.Limits{Policy: policy, Budget: flow.NewBudget(1 << 20)}
			s.Add(flow.Segment{Seq: isn - 1, SYN: true}, l, &got)
			for _, p := range pieces {
				s.Add(flow.Segment{Seq: isn + uint32(p.from), Data: want[p.from:p.to], FIN: p.to == len(want)}, l, &got)
			}
			if !bytes.Equal(got.Bytes(), want) || s.Gaps != 0 || s.Conflicts != 0 || !s.Ended() {
				t.Fatalf("read %d of %d bytes, %d gaps, %d conflicts", got.Len(), len(want), s.Gaps, s.Conflicts)
			}
			if s.Held() != 0 || l.Budget.Used() != 0 {
				t.Fatalf("holds %d at the end, budget %d", s.Held(), l.Budget.Used())
			}
		}
	}
}

// FuzzStream plays any segments: against the model with room for all, and with
// little room, where only the bounds and the count of bytes are checked.
func FuzzStream(f *testing.F) {
	f.Add([]byte{0, 4, 4, 4, 2, 4}, uint32(0), uint8(0))
	f.Add([]byte{10, 20, 5, 10, 0, 40, 12, 1}, uint32(0xfffffff0), uint8(1))
	f.Add([]byte{1, 9, 3, 3, 2, 5, 0, 1}, uint32(7), uint8(2))
	f.Fuzz(func(t *testing.T, b []byte, isn uint32, policy uint8) {
		var segments [][2]int
		for ; len(b) >= 2 && len(segments) < 200; b = b[2:] {
			if b[1] > 0 {
				segments = append(segments, [2]int{int(b[0]), int(b[1])})
			}
		}
		p := flow.Policy(policy % 3)
		play(t, p, isn, segments, func(i, pos int) byte { return byte(i ^ pos) })

		var s flow.Stream
		var got sink
		l := &flow.Limits{Policy: p, MaxBytes: 600, MaxSegments: 5, Budget: flow.NewBudget(500)}
		s.Add(flow.Segment{Seq: isn, SYN: true}, l, &got)
		high := 0
		for i, seg := range segments {
			if i%7 == 3 {
				s.Ack(isn+1+uint32(seg[0]), l, &got)
				high = max(high, seg[0])
			}
			s.Add(flow.Segment{Seq: isn + 1 + uint32(seg[0]), Data: make([]byte, seg[1]/2+1), Len: seg[1]}, l, &got)
			high = max(high, seg[0]+max(seg[1], seg[1]/2+1))
			if s.Held() > 600 || int64(s.Held()) != l.Budget.Used() || got.Len() > high {
				t.Fatalf("holds %d, budget %d, read %d of %d", s.Held(), l.Budget.Used(), got.Len(), high)
			}
		}
		s.Ack(isn+1+uint32(high), l, &got)
		if got.Len() != high || s.Held() != 0 {
			t.Fatalf("read %d of %d, holds %d", got.Len(), high, s.Held())
		}
	})
}

type discard struct{ n int }

func (d *discard) Data(b []byte) { d.n += len(b) }
func (d *discard) Gap(int)       {}

func BenchmarkStream(b *testing.B) {
	data := make([]byte, 1448)
	b.Run("in-order", func(b *testing.B) {
		var s flow.Stream
		var d discard
		l := &flow.Limits{}
		seq := uint32(0)
		b.SetBytes(int64(len(data)))
		b.ReportAllocs()
		for b.Loop() {
			s.Add(flow.Segment{Seq: seq, Data: data}, l, &d)
			seq += uint32(len(data))
		}
	})
	b.Run("swapped", func(b *testing.B) {
		var s flow.Stream
		var d discard
		l := &flow.Limits{}
		seq := uint32(0)
		s.Add(flow.Segment{Seq: seq - 1, SYN: true}, l, &d)
		b.SetBytes(2 * int64(len(data)))
		b.ReportAllocs()
		for b.Loop() {
			s.Add(flow.Segment{Seq: seq + uint32(len(data)), Data: data}, l, &d)
			s.Add(flow.Segment{Seq: seq, Data: data}, l, &d)
			seq += 2 * uint32(len(data))
		}
	})
}
