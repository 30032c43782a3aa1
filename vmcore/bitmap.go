package vmcore

import (
	"encoding/binary"
	"math/bits"
	"runtime"
	"sync"
	"sync/atomic"
)

// rankBlock is the number of bitmap bytes whose set bits are counted
// together: 4096 pages. The sums then take a 64th of the bitmap's size, and the
// part of a block that a lookup counts itself takes some 20 ns.
const rankBlock = 512

// bitmap is one of a kdump's page bitmaps, left in the file. Bit i of byte i/8
// stands for page i.
type bitmap struct {
	im   image
	off  uint64 // in im
	size uint64 // bytes that the file really holds

	// prefix[i] is the number of bits set before block i. It grows to the
	// highest block asked for, so opening touches none of the bitmap; a
	// bitmap of 32 MiB (1 TiB of memory) is counted in a few milliseconds
	// when its end is first read.
	prefix atomic.Pointer[[]uint64]
	mu     sync.Mutex // held to grow prefix
}

// bitmapBuf is scratch space of a bitmap lookup.
type bitmapBuf [rankBlock]byte

var bitmapBufs = sync.Pool{New: func() any { return new(bitmapBuf) }}

// bits is the number of pages that the bitmap speaks of.
func (b *bitmap) bits() uint64 { return b.size * 8 }

// has reports whether the page's bit is set.
func (b *bitmap) has(pfn uint64) bool {
	if pfn/8 >= b.size {
		return false
	}
	buf := bitmapBufs.Get().(*bitmapBuf)
	defer bitmapBufs.Put(buf)
	if readAt(b.im, buf[:1], b.off+pfn/8) != nil {
		return false
	}
	return buf[0]>>(pfn%8)&1 != 0
}

// find reports whether the page's bit is set and how many are set before it.
func (b *bitmap) find(pfn uint64) (rank uint64, set bool, err error) {
	if pfn/8 >= b.size {
		return 0, false, nil
	}
	block, in := pfn/8/rankBlock, pfn%(rankBlock*8)
	before, err := b.before(block)
	if err != nil {
		return 0, false, err
	}
	buf := bitmapBufs.Get().(*bitmapBuf)
	defer bitmapBufs.Put(buf)
	p := buf[:in/8+1]
	if err := readAt(b.im, p, b.off+block*rankBlock); err != nil {
		return 0, false, err
	}
	last := p[in/8]
	rank = before + popcount(p[:in/8]) + uint64(bits.OnesCount8(last&(1<<(in%8)-1)))
	return rank, last>>(in%8)&1 != 0, nil
}

// before is prefix[block], counted if need be.
func (b *bitmap) before(block uint64) (uint64, error) {
	if p := b.prefix.Load(); p != nil && block < uint64(len(*p)) {
		return (*p)[block], nil
	}
	return b.grow(block)
}

// grow extends prefix to the block and returns what it has for it.
func (b *bitmap) grow(block uint64) (uint64, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	prefix := []uint64{0}
	if p := b.prefix.Load(); p != nil {
		prefix = *p
	}
	have := uint64(len(prefix))
	if block < have-1 {
		return prefix[block], nil // another goroutine was faster
	}
	counts, err := b.count(have-1, block)
	if err != nil {
		return 0, err
	}
	sum := prefix[have-1]
	for _, n := range counts {
		sum += uint64(n)
		prefix = append(prefix, sum)
	}
	b.prefix.Store(&prefix)
	return sum, nil
}

// count counts the bits of the blocks [from, to), each by itself.
func (b *bitmap) count(from, to uint64) ([]uint16, error) {
	counts := make([]uint16, to-from)
	// 128 KiB a piece: enough to pay for a goroutine.
	const piece = 256
	var (
		wg     sync.WaitGroup
		next   atomic.Uint64
		failed atomic.Pointer[error]
	)
	work := func() {
		buf := make([]byte, min(piece, len(counts))*rankBlock)
		for failed.Load() == nil {
			i := next.Add(piece) - piece
			if i >= uint64(len(counts)) {
				return
			}
			n := min(piece, uint64(len(counts))-i)
			p := buf[:min(n*rankBlock, b.size-(from+i)*rankBlock)]
			if err := readAt(b.im, p, b.off+(from+i)*rankBlock); err != nil {
				failed.Store(&err)
				return
			}
			for j := range n {
				counts[i+j] = uint16(popcount(p[j*rankBlock : min((j+1)*rankBlock, uint64(len(p)))]))
			}
		}
	}
	for range min(runtime.GOMAXPROCS(0), len(counts)/piece) {
		wg.Go(work)
	}
	work()
	wg.Wait()
	if err := failed.Load(); err != nil {
		return nil, *err
	}
	return counts, nil
}

// popcount counts the bits set in p.
func popcount(p []byte) (n uint64) {
	for ; len(p) >= 8; p = p[8:] {
		n += uint64(bits.OnesCount64(binary.LittleEndian.Uint64(p)))
	}
	for _, c := range p {
		n += uint64(bits.OnesCount8(c))
	}
	return n
}

// runs yields the runs of set bits in [from, to) in order, as first page and
// length.
func (b *bitmap) runs(from, to uint64, yield func(pfn, n uint64) bool) bool {
	to = min(to, b.bits())
	var start, n uint64 // the run being gathered
	buf := make([]byte, 32<<10)
	for pos := from &^ 63; pos < to; {
		p := buf[:min(uint64(len(buf)), (to-pos+63)/64*8)]
		have := min(uint64(len(p)), b.size-pos/8)
		clear(p[have:])
		if readAt(b.im, p[:have], b.off+pos/8) != nil {
			break
		}
		for ; len(p) > 0; p, pos = p[8:], pos+64 {
			word := binary.LittleEndian.Uint64(p)
			if pos < from {
				word &^= 1<<(from-pos) - 1
			}
			if to-pos < 64 {
				word &= 1<<(to-pos) - 1
			}
			if word == ^uint64(0) && n > 0 && start+n == pos {
				n += 64
				continue
			}
			for bit := uint64(0); word != 0; {
				zeros := uint64(bits.TrailingZeros64(word))
				word >>= zeros
				bit += zeros
				ones := uint64(bits.TrailingZeros64(^word))
				if n > 0 && start+n == pos+bit {
					n += ones
				} else {
					if n > 0 && !yield(start, n) {
						return false
					}
					start, n = pos+bit, ones
				}
				word >>= ones
				bit += ones
			}
		}
	}
	return n == 0 || yield(start, n)
}

// overlap counts, over the pages in [from, to), the bits set in b and those
// set in a but not in b.
func (b *bitmap) overlap(a *bitmap, from, to uint64) (inB, onlyA uint64) {
	var bufA, bufB [4096]byte
	for pos := from &^ 7; pos < to; pos += uint64(len(bufB)) * 8 {
		read := func(m *bitmap, buf []byte) {
			clear(buf)
			if m == nil || pos/8 >= m.size {
				return
			}
			p := buf[:min(uint64(len(buf)), m.size-pos/8)]
			if readAt(m.im, p, m.off+pos/8) != nil {
				clear(p)
			}
			if pos < from {
				p[0] &^= 1<<(from-pos) - 1
			}
			if end := to - pos; end < uint64(len(p))*8 {
				p[end/8] &= 1<<(end%8) - 1
				clear(p[end/8+1:])
			}
		}
		if (a == nil || pos/8 >= a.size) && pos/8 >= b.size {
			break
		}
		read(b, bufB[:])
		read(a, bufA[:])
		inB += popcount(bufB[:])
		for i := range bufA {
			bufA[i] &^= bufB[i]
		}
		onlyA += popcount(bufA[:])
	}
	return inB, onlyA
}
