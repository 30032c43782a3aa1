package app

import (
	"encoding/binary"

	"golang.org/x/crypto/cryptobyte"
)

// TLS extensions that say something here (IANA, TLS ExtensionType Values).
const (
	extServerName          = 0x0000
	extSignatureAlgorithms = 0x000d
	extALPN                = 0x0010
	extSupportedVersions   = 0x002b
	extEncryptedHello      = 0xfe0d
)

// Handshake messages (RFC 8446 section 4).
const (
	msgClientHello = 1
	msgServerHello = 2
)

// maxHello bounds a hello with its header. Servers refuse far shorter ones (crypto/tls at
// 64 KiB), while hellos with post-quantum key shares have about 2 KiB.
const maxHello = 64 << 10

// clientHello has the parts of a ClientHello as they lie in the message.
type clientHello struct {
	version    uint16 // the highest offered
	ciphers    cryptobyte.String
	extensions cryptobyte.String // the whole block
	sni        []byte
	hasSNI     bool
	alpn       cryptobyte.String // the list without its length
	algorithms cryptobyte.String // signature algorithms
	ech        bool
}

// parse reads the body of a ClientHello (RFC 8446 section 4.1.2). A hello that is cut
// short or has bytes left over is none: servers refuse it.
func (h *clientHello) parse(body []byte) bool {
	*h = clientHello{}
	s := cryptobyte.String(body)
	var session, compression, ext cryptobyte.String
	if !s.ReadUint16(&h.version) || !s.Skip(32) ||
		!s.ReadUint8LengthPrefixed(&session) ||
		!s.ReadUint16LengthPrefixed(&h.ciphers) || len(h.ciphers)%2 != 0 ||
		!s.ReadUint8LengthPrefixed(&compression) {
		return false
	}
	if s.Empty() {
		return true // before extensions there were none
	}
	if !s.ReadUint16LengthPrefixed(&h.extensions) || !s.Empty() {
		return false
	}
	for ext = h.extensions; !ext.Empty(); {
		var kind uint16
		var data cryptobyte.String
		if !ext.ReadUint16(&kind) || !ext.ReadUint16LengthPrefixed(&data) {
			return false
		}
		if !h.extension(kind, data) {
			return false
		}
	}
	return true
}

func (h *clientHello) extension(kind uint16, data cryptobyte.String) bool {
	switch kind {
	case extServerName:
		if h.hasSNI {
			return true
		}
		h.hasSNI = true
		var list, name cryptobyte.String
		var nameType uint8
		if !data.ReadUint16LengthPrefixed(&list) {
			return len(data) == 0 // empty in a hello that only says it understands names
		}
		for !list.Empty() {
			if !list.ReadUint8(&nameType) || !list.ReadUint16LengthPrefixed(&name) {
				return false
			}
			if nameType == 0 && h.sni == nil {
				h.sni = name
			}
		}
	case extALPN:
		return data.ReadUint16LengthPrefixed(&h.alpn)
	case extSignatureAlgorithms:
		return data.ReadUint16LengthPrefixed(&h.algorithms) && len(h.algorithms)%2 == 0
	case extSupportedVersions:
		var list cryptobyte.String
		if !data.ReadUint8LengthPrefixed(&list) || len(list)%2 != 0 {
			return false
		}
		var highest uint16
		for ; len(list) > 0; list = list[2:] {
			if v := binary.BigEndian.Uint16(list); !grease(v) && v > highest {
				highest = v
			}
		}
		if highest != 0 {
			h.version = highest
		}
	case extEncryptedHello:
		h.ech = true
	}
	return true
}

// protocols is the ALPN list as strings.
func (h *clientHello) protocols() []string {
	n := 0
	var name cryptobyte.String
	for list := h.alpn; list.ReadUint8LengthPrefixed(&name); {
		n++
	}
	if n == 0 {
		return nil
	}
	protocols := make([]string, 0, n)
	for list := h.alpn; list.ReadUint8LengthPrefixed(&name); {
		protocols = append(protocols, protocolText(name))
	}
	return protocols
}

// protocolText is text that does not copy the usual names.
func protocolText(name []byte) string {
	switch string(name) {
	case "h2":
		return "h2"
	case "h3":
		return "h3"
	case "http/1.1":
		return "http/1.1"
	case "dot":
		return "dot"
	}
	return text(name)
}

// grease reports whether v is reserved to keep peers tolerant (RFC 8701).
func grease(v uint16) bool { return v&0x0f0f == 0x0a0a && v>>8 == v&0xff }

// serverHello is what a ServerHello chooses.
type serverHello struct {
	version, cipher uint16
	alpn            string
}

// parse reads the body of a ServerHello (RFC 8446 section 4.1.3). A HelloRetryRequest
// has the same form, and the server is bound to what it says.
func (h *serverHello) parse(body []byte) bool {
	*h = serverHello{}
	s := cryptobyte.String(body)
	var session, extensions, data cryptobyte.String
	if !s.ReadUint16(&h.version) || !s.Skip(32) ||
		!s.ReadUint8LengthPrefixed(&session) || !s.ReadUint16(&h.cipher) || !s.Skip(1) {
		return false
	}
	if s.Empty() {
		return true
	}
	if !s.ReadUint16LengthPrefixed(&extensions) || !s.Empty() {
		return false
	}
	for !extensions.Empty() {
		var kind uint16
		if !extensions.ReadUint16(&kind) || !extensions.ReadUint16LengthPrefixed(&data) {
			return false
		}
		switch kind {
		case extSupportedVersions:
			if !data.ReadUint16(&h.version) {
				return false
			}
		case extALPN:
			var list, name cryptobyte.String
			if !data.ReadUint16LengthPrefixed(&list) || !list.ReadUint8LengthPrefixed(&name) {
				return false
			}
			h.alpn = protocolText(name)
		}
	}
	return true
}
