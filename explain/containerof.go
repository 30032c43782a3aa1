package explain

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/cilium/ebpf/btf"

	"inquest/heap"
	"inquest/kernel"
	"inquest/stack"
)

// embedded is a member that code computed the address of a struct from, as
// container_of() does, and where that member really lies.
type embedded struct {
	ptr    kernel.Addr // of the member
	typ    *btf.Struct // its type
	param  string      // the parameter that it was
	sure   bool
	offset uint64 // in the struct that it was taken for
	path   string // there
	obj    *heap.SlabObject
}

// wrongContainer finds a struct that was computed from a member of something else:
// it would begin in front of the object that the member lies in. The code must have used
// the struct.
func (c *Case) wrongContainer(p *promise) (Finding, bool) {
	m, ok := c.computedFrom(p)
	if !ok {
		return Finding{}, false
	}
	uses := c.accesses(p)
	// The member itself is no proof: its address is where the arithmetic began.
	n := 0
	for _, a := range uses {
		if a.offset != m.offset {
			uses[n] = a
			n++
		}
	}
	if uses = uses[:n]; n == 0 {
		return Finding{}, false
	}
	giver := c.giver(p)
	out := p.outermost()
	f := Finding{
		Class:      TypeConfusion,
		Title:      fmt.Sprintf("%s of an object of slab cache %s was taken for that of %s in %s", article(m.typ.Name), m.obj.Cache.Name, article(p.typ.Name), giver),
		Confidence: Likely,
		Weight:     10,
		culprit:    c.giverFunction(p),
	}
	if p.sure && m.sure && slices.ContainsFunc(uses, func(a access) bool { return a.sure }) {
		f.Confidence = Certain
	}
	really, why := c.structOf(m.obj.Cache)
	f.Evidence = append(f.Evidence,
		Evidence{
			Text: fmt.Sprintf("%s was given struct %s *%s = %v, and passed struct %s *%s = %v to %s: that is %s minus %#x, where struct %s has its %s",
				giver, m.typ.Name, m.param, m.ptr, p.typ.Name, out.param, p.ptr, out.function, m.param, m.offset, p.typ.Name, m.path),
			Addr: p.ptr, Check: "bt --args",
		},
		Evidence{
			Text: fmt.Sprintf("but %s is %d bytes into object %d (%v) of slab cache %s, at %v, %d bytes: the struct would begin %d bytes in front of it",
				m.param, m.obj.Offset, m.obj.Index, m.obj.State, m.obj.Cache.Name, m.obj.Start, m.obj.Size, uint64(m.obj.Start-p.ptr)),
			Addr: m.obj.Start, Check: fmt.Sprintf("whatis %v", m.ptr),
		})
	if really != nil {
		name := really.Name
		f.Evidence = append(f.Evidence, Evidence{Text: fmt.Sprintf("the object is %s: %s", article(name), why),
			Addr: m.obj.Start, Check: really.check(m.obj.Start)})
		if path, ok := memberOfType(really.Struct, m.obj.Offset, m.typ); ok {
			f.Title = fmt.Sprintf("the %s of %s was taken for the %s of %s in %s", path, article(name), m.path, article(p.typ.Name), giver)
			f.Evidence = append(f.Evidence, Evidence{
				Text:  fmt.Sprintf("struct %s has a struct %s right there, at offset %#x: its %s", name, m.typ.Name, m.obj.Offset, path),
				Check: really.check(0) + " -o",
			})
		}
	}
	o := c.taken(p, m.obj, really)
	o.Role = fmt.Sprintf("its member was taken for one of struct %s", p.typ.Name)
	f.Objects, f.Pointer = []Object{o}, c.pointer(p)
	for _, a := range uses {
		at := p.ptr + kernel.Addr(a.offset)
		e := Evidence{Text: fmt.Sprintf("%s.%s would be at %v; %s", p.typ.Name, a.place.Path, at, a.how), Addr: at, Check: fmt.Sprintf("whatis %v", at)}
		if mem, err := c.heap().Identify(at); err == nil {
			e.Text += "; there is " + mem.Desc
			if o := mem.Slab; o != nil && really != nil && o.Start != 0 && o.Cache.Addr == m.obj.Cache.Addr {
				if place, ok := kernel.PlaceAt(really.Struct, o.Offset); ok && place.Path != "" {
					e.Text += fmt.Sprintf(": %s's %s", article(really.Name), place.Path)
				}
			}
		}
		f.Evidence = append(f.Evidence, e)
	}
	f.Evidence = append(f.Evidence, c.history(m.obj)...)
	return f, true
}

// computedFrom finds the member that the giver of a promised pointer had been given
// itself, where the struct around it cannot be: it would begin in front of the object.
func (c *Case) computedFrom(p *promise) (m embedded, ok bool) {
	giver := p.outermost().frame + 1
	c.arguments(func(frame int, function string, a stack.Arg) {
		if ok || frame != giver {
			return
		}
		target, isPointer := pointee(a.BTF)
		typ, isStruct := target.(*btf.Struct)
		if !isPointer || !isStruct || typ.Name == "" {
			return
		}
		q, _, known := value(a)
		if !known && a.Again == nil || q <= p.ptr || !p.covers(q) {
			return
		}
		path, isMember := memberOfType(p.typ, uint64(q-p.ptr), typ)
		if !isMember {
			return
		}
		obj, inSlab := c.slabObject(q)
		if !inSlab || obj.State == heap.Free || obj.Start <= p.ptr {
			return
		}
		m = embedded{q, typ, cmp.Or(a.Name, "it"), known, uint64(q - p.ptr), path, obj}
		ok = true
	})
	return m, ok
}
