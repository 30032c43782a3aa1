package verdict

import (
	"fmt"
	"net/netip"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// match is a condition of a rule, in the three languages that a [Ruleset] speaks.
type match interface {
	nft() string
	exprs() []expr.Any
	// iptables returns the arguments, and whether the condition exists in this
	// IP version at all.
	iptables(v6 bool) (args string, ok bool)
}

// packetMark holds if the packet's mark has this value under the mask.
type packetMark struct {
	value, mask uint32
	not         bool
}

func (m packetMark) nft() string {
	return fmt.Sprintf("meta mark & %#x %s %#x", m.mask, operator(m.not), m.value)
}

func (m packetMark) exprs() []expr.Any {
	return append([]expr.Any{&expr.Meta{Key: expr.MetaKeyMARK, Register: 1}}, compareMasked(m.value, m.mask, m.not)...)
}

func (m packetMark) iptables(bool) (string, bool) {
	return fmt.Sprintf("-m mark %s--mark %#x/%#x", exclamation(m.not), m.value, m.mask), true
}

// flowMark holds if the mark of the packet's conntrack entry has this value under the mask.
type flowMark struct {
	value, mask uint32
	not         bool
}

func (m flowMark) nft() string {
	return fmt.Sprintf("ct mark & %#x %s %#x", m.mask, operator(m.not), m.value)
}

func (m flowMark) exprs() []expr.Any {
	return append([]expr.Any{&expr.Ct{Key: expr.CtKeyMARK, Register: 1}}, compareMasked(m.value, m.mask, m.not)...)
}

func (m flowMark) iptables(bool) (string, bool) {
	return fmt.Sprintf("-m connmark %s--mark %#x/%#x", exclamation(m.not), m.value, m.mask), true
}

// related holds for what conntrack takes to belong to another flow: ICMP errors, mostly.
type related struct{}

func (related) nft() string { return "ct state related" }

func (related) exprs() []expr.Any {
	return append([]expr.Any{&expr.Ct{Key: expr.CtKeySTATE, Register: 1}},
		compareMasked(0, expr.CtStateBitRELATED, true)...)
}

func (related) iptables(bool) (string, bool) { return "-m conntrack --ctstate RELATED", true }

// protocol holds for a transport protocol.
type protocol uint8

var protocolNames = map[protocol]string{
	unix.IPPROTO_TCP: "tcp", unix.IPPROTO_UDP: "udp", unix.IPPROTO_SCTP: "sctp", unix.IPPROTO_ICMP: "icmp", unix.IPPROTO_ICMPV6: "ipv6-icmp",
}

func (p protocol) nft() string { return "meta l4proto " + protocolNames[p] }

func (p protocol) exprs() []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{byte(p)}},
	}
}

func (p protocol) iptables(v6 bool) (string, bool) {
	exists := p != unix.IPPROTO_ICMP && p != unix.IPPROTO_ICMPV6 || v6 == (p == unix.IPPROTO_ICMPV6)
	return "-p " + protocolNames[p], exists
}

// icmp6 holds for one type of ICMPv6 message.
type icmp6 uint8

// neighbourDiscovery are the messages without which IPv6 does not work on a link (RFC
// 4861): router and neighbour solicitation and advertisement.
var neighbourDiscovery = map[icmp6]string{
	133: "nd-router-solicit", 134: "nd-router-advert", 135: "nd-neighbor-solicit", 136: "nd-neighbor-advert",
}

func (t icmp6) nft() string { return "icmpv6 type " + neighbourDiscovery[t] }

func (t icmp6) exprs() []expr.Any {
	return append(protocol(unix.IPPROTO_ICMPV6).exprs(),
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 0, Len: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{byte(t)}},
	)
}

func (t icmp6) iptables(v6 bool) (string, bool) {
	return fmt.Sprintf("-p icmpv6 --icmpv6-type %d", t), v6
}

// tcpFlags holds for TCP segments that have all of these flags.
type tcpFlags uint8

// Flags of TCP (RFC 9293, section 3.1).
const (
	tcpSYN tcpFlags = 0x02
	tcpRST tcpFlags = 0x04
	tcpACK tcpFlags = 0x10
)

var tcpFlagNames = map[tcpFlags]struct{ nft, iptables string }{
	tcpSYN | tcpACK: {"(syn | ack)", "SYN,ACK"},
	tcpRST:          {"rst", "RST"},
}

func (f tcpFlags) nft() string {
	return fmt.Sprintf("tcp flags & %s == %[1]s", tcpFlagNames[f].nft)
}

func (f tcpFlags) exprs() []expr.Any {
	return append(protocol(unix.IPPROTO_TCP).exprs(),
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 13, Len: 1},
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 1, Mask: []byte{byte(f)}, Xor: []byte{0}},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{byte(f)}},
	)
}

func (f tcpFlags) iptables(bool) (string, bool) {
	return fmt.Sprintf("-p tcp --tcp-flags %s %[1]s", tcpFlagNames[f].iptables), true
}

// device holds for packets that came in from, or go out to, an interface. A name that
// ends in + stands for all that begin so, as in iptables.
type device struct {
	name string
	out  bool
}

func (d device) nft() string {
	name := d.name
	if n := len(name) - 1; name[n] == '+' {
		name = name[:n] + "*"
	}
	return fmt.Sprintf("%s %q", d.pick("iifname", "oifname"), name)
}

func (d device) exprs() []expr.Any {
	key := expr.MetaKeyIIFNAME
	if d.out {
		key = expr.MetaKeyOIFNAME
	}
	// A shorter comparison is how nft matches a prefix.
	data := make([]byte, unix.IFNAMSIZ)
	copy(data, d.name)
	if n := len(d.name) - 1; d.name[n] == '+' {
		data = data[:n]
	}
	return []expr.Any{
		&expr.Meta{Key: key, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: data},
	}
}

func (d device) iptables(bool) (string, bool) { return d.pick("-i ", "-o ") + d.name, true }

func (d device) pick(in, out string) string {
	if d.out {
		return out
	}
	return in
}

// network holds for packets from, or to, an address of a prefix.
type network struct {
	prefix netip.Prefix
	dst    bool
}

func (n network) nft() string {
	family, side := "ip", "saddr"
	if n.prefix.Addr().Is6() {
		family = "ip6"
	}
	if n.dst {
		side = "daddr"
	}
	return fmt.Sprintf("%s %s %s", family, side, n.prefix)
}

func (n network) exprs() []expr.Any {
	// Where the addresses are: RFC 791, section 3.1; RFC 8200, section 3.
	addr := n.prefix.Addr().AsSlice()
	size, family, offset := len(addr), nftables.TableFamilyIPv4, 12
	if size == 16 {
		family, offset = nftables.TableFamilyIPv6, 8
	}
	if n.dst {
		offset += size
	}
	mask := make([]byte, size)
	for i := range n.prefix.Bits() {
		mask[i/8] |= 0x80 >> (i % 8)
	}
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{byte(family)}},
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: uint32(offset), Len: uint32(size)},
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: uint32(size), Mask: mask, Xor: make([]byte, size)},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: addr},
	}
}

func (n network) iptables(v6 bool) (string, bool) {
	side := "-s "
	if n.dst {
		side = "-d "
	}
	return side + n.prefix.String(), n.prefix.Addr().Is6() == v6
}

// port holds for packets from, or to, a port.
type port struct {
	Port
	dst bool
}

func (p port) nft() string {
	return fmt.Sprintf("%s %s %d", protocolNames[protocol(p.Protocol)], p.pick("sport", "dport"), p.Number)
}

func (p port) exprs() []expr.Any {
	var offset uint32
	if p.dst {
		offset = 2
	}
	return append(protocol(p.Protocol).exprs(),
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: offset, Len: 2},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: binaryutil.BigEndian.PutUint16(p.Number)},
	)
}

func (p port) iptables(bool) (string, bool) {
	return fmt.Sprintf("-p %s --%s %d", protocolNames[protocol(p.Protocol)], p.pick("sport", "dport"), p.Number), true
}

func (p port) pick(src, dst string) string {
	if p.dst {
		return dst
	}
	return src
}

// compareMasked compares register 1, a number in the host's byte order, under a mask.
func compareMasked(value, mask uint32, not bool) []expr.Any {
	op := expr.CmpOpEq
	if not {
		op = expr.CmpOpNeq
	}
	return []expr.Any{
		setBits(0, mask),
		&expr.Cmp{Op: op, Register: 1, Data: binaryutil.NativeEndian.PutUint32(value)},
	}
}

// setBits makes register 1 register & mask | value.
func setBits(value, mask uint32) *expr.Bitwise {
	return &expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 4,
		Mask: binaryutil.NativeEndian.PutUint32(mask), Xor: binaryutil.NativeEndian.PutUint32(value)}
}

func operator(not bool) string {
	if not {
		return "!="
	}
	return "=="
}

func exclamation(not bool) string {
	if not {
		return "! "
	}
	return ""
}
