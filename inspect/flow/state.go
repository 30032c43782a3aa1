package flow

import (
	"time"

	"inquest/inspect/packet"
)

// State is how far a flow has come. Each state has a timeout of its own, and its
// place in the order in which flows are given up when the table is full.
type State uint8

const (
	// Half: TCP of which no more is known than one side claims: a SYN, a SYN
	// answered by a SYN/ACK, or segments from the middle of a connection. All that a
	// flood from forged addresses can make.
	Half State = iota
	// OneWay: TCP whose other side is not seen here, though this side went on as if
	// it were answered.
	OneWay
	// Established: TCP of which both sides have acknowledged the other.
	Established
	// Closing: a FIN was sent by one side.
	Closing
	// Closed: both sides have sent a FIN, or one an RST.
	Closed
	// Unreplied: another protocol than TCP, packets of one side only.
	Unreplied
	// Replied: another protocol than TCP, packets of both sides.
	Replied

	numStates = iota
)

var stateNames = [numStates]string{"half", "one-way", "established", "closing", "closed", "unreplied", "replied"}

func (s State) String() string {
	if int(s) < len(stateNames) {
		return stateNames[s]
	}
	return "unknown"
}

// Timeouts says after how long without a packet a flow is forgotten, by state. A
// zero takes the default.
type Timeouts [numStates]time.Duration

// DefaultTimeouts are near those of Linux's conntrack where memory is not at stake,
// so that a flow is not forgotten here while the kernel still knows it, and shorter
// where a forged packet is enough to make a flow.
var DefaultTimeouts = Timeouts{
	Half:        30 * time.Second,
	OneWay:      30 * time.Minute,
	Established: 2 * time.Hour,
	Closing:     2 * time.Minute,
	Closed:      10 * time.Second,
	Unreplied:   30 * time.Second,
	Replied:     3 * time.Minute,
}

// eviction is the order in which states give way when a shard is full. Of those of
// one rank the one with the most flows does, so that a flood evicts its own kind.
var eviction = [...][]State{{Closed}, {Half, Unreplied}, {Closing}, {OneWay, Replied}, {Established}}

// tcpTrack is the little that is kept of a TCP connection: enough to tell its state,
// and a reset that can be meant from one that cannot.
type tcpTrack struct {
	next  [2]uint32 // the sequence number after the last byte of each side
	first [2]uint32 // that after its SYN
	seen  [2]side
}

type side uint8

const (
	sideAny side = 1 << iota // a segment
	sideSYN
	sideACK // a segment with ACK and without SYN
	sideFIN
	sideAnswer // a SYN/ACK, which says where the other side begins
)

// resetWindow bounds how far an RST may lie from what its sender sent last: window
// scaling is not followed, and the common largest receive buffers are a few MiB.
const resetWindow = 4 << 20

// reopens tells whether p begins a new connection on the ports of one that is over,
// or that was taken for one the other way around. Whether a connection is over whose end was
// not seen, or was an RST that its receiver may have ignored, only its server can tell:
// by a SYN/ACK with other numbers.
func (t *tcpTrack) reopens(s State, dir Dir, p *packet.Packet) bool {
	switch p.TCP.Flags & (packet.SYN | packet.ACK | packet.RST) {
	case packet.SYN:
		return t.seen[0]&t.seen[1]&sideFIN != 0 || s == Closed && t.seen[Reply] == 0 ||
			s == Half && dir == Reply && t.seen[Original]&sideSYN == 0
	case packet.SYN | packet.ACK:
		return dir == Reply && s != Half && p.TCP.Seq+1 != t.first[Reply] && p.TCP.Ack != t.first[Original]
	}
	return false
}

// knocks tells whether p is a SYN that may begin a new connection, if its receiver
// knows that this one is over.
func (t *tcpTrack) knocks(s State, dir Dir, p *packet.Packet) bool {
	return p.TCP.Flags&(packet.SYN|packet.ACK|packet.RST) == packet.SYN && s != Half &&
		(t.seen[dir]&sideSYN == 0 || p.TCP.Seq+1 != t.first[dir])
}

// unread tells that a packet's receiver does not look at its transport header.
func unread(p *packet.Packet) bool {
	return p.Anomalies&(packet.BadChecksum|packet.BadIPChecksum) != 0
}

// advance takes in a segment and returns the state that the connection is in then.
func (t *tcpTrack) advance(s State, dir Dir, p *packet.Packet) State {
	flags := p.TCP.Flags
	end := p.TCP.Seq + uint32(p.PayloadLen)
	if flags&packet.SYN != 0 {
		end++
	}
	if flags&packet.FIN != 0 {
		end++
	}
	seen := t.seen[dir]
	if flags&packet.RST != 0 {
		// An RST without ACK that answers a segment takes its number from there, so
		// the reset's own side need not have sent anything yet.
		off := int32(p.TCP.Seq - t.next[dir])
		if seen&^sideAny == 0 || off >= -resetWindow && off <= resetWindow {
			return Closed
		}
		return s
	}
	advanced := int32(end-t.next[dir]) > 0
	if seen == 0 || advanced {
		t.next[dir] = end
	}
	bits := sideAny
	if flags&packet.SYN != 0 {
		bits |= sideSYN
		if t.synchronize(dir, p) {
			bits |= sideAnswer
		}
	} else if flags&packet.ACK != 0 {
		bits |= sideACK
	}
	if flags&packet.FIN != 0 {
		bits |= sideFIN
	}
	t.seen[dir] = seen | bits
	if s == Closed {
		return Closed
	}
	both := t.seen[0] | t.seen[1]
	switch {
	case t.seen[0]&t.seen[1]&sideFIN != 0:
		return Closed
	case both&sideFIN != 0 && s != Half:
		return Closing
	case s == Half && t.acknowledges(dir, p):
		return Established
	case s == Half && t.seen[Reply] == 0 && seen&sideSYN != 0 && bits&sideACK != 0 && p.PayloadLen > 0:
		return OneWay
	case s == OneWay && t.acknowledges(dir, p):
		return Established
	}
	return s
}

// synchronize takes in a SYN or SYN/ACK. Of several SYNs with different numbers, some
// of which the other side may never have seen, it is the answered one that counts.
// It tells whether p is the answer.
func (t *tcpTrack) synchronize(dir Dir, p *packet.Packet) bool {
	if t.seen[1-dir]&sideAnswer == 0 && (t.seen[1-dir]&sideSYN == 0 || t.seen[dir]&(sideSYN|sideACK) == 0) {
		t.first[dir] = p.TCP.Seq + 1
	}
	if t.seen[dir]&sideSYN == 0 && p.TCP.Flags&packet.ACK != 0 && (t.seen[1-dir] == 0 || t.seen[1-dir]&sideSYN != 0) {
		t.first[1-dir] = p.TCP.Ack
		return true
	}
	return false
}

// acknowledges tells whether p, now that both sides were seen, proves that its
// sender has heard the other: that is what an address that is forged cannot do. The
// number of a SYN/ACK has to be met exactly, one from the middle of a connection
// nearly.
func (t *tcpTrack) acknowledges(dir Dir, p *packet.Packet) bool {
	other := t.seen[1-dir]
	if other == 0 || p.TCP.Flags&(packet.SYN|packet.ACK) != packet.ACK {
		return false
	}
	off := int32(p.TCP.Ack - t.next[1-dir])
	if other&sideACK == 0 {
		return off == 0
	}
	return off >= -resetWindow && off <= resetWindow
}
