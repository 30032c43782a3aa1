package app

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"slices"

	"golang.org/x/crypto/cryptobyte"
)

// fingerprinter computes JA4, FoxIO's fingerprint of a TLS client
// (github.com/FoxIO-LLC/ja4, technical_details/JA4.md; the TLS client part is under a
// BSD licence, the rest of the family is not and is left out). It keeps its memory
// from one hello to the next.
type fingerprinter struct {
	values []uint16
	list   []byte
}

// ja4 is the fingerprint of a hello; transport is 't' over TCP, 'q' in QUIC.
//
//	t13d1516h2_8daaf6152771_e5627efa2ab1
//	| | | | |  |            hash of the sorted extensions, then the signature algorithms
//	| | | | |  hash of the sorted ciphers
//	| | | | first and last character of the first ALPN protocol
//	| | | number of ciphers and of extensions
//	| | d: a server name, i: none
//	| highest version offered
//	transport
func (p *fingerprinter) ja4(h *clientHello, transport byte) string {
	var out [36]byte
	s := append(out[:0], transport)
	s = append(s, versionDigits(h.version)...)
	if h.hasSNI {
		s = append(s, 'd')
	} else {
		s = append(s, 'i')
	}

	p.values = p.values[:0]
	for c := h.ciphers; len(c) >= 2; c = c[2:] {
		if v := binary.BigEndian.Uint16(c); !grease(v) {
			p.values = append(p.values, v)
		}
	}
	s = twoDigits(s, len(p.values))
	slices.Sort(p.values)
	p.list = hexList(p.list[:0], p.values)
	ciphers := shortHash(p.list)

	count := 0
	p.values = p.values[:0]
	var data cryptobyte.String
	var kind uint16
	for e := h.extensions; e.ReadUint16(&kind) && e.ReadUint16LengthPrefixed(&data); {
		if grease(kind) {
			continue
		}
		count++
		if kind != extServerName && kind != extALPN {
			p.values = append(p.values, kind)
		}
	}
	s = twoDigits(s, count)
	slices.Sort(p.values)
	p.list = hexList(p.list[:0], p.values)
	p.values = p.values[:0]
	for a := h.algorithms; len(a) >= 2; a = a[2:] {
		if v := binary.BigEndian.Uint16(a); !grease(v) {
			p.values = append(p.values, v)
		}
	}
	if len(p.list) > 0 && len(p.values) > 0 {
		p.list = hexList(append(p.list, '_'), p.values)
	}
	extensions := shortHash(p.list)

	s = append(s, alpnEnds(h.alpn)...)
	s = append(append(s, '_'), ciphers[:]...)
	s = append(append(s, '_'), extensions[:]...)
	p.shrink()
	return string(s)
}

// shrink lets go of what only a hello made to be large needs.
func (p *fingerprinter) shrink() {
	if cap(p.values) > keepBuffer {
		p.values = nil
	}
	if cap(p.list) > keepBuffer {
		p.list = nil
	}
}

func versionDigits(v uint16) string {
	switch v {
	case 0x0304:
		return "13"
	case 0x0303:
		return "12"
	case 0x0302:
		return "11"
	case 0x0301:
		return "10"
	case 0x0300:
		return "s3"
	case 0x0002:
		return "s2"
	}
	return "00"
}

func twoDigits(s []byte, n int) []byte {
	n = min(n, 99)
	return append(s, byte('0'+n/10), byte('0'+n%10))
}

// hexList appends values as four hexadecimal digits each, with commas between.
func hexList(list []byte, values []uint16) []byte {
	for i, v := range values {
		if i > 0 {
			list = append(list, ',')
		}
		list = hex.AppendEncode(list, []byte{byte(v >> 8), byte(v)})
	}
	return list
}

// shortHash is the first twelve digits of the SHA-256 of a list; zeros for none, so
// that nobody takes the hash of nothing for a value.
func shortHash(list []byte) (short [12]byte) {
	if len(list) == 0 {
		copy(short[:], "000000000000")
		return short
	}
	sum := sha256.Sum256(list)
	hex.Encode(short[:], sum[:6])
	return short
}

// alpnEnds is the first and the last character of the first protocol, or of its
// hexadecimal form when one of them is no letter or digit.
func alpnEnds(list cryptobyte.String) []byte {
	var name cryptobyte.String
	if !list.ReadUint8LengthPrefixed(&name) || len(name) == 0 {
		return []byte("00")
	}
	first, last := name[0], name[len(name)-1]
	if alphanumeric(first) && alphanumeric(last) {
		return []byte{first, last}
	}
	const digits = "0123456789abcdef"
	return []byte{digits[first>>4], digits[last&15]}
}

func alphanumeric(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= lowerByte(c) && lowerByte(c) <= 'z'
}
