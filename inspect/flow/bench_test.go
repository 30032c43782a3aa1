package flow_test

import (
	"encoding/binary"
	"runtime"
	"testing"
	"time"

	"inquest/inspect/flow"
	"inquest/inspect/packet"
)

// value is as large as what package inspect keeps of a flow.
type value [4]uint64

func million(tb testing.TB) (*flow.Table[value], *packet.Packet) {
	table := flow.NewTable(flow.Config[value]{MaxFlows: 1_100_000})
	p := ends{dst: 1, sport: 4000, dport: 53}.udp(0)
	for i := range uint32(1_000_000) {
		binary.BigEndian.PutUint32(p.Data[12:], 1<<24+i)
		table.Track(p, 0).Release()
	}
	if n := table.Stats().Flows; n != 1_000_000 {
		tb.Fatalf("%d flows", n)
	}
	return table, p
}

// BenchmarkTrack: packets of flows in random order, so that nearly each misses the
// caches; and of one flow.
func BenchmarkTrack(b *testing.B) {
	b.Run("1M", func(b *testing.B) {
		table, p := million(b)
		b.ReportAllocs()
		i := uint32(0)
		for b.Loop() {
			i += 0x9e3779b9
			binary.BigEndian.PutUint32(p.Data[12:], 1<<24+uint32(uint64(i)*1_000_000>>32))
			table.Track(p, 1).Release()
		}
		b.ReportMetric(float64(table.Stats().Memory)/1e6, "bytes/flow")
	})
	b.Run("1", func(b *testing.B) {
		table := flow.NewTable(flow.Config[value]{})
		p := ends{dst: 1, sport: 4000, dport: 53}.udp(0)
		now := int64(0)
		b.ReportAllocs()
		for b.Loop() {
			now += 1000
			table.Track(p, now).Release()
		}
	})
}

// BenchmarkFlood makes a new flow and evicts one each time.
func BenchmarkFlood(b *testing.B) {
	table := flow.NewTable(flow.Config[value]{MaxFlows: 100_000})
	p := ends{dst: 1, sport: 4000, dport: 443}.tcp(packet.SYN, 1, 0, "")
	i := uint32(0)
	b.ReportAllocs()
	for b.Loop() {
		i++
		binary.BigEndian.PutUint32(p.Data[12:], i)
		table.Track(p, int64(i)).Release()
	}
}

// BenchmarkCollect is a garbage collection with a million flows in the table.
func BenchmarkCollect(b *testing.B) {
	table, p := million(b)
	for b.Loop() {
		runtime.GC()
	}
	table.Track(p, int64(time.Second)).Release()
}

func TestTrackDoesNotAllocate(t *testing.T) {
	table := flow.NewTable(flow.Config[value]{})
	p := ends{src: 1, dst: 2, sport: 1, dport: 2}.udp(10)
	q := ends{src: 1, dst: 2, sport: 1, dport: 2}.back().udp(10)
	now := int64(0)
	table.Track(p, now).Release()
	if n := testing.AllocsPerRun(1000, func() {
		now += int64(time.Second)
		table.Track(p, now).Release()
		table.Track(q, now).Release()
		table.Lookup(p, now).Release()
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
