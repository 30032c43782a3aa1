package app

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/binary"
)

// quicVersion is what the protection of initial packets depends on.
type quicVersion struct {
	number  uint32
	initial byte // the type bits of an initial packet
	salt    string
	labels  [3]string // of key, IV, header protection
}

var quicVersions = [...]quicVersion{
	{1, 0, // RFC 9001 section 5.2
		"\x38\x76\x2c\xf7\xf5\x59\x34\xb3\x4d\x17\x9a\xe6\xa4\xc8\x0c\xad\xcc\xbb\x7f\x0a",
		[3]string{"quic key", "quic iv", "quic hp"}},
	{0x6b3343cf, 1, // RFC 9369 section 3
		"\x0d\xed\xe3\xde\xf7\x00\xa6\xdb\x81\x93\x81\xbe\x6e\x26\x9d\xcb\xf9\xbd\x2e\xd9",
		[3]string{"quicv2 key", "quicv2 iv", "quicv2 hp"}},
	{0xff00001d, 0, // draft-ietf-quic-tls-29 section 5.2
		"\xaf\xbf\xec\x28\x99\x93\xd2\x4c\x9e\x97\x86\xf1\x9c\x61\x11\xe0\x43\x90\xa8\x99",
		[3]string{"quic key", "quic iv", "quic hp"}},
}

func quicVersionOf(number uint32) *quicVersion {
	for i := range quicVersions {
		if quicVersions[i].number == number {
			return &quicVersions[i]
		}
	}
	return nil
}

// quicKeys remove the protection of a client's initial packets.
type quicKeys struct {
	version *quicVersion
	aead    cipher.AEAD
	header  cipher.Block
	iv      [12]byte
}

// newQUICKeys derives them from the destination connection ID of the client's first
// packet (RFC 9001 section 5.2).
func newQUICKeys(v *quicVersion, dcid []byte) (k quicKeys, err error) {
	initial, err := hkdf.Extract(sha256.New, dcid, []byte(v.salt))
	if err != nil {
		return k, err
	}
	client, err := expandLabel(initial, "client in", sha256.Size)
	if err != nil {
		return k, err
	}
	var parts [3][]byte
	for i, size := range [3]int{16, 12, 16} {
		if parts[i], err = expandLabel(client, v.labels[i], size); err != nil {
			return k, err
		}
	}
	block, err := aes.NewCipher(parts[0])
	if err != nil {
		return k, err
	}
	k.version = v
	copy(k.iv[:], parts[1])
	if k.header, err = aes.NewCipher(parts[2]); err != nil {
		return k, err
	}
	k.aead, err = cipher.NewGCM(block)
	return k, err
}

// expandLabel is TLS 1.3's HKDF-Expand-Label with an empty context (RFC 8446 section 7.1).
func expandLabel(secret []byte, label string, size int) ([]byte, error) {
	info := append([]byte{0, byte(size), byte(6 + len(label))}, "tls13 "...)
	info = append(append(info, label...), 0)
	return hkdf.Expand(sha256.New, secret, string(info), size)
}

// open returns the frames of a packet, in scratch, which is grown as needed. The
// packet stays as it is.
func (k *quicKeys) open(scratch []byte, p *quicPacket) (grown, frames []byte, ok bool) {
	packet := p.datagram[:p.end]
	const sampleAt = 4 // the sample is taken as if the packet number had four bytes
	if len(packet) < p.number+sampleAt+aes.BlockSize {
		return scratch, nil, false
	}
	var mask [aes.BlockSize]byte
	k.header.Encrypt(mask[:], packet[p.number+sampleAt:][:aes.BlockSize])

	first := packet[0] ^ mask[0]&0x0f
	size := int(first&3) + 1
	header := append(scratch[:0], packet[:p.number+size]...)
	header[0] = first
	var number uint32
	for i := range size {
		header[p.number+i] ^= mask[1+i]
		number = number<<8 | uint32(header[p.number+i])
	}
	// Initial packets are few: their numbers have not outgrown what is sent of them.
	nonce := k.iv
	tail := nonce[8:]
	binary.BigEndian.PutUint32(tail, binary.BigEndian.Uint32(tail)^number)

	opened, err := k.aead.Open(header, nonce[:], packet[p.number+size:], header)
	if err != nil {
		return header[:0], nil, false
	}
	return opened[:0], opened[len(header):], true
}
