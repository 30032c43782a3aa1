package nfqueue

import (
	"bytes"
	"fmt"
	"net"
	"time"
)

// A Packet is what the kernel shows of one queued packet. It and all it points
// to are valid until the handler returns: Clone what is needed later, and Hold
// to give the verdict later.
type Packet struct {
	ID       uint32 // unique among those queued; counts up from 1, and wraps
	Queue    uint16
	Protocol uint16 // EtherType of the payload: 0x0800 IPv4, 0x86dd IPv6
	Family   uint8  // 2 IPv4, 10 IPv6, 7 bridge: of the table that queued it
	Hook     Hook
	Info     Info

	Mark     uint32
	Priority uint32 // skb->priority (5.18)

	// Interface indexes; 0: none, or not known at this hook. PhysIn and PhysOut
	// are ports of a bridge, when In and Out are the bridge.
	In, Out, PhysIn, PhysOut uint32

	// HWAddr is the sender's hardware address on incoming packets, L2Header
	// (4.7) the whole link layer header and VLAN the tag of bridged ones.
	HWAddr   net.HardwareAddr
	L2Header []byte
	VLAN     VLAN

	// Timestamp is when the packet came in; zero if the kernel did not look at
	// the clock, see Config.Timestamps. Received is when this program got
	// it, on the clock of Now.
	Timestamp time.Time
	Received  int64

	// Payload is the packet from its network header on, cut to
	// Config.CopyRange. Len is the length it has in the kernel; with CopyMeta
	// it is 0, as the kernel does not tell.
	Payload []byte
	Len     int

	// UID and GID own the socket of the packet, if HasOwner.
	UID, GID uint32
	HasOwner bool
	SecCtx   []byte // security label of the socket

	hasCT  bool
	ctInfo uint32
	ct     []byte

	queue *queue
	held  bool
}

// VLAN is an 802.1Q or 802.1ad tag; the zero VLAN is none.
type VLAN struct {
	Protocol uint16 // EtherType: 0x8100, 0x88a8
	TCI      uint16
}

// Hook is where in the kernel a packet was queued, as NF_INET_PRE_ROUTING.
type Hook uint8

// The hooks.
const (
	PreRouting Hook = iota
	LocalIn
	Forward
	LocalOut
	PostRouting
	Ingress
)

func (h Hook) String() string {
	names := [...]string{"prerouting", "input", "forward", "output", "postrouting", "ingress"}
	if int(h) < len(names) {
		return names[h]
	}
	return fmt.Sprintf("hook %d", uint8(h))
}

// Info tells what is unusual about a packet, NFQA_SKB_INFO.
type Info uint8

// The bits of an Info.
const (
	// ChecksumNotReady: a packet made here, whose transport checksum is filled
	// in by the device. It looks wrong and is right (GSO only).
	ChecksumNotReady Info = 1 << iota
	// Segments: a packet larger than the device's MTU, to be segmented on its way.
	Segments
	// ChecksumNotVerified: the device has not checked the checksum.
	ChecksumNotVerified
)

// Truncated reports whether Payload is not the whole packet.
func (p *Packet) Truncated() bool { return p.Len > len(p.Payload) }

// Hold lets the verdict be given later, by Held.Judge, from any goroutine and
// in any order. What the handler returns for the packet is then ignored; by
// custom it is the zero Verdict. Holding twice gives the same Held.
//
// A packet held takes one of the Config.MaxLen places of the kernel's queue,
// and while any is held, verdicts of later packets cannot be batched: hold
// briefly. Packet and Payload do not outlive the handler all the same.
func (p *Packet) Hold() Held {
	if p.queue == nil {
		return Held{}
	}
	return p.queue.hold(p)
}

// Clone returns a copy of the packet that stays valid. The copy cannot be held.
func (p *Packet) Clone() *Packet {
	c := *p
	c.HWAddr = bytes.Clone(p.HWAddr)
	c.L2Header = bytes.Clone(p.L2Header)
	c.Payload = bytes.Clone(p.Payload)
	c.SecCtx = bytes.Clone(p.SecCtx)
	c.ct = bytes.Clone(p.ct)
	c.queue = nil
	return &c
}

// epoch makes Now monotonic.
var epoch = time.Now()

// Now is a monotonic clock in nanoseconds, the one of Packet.Received.
func Now() int64 { return int64(time.Since(epoch)) }
