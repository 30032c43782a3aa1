package nfqueue

import "encoding/binary"

// Netlink headers are in the machine's byte order, everything inside
// nfnetlink's attributes is in the network's.
var (
	native  = binary.NativeEndian
	network = binary.BigEndian
)

const (
	headerLen  = 16 // struct nlmsghdr: len u32, type u16, flags u16, seq u32, pid u32
	genLen     = 4  // struct nfgenmsg: family u8, version u8, res_id be16
	attrHeader = 4  // struct nlattr: len u16, type u16

	flagRequest = 0x1 // NLM_F_REQUEST
	flagAck     = 0x4 // NLM_F_ACK

	typeNoop  = 0x1 // NLMSG_NOOP
	typeError = 0x2 // NLMSG_ERROR

	attrTypeMask = 0x3fff // without NLA_F_NESTED and NLA_F_NET_BYTEORDER
	nested       = 0x8000
)

// Messages of <linux/netfilter/nfnetlink_queue.h>; the upper byte is
// NFNL_SUBSYS_QUEUE.
const (
	typePacket  = 3 << 8
	typeVerdict = 3<<8 | 1
	typeConfig  = 3<<8 | 2
	typeBatch   = 3<<8 | 3
)

// Attributes of a packet and of a verdict, enum nfqnl_attr_type.
const (
	attrPacketHdr  = 1
	attrVerdictHdr = 2
	attrMark       = 3
	attrTimestamp  = 4
	attrIn         = 5
	attrOut        = 6
	attrPhysIn     = 7
	attrPhysOut    = 8
	attrHWAddr     = 9
	attrPayload    = 10
	attrCT         = 11
	attrCTInfo     = 12
	attrCapLen     = 13
	attrSkbInfo    = 14
	attrUID        = 16
	attrGID        = 17
	attrSecCtx     = 18
	attrVLAN       = 19
	attrL2Header   = 20
	attrPriority   = 21 // since 5.18

	attrVLANProto = 1
	attrVLANTCI   = 2
)

// Attributes of a configuration, enum nfqnl_attr_config.
const (
	cfgCmd    = 1
	cfgParams = 2
	cfgMaxLen = 3
	cfgMask   = 4
	cfgFlags  = 5

	cmdBind   = 1
	cmdUnbind = 2
	cmdPFBind = 3

	flagFailOpen  = 1 << 0
	flagConntrack = 1 << 1
	flagGSO       = 1 << 2
	flagUIDGID    = 1 << 3
	flagSecCtx    = 1 << 4
)

func align(n int) int { return (n + 3) &^ 3 }

// message appends the headers of a message for a queue and returns where it
// begins, for end.
func message(b []byte, typ, flags uint16, seq uint32, queue uint16) ([]byte, int) {
	start := len(b)
	b = native.AppendUint32(b, 0)
	b = native.AppendUint16(b, typ)
	b = native.AppendUint16(b, flags)
	b = native.AppendUint32(b, seq)
	b = native.AppendUint32(b, 0)
	b = append(b, 0, 0) // AF_UNSPEC, NFNETLINK_V0
	return network.AppendUint16(b, queue), start
}

// end writes the length of the message that begins at start.
func end(b []byte, start int) []byte {
	native.PutUint32(b[start:], uint32(len(b)-start))
	return b
}

func attr32(b []byte, typ uint16, v uint32) []byte {
	b = native.AppendUint16(b, attrHeader+4)
	b = native.AppendUint16(b, typ)
	return network.AppendUint32(b, v)
}

func attrBytes(b []byte, typ uint16, v []byte) []byte {
	b = native.AppendUint16(b, uint16(attrHeader+len(v)))
	b = native.AppendUint16(b, typ)
	b = append(b, v...)
	for i := len(v); i < align(len(v)); i++ {
		b = append(b, 0)
	}
	return b
}

// appendVerdict appends v for one packet. The id is the sequence number too,
// which is what a trace of netlink messages shows of errors.
func appendVerdict(b []byte, queue uint16, id uint32, v *Verdict) []byte {
	b, start := message(b, typeVerdict, flagRequest, id, queue)
	b = appendVerdictHeader(b, id, v)
	if v.has&hasConnmark != 0 {
		b = native.AppendUint16(b, attrHeader+16)
		b = native.AppendUint16(b, attrCT|nested)
		b = attr32(b, ctMark, v.connmark)
		b = attr32(b, ctMarkMask, v.connmask)
	}
	if v.has&hasPayload != 0 {
		b = attrBytes(b, attrPayload, v.payload)
	}
	return end(b, start)
}

// appendBatch appends v, which must be plain, for all packets that are queued
// and whose id is not after id (as a signed 32-bit difference).
func appendBatch(b []byte, queue uint16, id uint32, v *Verdict) []byte {
	b, start := message(b, typeBatch, flagRequest, id, queue)
	return end(appendVerdictHeader(b, id, v), start)
}

func appendVerdictHeader(b []byte, id uint32, v *Verdict) []byte {
	b = native.AppendUint16(b, attrHeader+8)
	b = native.AppendUint16(b, attrVerdictHdr)
	b = network.AppendUint32(b, v.wire())
	b = network.AppendUint32(b, id)
	if v.has&hasMark != 0 {
		b = attr32(b, attrMark, v.mark)
	}
	return b
}

func appendCommand(b []byte, command uint8, family uint16) []byte {
	b = native.AppendUint16(b, attrHeader+4)
	b = native.AppendUint16(b, cfgCmd)
	b = append(b, command, 0)
	return network.AppendUint16(b, family)
}

// appendBind appends one message that binds the queue with all its parameters:
// there is no moment in which the kernel queues packets with others.
func appendBind(b []byte, queue uint16, c *Config) []byte {
	b, start := message(b, typeConfig, flagRequest, 0, queue)
	b = appendCommand(b, cmdBind, 0)
	b = native.AppendUint16(b, attrHeader+5)
	b = native.AppendUint16(b, cfgParams)
	b = network.AppendUint32(b, c.CopyRange)
	b = append(b, uint8(c.Mode.wire()), 0, 0, 0)
	b = attr32(b, cfgMaxLen, c.MaxLen)
	b = appendFlags(b, c.flags(), c.flags())
	return end(b, start)
}

func appendFlags(b []byte, flags, mask uint32) []byte {
	if mask == 0 {
		return b
	}
	b = attr32(b, cfgFlags, flags)
	return attr32(b, cfgMask, mask)
}

// appendRefuse appends a message after which the kernel queues no packet any
// more: each finds the queue full, and passes or is dropped.
func appendRefuse(b []byte, queue uint16, pass bool) []byte {
	b, start := message(b, typeConfig, flagRequest, 0, queue)
	flags := uint32(0)
	if pass {
		flags = flagFailOpen
	}
	b = appendFlags(b, flags, flagFailOpen)
	return end(attr32(b, cfgMaxLen, 0), start)
}

func appendUnbind(b []byte, queue uint16) []byte {
	b, start := message(b, typeConfig, flagRequest, 0, queue)
	return end(appendCommand(b, cmdUnbind, 0), start)
}

// appendNoop appends a message that does nothing but be acknowledged.
func appendNoop(b []byte) []byte {
	b, start := message(b, typeNoop, flagRequest|flagAck, 0, 0)
	return end(b, start)
}
