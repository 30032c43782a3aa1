package packet

import (
	"encoding/binary"
	"net/netip"
)

const (
	ipv4HeaderLen = 20
	ipv6HeaderLen = 40

	// maxExtensions bounds the walk over IPv6 extension headers. RFC 8200 has each
	// occur at most once, destination options twice: eight kinds in all.
	maxExtensions = 16
)

// IPv6 extension headers by their next-header numbers.
const (
	extHopByHop    = 0
	extRouting     = 43
	extFragment    = 44
	extESP         = 50
	extAH          = 51
	extNone        = 59
	extDestination = 60
	extMobility    = 135
	extHIP         = 139
	extShim6       = 140
)

func (p *Packet) decodeIPv4() bool {
	b := p.Data
	if len(b) < ipv4HeaderLen {
		return false
	}
	p.Version = 4
	p.TOS, p.TTL, p.Proto = b[1], b[8], b[9]
	p.ID = uint32(binary.BigEndian.Uint16(b[4:]))
	p.Src = netip.AddrFrom4([4]byte(b[12:16]))
	p.Dst = netip.AddrFrom4([4]byte(b[16:20]))
	if b[12] >= 224 && (b[12] < 240 || [4]byte(b[12:16]) == [4]byte{255, 255, 255, 255}) {
		p.Anomalies |= BadAddress
	}

	// BIG TCP packets that were not cut yet have a total length of 0 (Linux 6.3,
	// commit b1a78b9b9886): iph_totlen() then takes the length of the buffer.
	total := int(binary.BigEndian.Uint16(b[2:]))
	if total == 0 && len(b) > 0xffff {
		total = len(b)
	}
	header := int(b[0]&15) * 4
	if header < ipv4HeaderLen || header > len(b) || header > total {
		p.Anomalies |= BadHeaderLen
		header = min(max(header, ipv4HeaderLen), len(b))
	}
	if total < header {
		p.Anomalies |= BadLen
		total = len(b)
	}
	p.Len, p.Transport = total, header
	if total > len(b) {
		p.Anomalies |= Truncated
	} else {
		b = b[:total]
	}
	if header > ipv4HeaderLen {
		p.ipv4Options(b[ipv4HeaderLen:header])
	}

	frag := binary.BigEndian.Uint16(b[6:])
	if frag != 0 {
		p.DontFragment = frag&0x4000 != 0
		if frag&0x8000 != 0 {
			p.Anomalies |= ReservedBit
		}
		p.setFragment(frag<<3, frag&0x2000 != 0)
	}
	if p.Proto == extAH && p.FragmentOffset == 0 {
		// The authentication header covers, but does not hide, what follows it.
		p.extensions(b, extAH, header)
	}
	p.decodeTransport(b)
	return true
}

func (p *Packet) ipv4Options(b []byte) {
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
		switch kind {
		case 131, 137:
			p.Options |= SourceRoute
		case 7:
			p.Options |= RecordRoute
		case 68:
			p.Options |= Timestamp
		case 148:
			p.Options |= RouterAlert
		default:
			p.Options |= OtherOption
		}
		b = b[b[1]:]
	}
}

func (p *Packet) decodeIPv6() bool {
	b := p.Data
	if len(b) < ipv6HeaderLen {
		return false
	}
	p.Version = 6
	first := binary.BigEndian.Uint32(b)
	p.TOS, p.FlowLabel = uint8(first>>20), first&0xfffff
	p.TTL = b[7]
	p.Src = netip.AddrFrom16([16]byte(b[8:24]))
	p.Dst = netip.AddrFrom16([16]byte(b[24:40]))
	if b[8] == 0xff {
		p.Anomalies |= BadAddress
	}

	payload := int(binary.BigEndian.Uint16(b[4:]))
	total := ipv6HeaderLen + payload
	switch {
	case payload == 0 && len(b) > ipv6HeaderLen+0xffff:
		// A BIG TCP packet that was not cut yet, with the jumbo option (Linux 5.19,
		// commit 0fe79f28bfaf) or without.
		total = len(b)
	case payload == 0 && len(b) > ipv6HeaderLen && b[6] == extHopByHop:
		// A jumbogram of which only the beginning was copied.
		if n, ok := jumboLen(b[ipv6HeaderLen:]); ok {
			total = ipv6HeaderLen + n
		}
	}
	p.Len = total
	if total > len(b) {
		p.Anomalies |= Truncated
	} else {
		b = b[:total]
	}
	switch b[6] {
	case ProtoTCP, ProtoUDP, ProtoICMPv6:
		p.Proto, p.Transport = b[6], ipv6HeaderLen
	default:
		p.extensions(b, b[6], ipv6HeaderLen)
	}
	p.decodeTransport(b)
	return true
}

// jumboLen finds the jumbo payload option in a hop-by-hop header (RFC 2675).
func jumboLen(b []byte) (int, bool) {
	if len(b) >= 8 && b[2] == 0xc2 && b[3] == 4 {
		n := binary.BigEndian.Uint32(b[4:])
		return int(n), n > 0xffff && n < 1<<31
	}
	return 0, false
}

// extensions walks the extension headers that begin at b[off] with the given kind
// and sets p.Proto and p.Transport to what follows them.
func (p *Packet) extensions(b []byte, kind uint8, off int) {
	for n := 0; ; n++ {
		p.Proto, p.Transport = kind, off
		var seen Option
		switch kind {
		case extHopByHop:
			seen = HopByHop
		case extDestination:
			seen = DestinationOptions
		case extRouting:
			seen = Routing
		case extFragment:
			seen = FragmentHeader
		case extAH:
			seen = Authentication
		case extMobility:
			seen = Mobility
		case extHIP, extShim6:
			seen = OtherHeader
		default:
			return
		}
		p.Options |= seen
		if n == maxExtensions {
			p.Anomalies |= TooManyHeaders
			return
		}
		if len(b)-off < 8 {
			if p.Anomalies&Truncated == 0 {
				p.Anomalies |= BadHeaderLen
			}
			p.Anomalies |= NoTransport
			return
		}
		h := b[off:]
		size := 8 + 8*int(h[1])
		switch kind {
		case extFragment:
			size = 8
		case extAH:
			size = 8 + 4*int(h[1])
			if size < 12 {
				p.Anomalies |= BadHeaderLen
			}
		case extHopByHop:
			if h[2] == 5 && h[3] == 2 {
				p.Options |= RouterAlert
			}
			if h[2] == 0xc2 && h[3] == 4 {
				p.Options |= Jumbo
			}
		}
		if size > len(h) {
			if p.Anomalies&Truncated == 0 {
				p.Anomalies |= BadHeaderLen
			}
			p.Anomalies |= NoTransport
			return
		}
		kind, off = h[0], off+size
		if seen == FragmentHeader {
			frag := binary.BigEndian.Uint16(h[2:])
			p.ID = binary.BigEndian.Uint32(h[4:])
			p.setFragment(frag&^7, frag&1 != 0)
			if p.FragmentOffset != 0 {
				// What follows is a piece out of the middle of the datagram.
				p.Proto, p.Transport = kind, off
				return
			}
		}
	}
}

// setFragment takes the offset in bytes. An IPv6 "atomic" fragment (offset 0, none
// to follow) is a whole packet (RFC 6946).
func (p *Packet) setFragment(offset uint16, more bool) {
	p.FragmentOffset, p.MoreFragments = offset, more
	p.Fragment = offset != 0 || more
}
