package rule

import (
	"fmt"
	"time"

	"inquest/inspect/app"
	"inquest/inspect/packet"
)

// Env is what one packet is judged on. The caller fills it and may reuse it; nothing
// of it is kept.
type Env struct {
	Packet *packet.Packet
	Flow   FlowInfo

	// Facts is what is known of the flow's application protocol; nil means that
	// nothing is known yet.
	Facts *app.Facts

	// Patterns has bit i set when pattern i of [Set.Patterns] has been seen in the
	// flow. PatternsDone tells that no more of the flow will be searched.
	Patterns     []uint64
	PatternsDone bool

	// Meta is what the kernel says of the packet; nil means nothing.
	Meta *Meta
}

// FlowInfo is the flow that a packet belongs to, this packet counted.
type FlowInfo struct {
	// Tuple is that of the flow's first packet. Without a flow its Src is invalid, and
	// rules see the packet's own.
	packet.Tuple
	// In and Out are the devices of the flow's first packet.
	In, Out string

	Reply   bool          // the packet answers: it goes against the first packet's direction
	State   string        // "new", "established", "closing", "closed"
	Packets uint64        // of both directions
	Bytes   uint64        // of both directions, from the IP headers on
	Age     time.Duration // since the first packet
}

// Meta is what the kernel says of a packet besides its bytes.
type Meta struct {
	Mark, ConnMark uint32
	Hook           uint8 // enum nf_inet_hooks: 0 prerouting, 1 input, 2 forward, 3 output, 4 postrouting
	Queue          uint16
	In, Out        string // device names, "" when there is none
	UID, GID       uint32 // of the local socket
	HasUID         bool   // UID and GID hold something
	Checksum       packet.ChecksumState
}

// Outcome is what a set says of one packet.
type Outcome struct {
	// Rule is the index in [Set.Rules] of the rule that decided, or, when Pending,
	// of the rule that waits for a fact; [Default] when none matched.
	Rule    int
	Verdict Verdict
	Log     bool // the rule asks for a line in the log; see [Rule.Log]

	// Pending: a fact that is not known yet may still make Rule match. Verdict is
	// what the file's `pending` says of packets until then.
	Pending bool
	// PerFlow: every later packet of the flow, in either direction, gets the same
	// rule and verdict, so that the flow need not be judged again.
	PerFlow bool
}

// Default is the index of no rule: the file's default decided.
const Default = -1

// Kind is what is done with a packet.
type Kind uint8

// The kinds of verdicts.
const (
	Accept Kind = iota
	Drop
	Reject // drop, and tell the sender so
	Mark   // accept with a packet mark
	Queue  // hand to another queue
)

var kindNames = [...]string{"accept", "drop", "reject", "mark", "queue"}

// String is the kind as it is written in a file.
func (k Kind) String() string {
	if int(k) < len(kindNames) {
		return kindNames[k]
	}
	return fmt.Sprintf("verdict %d", uint8(k))
}

// Answer is how a rejected packet's sender is told.
type Answer uint8

// The answers. AnswerAuto is a TCP reset for TCP, and port unreachable for others. The
// ICMP ones are sent as the nearest ICMPv6 message for IPv6, as nftables' icmpx does.
const (
	AnswerAuto Answer = iota
	AnswerTCPReset
	AnswerNetUnreachable
	AnswerHostUnreachable
	AnswerPortUnreachable
	AnswerAdminProhibited
)

var answerNames = [...]string{"auto", "tcp-reset", "icmp-net-unreachable", "icmp-host-unreachable", "icmp-port-unreachable", "icmp-admin-prohibited"}

// String is the answer as it is written in a file.
func (a Answer) String() string {
	if int(a) < len(answerNames) {
		return answerNames[a]
	}
	return fmt.Sprintf("answer %d", uint8(a))
}

// Verdict is what a rule says of a packet.
type Verdict struct {
	Kind Kind
	// Answer is for Reject.
	Answer Answer
	// Queue is for Queue.
	Queue uint16
	// Mark and Mask are for Mark: the packet's mark becomes mark&^Mask | Mark.
	Mark, Mask uint32
}

// String is the verdict as it is written in a file.
func (v Verdict) String() string {
	switch v.Kind {
	case Reject:
		if v.Answer != AnswerAuto {
			return "reject-with " + v.Answer.String()
		}
	case Mark:
		if v.Mask != ^uint32(0) {
			return fmt.Sprintf("mark %#x/%#x", v.Mark, v.Mask)
		}
		return fmt.Sprintf("mark %#x", v.Mark)
	case Queue:
		return fmt.Sprintf("queue %d", v.Queue)
	}
	return v.Kind.String()
}

// MarshalText writes the verdict as [Verdict.String] does.
func (v Verdict) MarshalText() ([]byte, error) { return []byte(v.String()), nil }
