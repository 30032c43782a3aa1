package heap

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"inquest/kernel"
	"inquest/kernel/x86"
)

// Corruption is something that is wrong with a slab.
type Corruption struct {
	Cache  *Cache      // nil when it is not known
	Slab   kernel.Addr // struct slab or struct page; 0 when none
	Object kernel.Addr // 0 when none
	What   string
}

// Stats counts what a check looked at.
type Stats struct {
	Caches    int
	Slabs     int
	Objects   int
	Allocated int
	Free      int
	Unknown   int    // objects whose state the dump does not tell
	Gaps      uint64 // pages of the array of struct page that the dump lacks
	Missing   int    // slabs that could not be looked at wholly
	FirstMiss error  // why the first of them could not
}

// maxWrong bounds how many corruptions are kept; a dump may be nothing but.
const maxWrong = 10_000

// Check walks the free list of every slab, the lists of the CPUs and of the nodes, in
// parallel, and looks at red zones and poison where the kernel has them. The dump's
// OnProgress hears of it. What could be checked comes with the error.
func (h *Heap) Check(ctx context.Context) ([]Corruption, Stats, error) {
	x, err := h.index()
	if err != nil {
		return nil, Stats{}, err
	}
	l, _ := h.slub()
	total := Stats{Caches: len(x.caches), Gaps: x.gaps}
	wrong := slices.Clone(x.wrong)
	var mu sync.Mutex
	firstMiss := ^uint64(0) // page frame of the slab
	h.eachSlab(ctx, "check the slabs", x, func() func(slabRef) {
		w := &checker{h: h}
		return func(r slabRef) {
			s, err := h.slabOf(l, x, r)
			if err == nil {
				err = w.slab(&s)
			}
			mu.Lock()
			defer mu.Unlock()
			total.add(w.stats)
			if err != nil && !corrupt(err) {
				total.Missing++
				if r.pfn < firstMiss {
					firstMiss, total.FirstMiss = r.pfn, err
				}
			}
			if len(wrong) < maxWrong {
				wrong = append(wrong, w.wrong...)
			}
			w.stats, w.wrong = Stats{}, w.wrong[:0]
		}
	})
	for _, c := range x.caches {
		wrong = append(wrong, c.held().wrong...)
		wrong = append(wrong, h.checkHeld(l, c)...)
		wrong = append(wrong, h.checkNodes(l, c)...)
		if len(wrong) > maxWrong {
			break
		}
	}
	wrong = wrong[:min(len(wrong), maxWrong)]
	slices.SortStableFunc(wrong, func(a, b Corruption) int {
		return cmp.Or(strings.Compare(a.cacheName(), b.cacheName()), cmp.Compare(a.Slab, b.Slab), cmp.Compare(a.Object, b.Object))
	})
	if err := ctx.Err(); err != nil {
		return wrong, total, err
	}
	return wrong, total, x.missing
}

func (c Corruption) cacheName() string {
	if c.Cache == nil {
		return ""
	}
	return c.Cache.Name
}

// String says in one line what is wrong.
func (c Corruption) String() string {
	var s []string
	if c.Cache != nil {
		s = append(s, "cache "+c.Cache.Name)
	}
	if c.Slab != 0 {
		s = append(s, "slab "+c.Slab.String())
	}
	if c.Object != 0 && c.Object != c.Slab {
		s = append(s, "object "+c.Object.String())
	}
	return strings.Join(append(s, c.What), ": ")
}

func (s *Stats) add(o Stats) {
	s.Slabs += o.Slabs
	s.Objects += o.Objects
	s.Allocated += o.Allocated
	s.Free += o.Free
	s.Unknown += o.Unknown
}

// checker looks at slabs, one after the other.
type checker struct {
	h      *Heap
	states []ObjectState
	stats  Stats
	wrong  []Corruption
}

// slab checks one slab: that its free list stays in it, has no object twice and ends,
// and that it is as long as the slab's counters say.
func (w *checker) slab(s *slab) error {
	h := w.h
	w.stats.Slabs++
	w.stats.Objects += s.objects
	listed, twice := 0, kernel.Addr(0)
	w.states = w.states[:0]
	for range s.objects {
		w.states = append(w.states, Allocated)
	}
	err := h.walkFree(s, s.freelist, func(i int) {
		if w.states[i] == Free && twice == 0 {
			twice = s.object(i)
		}
		w.states[i] = Free
		listed++
	})
	var list *listError
	switch {
	case twice != 0:
		w.add(s, twice, "it is on the free list twice: freed twice, or the list goes in a circle")
	case errors.As(err, &list):
		w.add(s, list.at, "%s", list.text)
	case err == nil && listed != s.objects-s.inuse:
		w.add(s, 0, "%d objects are on the free list, but %d of %d are in use", listed, s.inuse, s.objects)
	}
	held := s.cache.held()
	if err != nil || held.hides(s) {
		for i, state := range w.states {
			if state == Allocated {
				w.states[i] = Unknown
			}
		}
	}
	held.of(s, func(i int, where string) {
		if w.states[i] == Free {
			w.add(s, s.object(i), "freed twice: it is on the slab's free list and on %s", where)
		}
		w.states[i] = Free
	})
	for i, state := range w.states {
		switch state {
		case Free:
			w.stats.Free++
		case Allocated:
			w.stats.Allocated++
		default:
			w.stats.Unknown++
		}
		if s.cache.HasRedZone || s.cache.HasPoison {
			o := SlabObject{Cache: s.cache, Start: s.object(i), State: state}
			if text := h.poison(&o); strings.Contains(text, overwritten) {
				w.add(s, o.Start, "%s (%v)", text, state)
			}
		}
	}
	if err == nil {
		err = held.err
	}
	return err
}

func (w *checker) add(s *slab, object kernel.Addr, format string, args ...any) {
	w.wrong = append(w.wrong, Corruption{s.cache, s.page, object, fmt.Sprintf(format, args...)})
}

// checkHeld checks that what the CPUs hold are objects of slabs of the cache.
func (h *Heap) checkHeld(l *slubLayout, c *Cache) []Corruption {
	var wrong []Corruption
	for object, where := range c.held().objects {
		pfn := uint64(object-h.spaces().direct.start) >> pageShift
		if !h.spaces().direct.holds(object) || pfn >= h.k.Dump.MaxPFN {
			wrong = append(wrong, Corruption{Cache: c, Object: object, What: "not an address of memory, but in " + where})
			continue
		}
		p, err := h.readPage(l.pages, pfn)
		if errors.Is(err, x86.ErrNotMapped) {
			wrong = append(wrong, Corruption{Cache: c, Object: object, What: "not an address of memory, but in " + where})
		}
		if err != nil {
			continue
		}
		head, hp, err := h.headPage(l.pages, pfn, p)
		if err != nil {
			continue
		}
		if !l.pages.isSlab(hp) {
			wrong = append(wrong, Corruption{Cache: c, Object: object, What: "not in a slab, but in " + where})
			continue
		}
		if cache := kernel.Addr(le.Uint64(hp[l.cache:])); cache != c.Addr {
			wrong = append(wrong, Corruption{Cache: c, Object: object, What: fmt.Sprintf("of the cache at %v, but in %s", cache, where)})
			continue
		}
		if s, err := h.parseSlab(l, head, hp); err == nil {
			if _, ok := s.indexOf(object); !ok {
				wrong = append(wrong, Corruption{Cache: c, Slab: s.page, Object: object, What: "not the start of an object, but in " + where})
			}
		}
	}
	return wrong
}

// checkNodes follows each node's list of partly free slabs.
func (h *Heap) checkNodes(l *slubLayout, c *Cache) []Corruption {
	o, err := h.k.Object("kmem_cache", c.Addr)
	if err != nil {
		return nil
	}
	path := "node[%d]"
	if o.Has("per_node[0].node") { // as in 7.2
		path = "per_node[%d].node"
	}
	partial, err1 := h.k.OffsetOf("kmem_cache_node", "partial")
	count, err2 := h.k.OffsetOf("kmem_cache_node", "nr_partial")
	link, err3 := h.slabListOffset()
	if errors.Join(err1, err2, err3) != nil {
		return nil
	}
	var wrong []Corruption
	for i := range h.nodes() {
		node, err := o.Pointer(fmt.Sprintf(path, i))
		if err != nil || node == 0 {
			continue
		}
		want, err := h.k.U64(node + kernel.Addr(count))
		if err != nil {
			continue
		}
		head := node + kernel.Addr(partial)
		add := func(slab kernel.Addr, format string, args ...any) {
			wrong = append(wrong, Corruption{Cache: c, Slab: slab, What: fmt.Sprintf("partial list of node %d: ", i) + fmt.Sprintf(format, args...)})
		}
		n, previous := uint64(0), head
		whole := true
		for at, err := range h.k.List(head) {
			if err != nil {
				whole = false
				if corrupt(err) {
					add(0, "%v", err)
				}
				break
			}
			back, err := h.k.Pointer(at + 8)
			if err != nil {
				whole = false
				break
			}
			slab := at - kernel.Addr(link)
			if back != previous {
				add(slab, "its prev is %v, not %v", back, previous)
			}
			if s, err := h.slabAt(l, slab); err != nil && corrupt(err) {
				add(slab, "%v", err)
				whole = false
				break
			} else if err == nil && s.cache != c {
				add(slab, "a slab of cache %s", s.cache.Name)
			}
			previous = at
			n++
		}
		if whole && n != want {
			add(0, "%d slabs, but nr_partial is %d", n, want)
		}
	}
	return wrong
}

// slabListOffset returns where a slab is linked into its node's list: slab.slab_list,
// page.slab_list until 5.16, page.lru until 5.1.
func (h *Heap) slabListOffset() (uint64, error) {
	for _, f := range [][2]string{{"struct slab", "slab_list"}, {"page", "slab_list"}} {
		if off, err := h.k.OffsetOf(f[0], f[1]); err == nil {
			return off, nil
		}
	}
	return h.k.OffsetOf("page", "lru")
}
