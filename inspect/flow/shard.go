package flow

import "inquest/inspect/packet"

const (
	slabSize = 256
	minIndex = 64

	// sweepPerPacket is how many flows a packet may have to remove. More than one,
	// so that the table empties faster than it can be filled.
	sweepPerPacket = 2
)

// slot is an entry of the index: which flow (0: none), and its hash, so that a probe
// rarely looks at a flow that is not the one.
type slot struct{ hash, id uint32 }

// list is the flows of one state in the order of their stamps. A flow is moved to
// the end not with each packet, which would cost two cache misses, but when its
// stamp is lag old; so the order is that of the last packets but for lag.
type list struct {
	first, last uint32
	len         int
	timeout     int64
	// due is when the first flow can time out at the earliest, so that a packet that
	// comes before need not look at that flow.
	due int64
	lag uint32 // ticks
}

// ticks is time in units of 2^20 ns, about a millisecond. They wrap after 52 days,
// which only differences are taken of.
func ticks(now int64) uint32 { return uint32(now >> 20) }

// Flows are numbered from 1; at returns number id.
func (s *shard[V]) at(id uint32) *Flow[V] { return &s.slabs[(id-1)/slabSize][(id-1)%slabSize] }

// id returns the number of f.
func (s *shard[V]) id(f *Flow[V]) uint32 { return s.find(f.hash, &f.Key) }

func (s *shard[V]) find(hash uint32, k *Key) uint32 {
	if len(s.index) == 0 {
		return 0
	}
	mask := uint32(len(s.index) - 1)
	for i := hash & mask; ; i = (i + 1) & mask {
		e := s.index[i]
		if e.id == 0 {
			return 0
		}
		if e.hash == hash && s.at(e.id).Key == *k {
			return e.id
		}
	}
}

// create makes room for a flow, if need be by evicting another, and fills it in.
func (s *shard[V]) create(hash uint32, k *Key, swapped bool, now int64) uint32 {
	if s.used >= s.max {
		s.evict()
	}
	if s.free == 0 {
		s.addSlab()
	}
	if (s.used+1)*4 > len(s.index)*3 {
		s.growIndex()
	}
	id := s.free
	f := s.at(id)
	s.free = f.next
	*f = Flow[V]{Key: *k, Started: now, Seen: now, hash: hash, swapped: swapped, state: Unreplied}
	if k.Proto() == packet.ProtoTCP {
		f.state = Half
	}
	s.insert(slot{hash, id})
	s.link(id, now)
	s.used++
	s.created++
	return id
}

func (s *shard[V]) addSlab() {
	slab := new([slabSize]Flow[V])
	base := uint32(len(s.slabs)*slabSize) + 1
	s.slabs = append(s.slabs, slab)
	for i := range uint32(slabSize - 1) {
		slab[i].next = base + i + 1
	}
	s.free = base
}

func (s *shard[V]) growIndex() {
	old := s.index
	s.index = make([]slot, max(minIndex, 2*len(old)))
	for _, e := range old {
		if e.id != 0 {
			s.insert(e)
		}
	}
}

func (s *shard[V]) insert(e slot) {
	mask := uint32(len(s.index) - 1)
	i := e.hash & mask
	for s.index[i].id != 0 {
		i = (i + 1) & mask
	}
	s.index[i] = e
}

// remove takes a flow out. The slots after it that probed past it move up (Knuth's
// algorithm R), so no marks of removed flows pile up.
func (s *shard[V]) remove(id uint32, why Reason) {
	f := s.at(id)
	if s.removed != nil {
		s.removed(f, why)
	}
	s.removals[why]++
	if why == Evicted {
		s.evicted[f.state]++
	}
	s.unlink(id)

	mask := uint32(len(s.index) - 1)
	i := f.hash & mask
	for s.index[i].id != id {
		i = (i + 1) & mask
	}
	for j := i; ; {
		j = (j + 1) & mask
		e := s.index[j]
		if e.id == 0 {
			break
		}
		// e may move to i if its home is not between the two, cyclically.
		if (j-e.hash&mask)&mask >= (j-i)&mask {
			s.index[i] = e
			i = j
		}
	}
	s.index[i] = slot{}

	*f = Flow[V]{next: s.free}
	s.free = id
	s.used--
}

// evict gives up the flow that is missed least.
func (s *shard[V]) evict() {
	for _, rank := range eviction {
		most := rank[0]
		for _, state := range rank[1:] {
			if s.lists[state].len > s.lists[most].len {
				most = state
			}
		}
		if id := s.lists[most].first; id != 0 {
			s.remove(id, Evicted)
			return
		}
	}
}

// sweep removes at most n flows that have timed out and tells whether there may be
// more.
func (s *shard[V]) sweep(now int64, n int) bool {
	for i := range s.lists {
		l := &s.lists[i]
		for now >= l.due && l.first != 0 {
			if f := s.at(l.first); now-f.Seen < l.timeout {
				l.due = f.Seen + l.timeout
				break
			}
			if n == 0 {
				return true
			}
			s.remove(l.first, Expired)
			n--
		}
	}
	return false
}

func (s *shard[V]) link(id uint32, now int64) {
	f := s.at(id)
	l := &s.lists[f.state]
	f.stamp = ticks(now)
	f.prev, f.next = l.last, 0
	if l.last != 0 {
		s.at(l.last).next = id
	} else {
		l.first = id
		l.due = now + l.timeout
	}
	l.last = id
	l.len++
}

func (s *shard[V]) unlink(id uint32) {
	f := s.at(id)
	l := &s.lists[f.state]
	if f.prev != 0 {
		s.at(f.prev).next = f.next
	} else {
		l.first = f.next
	}
	if f.next != 0 {
		s.at(f.next).prev = f.prev
	} else {
		l.last = f.prev
	}
	l.len--
}

// move puts a flow at the end of a state's list.
func (s *shard[V]) move(id uint32, state State, now int64) {
	s.unlink(id)
	s.at(id).state = state
	s.link(id, now)
}

func (s *shard[V]) each(f func(*Flow[V]) bool) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range s.lists {
		for id := s.lists[i].first; id != 0; id = s.at(id).next {
			if !f(s.at(id)) {
				return false
			}
		}
	}
	return true
}
