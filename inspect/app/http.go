package app

// HTTP reads HTTP/1 requests and the heads of their responses (RFC 9112), one after
// another on a connection that is kept. Of HTTP/2 without TLS it knows the preface.
var HTTP = &Analyzer{
	Name: "http",
	Doc:  "HTTP/1: method, host, path and user agent of each request, status of its response; HTTP/2 in clear by its preface",
	Fields: []Field{
		{ID: FieldHTTPMethod, Name: "http.method", Type: String, PerMessage: true,
			Doc:    "the request's method",
			String: func(f *Facts) string { return f.HTTP.Method }},
		{ID: FieldHTTPHost, Name: "http.host", Type: String, PerMessage: true,
			Doc:    "the host asked for, lower case, without port and trailing dot: of the target if that names one, else of the first Host line",
			String: func(f *Facts) string { return f.HTTP.Host }},
		{ID: FieldHTTPPath, Name: "http.path", Type: String, PerMessage: true,
			Doc:    "path and query as sent; nothing is decoded",
			String: func(f *Facts) string { return f.HTTP.Path }},
		{ID: FieldHTTPUserAgent, Name: "http.user_agent", Type: String, PerMessage: true,
			Doc:    "the first User-Agent line",
			String: func(f *Facts) string { return f.HTTP.UserAgent }},
		{ID: FieldHTTPStatus, Name: "http.status", Type: Int, PerMessage: true,
			Doc: "the status of the response to the request at hand, interim ones aside",
			Int: func(f *Facts) int64 { return int64(f.HTTP.Status) }},
	},
	Match: matchHTTP,
	New:   func() Parser { return new(httpParser) },
}

var (
	httpStatus  = Set(FieldHTTPStatus)
	httpRequest = fieldSet(HTTP.Fields) &^ httpStatus

	// httpSides are what each direction tells.
	httpSides = [2]FieldSet{ToServer: httpRequest, ToClient: httpStatus}
)

const (
	maxHTTPHead = 64 << 10
	// maxHTTPPipeline bounds the requests whose responses are to come.
	maxHTTPPipeline = 64
)

// matchHTTP wants a token and a space behind it from the client: whether the line goes
// on as a request is seen at its end.
func matchHTTP(flow Flow, dir Dir, first []byte) Verdict {
	if flow.Transport != TCP || dir != ToServer {
		return NotMine
	}
	blank := 0
	for blank < len(first) && (first[blank] == '\r' || first[blank] == '\n') {
		blank++ // RFC 9112 section 2.2 has servers skip empty lines
	}
	if blank == maxPrefix {
		return Mine // some servers skip any number
	}
	for i, c := range first[blank:] {
		if c == ' ' || c == '\t' {
			if i == 0 {
				return NotMine
			}
			return Mine
		}
		if !tokenByte(c) {
			return NotMine
		}
	}
	return More
}

// tokenByte reports whether c may be part of a method (RFC 9110 section 5.6.2).
func tokenByte(c byte) bool {
	switch c {
	case '!', '#', '$', '%', '&', '\'', '*', '+', '-', '.', '^', '_', '`', '|', '~':
		return true
	}
	return alphanumeric(c)
}

// httpParser follows both directions, so that the body of each message can be skipped.
type httpParser struct {
	sides [2]httpSide
	text  []byte // the facts of one request

	// The requests without a response, the oldest first.
	pending [maxHTTPPipeline]httpAsked
	asked   int
}

// httpAsked is what a response's framing depends on.
type httpAsked uint8

const (
	askedOther httpAsked = iota
	askedHead
	askedConnect
)

func (p *httpParser) Start(flow Flow) {
	p.asked = 0
	for d := range p.sides {
		p.sides[d].start(flow.Budget)
	}
}

func (p *httpParser) Close() {
	for d := range p.sides {
		p.sides[d].head.free()
	}
	if cap(p.text) > keepBuffer {
		p.text = nil
	}
}

func (p *httpParser) Feed(dir Dir, data []byte, f *Facts) (n int, v Verdict) {
	s := &p.sides[dir]
	for n < len(data) && !s.over {
		if s.state != inHead {
			used, ok := s.skip(data[n:])
			n += used
			if !ok {
				return len(data), p.giveUp(dir, f)
			}
			continue
		}
		used, head, ok := s.readHead(data[n:], dir)
		n += used
		if s.lineSeen && dir == ToServer && f.Proto == ProtoUnknown {
			if s.line.version == 2 {
				f.claim(ProtoHTTP2, 0)
				return len(data), Done
			}
			f.claim(ProtoHTTP, httpRequest|httpStatus)
		}
		switch {
		case !ok:
			return len(data), p.giveUp(dir, f)
		case head != nil:
			v = p.learn(dir, head, f)
			s.nextHead()
			return n, v
		case s.begun():
			f.Known &^= httpSides[dir] &^ f.Final
		}
	}
	return len(data), p.verdict()
}

func (p *httpParser) Gap(dir Dir, n int, f *Facts) Verdict {
	if s := &p.sides[dir]; s.over || s.skipGap(n) {
		return p.verdict()
	}
	return p.giveUp(dir, f)
}

func (p *httpParser) verdict() Verdict {
	if p.sides[ToServer].over && p.sides[ToClient].over {
		return Done
	}
	return Mine
}

// giveUp stops following a direction: its messages can no longer be told apart. What
// was not HTTP to begin with is left to nobody, and what a client sends behind a
// CONNECT is not meant to be HTTP.
func (p *httpParser) giveUp(dir Dir, f *Facts) Verdict {
	if f.Proto == ProtoUnknown {
		f.Gap = f.Gap || p.sides[dir].long
		return NotMine
	}
	tunnel := dir == ToServer && p.asked > 0 && p.pending[p.asked-1] == askedConnect
	f.Gap = f.Gap || !tunnel
	return p.leave(dir, f)
}

// leave makes the facts of a direction final.
func (p *httpParser) leave(dir Dir, f *Facts) Verdict {
	f.version++
	f.settle(httpSides[dir])
	p.sides[dir].over = true
	p.sides[dir].head.free()
	return p.verdict()
}

// learn reads a whole head.
func (p *httpParser) learn(dir Dir, head []byte, f *Facts) Verdict {
	s := &p.sides[dir]
	var h httpHead
	h.parse(head[s.line.size:])
	f.version++
	f.Gap = f.Gap || h.ambiguous
	if dir == ToClient {
		return p.response(&h, f)
	}
	return p.request(head, &h, f)
}

func (p *httpParser) request(head []byte, h *httpHead, f *Facts) Verdict {
	s := &p.sides[ToServer]
	method := head[:s.line.method]
	p.describe(method, head[s.line.target:s.line.targetEnd], h, &f.HTTP)
	f.Known |= httpRequest
	if !p.sides[ToClient].over {
		f.HTTP.Status = 0
		f.Known &^= httpStatus
	}

	asked := askedOther
	switch f.HTTP.Method {
	case "HEAD":
		asked = askedHead
	case "CONNECT":
		asked = askedConnect
	}
	if p.asked == maxHTTPPipeline {
		f.Gap = true
		p.leave(ToClient, f)
	} else {
		p.pending[p.asked] = asked
		p.asked++
	}
	switch {
	case s.line.version == 0: // HTTP/0.9 has one request a connection, and answers without a head
		return Done
	case h.malformed:
		return p.giveUp(ToServer, f)
	case h.chunked:
		s.state = inChunkSize
	case h.coded: // no server can tell where it ends
		return p.giveUp(ToServer, f)
	case h.length > 0:
		s.state, s.left = inBody, h.length
	}
	return p.verdict()
}

func (p *httpParser) response(h *httpHead, f *Facts) Verdict {
	s := &p.sides[ToClient]
	status := s.line.status
	asked := askedOther
	if p.asked > 0 {
		asked = p.pending[0]
	}
	if status < 200 && status != 101 { // the response itself is to come
		f.Known &^= httpStatus
		return p.verdict()
	}
	if p.asked > 0 {
		p.asked--
		copy(p.pending[:], p.pending[1:1+p.asked])
	}
	f.HTTP.Status = status
	f.Known |= httpStatus
	switch {
	case status == 101 || asked == askedConnect && status/100 == 2:
		return Done // another protocol from here on
	case asked == askedHead || status == 204 || status == 304:
	case h.malformed:
		return p.giveUp(ToClient, f)
	case h.chunked:
		s.state = inChunkSize
	case h.coded || !h.hasLength:
		return p.leave(ToClient, f) // to the end of the connection
	case h.length > 0:
		s.state, s.left = inBody, h.length
	}
	return p.verdict()
}
