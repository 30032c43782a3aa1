package packet_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"slices"
	"testing"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"

	"inquest/inspect/packet"
)

func TestDecode(t *testing.T) {
	payload := gopacket.Payload("hello")
	frag4 := ip4(layers.IPProtocolUDP)
	frag4.FragOffset, frag4.Flags = 2, layers.IPv4MoreFragments
	first4 := ip4(layers.IPProtocolUDP)
	first4.Flags = layers.IPv4MoreFragments
	routed := ip4(layers.IPProtocolUDP)
	routed.Options = []layers.IPv4Option{{OptionType: 131, OptionLength: 7, OptionData: []byte{4, 1, 2, 3, 4}}, {OptionType: 0, OptionLength: 1}}
	syn := tcp("S", 100, 0)
	syn.Options = []layers.TCPOption{
		{OptionType: 2, OptionLength: 4, OptionData: []byte{5, 0xb4}}, {OptionType: 4, OptionLength: 2},
		{OptionType: 8, OptionLength: 10, OptionData: []byte{0, 0, 0, 7, 0, 0, 0, 9}}, {OptionType: 1}, {OptionType: 3, OptionLength: 3, OptionData: []byte{7}},
	}

	tests := []struct {
		name string
		data []byte
		want packet.Packet
	}{
		{"tcp syn", build(t, ip4(layers.IPProtocolTCP), syn), packet.Packet{
			Version: 4, Proto: packet.ProtoTCP, SrcPort: 40000, DstPort: 443, HasTransport: true, TOS: 0x2e, TTL: 63, ID: 77,
			Transport: 20, Len: 60, TCP: packet.TCP{
				Seq: 100, Flags: packet.SYN, Window: 501, HeaderLen: 40, MSS: 1460, WindowScale: 7, TSVal: 7, TSEcr: 9,
				Options: packet.MSS | packet.SACKPermitted | packet.Timestamps | packet.WindowScale,
			},
		}},
		{"udp", build(t, ip4(layers.IPProtocolUDP), udp(1000, 53), payload), packet.Packet{
			Version: 4, Proto: packet.ProtoUDP, SrcPort: 1000, DstPort: 53, HasTransport: true, TOS: 0x2e, TTL: 63, ID: 77,
			Transport: 20, Len: 33, Payload: payload, PayloadLen: 5,
		}},
		{"udp, padded by Ethernet", append(build(t, ip4(layers.IPProtocolUDP), udp(1000, 53), payload), 0, 0, 0, 0), packet.Packet{
			Version: 4, Proto: packet.ProtoUDP, SrcPort: 1000, DstPort: 53, HasTransport: true, TOS: 0x2e, TTL: 63, ID: 77,
			Transport: 20, Len: 33, Payload: payload, PayloadLen: 5,
		}},
		{"udp, copied in part", build(t, ip4(layers.IPProtocolUDP), udp(1000, 53), payload)[:30], packet.Packet{
			Version: 4, Proto: packet.ProtoUDP, SrcPort: 1000, DstPort: 53, HasTransport: true, TOS: 0x2e, TTL: 63, ID: 77,
			Transport: 20, Len: 33, Payload: payload[:2], PayloadLen: 5, Anomalies: packet.Truncated,
		}},
		{"source route", build(t, routed, udp(1000, 53)), packet.Packet{
			Version: 4, Proto: packet.ProtoUDP, SrcPort: 1000, DstPort: 53, HasTransport: true, TOS: 0x2e, TTL: 63, ID: 77,
			Transport: 28, Len: 36, Options: packet.SourceRoute,
		}},
		{"first fragment", build(t, first4, udp(1000, 53), payload, gopacket.Payload("123")), packet.Packet{
			Version: 4, Proto: packet.ProtoUDP, SrcPort: 1000, DstPort: 53, HasTransport: true, TOS: 0x2e, TTL: 63, ID: 77,
			Transport: 20, Len: 36, Payload: []byte("hello123"), PayloadLen: 8, Fragment: true, MoreFragments: true,
		}},
		{"later fragment", build(t, frag4, gopacket.Payload("12345678")), packet.Packet{
			Version: 4, Proto: packet.ProtoUDP, TOS: 0x2e, TTL: 63, ID: 77,
			Transport: 20, Len: 28, Payload: []byte("12345678"), PayloadLen: 8, Fragment: true, MoreFragments: true, FragmentOffset: 16,
		}},
		{"fragment of odd length", build(t, frag4, gopacket.Payload("123")), packet.Packet{
			Version: 4, Proto: packet.ProtoUDP, TOS: 0x2e, TTL: 63, ID: 77, Anomalies: packet.BadFragment,
			Transport: 20, Len: 23, Payload: []byte("123"), PayloadLen: 3, Fragment: true, MoreFragments: true, FragmentOffset: 16,
		}},
		{"tiny first fragment", build(t, func() *layers.IPv4 { l := *first4; l.Protocol = layers.IPProtocolTCP; return &l }(), gopacket.Payload("12345678")), packet.Packet{
			Version: 4, Proto: packet.ProtoTCP, TOS: 0x2e, TTL: 63, ID: 77, Anomalies: packet.BadFragment | packet.NoTransport,
			Transport: 20, Len: 28, Payload: []byte("12345678"), PayloadLen: 8, Fragment: true, MoreFragments: true,
		}},
		{"icmp echo", build(t, ip4(layers.IPProtocolICMPv4), &layers.ICMPv4{TypeCode: layers.CreateICMPv4TypeCode(8, 0), Id: 5, Seq: 6}, payload), packet.Packet{
			Version: 4, Proto: packet.ProtoICMP, HasTransport: true, TOS: 0x2e, TTL: 63, ID: 77,
			Transport: 20, Len: 33, Payload: payload, PayloadLen: 5, ICMP: packet.ICMP{Type: 8, ID: 5, Seq: 6},
		}},
		{"icmp unreachable", build(t, ip4(layers.IPProtocolICMPv4), &layers.ICMPv4{TypeCode: layers.CreateICMPv4TypeCode(3, 3)},
			gopacket.Payload(build(t, ip4(layers.IPProtocolUDP), udp(1000, 53)))), packet.Packet{
			Version: 4, Proto: packet.ProtoICMP, HasTransport: true, TOS: 0x2e, TTL: 63, ID: 77,
			Transport: 20, Len: 56, Payload: build(t, ip4(layers.IPProtocolUDP), udp(1000, 53)), PayloadLen: 28,
			ICMP: packet.ICMP{Type: 3, Code: 3, Error: true, Inner: packet.Tuple{Src: addr("10.0.0.1"), Dst: addr("192.0.2.9"), SrcPort: 1000, DstPort: 53, Proto: packet.ProtoUDP}},
		}},
		{"unknown protocol", build(t, ip4(99), payload), packet.Packet{
			Version: 4, Proto: 99, TOS: 0x2e, TTL: 63, ID: 77, Transport: 20, Len: 25, Payload: payload, PayloadLen: 5,
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tt.want.Data = tt.data
			tt.want.Src, tt.want.Dst = addr("10.0.0.1"), addr("192.0.2.9")
			// A packet that was used before must not show through.
			p := used(t)
			if err := p.Decode(tt.data); err != nil {
				t.Fatal(err)
			}
			diff(t, p, &tt.want)
		})
	}
}

// used returns a Packet that has every field set by packets before.
func used(t testing.TB) *packet.Packet {
	p := new(packet.Packet)
	inner := build(t, ip6(layers.IPProtocolTCP), tcp("SAFPR", 1, 2), gopacket.Payload("x"))
	for _, b := range [][]byte{
		build(t, ip6(layers.IPProtocolTCP), tcp("SAFPR", 1, 2), gopacket.Payload("old payload")),
		build(t, ip6(layers.IPProtocolICMPv6), &layers.ICMPv6{TypeCode: layers.CreateICMPv6TypeCode(1, 4)}, gopacket.Payload(append(make([]byte, 4), inner...))),
	} {
		if err := p.Decode(b); err != nil {
			t.Fatal(err)
		}
	}
	return p
}

// diff compares all fields but the checksum.
func diff(t *testing.T, got, want *packet.Packet) {
	t.Helper()
	if !bytes.Equal(got.Payload, want.Payload) {
		t.Errorf("payload %q, want %q", got.Payload, want.Payload)
	}
	g, w := *got, *want
	g.Payload, w.Payload, g.Data, w.Data = nil, nil, nil, nil
	g.TCP.Checksum, w.TCP.Checksum = 0, 0
	if g.Src != w.Src || g.Dst != w.Dst {
		t.Errorf("%v -> %v, want %v -> %v", g.Src, g.Dst, w.Src, w.Dst)
	}
	if g.TCP != w.TCP {
		t.Errorf("TCP\n got %+v\nwant %+v", g.TCP, w.TCP)
	}
	if g.ICMP != w.ICMP {
		t.Errorf("ICMP\n got %+v\nwant %+v", g.ICMP, w.ICMP)
	}
	if g.SCTP != w.SCTP {
		t.Errorf("SCTP\n got %+v\nwant %+v", g.SCTP, w.SCTP)
	}
	if g.Anomalies != w.Anomalies {
		t.Errorf("anomalies %v, want %v", g.Anomalies.Names(), w.Anomalies.Names())
	}
	if g.Options != w.Options {
		t.Errorf("options %v, want %v", g.Options.Names(), w.Options.Names())
	}
	type rest struct {
		version, tos, ttl, proto uint8
		src, dst, offset         uint16
		id, label                uint32
		len, payload, transport  int
		fragment, more, has      bool
	}
	of := func(p *packet.Packet) rest {
		return rest{
			p.Version, p.TOS, p.TTL, p.Proto, p.SrcPort, p.DstPort, p.FragmentOffset, p.ID, p.FlowLabel,
			p.Len, p.PayloadLen, p.Transport, p.Fragment, p.MoreFragments, p.HasTransport,
		}
	}
	if of(&g) != of(&w) {
		t.Errorf("\n got %+v\nwant %+v", of(&g), of(&w))
	}
}

// v6 builds an IPv6 packet out of a chain of headers given as bytes.
func v6(next uint8, parts ...[]byte) []byte {
	body := slices.Concat(parts...)
	b := make([]byte, 40, 40+len(body))
	b[0], b[6], b[7] = 0x60, next, 64
	binary.BigEndian.PutUint16(b[4:], uint16(len(body)))
	b[23], b[8], b[39], b[24] = 1, 0x20, 2, 0x20
	return append(b, body...)
}

func TestExtensionHeaders(t *testing.T) {
	u := []byte{0x03, 0xe8, 0, 53, 0, 9, 0, 0, 'x'}
	ext := func(next uint8, units int) []byte {
		b := make([]byte, 8+8*units)
		b[0], b[1] = next, byte(units)
		return b
	}
	fragment := func(next uint8, offset uint16, more bool) []byte {
		b := []byte{next, 0, 0, 0, 0, 0, 0, 42}
		binary.BigEndian.PutUint16(b[2:], offset)
		if more {
			b[3] |= 1
		}
		return b
	}
	var many [][]byte
	for range 40 {
		many = append(many, ext(60, 0))
	}
	tests := []struct {
		name      string
		data      []byte
		proto     uint8
		dport     uint16
		transport int
		options   packet.Option
		anomalies packet.Anomaly
		fragment  bool
		offset    uint16
	}{
		{"none", v6(17, u), 17, 53, 40, 0, 0, false, 0},
		{"authentication header too short", v6(0, ext(60, 1), ext(43, 2), ext(51, 0), []byte{17, 0, 0, 0, 0, 0, 0, 0}, u), 17, 53, 40 + 16 + 24 + 8 + 8,
			packet.HopByHop | packet.DestinationOptions | packet.Routing | packet.Authentication, packet.BadHeaderLen, false, 0},
		{"chain", v6(0, ext(60, 1), ext(43, 2), ext(60, 0), ext(135, 0), ext(139, 0), ext(17, 3), u), 17, 53, 40 + 16 + 24 + 8 + 8 + 8 + 32,
			packet.HopByHop | packet.DestinationOptions | packet.Routing | packet.Mobility | packet.OtherHeader, 0, false, 0},
		{"authentication", v6(51, append([]byte{17, 4}, make([]byte, 22)...), u), 17, 53, 64, packet.Authentication, 0, false, 0},
		{"atomic fragment", v6(44, fragment(17, 0, false), u), 17, 53, 48, packet.FragmentHeader, 0, false, 0},
		{"first fragment", v6(44, fragment(17, 0, true), u[:8]), 17, 53, 48, packet.FragmentHeader, 0, true, 0},
		{"later fragment", v6(44, fragment(17, 1480, false), u), 17, 0, 48, packet.FragmentHeader, 0, true, 1480},
		{"later fragment of an extension header", v6(44, fragment(60, 1480, false), u), 60, 0, 48, packet.FragmentHeader, 0, true, 1480},
		{"first fragment without its transport (RFC 7112)", v6(44, fragment(60, 0, true), ext(17, 0)), 17, 0, 56,
			packet.FragmentHeader | packet.DestinationOptions, packet.NoTransport | packet.BadFragment, true, 0},
		{"no next header", v6(59, u), 59, 0, 40, 0, 0, false, 0},
		{"ESP", v6(50, u), 50, 0, 40, 0, 0, false, 0},
		{"header past the end", v6(60, ext(17, 0)[:4]), 60, 0, 40, packet.DestinationOptions, packet.BadHeaderLen | packet.NoTransport, false, 0},
		{"length past the end", v6(60, []byte{17, 9, 0, 0, 0, 0, 0, 0}), 60, 0, 40, packet.DestinationOptions, packet.BadHeaderLen | packet.NoTransport, false, 0},
		{"too many", v6(60, many...), 60, 0, 40 + 16*8, packet.DestinationOptions, packet.TooManyHeaders, false, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := used(t)
			if err := p.Decode(tt.data); err != nil {
				t.Fatal(err)
			}
			if p.Proto != tt.proto || p.DstPort != tt.dport || p.Transport != tt.transport {
				t.Errorf("proto %d, port %d, transport at %d; want %d, %d, %d", p.Proto, p.DstPort, p.Transport, tt.proto, tt.dport, tt.transport)
			}
			if p.Options != tt.options || p.Anomalies != tt.anomalies {
				t.Errorf("options %v, anomalies %v; want %v, %v", p.Options.Names(), p.Anomalies.Names(), tt.options.Names(), tt.anomalies.Names())
			}
			if p.Fragment != tt.fragment || p.FragmentOffset != tt.offset {
				t.Errorf("fragment %t at %d", p.Fragment, p.FragmentOffset)
			}
		})
	}
}

func TestMalformed(t *testing.T) {
	good := build(t, ip4(layers.IPProtocolTCP), tcp("PA", 1, 2), gopacket.Payload("data"))
	edit := func(f func(b []byte)) []byte {
		b := bytes.Clone(good)
		f(b)
		return b
	}
	u := build(t, ip4(layers.IPProtocolUDP), udp(7, 7), gopacket.Payload("data"))
	tests := []struct {
		name string
		data []byte
		want packet.Anomaly
	}{
		{"good", good, 0},
		{"IHL too small", edit(func(b []byte) { b[0] = 0x44 }), packet.BadHeaderLen},
		{"IHL past the total length", edit(func(b []byte) { b[0], b[3] = 0x4f, 40 }), packet.BadHeaderLen | packet.BadLen | packet.BadOptions | packet.NoTransport},
		{"total length too small", edit(func(b []byte) { b[3] = 19 }), packet.BadHeaderLen | packet.BadLen},
		{"total length 0", edit(func(b []byte) { b[3] = 0 }), packet.BadHeaderLen | packet.BadLen},
		{"total length ends in the TCP header", edit(func(b []byte) { b[3] = 39 }), packet.NoTransport},
		{"data offset too small", edit(func(b []byte) { b[32] = 0x40 }), packet.BadHeaderLen},
		{"data offset past the end", edit(func(b []byte) { b[32] = 0xf0 }), packet.BadHeaderLen},
		{"no flags", edit(func(b []byte) { b[33] = 0 }), packet.BadFlags},
		{"christmas tree", edit(func(b []byte) { b[33] = 0x3f }), packet.BadFlags},
		{"FIN alone", edit(func(b []byte) { b[33] = 1 }), packet.BadFlags},
		{"reserved bit", edit(func(b []byte) { b[6] = 0x80 }), packet.ReservedBit},
		{"from multicast", edit(func(b []byte) { b[12] = 239 }), packet.BadAddress},
		{"from broadcast", edit(func(b []byte) { copy(b[12:], []byte{255, 255, 255, 255}) }), packet.BadAddress},
		{"ends past 65535", edit(func(b []byte) { b[6], b[7] = 0x1f, 0xff }), packet.BadFragment},
		{"UDP length too small", append(bytes.Clone(u[:24]), 0, 7, 0, 0, 'd', 'a', 't', 'a'), packet.BadLen},
		{"UDP length too large", append(bytes.Clone(u[:24]), 0, 99, 0, 0, 'd', 'a', 't', 'a'), packet.BadLen},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := used(t)
			if err := p.Decode(tt.data); err != nil {
				t.Fatal(err)
			}
			if p.Anomalies&^packet.Truncated != tt.want {
				t.Errorf("anomalies %v, want %v", p.Anomalies.Names(), tt.want.Names())
			}
		})
	}
	for _, b := range [][]byte{nil, {}, {0x45}, good[:19], make([]byte, 60), v6(6)[:39], {0x60}} {
		p := used(t)
		if err := p.Decode(b); !errors.Is(err, packet.ErrNotIP) || p.Version != 0 {
			t.Errorf("Decode(%x) = %v, version %d", b, err, p.Version)
		}
	}
}

func TestBigTCP(t *testing.T) {
	b := build(t, ip4(layers.IPProtocolTCP), tcp("PA", 1, 2))
	b = append(b, make([]byte, 100_000)...)
	b[2], b[3] = 0, 0
	var p packet.Packet
	if err := p.Decode(b); err != nil || p.Anomalies != 0 || p.PayloadLen != 100_000 || len(p.Payload) != 100_000 {
		t.Errorf("IPv4: %v, %v, payload %d", err, p.Anomalies.Names(), p.PayloadLen)
	}
	six := v6(6, b[20:])
	six[4], six[5] = 0, 0
	if err := p.Decode(six); err != nil || p.Anomalies != 0 || p.PayloadLen != 100_000 {
		t.Errorf("IPv6: %v, %v, payload %d", err, p.Anomalies.Names(), p.PayloadLen)
	}
	jumbo := v6(0, []byte{6, 0, 0xc2, 4, 0, 1, 0x86, 0xbc}, b[20:]) // 100028
	jumbo[4], jumbo[5] = 0, 0
	for _, n := range []int{len(jumbo), 2000} {
		if err := p.Decode(jumbo[:n]); err != nil || p.PayloadLen != 100_000 || p.Options != packet.HopByHop|packet.Jumbo {
			t.Errorf("IPv6, jumbo option, %d bytes: %v, %v, payload %d", n, err, p.Anomalies.Names(), p.PayloadLen)
		}
	}
}

func TestInner(t *testing.T) {
	in := build(t, ip4(layers.IPProtocolUDP), udp(5, 6), gopacket.Payload("inner"))
	in6 := build(t, ip6(layers.IPProtocolTCP), tcp("S", 1, 0))
	frame := append([]byte{1, 2, 3, 4, 5, 6, 1, 2, 3, 4, 5, 6, 0x81, 0, 0, 5, 0x08, 0}, in...)
	tests := []struct {
		name string
		data []byte
		want []byte
	}{
		{"IP in IP", build(t, ip4(layers.IPProtocolIPv4), gopacket.Payload(in)), in},
		{"6in4", build(t, ip4(layers.IPProtocolIPv6), gopacket.Payload(in6)), in6},
		{"4in6", build(t, ip6(layers.IPProtocolIPv4), gopacket.Payload(in)), in},
		{"GRE", build(t, ip4(layers.IPProtocolGRE), &layers.GRE{Protocol: layers.EthernetTypeIPv4}, gopacket.Payload(in)), in},
		{"GRE with key, checksum, sequence", build(t, ip4(layers.IPProtocolGRE),
			&layers.GRE{Protocol: layers.EthernetTypeIPv4, KeyPresent: true, Key: 9, ChecksumPresent: true, SeqPresent: true, Seq: 3}, gopacket.Payload(in)), in},
		{"GRE, Ethernet", build(t, ip4(layers.IPProtocolGRE), &layers.GRE{Protocol: layers.EthernetTypeTransparentEthernetBridging}, gopacket.Payload(frame)), in},
		{"VXLAN", build(t, ip4(layers.IPProtocolUDP), udp(99, 4789), &layers.VXLAN{ValidIDFlag: true, VNI: 7}, gopacket.Payload(frame)), in},
		{"Geneve", build(t, ip6(layers.IPProtocolUDP), udp(99, 6081), gopacket.Payload(append([]byte{1, 0, 0x65, 0x58, 0, 0, 1, 0, 0, 0, 0, 0}, frame...))), in},
		{"no tunnel", in, nil},
		{"VXLAN without its flag", build(t, ip4(layers.IPProtocolUDP), udp(99, 4789), gopacket.Payload(append(make([]byte, 8), frame...))), nil},
		{"VXLAN of nothing", build(t, ip4(layers.IPProtocolUDP), udp(99, 4789), gopacket.Payload([]byte{8, 0, 0, 0, 0, 0, 0, 0})), nil},
		{"PPTP", build(t, ip4(layers.IPProtocolGRE), gopacket.Payload([]byte{0x30, 1, 0x88, 0x0b, 0, 0, 0, 0})), nil},
		{"version does not agree", build(t, ip4(layers.IPProtocolIPv4), gopacket.Payload(in6)), nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var p packet.Packet
			if err := p.Decode(tt.data); err != nil {
				t.Fatal(err)
			}
			inner := used(t)
			ok := p.Inner(inner)
			if ok != (tt.want != nil) {
				t.Fatalf("Inner = %t", ok)
			}
			if ok && !bytes.Equal(inner.Data[:inner.Len], tt.want) {
				t.Errorf("inner %x, want %x", inner.Data, tt.want)
			}
		})
	}
}

func TestNames(t *testing.T) {
	if got := (packet.SYN | packet.ACK).Names(); !slices.Equal(got, []string{"SYN", "ACK"}) {
		t.Error(got)
	}
	if got := (packet.NoTransport | packet.Truncated).Names(); !slices.Equal(got, []string{"truncated", "no-transport"}) {
		t.Error(got)
	}
	if got := (packet.OtherOption | packet.HopByHop).Names(); !slices.Equal(got, []string{"hop-by-hop", "other-option"}) {
		t.Error(got)
	}
}
