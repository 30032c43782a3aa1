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
func (c *Case) origins(f *Finding) {
	leads := c.leads()
	if f.Class == NullDereference && (len(leads) != 1 || leads[0].frame != c.Crash.Fault.Frame) {
		return // NULL may have come from anywhere
	}
	in := functionOf(c.culpritName())
	for _, l := range leads {
		obj, ok := c.slabObject(l.at)
		if !ok || f.Class == NullDereference && obj.State != heap.Free {
			continue
		}
		name := "object of slab cache " + obj.Cache.Name
		typ, _ := c.structOf(obj.Cache)
		held := Object{Addr: obj.Start, Role: "held the bad pointer", Cache: obj.Cache.Name, Size: obj.Size}
		if typ != nil {
			name, held.Type = typ.Name, typ.Name
		}
		f.Objects = append(f.Objects, held)
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
			continue
		}
		f.Evidence = append(f.Evidence, c.history(obj)...)
		if !l.sure {
			f.Confidence = Likely
		}
		return
	}
}

// filler reports whether a value is what SLUB fills objects with (POISON_FREE,
// POISON_INUSE), perhaps with something added.
func filler(v uint64) bool {
	return v>>16 == 0x6b6b6b6b6b6b || v>>16 == 0x5a5a5a5a5a5a
}
