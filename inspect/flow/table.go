package flow

import (
	"hash/maphash"
	"math/bits"
	"runtime"
	"sync"
	"time"
	"unsafe"

	"inquest/inspect/packet"
)

// Flow is what a Table keeps of one flow. It may be used only between the Table's
// handing it out and the Ref's Release, or inside Config.Removed.
type Flow[V any] struct {
	Key Key
	// Seen is when the last packet came, Started when the first did.
	Seen int64
	// stamp is when the flow was last moved to its list's end, in ticks.
	stamp uint32
	hash  uint32
	state State
	// swapped: the original direction's source is the key's higher endpoint.
	swapped bool

	// Packets and Bytes count per direction, Bytes by the IP headers' lengths.
	Packets, Bytes [2]uint64
	// Value belongs to the Table's user. A type without pointers keeps the garbage
	// collector from looking into the flows at all.
	Value   V
	Started int64

	tcp tcpTrack

	// The flows of one state in one shard are a list, oldest first.
	prev, next uint32
}

// State returns how far the flow has come.
func (f *Flow[V]) State() State { return f.state }

// FirstSeq returns the sequence number of the first byte of a side of a TCP
// connection; ok is false when neither its SYN nor the answer to that was seen.
func (f *Flow[V]) FirstSeq(d Dir) (seq uint32, ok bool) {
	return f.tcp.first[d], f.tcp.seen[d]&sideSYN != 0 || f.tcp.seen[1-d]&sideAnswer != 0
}

// NextSeq returns the sequence number after the last byte that a side of a TCP
// connection was seen to send; ok is false when nothing of that side was seen.
func (f *Flow[V]) NextSeq(d Dir) (seq uint32, ok bool) {
	return f.tcp.next[d], f.tcp.seen[d] != 0
}

// Tuple returns who talks to whom, in the original direction. It has no ports where
// the protocol has none.
func (f *Flow[V]) Tuple() packet.Tuple {
	t := f.Key.tuple()
	if p := f.Key.Proto(); p == packet.ProtoICMP || p == packet.ProtoICMPv6 {
		t.SrcPort, t.DstPort = 0, 0
	}
	if f.swapped {
		t = t.Reverse()
	}
	return t
}

// Config says how large a Table may become and when it forgets. The zero value is
// useful.
type Config[V any] struct {
	// MaxFlows is the most flows that are kept; 0 means DefaultMaxFlows. It is
	// divided among the shards, so that a few less may be reached.
	MaxFlows int
	// Timeouts by state; zeros take the DefaultTimeouts.
	Timeouts Timeouts
	// Shards is rounded up to a power of two; 0 means eight for each CPU that Go
	// uses.
	Shards int
	// Removed is called, with the flow's shard locked, for each flow that leaves
	// the table.
	Removed func(f *Flow[V], why Reason)
}

// DefaultMaxFlows is what Linux's conntrack takes on a machine with 4 GiB or more.
const DefaultMaxFlows = 262144

// Reason is why a flow left the table.
type Reason uint8

const (
	// Expired: no packet came for the timeout of its state.
	Expired Reason = iota
	// Evicted: the table was full.
	Evicted
	// Reopened: a new connection began on the ports of one that was closed.
	Reopened

	numReasons = iota
)

// Table holds flows. Its methods may be called at the same time.
//
// Flows are found through an open-addressing index of (hash, number) pairs and live
// in slabs that never move, so that neither growing nor the garbage collector costs
// what the flows' number squared does. The hash is seeded anew for each table: who
// sends packets cannot choose keys that collide.
type Table[V any] struct {
	seed   maphash.Seed
	shift  uint
	shards []shard[V]
}

// NewTable returns an empty table.
func NewTable[V any](cfg Config[V]) *Table[V] {
	if cfg.MaxFlows <= 0 {
		cfg.MaxFlows = DefaultMaxFlows
	}
	n := cfg.Shards
	if n <= 0 {
		n = 8 * runtime.GOMAXPROCS(0)
	}
	n = 1 << bits.Len(uint(min(n, 1<<12)-1))
	for n > cfg.MaxFlows {
		n >>= 1
	}
	t := &Table[V]{seed: maphash.MakeSeed(), shards: make([]shard[V], n), shift: uint(64 - bits.TrailingZeros(uint(n)))}
	for i := range t.shards {
		s := &t.shards[i]
		s.max = max(1, min(cfg.MaxFlows/n, 1<<31))
		s.removed = cfg.Removed
		for state := range numStates {
			d := cfg.Timeouts[state]
			if d <= 0 {
				d = DefaultTimeouts[state]
			}
			s.lists[state].timeout = int64(d)
			s.lists[state].lag = ticks(int64(d) / 8)
		}
	}
	return t
}

// Ref is a flow with its shard locked. Release it soon: other workers may wait.
type Ref[V any] struct {
	// Flow is nil when the packet belongs to no flow, or was only looked up and not
	// found.
	Flow *Flow[V]
	// Dir is the packet's direction in the flow.
	Dir Dir
	// Created tells that the packet began the flow.
	Created bool
	// Knocks tells that the packet is a SYN of another connection on the ports of this
	// one, whose end was not seen. If its receiver answers it, the answer begins
	// another flow; until then this one is as it was.
	Knocks bool

	shard *shard[V]
}

// Release unlocks the flow's shard; the Flow may not be used after it.
func (r Ref[V]) Release() {
	if r.shard != nil {
		r.shard.mu.Unlock()
	}
}

// Remove takes the flow out of the table; the Flow may not be used after it.
func (r Ref[V]) Remove(why Reason) { r.shard.remove(r.shard.id(r.Flow), why) }

// Track returns the flow that p belongs to, made if it is not there, and counts p
// in. The first packet's direction is the original one, unless it is a SYN/ACK. The time now is in nanoseconds of any clock that does not run backwards. With
// each packet at most a few flows that have timed out are removed. A TCP segment that
// was found to have a bad checksum tells nothing of its connection.
func (t *Table[V]) Track(p *packet.Packet, now int64) Ref[V] {
	k, swapped, ok := KeyOf(p)
	if !ok {
		return Ref[V]{}
	}
	s, hash := t.shard(&k)
	s.mu.Lock()
	s.sweep(now, sweepPerPacket)
	id := s.find(hash, &k)
	created := false
	if id != 0 {
		f := s.at(id)
		switch dir := f.dir(swapped); {
		case now-f.Seen >= s.lists[f.state].timeout:
			s.remove(id, Expired)
			id = 0
		case k.Proto() == packet.ProtoTCP && !unread(p) && f.tcp.reopens(f.state, dir, p):
			s.remove(id, Reopened)
			id = 0
		}
	}
	if id == 0 {
		created = true
		answer := k.Proto() == packet.ProtoTCP && p.TCP.Flags&(packet.SYN|packet.ACK) == packet.SYN|packet.ACK
		id = s.create(hash, &k, swapped != answer, now)
	}
	f := s.at(id)
	dir := f.dir(swapped)
	f.Seen = now
	f.Packets[dir]++
	f.Bytes[dir] += uint64(p.Len)
	state := f.state
	knocks := false
	switch {
	case k.Proto() == packet.ProtoTCP && unread(p):
	case k.Proto() == packet.ProtoTCP && f.tcp.knocks(state, dir, p):
		knocks = true
	case k.Proto() == packet.ProtoTCP:
		state = f.tcp.advance(state, dir, p)
	case dir == Reply:
		state = Replied
	}
	if state != f.state || ticks(now)-f.stamp > s.lists[state].lag {
		s.move(id, state, now)
	}
	return Ref[V]{Flow: f, Dir: dir, Created: created, Knocks: knocks, shard: s}
}

// dir returns the direction of a packet whose source is the key's higher endpoint if
// swapped.
func (f *Flow[V]) dir(swapped bool) Dir {
	if f.swapped != swapped {
		return Reply
	}
	return Original
}

// Lookup returns the flow that p belongs to, if the table has it, and changes
// nothing.
func (t *Table[V]) Lookup(p *packet.Packet, now int64) Ref[V] {
	k, swapped, ok := KeyOf(p)
	if !ok {
		return Ref[V]{}
	}
	s, hash := t.shard(&k)
	s.mu.Lock()
	if id := s.find(hash, &k); id != 0 {
		if f := s.at(id); now-f.Seen < s.lists[f.state].timeout {
			return Ref[V]{Flow: f, Dir: f.dir(swapped), shard: s}
		}
	}
	s.mu.Unlock()
	return Ref[V]{}
}

// Expire removes all flows that have timed out. Track does the same bit by bit, so
// this is for times without packets.
func (t *Table[V]) Expire(now int64) {
	for i := range t.shards {
		s := &t.shards[i]
		for more := true; more; {
			s.mu.Lock()
			more = s.sweep(now, 256)
			s.mu.Unlock()
		}
	}
}

// Each calls f for every flow until it returns false, a shard locked at a time; f
// must not call the table.
func (t *Table[V]) Each(f func(f *Flow[V]) bool) {
	for i := range t.shards {
		if !t.shards[i].each(f) {
			return
		}
	}
}

// Stats counts what a Table holds and did.
type Stats struct {
	Flows   int            // now
	States  [numStates]int // now, by State
	Created uint64         // since the table was made
	Removed [numReasons]uint64
	// Evicted counts by the state the flow was in.
	Evicted [numStates]uint64
	// Memory is what the table takes, in bytes; it does not shrink.
	Memory int64
}

// Stats sums up all shards.
func (t *Table[V]) Stats() Stats {
	var sum Stats
	for i := range t.shards {
		s := &t.shards[i]
		s.mu.Lock()
		sum.Flows += s.used
		for state := range s.lists {
			sum.States[state] += s.lists[state].len
			sum.Evicted[state] += s.evicted[state]
		}
		sum.Created += s.created
		for why, n := range s.removals {
			sum.Removed[why] += n
		}
		sum.Memory += int64(unsafe.Sizeof(*s)) + int64(len(s.index))*8 + int64(len(s.slabs))*int64(slabSize*unsafe.Sizeof(Flow[V]{}))
		s.mu.Unlock()
	}
	return sum
}

// Timeout returns after how long a flow of the state is forgotten.
func (t *Table[V]) Timeout(s State) time.Duration { return time.Duration(t.shards[0].lists[s].timeout) }

func (t *Table[V]) shard(k *Key) (*shard[V], uint32) {
	h := maphash.Bytes(t.seed, k[:])
	// The shard by the upper bits, the place in its index by the lower ones.
	return &t.shards[h>>t.shift], uint32(h)
}

// shard is a part of the table with a lock of its own.
type shard[V any] struct {
	mu    sync.Mutex
	index []slot // its length is a power of two
	slabs []*[slabSize]Flow[V]
	free  uint32 // list of free flows, through next
	used  int
	max   int
	lists [numStates]list

	removed  func(*Flow[V], Reason)
	created  uint64
	removals [numReasons]uint64
	evicted  [numStates]uint64

	_ [64]byte // no two locks on one cache line
}
