package rule

import (
	"fmt"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"inquest/inspect/packet"
)

func TestParseRate(t *testing.T) {
	tests := []struct {
		text string
		want string // "" is an error
	}{
		{"100/s", "100/s burst 5"},
		{"10/min burst 20", "10/min burst 20"},
		{" over  3/hour  burst 1 ", "over 3/hour burst 1"},
		{"1/day", "1/day burst 5"},
		{"", ""}, {"over", ""}, {"100", ""}, {"0/s", ""}, {"-1/s", ""}, {"1/year", ""}, {"1/s burst", ""}, {"1/s burst 0", ""},
		{"1/s bursts 3", ""}, {"1000000001/s", ""}, {"1/s burst 2000000000", ""}, {"1.5/s", ""},
	}
	for _, test := range tests {
		r, err := parseRate(test.text)
		if got := r.String(); (err != nil) != (test.want == "") || err == nil && got != test.want {
			t.Errorf("%q: %q (%v), want %q", test.text, got, err, test.want)
		}
	}
}

// TestRates counts how many of some packets a limited rule matches.
func TestRates(t *testing.T) {
	sources := func(n int) (envs []*Env) {
		for i := range n {
			envs = append(envs, udpPacket(fmt.Sprintf("10.0.%d.%d:1000", i/250, 1+i%250), "192.0.2.1:53"))
		}
		return envs
	}
	tests := []struct {
		rate, per string
		envs      []*Env
		packets   int // of each env
		every     time.Duration
		want      int
	}{
		{"10/s burst 1", "rule", sources(1), 100, 100 * time.Millisecond, 100},
		{"10/s burst 1", "rule", sources(1), 100, 50 * time.Millisecond, 50},
		{"10/s burst 20", "rule", sources(1), 100, 0, 20},
		{"10/s burst 20", "rule", sources(3), 100, 0, 20},
		{"10/s burst 20", "src", sources(3), 100, 0, 60},
		{"10/s burst 20", "dst", sources(3), 100, 0, 20},
		{"10/s burst 20", "flow", sources(3), 100, 0, 60},
		{"over 10/s burst 20", "src", sources(3), 100, 0, 240},
		{"1/min burst 5", "src", sources(1000), 10, 0, 5000},
		{"1/min burst 2", "rule", sources(1), 121, time.Second, 4},
		{"1000000000/s burst 1000000000", "rule", sources(1), 100, 0, 100},
		{"1/day burst 1000000000", "rule", sources(1), 100, 0, 100},
	}
	for _, test := range tests {
		t.Run(test.rate+" "+test.per, func(t *testing.T) {
			s := load(t, fmt.Sprintf("default: drop\nrules:\n- {name: a, when: udp.dport == 53, rate: %s, per: %s, verdict: accept}\n", test.rate, test.per))
			var scratch Scratch
			now, got := int64(time.Hour), 0
			for range test.packets {
				for _, e := range test.envs {
					if s.Judge(e, now, &scratch).Rule == 0 {
						got++
					}
				}
				now += int64(test.every)
			}
			if got != test.want {
				t.Errorf("%d matched, want %d", got, test.want)
			}
		})
	}
}

// TestRateSpendsOnlyOnMatches: a packet that the rule is not true for costs nothing, nor
// does one that an earlier rule takes.
func TestRateSpendsOnlyOnMatches(t *testing.T) {
	s := load(t, `
default: accept
rules:
  - {name: first, when: 'ip.src == "10.0.0.2"', verdict: accept}
  - {name: limited, when: tcp.syn, rate: 1/hour burst 1, verdict: drop}
`)
	var scratch Scratch
	for range 10 {
		s.Judge(tcpPacket("10.0.0.1:1", "10.0.0.9:2", packet.ACK), 0, &scratch)
		s.Judge(tcpPacket("10.0.0.2:1", "10.0.0.9:2", packet.SYN), 0, &scratch)
	}
	if out := s.Judge(tcpPacket("10.0.0.1:1", "10.0.0.9:2", packet.SYN), 0, &scratch); out.Rule != 1 {
		t.Errorf("got %+v, want rule 1", out)
	}
	if out := s.Judge(tcpPacket("10.0.0.1:1", "10.0.0.9:2", packet.SYN), 0, &scratch); out.Rule != Default || out.PerFlow {
		t.Errorf("got %+v, want the default for this packet", out)
	}
}

// TestBucketsAreBounded floods a table with sources: it does not grow, and forgets
// sources that have been silent longest rather than the one that is busy.
func TestBucketsAreBounded(t *testing.T) {
	table := newBucketTable()
	l := newLimiter(Rate{Events: 1, Per: time.Minute, Burst: 3, Of: PerSource}, 0, table)
	m := &machine{}
	busy := netip.MustParseAddr("192.0.2.1")
	now := int64(0)
	passed := 0
	for i := range 200_000 {
		now += int64(10 * time.Millisecond)
		m.tuple.Src = netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})
		if !l.matches(m, now) {
			t.Fatalf("source %v was limited at its first packet", m.tuple.Src)
		}
		if i%10 == 0 {
			m.tuple.Src = busy
			if l.matches(m, now) {
				passed++
			}
		}
	}
	// 2000 s at 1/min are 33 and the burst.
	if passed < 33 || passed > 40 {
		t.Errorf("the busy source passed %d times, want about 36", passed)
	}
}

// TestRateConcurrent: several goroutines together get what the rate gives.
func TestRateConcurrent(t *testing.T) {
	for _, per := range []string{"rule", "src"} {
		s := load(t, "default: drop\nrules:\n- {name: a, when: udp.dport == 53, rate: 1/hour burst 1000, per: "+per+", verdict: accept}\n")
		var passed atomic.Int64
		var wait sync.WaitGroup
		for range 4 {
			wait.Go(func() {
				e := udpPacket("10.0.0.1:1000", "192.0.2.1:53")
				var scratch Scratch
				for range 1000 {
					if s.Judge(e, 0, &scratch).Rule == 0 {
						passed.Add(1)
					}
				}
			})
		}
		wait.Wait()
		if passed.Load() != 1000 {
			t.Errorf("per %s: %d passed, want 1000", per, passed.Load())
		}
	}
}
