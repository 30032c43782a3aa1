package app

// cryptoStream puts together what CRYPTO frames carry. Clients send the pieces in any
// order over several packets, so that nobody comes to rely on one.
type cryptoStream struct {
	data  buffer // at their offsets; what is between spans is not there yet
	spans [maxSpans]span
	n     int
}

type span struct{ from, to int }

// maxSpans bounds how many pieces can lie apart. Chrome cuts its hello into a dozen.
const maxSpans = 64

func (s *cryptoStream) reset(budget *Budget) {
	s.data.free()
	s.data.budget = budget
	s.n = 0
}

// Frame types of initial packets (RFC 9000 section 12.4).
const (
	framePadding = 0x00
	framePing    = 0x01
	frameACK     = 0x02
	frameACKECN  = 0x03
	frameCrypto  = 0x06
)

// frames reads the frames of one packet. It is false when the stream cannot be held.
func (s *cryptoStream) frames(b []byte) bool {
	for len(b) > 0 {
		kind := b[0]
		b = b[1:]
		switch kind {
		case framePadding, framePing:
		case frameACK, frameACKECN:
			if b = skipACK(b, kind == frameACKECN); b == nil {
				return true
			}
		case frameCrypto:
			offset, n := quicInt(b)
			b = b[n:]
			length, m := quicInt(b)
			b = b[m:]
			if n == 0 || m == 0 || length > uint64(len(b)) {
				return true
			}
			if offset > maxHello || !s.add(int(offset), b[:length]) {
				return false
			}
			b = b[length:]
		default:
			return true // the connection is closed, or the packet is malformed
		}
	}
	return true
}

// skipACK returns what follows an ACK frame, nil when it is malformed.
func skipACK(b []byte, ecn bool) []byte {
	// largest, delay, number of ranges, first range
	var ranges uint64
	for i := range 4 {
		v, n := quicInt(b)
		if n == 0 {
			return nil
		}
		if i == 2 {
			ranges = v
		}
		b = b[n:]
	}
	more := 2 * ranges
	if ecn {
		more += 3
	}
	if ranges > uint64(len(b)) {
		return nil
	}
	for range more {
		_, n := quicInt(b)
		if n == 0 {
			return nil
		}
		b = b[n:]
	}
	return b
}

// add puts a piece in its place. Bytes that were there already stay: a peer that has
// read them does not read them again.
func (s *cryptoStream) add(offset int, piece []byte) bool {
	end := offset + len(piece)
	if len(piece) == 0 {
		return true
	}
	if !s.data.grow(max(end, len(s.data.b)), maxHello) {
		return false
	}
	if end > len(s.data.b) {
		s.data.b = s.data.b[:end]
	}
	at := offset
	merged := span{offset, end}
	var kept [maxSpans]span
	k := 0
	placed := false
	for _, have := range s.spans[:s.n] {
		if have.to < offset || have.from > end {
			if have.from > end && !placed {
				if k == maxSpans {
					return false
				}
				kept[k], placed = merged, true
				k++
			}
			if k == maxSpans {
				return false
			}
			kept[k] = have
			k++
			continue
		}
		if at < have.from {
			copy(s.data.b[at:have.from], piece[at-offset:])
		}
		at = max(at, have.to)
		merged = span{min(merged.from, have.from), max(merged.to, have.to)}
	}
	if at < end {
		copy(s.data.b[at:end], piece[at-offset:])
	}
	if !placed {
		if k == maxSpans {
			return false
		}
		kept[k] = merged
		k++
	}
	s.spans, s.n = kept, k
	return true
}

// message is the first handshake message, whole with its header, nil until it is there.
func (s *cryptoStream) message() []byte {
	if s.n == 0 || s.spans[0].from != 0 {
		return nil
	}
	there := s.data.b[:s.spans[0].to]
	if size, ok := messageSize(there); ok && size <= len(there) {
		return there[:size]
	}
	return nil
}
