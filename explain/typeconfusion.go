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
	if really != "" {
		name = article(really)
	}
	f := Finding{
		Class:      TypeConfusion,
		Title:      fmt.Sprintf("%s was taken for %s in %s", name, article(p.typ.Name), giver),
		Confidence: Likely,
		Weight:     10,
		Objects:    []Object{{Addr: obj.Start, Type: really, Role: fmt.Sprintf("taken for struct %s", p.typ.Name), Cache: obj.Cache.Name, Size: obj.Size}},
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
			Check: "struct " + p.typ.Name,
		})
	if obj.Offset != 0 {
		f.Evidence[1].Text += fmt.Sprintf("; the pointer is not to its start but %d bytes in", obj.Offset)
	}
	if really != "" {
		f.Evidence = append(f.Evidence, Evidence{Text: fmt.Sprintf("it really is %s: %s", article(really), why), Addr: obj.Start,
			Check: fmt.Sprintf("struct %s %v", really, obj.Start)})
	}
	for _, a := range beyond {
		e, o := c.beyond(p, obj, a, room, really)
		f.Evidence = append(f.Evidence, e)
		if o != nil && len(f.Objects) == 1 {
			f.Objects = append(f.Objects, *o)
		}
		f.Overrun = append(f.Overrun, Overrun{Member: p.typ.Name + "." + a.place.Path, Offset: a.offset, End: room, By: a.function})
	}
	return f, true
}

// beyond describes a use of a member outside of the object, and where it fell.
func (c *Case) beyond(p *promise, obj *heap.SlabObject, a access, room uint64, really string) (Evidence, *Object) {
	at := p.ptr + kernel.Addr(a.offset)
	e := Evidence{
		Text: fmt.Sprintf("%s.%s is at offset %#x, %d bytes past the object's end; %s", p.typ.Name, a.place.Path, a.offset, a.offset-room, a.how),
		Addr: at, Check: fmt.Sprintf("whatis %v", at),
	}
	mem, err := c.heap().Identify(at)
	if err != nil || mem.Slab == nil || mem.Slab.Start == 0 || mem.Slab.Start == obj.Start {
		if err == nil {
			e.Text += "; there is " + mem.Desc
		}
		return e, nil
	}
	next := mem.Slab
	e.Text += fmt.Sprintf("; that is offset %#x of the next object, at %v", next.Offset, next.Start)
	typ := ""
	if next.Cache.Addr == obj.Cache.Addr && really != "" {
		typ = really
		if t := c.ofCache(next.Cache, really); t != nil {
			if place, ok := kernel.PlaceAt(t, next.Offset); ok && place.Path != "" {
				e.Text += fmt.Sprintf(": its %s, if it is %s too", place.Path, article(really))
			}
		}
	}
	return e, &Object{Addr: next.Start, Type: typ, Role: "its neighbour, which was used in its place", Cache: next.Cache.Name, Size: next.Size}
}

// realType finds what an object in a slab really is: a struct of just its size that
// begins like the one it was taken for, and is called like the cache. why says what
// speaks for it; it is "" when nothing does.
func (c *Case) realType(taken *btf.Struct, obj *heap.SlabObject) (name, why string) {
	if s, why := c.structOf(obj.Cache); s != nil && s.Name != taken.Name {
		if mark := c.discriminate(s.Name, obj.Start); mark != "" {
			why += "; " + mark
		}
		return s.Name, why
	}
	types, err := c.Kernel.Types()
	if err != nil {
		return "", ""
	}
	begins := kernel.FirstMembers(taken)
	type candidate struct {
		name   string
		shared string
		words  int
	}
	var all []candidate
	for _, n := range types.StructsOfSize(obj.Size, "") {
		if n == taken.Name {
			continue
		}
		words := sameWords(n, obj.Cache.Name)
		typ, err := types.Named("struct " + n)
		if err != nil {
			continue
		}
		cand := candidate{name: n, words: words}
		for _, first := range kernel.FirstMembers(typ) {
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
		return "", ""
	}
	best := slices.MaxFunc(all, func(a, b candidate) int {
		return cmp.Or(cmp.Compare(a.words, b.words), cmp.Compare(len(b.name), len(a.name)))
	})
	if best.words == 0 && len(all) > 1 {
		return "", ""
	}
	why = fmt.Sprintf("the cache is called %s, and struct %s has just its %d bytes", obj.Cache.Name, best.name, obj.Size)
	if best.shared != "" {
		why += fmt.Sprintf(" and begins with struct %s, as struct %s does", best.shared, taken.Name)
	}
	if mark := c.discriminate(best.name, obj.Start); mark != "" {
		why += "; " + mark
	}
	return best.name, why
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
