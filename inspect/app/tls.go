package app

import "encoding/binary"

// TLS reads the hellos of both sides (RFC 8446, RFC 5246).
var TLS = &Analyzer{
	Name: "tls",
	Doc:  "TLS over TCP: the names, protocols and versions that client and server say in clear, and the client's JA4 fingerprint",
	Fields: []Field{
		{ID: FieldTLSSNI, Name: "tls.sni", Type: String,
			Doc:    "the server name in the ClientHello, lower case, without a trailing dot",
			String: func(f *Facts) string { return f.TLS.SNI }},
		{ID: FieldTLSALPN, Name: "tls.alpn", Type: Strings,
			Doc:     "the application protocols that the client offers, in its order",
			Strings: func(f *Facts) []string { return f.TLS.ALPN }},
		{ID: FieldTLSVersion, Name: "tls.version", Type: Int,
			Doc: "the highest version that the client offers, as on the wire: 0x0304 is TLS 1.3, 0x0303 TLS 1.2",
			Int: func(f *Facts) int64 { return int64(f.TLS.Version) }},
		{ID: FieldTLSJA4, Name: "tls.ja4", Type: String,
			Doc:    "the client's JA4 fingerprint",
			String: func(f *Facts) string { return f.TLS.JA4 }},
		{ID: FieldTLSECH, Name: "tls.ech", Type: Bool,
			Doc:  "the ClientHello carries an encrypted one; tls.sni is then the outer name",
			Bool: func(f *Facts) bool { return f.TLS.ECH }},
		{ID: FieldTLSServerVersion, Name: "tls.server_version", Type: Int,
			Doc: "the version that the server chose, as on the wire",
			Int: func(f *Facts) int64 { return int64(f.TLS.ServerVersion) }},
		{ID: FieldTLSServerCipher, Name: "tls.server_cipher", Type: Int,
			Doc: "the cipher suite that the server chose, as on the wire",
			Int: func(f *Facts) int64 { return int64(f.TLS.ServerCipher) }},
		{ID: FieldTLSServerALPN, Name: "tls.server_alpn", Type: String,
			Doc:    "the application protocol that the server chose; encrypted since TLS 1.3",
			String: func(f *Facts) string { return f.TLS.ServerALPN }},
	},
	Match: matchTLS,
	New:   func() Parser { return new(tlsParser) },
}

var (
	tlsClientFields = Set(FieldTLSSNI, FieldTLSALPN, FieldTLSVersion, FieldTLSJA4, FieldTLSECH)
	tlsServerFields = Set(FieldTLSServerVersion, FieldTLSServerCipher, FieldTLSServerALPN)
)

const (
	recordAlert     = 21
	recordHandshake = 22
	recordHeader    = 5
	alertWarning    = 1
	// maxRecordMajor bounds the record's major version. It is to be ignored (RFC 8446
	// section 5.1): OpenSSL wants 3 and any minor one, crypto/tls less than 16.
	maxRecordMajor = 15
	maxRecord      = 1<<14 + 256 // RFC 8446 section 5.2
)

// matchTLS wants a record that begins with a hello, or what servers skip before it: a
// warning (crypto/tls), an empty record (OpenSSL). SSLv2 hellos, which no server takes
// any more, have another form and are nobody's.
func matchTLS(flow Flow, _ Dir, first []byte) Verdict {
	if flow.Transport != TCP {
		return NotMine
	}
	if len(first) > 0 && first[0] != recordHandshake && first[0] != recordAlert ||
		len(first) > 1 && first[1] > maxRecordMajor {
		return NotMine
	}
	if len(first) < recordHeader {
		return More
	}
	length := binary.BigEndian.Uint16(first[3:])
	switch alert := first[0] == recordAlert; {
	case alert && length != 2 || length > maxRecord:
		return NotMine
	case length == 0:
		return Mine
	case len(first) == recordHeader:
		return More
	case alert && first[recordHeader] == alertWarning:
		return Mine
	case alert || first[recordHeader] != msgClientHello && first[recordHeader] != msgServerHello:
		return NotMine
	}
	return Mine
}

// tlsParser waits for one hello of each side.
type tlsParser struct {
	sides  [2]tlsSide
	client clientHello
	server serverHello
	prints fingerprinter
}

// tlsSide puts the first handshake message of one side together, which may lie across
// records, and records across segments.
type tlsSide struct {
	header  [recordHeader]byte
	headerN int // bytes of header that came
	left    int // bytes of the record to come
	message buffer
	over    bool // nothing more is expected of this side
}

func (p *tlsParser) Start(flow Flow) {
	for d := range p.sides {
		s := &p.sides[d]
		*s = tlsSide{message: buffer{b: s.message.b[:0], budget: flow.Budget}}
	}
}

func (p *tlsParser) Close() {
	for d := range p.sides {
		p.sides[d].message.free()
	}
	p.client, p.server = clientHello{}, serverHello{}
}

func (p *tlsParser) Feed(dir Dir, data []byte, f *Facts) (int, Verdict) {
	if f.Proto == ProtoUnknown {
		f.claim(ProtoTLS, tlsClientFields|tlsServerFields)
	}
	s := &p.sides[dir]
	if !s.over {
		if message, ok := s.read(data); !ok {
			p.giveUp(dir, f)
		} else if message != nil {
			p.hello(dir, message, f)
		}
	}
	return len(data), p.verdict()
}

func (p *tlsParser) Gap(dir Dir, _ int, f *Facts) Verdict {
	if !p.sides[dir].over {
		p.giveUp(dir, f)
	}
	return p.verdict()
}

func (p *tlsParser) verdict() Verdict {
	if p.sides[ToServer].over && p.sides[ToClient].over {
		return Done
	}
	return Mine
}

// read takes bytes of a side and returns its first handshake message, whole with its
// header, once it is there. It is false when none can come.
func (s *tlsSide) read(data []byte) (message []byte, ok bool) {
	for len(data) > 0 {
		if s.left == 0 {
			n := copy(s.header[s.headerN:], data)
			s.headerN += n
			data = data[n:]
			if s.headerN < recordHeader {
				return nil, true
			}
			s.headerN = 0
			s.left = int(binary.BigEndian.Uint16(s.header[3:]))
			alert := s.header[0] == recordAlert && s.left == 2
			if s.header[0] != recordHandshake && !alert || s.header[1] > maxRecordMajor || s.left > maxRecord {
				return nil, false
			}
			continue
		}
		if s.header[0] == recordAlert {
			if s.left == 2 && data[0] != alertWarning {
				return nil, false
			}
			s.left--
			data = data[1:]
			continue
		}
		part := data[:min(s.left, len(data))]
		s.left -= len(part)
		data = data[len(part):]
		if len(s.message.b) == 0 {
			if size, whole := messageSize(part); whole && len(part) >= size {
				return part[:size], true // the usual hello comes in one piece
			}
		}
		if !s.message.add(part, maxHello+maxRecord) {
			return nil, false
		}
		size, whole := messageSize(s.message.b)
		if whole && len(s.message.b) >= size {
			return s.message.b[:size], true
		}
		if whole && size > maxHello {
			return nil, false
		}
	}
	return nil, true
}

// messageSize is the size of a handshake message with its header, once that is there.
func messageSize(b []byte) (size int, ok bool) {
	if len(b) < 4 {
		return 0, false
	}
	return 4 + int(b[1])<<16 + int(b[2])<<8 + int(b[3]), true
}

// hello reads the first message of a side. Who sends the ClientHello is the client,
// whichever side the flow's first packet came from.
func (p *tlsParser) hello(dir Dir, message []byte, f *Facts) {
	body := message[4:]
	switch {
	case message[0] == msgClientHello && !f.Final.Has(FieldTLSSNI) && p.client.parse(body):
		h := &p.client
		f.TLS.SNI = hostText(h.sni)
		f.TLS.ALPN = h.protocols()
		f.TLS.Version = h.version
		f.TLS.ECH = h.ech
		f.TLS.JA4 = p.prints.ja4(h, 't')
		f.settle(tlsClientFields)
	case message[0] == msgServerHello && !f.Final.Has(FieldTLSServerVersion) && p.server.parse(body):
		h := &p.server
		f.TLS.ServerVersion, f.TLS.ServerCipher, f.TLS.ServerALPN = h.version, h.cipher, h.alpn
		f.settle(tlsServerFields)
	default:
		p.giveUp(dir, f)
		return
	}
	p.sides[dir].over = true
	p.sides[dir].message.free()
}

// giveUp makes what this side would have told final. When the first side to fail is the
// one that opened the flow, its hello would have been the ClientHello.
func (p *tlsParser) giveUp(dir Dir, f *Facts) {
	f.Gap = true
	f.version++
	p.sides[dir].over = true
	p.sides[dir].message.free()
	clientLeft := !f.Final.Has(FieldTLSSNI)
	serverLeft := !f.Final.Has(FieldTLSServerVersion)
	switch {
	case p.sides[dir^1].over:
		f.settle(tlsClientFields | tlsServerFields)
	case dir == ToServer && clientLeft:
		f.settle(tlsClientFields)
	case dir == ToClient && serverLeft:
		f.settle(tlsServerFields)
	}
}
