package app

import "encoding/binary"

// QUIC reads the client's initial packets (RFC 9000, RFC 9001), whose protection keeps
// out bystanders only.
var QUIC = &Analyzer{
	Name: "quic",
	Doc:  "QUIC versions 1, 2 and draft 29: the names and protocols in the client's initial packets, and its JA4 fingerprint",
	Fields: []Field{
		{ID: FieldQUICSNI, Name: "quic.sni", Type: String,
			Doc:    "the server name in the ClientHello, lower case, without a trailing dot",
			String: func(f *Facts) string { return f.QUIC.SNI }},
		{ID: FieldQUICALPN, Name: "quic.alpn", Type: Strings,
			Doc:     "the application protocols that the client offers, in its order",
			Strings: func(f *Facts) []string { return f.QUIC.ALPN }},
		{ID: FieldQUICVersion, Name: "quic.version", Type: Int,
			Doc: "the version as on the wire: 1, 0x6b3343cf for version 2, 0xff00001d for draft 29",
			Int: func(f *Facts) int64 { return int64(f.QUIC.Version) }},
		{ID: FieldQUICJA4, Name: "quic.ja4", Type: String,
			Doc:    "the client's JA4 fingerprint",
			String: func(f *Facts) string { return f.QUIC.JA4 }},
		{ID: FieldQUICECH, Name: "quic.ech", Type: Bool,
			Doc:  "the ClientHello carries an encrypted one; quic.sni is then the outer name",
			Bool: func(f *Facts) bool { return f.QUIC.ECH }},
	},
	Match: matchQUIC,
	New:   func() Parser { return new(quicParser) },
}

var quicFields = Set(FieldQUICSNI, FieldQUICALPN, FieldQUICVersion, FieldQUICJA4, FieldQUICECH)

const (
	// maxQUICDatagrams bounds how many datagrams of a client are read for its hello.
	maxQUICDatagrams = 32
	// maxQUICAttempts bounds how often keys are derived for one flow.
	maxQUICAttempts = 16
	// minInitial is what a client's datagram with an initial packet has at least
	// (RFC 9000 section 14.1). Servers drop shorter ones.
	minInitial = 1200
	portHTTPS  = 443
)

// quicPacket is a long header (RFC 9000 section 17.2) and where the rest of the packet
// lies in the datagram.
type quicPacket struct {
	version  *quicVersion // nil: none that can be read
	kind     byte         // the type as version 1 numbers it
	dcid     []byte
	number   int // offset of the protected packet number
	end      int // of the packet
	datagram []byte
}

// The types of long header packets in version 1.
const (
	quicInitial = iota
	quicZeroRTT
	quicHandshake
	quicRetry
)

// parse reads the first packet of a datagram.
func (p *quicPacket) parse(b []byte) bool {
	*p = quicPacket{datagram: b}
	if len(b) < 7 || b[0]&0xc0 != 0xc0 {
		return false
	}
	version := binary.BigEndian.Uint32(b[1:])
	at, n := 6, int(b[5])
	if n > 20 || len(b) < at+n+1 {
		return false
	}
	p.dcid = b[at : at+n]
	at += n
	n = int(b[at])
	at++
	if n > 20 || len(b) < at+n {
		return false
	}
	at += n
	p.version = quicVersionOf(version)
	p.end = len(b)
	if p.version == nil {
		// Reserved to make servers negotiate (RFC 9000 section 15): a client may
		// begin with one.
		return version&0x0f0f0f0f == 0x0a0a0a0a
	}
	p.kind = (b[0]>>4&3 - p.version.initial) & 3
	if p.kind == quicRetry {
		return true
	}
	if p.kind == quicInitial {
		token, n := quicInt(b[at:])
		if n == 0 || token > uint64(len(b)) {
			return false
		}
		at += n + int(token)
		if at > len(b) {
			return false
		}
	}
	length, n := quicInt(b[at:])
	if n == 0 || length > uint64(len(b)-at-n) {
		return false
	}
	p.number = at + n
	p.end = p.number + int(length)
	return true
}

// quicInt reads a variable-length integer (RFC 9000 section 16); n is 0 when b is
// too short.
func quicInt(b []byte) (v uint64, n int) {
	if len(b) == 0 {
		return 0, 0
	}
	n = 1 << (b[0] >> 6)
	if len(b) < n {
		return 0, 0
	}
	v = uint64(b[0] & 0x3f)
	for _, c := range b[1:n] {
		v = v<<8 | uint64(c)
	}
	return v, n
}

// matchQUIC wants a datagram that a server would answer. On HTTP/3's port one that is
// none may be followed by one that is: servers drop each by itself.
func matchQUIC(flow Flow, dir Dir, first []byte) Verdict {
	var p quicPacket
	switch {
	case flow.Transport != UDP:
		return NotMine
	case dir == ToServer && len(first) >= minInitial && p.parse(first) &&
		(p.version == nil || p.kind != quicHandshake && p.kind != quicRetry):
		return Mine
	case flow.ServerPort == portHTTPS:
		return More
	}
	return NotMine
}

// quicParser puts the ClientHello together from the client's initial packets.
type quicParser struct {
	keys      quicKeys
	keyed     bool
	crypto    cryptoStream
	scratch   []byte // a packet without its protection
	datagrams int
	attempts  int // at keys
	client    clientHello
	prints    fingerprinter
}

func (p *quicParser) Start(flow Flow) {
	p.keyed, p.datagrams, p.attempts = false, 0, 0
	p.crypto.reset(flow.Budget)
}

func (p *quicParser) Close() {
	p.crypto.reset(nil)
	p.keys = quicKeys{}
	p.client = clientHello{}
	if cap(p.scratch) > keepBuffer {
		p.scratch = nil
	}
}

func (p *quicParser) Feed(dir Dir, data []byte, f *Facts) (int, Verdict) {
	if f.Proto == ProtoUnknown {
		f.claim(ProtoQUIC, quicFields)
	}
	if dir == ToClient {
		return len(data), Mine
	}
	p.datagrams++
	var packet quicPacket
	for rest := data; len(rest) > 0 && packet.parse(rest); rest = rest[packet.end:] {
		if packet.version == nil || packet.kind != quicInitial {
			continue
		}
		frames, ok := p.open(&packet)
		if !ok {
			continue
		}
		if !p.crypto.frames(frames) {
			f.Gap = true
			return len(data), Done
		}
		if message := p.crypto.message(); message != nil {
			p.hello(message, packet.version.number, f)
			return len(data), Done
		}
	}
	if p.datagrams >= maxQUICDatagrams {
		f.Gap = true
		return len(data), Done
	}
	return len(data), Mine
}

// Gap is for streams; datagrams are lost without a word.
func (p *quicParser) Gap(Dir, int, *Facts) Verdict { return Mine }

// open removes a packet's protection. The keys come from the destination that the
// client chose for its first packet; a Retry or a new version makes it begin again
// with another.
func (p *quicParser) open(packet *quicPacket) (frames []byte, ok bool) {
	if p.keyed && p.keys.version == packet.version {
		if p.scratch, frames, ok = p.keys.open(p.scratch, packet); ok {
			return frames, true
		}
	}
	if p.attempts == maxQUICAttempts {
		return nil, false
	}
	p.attempts++
	keys, err := newQUICKeys(packet.version, packet.dcid)
	if err != nil {
		return nil, false
	}
	if p.scratch, frames, ok = keys.open(p.scratch, packet); !ok {
		return nil, false
	}
	p.crypto.reset(p.crypto.data.budget)
	p.keys, p.keyed = keys, true
	return frames, true
}

func (p *quicParser) hello(message []byte, version uint32, f *Facts) {
	h := &p.client
	if message[0] != msgClientHello || !h.parse(message[4:]) {
		f.Gap = true
		return
	}
	f.QUIC.SNI = hostText(h.sni)
	f.QUIC.ALPN = h.protocols()
	f.QUIC.Version = version
	f.QUIC.ECH = h.ech
	f.QUIC.JA4 = p.prints.ja4(h, 'q')
}
