package heap

import (
	"encoding/binary"
	"math/bits"
	"testing"

	"github.com/cilium/ebpf/btf"

	kt "inquest/internal/kerneltest"
	"inquest/kernel"
	"inquest/vmcore"
)

// variant chooses between what kernels of different ages have.
type variant struct {
	name    string
	oldPage bool   // slabs are described in struct page, before 5.17
	sheaves bool   // no CPU slabs, since 7.0
	types   bool   // enum pagetype, since 6.12; a page flag before
	mix     string // how free pointers are hardened: "", "xor", "swab"
	flags   uint64 // of the caches
	tracks  int    // words of struct track.addrs; else a stack depot handle
}

var variants = []variant{
	{name: "4.18", oldPage: true, mix: "xor"},
	{name: "5.10", oldPage: true, mix: "swab", tracks: 16},
	{name: "5.10, not hardened", oldPage: true},
	{name: "6.1", mix: "swab"},
	{name: "6.12", mix: "swab", types: true},
	{name: "7.2", mix: "swab", types: true, sheaves: true},
}

const (
	directAt  = 0xffff900000000000 // a region of 2 MiB of the direct map
	vmemmapAt = 0xffffea0000000000
	pageFlag  = 9 // PG_slab
	cacheRand = 0x5a17c0de4b1d0003
)

type field = kt.Field

// world is a synthetic kernel with slabs.
type world struct {
	*kt.Kernel
	t       testing.TB
	v       variant
	base    uint64 // page_offset_base
	first   uint64 // page frame of directAt
	next    uint64 // next free page of the region
	page    *btf.Struct
	slab    *btf.Struct
	cache   *btf.Struct
	cpuType *btf.Struct
	sheaf   *btf.Struct
	head    uint64   // slab_caches
	links   []uint64 // of the caches
	slots   uint64   // next free place in the per-CPU area
	kmem    map[string]uint64
}

func newWorld(t testing.TB, v variant) *world {
	w := &world{Kernel: kt.Linux(kt.Options{}), t: t, v: v, kmem: map[string]uint64{}, slots: 0x400}
	phys := w.Map(directAt, 2<<20)
	w.base, w.first = directAt-phys, phys/pageSize
	for at := uint64(0); at < 512*64; at += pageSize {
		w.Map(vmemmapAt+w.first*64+at, pageSize)
	}
	w.variable("page_offset_base", w.base)
	w.variable("vmemmap_base", vmemmapAt)
	w.variable("vmalloc_base", 0xffffc90000000000)
	w.types()
	w.head = w.Alloc(16, 8)
	w.Symbol("slab_caches", 'D', w.head)
	w.List(w.head)
	return w
}

func (w *world) variable(name string, v uint64) uint64 {
	a := w.Put(binary.LittleEndian.AppendUint64(nil, v))
	w.Symbol(name, 'D', a)
	return a
}

func enum(name string, values ...btf.EnumValue) *btf.Enum {
	return &btf.Enum{Name: name, Size: 4, Values: values}
}

func (w *world) types() {
	ptr := kt.Ptr(kt.Void)
	counters := field{Type: kt.Union("", field{Name: "counters", Type: kt.Ulong}, field{Type: kt.Struct("",
		field{Name: "inuse", Type: kt.U32, Bits: 16}, field{Name: "objects", Type: kt.U32, Bits: 15}, field{Name: "frozen", Type: kt.U32, Bits: 1})})}
	list := field{Type: kt.Union("", field{Name: "slab_list", Type: kt.ListHead}, field{Name: "next", Type: ptr})}
	members := []field{
		{Type: kt.Struct("", field{Name: "lru", Type: kt.ListHead}, field{Name: "mapping", Type: ptr}, field{Name: "index", Type: kt.Ulong}, field{Name: "private", Type: kt.Ulong})},
		{Type: kt.Struct("", field{Name: "compound_head", Type: kt.Ulong}, field{Name: "compound_dtor", Type: kt.U8}, field{Name: "compound_order", Type: kt.U8})},
	}
	if w.v.oldPage {
		members = append(members, field{Type: kt.Struct("", list, field{Name: "slab_cache", Type: ptr}, field{Name: "freelist", Type: ptr}, counters)})
	}
	w.page = kt.Struct("page", field{Name: "flags", Type: kt.Ulong}, field{Type: kt.Union("", members...)},
		field{Type: kt.Union("", field{Name: "page_type", Type: kt.U32}, field{Name: "_mapcount", Type: kt.Int})},
		field{Name: "_refcount", Type: kt.Int}, field{Name: "memcg_data", Type: kt.Ulong})
	w.slab = w.page
	if !w.v.oldPage {
		w.slab = kt.Struct("slab", field{Name: "__page_flags", Type: kt.Ulong}, field{Name: "slab_cache", Type: ptr}, list,
			field{Name: "freelist", Type: ptr}, counters, field{Name: "__page_type", Type: kt.U32}, field{Name: "__page_refcount", Type: kt.Int}, field{Name: "memcg_data", Type: kt.Ulong})
		w.Types(w.slab)
	}
	flags := []btf.EnumValue{{Name: "PG_locked", Value: 0}, {Name: "PG_uptodate", Value: 2}, {Name: "PG_dirty", Value: 4}, {Name: "PG_reserved", Value: 12}, {Name: "PG_head", Value: 16}, {Name: "PG_readahead", Value: 2}}
	if w.v.types {
		w.Types(enum("pagetype", btf.EnumValue{Name: "PGTY_buddy", Value: 240}, btf.EnumValue{Name: "PGTY_table", Value: 242}, btf.EnumValue{Name: "PGTY_slab", Value: 245},
			btf.EnumValue{Name: "PGTY_large_kmalloc", Value: 248}, btf.EnumValue{Name: "PGTY_mapcount_underflow", Value: 255}))
	} else {
		flags = append(flags, btf.EnumValue{Name: "PG_slab", Value: pageFlag})
	}
	kobject := kt.Struct("kobject", field{Name: "name", Type: kt.Ptr(kt.Char)}, field{Name: "sd", Type: ptr})
	order := kt.Struct("kmem_cache_order_objects", field{Name: "x", Type: kt.U32})
	node := kt.Struct("kmem_cache_node", field{Name: "list_lock", Type: kt.U32}, field{Name: "nr_partial", Type: kt.Ulong}, field{Name: "partial", Type: kt.ListHead})
	cache := []field{{Name: "flags", Type: kt.U32}, {Name: "size", Type: kt.U32}, {Name: "object_size", Type: kt.U32}, {Name: "offset", Type: kt.U32}, {Name: "oo", Type: order},
		{Name: "refcount", Type: kt.Int}, {Name: "ctor", Type: ptr}, {Name: "inuse", Type: kt.U32}, {Name: "align", Type: kt.U32}, {Name: "red_left_pad", Type: kt.U32},
		{Name: "name", Type: kt.Ptr(kt.Char)}, {Name: "list", Type: kt.ListHead}, {Name: "kobj", Type: kobject}}
	if w.v.mix != "" {
		cache = append(cache, field{Name: "random", Type: kt.Ulong})
	}
	if w.v.sheaves {
		w.cpuType = kt.Struct("slub_percpu_sheaves", field{Name: "lock", Type: kt.U8}, field{Name: "main", Type: ptr}, field{Name: "spare", Type: ptr}, field{Name: "rcu_free", Type: ptr})
		w.sheaf = kt.Struct("slab_sheaf", field{Name: "barn_list", Type: kt.ListHead}, field{Name: "cache", Type: ptr}, field{Name: "size", Type: kt.U32}, field{Name: "node", Type: kt.Int}, field{Name: "objects", Type: kt.Array(ptr, 0)})
		barn := kt.Struct("node_barn", field{Name: "lock", Type: kt.U32}, field{Name: "sheaves_full", Type: kt.ListHead})
		per := kt.Struct("kmem_cache_per_node_ptrs", field{Name: "barn", Type: kt.Ptr(barn)}, field{Name: "node", Type: kt.Ptr(node)})
		cache = append(cache, field{Name: "cpu_sheaves", Type: kt.Ptr(w.cpuType)}, field{Name: "per_node", Type: kt.Array(per, 4)})
		w.Types(w.sheaf, barn)
	} else {
		member := "slab"
		if w.v.oldPage {
			member = "page"
		}
		w.cpuType = kt.Struct("kmem_cache_cpu", field{Name: "freelist", Type: ptr}, field{Name: "tid", Type: kt.Ulong}, field{Name: member, Type: ptr}, field{Name: "partial", Type: ptr})
		cache = append(cache, field{Name: "cpu_slab", Type: kt.Ptr(w.cpuType)}, field{Name: "node", Type: kt.Array(kt.Ptr(node), 4)})
	}
	w.cache = kt.Struct("kmem_cache", cache...)
	track := kt.Struct("track", field{Name: "addr", Type: kt.Ulong}, field{Name: "handle", Type: kt.U32}, field{Name: "cpu", Type: kt.Int}, field{Name: "pid", Type: kt.Int}, field{Name: "when", Type: kt.Ulong})
	if w.v.tracks > 0 {
		track = kt.Struct("track", field{Name: "addr", Type: kt.Ulong}, field{Name: "addrs", Type: kt.Array(kt.Ulong, uint32(w.v.tracks))}, field{Name: "cpu", Type: kt.Int}, field{Name: "pid", Type: kt.Int}, field{Name: "when", Type: kt.Ulong})
	}
	kset := kt.Struct("kset", field{Name: "kobj", Type: kobject})
	w.Types(w.page, w.cache, node, track, kset, enum("pageflags", flags...))
}

// addCache makes a cache of that many objects a slab.
func (w *world) addCache(name string, size, objectSize uint64) uint64 {
	c := w.New(w.cache)
	set := func(path string, v uint64) { w.Set(c, w.cache, path, v) }
	set("size", size)
	set("object_size", objectSize)
	set("inuse", (objectSize+7)&^7)
	set("offset", (objectSize/2)&^7)
	set("flags", w.v.flags)
	set("oo", pageSize/size)
	set("refcount", 1)
	set("align", 8)
	set("name", w.PutString(name))
	if w.v.mix != "" {
		set("random", cacheRand)
	}
	member := "cpu_slab"
	if w.v.sheaves {
		member = "cpu_sheaves"
	}
	set(member, w.slots)
	w.slots += 64
	off, _ := kt.Offset(w.cache, "list")
	w.links = append(w.links, c+off)
	w.List(w.head, w.links...)
	w.kmem[name] = c
	return c
}

// newPages takes pages of the region, and returns the address of the first.
func (w *world) newPages(n int) uint64 {
	at := directAt + w.next*pageSize
	w.next += uint64(n)
	for i := range n {
		w.Write(at+uint64(i)*pageSize, make([]byte, pageSize))
		w.Set(w.pageOf(at+uint64(i)*pageSize), w.page, "page_type", 0xffffffff)
		w.Set(w.pageOf(at+uint64(i)*pageSize), w.page, "_refcount", 1)
	}
	return at
}

// pageOf returns the struct page of an address in the direct map.
func (w *world) pageOf(at uint64) uint64 { return vmemmapAt + (at-w.base)/pageSize*64 }

// encode is what a free pointer looks like in memory.
func (w *world) encode(at, p uint64) uint64 {
	switch w.v.mix {
	case "swab":
		return p ^ cacheRand ^ bits.ReverseBytes64(at)
	case "xor":
		return p ^ cacheRand ^ at
	}
	return p
}

// read returns the number in a member of the object at an address, or the object.
func (w *world) read(obj uint64, t btf.Type, path string) uint64 {
	off, mt := uint64(0), t
	if path != "" {
		off, mt = kt.Offset(t, path)
	}
	var b [8]byte
	phys, ok := w.Phys(obj + off)
	if !ok {
		w.t.Fatalf("%#x is not mapped", obj)
	}
	for i := range b[:mustSize(mt)] {
		w.ReadPhys(b[i:i+1], vmcore.PhysAddr(phys+uint64(i)))
	}
	return binary.LittleEndian.Uint64(b[:])
}

func mustSize(t btf.Type) int {
	n, err := btf.Sizeof(t)
	if err != nil {
		panic(err)
	}
	return n
}

// object returns the address of an object.
func (w *world) object(c, slab uint64, i int) uint64 {
	return slab + uint64(i)*w.read(c, w.cache, "size") + w.read(c, w.cache, "red_left_pad")
}

// chain links objects into a free list and returns its first.
func (w *world) chain(c, slab uint64, free ...int) uint64 {
	next := uint64(0)
	for n := len(free) - 1; n >= 0; n-- {
		o := w.object(c, slab, free[n])
		at := o + w.read(c, w.cache, "offset")
		w.Write64(at, w.encode(at, next))
		next = o
	}
	return next
}

// addSlab makes a slab of one page, whose free list has those objects.
func (w *world) addSlab(c uint64, inuse int, free ...int) uint64 {
	at := w.newPages(1)
	w.makeSlab(c, at, pageSize/int(w.read(c, w.cache, "size")), inuse, free...)
	return at
}

func (w *world) makeSlab(c, at uint64, objects, inuse int, free ...int) {
	p := w.pageOf(at)
	w.Set(p, w.page, "flags", 1<<pageFlag)
	if w.v.types {
		w.Set(p, w.page, "flags", 0)
		w.Set(p, w.page, "page_type", 245<<24)
	}
	w.Set(p, w.slab, "slab_cache", c)
	w.Set(p, w.slab, "freelist", w.chain(c, at, free...))
	w.Set(p, w.slab, "counters", uint64(inuse)|uint64(objects)<<16)
}

// cpuSlab makes a slab that of a CPU, with the CPU's free list.
func (w *world) cpuSlab(c, slab uint64, cpu int, free ...int) {
	at := w.PerCPUVar(w.read(c, w.cache, "cpu_slab"), cpu)
	member := "slab"
	if w.v.oldPage {
		member = "page"
	}
	w.Set(at, w.cpuType, "freelist", w.chain(c, slab, free...))
	w.Set(at, w.cpuType, member, w.pageOf(slab))
	p := w.pageOf(slab)
	w.Set(p, w.slab, "counters", w.read(p, w.slab, "counters")|1<<31)
}

// addSheaf gives a CPU a sheaf ("main", "spare", "rcu_free") of objects.
func (w *world) addSheaf(c uint64, cpu int, member string, objects ...uint64) uint64 {
	s := w.Alloc(32+8*len(objects), 16)
	w.Set(s, w.sheaf, "size", uint64(len(objects)))
	for i, o := range objects {
		w.Write64(s+32+8*uint64(i), o)
	}
	if member != "" {
		w.Set(w.PerCPUVar(w.read(c, w.cache, "cpu_sheaves"), cpu), w.cpuType, member, s)
	}
	return s
}

// open opens the kernel.
func (w *world) open() *Heap {
	w.t.Helper()
	k, err := kernel.Open(w.Dump())
	if err != nil {
		w.t.Fatal(err)
	}
	return New(k)
}

// mustIdentify fails the test when nothing can be said of an address.
func mustIdentify(t testing.TB, h *Heap, at uint64) *Memory {
	t.Helper()
	m, err := h.Identify(kernel.Addr(at))
	if err != nil {
		t.Fatalf("%#x: %v", at, err)
	}
	return m
}

// addKernfs adds the types of kernfs.
func (w *world) addKernfs() {
	root := kt.Struct("rb_root", field{Name: "rb_node", Type: kt.Ptr(kt.Void)})
	node := kt.Struct("rb_node", field{Name: "__rb_parent_color", Type: kt.Ulong}, field{Name: "rb_right", Type: kt.Ptr(kt.Void)}, field{Name: "rb_left", Type: kt.Ptr(kt.Void)})
	kn := &btf.Struct{Name: "kernfs_node"}
	kt.Complete(kn, field{Name: "count", Type: kt.Int}, field{Name: "parent", Type: kt.Ptr(kn)}, field{Name: "name", Type: kt.Ptr(kt.Char)}, field{Name: "rb", Type: node},
		field{Name: "ns", Type: kt.Ptr(kt.Void)}, field{Name: "hash", Type: kt.U32}, field{Name: "flags", Type: kt.U16}, field{Name: "mode", Type: kt.U16},
		field{Type: kt.Union("", field{Name: "dir", Type: kt.Struct("kernfs_elem_dir", field{Name: "subdirs", Type: kt.Ulong}, field{Name: "children", Type: root})},
			field{Name: "symlink", Type: kt.Struct("kernfs_elem_symlink", field{Name: "target_kn", Type: kt.Ptr(kn)})})})
	// kobject.sd points to it.
	for _, m := range w.cache.Members {
		if m.Name == "kobj" {
			m.Type.(*btf.Struct).Members[1].Type = kt.Ptr(kn)
		}
	}
	w.Types(kn)
}
