package guard

import (
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"slices"
	"strings"

	"github.com/google/nftables/expr"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// owner begins the comment by which a carve-out of ours is known. What follows tells
// which rule it was made for.
const owner = "inquest guard"

// queueing is how a rule queues.
type queueing struct {
	at             int // index of the expression that does it
	queues         string
	bypass, fanout bool
	xt             bool // iptables' target through nft_compat
}

// queue reports whether the rule queues packets: by nft_queue, by iptables' target, or
// by a bare verdict, which nft never writes but the kernel takes.
func (r *kernelRule) queue() (queueing, bool) {
	for i, e := range r.exprs {
		data := attributes(e.data)
		switch e.name {
		case "queue":
			flags := data.uint16(unix.NFTA_QUEUE_FLAGS)
			q := queueing{at: i, bypass: flags&unix.NFT_QUEUE_FLAG_BYPASS != 0, fanout: flags&unix.NFT_QUEUE_FLAG_CPU_FANOUT != 0}
			q.queues = queueRange(data.uint16(unix.NFTA_QUEUE_NUM), data.uint16(unix.NFTA_QUEUE_TOTAL))
			if _, ok := data.get(unix.NFTA_QUEUE_SREG_QNUM); ok {
				q.queues = "by the packet"
			}
			return q, true
		case "target":
			if data.text(unix.NFTA_TARGET_NAME) == "NFQUEUE" {
				q := xtQueueing(data)
				q.at = i
				return q, true
			}
		case "immediate":
			if code := uint32(immediateVerdict(data).code()); code&0xff == nfQueue {
				return queueing{at: i, queues: queueRange(uint16(code>>16), 1), bypass: code&nfQueueBypass != 0}, true
			}
		}
	}
	return queueing{}, false
}

// Verdicts of include/uapi/linux/netfilter.h.
const (
	nfQueue       = 3
	nfQueueBypass = 0x8000
)

// xtQueueing reads struct xt_NFQ_info of whatever revision
// (include/uapi/linux/netfilter/xt_NFQUEUE.h): a word each for the first queue, how
// many, and flags.
func xtQueueing(target attributes) queueing {
	info, _ := target.get(unix.NFTA_TARGET_INFO)
	revision := target.uint32(unix.NFTA_TARGET_REV)
	word := func(i int) uint16 {
		if len(info) < 2*i+2 {
			return 0
		}
		return binary.NativeEndian.Uint16(info[2*i:])
	}
	q := queueing{xt: true, queues: queueRange(word(0), 1)}
	if revision >= 1 {
		q.queues = queueRange(word(0), word(1))
	}
	if revision >= 2 {
		q.bypass, q.fanout = word(2)&1 != 0, word(2)&2 != 0
	}
	return q
}

func queueRange(first, count uint16) string {
	if count <= 1 {
		return fmt.Sprint(first)
	}
	return fmt.Sprintf("%d-%d", first, uint32(first)+uint32(count)-1)
}

func (a attributes) uint16(kind uint16) uint16 {
	if v, ok := a.get(kind); ok && len(v) == 2 {
		return binary.BigEndian.Uint16(v)
	}
	return 0
}

// verdict are the attributes of one.
type verdict struct{ attributes }

func immediateVerdict(data attributes) verdict {
	value, _ := data.get(unix.NFTA_IMMEDIATE_DATA)
	v, _ := attributes(value).get(unix.NFTA_DATA_VERDICT)
	return verdict{v}
}

// code is a verdict of netfilter, or a negative one of nft; 0 (drop) if there is none.
func (v verdict) code() int32 { return int32(v.uint32(unix.NFTA_VERDICT_CODE)) }

func (v verdict) chain() string { return v.text(unix.NFTA_VERDICT_CHAIN) }

// changeful are expressions whose answer changes with each packet that they are asked
// about. In a carve-out they would let a SYN/ACK by to be asked again, and queued.
var changeful = map[string]bool{"limit": true, "quota": true, "connlimit": true, "dynset": true}

// changefulMatches are those of iptables' matches that are changeful.
var changefulMatches = []string{"limit", "hashlimit", "quota", "statistic", "recent", "connlimit"}

// conditions returns what of the rule comes before it queues, as a carve-out has it, and
// what had to be left out. Counters and the like count only what passes the rule itself.
func (r *kernelRule) conditions(q queueing) (list []expression, left []string) {
	for _, e := range r.exprs[:q.at] {
		match := ""
		if e.name == "match" {
			match = attributes(e.data).text(unix.NFTA_MATCH_NAME)
		}
		switch {
		case e.name == "counter", e.name == "last":
		case changeful[e.name]:
			left = append(left, e.name)
		case slices.Contains(changefulMatches, match):
			left = append(left, match)
		default:
			list = append(list, e)
		}
	}
	return list, left
}

// matchesTCP reports whether a TCP segment may pass these conditions. It looks for the
// common "meta l4proto udp", for the protocol in an IPv4 header, and for iptables'
// matches of other protocols.
func matchesTCP(conditions []expression) bool {
	others := []string{"udp", "udplite", "icmp", "icmp6", "sctp", "dccp", "esp", "ah"}
	for i, e := range conditions {
		data := attributes(e.data)
		if e.name == "match" && slices.Contains(others, data.text(unix.NFTA_MATCH_NAME)) {
			return false
		}
		loads := e.name == "meta" && data.uint32(unix.NFTA_META_KEY) == unix.NFT_META_L4PROTO ||
			e.name == "payload" && data.uint32(unix.NFTA_PAYLOAD_BASE) == unix.NFT_PAYLOAD_NETWORK_HEADER &&
				data.uint32(unix.NFTA_PAYLOAD_OFFSET) == 9 && data.uint32(unix.NFTA_PAYLOAD_LEN) == 1
		if !loads || i+1 == len(conditions) || conditions[i+1].name != "cmp" {
			continue
		}
		compare := attributes(conditions[i+1].data)
		value, _ := compare.get(unix.NFTA_CMP_DATA)
		protocol, _ := attributes(value).get(unix.NFTA_DATA_VALUE)
		if compare.uint32(unix.NFTA_CMP_OP) == unix.NFT_CMP_EQ && len(protocol) == 1 && protocol[0] != unix.IPPROTO_TCP {
			return false
		}
	}
	return true
}

// carveOut is a rule to be put right before one that queues. It accepts the SYN/ACKs
// that the other would queue, which is what happens to them after the reader of the
// queue has accepted them: the chains of the hook that come later see them, the rules of
// this one do not.
type carveOut struct {
	before  kernelRule
	xt      bool
	leaving bool // only packets that leave: other hooks come by, too
	copied  []expression
}

// comment is what the carve-out is known by: it belongs to these conditions, with these
// elements of their sets.
func (c *carveOut) comment(s *snapshot) string {
	h := fnv.New32a()
	fmt.Fprintf(h, "%t %t", c.xt, c.leaving)
	for _, e := range c.copied {
		fmt.Fprintf(h, "%s %x", e.name, e.data)
		if set := s.sets[setKey{c.before.family, c.before.table, e.setName()}]; set != nil && set.anonymous() {
			for _, element := range set.elements {
				fmt.Fprintf(h, "%x", element.Data)
			}
		}
	}
	return fmt.Sprintf("%s %08x", owner, h.Sum32())
}

// changes add the carve-out, with a counter or, for kernels that have none, without. ids
// are numbers for sets, each used once in a transaction.
func (c *carveOut) changes(s *snapshot, counted bool, ids *uint32) ([]change, error) {
	exprs, err := c.synAck()
	if err != nil {
		return nil, err
	}
	var changes []change
	for _, e := range c.copied {
		key := setKey{c.before.family, c.before.table, e.setName()}
		if set := s.sets[key]; set != nil && set.anonymous() {
			*ids++
			changes = append(changes, set.copied(key, *ids)...)
			e = e.in(*ids)
		}
		exprs = append(exprs, e)
	}
	end, err := marshalled(&expr.Counter{}, &expr.Verdict{Kind: expr.VerdictAccept})
	if !counted && err == nil {
		end = end[1:]
	}
	if err != nil {
		return nil, err
	}
	var list []netlink.Attribute
	for _, e := range append(exprs, end...) {
		list = append(list, netlink.Attribute{Type: unix.NFTA_LIST_ELEM | netlink.Nested, Data: nested(
			text(unix.NFTA_EXPR_NAME, e.name), netlink.Attribute{Type: unix.NFTA_EXPR_DATA | netlink.Nested, Data: e.data})})
	}
	attrs := []netlink.Attribute{
		text(unix.NFTA_RULE_TABLE, c.before.table), text(unix.NFTA_RULE_CHAIN, c.before.chain),
		{Type: unix.NFTA_RULE_POSITION, Data: binary.BigEndian.AppendUint64(nil, c.before.handle)},
		{Type: unix.NFTA_RULE_EXPRESSIONS | netlink.Nested, Data: nested(list...)},
		{Type: unix.NFTA_RULE_USERDATA, Data: commentData(c.comment(s))},
	}
	if c.xt || slices.ContainsFunc(c.copied, func(e expression) bool { return e.name == "match" }) {
		// The protocol that iptables' matches are for; the kernel does not tell what it was.
		attrs = append(attrs, netlink.Attribute{Type: unix.NFTA_RULE_COMPAT | netlink.Nested, Data: nested(
			netlink.Attribute{Type: unix.NFTA_RULE_COMPAT_PROTO, Data: binary.BigEndian.AppendUint32(nil, unix.IPPROTO_TCP)},
			netlink.Attribute{Type: unix.NFTA_RULE_COMPAT_FLAGS, Data: make([]byte, 4)},
		)})
	}
	return append(changes, change{unix.NFT_MSG_NEWRULE, netlink.Create, c.before.family, attrs}), nil
}

// TCP's flags (RFC 9293, section 3.1).
const synAck = 0x02 | 0x10

// synAck are the conditions that only SYN/ACKs pass, in the language of the chain: the
// programs of iptables show no chain that has a rule which they would not write.
func (c *carveOut) synAck() ([]expression, error) {
	var list []expr.Any
	if c.leaving && !c.xt {
		list = append(list, &expr.Meta{Key: expr.MetaKeyOIF, Register: 1},
			&expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: make([]byte, 4)})
	}
	list = append(list, &expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{unix.IPPROTO_TCP}})
	if !c.xt {
		list = append(list, &expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 13, Len: 1},
			&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 1, Mask: []byte{synAck}, Xor: []byte{0}},
			&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{synAck}})
		return marshalled(list...)
	}
	exprs, err := marshalled(list...)
	// struct xt_tcp: ranges of ports, option, mask and value of the flags, inversion.
	info := []byte{0, 0, 0xff, 0xff, 0, 0, 0xff, 0xff, 0, synAck, synAck, 0, 0, 0, 0, 0}
	return append(exprs, expression{"match", nested(
		text(unix.NFTA_MATCH_NAME, "tcp"),
		netlink.Attribute{Type: unix.NFTA_MATCH_REV, Data: make([]byte, 4)},
		netlink.Attribute{Type: unix.NFTA_MATCH_INFO, Data: info},
	)}), err
}

func marshalled(list ...expr.Any) ([]expression, error) {
	var exprs []expression
	for _, e := range list {
		raw, err := expr.Marshal(unix.NFPROTO_INET, e)
		if err != nil {
			return nil, err
		}
		a := attributes(raw)
		data, _ := a.get(unix.NFTA_EXPR_DATA)
		exprs = append(exprs, expression{a.text(unix.NFTA_EXPR_NAME), data})
	}
	return exprs, nil
}

// removal takes a rule away.
func (r *kernelRule) removal() change {
	return change{unix.NFT_MSG_DELRULE, 0, r.family, []netlink.Attribute{
		text(unix.NFTA_RULE_TABLE, r.table), text(unix.NFTA_RULE_CHAIN, r.chain),
		{Type: unix.NFTA_RULE_HANDLE, Data: binary.BigEndian.AppendUint64(nil, r.handle)},
	}}
}

// ours reports whether the rule is a carve-out.
func (r *kernelRule) ours() bool { return strings.HasPrefix(r.comment, owner) }

// passed counts the packets that a carve-out has accepted.
func (r *kernelRule) passed() uint64 {
	for _, e := range r.exprs {
		if v, ok := attributes(e.data).get(unix.NFTA_COUNTER_PACKETS); ok && e.name == "counter" && len(v) == 8 {
			return binary.BigEndian.Uint64(v)
		}
	}
	return 0
}
