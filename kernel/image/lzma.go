package image

import (
	"encoding/binary"
	"fmt"
)

// lzma decodes LZMA, the compression within .lzma and, in chunks, .xz. The names are
// those of the format's specification (Igor Pavlov, LZMA specification, 2015). What has
// been decoded is its own dictionary: all of it is kept.
type lzma struct {
	out   []byte
	begin int // of the dictionary in out
	limit int // of len(out)

	// The range decoder.
	in   []byte
	pos  int
	rng  uint32
	code uint32

	lc, lp, pb int // literal context bits, literal position bits, position bits
	state      int
	rep        [4]int // last distances, less one

	isMatch    [states][16]uint16
	isRep      [states]uint16
	isRepG0    [states]uint16
	isRepG1    [states]uint16
	isRepG2    [states]uint16
	isRep0Long [states][16]uint16
	posSlot    [4][64]uint16
	special    [128]uint16
	align      [16]uint16
	matchLen   lengths
	repLen     lengths
	literal    []uint16
}

const (
	states  = 12
	evenBit = 1 << 10 // a probability of one half
	noEnd   = -1      // an end marker is not allowed
)

// lengths decodes lengths of matches.
type lengths struct {
	choice, choice2 uint16
	low, mid        [16][8]uint16
	high            [256]uint16
}

// unlzma reads the .lzma format: properties, size of the dictionary, size.
func unlzma(data []byte) ([]byte, error) {
	const header = 13
	if len(data) < header {
		return nil, fmt.Errorf("header cut after %d bytes: %w", len(data), ErrCorrupt)
	}
	var d lzma
	if err := d.setProperties(data[0]); err != nil {
		return nil, err
	}
	size := binary.LittleEndian.Uint64(data[5:])
	switch unknown := size == ^uint64(0); {
	case unknown:
		d.limit = maxSize
	case size > maxSize:
		return nil, ErrTooLarge
	default:
		d.limit = int(size)
	}
	if err := d.start(data[header:]); err != nil {
		return nil, err
	}
	ended, err := d.decode()
	if err != nil {
		return nil, err
	}
	if !ended && size == ^uint64(0) {
		return nil, ErrTooLarge
	}
	return d.out, nil
}

// setProperties takes the byte that holds lc, lp and pb, and forgets what was learnt.
func (d *lzma) setProperties(b byte) error {
	if b >= 9*5*5 {
		return fmt.Errorf("LZMA properties %#x: %w", b, ErrCorrupt)
	}
	d.lc, d.lp, d.pb = int(b%9), int(b/9%5), int(b/45)
	if n := 0x300 << (d.lc + d.lp); len(d.literal) != n {
		d.literal = make([]uint16, n)
	}
	d.reset()
	return nil
}

func (d *lzma) reset() {
	d.state, d.rep = 0, [4]int{}
	even := func(table []uint16) {
		for i := range table {
			table[i] = evenBit
		}
	}
	for i := range states {
		even(d.isMatch[i][:])
		even(d.isRep0Long[i][:])
	}
	for _, t := range []*[states]uint16{&d.isRep, &d.isRepG0, &d.isRepG1, &d.isRepG2} {
		even(t[:])
	}
	for i := range d.posSlot {
		even(d.posSlot[i][:])
	}
	even(d.special[:])
	even(d.align[:])
	even(d.literal)
	for _, l := range []*lengths{&d.matchLen, &d.repLen} {
		l.choice, l.choice2 = evenBit, evenBit
		for i := range l.low {
			even(l.low[i][:])
			even(l.mid[i][:])
		}
		even(l.high[:])
	}
}

// start begins with the range coder's bytes.
func (d *lzma) start(in []byte) error {
	if len(in) < 5 || in[0] != 0 {
		return fmt.Errorf("begin of LZMA data: %w", ErrCorrupt)
	}
	d.in, d.pos = in, 5
	d.rng, d.code = 0xffffffff, binary.BigEndian.Uint32(in[1:])
	return nil
}

// bit decodes a bit by its probability, which adapts.
func (d *lzma) bit(p *uint16) int {
	if d.rng < 1<<24 {
		d.fill()
	}
	v := uint32(*p)
	bound := d.rng >> 11 * v
	if d.code < bound {
		d.rng = bound
		*p = uint16(v + (1<<11-v)>>5)
		return 0
	}
	d.rng -= bound
	d.code -= bound
	*p = uint16(v - v>>5)
	return 1
}

// fill takes a byte more. Behind the end there are zeros; decode notices.
func (d *lzma) fill() {
	d.rng <<= 8
	d.code <<= 8
	if d.pos < len(d.in) {
		d.code |= uint32(d.in[d.pos])
	}
	d.pos++
}

// tree decodes n bits, the highest first.
func (d *lzma) tree(probs []uint16, n int) int {
	m := 1
	for range n {
		m = m<<1 | d.bit(&probs[m])
	}
	return m - 1<<n
}

// reverseTree decodes n bits, the lowest first.
func (d *lzma) reverseTree(probs []uint16, n int) int {
	m, v := 1, 0
	for i := range n {
		b := d.bit(&probs[m])
		m = m<<1 | b
		v |= b << i
	}
	return v
}

// direct decodes n bits of which none is more likely than the other.
func (d *lzma) direct(n int) int {
	v := 0
	for range n {
		if d.rng < 1<<24 {
			d.fill()
		}
		d.rng >>= 1
		v <<= 1
		if d.code >= d.rng {
			d.code -= d.rng
			v |= 1
		}
	}
	return v
}

func (d *lzma) length(l *lengths, posState int) int {
	switch {
	case d.bit(&l.choice) == 0:
		return 2 + d.tree(l.low[posState][:], 3)
	case d.bit(&l.choice2) == 0:
		return 10 + d.tree(l.mid[posState][:], 3)
	}
	return 18 + d.tree(l.high[:], 8)
}

// distance decodes how far back, less one, a match of a length lies; noEnd for the
// end marker.
func (d *lzma) distance(length int) int {
	slot := d.tree(d.posSlot[min(length-2, 3)][:], 6)
	if slot < 4 {
		return slot
	}
	n := slot>>1 - 1
	base := (2 | slot&1) << n
	if slot < 14 {
		return base + d.reverseTree(d.special[base-slot:], n)
	}
	base += d.direct(n-4) << 4
	if base += d.reverseTree(d.align[:], 4); base == 0xffffffff {
		return noEnd
	}
	return base
}

// decode decodes until out has limit bytes, or up to the end marker.
func (d *lzma) decode() (ended bool, err error) {
	for len(d.out) < d.limit {
		// The range coder is up to four bytes ahead of what it has used.
		if d.pos > len(d.in)+4 {
			return false, fmt.Errorf("LZMA data ends early: %w", ErrCorrupt)
		}
		posState := (len(d.out) - d.begin) & (1<<d.pb - 1)
		if d.bit(&d.isMatch[d.state][posState]) == 0 {
			d.decodeLiteral()
			continue
		}
		n, ended := d.match(posState)
		if ended {
			return true, nil
		}
		back := d.rep[0] + 1
		if back > len(d.out)-d.begin || n > d.limit-len(d.out) {
			return false, fmt.Errorf("match of %d bytes, %d back at %d: %w", n, back, len(d.out), ErrCorrupt)
		}
		d.out = appendMatch(d.out, back, n)
	}
	return false, nil
}

// match decodes the length of a match, whose distance becomes rep[0].
func (d *lzma) match(posState int) (n int, ended bool) {
	s := d.state
	after := func(before7, from7 int) {
		if d.state = from7; s < 7 {
			d.state = before7
		}
	}
	if d.bit(&d.isRep[s]) == 0 {
		n = d.length(&d.matchLen, posState)
		after(7, 10)
		d.rep = [4]int{d.distance(n), d.rep[0], d.rep[1], d.rep[2]}
		return n, d.rep[0] == noEnd
	}
	if d.bit(&d.isRepG0[s]) == 0 {
		if d.bit(&d.isRep0Long[s][posState]) == 0 {
			after(9, 11)
			return 1, false
		}
	} else {
		which := 1
		if d.bit(&d.isRepG1[s]) == 1 {
			which = 2 + d.bit(&d.isRepG2[s])
		}
		again := d.rep[which]
		copy(d.rep[1:which+1], d.rep[:which])
		d.rep[0] = again
	}
	after(8, 11)
	return d.length(&d.repLen, posState), false
}

func (d *lzma) decodeLiteral() {
	before := 0
	pos := len(d.out) - d.begin
	if pos > 0 {
		before = int(d.out[len(d.out)-1])
	}
	context := pos&(1<<d.lp-1)<<d.lc + before>>(8-d.lc)
	probs := d.literal[0x300*context:][:0x300]
	symbol := 1
	if d.state >= 7 && d.rep[0] < pos {
		// After a match the byte that would have gone on with it is a hint.
		hint := int(d.out[len(d.out)-1-d.rep[0]])
		for symbol < 0x100 {
			bit := hint >> 7 & 1
			hint <<= 1
			got := d.bit(&probs[(1+bit)<<8+symbol])
			symbol = symbol<<1 | got
			if got != bit {
				break
			}
		}
	}
	for symbol < 0x100 {
		symbol = symbol<<1 | d.bit(&probs[symbol])
	}
	d.out = append(d.out, byte(symbol))
	switch {
	case d.state < 4:
		d.state = 0
	case d.state < 10:
		d.state -= 3
	default:
		d.state -= 6
	}
}
