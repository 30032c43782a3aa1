package packet_test

import (
	"bytes"
	"math/rand/v2"
	"testing"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"

	"inquest/inspect/packet"
)

// TestAgainstGopacket has gopacket read generated packets too.
func TestAgainstGopacket(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 8))
	seen := map[uint8]int{}
	for range 5000 {
		b := generated(t, r)
		compare(t, b, true)
		var p packet.Packet
		p.Decode(b)
		seen[p.Proto]++
	}
	for _, proto := range []uint8{1, 6, 17, 47, 58, 132} {
		if seen[proto] < 100 {
			t.Errorf("only %d packets of protocol %d", seen[proto], proto)
		}
	}
}

// compare decodes b both ways. Of packets that were not built well, only those
// parts are compared that gopacket read without an error.
func compare(t *testing.T, b []byte, wellFormed bool) {
	t.Helper()
	var p packet.Packet
	if err := p.Decode(b); err != nil {
		t.Fatal(err)
	}
	first := layers.LayerTypeIPv4
	if p.Version == 6 {
		first = layers.LayerTypeIPv6
	}
	g := gopacket.NewPacket(b, first, gopacket.DecodeOptions{NoCopy: true})
	if wellFormed && (g.ErrorLayer() != nil || p.Anomalies&^(packet.BadFlags|packet.BadAddress) != 0) {
		t.Fatalf("%x: %v, %v", b, g.ErrorLayer(), p.Anomalies.Names())
	}
	check := func(what string, got, want any) {
		t.Helper()
		if got != want {
			t.Fatalf("%s %v, gopacket has %v\n%x\n%v", what, got, want, b, g)
		}
	}
	switch l := g.NetworkLayer().(type) {
	case *layers.IPv4:
		check("source", p.Src.String(), l.SrcIP.String())
		check("destination", p.Dst.String(), l.DstIP.String())
		check("TTL", p.TTL, l.TTL)
		check("TOS", p.TOS, l.TOS)
		check("ID", p.ID, uint32(l.Id))
		check("fragment offset", p.FragmentOffset, l.FragOffset*8)
		check("more", p.MoreFragments, l.Flags&layers.IPv4MoreFragments != 0)
		check("don't fragment", p.DontFragment, l.Flags&layers.IPv4DontFragment != 0)
	case *layers.IPv6:
		check("source", p.Src.String(), l.SrcIP.To16().String())
		check("destination", p.Dst.String(), l.DstIP.To16().String())
		check("hop limit", p.TTL, l.HopLimit)
		check("traffic class", p.TOS, l.TrafficClass)
		check("flow label", p.FlowLabel, l.FlowLabel)
	}
	if !p.HasTransport {
		if wellFormed {
			var in packet.Packet
			check("tunnel", p.Inner(&in), true)
			check("inner port", in.DstPort, uint16(9001))
		}
		return
	}
	switch l := g.TransportLayer().(type) {
	case *layers.TCP:
		check("source port", p.SrcPort, uint16(l.SrcPort))
		check("destination port", p.DstPort, uint16(l.DstPort))
		check("seq", p.TCP.Seq, l.Seq)
		check("ack", p.TCP.Ack, l.Ack)
		check("window", p.TCP.Window, l.Window)
		check("urgent", p.TCP.Urgent, l.Urgent)
		check("checksum", p.TCP.Checksum, l.Checksum)
		for flag, set := range map[packet.Flags]bool{
			packet.FIN: l.FIN, packet.SYN: l.SYN, packet.RST: l.RST, packet.PSH: l.PSH, packet.ACK: l.ACK,
			packet.URG: l.URG, packet.ECE: l.ECE, packet.CWR: l.CWR, packet.AE: l.NS,
		} {
			check("flag", p.TCP.Flags.Has(flag), set)
		}
		check("payload", string(p.Payload), string(l.Payload))
		if p.Anomalies&packet.BadOptions != 0 {
			break
		}
		for _, o := range l.Options {
			switch {
			case o.OptionType == layers.TCPOptionKindMSS && len(o.OptionData) == 2:
				check("MSS set", p.TCP.Options&packet.MSS != 0, true)
			case o.OptionType == layers.TCPOptionKindTimestamps && len(o.OptionData) == 8:
				check("timestamps set", p.TCP.Options&packet.Timestamps != 0, true)
			}
		}
	case *layers.UDP:
		check("source port", p.SrcPort, uint16(l.SrcPort))
		check("destination port", p.DstPort, uint16(l.DstPort))
		if wellFormed {
			check("payload", string(p.Payload), string(l.Payload))
		}
	case *layers.SCTP:
		check("source port", p.SrcPort, uint16(l.SrcPort))
		check("destination port", p.DstPort, uint16(l.DstPort))
		check("tag", p.SCTP.Tag, l.VerificationTag)
	}
	if l, ok := g.Layer(layers.LayerTypeICMPv4).(*layers.ICMPv4); ok && p.Proto == packet.ProtoICMP {
		check("type", p.ICMP.Type, l.TypeCode.Type())
		check("code", p.ICMP.Code, l.TypeCode.Code())
		if p.ICMP.Type == 8 {
			check("echo", [2]uint16{p.ICMP.ID, p.ICMP.Seq}, [2]uint16{l.Id, l.Seq})
		}
	}
	if l, ok := g.Layer(layers.LayerTypeICMPv6).(*layers.ICMPv6); ok && p.Proto == packet.ProtoICMPv6 {
		check("type", p.ICMP.Type, l.TypeCode.Type())
		check("code", p.ICMP.Code, l.TypeCode.Code())
	}
}

func FuzzDecode(f *testing.F) {
	r := rand.New(rand.NewPCG(9, 10))
	for range 50 {
		f.Add(generated(f, r))
	}
	f.Add(build(f, ip6(layers.IPProtocolICMPv6), &layers.ICMPv6{TypeCode: layers.CreateICMPv6TypeCode(1, 4)},
		gopacket.Payload(append(make([]byte, 4), build(f, ip6(layers.IPProtocolTCP), tcp("S", 1, 2))...))))
	f.Add(build(f, ip4(layers.IPProtocolUDP), udp(99, 4789), &layers.VXLAN{ValidIDFlag: true}, gopacket.Payload(make([]byte, 60))))
	f.Fuzz(func(t *testing.T, b []byte) {
		var p packet.Packet
		if err := p.Decode(b); err != nil {
			return
		}
		if len(p.Payload) > p.PayloadLen || p.PayloadLen > p.Len || p.Transport > len(b) {
			t.Fatalf("payload %d of %d, length %d, transport at %d of %d", len(p.Payload), p.PayloadLen, p.Len, p.Transport, len(b))
		}
		if p.Anomalies&packet.Truncated == 0 && len(p.Payload) != p.PayloadLen {
			t.Fatalf("payload of %d is %d long", p.PayloadLen, len(p.Payload))
		}
		if p.Anomalies&^(packet.BadFlags|packet.BadAddress|packet.ReservedBit) == 0 && !p.Fragment && p.Len == len(b) {
			compare(t, b, false)
		}
		p.Verify(packet.ChecksumUnverified)
		bad := p.Anomalies & (packet.BadChecksum | packet.BadIPChecksum)
		for _, build := range []func([]byte) ([]byte, bool){
			p.AppendReset, p.AppendAbort,
			func(dst []byte) ([]byte, bool) { return p.AppendUnreachable(dst, packet.AdminProhibited) },
		} {
			out, ok := build(nil)
			if !ok {
				continue
			}
			var q packet.Packet
			if err := q.Decode(out); err != nil || bad != 0 || !q.Verify(packet.ChecksumUnverified) || q.Len != len(out) || len(out) > 1280 {
				t.Fatalf("answer %x: %v, %v", out, err, q.Anomalies.Names())
			}
		}
		clone := bytes.Clone(b)
		var q packet.Packet
		q.Decode(clone)
		q.FixChecksums()
		if !q.Verify(packet.ChecksumUnverified) && q.Proto != packet.ProtoUDPLite {
			t.Fatalf("%x: %v after FixChecksums", clone, q.Anomalies.Names())
		}
		if out, err := p.AppendReplaced(nil, []byte("replaced")); err == nil {
			if err := q.Decode(out); err != nil || string(q.Payload) != "replaced" {
				t.Fatalf("replaced: %x, %v", out, err)
			}
		}
		for range 8 {
			if !p.Inner(&q) {
				break
			}
			p = q
		}
	})
}
