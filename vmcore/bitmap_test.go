package vmcore

import (
	"bytes"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
)

// randomBitmap has long runs of ones and zeros as well as single bits.
func randomBitmap(size int, seed uint64) []byte {
	r := rand.New(rand.NewPCG(seed, 3))
	p := make([]byte, size)
	for i := 0; i < size; {
		n, fill := 1+r.IntN(200), r.IntN(3)
		for ; n > 0 && i < size; i, n = i+1, n-1 {
			switch fill {
			case 0:
				p[i] = 0xff
			case 1:
				p[i] = byte(r.Uint32())
			}
		}
	}
	return p
}

func bitSet(p []byte, i uint64) bool { return i/8 < uint64(len(p)) && p[i/8]>>(i%8)&1 != 0 }

func imageOf(p []byte) image { return readerImage{bytes.NewReader(p), int64(len(p))} }

func TestBitmapFind(t *testing.T) {
	const lead = 100 // what precedes the bitmap in the file
	for _, size := range []int{1, 7, 511, 512, 513, 5000, 300_000} {
		p := randomBitmap(size, uint64(size))
		ranks := make([]uint64, size*8+1)
		for i := range uint64(size * 8) {
			ranks[i+1] = ranks[i]
			if bitSet(p, i) {
				ranks[i+1]++
			}
		}
		im := imageOf(append(make([]byte, lead), p...))
		r := rand.New(rand.NewPCG(uint64(size), 4))
		b := newBitmap(im, lead, uint64(size))
		for range 3000 {
			pfn := uint64(r.IntN(size*8 + 20))
			rank, set, err := b.find(pfn)
			if err != nil || set != bitSet(p, pfn) || set && rank != ranks[pfn] {
				t.Fatalf("size %d: find(%d) = %d, %v, %v; want %d, %v", size, pfn, rank, set, err, ranks[min(pfn, uint64(size*8))], bitSet(p, pfn))
			}
			if b.has(pfn) != set {
				t.Fatalf("size %d: has(%d) = %v", size, pfn, !set)
			}
		}
		// Many at once, on a bitmap not counted yet.
		b = newBitmap(im, lead, uint64(size))
		var wg sync.WaitGroup
		for g := range 8 {
			wg.Go(func() {
				r := rand.New(rand.NewPCG(uint64(size), uint64(g)))
				for range 300 {
					pfn := uint64(r.IntN(size * 8))
					if rank, _, err := b.find(pfn); err != nil || rank != ranks[pfn] {
						t.Errorf("size %d: find(%d) = %d, %v; want %d", size, pfn, rank, err, ranks[pfn])
						return
					}
				}
			})
		}
		wg.Wait()
	}
}

func TestBitmapRuns(t *testing.T) {
	for _, size := range []int{1, 9, 64, 5000, 70_000} {
		p := randomBitmap(size, uint64(size)+100)
		b := newBitmap(imageOf(p), 0, uint64(size))
		bits := uint64(size * 8)
		for _, span := range [][2]uint64{{0, bits}, {0, bits + 1000}, {3, bits - 3}, {bits / 3, bits / 2}, {5, 5}, {bits, bits + 9}} {
			var want, got []uint64
			for i := span[0]; i < min(span[1], bits); i++ {
				if bitSet(p, i) {
					want = append(want, i)
				}
			}
			end := uint64(0)
			b.runs(span[0], span[1], func(pfn, n uint64) bool {
				if n == 0 || len(got) > 0 && pfn <= end {
					t.Errorf("size %d, span %v: run %d+%d after %d is empty or could have been joined", size, span, pfn, n, end)
				}
				end = pfn + n
				for ; n > 0; pfn, n = pfn+1, n-1 {
					got = append(got, pfn)
				}
				return true
			})
			if !slices.Equal(got, want) {
				t.Errorf("size %d, span %v: runs give %d pages, want %d, or others", size, span, len(got), len(want))
			}
		}
	}
}

func TestBitmapRunsStop(t *testing.T) {
	b := newBitmap(imageOf([]byte{0b0101_0101}), 0, 1)
	calls := 0
	if b.runs(0, 8, func(uint64, uint64) bool { calls++; return false }) || calls != 1 {
		t.Errorf("runs went on for %d calls after it was told to stop", calls)
	}
}

func TestBitmapOverlap(t *testing.T) {
	for _, size := range []int{1, 100, 9000} {
		pa, pb := randomBitmap(size, 1), randomBitmap(size, 2)
		a, b := newBitmap(imageOf(pa), 0, uint64(size)), newBitmap(imageOf(pb), 0, uint64(size))
		bits := uint64(size * 8)
		for _, span := range [][2]uint64{{0, bits}, {0, bits + 77}, {3, bits - 2}, {bits / 3, bits / 2}, {5, 5}} {
			var inB, onlyA uint64
			for i := span[0]; i < span[1]; i++ {
				if bitSet(pb, i) {
					inB++
				} else if bitSet(pa, i) {
					onlyA++
				}
			}
			if x, y := b.overlap(a, span[0], span[1]); x != inB || y != onlyA {
				t.Errorf("size %d, span %v: overlap = %d, %d; want %d, %d", size, span, x, y, inB, onlyA)
			}
			if x, y := b.overlap(nil, span[0], span[1]); x != inB || y != 0 {
				t.Errorf("size %d, span %v: overlap with nothing = %d, %d; want %d, 0", size, span, x, y, inB)
			}
		}
	}
}

// BenchmarkRank looks pages of a 1 TiB machine up; the first lookup, which counts
// the 32 MiB bitmap, is measured apart.
func BenchmarkRank(b *testing.B) {
	const size = 32 << 20
	p := randomBitmap(size, 1)
	b.Run("first", func(b *testing.B) {
		for b.Loop() {
			newBitmap(mappedImage{p}, 0, size).find(size*8 - 1)
		}
	})
	b.Run("next", func(b *testing.B) {
		m := newBitmap(mappedImage{p}, 0, size)
		m.find(size*8 - 1)
		r := rand.New(rand.NewPCG(1, 1))
		for b.Loop() {
			m.find(r.Uint64N(size * 8))
		}
	})
}
