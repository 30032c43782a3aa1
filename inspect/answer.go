package inspect

import (
	"inquest/inspect/packet"
	"inquest/inspect/rule"
)

// AppendAnswer appends to dst the packet that tells the last packet's sender that it
// was rejected, and reports whether there is one: an RST or an ICMP error answers no
// RST and no ICMP error, nothing to multicast and broadcast, and no packet with a bad
// checksum. An answer that asks for a TCP reset is an ICMP error to what is not TCP.
//
// Who lets the kernel reject (nftables' reject statement) does not need it.
func (w *Worker) AppendAnswer(dst []byte, a rule.Answer) (out []byte, ok bool) {
	p := &w.packet
	why := packet.PortUnreachable
	switch a {
	case rule.AnswerAuto, rule.AnswerTCPReset:
		if p.Proto == packet.ProtoTCP {
			return p.AppendReset(dst)
		}
	case rule.AnswerNetUnreachable:
		why = packet.NetUnreachable
	case rule.AnswerHostUnreachable:
		why = packet.HostUnreachable
	case rule.AnswerAdminProhibited:
		why = packet.AdminProhibited
	}
	if p.Proto == packet.ProtoTCP && p.TCP.Flags&packet.RST != 0 {
		return dst, false
	}
	return p.AppendUnreachable(dst, why)
}
