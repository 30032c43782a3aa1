package packet_test

import (
	"testing"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"

	"inquest/inspect/packet"
)

func samples(tb testing.TB) map[string][]byte {
	segment := tcp("PA", 1, 2)
	segment.Options = []layers.TCPOption{{OptionType: 1}, {OptionType: 1}, {OptionType: 8, OptionLength: 10, OptionData: make([]byte, 8)}}
	return map[string][]byte{
		"TCP4":  build(tb, ip4(layers.IPProtocolTCP), segment, gopacket.Payload(make([]byte, 512))),
		"TCP6":  build(tb, ip6(layers.IPProtocolTCP), segment, gopacket.Payload(make([]byte, 512))),
		"UDP4":  build(tb, ip4(layers.IPProtocolUDP), udp(1, 2), gopacket.Payload(make([]byte, 64))),
		"ICMP4": build(tb, ip4(layers.IPProtocolICMPv4), &layers.ICMPv4{TypeCode: layers.CreateICMPv4TypeCode(3, 3)}, gopacket.Payload(build(tb, ip4(17), udp(1, 2)))),
	}
}

func BenchmarkDecode(b *testing.B) {
	for name, data := range samples(b) {
		b.Run(name, func(b *testing.B) {
			var p packet.Packet
			b.ReportAllocs()
			for b.Loop() {
				p.Decode(data)
			}
		})
	}
}

func BenchmarkVerify(b *testing.B) {
	data := samples(b)["TCP4"]
	var p packet.Packet
	p.Decode(data)
	b.SetBytes(int64(len(data)))
	b.ReportAllocs()
	for b.Loop() {
		p.Verify(packet.ChecksumUnverified)
	}
}

func BenchmarkAppendReset(b *testing.B) {
	var p packet.Packet
	p.Decode(samples(b)["TCP4"])
	buf := make([]byte, 0, 64)
	b.ReportAllocs()
	for b.Loop() {
		p.AppendReset(buf)
	}
}

func TestNoAllocation(t *testing.T) {
	for name, data := range samples(t) {
		var p, in packet.Packet
		buf := make([]byte, 0, 2048)
		if n := testing.AllocsPerRun(100, func() {
			p.Decode(data)
			p.Inner(&in)
			p.Verify(packet.ChecksumUnverified)
			p.AppendReset(buf)
			p.AppendAbort(buf)
			p.AppendUnreachable(buf, packet.PortUnreachable)
			p.AppendReplaced(buf, data[:4])
		}); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}
