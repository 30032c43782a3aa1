package inspect_test

import (
	"encoding/binary"
	"fmt"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"inquest/inspect"
	"inquest/inspect/packet"
	"inquest/inspect/rule"
)

// hundred is a file of a hundred rules, of the kinds that people write; perPacket has
// one in it that looks at every packet, so that no flow is ever decided.
func hundred(perPacket bool) string {
	var b strings.Builder
	b.WriteString("default: accept\nrules:\n")
	for i := range 100 {
		when := ""
		switch i % 5 {
		case 0:
			when = fmt.Sprintf("tcp.dport == %d", 1000+i)
		case 1:
			when = fmt.Sprintf("udp.dport == %d && ip.src in \"10.%d.0.0/16\"", 2000+i, i)
		case 2:
			when = fmt.Sprintf("tls.sni.endsWith(\".blocked%d.example\")", i)
		case 3:
			when = fmt.Sprintf("ip.dst in \"198.51.100.%d/32\"", i)
		case 4:
			when = fmt.Sprintf("http.host == \"host%d.example\"", i)
		}
		if i == 50 && perPacket {
			when = "udp.dport == 9999 && flow.packets > 1000000000"
		}
		fmt.Fprintf(&b, "- {name: r%d, when: '%s', verdict: drop}\n", i, when)
	}
	return b.String()
}

// BenchmarkInspect judges 64-byte UDP packets by a hundred rules: of one flow and of
// a hundred thousand that are known and decided, of flows that no packet decides, and
// of flows that are all new.
func BenchmarkInspect(b *testing.B) {
	data := between("10.0.0.1:40000", "192.0.2.1:9999").udp(make([]byte, 64-28))
	meta := &rule.Meta{In: "eth0", Checksum: packet.ChecksumVerified}
	for _, bb := range []struct {
		name      string
		flows     uint64
		perPacket bool
		rules     string
	}{
		{"decided", 1, false, hundred(false)},
		{"decided/100k-flows", 100_000, false, hundred(false)},
		{"undecided", 1, true, hundred(true)},
		{"undecided/100k-flows", 100_000, true, hundred(true)},
		{"new", 1 << 31, false, hundred(false)},
		{"no-rules", 1, false, "default: accept\n"},
	} {
		b.Run(bb.name, func(b *testing.B) {
			e := inspect.New(load(b, bb.rules), inspect.Config{MaxFlows: 200_000})
			w := e.Worker()
			for i := range min(bb.flows, 200_000) {
				binary.BigEndian.PutUint32(data[12:], 0x0b000000+uint32(i))
				w.Inspect(data, meta, 0)
			}
			i, now := uint32(0), int64(0)
			b.ReportAllocs()
			defer cpuTime(b)()
			for b.Loop() {
				i += 0x9e3779b9
				now += 1000
				binary.BigEndian.PutUint32(data[12:], 0x0b000000+uint32(uint64(i)*bb.flows>>32))
				if d := w.Inspect(data, meta, now); d.Verdict.Kind != rule.Accept || d.Decided == bb.perPacket {
					b.Fatalf("%+v", d)
				}
			}
		})
	}
}

// BenchmarkConnection is a TLS connection from its SYN to the decision: four packets,
// the ClientHello among them.
func BenchmarkConnection(b *testing.B) {
	e := inspect.New(load(b, hundred(false)), inspect.Config{})
	w := e.Worker()
	c := connect("10.0.0.1:40000", "192.0.2.1:443")
	packets := append(c.open(), c.say(clientHello(b, "www.example")))
	meta := &rule.Meta{Checksum: packet.ChecksumVerified}
	n := uint32(0)
	var whole packet.Packet
	b.ReportAllocs()
	defer cpuTime(b)()
	for b.Loop() {
		n++
		for i, p := range packets {
			from := 12
			if i == 1 {
				from = 16
			}
			binary.BigEndian.PutUint32(p[from:], 0x0b000000+n)
			whole.Decode(p)
			whole.FixChecksums()
			w.Inspect(p, meta, int64(n)*1000)
		}
	}
	if s := e.Stats(); s.Decided < uint64(b.N) {
		b.Fatalf("%d of %d connections decided", s.Decided, b.N)
	}
}

// cpuTime reports the processor's time per operation, which other processes do not
// change much, beside the clock's.
func cpuTime(b *testing.B) func() {
	used := func() int64 {
		var u syscall.Rusage
		if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
			b.Fatal(err)
		}
		return u.Utime.Nano() + u.Stime.Nano()
	}
	before := used()
	return func() { b.ReportMetric(float64(used()-before)/float64(b.N), "cpu-ns/op") }
}

func TestInspectDoesNotAllocate(t *testing.T) {
	for _, perPacket := range []bool{false, true} {
		w := inspect.New(load(t, hundred(perPacket)), inspect.Config{}).Worker()
		udp := between("10.0.0.1:40000", "192.0.2.1:9999").udp(make([]byte, 36))
		c := connect("10.0.0.1:40000", "192.0.2.1:443")
		meta := &rule.Meta{In: "eth0"}
		for _, b := range append(c.open(), c.say(clientHello(t, "www.example")), udp) {
			w.Inspect(b, meta, 0)
		}
		ack := c.ack()
		if n := testing.AllocsPerRun(1000, func() {
			w.Inspect(udp, meta, 1)
			w.Inspect(ack, meta, 1)
		}); n != 0 {
			t.Errorf("undecided %t: %v allocations", perPacket, n)
		}
	}
	runtime.GC()
}
