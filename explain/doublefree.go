package explain

import (
	"fmt"
	"strings"

	"inquest/heap"
	"inquest/kernel"
	"inquest/kernel/x86"
	"inquest/stack"
)

// allocatorNames are the functions of the slab allocator that free and allocate, and
// what they consist of (mm/slub.c, mm/slab_common.c).
var allocatorNames = set(
	"kfree", "kmem_cache_free", "__kmem_cache_free", "kvfree", "kfree_sensitive", "kmem_cache_free_bulk", "slab_free", "__slab_free", "do_slab_free",
	"slab_free_after_rcu_debug", "set_freepointer", "free_to_pcs", "free_debug_processing", "free_to_partial_list", "slab_free_freelist_hook", "free_deferred_objects",
	"___cache_free", "cache_from_obj", "virt_to_cache", "free_large_kmalloc", "warn_free_bad_obj", "kfree_const", "devm_kfree", "kfree_skbmem", "slab_err", "object_err", "slab_free_hook",
	"kmem_cache_alloc", "__kmalloc", "kmalloc_trace", "__slab_alloc", "___slab_alloc", "kmem_cache_alloc_lru", "kmem_cache_alloc_node", "kmem_cache_alloc_trace",
	"__kmem_cache_alloc_node", "__kmalloc_node", "__kmalloc_noprof", "kmem_cache_alloc_noprof", "__kmalloc_cache_noprof", "set_track_prepare", "stack_trace_save",
)

// FreedTwice finds the object that was freed twice when SLUB itself noticed: with
// CONFIG_SLAB_FREELIST_HARDENED it stops at an object that is on top of the free list
// already (set_freepointer() in mm/slub.c, since 4.14).
var FreedTwice = &Analyzer{
	Name: "double-free",
	Doc:  "an object freed that is on a free list already",
	Run: func(c *Case) []Finding {
		cr := c.Crash
		if cr == nil || cr.Trace == nil || cr.Event == nil || cr.Event.Kind != KindBug ||
			!strings.Contains(cr.Event.Trigger, "mm/slub.c") && !allocatorNames[functionOf(cr.Event.Trigger)] {
			return nil
		}
		freer, at := c.freer()
		if freer == "" {
			return nil
		}
		obj, how, sure := c.freed(at)
		if obj == nil {
			return nil
		}
		name := "an object of slab cache " + obj.Cache.Name
		typ, _ := c.structOf(obj.Cache)
		if typ != nil {
			name = article(typ.Name)
		}
		f := Finding{
			Class:      DoubleFree,
			Title:      fmt.Sprintf("double free of %s in %s", name, functionOf(freer)),
			Confidence: Likely,
			Weight:     8,
			Objects:    []Object{c.object(obj, "freed twice")},
			culprit:    functionOf(freer),
		}
		if sure {
			f.Confidence = Certain
		}
		f.Evidence = append(f.Evidence,
			Evidence{Text: fmt.Sprintf("%s; in %s, which %s called", cr.Event.Message, c.culpritName(), freer), Check: "bt"},
			Evidence{Text: fmt.Sprintf("the object at %v was being freed: %s", obj.Start, how), Addr: obj.Start, Check: "bt --args"},
			Evidence{Text: fmt.Sprintf("but it is free already, on %s", obj.FreeIn), Addr: obj.Start, Check: fmt.Sprintf("whatis %v", obj.Start)})
		f.Evidence = append(f.Evidence, c.history(obj)...)
		return []Finding{f}
	},
}

// freer returns the frame that called the allocator to free something, and the number
// of the allocator's outermost frame; "" when the crash was not in the allocator.
func (c *Case) freer() (name string, frame int) {
	frees := false
	name, frame = c.outside(func(function string) bool {
		frees = frees || allocatorNames[function] && strings.Contains(function, "free")
		return allocatorNames[function]
	})
	if !frees {
		return "", 0
	}
	return name, frame
}

// freed finds the free object that the allocator was given to free: among the
// parameters of its functions, or else in the registers of the trap.
func (c *Case) freed(last int) (obj *heap.SlabObject, how string, sure bool) {
	free := func(v uint64) *heap.SlabObject {
		o, ok := c.slabObject(kernel.Addr(v))
		if !ok || o.Offset != 0 || o.State != heap.Free {
			return nil
		}
		return o
	}
	c.arguments(func(frame int, function string, a stack.Arg) {
		if obj != nil || frame > last || !a.Known {
			return
		}
		if obj = free(a.Value); obj != nil {
			how, sure = fmt.Sprintf("%s's %s (%s)", function, a.Name, a.From), true
		}
	})
	site := c.Crash.Fault
	if obj != nil || site == nil {
		return obj, how, sure
	}
	for _, r := range gprs {
		v, ok := site.Regs.Get(r)
		if !ok {
			continue
		}
		o := free(v)
		switch {
		case o == nil:
		case obj != nil && o.Start != obj.Start:
			return nil, "", false // which one is not known
		default:
			obj, how = o, fmt.Sprintf("%v at %s", r, c.culpritName())
		}
	}
	return obj, how, false
}

// gprs are the general registers, without the stack pointer.
var gprs = []x86.Reg{x86.RAX, x86.RBX, x86.RCX, x86.RDX, x86.RSI, x86.RDI, x86.RBP, x86.R8, x86.R9, x86.R10, x86.R11, x86.R12, x86.R13, x86.R14, x86.R15}
