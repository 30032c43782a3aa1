package explain

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/cilium/ebpf/btf"

	"inquest/heap"
	"inquest/kernel"
)

// Confusion finds an object that code took for one of another type: the pointer was
// passed as one to a struct that does not fit into the memory it points to, or cannot
// be there, and the code used a member that is not there.
var Confusion = &Analyzer{
	Name: "type-confusion",
	Doc:  "an object taken for one of another type: used past its end, by a wrong container_of, or after its memory became something else",
	Run: func(c *Case) []Finding {
		var all []Finding
		for _, p := range c.promises() {
			for _, find := range []func(*promise) (Finding, bool){c.wrongContainer, c.confusion, c.impostor} {
				if f, ok := find(&p); ok {
					all = append(all, f)
					break
				}
			}
		}
		return mergeConfusions(all)
	},
}

// confusion examines one promise.
func (c *Case) confusion(p *promise) (Finding, bool) {
	mem, err := c.heap().Identify(p.ptr)
	if err != nil || mem.Slab == nil || mem.Slab.Start == 0 || mem.Slab.Offset > mem.Slab.Size {
		return Finding{}, false
	}
	obj := mem.Slab
	if obj.Offset == 0 && namedAfter(obj.Cache.Name, p.typ.Name, c.stackModules()) {
		// It is what it was taken for. Some structs are allocated without their end:
		// task_struct without what the CPU lacks of the FPU's state, kmem_cache
		// without the nodes that the machine lacks.
		return Finding{}, false
	}
	room := obj.Size - obj.Offset // from the pointer to the object's end
	if uint64(p.typ.Size) <= room {
		return Finding{}, false
	}
	var beyond []access
	for _, a := range c.accesses(p) {
		if a.offset >= room {
			beyond = append(beyond, a)
		}
	}
	if len(beyond) == 0 {
		return Finding{}, false
	}
	really, why := c.realType(p.typ, obj)
	giver := c.giver(p)
	name := "an object of slab cache " + obj.Cache.Name
	if really != nil {
		name = article(really.Name)
	}
	f := Finding{
		Class:      TypeConfusion,
		Title:      fmt.Sprintf("%s was taken for %s in %s", name, article(p.typ.Name), giver),
		Confidence: Likely,
		Weight:     10,
		Objects:    []Object{c.taken(p, obj, really)},
		Pointer:    c.pointer(p),
		culprit:    c.giverFunction(p),
	}
	if p.sure && slices.ContainsFunc(beyond, func(a access) bool { return a.sure }) {
		f.Confidence = Certain
	}
	out := p.outermost()
	f.Evidence = append(f.Evidence,
		Evidence{
			Text: fmt.Sprintf("struct %s *%s = %v was passed to %s (%s: %s)", p.typ.Name, out.param, p.ptr, p.functions(), out.function, out.from),
			Addr: p.ptr, Check: "bt --args",
		},
		Evidence{Text: fmt.Sprintf("%v is %s", p.ptr, mem.Desc), Addr: obj.Start, Check: fmt.Sprintf("whatis %v", p.ptr)},
		Evidence{
			Text:  fmt.Sprintf("struct %s has %d bytes, the object has room for %d: %d bytes of it are not there", p.typ.Name, p.typ.Size, room, uint64(p.typ.Size)-room),
			Check: p.structType().check(0),
		})
	if obj.Offset != 0 {
		f.Evidence[1].Text += fmt.Sprintf("; the pointer is not to its start but %d bytes in", obj.Offset)
	}
	if really != nil {
		f.Evidence = append(f.Evidence, Evidence{Text: fmt.Sprintf("it really is %s: %s", article(really.Name), why), Addr: obj.Start,
			Check: really.check(obj.Start)})
	}
	for _, a := range beyond {
		e, over, o := c.beyond(p, obj, a, room, really)
		f.Evidence = append(f.Evidence, e)
		if o != nil {
			n := slices.IndexFunc(f.Objects, func(have Object) bool { return have.Addr == o.Addr })
			if n < 0 {
				n = len(f.Objects)
				f.Objects = append(f.Objects, *o)
			}
			over.Object = n
		}
		f.Overrun = append(f.Overrun, over)
	}
	return f, true
}

// taken describes the object that a promise was about, which is another than promised.
func (c *Case) taken(p *promise, obj *heap.SlabObject, really *structType) Object {
	o := c.object(obj, fmt.Sprintf("taken for struct %s", p.typ.Name))
	if o.Type, o.Module = "", ""; really != nil {
		o.Type, o.Module = really.Name, really.module
	}
	o.TakenFor = &Taken{Type: p.typ.Name, Module: p.module, Size: uint64(p.typ.Size), Offset: int64(p.ptr - obj.Start)}
	return o
}

// pointer is how the code came by what was promised.
func (c *Case) pointer(p *promise) *Pointer {
	out := p.outermost()
	return &Pointer{Value: p.ptr, Param: out.param, To: p.passedTo(), Giver: c.giver(p), From: out.from, Reread: !p.sure}
}

// beyond describes a use of a member outside of the object, and where it fell.
func (c *Case) beyond(p *promise, obj *heap.SlabObject, a access, room uint64, really *structType) (Evidence, Overrun, *Object) {
	at := p.ptr + kernel.Addr(a.offset)
	over := Overrun{Member: p.typ.Name + "." + a.place.Path, Offset: a.offset, End: room, By: a.function, Addr: at, How: a.how, Sure: a.sure}
	e := Evidence{
		Text: fmt.Sprintf("%s.%s is at offset %#x, %d bytes past the object's end; %s", p.typ.Name, a.place.Path, a.offset, a.offset-room, a.how),
		Addr: at, Check: fmt.Sprintf("whatis %v", at),
	}
	mem, err := c.heap().Identify(at)
	if err != nil || mem.Slab == nil || mem.Slab.Start == 0 || mem.Slab.Start == obj.Start {
		if err == nil {
			e.Text += "; there is " + mem.Desc
		}
		return e, over, nil
	}
	next := mem.Slab
	over.At = next.Offset
	e.Text += fmt.Sprintf("; that is offset %#x of the next object, at %v", next.Offset, next.Start)
	neighbour := c.object(next, "its neighbour, which was used in its place")
	if neighbour.Type, neighbour.Module = "", ""; next.Cache.Addr == obj.Cache.Addr && really != nil {
		neighbour.Type, neighbour.Module = really.Name, really.module
		if place, ok := kernel.PlaceAt(really.Struct, next.Offset); ok && place.Path != "" {
			over.Is = place.Path
			e.Text += fmt.Sprintf(": its %s, if it is %s too", place.Path, article(really.Name))
		}
	}
	return e, over, &neighbour
}

// realType finds what an object in a slab really is: a struct of just its size that
// begins like the one it was taken for, and is called like the cache. why says what
// speaks for it; the struct is nil when nothing does.
func (c *Case) realType(taken *btf.Struct, obj *heap.SlabObject) (typ *structType, why string) {
	if s, why := c.structOf(obj.Cache); s != nil && s.Name != taken.Name {
		if mark := c.discriminate(s.Struct, obj.Start); mark != "" {
			why += "; " + mark
		}
		return s, why
	}
	types, err := c.Kernel.Types()
	if err != nil {
		return nil, ""
	}
	begins := kernel.FirstMembers(taken)
	type candidate struct {
		name   string
		typ    *structType
		shared string
		words  int
	}
	var all []candidate
	for _, n := range types.StructsOfSize(obj.Size, "") {
		if n == taken.Name {
			continue
		}
		words := sameWords(n, obj.Cache.Name)
		typ := structNamed(types, n, "", obj.Size)
		if typ == nil {
			continue
		}
		cand := candidate{name: n, typ: typ, words: words}
		for _, first := range kernel.FirstMembers(typ.Struct) {
			if slices.Contains(begins, first) && first != taken.Name {
				cand.shared = first
				break
			}
		}
		if cand.shared != "" || n == obj.Cache.Name {
			all = append(all, cand)
		}
	}
	if len(all) == 0 {
		return nil, ""
	}
	best := slices.MaxFunc(all, func(a, b candidate) int {
		return cmp.Or(cmp.Compare(a.words, b.words), cmp.Compare(len(b.name), len(a.name)))
	})
	if best.words == 0 && len(all) > 1 {
		return nil, ""
	}
	why = fmt.Sprintf("the cache is called %s, and struct %s has just its %d bytes", obj.Cache.Name, best.name, obj.Size)
	if best.shared != "" {
		why += fmt.Sprintf(" and begins with struct %s, as struct %s does", best.shared, taken.Name)
	}
	if mark := c.discriminate(best.typ.Struct, obj.Start); mark != "" {
		why += "; " + mark
	}
	return best.typ, why
}

// sameWords counts the words, between underscores, that two names share.
func sameWords(a, b string) int {
	n := 0
	words := strings.FieldsFunc(strings.ToLower(b), func(r rune) bool { return r == '_' || r == '-' })
	for w := range strings.SplitSeq(strings.ToLower(a), "_") {
		if slices.Contains(words, w) {
			n++
		}
	}
	return n
}

// mergeConfusions leaves one finding for each object: of several types that it was
// taken for, the one that was used furthest past the end.
func mergeConfusions(all []Finding) []Finding {
	var out []Finding
	for _, f := range all {
		i := slices.IndexFunc(out, func(o Finding) bool { return o.Objects[0].Addr == f.Objects[0].Addr })
		switch {
		case i < 0:
			out = append(out, f)
		case len(f.Evidence) > len(out[i].Evidence):
			out[i] = f
		}
	}
	return out
}

// article puts "a" or "an" in front of a name.
func article(name string) string {
	if name != "" && strings.ContainsRune("aeiou", rune(name[0])) {
		return "an " + name
	}
	return "a " + name
}
