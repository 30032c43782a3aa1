package heap

import (
	"errors"
	"fmt"

	"inquest/kernel"
)

// held are the free objects that a cache keeps for its CPUs, so that the slabs
// themselves count them as in use.
type held struct {
	objects map[kernel.Addr]string // by their address: whose
	slabs   map[kernel.Addr]string // struct slab: "CPU 1's slab", "CPU 0's partial list"
	sheaves bool                   // the objects may be of any slab
	err     error                  // what could not be read
	wrong   []Corruption
}

// Bounds of what a CPU can hold of one cache.
const (
	maxPartial = 1 << 12 // slabs on a CPU's partial list
	maxSheaf   = 1 << 12 // objects in a sheaf
	maxBarn    = 1 << 10 // sheaves of a node
	maxReads   = 1 << 23 // CPUs of caches, in all
)

// sheafLayout is struct slub_percpu_sheaves and what it leads to.
type sheafLayout struct {
	members       []sheafMember
	size, objects uint64 // in struct slab_sheaf
	full, list    uint64 // node_barn.sheaves_full, slab_sheaf.barn_list
}

type sheafMember struct {
	offset uint64
	name   string
}

func (h *Heap) findSheafLayout() (*sheafLayout, error) {
	l := &sheafLayout{}
	var err error
	offset := func(typ, member string) uint64 {
		off, e := h.k.OffsetOf(typ, member)
		err = errors.Join(err, e)
		return off
	}
	for _, m := range []struct{ member, name string }{{"main", "sheaf"}, {"spare", "spare sheaf"}, {"rcu_free", "sheaf of objects to be freed by RCU"}} {
		l.members = append(l.members, sheafMember{offset("slub_percpu_sheaves", m.member), m.name})
	}
	l.size, l.objects = offset("slab_sheaf", "size"), offset("slab_sheaf", "objects")
	l.full, l.list = offset("node_barn", "sheaves_full"), offset("slab_sheaf", "barn_list")
	return l, err
}

// readHeld reads what the CPUs hold of a cache.
func (c *Cache) readHeld() *held {
	d := &held{objects: map[kernel.Addr]string{}, slabs: map[kernel.Addr]string{}}
	l, err := c.h.slub()
	if err != nil {
		d.err = err
		return d
	}
	cpus, err := c.h.k.PossibleCPUs()
	d.miss(err)
	o, err := c.h.k.Object("kmem_cache", c.Addr)
	d.miss(err)
	if err != nil {
		return d
	}
	if c.h.heldReads.Add(int64(len(cpus))) > maxReads {
		d.miss(fmt.Errorf("more than %d CPUs of slab caches: %w", maxReads, kernel.ErrCorrupt))
		d.sheaves = l.sheaves != nil
		return d
	}
	if l.cpu != nil {
		d.readCPUSlabs(c, l, o, cpus)
	}
	if l.sheaves != nil {
		d.readSheaves(c, l.sheaves, o, cpus)
		d.readBarns(c, l.sheaves, o)
	}
	return d
}

// of calls visit with the objects of a slab that are held, in no order.
func (d *held) of(s *slab, visit func(i int, where string)) {
	if len(d.objects) < s.objects {
		for object, where := range d.objects {
			if i, ok := s.indexOf(object); ok {
				visit(i, where)
			}
		}
		return
	}
	for i := range s.objects {
		if where, ok := d.objects[s.object(i)]; ok {
			visit(i, where)
		}
	}
}

// hides reports whether objects of a slab may be held without being known to.
func (d *held) hides(s *slab) bool { return d.err != nil && (s.frozen || d.sheaves) }

func (d *held) miss(err error) {
	if err != nil && d.err == nil {
		d.err = err
	}
}

// corrupt notes what is wrong with a list.
func (d *held) corrupt(c *Cache, slab kernel.Addr, err error) {
	if err == nil {
		return
	}
	var list *listError
	x := Corruption{Cache: c, Slab: slab, What: err.Error()}
	if errors.As(err, &list) {
		x.Object, x.What = list.at, list.text
	}
	if corrupt(err) {
		d.wrong = append(d.wrong, x)
	}
	d.miss(err)
}

// readCPUSlabs reads each CPU's slab and partial list. The free list of a CPU's slab
// is the CPU's; what other CPUs free goes to the slab's own.
func (d *held) readCPUSlabs(c *Cache, l *slubLayout, o kernel.Object, cpus []int) {
	h := c.h
	base, err := o.Pointer("cpu_slab")
	if err != nil || base == 0 {
		d.miss(err)
		return
	}
	for _, cpu := range cpus {
		at, err := h.k.PerCPU(base, cpu)
		if err != nil {
			d.miss(err)
			continue
		}
		first, err1 := h.k.Pointer(at + kernel.Addr(l.cpu.freelist))
		page, err2 := h.k.Pointer(at + kernel.Addr(l.cpu.slab))
		if err := errors.Join(err1, err2); err != nil {
			d.miss(fmt.Errorf("read kmem_cache_cpu of CPU %d of %s: %w", cpu, c.Name, err))
			continue
		}
		if page != 0 {
			d.slabs[page] = fmt.Sprintf("CPU %d's slab", cpu)
			s, err := h.slabAt(l, page)
			if err == nil && s.cache != c {
				err = fmt.Errorf("CPU %d's slab %v is one of cache %s: %w", cpu, page, s.cache.Name, kernel.ErrCorrupt)
			}
			if err == nil {
				where := fmt.Sprintf("CPU %d's freelist", cpu)
				err = h.walkFree(&s, first, func(i int) { d.objects[s.object(i)] = where })
			}
			d.corrupt(c, page, err)
		}
		if l.cpu.partial == 0 {
			continue
		}
		page, err = h.k.Pointer(at + kernel.Addr(l.cpu.partial))
		for n := 0; err == nil && page != 0; n++ {
			if _, again := d.slabs[page]; again || n == maxPartial {
				err = fmt.Errorf("CPU %d's partial list does not end: at %v: %w", cpu, page, kernel.ErrCorrupt)
				break
			}
			if _, ok := h.pfnOf(l.pages, page); !ok {
				err = fmt.Errorf("%v on CPU %d's partial list is no struct page: %w", page, cpu, kernel.ErrCorrupt)
				break
			}
			d.slabs[page] = fmt.Sprintf("CPU %d's partial list", cpu)
			page, err = h.k.Pointer(page + kernel.Addr(l.next))
		}
		d.corrupt(c, page, err)
	}
}

// readSheaves reads each CPU's sheaves: arrays of free objects, since 6.18 (commit
// 2d517aa09bbc).
func (d *held) readSheaves(c *Cache, l *sheafLayout, o kernel.Object, cpus []int) {
	base, err := o.Pointer("cpu_sheaves")
	if err != nil || base == 0 {
		d.miss(err)
		return
	}
	d.sheaves = true
	for _, cpu := range cpus {
		at, err := c.h.k.PerCPU(base, cpu)
		if err != nil {
			d.miss(err)
			continue
		}
		for _, m := range l.members {
			sheaf, err := c.h.k.Pointer(at + kernel.Addr(m.offset))
			if err == nil && sheaf != 0 {
				err = d.readSheaf(c, l, sheaf, fmt.Sprintf("CPU %d's %s", cpu, m.name))
			}
			d.corrupt(c, 0, err)
		}
	}
}

// readSheaf reads the objects of one sheaf.
func (d *held) readSheaf(c *Cache, l *sheafLayout, sheaf kernel.Addr, where string) error {
	k := c.h.k
	n, err := k.U32(sheaf + kernel.Addr(l.size))
	if err != nil {
		return fmt.Errorf("read slab_sheaf at %v: %w", sheaf, err)
	}
	if n > maxSheaf {
		return fmt.Errorf("slab_sheaf at %v has %d objects: %w", sheaf, n, kernel.ErrCorrupt)
	}
	b, err := k.Slice(sheaf+kernel.Addr(l.objects), 8*int(n))
	if err != nil {
		return fmt.Errorf("read slab_sheaf at %v: %w", sheaf, err)
	}
	for ; len(b) >= 8; b = b[8:] {
		object := kernel.Addr(le.Uint64(b))
		if other, twice := d.objects[object]; twice {
			d.wrong = append(d.wrong, Corruption{Cache: c, Object: object, What: fmt.Sprintf("freed twice: it is in %s and in %s", other, where)})
			continue
		}
		d.objects[object] = where
	}
	return nil
}

// readBarns reads the full sheaves that each node keeps. The barn was a member of
// kmem_cache_node at first (6.18); by 7.2 it is one of kmem_cache.per_node[].
func (d *held) readBarns(c *Cache, l *sheafLayout, o kernel.Object) {
	k := c.h.k
	for node := range c.h.nodes() {
		var barn kernel.Addr
		var err error
		if o.Has("per_node[0].barn") {
			barn, err = o.Pointer(fmt.Sprintf("per_node[%d].barn", node))
		} else if o.Has("node[0]->barn") {
			barn, err = o.Pointer(fmt.Sprintf("node[%d]->barn", node))
		}
		if err != nil || barn == 0 {
			d.miss(err)
			continue
		}
		where := fmt.Sprintf("a full sheaf of node %d", node)
		n := 0
		for link, err := range k.List(barn + kernel.Addr(l.full)) {
			if n++; err == nil && n > maxBarn {
				err = fmt.Errorf("more than %d sheaves in the barn %v: %w", maxBarn, barn, kernel.ErrCorrupt)
			}
			if err == nil {
				err = d.readSheaf(c, l, link-kernel.Addr(l.list), where)
			}
			if err != nil {
				d.corrupt(c, 0, err)
				break
			}
		}
	}
}

// nodes returns the number of NUMA nodes. kmem_cache is only as large as they need.
func (h *Heap) nodes() int {
	if at, err := h.k.Symbol("nr_node_ids"); err == nil {
		if n, err := h.k.U32(at); err == nil && n > 0 && n <= maxNodes {
			return int(n)
		}
	}
	return 1
}
