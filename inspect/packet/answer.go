package packet

import "encoding/binary"

// answerTTL is the hop limit of what is built here.
const answerTTL = 64

// AppendReset appends to dst the TCP RST that refuses p, from p's destination to its
// source. Its numbers are those of RFC 9293, 3.10.7.1, as Linux's nf_send_reset()
// has them: if p carries an acknowledgement, the RST takes it as its sequence
// number; else it acknowledges all that p carries.
//
// ok is false, and dst as it was, where nothing may be answered: to what is not TCP,
// to an RST, to a later fragment, to multicast and broadcast, and to a segment that
// Verify found to have a bad checksum.
func (p *Packet) AppendReset(dst []byte) (out []byte, ok bool) {
	if !p.resettable() {
		return dst, false
	}
	var seq, ack uint32
	flags := RST
	if p.TCP.Flags&ACK != 0 {
		seq = p.TCP.Ack
	} else {
		flags |= ACK
		ack = p.TCP.Seq + uint32(p.PayloadLen)
		if p.TCP.Flags&SYN != 0 {
			ack++
		}
		if p.TCP.Flags&FIN != 0 {
			ack++
		}
	}
	return p.appendRST(dst, true, seq, ack, flags), true
}

// AppendAbort appends to dst a TCP RST from p's source to its destination, with the
// sequence number of p: the destination, which never sees p, ends the connection as
// if its peer had aborted it. ok is false where AppendReset's is, and for a SYN,
// which nobody has heard of yet.
func (p *Packet) AppendAbort(dst []byte) (out []byte, ok bool) {
	if !p.resettable() || p.TCP.Flags&(SYN|ACK) == SYN {
		return dst, false
	}
	return p.appendRST(dst, false, p.TCP.Seq, p.TCP.Ack, RST|p.TCP.Flags&ACK), true
}

func (p *Packet) resettable() bool {
	return p.Proto == ProtoTCP && p.HasTransport && p.FragmentOffset == 0 && p.TCP.Flags&RST == 0 &&
		p.Anomalies&(BadChecksum|BadIPChecksum|BadHeaderLen) == 0 && unicast(p.Src) && unicast(p.Dst)
}

func (p *Packet) appendRST(dst []byte, back bool, seq, ack uint32, flags Flags) []byte {
	dst, b, t := p.appendIP(dst, back, ProtoTCP, 20)
	src, to := p.SrcPort, p.DstPort
	if back {
		src, to = to, src
	}
	binary.BigEndian.PutUint16(t[0:], src)
	binary.BigEndian.PutUint16(t[2:], to)
	binary.BigEndian.PutUint32(t[4:], seq)
	binary.BigEndian.PutUint32(t[8:], ack)
	binary.BigEndian.PutUint16(t[12:], 5<<12|uint16(flags))
	finish(b, 16)
	return dst
}

// Unreachable is why a packet is answered with "destination unreachable".
type Unreachable uint8

const (
	// PortUnreachable: nobody listens there. What REJECT answers by default.
	PortUnreachable Unreachable = iota
	// AdminProhibited: forbidden by who runs the network.
	AdminProhibited
	// HostUnreachable: there is no such machine.
	HostUnreachable
	// NetUnreachable: there is no way to that network.
	NetUnreachable
)

// code returns the ICMP code, of type 3 in IPv4 and type 1 in IPv6.
func (u Unreachable) code(version uint8) uint8 {
	codes := [...][2]uint8{PortUnreachable: {3, 4}, AdminProhibited: {13, 1}, HostUnreachable: {1, 3}, NetUnreachable: {0, 0}}
	if int(u) >= len(codes) {
		u = PortUnreachable
	}
	if version == 4 {
		return codes[u][0]
	}
	return codes[u][1]
}

const (
	icmpv4Max = 576  // RFC 1812, 4.3.2.3
	icmpv6Max = 1280 // RFC 4443, 2.4 (c): the least MTU
)

// AppendUnreachable appends to dst the ICMP or ICMPv6 error that refuses p, from p's
// destination to its source; it quotes as much of p as the error may hold.
//
// ok is false, and dst as it was, where RFC 1122, 3.2.2 and RFC 4443, 2.4 (e) forbid
// an error: about an ICMP error or redirect, a later fragment, a packet to multicast
// or broadcast, and one whose source is not a single host; and about a packet that
// Verify found to have a bad checksum.
func (p *Packet) AppendUnreachable(dst []byte, why Unreachable) (out []byte, ok bool) {
	switch {
	case p.Version == 0, p.FragmentOffset != 0, p.Anomalies&(BadChecksum|BadIPChecksum) != 0,
		!unicast(p.Src), !unicast(p.Dst), p.Proto == extNone:
		return dst, false
	case p.Proto == ProtoICMP && (!p.HasTransport || ICMPv4Error(p.ICMP.Type) || p.ICMP.Type > 18):
		return dst, false
	case p.Proto == ProtoICMPv6 && (!p.HasTransport || p.ICMP.Type < 128 || p.ICMP.Type == 137):
		return dst, false
	}
	quote := p.Data[:min(p.Len, len(p.Data))]
	if p.Version == 4 {
		quote = quote[:min(len(quote), icmpv4Max-ipv4HeaderLen-8)]
		dst, b, t := p.appendIP(dst, true, ProtoICMP, 8+len(quote))
		b[1] = 0xc0 // internetwork control, as RFC 1812, 4.3.2.5 asks
		t[0], t[1] = 3, why.code(4)
		copy(t[8:], quote)
		finish(b, 2)
		return dst, true
	}
	quote = quote[:min(len(quote), icmpv6Max-ipv6HeaderLen-8)]
	dst, b, t := p.appendIP(dst, true, ProtoICMPv6, 8+len(quote))
	t[0], t[1] = 1, why.code(6)
	copy(t[8:], quote)
	finish(b, 2)
	return dst, true
}

// appendIP appends an IP header of p's version and n zero bytes for what it
// carries; b is the whole packet and t what follows the header.
func (p *Packet) appendIP(dst []byte, back bool, proto uint8, n int) (out, b, t []byte) {
	start := len(dst)
	header := ipv4HeaderLen
	if p.Version == 6 {
		header = ipv6HeaderLen
	}
	dst = grow(dst, header+n)
	b = dst[start:]
	if p.Version == 4 {
		b[0] = 4<<4 | ipv4HeaderLen/4
		binary.BigEndian.PutUint16(b[2:], uint16(header+n))
		b[6] = 0x40 // not to be fragmented, so that no identification is needed (RFC 6864)
		b[8], b[9] = answerTTL, proto
		src, to := p.Data[12:16], p.Data[16:20]
		if back {
			src, to = to, src
		}
		copy(b[12:], src)
		copy(b[16:], to)
		return dst, b, b[header:]
	}
	b[0] = 6 << 4
	binary.BigEndian.PutUint16(b[4:], uint16(n))
	b[6], b[7] = proto, answerTTL
	src, to := p.Data[8:24], p.Data[24:40]
	if back {
		src, to = to, src
	}
	copy(b[8:], src)
	copy(b[24:], to)
	return dst, b, b[header:]
}

// grow appends n zero bytes.
func grow(dst []byte, n int) []byte {
	if cap(dst)-len(dst) >= n {
		dst = dst[:len(dst)+n]
		clear(dst[len(dst)-n:])
		return dst
	}
	return append(dst, make([]byte, n)...)
}

// finish fills in the checksums of a packet built by appendIP, whose transport has
// its own at off.
func finish(b []byte, off int) {
	if b[0]>>4 == 4 {
		put(b[:ipv4HeaderLen], 10, 0)
		t := b[ipv4HeaderLen:]
		initial := uint64(0)
		if b[9] != ProtoICMP {
			initial = sum(b[12:20], uint64(b[9])+uint64(len(t)))
		}
		put(t, off, initial)
		return
	}
	t := b[ipv6HeaderLen:]
	put(t, off, sum(b[8:40], uint64(b[6])+uint64(len(t))))
}
