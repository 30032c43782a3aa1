package inspect

import (
	"encoding/binary"

	"inquest/inspect/packet"
)

// Link types of captures (LINKTYPE_ values of libpcap).
const (
	linkNull      = 0
	linkEthernet  = 1
	linkRawBSD    = 12
	linkRawOpen   = 14
	linkRaw       = 101
	linkLoop      = 108
	linkLinuxSLL  = 113
	linkIPv4      = 228
	linkIPv6      = 229
	linkNFLog     = 239
	linkLinuxSLL2 = 276
)

// linkTypes names those that can be read.
var linkTypes = map[int]string{
	linkNull: "null", linkEthernet: "Ethernet", linkRawBSD: "raw", linkRawOpen: "raw", linkRaw: "raw", linkLoop: "loopback",
	linkLinuxSLL: "Linux cooked", linkIPv4: "raw IPv4", linkIPv6: "raw IPv6", linkNFLog: "nflog", linkLinuxSLL2: "Linux cooked v2",
}

// networkHeader returns a captured frame from its network header on, or nil when it
// carries no IP.
func networkHeader(link int, frame []byte) []byte {
	var kind uint16
	b := frame
	switch link {
	case linkEthernet:
		kind, b = packet.Ethernet(frame)
	case linkLinuxSLL:
		if len(b) < 16 {
			return nil
		}
		kind, b = packet.VLAN(binary.BigEndian.Uint16(b[14:]), b[16:])
	case linkLinuxSLL2:
		if len(b) < 20 {
			return nil
		}
		kind, b = packet.VLAN(binary.BigEndian.Uint16(b), b[20:])
	case linkNull, linkLoop:
		// An address family, whose number for IPv6 differs by system; the packet's own
		// version is as good.
		if len(b) < 4 {
			return nil
		}
		b = b[4:]
	case linkNFLog:
		b = nflogPayload(b)
	}
	if len(b) == 0 {
		return nil
	}
	version := b[0] >> 4
	switch {
	case kind == packet.EtherIPv4, kind == packet.EtherIPv6, kind == 0 && (version == 4 || version == 6):
		return b
	}
	return nil
}

// nflogPayload finds the packet among the attributes of nfnetlink_log: 4 bytes of
// header, then length and type, in the capturing machine's byte order, and value.
func nflogPayload(b []byte) []byte {
	const payload = 9 // NFULA_PAYLOAD
	if len(b) < 4 || b[1] != 0 {
		return nil
	}
	order := binary.ByteOrder(binary.LittleEndian)
	if len(b) >= 8 && b[4] == 0 { // no attribute is 256 bytes or longer but the last
		order = binary.BigEndian
	}
	for b = b[4:]; len(b) >= 4; {
		size := int(order.Uint16(b))
		if size < 4 || size > len(b) {
			return nil
		}
		if order.Uint16(b[2:]) == payload {
			return b[4:size]
		}
		b = b[min((size+3)&^3, len(b)):]
	}
	return nil
}
