package app

import (
	"bytes"
	"unicode/utf8"
)

// httpLine is the first line of a head: where its parts are, as offsets, since the
// head may move until it is whole.
type httpLine struct {
	size              int // with its end
	version           int // 0: HTTP/0.9, 1, 2: the preface of HTTP/2
	method            int // its end
	target, targetEnd int
	status            int // of a response
}

// parse reads a request line or, to the client, a status line. Spaces are taken as
// servers do, leniently: several count as one.
func (l *httpLine) parse(line []byte, dir Dir) bool {
	*l = httpLine{size: len(line)}
	b := bytes.TrimRight(line, "\r\n \t")
	if dir == ToClient {
		return l.parseStatus(b)
	}
	l.method = bytes.IndexAny(b, " \t")
	if l.method < 1 {
		return false
	}
	for _, c := range b[:l.method] {
		if !tokenByte(c) {
			return false
		}
	}
	l.target = l.method
	for b[l.target] == ' ' || b[l.target] == '\t' {
		l.target++
	}
	l.targetEnd = bytes.LastIndexAny(b, " \t")
	version := b[l.targetEnd+1:]
	if l.targetEnd < l.target {
		// Without a version it is HTTP/0.9, which has GET alone.
		l.targetEnd = len(b)
		return string(b[:l.method]) == "GET" && b[l.target] == '/'
	}
	for b[l.targetEnd-1] == ' ' || b[l.targetEnd-1] == '\t' {
		l.targetEnd--
	}
	if string(b) == "PRI * HTTP/2.0" { // RFC 9113 section 3.4
		l.version = 2
		return true
	}
	l.version = 1
	return httpVersion1(version)
}

func (l *httpLine) parseStatus(b []byte) bool {
	space := bytes.IndexByte(b, ' ')
	if space < 0 || !httpVersion1(b[:space]) {
		return false
	}
	l.version = 1
	code := bytes.TrimLeft(b[space:], " ")
	if len(code) < 3 || len(code) > 3 && code[3] != ' ' {
		return false
	}
	for _, c := range code[:3] {
		if c < '0' || c > '9' {
			return false
		}
		l.status = 10*l.status + int(c-'0')
	}
	return l.status >= 100
}

// httpVersion1 reports whether b is "HTTP/1." and a digit.
func httpVersion1(b []byte) bool {
	const prefix = "http/1."
	return len(b) == len(prefix)+1 && equalFold(b[:len(prefix)], prefix) && b[len(prefix)] >= '0' && b[len(prefix)] <= '9'
}

// httpHead is what the lines of a head say.
type httpHead struct {
	host, agent       []byte
	hasHost, hasAgent bool
	length            int64
	hasLength         bool
	coded             bool // there is a Transfer-Encoding
	chunked           bool // the last of its codings
	malformed         bool // the length of the body cannot be told
	ambiguous         bool // servers differ in where the body ends
}

// parse reads the lines behind the first one.
func (h *httpHead) parse(lines []byte) {
	for len(lines) > 0 {
		line := lines[:lineEnd(lines)]
		lines = lines[len(line):]
		colon := bytes.IndexByte(line, ':')
		if colon < 1 {
			continue
		}
		name := line[:colon]
		if c := name[colon-1]; c == ' ' || c == '\t' {
			name = bytes.TrimRight(name, " \t")
		}
		switch len(name) {
		case len("host"):
			if !h.hasHost && equalFold(name, "host") {
				h.host, h.hasHost = headerValue(line[colon+1:]), true
			}
		case len("user-agent"):
			if !h.hasAgent && equalFold(name, "user-agent") {
				h.agent, h.hasAgent = headerValue(line[colon+1:]), true
			}
		case len("content-length"):
			if equalFold(name, "content-length") {
				h.contentLength(headerValue(line[colon+1:]))
				h.ambiguous = h.ambiguous || len(name) != colon
			}
		case len("transfer-encoding"):
			if equalFold(name, "transfer-encoding") {
				h.transferEncoding(headerValue(line[colon+1:]))
				h.ambiguous = h.ambiguous || len(name) != colon
			}
		}
	}
	// With both, the coding counts (RFC 9112 section 6.3), though not for everyone.
	h.ambiguous = h.ambiguous || h.coded && h.hasLength
}

// lineEnd is the length of the line that b begins with, and of the lines that continue
// it (obs-fold, RFC 9112 section 5.2).
func lineEnd(b []byte) int {
	end := 0
	for {
		n := bytes.IndexByte(b[end:], '\n')
		if n < 0 {
			return len(b)
		}
		end += n + 1
		if end == len(b) || b[end] != ' ' && b[end] != '\t' {
			return end
		}
	}
}

// headerValue is what stands behind the colon, without the space around it. A value
// that goes over several lines becomes one.
func headerValue(b []byte) []byte {
	b = bytes.Trim(b, " \t\r\n")
	if bytes.IndexByte(b, '\n') < 0 {
		return b
	}
	flat := bytes.Clone(b)
	for i, c := range flat {
		if c == '\r' || c == '\n' {
			flat[i] = ' '
		}
	}
	return flat
}

// contentLength reads a length; several must agree.
func (h *httpHead) contentLength(value []byte) {
	for part := range bytes.SplitSeq(value, []byte(",")) {
		part = bytes.Trim(part, " \t")
		var length int64
		if len(part) == 0 || len(part) > 18 {
			h.malformed = true
			return
		}
		for _, c := range part {
			if c < '0' || c > '9' {
				h.malformed = true
				return
			}
			length = 10*length + int64(c-'0')
		}
		if h.hasLength && length != h.length {
			h.malformed = true
		}
		h.length, h.hasLength = length, true
	}
}

// transferEncoding reads the codings: only the last tells where the body ends.
func (h *httpHead) transferEncoding(value []byte) {
	h.coded = true
	last := value
	if i := bytes.LastIndexByte(value, ','); i >= 0 {
		last = bytes.Trim(value[i+1:], " \t")
	}
	h.chunked = equalFold(last, "chunked")
}

// describe fills in the facts of a request. All text is one string.
func (p *httpParser) describe(method, target []byte, h *httpHead, f *HTTPFacts) {
	host, path := h.host, target
	switch {
	case string(method) == "CONNECT":
		host, path = target, nil
	case len(target) > 0 && target[0] != '/' && target[0] != '*':
		if authority, rest, ok := absoluteForm(target); ok {
			host, path = authority, rest // it outranks Host (RFC 9112 section 3.2.2)
		}
	}
	host = hostName(host)

	*f = HTTPFacts{}
	if !utf8.Valid(host) || !utf8.Valid(path) || !utf8.Valid(h.agent) {
		f.Method, f.Host, f.Path, f.UserAgent = methodText(method), lowerText(host), text(path), text(h.agent)
		return
	}
	t := append(p.text[:0], path...)
	t = append(t, h.agent...)
	for _, c := range host {
		t = append(t, lowerByte(c))
	}
	all := string(t)
	f.Method = methodText(method)
	f.Path = all[:len(path)]
	f.UserAgent = all[len(path) : len(path)+len(h.agent)]
	f.Host = all[len(path)+len(h.agent):]
	p.text = t
}

// methodText is text that does not copy the usual methods.
func methodText(b []byte) string {
	switch string(b) {
	case "GET":
		return "GET"
	case "HEAD":
		return "HEAD"
	case "POST":
		return "POST"
	case "PUT":
		return "PUT"
	case "DELETE":
		return "DELETE"
	case "OPTIONS":
		return "OPTIONS"
	case "CONNECT":
		return "CONNECT"
	case "PATCH":
		return "PATCH"
	}
	return text(b)
}

// absoluteForm cuts "http://host:port/path?query" behind the authority.
func absoluteForm(target []byte) (authority, path []byte, ok bool) {
	i := bytes.Index(target, []byte("://"))
	if i < 1 || bytes.ContainsAny(target[:i], "/?#") {
		return nil, nil, false
	}
	authority = target[i+3:]
	if end := bytes.IndexAny(authority, "/?#"); end >= 0 {
		authority, path = authority[:end], authority[end:]
	}
	return authority, path, true
}

// hostName is an authority without user, port, brackets and trailing dot.
func hostName(b []byte) []byte {
	if i := bytes.LastIndexByte(b, '@'); i >= 0 {
		b = b[i+1:]
	}
	if len(b) > 0 && b[0] == '[' {
		if i := bytes.IndexByte(b, ']'); i >= 0 {
			return b[1:i]
		}
	}
	if i := bytes.IndexByte(b, ':'); i >= 0 {
		b = b[:i]
	}
	return bytes.TrimSuffix(b, []byte("."))
}
