package packet

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math/bits"
	"net/netip"
)

// ChecksumState is what is known of a packet's transport checksum before it is
// computed; the kernel tells it with each queued packet (NFQA_SKB_INFO).
type ChecksumState uint8

const (
	// ChecksumUnverified: nobody has checked it.
	ChecksumUnverified ChecksumState = iota
	// ChecksumPartial: the packet was made on this machine and its checksum is to
	// be filled in by the network card; what stands in the header is not one.
	ChecksumPartial
	// ChecksumVerified: the network card or the kernel has found it right.
	ChecksumVerified
)

// Verify checks the IPv4 header's checksum and, when the state leaves it open, the
// transport's. It sets BadIPChecksum and BadChecksum in p.Anomalies and tells
// whether both are right as far as can be known: the transport's cannot be in
// fragments, packets copied in part, packets with a routing header (whose pseudo
// header has another destination), and UDP without a checksum.
func (p *Packet) Verify(state ChecksumState) bool {
	p.Anomalies &^= BadIPChecksum | BadChecksum
	if p.Version == 4 {
		if n := int(p.Data[0]&15) * 4; n >= ipv4HeaderLen && n <= len(p.Data) && fold(sum(p.Data[:n], 0)) != 0xffff {
			p.Anomalies |= BadIPChecksum
		}
	}
	if state == ChecksumUnverified && p.verifiable() && !p.transportOK() {
		p.Anomalies |= BadChecksum
	}
	return p.Anomalies&(BadIPChecksum|BadChecksum) == 0
}

func (p *Packet) verifiable() bool {
	return p.HasTransport && !p.Fragment && p.Anomalies&Truncated == 0 && p.Options&Routing == 0
}

func (p *Packet) transportOK() bool {
	b := p.Data[p.Transport:p.Len]
	switch p.Proto {
	case ProtoTCP:
		return fold(sum(b, p.pseudo(len(b)))) == 0xffff
	case ProtoUDP:
		if binary.BigEndian.Uint16(b[6:]) == 0 {
			return true
		}
		b = b[:8+len(p.Payload)]
		return fold(sum(b, p.pseudo(len(b)))) == 0xffff
	case ProtoUDPLite:
		coverage := int(binary.BigEndian.Uint16(b[4:]))
		if coverage == 0 {
			coverage = len(b)
		}
		if coverage < 8 || coverage > len(b) {
			return false
		}
		return fold(sum(b[:coverage], p.pseudo(len(b)))) == 0xffff
	case ProtoICMP:
		return fold(sum(b, 0)) == 0xffff
	case ProtoICMPv6:
		return fold(sum(b, p.pseudo(len(b)))) == 0xffff
	case ProtoSCTP:
		return sctpSum(b) == binary.LittleEndian.Uint32(b[8:])
	}
	return true
}

// FixChecksums writes the IPv4 header's and the transport's checksum into p.Data,
// as is due after either was changed. It leaves the transport's alone where Verify
// could not check it, and a UDP checksum of 0 in IPv4: its sender wants none.
func (p *Packet) FixChecksums() {
	if p.Version == 4 {
		if n := int(p.Data[0]&15) * 4; n >= ipv4HeaderLen && n <= len(p.Data) {
			put(p.Data[:n], 10, 0)
		}
	}
	if !p.verifiable() {
		return
	}
	b := p.Data[p.Transport:p.Len]
	switch p.Proto {
	case ProtoTCP:
		p.TCP.Checksum = put(b, 16, p.pseudo(len(b)))
	case ProtoUDP:
		b = b[:8+len(p.Payload)]
		if binary.BigEndian.Uint16(b[6:]) == 0 && p.Version == 4 {
			return
		}
		if put(b, 6, p.pseudo(len(b))) == 0 {
			binary.BigEndian.PutUint16(b[6:], 0xffff)
		}
	case ProtoUDPLite:
		coverage := int(binary.BigEndian.Uint16(b[4:]))
		if coverage < 8 || coverage > len(b) {
			coverage = len(b)
		}
		if put(b[:coverage], 6, p.pseudo(len(b))) == 0 {
			binary.BigEndian.PutUint16(b[6:], 0xffff)
		}
	case ProtoICMP:
		put(b, 2, 0)
	case ProtoICMPv6:
		put(b, 2, p.pseudo(len(b)))
	case ProtoSCTP:
		binary.LittleEndian.PutUint32(b[8:], sctpSum(b))
	}
}

// ErrReplace is returned for packets whose payload cannot be replaced.
var ErrReplace = errors.New("payload cannot be replaced")

// AppendReplaced appends p with another payload to dst: lengths and checksums are
// put right. It fails with ErrReplace for fragments, for transports that are not
// known, and when the result would be too long for its headers. Replacing a TCP
// payload with one of another length shifts all later sequence numbers, which the
// caller then has to translate in both directions.
func (p *Packet) AppendReplaced(dst, payload []byte) ([]byte, error) {
	off, ok := p.payloadOffset()
	if !ok || p.Fragment || off > len(p.Data) || p.Options&Jumbo != 0 {
		return dst, ErrReplace
	}
	total := off + len(payload)
	if p.Version == 6 && total-ipv6HeaderLen > 0xffff || p.Version == 4 && total > 0xffff {
		return dst, fmt.Errorf("%d bytes: %w", total, ErrReplace)
	}
	start := len(dst)
	dst = append(append(dst, p.Data[:off]...), payload...)
	b := dst[start:]
	if p.Version == 4 {
		binary.BigEndian.PutUint16(b[2:], uint16(total))
	} else {
		binary.BigEndian.PutUint16(b[4:], uint16(total-ipv6HeaderLen))
	}
	if p.Proto == ProtoUDP {
		binary.BigEndian.PutUint16(b[p.Transport+4:], uint16(total-p.Transport))
	}
	var out Packet
	if err := out.Decode(b); err != nil {
		return dst[:start], ErrReplace
	}
	out.FixChecksums()
	return dst, nil
}

// payloadOffset returns where in Data the payload begins.
func (p *Packet) payloadOffset() (int, bool) {
	if !p.HasTransport {
		return 0, false
	}
	switch p.Proto {
	case ProtoTCP:
		return p.Transport + int(p.TCP.HeaderLen), p.Anomalies&BadHeaderLen == 0
	case ProtoUDP, ProtoUDPLite, ProtoICMP, ProtoICMPv6:
		return p.Transport + 8, true
	case ProtoSCTP:
		return p.Transport + 12, true
	}
	return 0, false
}

// pseudo returns the sum of the pseudo header for a transport of n bytes.
func (p *Packet) pseudo(n int) uint64 {
	if p.Version == 4 {
		return sum(p.Data[12:20], uint64(p.Proto)+uint64(n))
	}
	return sum(p.Data[8:40], uint64(p.Proto)+uint64(n))
}

// put computes the checksum of b with the field at off, writes it there and returns
// it.
func put(b []byte, off int, initial uint64) uint16 {
	b[off], b[off+1] = 0, 0
	c := ^fold(sum(b, initial))
	binary.BigEndian.PutUint16(b[off:], c)
	return c
}

// sum adds b to an Internet checksum (RFC 1071) without folding it: in units of
// eight bytes with end-around carry, which is the same modulo 0xffff.
func sum(b []byte, initial uint64) uint64 {
	s, c := initial, uint64(0)
	for len(b) >= 32 {
		s, c = bits.Add64(s, binary.BigEndian.Uint64(b), c)
		s, c = bits.Add64(s, binary.BigEndian.Uint64(b[8:]), c)
		s, c = bits.Add64(s, binary.BigEndian.Uint64(b[16:]), c)
		s, c = bits.Add64(s, binary.BigEndian.Uint64(b[24:]), c)
		b = b[32:]
	}
	for len(b) >= 8 {
		s, c = bits.Add64(s, binary.BigEndian.Uint64(b), c)
		b = b[8:]
	}
	var last uint64
	for i, x := range b {
		last |= uint64(x) << (56 - 8*i)
	}
	s, c = bits.Add64(s, last, c)
	s, c = bits.Add64(s, 0, c)
	return s + c
}

func fold(s uint64) uint16 {
	s = s>>32 + s&0xffffffff
	s = s>>32 + s&0xffffffff
	s = s>>16 + s&0xffff
	s = s>>16 + s&0xffff
	s = s>>16 + s&0xffff
	return uint16(s)
}

var (
	castagnoli = crc32.MakeTable(crc32.Castagnoli)
	zeros      [4]byte
)

// sctpSum computes the CRC32c of an SCTP packet with its checksum taken as 0 (RFC
// 9260, 6.8 and appendix A).
func sctpSum(b []byte) uint32 {
	c := crc32.Update(0, castagnoli, b[:8])
	c = crc32.Update(c, castagnoli, zeros[:])
	return crc32.Update(c, castagnoli, b[12:])
}

// unicast tells whether a can be one host's address, as far as can be told without
// knowing the networks: a directed broadcast cannot be.
func unicast(a netip.Addr) bool {
	return a.IsValid() && !a.IsMulticast() && !a.IsUnspecified() && a != netip.AddrFrom4([4]byte{255, 255, 255, 255})
}
