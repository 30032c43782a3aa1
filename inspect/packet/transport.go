package packet

import (
	"encoding/binary"
	"net/netip"
)

// decodeTransport reads what follows the IP headers at p.Transport in b, which is
// cut to the packet's length.
func (p *Packet) decodeTransport(b []byte) {
	off := p.Transport
	t := b[off:]
	claimed := p.Len - off
	p.Payload, p.PayloadLen = t, claimed
	if p.Fragment {
		p.checkFragment(claimed)
		if p.FragmentOffset != 0 {
			return
		}
	}
	if p.Anomalies&(NoTransport|TooManyHeaders) != 0 {
		return
	}
	need := 0
	switch p.Proto {
	case ProtoTCP:
		need = 20
		if len(t) >= need {
			p.decodeTCP(t)
			return
		}
	case ProtoUDP, ProtoUDPLite:
		need = 8
		if len(t) >= need {
			p.decodeUDP(t)
			return
		}
	case ProtoICMP, ProtoICMPv6:
		need = 4
		if len(t) >= need {
			p.decodeICMP(t)
			return
		}
	case ProtoSCTP:
		need = 12
		if len(t) >= need {
			p.decodeSCTP(t)
			return
		}
	default:
		return
	}
	p.Anomalies |= NoTransport
	if p.Fragment {
		p.Anomalies |= BadFragment
	}
}

func (p *Packet) checkFragment(size int) {
	end := int(p.FragmentOffset) + size
	if p.Version == 4 {
		end += p.Transport
	}
	if size == 0 || end > 0xffff || p.MoreFragments && size%8 != 0 {
		p.Anomalies |= BadFragment
	}
}

func (p *Packet) decodeTCP(b []byte) {
	p.HasTransport = true
	p.SrcPort = binary.BigEndian.Uint16(b[0:])
	p.DstPort = binary.BigEndian.Uint16(b[2:])
	t := &p.TCP
	t.Seq = binary.BigEndian.Uint32(b[4:])
	t.Ack = binary.BigEndian.Uint32(b[8:])
	word := binary.BigEndian.Uint16(b[12:])
	t.Flags = Flags(word & 0x1ff)
	t.Window = binary.BigEndian.Uint16(b[14:])
	t.Checksum = binary.BigEndian.Uint16(b[16:])
	t.Urgent = binary.BigEndian.Uint16(b[18:])
	switch f := t.Flags & (FIN | SYN | RST | ACK); f {
	case 0, FIN, SYN | FIN, SYN | RST, SYN | FIN | ACK, SYN | RST | ACK, SYN | FIN | RST, SYN | FIN | RST | ACK:
		p.Anomalies |= BadFlags
	}
	header := int(word>>12) * 4
	if header < 20 || header > p.PayloadLen {
		p.Anomalies |= BadHeaderLen
		header = 20
	}
	t.HeaderLen = uint8(header)
	p.PayloadLen -= header
	if header > len(b) { // cut in the middle of its options
		p.Payload = b[len(b):]
		return
	}
	p.Payload = b[header:]
	if header > 20 {
		p.tcpOptions(b[20:header])
	}
}

func (p *Packet) tcpOptions(b []byte) {
	t := &p.TCP
	// Nearly every segment of a running connection carries just this (RFC 7323,
	// appendix A).
	if len(b) == 12 && b[0] == 1 && b[1] == 1 && b[2] == 8 && b[3] == 10 {
		t.Options |= Timestamps
		t.TSVal = binary.BigEndian.Uint32(b[4:])
		t.TSEcr = binary.BigEndian.Uint32(b[8:])
		return
	}
	for len(b) > 0 {
		kind := b[0]
		if kind == 0 {
			return
		}
		if kind == 1 {
			b = b[1:]
			continue
		}
		if len(b) < 2 || b[1] < 2 || int(b[1]) > len(b) {
			p.Anomalies |= BadOptions
			return
		}
		o := b[2:b[1]]
		ok := true
		switch kind {
		case 2:
			if ok = len(o) == 2; ok {
				t.Options |= MSS
				t.MSS = binary.BigEndian.Uint16(o)
			}
		case 3:
			if ok = len(o) == 1; ok {
				t.Options |= WindowScale
				t.WindowScale = min(o[0], 14) // RFC 7323, 2.3: larger ones count as 14
			}
		case 4:
			t.Options |= SACKPermitted
		case 5:
			t.Options |= SACK
			ok = len(o) > 0 && len(o)%8 == 0
		case 8:
			if ok = len(o) == 8; ok {
				t.Options |= Timestamps
				t.TSVal = binary.BigEndian.Uint32(o)
				t.TSEcr = binary.BigEndian.Uint32(o[4:])
			}
		case 19:
			t.Options |= MD5
		case 29:
			t.Options |= AuthenticationOption
		case 30:
			t.Options |= Multipath
		case 34:
			t.Options |= FastOpen
		default:
			t.Options |= OtherTCPOption
		}
		if !ok {
			p.Anomalies |= BadOptions
		}
		b = b[b[1]:]
	}
}

func (p *Packet) decodeUDP(b []byte) {
	p.HasTransport = true
	p.SrcPort = binary.BigEndian.Uint16(b[0:])
	p.DstPort = binary.BigEndian.Uint16(b[2:])
	size := int(binary.BigEndian.Uint16(b[4:]))
	switch {
	case p.Proto == ProtoUDPLite:
		// The field is the checksum's coverage; the payload fills the IP packet.
		if size != 0 && size < 8 || size > p.PayloadLen {
			p.Anomalies |= BadLen
		}
		size = p.PayloadLen
	case size == 0 && p.PayloadLen > 0xffff:
		size = p.PayloadLen // RFC 2675, 4: a jumbogram
	case p.Fragment:
		// The length is that of the whole datagram.
		if size < 8 {
			p.Anomalies |= BadLen
		}
		size = p.PayloadLen
	case size < 8 || size > p.PayloadLen:
		p.Anomalies |= BadLen
		size = p.PayloadLen
	}
	p.PayloadLen = size - 8
	p.Payload = b[8:min(size, len(b))]
}

func (p *Packet) decodeSCTP(b []byte) {
	p.HasTransport = true
	p.SrcPort = binary.BigEndian.Uint16(b[0:])
	p.DstPort = binary.BigEndian.Uint16(b[2:])
	p.SCTP.Tag = binary.BigEndian.Uint32(b[4:])
	p.Payload = b[12:]
	p.PayloadLen -= 12
	if len(p.Payload) >= 4 {
		p.SCTP.Chunk, p.SCTP.HasChunk = p.Payload[0], true
	}
}

func (p *Packet) decodeICMP(b []byte) {
	p.HasTransport = true
	p.ICMP.Type, p.ICMP.Code = b[0], b[1]
	header := min(8, len(b))
	p.Payload = b[header:]
	p.PayloadLen -= min(8, p.PayloadLen)
	if header < 8 {
		p.Anomalies |= NoTransport
		return
	}
	switch {
	case p.Proto == ProtoICMP && (b[0] == 8 || b[0] == 0), p.Proto == ProtoICMPv6 && (b[0] == 128 || b[0] == 129):
		p.ICMP.ID = binary.BigEndian.Uint16(b[4:])
		p.ICMP.Seq = binary.BigEndian.Uint16(b[6:])
	case p.Proto == ProtoICMP && ICMPv4Error(b[0]), p.Proto == ProtoICMPv6 && b[0] < 128:
		p.ICMP.Error = true
		if !p.Fragment {
			p.ICMP.Inner = quoted(p.Payload)
		}
	}
}

// ICMPv4Error tells whether an ICMPv4 type reports an error (and so quotes the
// packet it reports). In ICMPv6 all types under 128 do.
func ICMPv4Error(kind uint8) bool {
	switch kind {
	case 3, 4, 5, 11, 12:
		return true
	}
	return false
}

// quoted reads who sent the packet that an ICMP error quotes. The quote is short:
// eight bytes of the transport are all that IPv4 promises.
func quoted(b []byte) (t Tuple) {
	var off int
	later := false // a fragment other than the first
	switch {
	case len(b) >= ipv4HeaderLen && b[0]>>4 == 4:
		t.Src = netip.AddrFrom4([4]byte(b[12:16]))
		t.Dst = netip.AddrFrom4([4]byte(b[16:20]))
		t.Proto = b[9]
		off = max(int(b[0]&15)*4, ipv4HeaderLen)
		later = binary.BigEndian.Uint16(b[6:])&0x1fff != 0
	case len(b) >= ipv6HeaderLen && b[0]>>4 == 6:
		t.Src = netip.AddrFrom16([16]byte(b[8:24]))
		t.Dst = netip.AddrFrom16([16]byte(b[24:40]))
		var p Packet
		p.extensions(b, b[6], ipv6HeaderLen)
		t.Proto, off = p.Proto, p.Transport
		later = p.FragmentOffset != 0
	default:
		return Tuple{}
	}
	if later || len(b)-off < 4 {
		return t
	}
	switch t.Proto {
	case ProtoTCP, ProtoUDP, ProtoUDPLite, ProtoSCTP:
		t.SrcPort = binary.BigEndian.Uint16(b[off:])
		t.DstPort = binary.BigEndian.Uint16(b[off+2:])
	}
	return t
}
