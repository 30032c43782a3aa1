package verdict

import (
	"encoding/binary"
	"fmt"

	"github.com/google/nftables/expr"
	"github.com/google/nftables/xt"
	"golang.org/x/sys/unix"
)

// action is what a rule does, in the three languages that a [Ruleset] speaks.
type action interface {
	nft() string
	exprs() []expr.Any
	iptables(v6 bool) string
}

// end is a verdict of the kernel's own.
type end expr.VerdictKind

const (
	accept = end(expr.VerdictAccept)
	drop   = end(expr.VerdictDrop)
)

func (e end) nft() string {
	if e == accept {
		return "accept"
	}
	return "drop"
}

func (e end) exprs() []expr.Any { return []expr.Any{&expr.Verdict{Kind: expr.VerdictKind(e)}} }

func (e end) iptables(bool) string {
	if e == accept {
		return "-j ACCEPT"
	}
	return "-j DROP"
}

// jump goes through the rules of another chain.
type jump struct{ table, chain string }

func (j jump) nft() string { return "jump " + j.chain }

func (j jump) exprs() []expr.Any {
	return []expr.Any{&expr.Verdict{Kind: expr.VerdictJump, Chain: j.chain}}
}

func (j jump) iptables(bool) string { return "-j " + j.table + "-" + j.chain }

// markFlow writes a value into the masked bits of the conntrack entry's mark.
type markFlow struct{ value, mask uint32 }

func (m markFlow) nft() string {
	return fmt.Sprintf("ct mark set ct mark & %#x | %#x", ^m.mask, m.value)
}

func (m markFlow) exprs() []expr.Any {
	return []expr.Any{
		&expr.Ct{Key: expr.CtKeyMARK, Register: 1},
		setBits(m.value, ^m.mask),
		&expr.Ct{Key: expr.CtKeyMARK, Register: 1, SourceRegister: true},
	}
}

func (m markFlow) iptables(bool) string {
	return fmt.Sprintf("-j CONNMARK --set-xmark %#x/%#x", m.value, m.mask)
}

// clearMark takes the masked bits out of the packet's mark.
type clearMark uint32

func (m clearMark) nft() string { return fmt.Sprintf("meta mark set meta mark & %#x", ^uint32(m)) }

func (m clearMark) exprs() []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyMARK, Register: 1},
		setBits(0, ^uint32(m)),
		&expr.Meta{Key: expr.MetaKeyMARK, Register: 1, SourceRegister: true},
	}
}

func (m clearMark) iptables(bool) string {
	return fmt.Sprintf("-j MARK --set-xmark 0x0/%#x", uint32(m))
}

// resetTCP answers with a RST and drops.
type resetTCP struct{}

func (resetTCP) nft() string { return "reject with tcp reset" }

func (resetTCP) exprs() []expr.Any { return []expr.Any{&expr.Reject{Type: unix.NFT_REJECT_TCP_RST}} }

func (resetTCP) iptables(bool) string { return "-j REJECT --reject-with tcp-reset" }

// unreachable answers with an ICMP error and drops; it is the code of nftables' icmpx,
// which stands for one of ICMP and one of ICMPv6.
type unreachable uint8

var unreachableNames = map[unreachable]struct{ nft, iptables, ip6tables string }{
	unix.NFT_REJECT_ICMPX_NO_ROUTE:         {"no-route", "icmp-net-unreachable", "icmp6-no-route"},
	unix.NFT_REJECT_ICMPX_HOST_UNREACH:     {"host-unreachable", "icmp-host-unreachable", "icmp6-addr-unreachable"},
	unix.NFT_REJECT_ICMPX_PORT_UNREACH:     {"port-unreachable", "icmp-port-unreachable", "icmp6-port-unreachable"},
	unix.NFT_REJECT_ICMPX_ADMIN_PROHIBITED: {"admin-prohibited", "icmp-admin-prohibited", "icmp6-adm-prohibited"},
}

func (u unreachable) nft() string { return "reject with icmpx " + unreachableNames[u].nft }

func (u unreachable) exprs() []expr.Any {
	return []expr.Any{&expr.Reject{Type: unix.NFT_REJECT_ICMPX_UNREACH, Code: uint8(u)}}
}

func (u unreachable) iptables(v6 bool) string {
	if v6 {
		return "-j REJECT --reject-with " + unreachableNames[u].ip6tables
	}
	return "-j REJECT --reject-with " + unreachableNames[u].iptables
}

// enqueue hands the packet to the daemon.
type enqueue struct {
	first, count uint16
	bypass       bool // where nobody listens, go on as if there were no rule
	fanout       bool // choose the queue by the CPU, not by a hash of the addresses
	xt           bool // by the target of iptables: for kernels without nft_queue
}

func (q enqueue) nft() string {
	s := fmt.Sprintf("queue num %d", q.first)
	if q.count > 1 {
		s += fmt.Sprintf("-%d", q.first+q.count-1)
	}
	switch {
	case q.bypass && q.fanout:
		s += " bypass,fanout"
	case q.bypass:
		s += " bypass"
	case q.fanout:
		s += " fanout"
	}
	return s
}

func (q enqueue) exprs() []expr.Any {
	// The flags of the expression and of the target are the same numbers
	// (uapi/linux/netfilter/nf_tables.h, xt_NFQUEUE.h).
	var flags expr.QueueFlag
	if q.bypass {
		flags |= expr.QueueFlagBypass
	}
	if q.fanout {
		flags |= expr.QueueFlagFanout
	}
	if !q.xt {
		return []expr.Any{&expr.Queue{Num: q.first, Total: q.count, Flag: flags}}
	}
	info := make(xt.Unknown, 0, 8) // struct xt_NFQ_info_v3, padded as XT_ALIGN does
	for _, v := range []uint16{q.first, q.count, uint16(flags), 0} {
		info = binary.NativeEndian.AppendUint16(info, v)
	}
	return []expr.Any{&expr.Target{Name: "NFQUEUE", Rev: 3, Info: &info}}
}

func (q enqueue) iptables(bool) string {
	s := fmt.Sprintf("-j NFQUEUE --queue-num %d", q.first)
	if q.count > 1 {
		s = fmt.Sprintf("-j NFQUEUE --queue-balance %d:%d", q.first, q.first+q.count-1)
		if q.fanout {
			s += " --queue-cpu-fanout"
		}
	}
	if q.bypass {
		s += " --queue-bypass"
	}
	return s
}
