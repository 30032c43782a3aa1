package flow

import (
	"bytes"
	"encoding/binary"
	"net/netip"

	"inquest/inspect/packet"
)

// Key says whose packets belong together: both directions of a flow have the same.
// It is the lower endpoint, the higher one, and the protocol; IPv4 and IPv6 never
// meet in one key.
//
//	 0  lower address   16 bytes, an IPv4 address in the first four
//	16  higher address  16
//	32  lower port       2
//	34  higher port      2
//	36  protocol         1
//	37  IP version       1
//	38  zero             2
type Key [40]byte

// Dir is the direction of a packet within its flow.
type Dir uint8

const (
	// Original is the direction of the packet that began the flow.
	Original Dir = iota
	// Reply is the other.
	Reply
)

func (d Dir) String() string {
	if d == Original {
		return "original"
	}
	return "reply"
}

// KeyOf returns the key of the flow that p belongs to; swapped tells that p's source
// is the higher endpoint. ok is false for a packet that belongs to no flow: a
// fragment other than the first, one that ends before its ports, and all ICMP but
// echo and its reply, which are a flow by their identifier.
func KeyOf(p *packet.Packet) (k Key, swapped, ok bool) {
	sport, dport := p.SrcPort, p.DstPort
	switch p.Proto {
	case packet.ProtoTCP, packet.ProtoUDP, packet.ProtoSCTP, packet.ProtoUDPLite:
		if !p.HasTransport {
			return k, false, false
		}
	case packet.ProtoICMP:
		if !p.HasTransport || p.ICMP.Type != 0 && p.ICMP.Type != 8 {
			return k, false, false
		}
		sport, dport = p.ICMP.ID, p.ICMP.ID
	case packet.ProtoICMPv6:
		if !p.HasTransport || p.ICMP.Type != 128 && p.ICMP.Type != 129 {
			return k, false, false
		}
		sport, dport = p.ICMP.ID, p.ICMP.ID
	default:
		if p.Version == 0 || p.FragmentOffset != 0 || p.Anomalies&(packet.NoTransport|packet.TooManyHeaders) != 0 {
			return k, false, false
		}
	}
	if p.Version == 4 {
		// The order need only be the same for both directions; integers compare
		// faster than bytes.
		src, dst := binary.NativeEndian.Uint32(p.Data[12:]), binary.NativeEndian.Uint32(p.Data[16:])
		if src > dst || src == dst && sport > dport {
			swapped = true
			src, dst, sport, dport = dst, src, dport, sport
		}
		binary.NativeEndian.PutUint32(k[0:], src)
		binary.NativeEndian.PutUint32(k[16:], dst)
	} else {
		src, dst := p.Data[8:24], p.Data[24:40]
		if c := bytes.Compare(src, dst); c > 0 || c == 0 && sport > dport {
			swapped = true
			src, dst, sport, dport = dst, src, dport, sport
		}
		copy(k[0:], src)
		copy(k[16:], dst)
	}
	binary.BigEndian.PutUint16(k[32:], sport)
	binary.BigEndian.PutUint16(k[34:], dport)
	k[36], k[37] = p.Proto, p.Version
	return k, swapped, true
}

// Proto returns the transport protocol.
func (k *Key) Proto() uint8 { return k[36] }

// Version returns 4 or 6.
func (k *Key) Version() uint8 { return k[37] }

// tuple returns the key as a packet's tuple, from the lower endpoint to the higher.
func (k *Key) tuple() packet.Tuple {
	t := packet.Tuple{SrcPort: binary.BigEndian.Uint16(k[32:]), DstPort: binary.BigEndian.Uint16(k[34:]), Proto: k[36]}
	if k[37] == 4 {
		t.Src, t.Dst = netip.AddrFrom4([4]byte(k[0:4])), netip.AddrFrom4([4]byte(k[16:20]))
	} else {
		t.Src, t.Dst = netip.AddrFrom16([16]byte(k[0:16])), netip.AddrFrom16([16]byte(k[16:32]))
	}
	return t
}
