package app

import "encoding/binary"

// DNS reads queries and responses over UDP and TCP (RFC 1035), multicast ones included.
var DNS = &Analyzer{
	Name: "dns",
	Doc:  "DNS over UDP and TCP: names and types of each query, response code and answers of each response",
	Fields: []Field{
		{ID: FieldDNSID, Name: "dns.id", Type: Int, PerMessage: true,
			Doc: "the message's ID",
			Int: func(f *Facts) int64 { return int64(f.DNS.ID) }},
		{ID: FieldDNSResponse, Name: "dns.response", Type: Bool, PerMessage: true,
			Doc:  "the message is a response",
			Bool: func(f *Facts) bool { return f.DNS.Response }},
		{ID: FieldDNSEDNS, Name: "dns.edns", Type: Bool, PerMessage: true,
			Doc:  "the message has an EDNS record (OPT)",
			Bool: func(f *Facts) bool { return f.DNS.EDNS }},
		{ID: FieldDNSNames, Name: "dns.names", Type: Strings, PerMessage: true,
			Doc:     `the names asked for, lower case, without the trailing dot; the root is "."`,
			Strings: func(f *Facts) []string { return f.DNS.Names }},
		{ID: FieldDNSTypes, Name: "dns.types", Type: Strings, PerMessage: true,
			Doc:     `the types asked for: "A", "HTTPS", "TYPE1234"`,
			Strings: func(f *Facts) []string { return f.DNS.Types }},
		{ID: FieldDNSRCode, Name: "dns.rcode", Type: String, PerMessage: true,
			Doc:    `the response code: "NOERROR", "NXDOMAIN", "RCODE12"; "" of a query`,
			String: func(f *Facts) string { return f.DNS.RCode }},
		{ID: FieldDNSAnswers, Name: "dns.answers", Type: Strings, PerMessage: true,
			Doc:     "the answers of a response: addresses of A and AAAA records, targets of CNAME records",
			Strings: func(f *Facts) []string { return f.DNS.Answers }},
	},
	Match: matchDNS,
	New:   func() Parser { return new(dnsParser) },
}

var dnsFields = fieldSet(DNS.Fields)

const (
	portDNS   = 53
	portMDNS  = 5353
	portLLMNR = 5355
)

// matchDNS wants a whole message in a datagram, and of a stream the length and the
// header of a first query. Away from the usual ports it takes nothing for DNS that
// a resolver would not send. On them a datagram that is none may be followed by one
// that is: servers answer each by itself.
func matchDNS(flow Flow, dir Dir, first []byte) Verdict {
	usual := dnsPort(flow.ServerPort) || dnsPort(flow.ClientPort)
	var h dnsHeader
	if flow.Transport == UDP {
		var m dnsMessage
		end, ok := m.walk(first)
		switch {
		case ok && (usual || end == len(first) && m.header.plain(dir)):
			return Mine
		case usual:
			return More
		}
		return NotMine
	}
	// The length of a query that is first in its stream begins with a byte that is
	// neither a letter nor the type of a TLS record; where DNS is expected it may have
	// any, and the header what servers ignore.
	if len(first) > 0 && first[0] >= recordHandshake && !usual {
		return NotMine
	}
	if len(first) < 2+dnsHeaderSize {
		return More
	}
	if int(binary.BigEndian.Uint16(first)) < dnsHeaderSize+5 || !h.parse(first[2:]) {
		return NotMine
	}
	if !h.plain(dir) && (!usual || h.counts[0] != 1 || h.response() != (dir == ToClient)) {
		return NotMine
	}
	return Mine
}

func dnsPort(port uint16) bool { return port == portDNS || port == portMDNS || port == portLLMNR }

// dnsParser reads message after message.
type dnsParser struct {
	stream  bool
	sides   [2]dnsSide
	message dnsMessage
}

// dnsSide cuts one direction of a stream into messages.
type dnsSide struct {
	buffer buffer // a length and the message behind it, until they are whole
	over   bool
}

func (p *dnsParser) Start(flow Flow) {
	p.stream = flow.Transport == TCP
	for d := range p.sides {
		s := &p.sides[d]
		s.buffer.budget = flow.Budget
		s.over = false
	}
}

func (p *dnsParser) Close() {
	for d := range p.sides {
		p.sides[d].buffer.free()
	}
}

func (p *dnsParser) Feed(dir Dir, data []byte, f *Facts) (int, Verdict) {
	if f.Proto == ProtoUnknown {
		f.claim(ProtoDNS, dnsFields)
	}
	if !p.stream {
		p.learn(data, f)
		return len(data), Mine
	}
	s := &p.sides[dir]
	if s.over {
		return len(data), Mine
	}
	message, n, ok := s.next(data)
	switch {
	case !ok:
		return len(data), p.giveUp(dir, f)
	case message != nil:
		p.learn(message, f)
		s.buffer.b = s.buffer.b[:0]
	default:
		f.Known &^= dnsFields &^ f.Final
	}
	return n, Mine
}

// next takes bytes of a stream up to the end of a message and returns that, without its
// length, once it is whole. It is false when the message cannot be held.
func (s *dnsSide) next(data []byte) (message []byte, n int, ok bool) {
	held := &s.buffer
	if len(held.b) == 0 && len(data) >= 2 {
		if size := 2 + int(binary.BigEndian.Uint16(data)); len(data) >= size {
			return data[2:size], size, true
		}
	}
	for n < len(data) {
		need := 2
		if len(held.b) >= 2 {
			need += int(binary.BigEndian.Uint16(held.b))
		}
		part := data[n:min(n+need-len(held.b), len(data))]
		if !held.add(part, 2+1<<16) {
			return nil, n, false
		}
		n += len(part)
		if len(held.b) >= 2 && len(held.b) == 2+int(binary.BigEndian.Uint16(held.b)) {
			return held.b[2:], n, true
		}
	}
	return nil, n, true
}

// Gap ends a side: without the lengths the messages cannot be found.
func (p *dnsParser) Gap(dir Dir, _ int, f *Facts) Verdict {
	if !p.stream || p.sides[dir].over {
		return Mine
	}
	return p.giveUp(dir, f)
}

func (p *dnsParser) giveUp(dir Dir, f *Facts) Verdict {
	f.Gap = true
	f.version++
	f.Known |= dnsFields
	p.sides[dir].over = true
	p.sides[dir].buffer.free()
	if p.sides[dir^1].over {
		return Done
	}
	return Mine
}

// learn replaces the facts by those of a message. One that is malformed has none.
func (p *dnsParser) learn(b []byte, f *Facts) {
	f.version++
	f.Known |= dnsFields
	f.DNS = DNSFacts{}
	_, ok := p.message.walk(b)
	if !ok || !p.message.facts(b, &f.DNS) {
		f.Gap = true
	}
}
