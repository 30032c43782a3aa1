package flow

import (
	"slices"
	"sync/atomic"
)

// Policy says which bytes count when segments overlap and do not agree, as far as
// they still wait for a hole before them to be filled. Bytes that were handed on
// cannot be taken back: there the first always count, as they do in every TCP.
//
// Hosts differ, and who knows the host can show it one stream and an inspector
// another; Ptacek and Newsham (1998) described it, Novak and Sturges (2007) measured
// who does what.
type Policy uint8

const (
	// Linux: the segment that begins earlier counts; of two that begin together the
	// longer, else the first (tcp_data_queue_ofo() in net/ipv4/tcp_input.c since
	// 4.9, commit 9f5afeae5152; a test holds this against the kernel it runs on). The
	// BSDs do so but for two that begin together, where the first counts. That Linux
	// may merge a segment with one that it follows without a gap, and so make it begin
	// earlier, is not imitated: whether it does depends on the order of its search.
	Linux Policy = iota
	// First: what came first counts. Windows since Vista.
	First
	// Last: what came last counts. No common system does so; it tells what another
	// reader of the same segments would have seen.
	Last
)

func (p Policy) String() string {
	switch p {
	case Linux:
		return "linux"
	case First:
		return "first"
	case Last:
		return "last"
	}
	return "unknown"
}

// Budget bounds the bytes that all streams which share it hold. It is safe for
// concurrent use.
type Budget struct {
	max  int64
	used atomic.Int64
}

// NewBudget returns a budget of max bytes.
func NewBudget(max int64) *Budget { return &Budget{max: max} }

// Used returns how many bytes are held.
func (b *Budget) Used() int64 { return b.used.Load() }

// Take tells whether n more bytes may be held, and counts them if so.
func (b *Budget) Take(n int) bool {
	if b.used.Add(int64(n)) <= b.max {
		return true
	}
	b.used.Add(-int64(n))
	return false
}

// Give returns n bytes that were taken.
func (b *Budget) Give(n int) { b.used.Add(-int64(n)) }

// Limits bound what one Stream holds while it waits for a hole to be filled.
type Limits struct {
	// Policy for overlaps.
	Policy Policy
	// MaxBytes and MaxSegments bound what waits; 0 means DefaultMaxBytes and
	// DefaultMaxSegments.
	MaxBytes, MaxSegments int
	// Budget, if not nil, bounds it for all streams together.
	Budget *Budget
}

const (
	DefaultMaxBytes    = 256 << 10
	DefaultMaxSegments = 64

	// segmentOverhead is counted for each waiting segment besides its bytes.
	segmentOverhead = 64

	// maxWindow is the largest window TCP can offer (RFC 7323, 2.3): what lies farther
	// from the next byte than this is not of this connection.
	maxWindow = 1 << 30
)

// Reader takes a stream's bytes in order, each once.
type Reader interface {
	// Data is the next piece. It is only valid during the call.
	Data(b []byte)
	// Gap tells that n bytes will never come: they were not seen here although the
	// receiver has them, or there was no more room to wait for them.
	Gap(n int)
}

// Segment is what a stream needs of a TCP segment.
type Segment struct {
	Seq      uint32
	SYN, FIN bool
	Data     []byte
	// Len is the payload's length on the wire, more than len(Data) when the packet was
	// copied only in part.
	Len int
}

// Stream puts the segments of one side of a TCP connection in order. The zero value
// is ready; it begins with a SYN, or, if that was missed, with the first bytes that
// come. It is not safe for concurrent use.
type Stream struct {
	next    uint32 // of the next byte for the reader
	fin     uint32 // valid when finSeen
	started bool
	finSeen bool
	middle  bool

	waiting []waiting // by seq; none empty, none overlapping
	held    int       // bytes of waiting, overheads included

	Counts
}

// Counts is what happened to a stream.
type Counts struct {
	Retransmitted uint64 // bytes that came again
	Overlaps      uint64 // segments that overlapped with waiting ones
	Conflicts     uint64 // overlaps that did not agree
	Gaps          uint64 // times that bytes had to be given up
}

type waiting struct {
	seq  uint32
	data []byte
	// lost bytes after data are part of the segment, but were not copied.
	lost int
	// first and last are where the segment began and ended before parts were cut
	// off, which is what Linux compares.
	first, last uint32
}

func (w *waiting) len() int    { return len(w.data) + w.lost }
func (w *waiting) end() uint32 { return w.seq + uint32(w.len()) }

// Begin sets the sequence number of the first byte of a stream whose SYN was seen
// elsewhere; it does nothing to a stream that has begun.
func (s *Stream) Begin(seq uint32) {
	if !s.started {
		s.started, s.next = true, seq
	}
}

// Midstream tells that the stream's beginning was not seen.
func (s *Stream) Midstream() bool { return s.middle }

// Ended tells that all bytes up to the FIN have come.
func (s *Stream) Ended() bool { return s.finSeen && s.started && int32(s.next-s.fin) >= 0 }

// Held returns how many bytes wait.
func (s *Stream) Held() int { return s.held }

// Add takes a segment in and hands to r what can be read now. A segment that comes in
// order is handed on without being copied.
func (s *Stream) Add(seg Segment, l *Limits, r Reader) {
	seq := seg.Seq
	if seg.SYN {
		seq++
		// A SYN sent again, or a forged one, does not move a running stream.
		if !s.started {
			s.started, s.next = true, seq
		}
	}
	data, size := seg.Data, max(seg.Len, len(seg.Data))
	if !s.started {
		if size == 0 {
			// An ACK from the middle of a connection: what its sender says next
			// begins here, or one before in a keep-alive probe.
			return
		}
		s.started, s.middle, s.next = true, true, seq
	}
	rel := int32(seq - s.next)
	if rel > maxWindow || rel < -maxWindow {
		return
	}
	if seg.FIN {
		// Bytes that come after it are read all the same: it may be a forged one that
		// the receiver never saw, and what is read too much hides nothing.
		s.finSeen, s.fin = true, seq+uint32(size)
	}
	if size == 0 {
		return
	}
	if rel < 0 {
		// Sent again, or a zero window probe: what was handed on stays.
		old := min(int(-rel), size)
		s.Retransmitted += uint64(old)
		data, size = data[min(old, len(data)):], size-old
		if size == 0 {
			return
		}
		seq, rel = s.next, 0
	}
	if rel == 0 && (len(s.waiting) == 0 || int32(seq+uint32(size)-s.waiting[0].seq) <= 0) {
		s.deliver(data, size-len(data), r)
		s.drain(l, r)
		return
	}
	s.insert(seq, seg.Seq, data, size-len(data), l, r)
	s.drain(l, r)
}

// Ack takes in what the other side has acknowledged. Bytes before it that have not
// come here never will: the stream goes on after them.
func (s *Stream) Ack(ack uint32, l *Limits, r Reader) {
	if !s.started {
		return
	}
	if s.finSeen && ack == s.fin+1 {
		ack--
	}
	for rel := int32(ack - s.next); rel > 0 && rel <= maxWindow; rel = int32(ack - s.next) {
		n := rel
		if len(s.waiting) > 0 {
			n = min(n, int32(s.waiting[0].seq-s.next))
		}
		s.gap(int(n), r)
		s.drain(l, r)
	}
}

// Close gives up what waits.
func (s *Stream) Close(l *Limits) {
	if l.Budget != nil && s.held > 0 {
		l.Budget.Give(s.held)
	}
	*s = Stream{}
}

func (s *Stream) deliver(data []byte, lost int, r Reader) {
	s.next += uint32(len(data))
	if len(data) > 0 {
		r.Data(data)
	}
	if lost > 0 {
		s.gap(lost, r)
	}
}

func (s *Stream) gap(n int, r Reader) {
	s.next += uint32(n)
	s.Gaps++
	r.Gap(n)
}

// drain hands on what waits no longer.
func (s *Stream) drain(l *Limits, r Reader) {
	n := 0
	for n < len(s.waiting) {
		w := s.waiting[n]
		old := int32(s.next - w.seq) // handed on from another segment meanwhile
		if old < 0 {
			break
		}
		n++
		if int(old) < w.len() {
			data, lost := tail(w.data, w.lost, int(old))
			s.deliver(data, lost, r)
		}
	}
	if n > 0 {
		s.waiting = slices.Delete(s.waiting, 0, n)
		if len(s.waiting) == 0 {
			s.waiting = nil // what is empty is not counted, so it holds nothing
		}
		s.settle(l)
	}
}
