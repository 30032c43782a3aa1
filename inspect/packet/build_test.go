package packet_test

import (
	"math/rand/v2"
	"net"
	"net/netip"
	"testing"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
)

// build serializes layers with right lengths and checksums.
func build(t testing.TB, all ...gopacket.SerializableLayer) []byte {
	t.Helper()
	var network gopacket.NetworkLayer
	for _, l := range all {
		switch l := l.(type) {
		case gopacket.NetworkLayer:
			network = l
		case interface {
			SetNetworkLayerForChecksum(gopacket.NetworkLayer) error
		}:
			if err := l.SetNetworkLayerForChecksum(network); err != nil {
				t.Fatal(err)
			}
		}
	}
	b := gopacket.NewSerializeBuffer()
	if err := gopacket.SerializeLayers(b, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}, all...); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func ip4(proto layers.IPProtocol) *layers.IPv4 {
	return &layers.IPv4{
		Version: 4, TTL: 63, TOS: 0x2e, Id: 77, Protocol: proto,
		SrcIP: net.IP{10, 0, 0, 1}, DstIP: net.IP{192, 0, 2, 9},
	}
}

func ip6(next layers.IPProtocol) *layers.IPv6 {
	return &layers.IPv6{
		Version: 6, HopLimit: 61, TrafficClass: 0xb8, FlowLabel: 0x12345, NextHeader: next,
		SrcIP: net.ParseIP("2001:db8::1"), DstIP: net.ParseIP("2001:db8:1::9"),
	}
}

func tcp(flags string, seq, ack uint32) *layers.TCP {
	l := &layers.TCP{SrcPort: 40000, DstPort: 443, Seq: seq, Ack: ack, Window: 501}
	for _, f := range flags {
		switch f {
		case 'S':
			l.SYN = true
		case 'A':
			l.ACK = true
		case 'F':
			l.FIN = true
		case 'R':
			l.RST = true
		case 'P':
			l.PSH = true
		}
	}
	return l
}

func udp(src, dst layers.UDPPort) *layers.UDP { return &layers.UDP{SrcPort: src, DstPort: dst} }

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }

// generated makes a random packet out of layers, for comparison with how gopacket
// reads it.
func generated(t testing.TB, r *rand.Rand) []byte {
	var all []gopacket.SerializableLayer
	proto := []layers.IPProtocol{
		layers.IPProtocolTCP, layers.IPProtocolUDP, layers.IPProtocolICMPv4, layers.IPProtocolICMPv6, layers.IPProtocolSCTP, layers.IPProtocolGRE,
	}[r.IntN(6)]
	v6 := r.IntN(2) == 0
	if proto == layers.IPProtocolICMPv4 {
		v6 = false
	}
	if proto == layers.IPProtocolICMPv6 {
		v6 = true
	}
	if v6 {
		l := ip6(proto)
		l.TrafficClass, l.HopLimit, l.FlowLabel = uint8(r.Uint32()), uint8(r.Uint32()), r.Uint32()&0xfffff
		for i := range l.SrcIP {
			l.SrcIP[i], l.DstIP[i] = byte(r.Uint32()), byte(r.Uint32())
		}
		all = append(all, l)
		if r.IntN(2) == 0 {
			hop := &layers.IPv6HopByHop{Options: []*layers.IPv6HopByHopOption{{OptionType: 5, OptionData: []byte{0, 0}, OptionAlignment: [2]uint8{2, 0}}, {OptionType: 1}}}
			hop.NextHeader, l.NextHeader = l.NextHeader, layers.IPProtocolIPv6HopByHop
			all = append(all, hop)
			if r.IntN(2) == 0 {
				d := &layers.IPv6Destination{Options: []*layers.IPv6DestinationOption{{OptionType: 0x1e, OptionData: make([]byte, 4+8*r.IntN(3))}}}
				d.NextHeader, hop.NextHeader = hop.NextHeader, layers.IPProtocolIPv6Destination
				all = append(all, d)
			}
		}
	} else {
		l := ip4(proto)
		l.TOS, l.TTL, l.Id = uint8(r.Uint32()), uint8(r.Uint32()), uint16(r.Uint32())
		for i := range l.SrcIP {
			l.SrcIP[i], l.DstIP[i] = byte(r.Uint32()), byte(r.Uint32())
		}
		if r.IntN(3) == 0 {
			l.Options = []layers.IPv4Option{{OptionType: 148, OptionLength: 4, OptionData: []byte{0, 0}}}
		}
		all = append(all, l)
	}
	switch proto {
	case layers.IPProtocolTCP:
		l := &layers.TCP{SrcPort: layers.TCPPort(r.Uint32()), DstPort: layers.TCPPort(r.Uint32()), Seq: r.Uint32(), Ack: r.Uint32(), Window: uint16(r.Uint32())}
		l.SYN, l.ACK, l.FIN, l.RST, l.PSH, l.URG, l.ECE, l.CWR, l.NS = r.IntN(2) == 0, r.IntN(2) == 0, r.IntN(2) == 0, r.IntN(2) == 0, r.IntN(2) == 0, r.IntN(2) == 0, r.IntN(2) == 0, r.IntN(2) == 0, r.IntN(2) == 0
		if r.IntN(2) == 0 {
			l.Options = append(l.Options, layers.TCPOption{OptionType: 2, OptionLength: 4, OptionData: []byte{5, byte(r.Uint32())}})
		}
		if r.IntN(2) == 0 {
			l.Options = append(l.Options, layers.TCPOption{OptionType: 3, OptionLength: 3, OptionData: []byte{byte(r.IntN(14))}})
		}
		if r.IntN(2) == 0 {
			l.Options = append(l.Options, layers.TCPOption{OptionType: 8, OptionLength: 10, OptionData: []byte{1, 2, 3, byte(r.Uint32()), 5, 6, 7, 8}})
		}
		all = append(all, l)
	case layers.IPProtocolUDP:
		// Neither side a port that makes gopacket read on into a layer that may fail.
		all = append(all, udp(layers.UDPPort(40000+r.IntN(1000)), layers.UDPPort(50000+r.IntN(1000))))
	case layers.IPProtocolICMPv4:
		all = append(all, &layers.ICMPv4{TypeCode: layers.CreateICMPv4TypeCode(8, 0), Id: uint16(r.Uint32()), Seq: uint16(r.Uint32())})
	case layers.IPProtocolICMPv6:
		all = append(all, &layers.ICMPv6{TypeCode: layers.CreateICMPv6TypeCode(128, 0)}, &layers.ICMPv6Echo{Identifier: uint16(r.Uint32()), SeqNumber: uint16(r.Uint32())})
	case layers.IPProtocolSCTP:
		all = append(all, &layers.SCTP{SrcPort: layers.SCTPPort(r.Uint32()), DstPort: layers.SCTPPort(r.Uint32()), VerificationTag: r.Uint32()},
			&layers.SCTPEmptyLayer{SCTPChunk: layers.SCTPChunk{Type: layers.SCTPChunkTypeShutdownAck, Length: 4}})
		return build(t, all...)
	case layers.IPProtocolGRE:
		in := ip4(layers.IPProtocolUDP)
		all = append(all, &layers.GRE{Protocol: layers.EthernetTypeIPv4, KeyPresent: r.IntN(2) == 0, Key: r.Uint32(), ChecksumPresent: r.IntN(2) == 0}, in, udp(9000, 9001))
	}
	payload := make([]byte, r.IntN(200))
	for i := range payload {
		payload[i] = byte(r.Uint32())
	}
	return build(t, append(all, gopacket.Payload(payload))...)
}
