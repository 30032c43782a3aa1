package gdb

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
)

// The bounds of what a peer may send.
const (
	maxPacket = 1 << 16 // bytes between $ and #, and after expansion
	maxNoise  = 1 << 12 // bytes in front of a packet that belong to none
)

// ErrProtocol is the error for a peer that does not keep to the protocol.
var ErrProtocol = errors.New("not as the remote protocol has it")

// errChecksum is the error for a packet that was damaged on its way.
var errChecksum = fmt.Errorf("%w: bad checksum", ErrProtocol)

// frame wraps a payload: $payload#checksum. What the protocol gives a meaning is
// escaped by a brace.
func frame(payload []byte) []byte {
	packet := make([]byte, 1, len(payload)+4)
	packet[0] = '$'
	for _, b := range payload {
		if b == '$' || b == '#' || b == '}' || b == '*' {
			packet = append(packet, '}')
			b ^= 0x20
		}
		packet = append(packet, b)
	}
	return fmt.Appendf(packet, "#%02x", checksum(packet[1:]))
}

func checksum(text []byte) (sum byte) {
	for _, b := range text {
		sum += b
	}
	return sum
}

// readPacket reads the next packet's payload. What is in front of it is skipped: of
// acknowledgements there may be any number, and lines have noise.
//
// After errChecksum the next packet can be read.
func readPacket(r *bufio.Reader) ([]byte, error) {
	for n := 0; ; n++ {
		b, err := r.ReadByte()
		if err != nil {
			return nil, err
		}
		if b == '$' {
			break
		}
		if n == maxNoise {
			return nil, fmt.Errorf("%w: no packet among %d bytes", ErrProtocol, maxNoise)
		}
	}
	var text []byte
	for {
		b, err := r.ReadByte()
		if err != nil {
			return nil, unexpected(err)
		}
		if b == '#' {
			break
		}
		if len(text) == maxPacket {
			return nil, fmt.Errorf("%w: a packet of more than %d bytes", ErrProtocol, maxPacket)
		}
		text = append(text, b)
	}
	var digits [2]byte
	if _, err := io.ReadFull(r, digits[:]); err != nil {
		return nil, unexpected(err)
	}
	var sum [1]byte
	if _, err := hex.Decode(sum[:], digits[:]); err != nil || sum[0] != checksum(text) {
		return nil, errChecksum
	}
	return expand(text)
}

// unexpected is the error for an end amid a packet.
func unexpected(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

// expand undoes what makes packets short or safe: "}c" is c^0x20, and "x*c" repeats x
// c-29 times more.
func expand(text []byte) ([]byte, error) {
	if !bytes.ContainsAny(text, "}*") {
		return text, nil
	}
	var payload []byte
	for i := 0; i < len(text); i++ {
		switch b := text[i]; b {
		case '}':
			if i++; i == len(text) {
				return nil, fmt.Errorf("%w: an escape at the end of a packet", ErrProtocol)
			}
			payload = append(payload, text[i]^0x20)
		case '*':
			if i++; i == len(text) || len(payload) == 0 || text[i] < ' ' || text[i] > '~' {
				return nil, fmt.Errorf("%w: a run without a length or without a byte", ErrProtocol)
			}
			payload = append(payload, bytes.Repeat(payload[len(payload)-1:], int(text[i])-29)...)
		default:
			payload = append(payload, b)
		}
		if len(payload) > maxPacket {
			return nil, fmt.Errorf("%w: a packet that expands to more than %d bytes", ErrProtocol, maxPacket)
		}
	}
	return payload, nil
}
