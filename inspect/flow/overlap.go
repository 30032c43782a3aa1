package flow

import (
	"bytes"
	"slices"
)

// insert lets a segment wait, in pieces where others keep their bytes.
func (s *Stream) insert(seq, first uint32, data []byte, lost int, l *Limits, r Reader) {
	end := seq + uint32(len(data)+lost)
	for !s.reserve(seq, end, len(data), l) {
		// No room: what lies farther than the new segment goes first, as in Linux's
		// tcp_prune_ofo_queue(), so that nobody fills it with what is never reached.
		if n := len(s.waiting); n > 0 && int32(s.waiting[n-1].seq-end) >= 0 {
			s.waiting = slices.Delete(s.waiting, n-1, n)
			s.settle(l)
			continue
		}
		// Then the hole before what waits is given up, so that what waits can be
		// read and needs no room any more.
		if len(s.waiting) == 0 {
			if n := int32(seq - s.next); n > 0 {
				s.gap(int(n), r)
			}
			s.deliver(data, lost, r)
			return
		}
		s.gap(int(s.waiting[0].seq-s.next), r)
		s.drain(l, r)
		if old := int32(s.next - seq); old > 0 {
			if uint32(old) >= end-seq {
				return
			}
			seq += uint32(old)
			data, lost = tail(data, lost, int(old))
		}
	}
	overlapped := false
	i := 0
	for i < len(s.waiting) && seq != end {
		w := &s.waiting[i]
		if int32(w.end()-seq) <= 0 {
			i++
			continue
		}
		if int32(w.seq-end) >= 0 {
			break
		}
		overlapped = true
		from, to := later(seq, w.seq), earlier(end, w.end())
		if conflict(w, seq, data, from, to) {
			s.Conflicts++
		}
		if s.newWins(l.Policy, w, first, end) {
			i = s.cut(i, from, to)
			continue
		}
		// What lies before the old segment goes in; what lies inside is dropped.
		oldEnd := w.end()
		if n := int32(w.seq - seq); n > 0 {
			k := min(int(n), len(data))
			s.waiting = slices.Insert(s.waiting, i, waiting{seq: seq, first: first, last: end, data: bytes.Clone(data[:k]), lost: int(n) - k})
			i++
		}
		if int32(oldEnd-end) >= 0 {
			seq = end
			break
		}
		data, lost = tail(data, lost, int(oldEnd-seq))
		seq = oldEnd
		i++
	}
	if overlapped {
		s.Overlaps++
	}
	if seq != end {
		s.waiting = slices.Insert(s.waiting, i, waiting{seq: seq, first: first, last: end, data: bytes.Clone(data), lost: lost})
	}
	s.settle(l)
}

func later(a, b uint32) uint32 {
	if int32(a-b) > 0 {
		return a
	}
	return b
}

func earlier(a, b uint32) uint32 {
	if int32(a-b) < 0 {
		return a
	}
	return b
}

// tail returns what is left of a piece after its first n bytes.
func tail(data []byte, lost, n int) ([]byte, int) {
	if n <= len(data) {
		return data[n:], lost
	}
	return nil, lost - (n - len(data))
}

// newWins tells whether a new segment takes over from a waiting one.
func (s *Stream) newWins(p Policy, w *waiting, first, end uint32) bool {
	switch p {
	case First:
		return false
	case Last:
		return true
	}
	if off := int32(first - w.first); off != 0 {
		return off < 0
	}
	return int32(end-w.last) > 0
}

// conflict tells whether the bytes in [from, to) differ, where both are there.
func conflict(w *waiting, seq uint32, data []byte, from, to uint32) bool {
	a, b := int(from-w.seq), int(from-seq)
	n := int(to - from)
	if a >= len(w.data) || b >= len(data) {
		return false
	}
	n = min(n, len(w.data)-a, len(data)-b)
	return !bytes.Equal(w.data[a:a+n], data[b:b+n])
}

// cut takes [from, to) out of waiting segment i, which may leave none, one or two
// pieces, and returns the number of the first that is not wholly before from.
func (s *Stream) cut(i int, from, to uint32) int {
	w := s.waiting[i]
	before, after := w, w
	before.data = w.data[:min(int(from-w.seq), len(w.data))]
	before.lost = int(from-w.seq) - len(before.data)
	after.data, after.lost = tail(w.data, w.lost, int(to-w.seq))
	after.seq = to
	// Copies, so that the rest of the array is not held without being counted.
	before.data, after.data = bytes.Clone(before.data), bytes.Clone(after.data)
	switch {
	case before.len() == 0 && after.len() == 0:
		s.waiting = slices.Delete(s.waiting, i, i+1)
		return i
	case before.len() == 0:
		s.waiting[i] = after
		return i
	case after.len() == 0:
		s.waiting[i] = before
	default:
		s.waiting[i] = before
		s.waiting = slices.Insert(s.waiting, i+1, after)
	}
	return i + 1
}

// reserve tells whether there is room for n bytes in [seq, end), in as many pieces as
// the waiting segments there can make of it, and takes it.
func (s *Stream) reserve(seq, end uint32, n int, l *Limits) bool {
	maxBytes, maxSegments := l.MaxBytes, l.MaxSegments
	if maxBytes <= 0 {
		maxBytes = DefaultMaxBytes
	}
	if maxSegments <= 0 {
		maxSegments = DefaultMaxSegments
	}
	pieces := 1
	for i := range s.waiting {
		if w := &s.waiting[i]; int32(w.end()-seq) > 0 && int32(w.seq-end) < 0 {
			pieces++
		}
	}
	n += pieces * segmentOverhead
	if s.held+n > maxBytes || len(s.waiting)+pieces > maxSegments || l.Budget != nil && !l.Budget.Take(n) {
		return false
	}
	s.held += n
	return true
}

// settle brings the account to what really waits.
func (s *Stream) settle(l *Limits) {
	held := 0
	for i := range s.waiting {
		held += len(s.waiting[i].data) + segmentOverhead
	}
	if l.Budget != nil {
		l.Budget.Give(s.held - held)
	}
	s.held = held
}
