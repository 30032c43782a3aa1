package kernel

import (
	"bytes"
	"fmt"

	"inquest/kernel/x86"
)

// digits is a part of every kallsyms_token_table: the ten digits stand for
// themselves, because symbol names use them all.
var digits = []byte("0\x001\x002\x003\x004\x005\x006\x007\x008\x009\x00")

// findTables looks for the symbol tables in the kernel image, for kernels whose
// VMCOREINFO does not name them (before 6.0). scripts/kallsyms.c lays them out
// around the token table in one of two orders:
//
//	offsets relative_base num_syms names markers [seqs_of_names] token_table token_index  (before 6.4)
//	num_syms names markers token_table token_index offsets relative_base [seqs_of_names]  (since)
func (k *Kernel) findTables() (symbolTables, error) {
	image := k.imageReader()
	for at, ok := image.find(digits, k.rodata()); ok; at, ok = image.find(digits, at+1) {
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
	for a := start; a < start+maxText; {
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
}

func (k *Kernel) imageReader() *image { return &image{k: k} }

func (m *image) page(a Addr) []byte {
	p, err := m.k.mem.page(a)
	if err != nil {
		return m.zero[:]
	}
	return p
}

// find returns the first place of pattern at or after from, within the image.
func (m *image) find(pattern []byte, from Addr) (Addr, bool) {
	end := m.k.Layout.Text + maxText
	var window []byte
	missing := 0
	for a := from; a < end; {
		p := m.page(a)
		if &p[0] == &m.zero[0] {
			if missing++; missing > 16<<20/pageSize {
				break // past the image
			}
		} else {
			missing = 0
		}
		p = p[a%pageSize:]
		keep := min(len(window), len(pattern)-1)
		window = append(window[:0:0], window[len(window)-keep:]...)
		window = append(window, p...)
		if i := bytes.Index(window, pattern); i >= 0 {
			return a + Addr(i-keep), true
		}
		a += Addr(len(p))
	}
	return 0, false
}

// read returns n bytes at a, or fewer where the image begins or ends.
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

func align8(a Addr) Addr { return (a + 7) &^ 7 }

// isBase reports whether v can be kallsyms_relative_base, which is where the image
// begins.
func (m *image) isBase(v uint64) bool {
	text := uint64(m.k.Layout.Text)
	return v <= text && v+2<<20 > text
}

// tokenTable finds the start of the token table around the digits in it, and the
// index behind it, which must agree.
func (m *image) tokenTable(digitsAt Addr) (table, index Addr, ok bool) {
	const before, after = 8192, 8192
	buf := m.read(digitsAt-before, before+after)
	// The string for '0' is number 0x30 of 256; each ends in a NUL.
	start := before
	for range '0' {
		start = bytes.LastIndexByte(buf[:max(start-1, 0)], 0) + 1
	}
	var want [512]byte
	pos := start
	for i := range 256 {
		if pos >= len(buf) {
			return 0, 0, false
		}
		le.PutUint16(want[2*i:], uint16(pos-start))
		pos += len(cut0(buf[pos:])) + 1
	}
	for index := pos; index < pos+16 && index+512 <= len(buf); index++ {
		if bytes.Equal(buf[index:index+512], want[:]) {
			return digitsAt - before + Addr(start), digitsAt - before + Addr(index), true
		}
	}
	return 0, 0, false
}

// addressesFirst completes t for the order before 6.4: somewhere in front of the
// token table stand the base and the number of symbols, and then that many names.
func (m *image) addressesFirst(t *symbolTables) bool {
	const chunk, furthest = 64 << 10, 32 << 20
	for end := t.tokenTable &^ 7; end > t.tokenTable-furthest; end -= chunk {
		buf := m.read(end-chunk, chunk+8)
		for at := chunk - 8; at >= 0; at -= 8 {
			if !m.isBase(le.Uint64(buf[at:])) {
				continue
			}
			base := end - chunk + Addr(at)
			num := le.Uint32(buf[at+8:])
			if m.namesFit(base+16, int(num), t.tokenTable) {
				t.relativeBase, t.count, t.names = base, base+8, base+16
				t.offsets = base - align8(4*Addr(num))
				return true
			}
		}
	}
	return false
}

// namesFit reports whether num names begin at an address, end before limit, and
// are followed by kallsyms_markers, the offset of every 256th name: 32-bit words
// since 4.20 (commit 80ffbaa5b1bd), 64-bit ones before.
func (m *image) namesFit(names Addr, num int, limit Addr) bool {
	if num <= 2*markerStride || num > maxSymbols {
		return false
	}
	pos, second := 0, 0
	var page []byte
	peek := func(at int) byte {
		a := names + Addr(at)
		if page == nil || a%pageSize == 0 {
			page = m.page(a)
		}
		return page[a%pageSize]
	}
	for i := range num {
		if i == markerStride {
			second = pos
		}
		if names+Addr(pos)+2 > limit {
			return false
		}
		page = nil
		n, w := nameLen([]byte{peek(pos), peek(pos + 1)})
		if n == 0 || n > maxNameLen {
			return false
		}
		pos += n + w
	}
	markers := m.read(align8(names+Addr(pos)), 16)
	return le.Uint32(markers) == 0 &&
		(le.Uint32(markers[4:]) == uint32(second) || le.Uint64(markers[8:]) == uint64(second))
}

// namesFirst completes t for the order since 6.4: the markers end right before the
// token table and lead to the names; offsets and base stand behind the token index.
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
		end := (markers - Addr(last)) &^ 7
		for names := end; names > end-markerStride*128; names -= 8 {
			num := int(le.Uint32(m.read(names-8, 4)))
			if (num-1)/markerStride != chunks || !m.namesFit(names, num, t.tokenTable) {
				continue
			}
			t.names, t.count = names, names-8
			t.offsets = align8(t.tokenIndex + 512)
			t.relativeBase = align8(t.offsets + 4*Addr(num))
			return m.isBase(le.Uint64(m.read(t.relativeBase, 8)))
		}
	}
	return false
}
