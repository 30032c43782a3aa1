package image

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"hash/crc64"
)

const xzMagic = "\xfd7zXZ\x00"

// Filters of .xz that kernels and modules are made with.
const (
	xzX86   = 0x04 // of a bzImage: calls and jumps have absolute targets
	xzLZMA2 = 0x21
)

// unxz reads the first stream of a .xz file (The .xz File Format, version 1.2.1), block
// by block, and checks it as its header says. Its index is not read.
func unxz(data []byte) ([]byte, error) {
	const header = 12
	if len(data) < header || crc32.ChecksumIEEE(data[6:8]) != binary.LittleEndian.Uint32(data[8:]) {
		return nil, fmt.Errorf("header: %w", ErrCorrupt)
	}
	check := data[7] & 15
	var out []byte
	pos := header
	for pos < len(data) && data[pos] != 0 { // 0 begins the index
		size := (int(data[pos]) + 1) * 4
		if size > len(data)-pos {
			return nil, fmt.Errorf("block header cut: %w", ErrCorrupt)
		}
		x86, err := xzFilters(data[pos : pos+size])
		if err != nil {
			return nil, err
		}
		pos += size
		d := lzma{begin: len(out), out: out}
		used, err := d.lzma2(data[pos:])
		if err != nil {
			return nil, err
		}
		pos += (used + 3) &^ 3
		block := d.out[len(out):]
		if x86 {
			relativeCalls(block)
		}
		used, ok := xzCheck(check, block, data[min(pos, len(data)):])
		if !ok {
			return nil, fmt.Errorf("checksum of the block that ends at %d: %w", pos, ErrCorrupt)
		}
		pos += used
		out = d.out
	}
	if pos >= len(data) {
		return nil, fmt.Errorf("no index after %d bytes: %w", len(out), ErrCorrupt)
	}
	return out, nil
}

// xzFilters reads a block's header.
func xzFilters(h []byte) (x86 bool, err error) {
	body, sum := h[:len(h)-4], binary.LittleEndian.Uint32(h[len(h)-4:])
	if crc32.ChecksumIEEE(body) != sum {
		return false, fmt.Errorf("block header: %w", ErrCorrupt)
	}
	flags, rest := body[1], body[2:]
	number := func() int {
		v, n := binary.Uvarint(rest)
		if n <= 0 || v > maxSize {
			v, n = maxSize, len(rest)
		}
		rest = rest[n:]
		return int(v)
	}
	for _, present := range []byte{0x40, 0x80} { // sizes, packed and plain
		if flags&present != 0 {
			number()
		}
	}
	last := 0
	for range int(flags&3) + 1 {
		last = number()
		properties := rest[:min(number(), len(rest))]
		rest = rest[min(len(properties), len(rest)):]
		switch {
		case last == xzX86 && len(properties) == 0:
			x86 = true
		case last != xzLZMA2:
			return false, fmt.Errorf("xz filter %#x is not known", last)
		}
	}
	if last != xzLZMA2 {
		return false, fmt.Errorf("the last xz filter is %#x: %w", last, ErrCorrupt)
	}
	return x86, nil
}

// xzCheck compares a block with its check, and returns the check's length.
func xzCheck(kind byte, block, rest []byte) (used int, ok bool) {
	var sum []byte
	switch kind {
	case 0:
	case 1:
		sum = binary.LittleEndian.AppendUint32(nil, crc32.ChecksumIEEE(block))
	case 4:
		sum = binary.LittleEndian.AppendUint64(nil, crc64.Checksum(block, crc64.MakeTable(crc64.ECMA)))
	case 10:
		s := sha256.Sum256(block)
		sum = s[:]
	default:
		return 0, false
	}
	return len(sum), bytes.HasPrefix(rest, sum)
}

// lzma2 decodes chunks up to their end, and returns how many bytes they take.
func (d *lzma) lzma2(in []byte) (used int, err error) {
	const (
		end, plainReset, plain = 0, 1, 2
		packed                 = 0x80 // two bits of what to reset and five of the size follow
	)
	short := fmt.Errorf("LZMA2 chunk cut: %w", ErrCorrupt)
	known := false // properties are
	for {
		if used >= len(in) {
			return 0, short
		}
		control := in[used]
		head := in[used:]
		if control == end {
			return used + 1, nil
		}
		if len(head) < 6 {
			return 0, short
		}
		size := int(binary.BigEndian.Uint16(head[1:])) + 1
		if control&packed != 0 {
			size += int(control&0x1f) << 16
		}
		if len(d.out)+size > maxSize {
			return 0, ErrTooLarge
		}
		d.limit = len(d.out) + size
		switch {
		case control == plainReset || control == plain:
			if control == plainReset {
				d.begin = len(d.out)
			}
			if len(head) < 3+size {
				return 0, short
			}
			d.out = append(d.out, head[3:3+size]...)
			used += 3 + size
			continue
		case control&packed == 0:
			return 0, fmt.Errorf("LZMA2 chunk of kind %#x: %w", control, ErrCorrupt)
		}
		length := int(binary.BigEndian.Uint16(head[3:])) + 1
		at := 5
		switch reset := control >> 5 & 3; {
		case reset >= 2:
			if reset == 3 {
				d.begin = len(d.out)
			}
			if err := d.setProperties(head[at]); err != nil {
				return 0, err
			}
			known = true
			at++
		case !known:
			return 0, fmt.Errorf("LZMA2 chunk without properties: %w", ErrCorrupt)
		case reset == 1:
			d.reset()
		}
		if len(head) < at+length {
			return 0, short
		}
		if err := d.start(head[at : at+length]); err != nil {
			return 0, err
		}
		if ended, err := d.decode(); err != nil || ended {
			return 0, fmt.Errorf("LZMA2 chunk at %d: %w", used, ErrCorrupt)
		}
		used += at + length
	}
}

// relativeCalls undoes the x86 filter: the targets of calls (e8) and jumps (e9) were made
// absolute, so that calls of one function look alike. An opcode's byte within the
// operand of another makes it a matter of guessing for both sides, in the same way:
// recent holds which of the three bytes before were opcodes.
func relativeCalls(code []byte) {
	sign := func(b byte) bool { return b == 0x00 || b == 0xff }
	recent, last := uint32(0), -5
	for i := 0; i+5 <= len(code); i++ {
		if code[i]&0xfe != 0xe8 {
			continue
		}
		if gap := i - last; gap > 3 {
			recent = 0
		} else {
			recent = recent << (gap - 1) & 7
		}
		last = i
		// Two opcodes before, or one whose operand would end in no sign byte
		// here: this one was left alone.
		if recent != 0 && (recent == 3 || recent >= 5 || sign(code[i+4-operandByte(recent)])) || !sign(code[i+4]) {
			recent = recent<<1 | 1
			continue
		}
		from := uint32(i + 5)
		target := binary.LittleEndian.Uint32(code[i+1:])
		offset := target - from
		for recent != 0 {
			shift := 8 * operandByte(recent)
			if !sign(byte(offset >> (24 - shift))) {
				break
			}
			offset = (offset ^ (1<<(32-shift) - 1)) - from
		}
		offset &= 1<<25 - 1
		offset |= -(offset & (1 << 24))
		binary.LittleEndian.PutUint32(code[i+1:], offset)
		i += 4
	}
}

// operandByte is the number of the byte in an operand that an earlier opcode reaches to.
func operandByte(recent uint32) int { return int([8]uint8{0, 1, 2, 2, 3, 3, 3, 3}[recent]) }
