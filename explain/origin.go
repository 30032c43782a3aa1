package explain

import (
	"fmt"

	"inquest/heap"
	"inquest/kernel"
	"inquest/kernel/x86"
)

// trace adds to a finding where the registers of a bad address came from: a
// parameter, or memory; and whose memory that is.
func (c *Case) trace(f *Finding, a x86.Access) {
	cr := c.Crash
	site := cr.Fault
	c.arguments(nil)
	if len(a.Registers()) == 0 && f.Class == NullDereference {
		f.Evidence = append(f.Evidence, Evidence{
			Text: "the instruction uses no register for the address: the compiler saw that the pointer is NULL here", Check: fmt.Sprintf("dis -r %v", site.PC),
		})
	}
	for i, r := range a.Registers() {
		v, ok := site.Regs.Get(r)
		if !ok {
			continue
		}
		e := Evidence{Text: fmt.Sprintf("the address comes from %v = %#x", r, v)}
		src, ok := c.Unwinder.Source(cr.Trace, site.Frame, r)
		if !ok {
			f.Evidence = append(f.Evidence, e)
			continue
		}
		plus := ""
		if src.Plus != 0 {
			plus = fmt.Sprintf("%+#x", src.Plus)
		}
		switch {
		case src.Const:
			e.Text += ", a number in the code itself"
			e.Check = fmt.Sprintf("dis -r %v", site.PC)
		case src.Param != "":
			e.Text += fmt.Sprintf(", which is the parameter %s%s", src.Param, plus)
			e.Check = "bt --args"
			if i == 0 && f.Class == NullDereference && v-uint64(src.Plus) == 0 {
				f.Title += fmt.Sprintf(": its parameter %s is NULL", src.Param)
			}
		default:
			e.Addr, e.Check = src.Addr, fmt.Sprintf("whatis %v", src.Addr)
			e.Text += fmt.Sprintf(", which was read from %v%s", src.Addr, plus)
			if src.Expr != "" {
				e.Text += fmt.Sprintf(", that is %s", src.Expr)
				if i == 0 && f.Class == NullDereference && v-uint64(src.Plus) == 0 {
					f.Title += fmt.Sprintf(": %s is NULL", src.Expr)
				}
			}
			if mem, err := c.heap().Identify(src.Addr); err == nil {
				e.Text += "; there is " + mem.Desc
			}
		}
		f.Evidence = append(f.Evidence, e)
	}
}

// origins classifies a bad address by the memory it had been read from. In a freed
// object it is use after free. In an allocated one, what SLUB fills free objects with
// (slub_debug=P) was never replaced by anything.
func (c *Case) origins(f *Finding, bad badness) {
	leads := c.leads()
	if f.Class == NullDereference && (len(leads) != 1 || leads[0].frame != c.Crash.Fault.Frame) {
		return // NULL may have come from anywhere
	}
	for _, l := range leads {
		if c.origin(f, &l) {
			c.confide(f, &l)
			return
		}
	}
	if bad.poison != notPoison {
		c.poisoned(f, bad)
	}
}

// confide limits what is said of a finding to how sure its lead is.
func (c *Case) confide(f *Finding, l *lead) {
	if !l.sure {
		f.Confidence = Likely
	}
}

// origin classifies a bad address by the memory that one lead says it was read from;
// false where that tells nothing.
func (c *Case) origin(f *Finding, l *lead) bool {
	mem, err := c.heap().Identify(l.at)
	if err != nil {
		return false
	}
	in := functionOf(c.culpritName())
	if mem.Kind == heap.FreePage {
		f.Class, f.Weight = UseAfterFree, 7
		f.Title = "use of a freed page in " + in
		f.Evidence = append(f.Evidence, Evidence{
			Text: fmt.Sprintf("the bad pointer was read from %v, which is %s", l.at, mem.Desc), Addr: l.at, Check: fmt.Sprintf("whatis %v", l.at),
		})
		return true
	}
	obj := mem.Slab
	switch {
	case obj == nil || obj.Start == 0:
		return false
	case l.bad.poison == redPoison && obj.InRedzone:
		f.Class, f.Weight = OutOfBounds, 7
		f.Title = fmt.Sprintf("use of what lies outside of an object of slab cache %s in %s", obj.Cache.Name, in)
		f.Objects = append(f.Objects, c.object(obj, "the pointer was read from outside of it"))
		f.Evidence = append(f.Evidence, Evidence{
			Text: fmt.Sprintf("the bad pointer was read from %v, in the red zone of that object", l.at), Addr: l.at, Check: fmt.Sprintf("whatis %v", l.at),
		})
		return true
	case obj.Offset >= obj.Size || f.Class == NullDereference && obj.State != heap.Free:
		return false
	}
	return c.slabOrigin(f, l, obj)
}

// slabOrigin is origin for an object in a slab cache.
func (c *Case) slabOrigin(f *Finding, l *lead, obj *heap.SlabObject) bool {
	in := functionOf(c.culpritName())
	name := "object of slab cache " + obj.Cache.Name
	typ, _ := c.structOf(obj.Cache)
	if typ != nil {
		name = typ.Name
	}
	f.Objects = append(f.Objects, c.object(obj, "held the bad pointer"))
	if !l.sure {
		f.Evidence = append(f.Evidence, Evidence{
			Text: fmt.Sprintf("%s, at %v, holds the same value; there is object %d (%v) of slab cache %s, at %v", l.expr, l.at, obj.Index, obj.State, obj.Cache.Name, obj.Start),
			Addr: l.at, Check: fmt.Sprintf("whatis %v", l.at),
		})
	}
	switch {
	case obj.State == heap.Free:
		f.Class, f.Weight = UseAfterFree, 7
		f.Title = fmt.Sprintf("use of a freed %s in %s", name, in)
		f.Evidence = append(f.Evidence, Evidence{
			Text: fmt.Sprintf("the object is free, on %s", obj.FreeIn), Addr: obj.Start, Check: fmt.Sprintf("whatis %v", obj.Start),
		})
		if at := kernel.Addr(obj.Cache.Offset); l.at == obj.Start+at {
			f.Evidence = append(f.Evidence, Evidence{
				Text:  fmt.Sprintf("at offset %#x a free object of this cache has SLUB's pointer to the next free one: that was taken for a member", obj.Cache.Offset),
				Addr:  l.at,
				Check: "slab " + obj.Cache.Name,
			})
		}
	case filler(l.value) && obj.State == heap.Allocated:
		f.Class, f.Confidence, f.Weight = WildPointer, Likely, 7
		f.Title = fmt.Sprintf("use of uninitialised memory in %s: an %s", in, name)
		if typ != nil {
			f.Title = fmt.Sprintf("use of uninitialised memory in %s: %s", in, article(name))
		}
		f.Evidence = append(f.Evidence, Evidence{
			Text: "the object is allocated, but here it still holds what SLUB fills objects with while nobody has them: nobody set this member since, " +
				"unless the object was freed and allocated again behind the back of who uses it",
			Addr: l.at, Check: fmt.Sprintf("rd %v", l.at),
		})
	default:
		f.Evidence = append(f.Evidence, c.history(obj)...)
		return false
	}
	f.Evidence = append(f.Evidence, c.history(obj)...)
	return true
}

// poisoned classifies a bad address that looks like poison, where no memory is known
// that it was read from. The number alone proves nothing: the code may have it itself,
// and only a kernel that fills memory with it can have left it there.
func (c *Case) poisoned(f *Finding, bad badness) {
	if c.constant() {
		return
	}
	switch bad.poison {
	case listPoison:
		// Every kernel does that, and nothing else does.
		f.Class, f.Confidence, f.Weight = ListCorruption, Likely, 1
		f.Title = "use of a list entry that was deleted before, in " + functionOf(c.culpritName())
	case freePoison:
		caches, _ := c.heap().Caches()
		n := 0
		for _, cache := range caches {
			if cache.HasPoison {
				n++
			}
		}
		if n == 0 {
			f.Evidence = append(f.Evidence, Evidence{
				Text: "no slab cache of this kernel is poisoned (slub_debug=P), so the number was not read from a free object", Check: "slab",
			})
			return
		}
		f.Class, f.Confidence, f.Weight = UseAfterFree, Likely, 1
		f.Title = "use of what was read from freed memory, in " + functionOf(c.culpritName())
		f.Evidence = append(f.Evidence, Evidence{
			Text: fmt.Sprintf("%d slab caches of this kernel are poisoned: their free objects hold this number", n), Check: "slab",
		})
	}
}

// constant reports whether the trapped instruction's address is poison that the code
// itself has as a number.
func (c *Case) constant() bool {
	site := c.Crash.Fault
	if !site.Known {
		return false
	}
	for _, a := range site.Insn.Accesses() {
		for _, r := range a.Registers() {
			if src, ok := c.Unwinder.Source(c.Crash.Trace, site.Frame, r); ok && src.Const && filled(uint64(src.Plus)) {
				return true
			}
		}
	}
	return false
}

// filled reports whether a number looks like poison.
func filled(v uint64) bool {
	for _, p := range poisons {
		if v >= p.low && v <= p.high {
			return true
		}
	}
	return false
}

// filler reports whether a value is what SLUB fills objects with (POISON_FREE,
// POISON_INUSE), perhaps with something added.
func filler(v uint64) bool {
	return v>>16 == 0x6b6b6b6b6b6b || v>>16 == 0x5a5a5a5a5a5a
}
