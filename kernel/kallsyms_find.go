package kernel

import (
	"bytes"
	"fmt"

	"inquest/kernel/x86"
)

// digits is a part of every kallsyms_token_table: the ten digits stand for
// themselves, because symbol names use them all.
var digits = []byte("0\x001\x002\x003\x004\x005\x006\x007\x008\x009\x00")

// maxSearch bounds the work of findTables, in words and names looked at: a forged
// image may be full of what looks like tables.
const maxSearch = 1 << 26

// findTables looks for the symbol tables in the kernel image, for kernels whose
// VMCOREINFO does not name them (before 6.0). scripts/kallsyms.c lays them out
// around the token table in one of three orders, the first two at multiples of 8,
// the last at multiples of 4:
//
//	offsets relative_base num_syms names markers [seqs_of_names] token_table token_index  (before 6.4)
//	num_syms names markers token_table token_index offsets relative_base seqs_of_names    (since, commit 404bad70fcf7)
//	num_syms names markers token_table token_index offsets seqs_of_names                  (since 7.0, commit a081b5789255)
//
// seqs_of_names came with 6.2 (commit 60443c88f3a8).
func (k *Kernel) findTables() (symbolTables, error) {
	image := k.imageReader()
	for at, ok := image.find(digits, k.rodata()); ok && image.left > 0; at, ok = image.find(digits, at+1) {
		t := symbolTables{source: fmt.Sprintf("found at %v", at)}
		if t.tokenTable, t.tokenIndex, ok = image.tokenTable(at); !ok {
			continue
		}
		if image.namesFirst(&t) || image.addressesFirst(&t) {
			return t, nil
		}
	}
	return symbolTables{}, fmt.Errorf("kallsyms tables in the image at %v: %w", k.Layout.Text, ErrNoSymbol)
}

// rodata returns where read-only data begins: the first page of the image that
// is not executable. It is only where to begin a search.
func (k *Kernel) rodata() Addr {
	start := k.Layout.Text
	for a := start; a-start < maxText; {
		m, err := k.mem.pt.Walk(uint64(a))
		if err != nil {
			return start
		}
		if m.Flags&x86.PageNoExecute != 0 {
			return a
		}
		a = (a + Addr(m.Size)) &^ Addr(m.Size-1)
	}
	return start
}

// image is the kernel image as a stream of pages; missing ones read as zeros.
type image struct {
	k    *Kernel
	zero [pageSize]byte
	left int // of maxSearch
}

func (k *Kernel) imageReader() *image { return &image{k: k, left: maxSearch} }

func (m *image) page(a Addr) []byte {
	p, err := m.k.mem.page(a)
	if err != nil {
		return m.zero[:]
	}
	return p
}

// find returns the first place of pattern at or after from, within the image.
func (m *image) find(pattern []byte, from Addr) (Addr, bool) {
	const gap = 16 << 20 / pageSize // so many missing pages are the end of the image
	var seam []byte                 // the end of the page before
	missing := 0
	for a := from; a-m.k.Layout.Text < maxText && missing < gap; {
		p := m.page(a)
		if missing++; &p[0] != &m.zero[0] {
			missing = 0
		}
		p = p[a%pageSize:]
		seam = append(seam, p[:min(len(p), len(pattern)-1)]...)
		if i := bytes.Index(seam, pattern); i >= 0 {
			return a + Addr(min(len(p), len(pattern)-1)+i-len(seam)), true
		}
		if i := bytes.Index(p, pattern); i >= 0 {
			return a + Addr(i), true
		}
		a += Addr(len(p))
		seam = append(seam[:0], p[max(0, len(p)-len(pattern)+1):]...)
	}
	return 0, false
}

// read returns n bytes at a.
func (m *image) read(a Addr, n int) []byte {
	out := make([]byte, 0, n)
	for len(out) < n {
		p := m.page(a)[a%pageSize:]
		p = p[:min(len(p), n-len(out))]
		out = append(out, p...)
		a += Addr(len(p))
	}
	return out
}

func align(a, to Addr) Addr { return (a + to - 1) &^ (to - 1) }

// isBase reports whether a can be the first address that kallsyms knows, which is
// where the image begins.
func (m *image) isBase(a Addr) bool {
	text := m.k.Layout.Text
	return a <= text && text-a < 2<<20
}

// tokenTable finds the start of the token table around the digits in it, and the
// index behind it, which must agree.
func (m *image) tokenTable(digitsAt Addr) (table, index Addr, ok bool) {
	const before, after = 8192, 8192
	m.left -= (before + after) / 8
	buf := m.read(digitsAt-before, before+after)
	// The string for '0' is number 0x30 of 256; each ends in a NUL. What stands in
	// front of the first one may end in any byte.
	second := before
	for range '0' - 1 {
		second = bytes.LastIndexByte(buf[:max(second-1, 0)], 0) + 1
	}
	var want [512]byte // less what the first one takes
	pos := second
	for i := 1; i < 256; i++ {
		if pos >= len(buf) {
			return 0, 0, false
		}
		le.PutUint16(want[2*i:], uint16(pos-second))
		pos += len(cut0(buf[pos:])) + 1
	}
	for index := pos; index < pos+16 && index+512 <= len(buf); index++ {
		first := le.Uint16(buf[index+2:])
		if start := second - int(first); start >= 0 && indexFits(buf[index:index+512], want[:], first) {
			return digitsAt - before + Addr(start), digitsAt - before + Addr(index), true
		}
	}
	return 0, 0, false
}

// indexFits reports whether a token index is as wanted, but for the first token's size.
func indexFits(index, want []byte, first uint16) bool {
	for i := 2; i < len(index); i += 2 {
		if le.Uint16(index[i:]) != le.Uint16(want[i:])+first {
			return false
		}
	}
	return le.Uint16(index) == 0 && first > 0
}

// addressesFirst completes t for the order before 6.4: somewhere in front of the
// token table stand the base and the number of symbols, and then that many names.
func (m *image) addressesFirst(t *symbolTables) bool {
	const chunk, furthest = 64 << 10, 32 << 20
	for end := t.tokenTable &^ 7; t.tokenTable-end < furthest && m.left > 0; end -= chunk {
		buf := m.read(end-chunk, chunk+8)
		m.left -= chunk / 8
		for at := chunk - 8; at >= 0; at -= 8 {
			if !m.isBase(Addr(le.Uint64(buf[at:]))) {
				continue
			}
			base := end - chunk + Addr(at)
			num := le.Uint32(buf[at+8:])
			if m.namesFit(base+16, int(num), t.tokenTable, 8) {
				t.relativeBase, t.count, t.names = base, base+8, base+16
				t.offsets = base - align(4*Addr(num), 8)
				return true
			}
		}
	}
	return false
}

// namesFirst completes t for the orders since 6.4: the markers end right before the
// token table and lead to the names; offsets stand behind the token index.
func (m *image) namesFirst(t *symbolTables) bool {
	const window = 64 << 10 // markers of 4 million names
	buf := m.read(t.tokenTable-window, window)
	word := func(end int) uint32 { return le.Uint32(buf[end-4 : end]) }
	for _, padding := range []int{0, 4} {
		first := window - padding
		last := word(first)
		for first >= 8 && word(first) > word(first-4) {
			first -= 4
		}
		if word(first) != 0 {
			continue
		}
		markers := t.tokenTable - Addr(window-first) - 4
		chunks := (window - padding - first) / 4
		// The last, short chunk is all that separates the markers from names[last].
		end := (markers - Addr(last)) &^ 3
		for names := end; end-names < markerStride*128 && m.left > 0; names -= 4 {
			for _, alignment := range []Addr{4, 8} {
				m.left--
				num := int(le.Uint32(m.read(names-alignment, 4)))
				if names%alignment != 0 || num > maxSymbols || (num-1)/markerStride != chunks ||
					!m.namesFit(names, num, t.tokenTable, alignment) {
					continue
				}
				t.names, t.count = names, names-alignment
				t.offsets = align(t.tokenIndex+512, alignment)
				if alignment == 8 {
					t.relativeBase = align(t.offsets+4*Addr(num), 8)
					return m.isBase(Addr(le.Uint64(m.read(t.relativeBase, 8))))
				}
				return m.isBase(t.offsets + Addr(int64(int32(le.Uint32(m.read(t.offsets, 4))))))
			}
		}
	}
	return false
}

// namesFit reports whether num names begin at an address, end before limit, and
// are followed by kallsyms_markers, the offset of every 256th name: 32-bit words
// since 4.20 (commit 80ffbaa5b1bd), 64-bit ones before.
func (m *image) namesFit(names Addr, num int, limit, alignment Addr) bool {
	if num <= 2*markerStride || num > maxSymbols {
		return false
	}
	at, second := names, Addr(0)
	page := m.page(at)
	next := func() byte {
		c := page[at%pageSize]
		if at++; at%pageSize == 0 {
			page = m.page(at)
		}
		return c
	}
	for i := range num {
		if i == markerStride {
			second = at - names
		}
		if m.left--; at >= limit || m.left < 0 {
			return false
		}
		n := int(next())
		if n&0x80 != 0 {
			n = n&0x7f | int(next())<<7
		}
		if n == 0 || n > maxNameLen {
			return false
		}
		if to := at + Addr(n); to/pageSize != at/pageSize {
			page = m.page(to)
		}
		at += Addr(n)
	}
	markers := m.read(align(at, alignment), 16)
	return le.Uint32(markers) == 0 &&
		(Addr(le.Uint32(markers[4:])) == second || Addr(le.Uint64(markers[8:])) == second)
}
