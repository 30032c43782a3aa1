package explain

import (
	"fmt"

	"github.com/cilium/ebpf/btf"

	"inquest/heap"
	"inquest/kernel"
)

// impostor finds an object that has room for the struct that it was taken for, but is
// something else: its slab cache is another struct's, or what it holds cannot be the
// struct. Most often it is the memory of an object that was freed and allocated again,
// while a pointer to it lived on. A bad pointer must have been read from it.
func (c *Case) impostor(p *promise) (Finding, bool) {
	obj, ok := c.slabObject(p.ptr)
	if !ok || obj.State == heap.Free {
		return Finding{}, false
	}
	var harm *lead
	for _, l := range c.leads() {
		if l.bad.class != NullDereference && !filler(l.value) && c.blames(l, p, c.promises()) {
			harm = &l
			break
		}
	}
	if harm == nil {
		return Finding{}, false
	}
	if really, why := c.structOf(obj.Cache); really != nil {
		return c.otherStruct(p, obj, harm, really, why)
	}
	if uint64(p.typ.Size) > obj.Size-obj.Offset {
		return Finding{}, false
	}
	return c.otherContents(p, obj, harm)
}

// otherStruct is an impostor whose slab cache says what it is.
func (c *Case) otherStruct(p *promise, obj *heap.SlabObject, harm *lead, really *structType, why string) (Finding, bool) {
	if really.Name == p.typ.Name || contains(really.Struct, obj.Offset, p.typ) || contains(p.typ, 0, really.Struct) {
		return Finding{}, false
	}
	f := c.impostorFinding(p, obj, harm, really)
	f.Title = fmt.Sprintf("%s was taken for %s in %s", article(really.Name), article(p.typ.Name), c.giver(p))
	text := fmt.Sprintf("it is %s: %s", article(really.Name), why)
	if obj.Offset != 0 {
		text += fmt.Sprintf("; nor has struct %s a struct %s at offset %#x", really.Name, p.typ.Name, obj.Offset)
	}
	f.Evidence = append(f.Evidence, Evidence{Text: text, Addr: obj.Start, Check: really.check(obj.Start)})
	if home := c.homeOf(p.typ); home != nil && home.Addr != obj.Cache.Addr {
		f.Confidence = harm.confidence(p)
		f.Evidence = append(f.Evidence, Evidence{
			Text:  fmt.Sprintf("objects of struct %s come from slab cache %s", p.typ.Name, home.Name),
			Addr:  home.Addr,
			Check: "slab " + home.Name,
		})
	}
	f.Evidence = append(f.Evidence, c.history(obj)...)
	f.Advice = append(f.Advice, staleAdvice)
	return f, true
}

// otherContents is an impostor that gives itself away by what it holds: of the struct's
// pointers, most are none.
func (c *Case) otherContents(p *promise, obj *heap.SlabObject, harm *lead) (Finding, bool) {
	if _, ok := c.overrun(harm.at); ok {
		return Finding{}, false // the object is what it should be, but was overwritten
	}
	broken, whole := c.contradictions(p)
	if len(broken) < 2 || len(broken) <= whole {
		return Finding{}, false
	}
	f := c.impostorFinding(p, obj, harm, nil)
	f.Weight = 6
	f.Title = fmt.Sprintf("what %s used as %s is something else by now, in slab cache %s", c.giver(p), article(p.typ.Name), obj.Cache.Name)
	const show = 4
	text := fmt.Sprintf("%d of the %d pointers of the struct that are not NULL are none:", len(broken), len(broken)+whole)
	for i, b := range broken {
		if i == show {
			text += " …"
			break
		}
		text += " " + b
	}
	f.Evidence = append(f.Evidence, Evidence{Text: text, Addr: p.ptr, Check: p.structType().check(p.ptr)})
	f.Evidence = append(f.Evidence, c.history(obj)...)
	f.Advice = append(f.Advice, staleAdvice)
	return f, true
}

const staleAdvice = "Look for the one who keeps a pointer to an object that was freed: memory that is used again as something else looks like this. " +
	"Booting with slub_debug=U (slab_debug=U in 6.12 and later) makes the kernel keep who allocated and who freed each object."

func (c *Case) impostorFinding(p *promise, obj *heap.SlabObject, harm *lead, really *structType) Finding {
	out := p.outermost()
	place, _ := kernel.PlaceAt(p.typ, uint64(harm.at-p.ptr))
	return Finding{
		Class:      TypeConfusion,
		Confidence: Likely,
		Weight:     9,
		Objects:    []Object{c.taken(p, obj, really)},
		Pointer:    c.pointer(p),
		Evidence: []Evidence{
			{
				Text: fmt.Sprintf("struct %s *%s = %v was passed to %s (%s: %s)", p.typ.Name, out.param, p.ptr, p.functions(), out.function, out.from),
				Addr: p.ptr, Check: "bt --args",
			},
			{
				Text: fmt.Sprintf("%v is %s", p.ptr, placed(obj)),
				Addr: obj.Start, Check: fmt.Sprintf("whatis %v", p.ptr),
			},
			{
				Text: fmt.Sprintf("%s.%s at %v: %s; %s", p.typ.Name, place.Path, harm.at, harm.use(), harm.bad.what),
				Addr: harm.at, Check: fmt.Sprintf("rd %v", harm.at),
			},
		},
	}
}

// placed says where in which object a pointer is.
func placed(o *heap.SlabObject) string {
	where := "the start of"
	if o.Offset != 0 {
		where = fmt.Sprintf("%d bytes into", o.Offset)
	}
	return fmt.Sprintf("%s object %d (%v) of slab cache %s, at %v, %d bytes", where, o.Index, o.State, o.Cache.Name, o.Start, o.Size)
}

func (l *lead) confidence(p *promise) Confidence {
	if l.sure && p.sure {
		return Certain
	}
	return Likely
}

// contradictions counts the pointers of a promised struct that hold what no pointer
// can be, and those that may be right. NULL and what lies in unions tell nothing.
func (c *Case) contradictions(p *promise) (broken []string, whole int) {
	for _, m := range pointerMembers(p.typ) {
		if m.shared {
			continue
		}
		v, err := c.Kernel.U64(p.ptr + kernel.Addr(m.offset))
		if err != nil || v < nullZone || v > ^uint64(0)-maxErrno {
			continue
		}
		if c.notPointer(v, m.target) {
			broken = append(broken, fmt.Sprintf("%s = %#x", m.path, v))
		} else {
			whole++
		}
	}
	return broken, whole
}

// notPointer reports whether a value cannot be a pointer to a type. Low bits are
// used as flags in many places, so they do not count.
func (c *Case) notPointer(v uint64, target btf.Type) bool {
	v &^= 7
	if !c.Kernel.PageTable().Canonical(v) {
		return true
	}
	if v < userTop {
		return false // it may well be a user address, or a number
	}
	if _, ok := target.(*btf.FuncProto); ok {
		return !c.Kernel.Text(kernel.Addr(v))
	}
	bad, isBad := c.judge(v, false, false)
	return isBad && bad.sure
}
