package nfqueue

import "net/netip"

// Attributes of <linux/netfilter/nfnetlink_conntrack.h>.
const (
	ctTupleOrig  = 1
	ctTupleReply = 2
	ctStatus     = 3
	ctTimeout    = 7
	ctMark       = 8
	ctID         = 12
	ctZone       = 18
	ctMarkMask   = 21

	ctTupleIP    = 1
	ctTupleProto = 2

	ctIPv4Src = 1
	ctIPv4Dst = 2
	ctIPv6Src = 3
	ctIPv6Dst = 4

	ctProtoNum   = 1
	ctSrcPort    = 2
	ctDstPort    = 3
	ctICMPID     = 4
	ctICMPType   = 5
	ctICMPCode   = 6
	ctICMPv6ID   = 7
	ctICMPv6Type = 8
	ctICMPv6Code = 9
)

// Conntrack is the connection a packet belongs to.
type Conntrack struct {
	ID       uint32
	Mark     uint32
	Status   uint32 // IPS_ bits of nf_conntrack_common.h: 1<<1 seen reply, 1<<2 assured, 1<<3 confirmed …
	Timeout  uint32 // seconds until it is forgotten; 0 for one not confirmed yet
	Zone     uint16
	State    CTState
	Original Tuple
	Reply    Tuple
}

// CTState is what a packet is to its connection, enum ip_conntrack_info.
type CTState uint8

// The states. Those of replies are CTReply more.
const (
	CTEstablished CTState = iota
	CTRelated
	CTNew
	CTReply
)

// Tuple is one direction of a connection.
type Tuple struct {
	Src, Dst         netip.Addr
	Proto            uint8
	SrcPort, DstPort uint16

	// Of ICMP and ICMPv6.
	ICMPID             uint16
	ICMPType, ICMPCode uint8
}

// Conntrack decodes the packet's connection; false if the kernel showed none:
// Config.Conntrack is not set, the packet is untracked, or what was shown is
// malformed. It allocates nothing.
func (p *Packet) Conntrack() (ct Conntrack, ok bool) {
	if !p.hasCT {
		return ct, false
	}
	ct.State = CTState(p.ctInfo)
	ok = true
	wellFormed := attributes(p.ct, func(typ uint16, v []byte) {
		switch typ {
		case ctTupleOrig:
			ok = ct.Original.parse(v) && ok
		case ctTupleReply:
			ok = ct.Reply.parse(v) && ok
		case ctStatus:
			ok = get32(v, &ct.Status) && ok
		case ctTimeout:
			ok = get32(v, &ct.Timeout) && ok
		case ctMark:
			ok = get32(v, &ct.Mark) && ok
		case ctID:
			ok = get32(v, &ct.ID) && ok
		case ctZone:
			ok = get16(v, &ct.Zone) && ok
		}
	})
	if !wellFormed || !ok {
		return Conntrack{}, false
	}
	return ct, true
}

func (t *Tuple) parse(b []byte) bool {
	ok := true
	return attributes(b, func(typ uint16, v []byte) {
		switch typ {
		case ctTupleIP:
			ok = t.parseIP(v) && ok
		case ctTupleProto:
			ok = t.parseProto(v) && ok
		}
	}) && ok
}

func (t *Tuple) parseIP(b []byte) bool {
	ok := true
	return attributes(b, func(typ uint16, v []byte) {
		a, is := netip.AddrFromSlice(v)
		switch typ {
		case ctIPv4Src, ctIPv6Src:
			t.Src = a
		case ctIPv4Dst, ctIPv6Dst:
			t.Dst = a
		default:
			return
		}
		ok = ok && is
	}) && ok
}

func (t *Tuple) parseProto(b []byte) bool {
	ok := true
	return attributes(b, func(typ uint16, v []byte) {
		switch typ {
		case ctProtoNum:
			ok = get8(v, &t.Proto) && ok
		case ctSrcPort:
			ok = get16(v, &t.SrcPort) && ok
		case ctDstPort:
			ok = get16(v, &t.DstPort) && ok
		case ctICMPID, ctICMPv6ID:
			ok = get16(v, &t.ICMPID) && ok
		case ctICMPType, ctICMPv6Type:
			ok = get8(v, &t.ICMPType) && ok
		case ctICMPCode, ctICMPv6Code:
			ok = get8(v, &t.ICMPCode) && ok
		}
	}) && ok
}

func get8(b []byte, v *uint8) bool {
	if len(b) < 1 {
		return false
	}
	*v = b[0]
	return true
}

func get16(b []byte, v *uint16) bool {
	if len(b) < 2 {
		return false
	}
	*v = network.Uint16(b)
	return true
}

func get32(b []byte, v *uint32) bool {
	if len(b) < 4 {
		return false
	}
	*v = network.Uint32(b)
	return true
}
