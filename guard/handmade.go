package guard

import (
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// nfAccept is a verdict of include/uapi/linux/netfilter.h.
const nfAccept = 1

// acceptsSynAcks reports whether a rule accepts all SYN/ACKs, as that of "inquest
// verdict" does, and whoever has followed the advisory by hand:
//
//	tcp flags & (syn|ack) == syn|ack accept
func (r *kernelRule) acceptsSynAcks() bool {
	exprs := slices.DeleteFunc(slices.Clone(r.exprs), func(e expression) bool { return e.name == "counter" })
	if len(exprs) != 6 {
		return false
	}
	for i, name := range []string{"meta", "cmp", "payload", "bitwise", "cmp", "immediate"} {
		if exprs[i].name != name {
			return false
		}
	}
	payload, bits := attributes(exprs[2].data), attributes(exprs[3].data)
	return attributes(exprs[0].data).uint32(unix.NFTA_META_KEY) == unix.NFT_META_L4PROTO &&
		comparesWith(exprs[1], unix.IPPROTO_TCP) &&
		payload.uint32(unix.NFTA_PAYLOAD_BASE) == unix.NFT_PAYLOAD_TRANSPORT_HEADER &&
		payload.uint32(unix.NFTA_PAYLOAD_OFFSET) == 13 && payload.uint32(unix.NFTA_PAYLOAD_LEN) == 1 &&
		byteValue(bits, unix.NFTA_BITWISE_MASK) == synAck && byteValue(bits, unix.NFTA_BITWISE_XOR) == 0 &&
		comparesWith(exprs[4], synAck) &&
		immediateVerdict(exprs[5].data).code() == nfAccept
}

// comparesWith reports whether the expression asks whether a register is this byte.
func comparesWith(e expression, b int) bool {
	a := attributes(e.data)
	return a.uint32(unix.NFTA_CMP_OP) == unix.NFT_CMP_EQ && byteValue(a, unix.NFTA_CMP_DATA) == b
}

// byteValue is a value of one byte; -1 if it is none.
func byteValue(a attributes, kind uint16) int {
	data, _ := a.get(kind)
	if v, ok := attributes(data).get(unix.NFTA_DATA_VALUE); ok && len(v) == 1 {
		return int(v[0])
	}
	return -1
}

// acceptsSynAcks is the same in the language of iptables.
func (r *xrule) acceptsSynAcks() bool {
	var words []string
	for i := 0; i < len(r.words); i++ {
		if w := r.words[i]; w.text == "-m" && i+3 < len(r.words) && r.words[i+1].text == "comment" {
			i += 3
		} else {
			words = append(words, w.text)
		}
	}
	return strings.Join(words, " ") == "-p tcp -m tcp --tcp-flags SYN,ACK SYN,ACK -j ACCEPT"
}
