package packet

import "encoding/binary"

// EtherTypes of what a frame may carry.
const (
	EtherIPv4 = 0x0800
	EtherIPv6 = 0x86dd

	etherVLAN    = 0x8100
	etherQinQ    = 0x88a8
	etherQinQOld = 0x9100
	etherBridged = 0x6558 // Ethernet inside GRE or Geneve
)

const (
	portVXLAN      = 4789
	portVXLANLinux = 8472 // Linux's own default, older than the assigned one
	portGeneve     = 6081

	maxVLANTags = 4
)

// Inner decodes the packet that p carries through a tunnel (IP in IP, IPv6 in IPv4,
// GRE, VXLAN, Geneve) into in, and tells whether there is one. A tunnel inside the
// tunnel is seen by asking in. The payloads of fragments are not looked into.
func (p *Packet) Inner(in *Packet) bool {
	if p.Fragment || p.Version == 0 {
		return false
	}
	var kind uint16
	var b []byte
	switch {
	case p.Proto == ProtoIPIP:
		kind, b = EtherIPv4, p.Payload
	case p.Proto == ProtoIPv6:
		kind, b = EtherIPv6, p.Payload
	case p.Proto == ProtoGRE:
		kind, b = gre(p.Payload)
	case p.Proto == ProtoUDP && (p.DstPort == portVXLAN || p.DstPort == portVXLANLinux):
		if len(p.Payload) < 8 || p.Payload[0]&0x08 == 0 {
			return false
		}
		kind, b = etherBridged, p.Payload[8:]
	case p.Proto == ProtoUDP && p.DstPort == portGeneve:
		kind, b = geneve(p.Payload)
	}
	if kind == etherBridged {
		kind, b = Ethernet(b)
	}
	switch {
	case kind == EtherIPv4 && len(b) > 0 && b[0]>>4 == 4, kind == EtherIPv6 && len(b) > 0 && b[0]>>4 == 6:
		return in.Decode(b) == nil
	}
	return false
}

// Ethernet returns the EtherType and payload of an Ethernet frame, VLAN tags
// stripped; nil for a frame that is too short.
func Ethernet(frame []byte) (etherType uint16, payload []byte) {
	if len(frame) < 14 {
		return 0, nil
	}
	return VLAN(binary.BigEndian.Uint16(frame[12:]), frame[14:])
}

// VLAN strips the VLAN tags that follow an EtherType, four at most.
func VLAN(etherType uint16, b []byte) (uint16, []byte) {
	for range maxVLANTags {
		if etherType != etherVLAN && etherType != etherQinQ && etherType != etherQinQOld {
			break
		}
		if len(b) < 4 {
			return 0, nil
		}
		etherType, b = binary.BigEndian.Uint16(b[2:]), b[4:]
	}
	return etherType, b
}

// gre reads a GRE header (RFC 2784, 2890). PPTP's version 1 carries PPP, which is
// not looked into.
func gre(b []byte) (kind uint16, payload []byte) {
	if len(b) < 4 {
		return 0, nil
	}
	flags := binary.BigEndian.Uint16(b)
	if flags&0x4007 != 0 { // source routes, or another version
		return 0, nil
	}
	header := 4
	for _, bit := range [...]uint16{0x8000, 0x2000, 0x1000} { // checksum, key, sequence number
		if flags&bit != 0 {
			header += 4
		}
	}
	if len(b) < header {
		return 0, nil
	}
	return binary.BigEndian.Uint16(b[2:]), b[header:]
}

// geneve reads a Geneve header (RFC 8926).
func geneve(b []byte) (kind uint16, payload []byte) {
	if len(b) < 8 || b[0]>>6 != 0 {
		return 0, nil
	}
	header := 8 + int(b[0]&0x3f)*4
	if len(b) < header {
		return 0, nil
	}
	return binary.BigEndian.Uint16(b[2:]), b[header:]
}
