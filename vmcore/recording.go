package vmcore

import (
	"iter"
	"slices"
	"sync"
)

// Recording remembers which pages of a dump were read.
type Recording struct {
	store
	mu    sync.Mutex
	pages map[uint64]struct{}
}

// Record makes the dump remember, from now on, every page that is read with
// success. It must not be called while others use the dump. VMCOREINFO is found
// first, so that a search for it does not count.
func (d *Dump) Record() *Recording {
	d.VMCoreInfo()
	r := &Recording{store: d.store, pages: map[uint64]struct{}{}}
	d.store = r
	if d.cache != nil {
		// What was read before must be seen again.
		d.cache = newPageCache(defaultCacheBytes, d.PageSize)
	}
	return r
}

func (r *Recording) readPage(pfn uint64, dst []byte) error {
	if err := r.store.readPage(pfn, dst); err != nil {
		return err
	}
	r.mu.Lock()
	r.pages[pfn] = struct{}{}
	r.mu.Unlock()
	return nil
}

// Pages yields the numbers of the pages that were read, in ascending order, as
// [Shrink] wants them.
func (r *Recording) Pages() iter.Seq[uint64] {
	r.mu.Lock()
	defer r.mu.Unlock()
	pfns := make([]uint64, 0, len(r.pages))
	for pfn := range r.pages {
		pfns = append(pfns, pfn)
	}
	slices.Sort(pfns)
	return slices.Values(pfns)
}

// Len returns how many pages were read.
func (r *Recording) Len() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.pages)
}
