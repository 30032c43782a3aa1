package app

// Facts is what the analyzers have learnt of one flow. The strings are never
// overwritten: they may be kept when the flow is gone. They are valid UTF-8; a byte
// that is not is U+FFFD.
//
// Only the part of the flow's own protocol is ever filled; the others stay zero, and
// their fields become final as soon as it is certain that they stay so.
type Facts struct {
	Proto Proto
	Done  bool // every field is final: the flow's payload need not be shown any more
	Gap   bool // bytes were not seen, or a bound was reached: what is absent may be so for that reason

	// Known has the fields whose value is settled for the message at hand, absent
	// values included. Final has those that can never change again; it is a subset.
	Known, Final FieldSet

	TLS  TLSFacts
	QUIC QUICFacts
	HTTP HTTPFacts
	DNS  DNSFacts
	SSH  SSHFacts

	version uint32 // counts changes of fields that were known before
}

// Proto is the application protocol of a flow.
type Proto uint8

// The protocols that are recognised. HTTP2 is the cleartext kind, known by its preface.
const (
	ProtoUnknown Proto = iota
	ProtoTLS
	ProtoQUIC
	ProtoHTTP
	ProtoHTTP2
	ProtoDNS
	ProtoSSH
)

var protoNames = [...]string{"", "tls", "quic", "http", "http2", "dns", "ssh"}

// String is the name that rules use, "" when the protocol is unknown.
func (p Proto) String() string {
	if int(p) < len(protoNames) {
		return protoNames[p]
	}
	return ""
}

// TLSFacts is what a TLS handshake shows in clear.
type TLSFacts struct {
	SNI     string   // lower case, without a trailing dot
	ALPN    []string // offered, in the client's order
	Version uint16   // the highest the client offers, as on the wire: 0x0304 is TLS 1.3
	JA4     string   // the client's fingerprint
	ECH     bool     // the hello carries an encrypted one, of which SNI is the outer name, or a decoy

	ServerVersion uint16 // chosen by the server
	ServerCipher  uint16 // chosen by the server
	ServerALPN    string // chosen by the server, visible up to TLS 1.2
}

// QUICFacts is what a QUIC connection's initial packets show.
type QUICFacts struct {
	SNI     string   // lower case, without a trailing dot
	ALPN    []string // offered, in the client's order
	Version uint32   // of the packet that carried the hello: 1 is RFC 9000
	JA4     string   // the client's fingerprint
	ECH     bool     // the hello carries an encrypted one, of which SNI is the outer name, or a decoy
}

// HTTPFacts is the request at hand of an HTTP/1 connection, and the last response.
type HTTPFacts struct {
	Method    string
	Host      string // lower case, without port and trailing dot
	Path      string // as sent, with the query; of an absolute-form target, what follows the host
	UserAgent string
	Status    int // of the last response's head that was complete; 0 before one
}

// DNSFacts is the DNS message at hand.
type DNSFacts struct {
	ID       uint16
	Response bool
	EDNS     bool
	Names    []string // of the questions, lower case, without the trailing dot
	Types    []string // of the questions: "A", "HTTPS", "TYPE1234"
	RCode    string   // of a response: "NOERROR", "NXDOMAIN", "RCODE12"
	Answers  []string // of a response: addresses of A and AAAA, targets of CNAME records
}

// SSHFacts is what both sides of an SSH connection say in their first line.
type SSHFacts struct {
	Client, Server SSHBanner
}

// SSHBanner is one identification line, RFC 4253 section 4.2.
type SSHBanner struct {
	Line     string // "SSH-2.0-OpenSSH_9.9 Debian-1"
	Version  string // "2.0"
	Software string // "OpenSSH_9.9"
}

// claim says whose flow it is: what the other analyzers could learn is final.
func (f *Facts) claim(p Proto, own FieldSet) {
	f.Proto = p
	f.settle(AllFields &^ own &^ (1 << FieldGap))
}

// settle makes fields known and final: their values cannot change any more.
func (f *Facts) settle(s FieldSet) {
	f.Known |= s
	f.Final |= s
}

// end makes every field final.
func (f *Facts) end() {
	f.settle(AllFields)
	f.Done = true
}
