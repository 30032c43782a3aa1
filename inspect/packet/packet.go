package packet

import (
	"errors"
	"net/netip"
)

// Transport protocols that Decode looks into (IANA protocol numbers).
const (
	ProtoICMP    = 1
	ProtoIPIP    = 4
	ProtoTCP     = 6
	ProtoUDP     = 17
	ProtoIPv6    = 41
	ProtoGRE     = 47
	ProtoICMPv6  = 58
	ProtoSCTP    = 132
	ProtoUDPLite = 136
)

// Packet is one decoded packet. It is meant to be reused: Decode overwrites all of
// it and allocates nothing.
type Packet struct {
	// Data is what was given to Decode, from the network header on; it is not
	// copied, and Payload points into it.
	Data []byte
	// Payload is what the transport carries, cut to the lengths that the IP and UDP
	// headers give. Of a fragment without a transport header, and of a transport
	// that is not known here, it is all that follows the IP headers.
	Payload []byte
	// PayloadLen is the length the headers claim for Payload; it is larger than
	// len(Payload) when the packet was copied only in part.
	PayloadLen int
	// Len is the length of the packet by its IP header.
	Len int
	// Transport is the offset in Data of what follows the IP headers.
	Transport int

	Src, Dst netip.Addr
	// ICMP is valid when Proto is ProtoICMP or ProtoICMPv6 and HasTransport is set.
	ICMP ICMP
	// TCP is valid when Proto is ProtoTCP and HasTransport is set.
	TCP TCP
	// SCTP is valid when Proto is ProtoSCTP and HasTransport is set.
	SCTP SCTP

	// ID is the identification by which fragments find each other.
	ID uint32
	// FlowLabel is IPv6's 20 bit flow label.
	FlowLabel uint32
	// Anomalies says what is wrong with the packet.
	Anomalies Anomaly
	// Options says which IPv4 options or IPv6 extension headers were met.
	Options Option

	// SrcPort and DstPort are the ports of TCP, UDP, UDP-Lite and SCTP, else 0.
	SrcPort, DstPort uint16
	// FragmentOffset is in bytes.
	FragmentOffset uint16

	// Version is 4 or 6, or 0 after Decode has failed.
	Version uint8
	// TOS is the IPv4 type of service or the IPv6 traffic class: DSCP and ECN.
	TOS uint8
	// TTL is the IPv4 time to live or the IPv6 hop limit.
	TTL uint8
	// Proto is the protocol that follows all IP headers: the transport.
	Proto uint8
	// Fragment tells that this is a part of a datagram; FragmentOffset is 0 for its
	// first part, the only one that has ports.
	Fragment, MoreFragments, DontFragment bool
	// HasTransport tells that the transport header was there and whole, so that
	// ports, TCP, ICMP or SCTP hold something.
	HasTransport bool
}

// Anomaly is a set of the things that are wrong with a packet. None of them keeps
// Decode from reading what can be read.
type Anomaly uint32

const (
	// Truncated: the data ends before the IP header's length does. Copying only
	// the head of each packet to user space, or a capture's snap length, does this
	// to honest packets.
	Truncated Anomaly = 1 << iota
	// BadHeaderLen: a header's own length field is too small or reaches past the
	// packet's end.
	BadHeaderLen
	// BadLen: the IP total length or the UDP length contradicts what is there.
	BadLen
	// BadIPChecksum and BadChecksum are found by Verify: the IPv4 header's and the
	// transport's checksum.
	BadIPChecksum
	BadChecksum
	// BadOptions: IPv4 or TCP options that do not parse.
	BadOptions
	// BadFragment: a fragment that ends past 65535, that is not a multiple of
	// eight bytes long though more follow, that is empty, or that ends before its
	// transport header does (RFC 1858, RFC 7112).
	BadFragment
	// TooManyHeaders: more IPv6 extension headers than Decode walks.
	TooManyHeaders
	// BadFlags: TCP flags that no stack sends: none, SYN with FIN or RST, FIN
	// without ACK.
	BadFlags
	// BadAddress: a source that cannot send: multicast, or broadcast.
	BadAddress
	// ReservedBit: the IPv4 flag that must be zero is set (RFC 3514).
	ReservedBit
	// NoTransport: the packet ends before its transport's header does.
	NoTransport
)

var anomalyNames = [...]string{
	"truncated", "bad-header-length", "bad-length", "bad-ip-checksum", "bad-checksum", "bad-options",
	"bad-fragment", "too-many-headers", "bad-flags", "bad-address", "reserved-bit", "no-transport",
}

// Names returns the names of the anomalies in a, in order.
func (a Anomaly) Names() []string { return names(uint32(a), anomalyNames[:]) }

// Option is a set of IPv4 options and IPv6 extension headers.
type Option uint16

const (
	// HopByHop to OtherHeader are IPv6 extension headers.
	HopByHop Option = 1 << iota
	DestinationOptions
	Routing
	FragmentHeader
	Authentication // also in IPv4, where it is a protocol of its own
	Mobility
	OtherHeader // HIP, shim6
	Jumbo       // a hop-by-hop option: payloads over 65535 bytes, also BIG TCP's
	// RouterAlert to OtherOption are IPv4 options; RouterAlert is also one of IPv6.
	RouterAlert
	SourceRoute // loose or strict
	RecordRoute
	Timestamp
	OtherOption
)

var optionNames = [...]string{
	"hop-by-hop", "destination-options", "routing", "fragment", "authentication", "mobility", "other-header",
	"jumbo", "router-alert", "source-route", "record-route", "timestamp", "other-option",
}

// Names returns the names of the options in o, in order.
func (o Option) Names() []string { return names(uint32(o), optionNames[:]) }

func names(set uint32, all []string) []string {
	var out []string
	for i, name := range all {
		if set&(1<<i) != 0 {
			out = append(out, name)
		}
	}
	return out
}

// Flags are the flags of a TCP header, AccECN's AE bit included.
type Flags uint16

const (
	FIN Flags = 1 << iota
	SYN
	RST
	PSH
	ACK
	URG
	ECE
	CWR
	AE
)

var flagNames = [...]string{"FIN", "SYN", "RST", "PSH", "ACK", "URG", "ECE", "CWR", "AE"}

// Has tells whether all of the flags in f2 are set.
func (f Flags) Has(f2 Flags) bool { return f&f2 == f2 }

// Names returns the names of the flags in f, in order.
func (f Flags) Names() []string { return names(uint32(f), flagNames[:]) }

// TCPOption is a set of TCP options.
type TCPOption uint16

const (
	MSS TCPOption = 1 << iota
	WindowScale
	SACKPermitted
	SACK
	Timestamps
	FastOpen
	MD5
	AuthenticationOption
	Multipath
	OtherTCPOption
)

// TCP is a TCP header.
type TCP struct {
	Seq, Ack       uint32
	TSVal, TSEcr   uint32 // valid with Options&Timestamps
	Flags          Flags
	Window, Urgent uint16
	Checksum       uint16
	MSS            uint16 // valid with Options&MSS
	Options        TCPOption
	WindowScale    uint8 // valid with Options&WindowScale
	HeaderLen      uint8 // in bytes, with options
}

// ICMP is an ICMPv4 or ICMPv6 header.
type ICMP struct {
	Type, Code uint8
	// Error tells that the message reports a packet; Inner is who sent it to whom.
	Error bool
	// ID and Seq are those of an echo.
	ID, Seq uint16
	// Inner is the packet that an error reports, as far as it is quoted; its Src is
	// invalid when not even its IP header is.
	Inner Tuple
}

// Tuple is who talks to whom.
type Tuple struct {
	Src, Dst         netip.Addr
	SrcPort, DstPort uint16
	Proto            uint8
}

// Tuple returns who talks to whom in p.
func (p *Packet) Tuple() Tuple {
	return Tuple{Src: p.Src, Dst: p.Dst, SrcPort: p.SrcPort, DstPort: p.DstPort, Proto: p.Proto}
}

// Reverse returns the tuple of the answers to t.
func (t Tuple) Reverse() Tuple {
	return Tuple{Src: t.Dst, Dst: t.Src, SrcPort: t.DstPort, DstPort: t.SrcPort, Proto: t.Proto}
}

// SCTP is an SCTP common header and the type of the chunk that follows it.
type SCTP struct {
	Tag      uint32
	Chunk    uint8
	HasChunk bool
}

// ErrNotIP is returned for data that does not begin with a whole IPv4 or IPv6
// header.
var ErrNotIP = errors.New("no IPv4 or IPv6 header")

// Decode reads the packet in data, which begins with its network header. It fails
// with ErrNotIP when there is no IP header; whatever else is wrong is told by
// p.Anomalies, and what could be read is in p.
func (p *Packet) Decode(data []byte) error {
	p.reset(data)
	if len(data) > 0 {
		switch data[0] >> 4 {
		case 4:
			if p.decodeIPv4() {
				return nil
			}
		case 6:
			if p.decodeIPv6() {
				return nil
			}
		}
	}
	return ErrNotIP
}

// reset clears what the decoders do not always write. Addresses inside ICMP hold
// pointers and are rarely set, so they are cleared only after they were.
func (p *Packet) reset(data []byte) {
	p.Data, p.Payload = data, nil
	p.PayloadLen, p.Len, p.Transport = 0, 0, 0
	if p.Version != 0 && (p.Proto == ProtoICMP || p.Proto == ProtoICMPv6) {
		p.ICMP = ICMP{}
	}
	p.TCP = TCP{}
	p.SCTP = SCTP{}
	p.ID, p.FlowLabel = 0, 0
	p.Anomalies, p.Options = 0, 0
	p.SrcPort, p.DstPort, p.FragmentOffset = 0, 0, 0
	if p.Version != 0 {
		p.Src, p.Dst = netip.Addr{}, netip.Addr{}
	}
	p.Version, p.TOS, p.TTL, p.Proto = 0, 0, 0, 0
	p.Fragment, p.MoreFragments, p.DontFragment, p.HasTransport = false, false, false, false
}
