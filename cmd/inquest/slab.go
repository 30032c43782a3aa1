package main

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/spf13/pflag"

	"inquest/heap"
	"inquest/internal/spelling"
	"inquest/kernel"
)

var slabCommand = &command{
	name:  "slab",
	args:  "[CACHE]...",
	max:   -1,
	short: "list the slab caches, or check them",
	long: `List the slab caches as slabtop(1) does, the one with most memory first, or those
named; a cache that was merged into another is found by either name. --objects lists
the allocated objects of the caches instead, --free the free ones.

--check walks every free list there is: of the slabs, the CPUs, the sheaves and the
nodes. It finds pointers that lead out of their slab, objects that were freed twice, and
counters that do not match; and where slub_debug was on, red zones and poison that were
overwritten. What a dump lacks, as those that makedumpfile filtered may, is counted.`,
	example: `inquest slab vmcore
inquest slab vmcore --check
inquest slab vmcore kmalloc-64 --objects`,
	complete: completeCache,
	setup: func(f *pflag.FlagSet) runFunc {
		check := f.Bool("check", false, "walk every free list and report what is corrupt")
		objects := f.Bool("objects", false, "list the allocated objects")
		free := f.Bool("free", false, "list the free objects")
		sortBy := f.String("sort", "size", "order of the list: size, objects, name or kernel")
		return func(s *session, names []string) error {
			if *check && len(names) > 0 {
				return s.usagef("--check looks at all caches")
			}
			k, err := s.typedKernel()
			if err != nil {
				return err
			}
			h := heap.New(k)
			caches, err := pickCaches(s, h, names)
			if err != nil {
				return err
			}
			switch {
			case *check:
				return slabCheck(s, h)
			case *objects || *free:
				states := map[heap.ObjectState]bool{heap.Allocated: *objects, heap.Free: *free}
				return slabObjects(s, h, caches, states)
			}
			return slabList(s, h, caches, *sortBy)
		}
	},
}

func completeCache(k *kernel.Kernel, word string) []string {
	caches, _ := heap.New(k).Caches()
	var words []string
	for _, c := range caches {
		if strings.HasPrefix(c.Name, word) && len(words) < maxWords {
			words = append(words, c.Name)
		}
	}
	return words
}

// pickCaches returns the named caches, none without names, which is all.
func pickCaches(s *session, h *heap.Heap, names []string) ([]*heap.Cache, error) {
	if len(names) == 0 {
		return nil, nil
	}
	all, err := h.Caches()
	s.miss(err)
	var picked []*heap.Cache
	for _, name := range names {
		c, err := h.CacheOf(name)
		if errors.Is(err, heap.ErrNoCache) {
			var known []string
			for _, c := range all {
				known = append(known, c.Name)
			}
			return nil, fmt.Errorf("%w%s", err, spelling.DidYouMean(spelling.Closest(name, known)))
		}
		if err != nil {
			return nil, err
		}
		picked = append(picked, c)
	}
	return picked, nil
}

// slabList lists caches as slabtop does.
func slabList(s *session, h *heap.Heap, caches []*heap.Cache, sortBy string) error {
	usages, err := h.Usages()
	if errors.Is(err, heap.ErrNoSLUB) {
		return err
	}
	s.miss(err)
	if len(caches) > 0 {
		usages = slices.DeleteFunc(usages, func(u heap.Usage) bool { return !slices.Contains(caches, u.Cache) })
	}
	orders := map[string]func(a, b heap.Usage) int{
		"size":    func(a, b heap.Usage) int { return cmp.Compare(b.Bytes, a.Bytes) },
		"objects": func(a, b heap.Usage) int { return cmp.Compare(b.Objects, a.Objects) },
		"name":    func(a, b heap.Usage) int { return strings.Compare(a.Cache.Name, b.Cache.Name) },
		"kernel":  func(a, b heap.Usage) int { return 0 },
	}
	order, ok := orders[sortBy]
	if !ok {
		return s.usagef("cannot sort by %q", sortBy)
	}
	slices.SortStableFunc(usages, order)
	if s.json {
		list := []cacheJSON{}
		for _, u := range usages {
			list = append(list, newCacheJSON(u))
		}
		return s.writeJSON(struct {
			Caches  []cacheJSON `json:"caches"`
			Missing []string    `json:"missing,omitempty"`
		}{list, s.missing()})
	}
	s.printf("%s\n", s.term.paint(bold, "    OBJS   ACTIVE  USE  OBJ SIZE    SLABS  OBJ/SLAB  CACHE SIZE  NAME"))
	for _, u := range usages {
		use := 0
		if u.Objects > 0 {
			use = 100 * u.Allocated / u.Objects
		}
		name := clean(u.Cache.Name)
		if others := u.Cache.Aliases(); len(others) > 0 {
			name += s.term.paint(dim, "  ("+clean(strings.Join(others, ", "))+")")
		}
		s.printf("%8d %8d %3d%% %9d %8d %9d %11s  %s\n", u.Objects, u.Allocated, use, u.Cache.ObjectSize, u.Slabs, u.Cache.ObjPerSlab, formatBytes(u.Bytes), name)
	}
	s.missing()
	return nil
}

type cacheJSON struct {
	Name       string   `json:"name"`
	Merged     []string `json:"merged,omitempty"`
	KmemCache  hex      `json:"kmem_cache"`
	ObjectSize uint64   `json:"object_size"`
	Size       uint64   `json:"size"`
	Align      uint64   `json:"align"`
	Flags      []string `json:"flags"`
	PerSlab    int      `json:"objects_per_slab"`
	Slabs      int      `json:"slabs"`
	Objects    int      `json:"objects"`
	Allocated  int      `json:"allocated"`
	Bytes      uint64   `json:"bytes"`
}

func newCacheJSON(u heap.Usage) cacheJSON {
	c := u.Cache
	flags := c.FlagNames()
	if flags == nil {
		flags = []string{}
	}
	return cacheJSON{c.Name, c.Aliases(), hex(c.Addr), c.ObjectSize, c.Size, c.Align, flags, c.ObjPerSlab, u.Slabs, u.Objects, u.Allocated, u.Bytes}
}

// slabObjects lists objects by cache and address.
func slabObjects(s *session, h *heap.Heap, caches []*heap.Cache, states map[heap.ObjectState]bool) error {
	type found struct {
		objects []heap.Object
		err     error
	}
	var mu sync.Mutex
	byCache := map[*heap.Cache]*found{}
	for _, c := range caches {
		byCache[c] = &found{}
	}
	all := len(caches) == 0
	unknown := 0
	err := h.AllObjects(context.Background(), func(c *heap.Cache, objects []heap.Object, err error) {
		mu.Lock()
		defer mu.Unlock()
		f := byCache[c]
		if f == nil {
			if !all {
				return
			}
			f = &found{}
			byCache[c] = f
			caches = append(caches, c)
		}
		if f.err == nil {
			f.err = err
		}
		for _, o := range objects {
			if states[o.State] {
				f.objects = append(f.objects, o)
			} else if o.State == heap.Unknown {
				unknown++
			}
		}
	})
	if errors.Is(err, heap.ErrNoSLUB) {
		return err
	}
	s.miss(err)
	if all {
		slices.SortFunc(caches, func(a, b *heap.Cache) int { return strings.Compare(a.Name, b.Name) })
	}
	if unknown > 0 {
		s.miss(fmt.Errorf("of %d objects the dump does not tell whether they are free", unknown))
	}
	type objectsJSON struct {
		Cache   string `json:"cache"`
		Objects []hex  `json:"objects"`
	}
	list := []objectsJSON{}
	out := bufio.NewWriter(s.out)
	for _, c := range caches {
		f := byCache[c]
		s.miss(f.err)
		slices.SortFunc(f.objects, func(a, b heap.Object) int { return cmp.Compare(a.Addr, b.Addr) })
		if s.json {
			j := objectsJSON{c.Name, make([]hex, 0, len(f.objects))}
			for _, o := range f.objects {
				j.Objects = append(j.Objects, hex(o.Addr))
			}
			list = append(list, j)
			continue
		}
		name := clean(c.Name)
		for _, o := range f.objects {
			fmt.Fprintf(out, "%016x  %-9s  %s\n", uint64(o.Addr), o.State, name)
		}
	}
	if s.json {
		return s.writeJSON(struct {
			Caches  []objectsJSON `json:"caches"`
			Missing []string      `json:"missing,omitempty"`
		}{list, s.missing()})
	}
	out.Flush()
	s.missing()
	return nil
}

// slabCheck checks every slab and prints what is corrupt.
func slabCheck(s *session, h *heap.Heap) error {
	wrong, stats, err := h.Check(context.Background())
	s.progress.end()
	if errors.Is(err, heap.ErrNoSLUB) {
		return err
	}
	s.miss(err)
	if stats.Missing > 0 {
		s.miss(fmt.Errorf("%d slabs could not be checked wholly: %w", stats.Missing, stats.FirstMiss))
	}
	if s.json {
		type corruptionJSON struct {
			Cache  string `json:"cache,omitempty"`
			Slab   *hex   `json:"slab,omitempty"`
			Object *hex   `json:"object,omitempty"`
			Text   string `json:"text"`
		}
		list := []corruptionJSON{}
		for _, w := range wrong {
			j := corruptionJSON{Text: w.What}
			if w.Cache != nil {
				j.Cache = w.Cache.Name
			}
			if w.Slab != 0 {
				j.Slab = (*hex)(&w.Slab)
			}
			if w.Object != 0 {
				j.Object = (*hex)(&w.Object)
			}
			list = append(list, j)
		}
		return s.writeJSON(struct {
			Corruptions []corruptionJSON `json:"corruptions"`
			Caches      int              `json:"caches"`
			Slabs       int              `json:"slabs"`
			Objects     int              `json:"objects"`
			Allocated   int              `json:"allocated"`
			Free        int              `json:"free"`
			Unknown     int              `json:"unknown"`
			Missing     []string         `json:"missing,omitempty"`
		}{list, stats.Caches, stats.Slabs, stats.Objects, stats.Allocated, stats.Free, stats.Unknown, s.missing()})
	}
	for _, w := range wrong {
		s.printf("%s %s\n", s.term.paint(red, "CORRUPT"), clean(w.String()))
	}
	if stats.Slabs == 0 {
		s.printf("The dump holds no slab that could be checked.\n")
		s.missing()
		return nil
	}
	s.printf("%d caches, %d slabs, %d objects: %d allocated, %d free", stats.Caches, stats.Slabs, stats.Objects, stats.Allocated, stats.Free)
	if stats.Unknown > 0 {
		s.printf(", %d unknown", stats.Unknown)
	}
	switch len(wrong) {
	case 0:
		s.printf(". No corruption found.\n")
	case 1:
		s.printf(". 1 corruption.\n")
	default:
		s.printf(". %d corruptions.\n", len(wrong))
	}
	s.missing()
	return nil
}
