package nfqueue

import (
	"fmt"
	"time"
)

// attributes calls yield for each attribute of b and reports whether b is well
// formed. The type is without its flag bits.
func attributes(b []byte, yield func(typ uint16, value []byte)) bool {
	for len(b) >= attrHeader {
		typ, value, rest, ok := attribute(b)
		if !ok {
			return false
		}
		yield(typ, value)
		b = rest
	}
	return len(b) == 0
}

// attribute splits the first attribute, padding included, from b.
func attribute(b []byte) (typ uint16, value, rest []byte, ok bool) {
	if len(b) < attrHeader {
		return 0, nil, nil, false
	}
	n := int(native.Uint16(b))
	if n < attrHeader || n > len(b) {
		return 0, nil, nil, false
	}
	return native.Uint16(b[2:]) & attrTypeMask, b[attrHeader:n:n], b[min(align(n), len(b)):], true
}

// parse fills p, which must be zero, from a message of type NFQNL_MSG_PACKET
// without its netlink header. If it fails after the id was found, p.ID and
// p.Queue are valid and hasID says so.
func (p *Packet) parse(b []byte) (hasID bool, err error) {
	if len(b) < genLen {
		return false, fmt.Errorf("%w: %d bytes", ErrMalformed, len(b))
	}
	p.Family = b[0]
	p.Queue = network.Uint16(b[2:])
	b = b[genLen:]
	for len(b) > 0 {
		typ, v, rest, ok := attribute(b)
		if !ok {
			return hasID, errAttribute
		}
		b = rest
		switch typ {
		case attrPacketHdr:
			if len(v) < 7 {
				return hasID, errAttribute
			}
			p.ID = network.Uint32(v)
			p.Protocol = network.Uint16(v[4:])
			p.Hook = Hook(v[6])
			hasID = true
		case attrPayload:
			p.Payload = v
			if p.Len == 0 {
				p.Len = len(v)
			}
		case attrIn, attrOut, attrPhysIn, attrPhysOut, attrMark, attrPriority,
			attrSkbInfo, attrCapLen, attrUID, attrGID, attrCTInfo:
			if len(v) < 4 {
				return hasID, errAttribute
			}
			p.parse32(typ, network.Uint32(v))
		case attrHWAddr:
			// struct nfqnl_msg_packet_hw: be16 length, pad, 8 bytes
			if len(v) < 4 {
				return hasID, errAttribute
			}
			n := int(network.Uint16(v))
			p.HWAddr = v[4:][:min(n, len(v)-4)]
		case attrTimestamp:
			if len(v) < 16 {
				return hasID, errAttribute
			}
			p.Timestamp = time.Unix(int64(network.Uint64(v)), int64(network.Uint64(v[8:]))*1000)
		case attrCT:
			p.ct, p.hasCT = v, true
		case attrSecCtx:
			p.SecCtx = v
		case attrL2Header:
			p.L2Header = v
		case attrVLAN:
			if !p.VLAN.parse(v) {
				return hasID, errAttribute
			}
		}
	}
	if !hasID {
		return false, errNoID
	}
	return true, nil
}

// Made once: a flood of bad messages allocates nothing.
var (
	errAttribute = fmt.Errorf("%w: attribute", ErrMalformed)
	errNoID      = fmt.Errorf("%w: no packet id", ErrMalformed)
)

func (p *Packet) parse32(typ uint16, v uint32) {
	switch typ {
	case attrIn:
		p.In = v
	case attrOut:
		p.Out = v
	case attrPhysIn:
		p.PhysIn = v
	case attrPhysOut:
		p.PhysOut = v
	case attrMark:
		p.Mark = v
	case attrPriority:
		p.Priority = v
	case attrSkbInfo:
		p.Info = Info(v)
	case attrCapLen:
		p.Len = int(v)
	case attrUID:
		p.UID, p.HasOwner = v, true
	case attrGID:
		p.GID, p.HasOwner = v, true
	case attrCTInfo:
		p.ctInfo = v
	}
}

func (t *VLAN) parse(b []byte) bool {
	ok := true
	return attributes(b, func(typ uint16, v []byte) {
		if len(v) < 2 {
			ok = false
			return
		}
		switch typ {
		case attrVLANProto:
			t.Protocol = network.Uint16(v)
		case attrVLANTCI:
			t.TCI = network.Uint16(v)
		}
	}) && ok
}

// parseError reads the body of an NLMSG_ERROR: the negated errno, and the
// type of the message it is about.
func parseError(b []byte) (errno uint32, typ uint16, ok bool) {
	if len(b) < 4+headerLen {
		return 0, 0, false
	}
	return -native.Uint32(b), native.Uint16(b[8:]), true
}
