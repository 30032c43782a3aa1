package app

import (
	"encoding/binary"
	"net/netip"
	"strconv"
)

const (
	dnsHeaderSize = 12
	maxDNSName    = 255 // RFC 1035 section 3.1, on the wire
	// maxDNSQuestions and maxDNSAnswers bound the facts of one message.
	maxDNSQuestions = 32
	maxDNSAnswers   = 128
	// maxDNSHops bounds the pointers of one name. Each may lead to at least one label.
	maxDNSHops = 128
)

// The record types that are looked into (IANA, DNS Parameters).
const (
	dnsA     = 1
	dnsCNAME = 5
	dnsAAAA  = 28
	dnsOPT   = 41
)

// dnsHeader is the header of a message (RFC 1035 section 4.1.1).
type dnsHeader struct {
	id, flags uint16
	counts    [4]int // questions, answers, authorities, additional records
}

func (h *dnsHeader) parse(b []byte) bool {
	if len(b) < dnsHeaderSize {
		return false
	}
	h.id, h.flags = binary.BigEndian.Uint16(b), binary.BigEndian.Uint16(b[2:])
	for i := range h.counts {
		h.counts[i] = int(binary.BigEndian.Uint16(b[4+2*i:]))
	}
	opcode := h.flags >> 11 & 15
	return opcode <= 6 && opcode != 3
}

func (h *dnsHeader) response() bool { return h.flags>>15 != 0 }

// plain reports whether it is the header of an ordinary query or, to the client, of
// its response.
func (h *dnsHeader) plain(dir Dir) bool {
	const reserved, rcode = 0x0040, 0x000f
	if h.counts[0] != 1 || h.flags&reserved != 0 || h.response() != (dir == ToClient) {
		return false
	}
	return h.response() || h.flags&rcode == 0 && h.counts[1] == 0 && h.counts[2] <= 1 && h.counts[3] <= 3
}

// dnsMessage is what was found where in a message. It is reused.
type dnsMessage struct {
	header    dnsHeader
	questions [maxDNSQuestions]int // offsets of names
	types     [maxDNSQuestions]uint16
	nq        int
	answers   [maxDNSAnswers]dnsAnswer
	na        int
	edns      bool
	extended  uint16 // the upper bits of the response code, from OPT
	cut       bool   // there were more than are noted
	text      []byte
}

type dnsAnswer struct {
	kind     uint16
	at, size int // of the data
}

// walk checks a message and notes what is where. end is the offset behind the last
// record.
func (m *dnsMessage) walk(b []byte) (end int, ok bool) {
	m.nq, m.na, m.edns, m.extended, m.cut = 0, 0, false, 0, false
	if !m.header.parse(b) {
		return 0, false
	}
	at := dnsHeaderSize
	for range m.header.counts[0] {
		next, ok := skipDNSName(b, at)
		if !ok || next+4 > len(b) {
			return 0, false
		}
		if m.cut = m.nq == maxDNSQuestions; !m.cut {
			m.questions[m.nq], m.types[m.nq] = at, binary.BigEndian.Uint16(b[next:])
			m.nq++
		}
		at = next + 4
	}
	for section, count := range m.header.counts[1:] {
		for range count {
			next, ok := skipDNSName(b, at)
			if !ok || next+10 > len(b) {
				return 0, m.truncated()
			}
			kind, size := binary.BigEndian.Uint16(b[next:]), int(binary.BigEndian.Uint16(b[next+8:]))
			data := next + 10
			if data+size > len(b) {
				return 0, m.truncated()
			}
			switch {
			case section == 0 && m.na == maxDNSAnswers:
				m.cut = true
			case section == 0:
				m.answers[m.na] = dnsAnswer{kind, data, size}
				m.na++
			case section == 2 && kind == dnsOPT:
				m.edns = true
				m.extended = uint16(b[next+4]) << 4 // RFC 6891 section 6.1.3
			}
			at = data + size
		}
	}
	return at, true
}

// truncated reports whether the message says itself that its end is missing (TC).
func (m *dnsMessage) truncated() bool { return m.header.flags&0x0200 != 0 }

// skipDNSName returns the offset behind a name, without following it elsewhere.
func skipDNSName(b []byte, at int) (next int, ok bool) {
	for at < len(b) {
		switch c := int(b[at]); {
		case c == 0:
			return at + 1, true
		case c&0xc0 == 0xc0:
			return at + 2, at+2 <= len(b)
		case c&0xc0 != 0:
			return 0, false
		default:
			at += 1 + c
		}
	}
	return 0, false
}

// facts writes the facts of the message b that was walked. All text is one string. It is
// false when some had to be left out.
func (m *dnsMessage) facts(b []byte, f *DNSFacts) bool {
	*f = DNSFacts{ID: m.header.id, Response: m.header.response(), EDNS: m.edns}
	var ends [maxDNSQuestions + maxDNSAnswers]int
	n := 0
	m.text = m.text[:0]
	whole := !m.cut
	for _, at := range m.questions[:m.nq] {
		var ok bool
		m.text, ok = appendDNSName(m.text, b, at)
		whole = whole && ok
		ends[n] = len(m.text)
		n++
	}
	if f.Response {
		f.RCode = rcodeName(m.header.flags&15 | m.extended)
		for _, a := range m.answers[:m.na] {
			before := len(m.text)
			if m.text = appendDNSAnswer(m.text, b, a); len(m.text) > before {
				ends[n] = len(m.text)
				n++
			}
		}
	}
	if n == 0 {
		return whole
	}
	all := string(m.text)
	texts := make([]string, n+m.nq)
	from := 0
	for i, end := range ends[:n] {
		texts[i] = all[from:end]
		from = end
	}
	for i, kind := range m.types[:m.nq] {
		texts[n+i] = typeName(kind)
	}
	f.Names, f.Answers, f.Types = texts[:m.nq:m.nq], texts[m.nq:n:n], texts[n:]
	return whole
}

// appendDNSAnswer appends an address or a name, nothing for other types.
func appendDNSAnswer(text, b []byte, a dnsAnswer) []byte {
	data := b[a.at : a.at+a.size]
	switch {
	case a.kind == dnsA && len(data) == 4:
		return netip.AddrFrom4([4]byte(data)).AppendTo(text)
	case a.kind == dnsAAAA && len(data) == 16:
		return netip.AddrFrom16([16]byte(data)).AppendTo(text)
	case a.kind == dnsCNAME:
		text, _ = appendDNSName(text, b, a.at)
	}
	return text
}

// appendDNSName appends a name as text: lower case, labels divided by dots, bytes that
// are not printable as \DDD (RFC 1035 section 5.1). A pointer may only lead backwards,
// so that no chain of them is endless. Of a malformed name nothing is appended.
func appendDNSName(text, b []byte, at int) ([]byte, bool) {
	start, limit, wire, hops := len(text), at, 1, 0
	for at < len(b) {
		c := int(b[at])
		switch {
		case c == 0:
			if len(text) == start {
				text = append(text, '.')
			}
			return text, true
		case c&0xc0 == 0xc0:
			if at+2 > len(b) {
				return text[:start], false
			}
			to := int(binary.BigEndian.Uint16(b[at:]) & 0x3fff)
			if hops++; to >= limit || hops > maxDNSHops {
				return text[:start], false
			}
			at, limit = to, to
			continue
		case c&0xc0 != 0 || at+1+c > len(b) || wire+1+c > maxDNSName:
			return text[:start], false
		}
		if len(text) > start {
			text = append(text, '.')
		}
		text = appendDNSLabel(text, b[at+1:at+1+c])
		wire += 1 + c
		at += 1 + c
	}
	return text[:start], false
}

func appendDNSLabel(text, label []byte) []byte {
	for _, c := range label {
		switch {
		case c == '.' || c == '\\':
			text = append(text, '\\', c)
		case c <= ' ' || c >= 0x7f:
			text = append(text, '\\', '0'+c/100, '0'+c/10%10, '0'+c%10)
		default:
			text = append(text, lowerByte(c))
		}
	}
	return text
}

// typeName is the mnemonic of a record type (IANA, DNS Parameters), "TYPE1234" of one
// without (RFC 3597 section 5).
func typeName(kind uint16) string {
	if name, ok := dnsTypes[kind]; ok {
		return name
	}
	return "TYPE" + strconv.Itoa(int(kind))
}

var dnsTypes = map[uint16]string{
	1: "A", 2: "NS", 5: "CNAME", 6: "SOA", 10: "NULL", 12: "PTR", 13: "HINFO", 15: "MX",
	16: "TXT", 17: "RP", 18: "AFSDB", 24: "SIG", 25: "KEY", 28: "AAAA", 29: "LOC",
	33: "SRV", 35: "NAPTR", 36: "KX", 37: "CERT", 39: "DNAME", 41: "OPT", 42: "APL",
	43: "DS", 44: "SSHFP", 45: "IPSECKEY", 46: "RRSIG", 47: "NSEC", 48: "DNSKEY",
	49: "DHCID", 50: "NSEC3", 51: "NSEC3PARAM", 52: "TLSA", 53: "SMIMEA", 55: "HIP",
	59: "CDS", 60: "CDNSKEY", 61: "OPENPGPKEY", 62: "CSYNC", 63: "ZONEMD", 64: "SVCB",
	65: "HTTPS", 99: "SPF", 108: "EUI48", 109: "EUI64", 249: "TKEY", 250: "TSIG",
	251: "IXFR", 252: "AXFR", 253: "MAILB", 254: "MAILA", 255: "ANY", 256: "URI",
	257: "CAA", 32769: "DLV",
}

// rcodeName is the mnemonic of a response code, "RCODE12" of one without.
func rcodeName(code uint16) string {
	if int(code) < len(dnsRCodes) && dnsRCodes[code] != "" {
		return dnsRCodes[code]
	}
	return "RCODE" + strconv.Itoa(int(code))
}

var dnsRCodes = [...]string{
	"NOERROR", "FORMERR", "SERVFAIL", "NXDOMAIN", "NOTIMP", "REFUSED", "YXDOMAIN",
	"YXRRSET", "NXRRSET", "NOTAUTH", "NOTZONE", "DSOTYPENI", 16: "BADVERS", 17: "BADKEY",
	18: "BADTIME", 19: "BADMODE", 20: "BADNAME", 21: "BADALG", 22: "BADTRUNC", 23: "BADCOOKIE",
}
