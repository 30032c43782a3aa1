package heap

import (
	"cmp"
	"context"
	"fmt"
	"iter"
	"runtime"
	"sync"

	"inquest/kernel"
)

// Object is an object of a slab cache.
type Object struct {
	Addr  kernel.Addr
	State ObjectState
}

// Usage counts the slabs and objects of a cache.
type Usage struct {
	Cache     *Cache
	Slabs     int
	Objects   int
	Allocated int
	Bytes     uint64 // of the pages of its slabs
}

// Usages counts the slabs and objects of every cache, in the order of Caches. The
// counts are those that SLUB keeps; [Heap.Check] walks the lists. What could be counted
// comes with the error.
func (h *Heap) Usages() ([]Usage, error) {
	x, err := h.index()
	if err != nil {
		return nil, err
	}
	all := make([]Usage, len(x.caches))
	missing := make([]error, len(x.caches))
	var wg sync.WaitGroup
	workers := runtime.GOMAXPROCS(0)
	for w := range workers {
		wg.Go(func() {
			for i := w; i < len(all); i += workers {
				c := x.caches[i]
				u := Usage{Cache: c}
				for _, r := range x.of(c) {
					u.Slabs++
					u.Objects += int(r.counts & maxObjects)
					u.Allocated += int(r.inuse)
					u.Bytes += slabBytes(c, int(r.counts&maxObjects))
				}
				// What CPUs hold counts as in use.
				u.Allocated = max(0, u.Allocated-len(c.held().objects))
				if err := c.held().err; err != nil && u.Slabs > 0 {
					missing[i] = fmt.Errorf("some objects that CPUs keep of %s are counted as allocated: %w", c.Name, err)
				}
				all[i] = u
			}
		})
	}
	wg.Wait()
	if x.missing != nil {
		return all, x.missing
	}
	return all, cmp.Or(missing...)
}

// slabBytes returns the size of a slab's pages: as a rule 1<<Order of them, fewer where
// memory was short and there are fewer objects.
func slabBytes(c *Cache, objects int) uint64 {
	n := uint64(pageSize)
	for need := uint64(objects) * c.Size; n < need; n *= 2 {
	}
	if objects == c.ObjPerSlab && c.Order <= maxOrder {
		n = max(n, pageSize<<c.Order)
	}
	return n
}

// Objects iterates over every object of a cache, slab by slab. An error comes with an
// object whose state it leaves unknown, or without one (address 0) for a slab that
// cannot be read.
func (h *Heap) Objects(c *Cache) iter.Seq2[Object, error] {
	return func(yield func(Object, error) bool) {
		x, err := h.index()
		if err != nil {
			yield(Object{}, err)
			return
		}
		l, _ := h.slub()
		var states []ObjectState
		for _, r := range x.of(c) {
			s, err := h.slabOf(l, x, r)
			if err != nil {
				if !yield(Object{}, err) {
					return
				}
				continue
			}
			states, err = h.states(&s, states)
			for i, state := range states {
				e := err
				if state != Unknown {
					e = nil
				}
				if !yield(Object{s.object(i), state}, e) {
					return
				}
			}
		}
		if x.missing != nil {
			yield(Object{}, x.missing)
		}
	}
}

// states tells which objects of a slab are free. The error says why some are unknown.
func (h *Heap) states(s *slab, into []ObjectState) ([]ObjectState, error) {
	states := into[:0]
	for range s.objects {
		states = append(states, Allocated)
	}
	err := h.walkFree(s, s.freelist, func(i int) { states[i] = Free })
	held := s.cache.held()
	if err == nil && held.hides(s) {
		err = held.err
	}
	if err != nil {
		for i := range states {
			if states[i] == Allocated {
				states[i] = Unknown
			}
		}
	}
	held.of(s, func(i int, _ string) { states[i] = Free })
	return states, err
}

// AllObjects calls f with the objects of every slab of every cache, from several
// goroutines at once; objects is only valid until f returns. The error says what of a
// slab could not be read. The walk ends early when ctx does.
func (h *Heap) AllObjects(ctx context.Context, f func(c *Cache, objects []Object, err error)) error {
	x, err := h.index()
	if err != nil {
		return err
	}
	l, _ := h.slub()
	h.eachSlab(ctx, "walk the slabs", x, func() func(slabRef) {
		var states []ObjectState
		var objects []Object
		return func(r slabRef) {
			s, err := h.slabOf(l, x, r)
			if err != nil {
				f(x.caches[r.cache], nil, err)
				return
			}
			states, err = h.states(&s, states)
			objects = objects[:0]
			for i, state := range states {
				objects = append(objects, Object{s.object(i), state})
			}
			f(s.cache, objects, err)
		}
	})
	if err := ctx.Err(); err != nil {
		return err
	}
	return x.missing
}

// eachSlab calls what worker returns with every slab, in parallel.
func (h *Heap) eachSlab(ctx context.Context, what string, x *slabIndex, worker func() func(slabRef)) {
	const batch = 64
	var wg sync.WaitGroup
	batches := make(chan []slabRef)
	var mu sync.Mutex
	done := 0
	for range runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			f := worker()
			for refs := range batches {
				for _, r := range refs {
					f(r)
				}
				if report := h.k.Dump.OnProgress; report != nil {
					mu.Lock()
					done += len(refs)
					n := done
					mu.Unlock()
					report(what, int64(n), int64(len(x.refs)))
				}
			}
		})
	}
	for refs := x.refs; len(refs) > 0 && ctx.Err() == nil; {
		n := min(batch, len(refs))
		batches <- refs[:n]
		refs = refs[n:]
	}
	close(batches)
	wg.Wait()
}
