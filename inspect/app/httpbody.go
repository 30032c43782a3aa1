package app

import "bytes"

// httpSide is how far one direction of a connection has been read.
type httpSide struct {
	state httpState
	over  bool
	long  bool // a head outgrew its bounds

	head     buffer // what came of a head that is not complete
	searched int    // bytes of it in which its end is not
	lineSeen bool   // line is that of the head at hand
	line     httpLine

	left   int64 // bytes of the body or chunk to come
	digits int   // of a chunk's size
	column int   // 0 when the trailer's line is empty so far
}

// httpState is what the next byte belongs to.
type httpState uint8

const (
	inHead httpState = iota
	inBody
	inChunkSize
	inChunkExtension
	inChunk
	inChunkEnd
	inTrailer
)

func (s *httpSide) start(budget *Budget) {
	*s = httpSide{head: buffer{b: s.head.b[:0], budget: budget}}
}

// nextHead forgets the head that was read.
func (s *httpSide) nextHead() {
	s.head.b = s.head.b[:0]
	s.searched = 0
	s.lineSeen = false
}

// begun reports whether a head has begun but not ended.
func (s *httpSide) begun() bool { return len(s.head.b) > 0 }

// readHead takes bytes of a head and returns it, with its last line, once it is
// whole. It is false when there is none.
func (s *httpSide) readHead(data []byte, dir Dir) (used int, head []byte, ok bool) {
	held := len(s.head.b)
	if held == 0 {
		for used < len(data) && (data[used] == '\r' || data[used] == '\n') {
			used++
		}
		if used == len(data) {
			return used, nil, true
		}
		head, ok = s.findEnd(data[used:], dir)
		if !ok || head != nil {
			return used + len(head), head, ok
		}
	}
	more := data[used:min(len(data), used+maxHTTPHead-held)]
	if !s.head.add(more, maxHTTPHead) {
		s.long = true
		return len(data), nil, false
	}
	if held > 0 {
		head, ok = s.findEnd(s.head.b, dir)
		if !ok || head != nil {
			return len(head) - held, head, ok
		}
	}
	if len(s.head.b) == maxHTTPHead {
		s.long = true
		return len(data), nil, false
	}
	return used + len(more), nil, true
}

// findEnd looks for the empty line behind the head that b begins with, where it was
// not looked for before. The first line is judged as soon as it is there.
func (s *httpSide) findEnd(b []byte, dir Dir) (head []byte, ok bool) {
	at := s.searched
	for {
		n := bytes.IndexByte(b[at:], '\n')
		if n < 0 {
			return nil, true
		}
		next := at + n + 1
		if !s.lineSeen {
			if !s.line.parse(b[:next], dir) {
				return nil, false
			}
			s.lineSeen = true
			if s.line.version == 0 {
				return b[:next], true
			}
		}
		rest := b[next:]
		switch {
		case len(rest) >= 1 && rest[0] == '\n':
			return b[:next+1], true
		case len(rest) >= 2 && rest[0] == '\r' && rest[1] == '\n':
			return b[:next+2], true
		case len(rest) < 2:
			s.searched = at // the empty line may yet be seen from here
			return nil, true
		}
		at = next
		s.searched = at
	}
}

// skip takes bytes of a body. It is false when the body is malformed.
func (s *httpSide) skip(data []byte) (used int, ok bool) {
	switch s.state {
	case inBody, inChunk:
		n := int(min(s.left, int64(len(data))))
		s.passed(n)
		return n, true
	case inChunkSize:
		c := data[0]
		if v, isHex := hexDigit(c); isHex {
			s.left = s.left<<4 | int64(v)
			s.digits++
			return 1, s.digits <= 15
		}
		if s.digits == 0 {
			return 0, false
		}
		s.state = inChunkExtension
		return 0, true
	case inChunkExtension:
		n := bytes.IndexByte(data, '\n')
		if n < 0 {
			return len(data), true
		}
		s.state, s.digits, s.column = inChunk, 0, 0
		if s.left == 0 {
			s.state = inTrailer
		}
		return n + 1, true
	case inChunkEnd:
		if data[0] == '\n' {
			s.state = inChunkSize
		}
		return 1, data[0] == '\n' || data[0] == '\r'
	}
	// The trailer ends with an empty line.
	for i, c := range data {
		switch {
		case c == '\n' && s.column == 0:
			s.state = inHead
			return i + 1, true
		case c == '\n':
			s.column = 0
		case c != '\r':
			s.column = 1
		}
	}
	return len(data), true
}

// passed tells that n bytes of the body or chunk, at most those left, have gone by.
func (s *httpSide) passed(n int) {
	s.left -= int64(n)
	if s.left > 0 {
		return
	}
	if s.state == inChunk {
		s.state = inChunkEnd
	} else {
		s.state = inHead
	}
}

// skipGap reports whether n lost bytes were all of one body.
func (s *httpSide) skipGap(n int) bool {
	if s.state != inBody && s.state != inChunk || int64(n) > s.left {
		return false
	}
	s.passed(n)
	return true
}

func hexDigit(c byte) (v byte, ok bool) {
	switch {
	case '0' <= c && c <= '9':
		return c - '0', true
	case 'a' <= lowerByte(c) && lowerByte(c) <= 'f':
		return lowerByte(c) - 'a' + 10, true
	}
	return 0, false
}
