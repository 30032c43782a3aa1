package main

import (
	"encoding/binary"
	"slices"
	"testing"

	"inquest/inspect/packet"
)

func TestParseArrived(t *testing.T) {
	const snmp = "Ip: Forwarding DefaultTTL\nIp: 2 64\n" +
		"Udp: InDatagrams NoPorts InErrors OutDatagrams RcvbufErrors SndbufErrors InCsumErrors IgnoredMulti MemErrors\n" +
		"Udp: 7 20 300 4000 290 0 10 0 0\nUdpLite: InDatagrams NoPorts\nUdpLite: 1 1\n"
	if got, err := parseArrived(snmp); err != nil || got != 7+20+290 {
		t.Errorf("got %d, %v", got, err)
	}
	for _, bad := range []string{"", "Udp: InDatagrams\n", "Udp: InDatagrams\nUdp: x\n"} {
		if _, err := parseArrived(bad); err == nil {
			t.Errorf("%q: no error", bad)
		}
	}
}

func TestParseQueueStat(t *testing.T) {
	const text = "    0   1234    17 2 65531     3     4     5000  1\n    1  99  0 0 0 0 0 0 1\n"
	tests := []struct {
		queue int
		want  queueStat
	}{
		{0, queueStat{bound: true, total: 17, full: 3, user: 4, given: 5000}},
		{1, queueStat{}}, // bound, but not yet ready
		{2, queueStat{}},
	}
	for _, tt := range tests {
		if got, err := parseQueueStat(text, tt.queue); err != nil || got != tt.want {
			t.Errorf("queue %d: got %+v, %v; want %+v", tt.queue, got, err, tt.want)
		}
	}
	if _, err := parseQueueStat("0 1 2 3 4 5 6 x\n", 0); err == nil {
		t.Error("no error for a line that is no queue's")
	}
}

func TestFlowsDiffer(t *testing.T) {
	f := newFrames()
	seen := make(map[uint64]bool, floodFlow)
	var p packet.Packet
	for range floodFlow {
		if err := p.Decode(f.flow()[etherLen:]); err != nil {
			t.Fatal(err)
		}
		src := p.Src.As4()
		seen[uint64(binary.BigEndian.Uint32(src[:]))<<16|uint64(p.SrcPort)] = true
	}
	if len(seen) < 1_000_000 {
		t.Errorf("%d flows, want a million", len(seen))
	}
}

// What the kernel would not take for IP never comes to the queue and tests nothing.
func TestMalformedIsIP(t *testing.T) {
	f := newFrames()
	var kinds [256]int
	for range 100_000 {
		frame := f.malformed()
		if len(frame) > 1514 {
			t.Fatalf("a frame of %d bytes", len(frame))
		}
		p := frame[etherLen:]
		switch binary.BigEndian.Uint16(frame[12:]) {
		case 0x0800:
			ihl := int(p[0]&15) * 4
			if p[0]>>4 != 4 || ihl < 20 || len(p) < ihl || int(binary.BigEndian.Uint16(p[2:])) != len(p) || sum(p[:ihl]) != 0xffff {
				t.Fatalf("not IPv4: % x", p)
			}
			kinds[p[9]]++
		case 0x86dd:
			if p[0]>>4 != 6 || int(binary.BigEndian.Uint16(p[4:])) != len(p)-40 {
				t.Fatalf("not IPv6: % x", p)
			}
			kinds[p[6]]++
		default:
			t.Fatalf("not IP: % x", frame)
		}
	}
	for _, proto := range []int{0, 1, 4, 6, 17, 47, 58, 132} {
		if kinds[proto] < 1000 {
			t.Errorf("protocol %d: %d frames", proto, kinds[proto])
		}
	}
}

func sum(b []byte) uint16 {
	var sum uint32
	for i := 0; i < len(b); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return uint16(sum)
}

func TestRotate(t *testing.T) {
	list := []int{1, 2, 3}
	for n, want := range [][]int{{1, 2, 3}, {2, 3, 1}, {3, 1, 2}, {1, 2, 3}} {
		if got := rotate(list, n); !slices.Equal(got, want) {
			t.Errorf("rotate by %d: %v, want %v", n, got, want)
		}
	}
}

func TestMedian(t *testing.T) {
	same := func(v float64) float64 { return v }
	for want, list := range map[float64][]float64{1: {1}, 1.5: {2, 1}, 2: {3, 1, 2}, 2.5: {4, 1, 3, 2}} {
		if got := median(list, same); got != want {
			t.Errorf("median of %v: %v, want %v", list, got, want)
		}
	}
}

func TestRatio(t *testing.T) {
	a := []sample{{round: 0, accepted: 10}, {round: 2, accepted: 90}, {round: 3, accepted: 8}}
	b := []sample{{round: 0, accepted: 10}, {round: 1, accepted: 1}, {round: 2, accepted: 30}, {round: 3, accepted: 4}}
	if got := ratio(a, b); got != "2.00" {
		t.Errorf("ratio %s, want 2.00, of round 3", got)
	}
	if got := ratio(a, nil); got != "" {
		t.Errorf("ratio to nothing: %q", got)
	}
}
