package explain

import (
	"fmt"

	"inquest/heap"
	"inquest/kernel"
	"inquest/stack"
)

// freeing are the functions that give memory back, and which of their arguments it is
// (mm/slub.c, mm/slab_common.c, mm/util.c, mm/vmalloc.c, mm/page_alloc.c).
var freeing = map[string]int{
	"kfree": 0, "kfree_sensitive": 0, "kzfree": 0, "kvfree": 0, "kvfree_sensitive": 0, "vfree": 0, "free_pages": 0, "free_pages_exact": 0,
	"kmem_cache_free": 1, "__kmem_cache_free": 1,
}

// UsedAfter finds memory that the code on the stack used after it had freed it itself. The
// code is the evidence, so that it does not matter what became of the memory since.
var UsedAfter = &Analyzer{
	Name: "use-after-free",
	Doc:  "memory that the code on the stack had given back itself, on every way to where it used it",
	Run:  runUsedAfter,
}

func runUsedAfter(c *Case) []Finding {
	cr := c.Crash
	if cr == nil || cr.Fault == nil || cr.Trace == nil || !cr.Fault.Known || !c.trapped() {
		return nil
	}
	site := cr.Fault
	c.arguments(nil)
	for _, a := range site.Insn.Accesses() {
		addr, ok := a.Address(&site.Regs)
		if !ok {
			continue
		}
		bad, isBad := c.judge(addr, a.Write && !a.Read, false)
		logged := c.logSays(addr)
		if !isBad && !logged {
			continue
		}
		for _, r := range a.Registers() {
			call, ok := c.Unwinder.PassedBefore(cr.Trace, site.Frame, r, func(function string) int {
				if n, frees := freeing[base(function)]; frees {
					return n
				}
				return -1
			})
			if !ok {
				continue
			}
			if call.Reads == 0 && bad.class == NullDereference {
				continue // freeing NULL does nothing
			}
			held, _ := site.Regs.Get(r)
			f := c.usedAfter(call, addr, held, bad)
			if bad.sure || logged {
				f.Confidence = Certain
			}
			return []Finding{f}
		}
	}
	return nil
}

func (c *Case) usedAfter(call stack.Call, addr, held uint64, bad badness) Finding {
	cr := c.Crash
	in := functionOf(cr.Trace.Frames[call.Frame].Name())
	frees := base(call.Function.Name)
	what := "memory"
	f := Finding{Class: UseAfterFree, Confidence: Likely, Weight: 8}
	cache := c.freedFrom(call)
	var member string
	if cache != nil {
		what = "an object of slab cache " + cache.Name
		if typ, _ := c.structOf(cache); typ != nil {
			what = article(typ.Name)
			if place, ok := kernel.PlaceAt(typ.Struct, call.Offset); ok && place.Path != "" {
				member = fmt.Sprintf(", that is %s.%s,", typ.Name, place.Path)
			}
		}
	}
	f.Title = fmt.Sprintf("use of %s in %s, which had freed it before", what, in)
	f.Evidence = append(f.Evidence,
		Evidence{
			Text: fmt.Sprintf("%s called %s at %s, on every way that leads to where it was stopped", in, frees, c.Kernel.Name(call.At)),
			Addr: call.At, Check: "dis " + in,
		},
		Evidence{
			Text:  fmt.Sprintf("behind that call it used what lies %#x bytes%s behind the pointer that it had freed", call.Offset, member),
			Check: "dis " + in,
		},
		Evidence{
			Text: fmt.Sprintf("%s at %s then accessed %#x: %s", cr.Fault.Insn.Text(c.symname), c.culpritName(), addr, orAccess(bad)),
			Addr: cr.Fault.PC, Check: fmt.Sprintf("dis -r %v", cr.Fault.PC),
		})
	if cache != nil {
		f.Evidence = append(f.Evidence, Evidence{
			Text: fmt.Sprintf("%s was given slab cache %s", frees, cache.Name), Addr: cache.Addr, Check: "slab " + cache.Name,
		})
	}
	if obj, how := c.freedObject(call, cache, held); obj != nil {
		o := c.object(obj, "was used after it had been freed")
		f.Objects = append(f.Objects, o)
		text := fmt.Sprintf("%s, at %v, is %v now", how, obj.Start, obj.State)
		if obj.State == heap.Allocated {
			text += ": somebody else has had its memory since, or has it still"
		}
		f.Evidence = append(f.Evidence, Evidence{Text: text, Addr: obj.Start, Check: fmt.Sprintf("whatis %v", obj.Start)})
		f.Evidence = append(f.Evidence, c.history(obj)...)
	}
	return f
}

func orAccess(bad badness) string {
	if bad.what == "" {
		return "that is not possible"
	}
	return bad.what
}

// freedFrom is the slab cache that memory was given back to, nil when it is not known.
func (c *Case) freedFrom(call stack.Call) *heap.Cache {
	which := freeing[base(call.Function.Name)]
	if p := call.Args[which]; p.Known {
		if o, ok := c.slabObject(kernel.Addr(p.Value)); ok {
			return o.Cache
		}
	}
	if which == 0 || !call.Args[0].Known {
		return nil
	}
	caches, _ := c.heap().Caches()
	for _, cache := range caches {
		if cache.Addr == kernel.Addr(call.Args[0].Value) {
			return cache
		}
	}
	return nil
}

// freedObject is the object that was given back: by the pointer, or if that is lost, the
// only one of its cache that holds where the bad pointer was read what was read there.
func (c *Case) freedObject(call stack.Call, cache *heap.Cache, held uint64) (obj *heap.SlabObject, how string) {
	if p := call.Args[freeing[base(call.Function.Name)]]; p.Known {
		if o, ok := c.slabObject(kernel.Addr(p.Value)); ok && o.Offset == 0 {
			return o, "the object"
		}
	}
	const most = 1 << 16
	if cache == nil || call.Reads != 1 || call.Offset+8 > cache.ObjectSize || held < nullZone {
		return nil, ""
	}
	var found kernel.Addr
	n := 0
	for o, err := range c.heap().Objects(cache) {
		if n++; n > most {
			return nil, ""
		}
		if err != nil || o.Addr == 0 {
			continue
		}
		if v, err := c.Kernel.U64(o.Addr + kernel.Addr(call.Offset)); err != nil || v != held {
			continue
		}
		if found != 0 {
			return nil, ""
		}
		found = o.Addr
	}
	if found == 0 {
		return nil, ""
	}
	o, ok := c.slabObject(found)
	if !ok {
		return nil, ""
	}
	return o, fmt.Sprintf("the only object of slab cache %s that holds %#x at offset %#x", cache.Name, held, call.Offset)
}
