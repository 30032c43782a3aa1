package nfqueue

import "fmt"

// MaxPayload is how many bytes a netlink attribute, and so a packet that is
// shown or replaced, can have: 65535 less the attribute's header.
const MaxPayload = 0xffff - attrHeader

// A Verdict says what becomes of a packet. It is made by Accept, Drop, Repeat
// or ToQueue, and changed by its With methods, which return a changed copy:
//
//	nfqueue.Accept().WithMark(1)
//
// The zero Verdict is none: the packet gets Config.Default.
type Verdict struct {
	payload  []byte
	code     uint32 // as in nfqnl_msg_verdict_hdr, plus one
	mark     uint32
	connmark uint32
	connmask uint32 // which bits of connmark are set
	has      uint8
}

const (
	hasMark = 1 << iota
	hasConnmark
	hasPayload
)

// Verdicts of <linux/netfilter.h>. The upper 16 bits of nfQueue are the queue.
const (
	nfDrop   = 0
	nfAccept = 1
	nfQueue  = 3
	nfRepeat = 4

	verdictMask = 0xff
	// nf_reinject lets the packet pass when nobody has bound the queue (3.1).
	flagQueueBypass = 0x8000
)

// Accept lets the packet go on to the next hook.
func Accept() Verdict { return Verdict{code: nfAccept + 1} }

// Drop discards the packet.
func Drop() Verdict { return Verdict{code: nfDrop + 1} }

// Repeat sends the packet through the hook that queued it again, from its
// first rule. Without a mark that the rules look at it comes back at once.
func Repeat() Verdict { return Verdict{code: nfRepeat + 1} }

// ToQueue hands the packet to another queue. If nobody has bound that one the
// packet is dropped; see WithBypass.
func ToQueue(n uint16) Verdict { return Verdict{code: (uint32(n)<<16 | nfQueue) + 1} }

// WithBypass lets the packet of a ToQueue pass when nobody has bound the other
// queue. It changes no other verdict.
func (v Verdict) WithBypass() Verdict {
	if v.kind() == nfQueue {
		v.code = (v.wire() | flagQueueBypass) + 1
	}
	return v
}

// WithMark sets the packet's mark (skb->mark, nft's "meta mark").
func (v Verdict) WithMark(mark uint32) Verdict {
	v.mark, v.has = mark, v.has|hasMark
	return v
}

// WithConnmark sets the mark of the packet's connection (nft's "ct mark"),
// all 32 bits of it. It needs a kernel with NETFILTER_NETLINK_GLUE_CT; others,
// and packets without a conntrack entry, ignore it.
func (v Verdict) WithConnmark(mark uint32) Verdict {
	return v.WithConnmarkBits(mark, ^uint32(0))
}

// WithConnmarkBits sets the bits of the connection's mark that are in mask to
// those of mark, and leaves the others to those they belong to.
func (v Verdict) WithConnmarkBits(mark, mask uint32) Verdict {
	v.connmark, v.connmask, v.has = mark&mask, mask, v.has|hasConnmark
	return v
}

// WithPayload replaces the packet from its network header on; b may be shorter
// or longer than it was, up to MaxPayload. b is copied when the handler returns
// or by Judge, so it may be a part of Packet.Payload.
//
// The kernel takes b as it is: lengths and checksums, the IP header's and the
// transport's, must be right, also where Packet.Info had ChecksumNotReady. For
// TCP with conntrack and NAT helpers the kernel adjusts sequence numbers by the
// difference in length. A packet that was cut (Config.CopyRange) must not be
// replaced by what is left of it.
func (v Verdict) WithPayload(b []byte) Verdict {
	v.payload, v.has = b, v.has|hasPayload
	return v
}

// Given reports whether v is a verdict, not the zero Verdict.
func (v Verdict) Given() bool { return v.code != 0 }

func (v Verdict) wire() uint32 { return v.code - 1 }

func (v Verdict) kind() uint32 { return v.wire() & verdictMask }

// plain reports whether a batch can carry v: a code and at most a mark.
func (v *Verdict) plain() bool { return v.has&^hasMark == 0 }

func (v Verdict) check() error {
	if v.has&hasPayload != 0 && (len(v.payload) == 0 || len(v.payload) > MaxPayload) {
		return fmt.Errorf("%w: %d bytes", ErrPayload, len(v.payload))
	}
	return nil
}

// String names v as the rules of nft would.
func (v Verdict) String() string {
	if !v.Given() {
		return "none"
	}
	var s string
	switch v.kind() {
	case nfAccept:
		s = "accept"
	case nfDrop:
		s = "drop"
	case nfRepeat:
		s = "repeat"
	case nfQueue:
		s = fmt.Sprintf("queue %d", v.wire()>>16)
		if v.wire()&flagQueueBypass != 0 {
			s += " bypass"
		}
	}
	if v.has&hasMark != 0 {
		s += fmt.Sprintf(" mark %#x", v.mark)
	}
	if v.has&hasConnmark != 0 {
		s += fmt.Sprintf(" ct mark %#x/%#x", v.connmark, v.connmask)
	}
	if v.has&hasPayload != 0 {
		s += fmt.Sprintf(" payload %d bytes", len(v.payload))
	}
	return s
}
