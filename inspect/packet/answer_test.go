package packet_test

import (
	"bytes"
	"testing"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"

	"inquest/inspect/packet"
)

func TestAppendReset(t *testing.T) {
	tests := []struct {
		name           string
		flags          string
		seq, ack       uint32
		payload        string
		wantSeq        uint32
		wantAck        uint32
		wantFlags      packet.Flags
		abort          bool
		abortSeq       uint32
		abortFlags     packet.Flags
		answered, both bool
	}{
		{name: "SYN", flags: "S", seq: 1000, wantAck: 1001, wantFlags: packet.RST | packet.ACK, answered: true},
		{name: "SYN with data", flags: "S", seq: 1000, payload: "early", wantAck: 1006, wantFlags: packet.RST | packet.ACK, answered: true},
		{name: "SYN, wraps", flags: "S", seq: 0xffffffff, wantAck: 0, wantFlags: packet.RST | packet.ACK, answered: true},
		{name: "SYN ACK", flags: "SA", seq: 5, ack: 77, wantSeq: 77, wantFlags: packet.RST, answered: true, abort: true, abortSeq: 5, abortFlags: packet.RST | packet.ACK},
		{name: "data", flags: "PA", seq: 5, ack: 77, payload: "hello", wantSeq: 77, wantFlags: packet.RST, answered: true, abort: true, abortSeq: 5, abortFlags: packet.RST | packet.ACK},
		{name: "FIN without ACK", flags: "F", seq: 5, payload: "x", wantAck: 7, wantFlags: packet.RST | packet.ACK, answered: true, abort: true, abortSeq: 5, abortFlags: packet.RST},
		{name: "RST", flags: "R", seq: 5},
		{name: "RST ACK", flags: "RA", seq: 5, ack: 1},
	}
	for _, tt := range tests {
		for _, network := range []gopacket.SerializableLayer{ip4(layers.IPProtocolTCP), ip6(layers.IPProtocolTCP)} {
			t.Run(tt.name, func(t *testing.T) {
				var p, q packet.Packet
				if err := p.Decode(build(t, network, tcp(tt.flags, tt.seq, tt.ack), gopacket.Payload(tt.payload))); err != nil {
					t.Fatal(err)
				}
				out, ok := p.AppendReset([]byte("x"))
				if ok != tt.answered {
					t.Fatalf("answered %t", ok)
				}
				if ok {
					if err := q.Decode(out[1:]); err != nil {
						t.Fatal(err)
					}
					if !q.Verify(packet.ChecksumUnverified) || q.Anomalies&^packet.BadFlags != 0 {
						t.Errorf("anomalies %v", q.Anomalies.Names())
					}
					if q.Tuple() != p.Tuple().Reverse() {
						t.Errorf("%+v answered by %+v", p.Tuple(), q.Tuple())
					}
					if q.TCP.Seq != tt.wantSeq || q.TCP.Ack != tt.wantAck || q.TCP.Flags != tt.wantFlags {
						t.Errorf("seq %d ack %d %v", q.TCP.Seq, q.TCP.Ack, q.TCP.Flags.Names())
					}
				}
				out, ok = p.AppendAbort(nil)
				if ok != tt.abort {
					t.Fatalf("aborted %t", ok)
				}
				if ok {
					if err := q.Decode(out); err != nil {
						t.Fatal(err)
					}
					if !q.Verify(packet.ChecksumUnverified) || q.Tuple() != p.Tuple() || q.TCP.Seq != tt.abortSeq || q.TCP.Flags != tt.abortFlags {
						t.Errorf("abort: %+v %+v", q.Tuple(), q.TCP)
					}
				}
			})
		}
	}
}

func TestNoReset(t *testing.T) {
	bad := build(t, ip4(layers.IPProtocolTCP), tcp("S", 1, 0))
	bad[30] ^= 1
	multicast := ip4(layers.IPProtocolTCP)
	multicast.DstIP = []byte{239, 1, 1, 1}
	broadcast := ip4(layers.IPProtocolTCP)
	broadcast.DstIP = []byte{255, 255, 255, 255}
	for name, b := range map[string][]byte{
		"UDP":          build(t, ip4(layers.IPProtocolUDP), udp(1, 2)),
		"bad checksum": bad,
		"multicast":    build(t, multicast, tcp("S", 1, 0)),
		"broadcast":    build(t, broadcast, tcp("S", 1, 0)),
	} {
		var p packet.Packet
		p.Decode(b)
		p.Verify(packet.ChecksumUnverified)
		if out, ok := p.AppendReset(nil); ok || out != nil {
			t.Errorf("%s was answered", name)
		}
		if out, ok := p.AppendAbort(nil); ok || out != nil {
			t.Errorf("%s was aborted", name)
		}
	}
}

func TestAppendUnreachable(t *testing.T) {
	big := gopacket.Payload(bytes.Repeat([]byte("x"), 3000))
	tests := []struct {
		name       string
		data       []byte
		why        packet.Unreachable
		kind, code uint8
		len        int
	}{
		{"UDP", build(t, ip4(layers.IPProtocolUDP), udp(1, 2), gopacket.Payload("abc")), packet.PortUnreachable, 3, 3, 28 + 31},
		{"UDP, prohibited", build(t, ip4(layers.IPProtocolUDP), udp(1, 2)), packet.AdminProhibited, 3, 13, 28 + 28},
		{"UDP, padding is not quoted", append(build(t, ip4(layers.IPProtocolUDP), udp(1, 2)), 1, 2, 3), packet.HostUnreachable, 3, 1, 28 + 28},
		{"UDP, network", build(t, ip4(layers.IPProtocolUDP), udp(1, 2)), packet.NetUnreachable, 3, 0, 28 + 28},
		{"large UDP", build(t, ip4(layers.IPProtocolUDP), udp(1, 2), big), packet.PortUnreachable, 3, 3, 576},
		{"echo", build(t, ip4(layers.IPProtocolICMPv4), &layers.ICMPv4{TypeCode: layers.CreateICMPv4TypeCode(8, 0)}), packet.PortUnreachable, 3, 3, 28 + 28},
		{"UDP, IPv6", build(t, ip6(layers.IPProtocolUDP), udp(1, 2)), packet.PortUnreachable, 1, 4, 48 + 48},
		{"prohibited, IPv6", build(t, ip6(layers.IPProtocolUDP), udp(1, 2)), packet.AdminProhibited, 1, 1, 48 + 48},
		{"large UDP, IPv6", build(t, ip6(layers.IPProtocolUDP), udp(1, 2), big), packet.PortUnreachable, 1, 4, 1280},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var p, q packet.Packet
			if err := p.Decode(tt.data); err != nil {
				t.Fatal(err)
			}
			// Dirty spare room must not show.
			dirty := bytes.Repeat([]byte{0xee}, 2000)[:0]
			out, ok := p.AppendUnreachable(dirty, tt.why)
			if !ok {
				t.Fatal("not answered")
			}
			if err := q.Decode(out); err != nil {
				t.Fatal(err)
			}
			if !q.Verify(packet.ChecksumUnverified) || q.Anomalies != 0 {
				t.Errorf("anomalies %v", q.Anomalies.Names())
			}
			if len(out) != tt.len || q.ICMP.Type != tt.kind || q.ICMP.Code != tt.code {
				t.Errorf("%d bytes, type %d, code %d", len(out), q.ICMP.Type, q.ICMP.Code)
			}
			if q.Src != p.Dst || q.Dst != p.Src || q.ICMP.Inner != p.Tuple() {
				t.Errorf("%v -> %v about %+v", q.Src, q.Dst, q.ICMP.Inner)
			}
		})
	}
}

func TestNoUnreachable(t *testing.T) {
	change := func(f func(l *layers.IPv4)) []byte {
		l := ip4(layers.IPProtocolUDP)
		f(l)
		return build(t, l, udp(1, 2), gopacket.Payload("12345678"))
	}
	change6 := func(f func(l *layers.IPv6)) []byte {
		l := ip6(layers.IPProtocolUDP)
		f(l)
		return build(t, l, udp(1, 2))
	}
	bad := build(t, ip4(layers.IPProtocolUDP), udp(1, 2), gopacket.Payload("x"))
	bad[28] ^= 1
	for name, b := range map[string][]byte{
		"ICMP error":          build(t, ip4(layers.IPProtocolICMPv4), &layers.ICMPv4{TypeCode: layers.CreateICMPv4TypeCode(11, 0)}),
		"redirect":            build(t, ip4(layers.IPProtocolICMPv4), &layers.ICMPv4{TypeCode: layers.CreateICMPv4TypeCode(5, 0)}),
		"ICMPv6 error":        build(t, ip6(layers.IPProtocolICMPv6), &layers.ICMPv6{TypeCode: layers.CreateICMPv6TypeCode(3, 0)}),
		"ICMPv6 redirect":     build(t, ip6(layers.IPProtocolICMPv6), &layers.ICMPv6{TypeCode: layers.CreateICMPv6TypeCode(137, 0)}),
		"later fragment":      change(func(l *layers.IPv4) { l.FragOffset = 5 }),
		"to multicast":        change(func(l *layers.IPv4) { l.DstIP = []byte{224, 0, 0, 251} }),
		"to broadcast":        change(func(l *layers.IPv4) { l.DstIP = []byte{255, 255, 255, 255} }),
		"from nowhere":        change(func(l *layers.IPv4) { l.SrcIP = []byte{0, 0, 0, 0} }),
		"from multicast":      change(func(l *layers.IPv4) { l.SrcIP = []byte{224, 0, 0, 1} }),
		"to multicast, IPv6":  change6(func(l *layers.IPv6) { l.DstIP[0] = 0xff }),
		"from nowhere, IPv6":  change6(func(l *layers.IPv6) { clear(l.SrcIP) }),
		"bad checksum":        bad,
		"ICMP without header": v6(58, []byte{128, 0}),
	} {
		var p packet.Packet
		if err := p.Decode(b); err != nil {
			t.Fatal(err)
		}
		p.Verify(packet.ChecksumUnverified)
		if out, ok := p.AppendUnreachable(nil, packet.PortUnreachable); ok || out != nil {
			t.Errorf("%s was answered", name)
		}
	}
}
