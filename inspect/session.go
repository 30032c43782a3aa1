package inspect

import (
	"sync"
	"sync/atomic"
	"unsafe"

	"inquest/inspect/app"
	"inquest/inspect/flow"
	"inquest/inspect/rule"
)

// session is what is kept of a flow whose payload is looked at.
type session struct {
	mu sync.Mutex
	// serial tells the flow that the session belongs to from those before and after.
	serial uint32
	// touched: used again since the hand of the clock came by.
	touched atomic.Bool

	inspection app.Inspection
	scan       app.Scan
	generation uint32 // of the patterns that scan belongs to
	searched   int    // bytes, both directions
	streams    [2]flow.Stream
	begun      [2]bool
	// lost bytes were handed on by a stream, but not shown to the inspection.
	lost [2]int
	held [2]held
	syn  syn
	// over: there is nothing more to be learnt. counted: in Counters.Apps.
	over, counted bool
}

// held is a direction of a stream in which a segment with new bytes was dropped. The
// receiver sees nothing that comes after it, until it is sent again and let through.
type held struct {
	on      bool
	seq     uint32
	outcome rule.Outcome
}

// syn is payload that came on a SYN. A server without TCP Fast Open, or not given its
// cookie, does not read it: what was learnt of it holds only if it is acknowledged.
type syn struct {
	on  bool
	dir flow.Dir
	end uint32
}

// close gives back what the session holds, but for the facts.
func (s *session) close(limits *flow.Limits) {
	s.inspection.Close()
	for d := range s.streams {
		s.streams[d].Close(limits)
	}
}

const (
	sessionSlab = 64
	sessionSize = int64(unsafe.Sizeof(session{}))

	// clockSteps bounds how many sessions are passed over to find one to take away.
	clockSteps = 64
)

// sessions is the bounded store of all sessions. Flows name theirs by number and
// serial: when all are in use one is taken from a flow that has not used it lately,
// and that flow finds the serial changed. First of those go the sessions that were
// used once, as a flood's are.
type sessions struct {
	slabs  atomic.Pointer[[]*[sessionSlab]session]
	limits *flow.Limits

	mu    sync.Mutex
	free  []uint32
	max   int
	hand  uint32
	used  int
	taken uint64
}

// get returns number id, or nil when it belongs to another flow by now. It is locked:
// put it back with s.mu.Unlock.
func (ss *sessions) get(id, serial uint32) *session {
	slabs := *ss.slabs.Load()
	s := &slabs[(id-1)/sessionSlab][(id-1)%sessionSlab]
	s.mu.Lock()
	if s.serial != serial {
		s.mu.Unlock()
		return nil
	}
	s.touched.Store(true)
	return s
}

// add returns a session that is ready for a flow, locked; nil when there is none.
func (ss *sessions) add() (s *session, id uint32) {
	ss.mu.Lock()
	defer ss.mu.Unlock()
	if len(ss.free) == 0 && !ss.grow() {
		if s, id = ss.take(); s == nil {
			return nil, 0
		}
	} else {
		id = ss.free[len(ss.free)-1]
		ss.free = ss.free[:len(ss.free)-1]
		slabs := *ss.slabs.Load()
		s = &slabs[(id-1)/sessionSlab][(id-1)%sessionSlab]
		s.mu.Lock()
		ss.used++
	}
	s.touched.Store(false)
	return s, id
}

// grow adds a slab if the bound allows one.
func (ss *sessions) grow() bool {
	old := *ss.slabs.Load()
	n := len(old) * sessionSlab
	if n >= ss.max {
		return false
	}
	slabs := append(old[:len(old):len(old)], new([sessionSlab]session))
	ss.slabs.Store(&slabs)
	for id := min(n+sessionSlab, ss.max); id > n; id-- {
		ss.free = append(ss.free, uint32(id))
	}
	return true
}

// take takes a session away from its flow.
func (ss *sessions) take() (*session, uint32) {
	slabs := *ss.slabs.Load()
	for range clockSteps {
		id := ss.hand%uint32(ss.max) + 1
		ss.hand++
		s := &slabs[(id-1)/sessionSlab][(id-1)%sessionSlab]
		if !s.mu.TryLock() {
			continue
		}
		if s.touched.Load() {
			s.touched.Store(false)
			s.mu.Unlock()
			continue
		}
		ss.reset(s)
		ss.taken++
		return s, id
	}
	return nil, 0
}

// reset makes s ready for another flow.
func (ss *sessions) reset(s *session) {
	s.close(ss.limits)
	serial := s.serial + 1
	s.inspection.Facts = app.Facts{}
	s.scan, s.generation, s.searched = app.Scan{}, 0, 0
	s.begun, s.lost, s.held, s.syn = [2]bool{}, [2]int{}, [2]held{}, syn{}
	s.over, s.counted = false, false
	s.serial = serial
}

// remove ends the session of a flow, if it is still that flow's.
func (ss *sessions) remove(id, serial uint32) {
	ss.mu.Lock()
	defer ss.mu.Unlock()
	slabs := *ss.slabs.Load()
	s := &slabs[(id-1)/sessionSlab][(id-1)%sessionSlab]
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.serial != serial {
		return
	}
	ss.reset(s)
	ss.free = append(ss.free, id)
	ss.used--
}

// crowded tells that sessions should not be kept only because they may be useful.
func (ss *sessions) crowded() bool {
	ss.mu.Lock()
	defer ss.mu.Unlock()
	return ss.used > ss.max/2
}
