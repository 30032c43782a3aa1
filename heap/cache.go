package heap

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"inquest/kernel"
)

// Bounds of what a dump may claim.
const (
	maxCaches  = 1 << 16
	minStride  = 8 // a free object holds a pointer
	maxStride  = maxSlabBytes
	maxObjects = 1<<15 - 1 // the bits of slab.objects
	maxNodes   = 1024      // 1 << CONFIG_NODES_SHIFT
)

// Cache is a slab cache: struct kmem_cache. All sizes are in bytes.
type Cache struct {
	Addr         kernel.Addr
	Name         string
	ObjectSize   uint64 // what the user of an object has
	Size         uint64 // from one object to the next
	Inuse        uint64 // of an object until what SLUB keeps behind it
	Align        uint64
	Offset       uint64 // of the free pointer in a free object
	RedLeftPad   uint64 // red zone in front of each object
	Flags        uint64 // SLAB_*
	Random       uint64 // what free pointers are XORed with; see Hardened
	Hardened     bool   // CONFIG_SLAB_FREELIST_HARDENED: free pointers are encoded
	Order        int    // of the pages of a slab, as a rule
	ObjPerSlab   int    // objects in such a slab
	UserOffset   uint64 // what may be copied to and from user space
	UserSize     uint64
	RefCount     int // more than 1 when caches were merged into it
	Ctor         kernel.Addr
	HasUserTrack bool // SLAB_STORE_USER: who allocated and freed an object is kept
	HasRedZone   bool // SLAB_RED_ZONE
	HasPoison    bool // SLAB_POISON: free objects are filled with it

	h    *Heap
	sd   kernel.Addr // kernfs_node of its directory in /sys/kernel/slab
	held func() *held
}

// slubLayout is where SLUB's structures keep what this package reads.
type slubLayout struct {
	pages *pageLayout
	// In struct slab, or until 5.16 struct page.
	cache, freelist, next             uint64
	inuse, objects, frozen            bitField
	cpu                               *cpuSlabLayout // until 6.19
	sheaves                           *sheafLayout   // since 6.18
	flagBits                          map[string]uint64
	redZone, poison, storeUser, byRCU uint64
}

// cpuSlabLayout is struct kmem_cache_cpu.
type cpuSlabLayout struct{ freelist, slab, partial uint64 }

// bitField is a number within the word at an offset.
type bitField struct {
	offset uint64
	shift  uint32
	mask   uint64
}

func (f bitField) of(p rawPage) uint64 {
	var b [8]byte
	copy(b[:], p[f.offset:])
	return le.Uint64(b[:]) >> f.shift & f.mask
}

// findSlubLayout asks the BTF for SLUB's structures.
func (h *Heap) findSlubLayout() (*slubLayout, error) {
	pages, err := h.pages()
	if err != nil {
		return nil, err
	}
	l := &slubLayout{pages: pages}
	slab, err := h.k.Object("struct slab", 0) // since 5.17
	if err != nil {
		slab, err = h.k.Object("page", 0)
	}
	if err != nil {
		return nil, err
	}
	at := func(name string) uint64 {
		m, e := slab.Member(name)
		if e == nil && uint64(m.Addr)+8 > pages.size {
			e = fmt.Errorf("slab.%s at %v: %w", name, m.Addr, kernel.ErrCorrupt)
		}
		err = errors.Join(err, e)
		return uint64(m.Addr)
	}
	bits := func(name string) bitField {
		m, e := slab.Member(name)
		if e == nil && (uint64(m.Addr) >= pages.size || m.Bits.Size == 0 || m.Bits.Size > 32) {
			e = fmt.Errorf("slab.%s: %w", name, kernel.ErrCorrupt)
		}
		err = errors.Join(err, e)
		return bitField{uint64(m.Addr), m.Bits.Offset, 1<<m.Bits.Size - 1}
	}
	l.cache, l.freelist = at("slab_cache"), at("freelist")
	l.inuse, l.objects, l.frozen = bits("inuse"), bits("objects"), bits("frozen")
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNoSLUB, err)
	}
	if h.k.HasMember("kmem_cache", "cpu_slab") {
		if l.cpu, err = h.findCPUSlabLayout(); err != nil {
			return nil, err
		}
		l.next = at("next")
	}
	if h.k.HasMember("kmem_cache", "cpu_sheaves") {
		if l.sheaves, err = h.findSheafLayout(); err != nil {
			return nil, err
		}
	}
	h.findCacheFlags(l)
	return l, err
}

func (h *Heap) findCPUSlabLayout() (*cpuSlabLayout, error) {
	o, err := h.k.Object("kmem_cache_cpu", 0)
	if err != nil {
		return nil, err
	}
	l := &cpuSlabLayout{}
	member := "slab" // since 5.17
	if !o.Has(member) {
		member = "page"
	}
	for _, f := range []struct {
		to   *uint64
		name string
	}{{&l.freelist, "freelist"}, {&l.slab, member}, {&l.partial, "partial"}} {
		m, err := o.Member(f.name)
		if err != nil && f.name == "partial" { // without CONFIG_SLUB_CPU_PARTIAL
			continue
		}
		if err != nil {
			return nil, err
		}
		*f.to = uint64(m.Addr)
	}
	return l, nil
}

// findCacheFlags learns the bits of kmem_cache.flags: from enum _slab_flag_bits since
// 6.9, which are as include/linux/slab.h had them before otherwise.
func (h *Heap) findCacheFlags(l *slubLayout) {
	l.flagBits = map[string]uint64{}
	for _, e := range h.enum("enum _slab_flag_bits") {
		if name, ok := strings.CutPrefix(e.Name, "_SLAB_"); ok && e.Value < 64 && name != "FLAGS_LAST_BIT" {
			l.flagBits[name] = 1 << e.Value
		}
	}
	if len(l.flagBits) == 0 {
		l.flagBits = map[string]uint64{
			"CONSISTENCY_CHECKS": 0x100, "RED_ZONE": 0x400, "POISON": 0x800, "HWCACHE_ALIGN": 0x2000, "CACHE_DMA": 0x4000,
			"CACHE_DMA32": 0x8000, "STORE_USER": 0x10000, "RECLAIM_ACCOUNT": 0x20000, "PANIC": 0x40000,
			"TYPESAFE_BY_RCU": 0x80000, "MEM_SPREAD": 0x100000, "TRACE": 0x200000, "ACCOUNT": 0x4000000,
		}
	}
	l.redZone, l.poison = l.flagBits["RED_ZONE"], l.flagBits["POISON"]
	l.storeUser, l.byRCU = l.flagBits["STORE_USER"], l.flagBits["TYPESAFE_BY_RCU"]
}

// FlagNames returns the names of the cache's flags, without SLAB_, in order.
func (c *Cache) FlagNames() []string {
	l, err := c.h.slub()
	if err != nil {
		return nil
	}
	var names []string
	for name, bit := range l.flagBits {
		if c.Flags&bit != 0 {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// Kmalloc reports whether kmalloc() takes its memory from the cache: kmalloc-64,
// kmalloc-cg-64, kmalloc-rnd-03-64, dma-kmalloc-64 and so on.
func (c *Cache) Kmalloc() bool {
	return strings.HasPrefix(c.Name, "kmalloc-") || strings.HasPrefix(c.Name, "dma-kmalloc-")
}

// Caches returns every slab cache on the kernel's list, the last made first. What
// could be read comes with the error.
func (h *Heap) Caches() ([]*Cache, error) { return h.list() }

func (h *Heap) listCaches() ([]*Cache, error) {
	if _, err := h.slub(); err != nil {
		return nil, err
	}
	head, err := h.k.Symbol("slab_caches")
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNoSLUB, err)
	}
	objects, err := h.k.Structs("kmem_cache", "list", head)
	if err != nil {
		return nil, err
	}
	var all []*Cache
	var first error
	for o, err := range objects {
		if err == nil && len(all) == maxCaches {
			err = fmt.Errorf("more than %d slab caches: %w", maxCaches, kernel.ErrCorrupt)
		}
		if err != nil {
			return all, errors.Join(first, err)
		}
		c, err := h.cacheAt(o.Addr)
		if err != nil {
			if first == nil {
				first = err
			}
			continue
		}
		all = append(all, c)
	}
	return all, first
}

// CacheOf returns the cache of that name, or one that a cache of that name was merged
// into. The error wraps ErrNoCache when there is none.
func (h *Heap) CacheOf(name string) (*Cache, error) {
	all, err := h.Caches()
	for _, c := range all {
		if c.Name == name {
			return c, nil
		}
	}
	for _, c := range all {
		if slices.Contains(c.Aliases(), name) {
			return c, nil
		}
	}
	return nil, errors.Join(fmt.Errorf("%s: %w", name, ErrNoCache), err)
}

// cacheAt reads the struct kmem_cache at an address.
func (h *Heap) cacheAt(addr kernel.Addr) (*Cache, error) {
	if c, ok := h.caches.Load(addr); ok {
		return c.(*Cache), nil
	}
	l, err := h.slub()
	if err != nil {
		return nil, err
	}
	o, err := h.k.Object("kmem_cache", addr)
	if err != nil {
		return nil, err
	}
	c := &Cache{Addr: addr, h: h}
	fail := func(err error) (*Cache, error) {
		return nil, fmt.Errorf("read kmem_cache at %v: %w", addr, err)
	}
	var order, refs uint64
	for _, f := range []struct {
		to   *uint64
		name string
	}{
		{&c.ObjectSize, "object_size"}, {&c.Size, "size"}, {&c.Inuse, "inuse"}, {&c.Align, "align"}, {&c.Offset, "offset"},
		{&c.Flags, "flags"}, {&order, "oo"}, {&refs, "refcount"},
	} {
		if *f.to, err = o.Uint(f.name); err != nil {
			return fail(err)
		}
	}
	switch {
	case c.Size < minStride || c.Size > maxStride, c.ObjectSize > c.Size, c.Inuse > c.Size, c.Offset > c.Size-min(c.Size, 8):
		return fail(fmt.Errorf("objects of %d bytes, %d apart, free pointer at %d: %w", c.ObjectSize, c.Size, c.Offset, kernel.ErrCorrupt))
	}
	// OO_SHIFT and OO_MASK
	c.Order, c.ObjPerSlab, c.RefCount = int(order>>16), int(order&0xffff), int(int32(refs))
	for _, f := range []struct { // that depend on the configuration
		to   *uint64
		name string
	}{{&c.RedLeftPad, "red_left_pad"}, {&c.UserOffset, "useroffset"}, {&c.UserSize, "usersize"}, {&c.Random, "random"}} {
		if o.Has(f.name) {
			if *f.to, err = o.Uint(f.name); err != nil {
				return fail(err)
			}
		}
	}
	if c.RedLeftPad >= c.Size {
		return fail(fmt.Errorf("red zone of %d bytes in %d: %w", c.RedLeftPad, c.Size, kernel.ErrCorrupt))
	}
	c.Hardened = o.Has("random")
	if c.Name, err = o.String("name"); err != nil {
		return fail(err)
	}
	if c.Ctor, err = o.Pointer("ctor"); err != nil {
		return fail(err)
	}
	c.sd, _ = o.Pointer("kobj.sd")
	c.HasUserTrack, c.HasRedZone = c.Flags&l.storeUser != 0, c.Flags&l.redZone != 0
	// Objects that are read or initialised while they are free keep their content.
	c.HasPoison = c.Flags&l.poison != 0 && c.Flags&l.byRCU == 0 && c.Ctor == 0
	c.held = sync.OnceValue(c.readHeld)
	kept, _ := h.caches.LoadOrStore(addr, c)
	return kept.(*Cache), nil
}

// Aliases returns the other names of the cache: those of the caches that were merged
// into it, as /sys/kernel/slab has them. It is read from the kernel's memory when it
// is first asked for, and empty where that is missing.
func (c *Cache) Aliases() []string {
	if c.RefCount <= 1 || c.sd == 0 {
		return nil
	}
	return c.h.aliases()[c.sd]
}
