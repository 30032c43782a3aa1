package vmcore

import "sync/atomic"

// defaultCacheBytes bounds the decompressed pages a Dump keeps. The garbage
// collector lets the heap grow to about twice that.
const defaultCacheBytes = 16 << 20

// cacheWays is the number of slots a page may be in.
const cacheWays = 8

// pageCache holds recently read pages. It is a set-associative array of
// pointers and needs no lock: a page is immutable once it is in, two goroutines
// that race to insert the same page both succeed, and an evicted page lives on
// with whoever holds it.
type pageCache struct {
	sets []cacheSet // a power of two of them
}

type cacheSet struct {
	slots [cacheWays]atomic.Pointer[cachedPage]
	hand  atomic.Uint32 // next slot to reuse
}

type cachedPage struct {
	pfn  uint64
	used atomic.Bool // since the hand last passed
	data []byte
}

func newPageCache(bytes, pageSize int) *pageCache {
	n := 1
	for n*2*cacheWays*pageSize <= bytes {
		n *= 2
	}
	return &pageCache{sets: make([]cacheSet, n)}
}

func (c *pageCache) set(pfn uint64) *cacheSet {
	// Fibonacci hashing: neighbouring pages spread over all sets.
	return &c.sets[(pfn*0x9e3779b97f4a7c15>>32)&uint64(len(c.sets)-1)]
}

// get returns the page, or nil.
func (c *pageCache) get(pfn uint64) []byte {
	s := c.set(pfn)
	for i := range s.slots {
		if p := s.slots[i].Load(); p != nil && p.pfn == pfn {
			if !p.used.Load() {
				p.used.Store(true)
			}
			return p.data
		}
	}
	return nil
}

// put inserts the page in place of one that was not used lately.
func (c *pageCache) put(pfn uint64, data []byte) {
	s := c.set(pfn)
	p := &cachedPage{pfn: pfn, data: data}
	for range cacheWays {
		slot := &s.slots[s.hand.Add(1)%cacheWays]
		if old := slot.Load(); old == nil || !old.used.Swap(false) {
			slot.Store(p)
			return
		}
	}
	s.slots[s.hand.Add(1)%cacheWays].Store(p)
}
