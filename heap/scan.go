package heap

import (
	"cmp"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"

	"inquest/kernel"
	"inquest/kernel/x86"
	"inquest/vmcore"
)

// slabRef is a slab that a scan found: 16 bytes, since a large machine has millions.
type slabRef struct {
	pfn    uint64
	cache  uint32 // index in slabIndex.caches
	inuse  uint16
	counts uint16 // objects, and in the highest bit whether it is frozen
}

// slabIndex is every slab of the dump, by cache and page frame.
type slabIndex struct {
	caches  []*Cache
	refs    []slabRef
	first   []int        // where each cache's slabs begin in refs, and the end
	wrong   []Corruption // slabs that cannot be read
	missing error        // why some may not be there
	gaps    uint64       // pages of the array of struct page that the dump lacks
}

// of returns the slabs of a cache.
func (x *slabIndex) of(c *Cache) []slabRef {
	for i := range x.caches {
		if x.caches[i] == c {
			return x.refs[x.first[i]:x.first[i+1]]
		}
	}
	return nil
}

// region is a mapped part of the array of struct page.
type region struct {
	phys vmcore.PhysAddr
	pfn  uint64 // whose struct page begins it
	size uint64
}

// indexSlabs looks at every struct page for those that are slabs. No list has them
// all: SLUB forgets slabs that are full. Where the list of caches is broken, slabs tell
// what caches there are.
func (h *Heap) indexSlabs() (*slabIndex, error) {
	l, err := h.slub()
	if err != nil {
		return nil, err
	}
	caches, listErr := h.Caches()
	b := &indexBuilder{h: h, l: l, x: &slabIndex{caches: slices.Clone(caches)}, known: map[kernel.Addr]uint32{}, broken: listErr != nil}
	b.kfence, _ = h.kfence()
	for i, c := range caches {
		b.known[c.Addr] = uint32(i)
	}
	var wg sync.WaitGroup
	regions := make(chan region)
	for range runtime.GOMAXPROCS(0) {
		wg.Go(func() { b.work(regions) })
	}
	err = h.vmemmapRegions(l.pages, func(r region) { regions <- r })
	close(regions)
	wg.Wait()
	x := b.x
	if len(x.caches) == 0 {
		return nil, cmp.Or(listErr, err)
	}
	if err == nil && x.gaps > 0 {
		err = fmt.Errorf("the dump lacks %d pages of the array of struct page, and so the slabs that they tell of", x.gaps)
	}
	x.missing = cmp.Or(listErr, err)
	b.dropOverlaps()
	slices.SortFunc(x.refs, func(a, b slabRef) int { return cmp.Or(cmp.Compare(a.cache, b.cache), cmp.Compare(a.pfn, b.pfn)) })
	x.first = make([]int, len(x.caches)+1)
	for i, r := 0, 0; i <= len(x.caches); i++ {
		for r < len(x.refs) && x.refs[r].cache < uint32(i) {
			r++
		}
		x.first[i] = r
	}
	return x, nil
}

// indexBuilder makes a slabIndex, in several goroutines.
type indexBuilder struct {
	h      *Heap
	l      *slubLayout
	broken bool // the list of caches is
	kfence span

	mu    sync.Mutex
	x     *slabIndex
	known map[kernel.Addr]uint32 // index in x.caches
}

// work looks at regions of the array of struct page.
func (b *indexBuilder) work(regions <-chan region) {
	var (
		refs  []slabRef
		wrong []Corruption
		gaps  uint64
		last  kernel.Addr // slabs of a cache often follow each other
		index uint32
	)
	visit := func(pfn uint64, p rawPage) {
		page := b.h.pageAt(b.l.pages, pfn)
		cache := kernel.Addr(le.Uint64(p[b.l.cache:]))
		if b.kfence.holds(b.h.virt(pfn)) || cache == 0 { // the latter while a slab is made or given back
			return
		}
		if cache != last {
			i, ok := b.lookup(cache)
			if !ok {
				if len(wrong) < maxWrong {
					wrong = append(wrong, Corruption{Slab: page, What: fmt.Sprintf("its cache %v is none of slab_caches", cache)})
				}
				return
			}
			last, index = cache, i
		}
		inuse, objects, frozen := b.l.inuse.of(p), b.l.objects.of(p), b.l.frozen.of(p)
		if objects == 0 || objects > maxObjects || inuse > objects {
			if len(wrong) < maxWrong {
				wrong = append(wrong, Corruption{Slab: page, What: fmt.Sprintf("%d of %d objects are in use, in a slab of the cache at %v", inuse, objects, cache)})
			}
			return
		}
		refs = append(refs, slabRef{pfn, index, uint16(inuse), uint16(objects | frozen<<15)})
	}
	for r := range regions {
		gaps += b.h.scanRegion(b.l.pages, r, visit)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.x.refs, b.x.wrong = append(b.x.refs, refs...), append(b.x.wrong, wrong...)
	b.x.gaps += gaps
}

// dropOverlaps takes out slabs that are too large to be one, or that reach into the
// next one, which also bounds how many objects a forged dump can claim.
func (b *indexBuilder) dropOverlaps() {
	x := b.x
	slices.SortFunc(x.refs, func(a, b slabRef) int { return cmp.Compare(a.pfn, b.pfn) })
	kept := x.refs[:0]
	for i, r := range x.refs {
		c, objects := x.caches[r.cache], uint64(r.counts&maxObjects)
		bytes := objects * c.Size
		pages := (bytes + pageSize - 1) >> pageShift
		if bytes > maxSlabBytes || i+1 < len(x.refs) && r.pfn+pages > x.refs[i+1].pfn {
			if len(x.wrong) < maxWrong {
				x.wrong = append(x.wrong, Corruption{Cache: c, Slab: b.h.pageAt(b.l.pages, r.pfn), What: fmt.Sprintf("%d objects of %d bytes do not fit in front of the next slab", objects, c.Size)})
			}
			continue
		}
		kept = append(kept, r)
	}
	x.refs = kept
}

// maxSlabBytes is the largest that a slab can be, of order MAX_PAGE_ORDER; most have
// order 3 or less.
const maxSlabBytes = pageSize << 10

// lookup returns the index of a cache. Where the list of caches is broken, one that
// looks like a cache is taken for one.
func (b *indexBuilder) lookup(cache kernel.Addr) (uint32, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if i, ok := b.known[cache]; ok || !b.broken {
		return i, ok
	}
	c, err := b.h.cacheAt(cache)
	if err != nil || len(b.x.caches) == maxCaches {
		return 0, false
	}
	i := uint32(len(b.x.caches))
	b.x.caches = append(b.x.caches, c)
	b.known[cache] = i
	return i, true
}

// vmemmapRegions yields what of the array of struct page is mapped. Forged page tables
// may map the same memory over and over, so that the total is bounded.
func (h *Heap) vmemmapRegions(l *pageLayout, yield func(region)) error {
	const (
		fewest = 1 << 20 // pages
		shared = 8       // with HugeTLB vmemmap optimisation, pages of the array are mapped many times
	)
	shifts := map[string]uint{"PGD": 48, "P4D": 39, "PUD": 30, "PMD": 21, "PTE": 12}
	s := h.spaces().vmemmap
	end := s.start + min(kernel.Addr(h.k.Dump.MaxPFN)*kernel.Addr(l.size), s.end-s.start)
	present, _, _ := h.k.Dump.PageCounts()
	budget := max(present*shared, fewest)
	pt := h.k.PageTable()
	var missing error
	for at := s.start &^ (pageSize - 1); at < end; {
		m, steps, err := pt.Trace(uint64(at))
		if err != nil {
			if !errors.Is(err, x86.ErrNotMapped) && missing == nil {
				missing = fmt.Errorf("walk the page tables of the array of struct page: %w", err)
			}
			if len(steps) == 0 && !errors.Is(err, x86.ErrNotMapped) {
				return missing
			}
			shift := shifts["PGD"]
			if len(steps) > 0 {
				shift = shifts[steps[len(steps)-1].Level]
				if !errors.Is(err, x86.ErrNotMapped) { // the next table could not be read
					shift = max(shift, pageShift)
				}
			}
			next := at&^(1<<shift-1) + 1<<shift
			if next <= at {
				return missing
			}
			at = next
			continue
		}
		n := min(m.Size-uint64(at)&(m.Size-1), uint64(end-at)+pageSize-1) &^ (pageSize - 1)
		if n == 0 {
			n = pageSize
		}
		if n>>pageShift > budget {
			return fmt.Errorf("the page tables map more struct pages than the dump has memory: %w", kernel.ErrCorrupt)
		}
		budget -= n >> pageShift
		yield(region{m.Phys, uint64(at-s.start) / l.size, n})
		at += kernel.Addr(n)
	}
	return missing
}

// scanRegion calls visit with the struct pages of a region that are slabs, and returns
// how many pages of it the dump lacks.
func (h *Heap) scanRegion(l *pageLayout, r region, visit func(pfn uint64, p rawPage)) (gaps uint64) {
	limit := h.k.Dump.MaxPFN
	if pageSize%l.size != 0 {
		// Some straddle two pages.
		for pfn := r.pfn; uint64(h.pageAt(l, pfn)-h.pageAt(l, r.pfn)) < r.size && pfn < limit; pfn++ {
			if p, err := h.readPage(l, pfn); err == nil && l.isSlab(p) {
				visit(pfn, p)
			}
		}
		return 0
	}
	var buf [pageSize]byte
	pfn := r.pfn
	for off := uint64(0); off < r.size; off += pageSize {
		phys := r.phys + vmcore.PhysAddr(off)
		if err := h.k.Dump.ReadPhys(buf[:], phys); err != nil {
			pfn += pageSize / l.size
			gaps++
			continue
		}
		for at := uint64(0); at < pageSize; at += l.size {
			if p := rawPage(buf[at : at+l.size]); pfn < limit && l.isSlab(p) {
				visit(pfn, p)
			}
			pfn++
		}
	}
	return gaps
}

// slabOf reads the slab of a reference, as the scan saw it.
func (h *Heap) slabOf(l *slubLayout, x *slabIndex, r slabRef) (slab, error) {
	p, err := h.readPage(l.pages, r.pfn)
	if err != nil {
		return slab{}, err
	}
	s := slab{
		page: h.pageAt(l.pages, r.pfn), pfn: r.pfn, base: h.virt(r.pfn), cache: x.caches[r.cache],
		inuse: int(r.inuse), objects: int(r.counts & maxObjects), frozen: r.counts>>15 == 1,
		freelist: kernel.Addr(le.Uint64(p[l.freelist:])),
	}
	return s, nil
}
