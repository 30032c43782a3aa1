package explain

import (
	"fmt"
	"slices"
	"strings"

	"github.com/cilium/ebpf/btf"

	"inquest/heap"
	"inquest/kernel"
)

// cacheNoise are words of a cache's name that say nothing of its objects.
var cacheNoise = set("cache", "cachep", "struct", "slab", "pool", "objects")

// words splits a name as C programmers make names.
func words(name string) []string {
	return strings.FieldsFunc(strings.ToLower(name), func(r rune) bool {
		return r == '_' || r == '-' || r == ' ' || r == '.'
	})
}

// namedAfter reports whether a slab cache is called after a struct: all the struct's
// words are in its name, and what else is there is the name of a module, or noise.
func namedAfter(cache, typ string, modules []string) bool {
	of := words(typ)
	if len(of) == 0 {
		return false
	}
	in := words(cache)
	for _, w := range of {
		i := slices.Index(in, w)
		if i < 0 {
			return false
		}
		in = slices.Delete(in, i, i+1)
	}
	for _, w := range in {
		known := cacheNoise[w]
		for _, m := range modules {
			known = known || slices.Contains(words(m), w)
		}
		if !known {
			return false
		}
	}
	return true
}

// structType is a struct, and the module whose BTF has it; "" for the kernel's.
type structType struct {
	*btf.Struct
	module string
}

// structOf returns the struct that the objects of a slab cache are, nil if its name and
// its size do not say so. The objects of kmalloc() and of merged caches may be anything.
func (c *Case) structOf(cache *heap.Cache) (typ *structType, why string) {
	types, err := c.Kernel.Types()
	if err != nil || cache.Kmalloc() || cache.RefCount > 1 || cache.ObjectSize == 0 {
		return nil, ""
	}
	modules := c.stackModules()
	for _, module := range c.ownersOf(cache, modules) {
		for _, name := range types.StructsOfSize(cache.ObjectSize, module) {
			if !namedAfter(cache.Name, name, modules) {
				continue
			}
			if s := structNamed(types, name, module, cache.ObjectSize); s != nil {
				return s, fmt.Sprintf("the cache is called %s, and struct %s has just its %d bytes", cache.Name, name, s.Size)
			}
		}
	}
	return nil, ""
}

// ownersOf puts those in order whose structs the objects of a cache may be: first the
// modules that the cache is called after, or whose code constructs its objects, then the
// kernel (""), then other modules.
func (c *Case) ownersOf(cache *heap.Cache, modules []string) []string {
	ctor := c.Kernel.ModuleAt(cache.Ctor)
	in := words(cache.Name)
	var first, last []string
	for _, m := range modules {
		if ctor != nil && ctor.Name == m || slices.ContainsFunc(words(m), func(w string) bool { return slices.Contains(in, w) }) {
			first = append(first, m)
		} else {
			last = append(last, m)
		}
	}
	return append(append(first, ""), last...)
}

// structFor is a struct that the code of a module uses.
func (c *Case) structFor(s *btf.Struct, module string) *structType {
	types, err := c.Kernel.Types()
	if err != nil || module == "" {
		return &structType{s, ""}
	}
	if typ, home, err := types.Find("struct "+s.Name, module); err == nil && typ == btf.Type(s) {
		return &structType{s, home}
	}
	for typ := range types.All(module) { // one of several of the name
		if typ == btf.Type(s) {
			return &structType{s, module}
		}
	}
	return &structType{s, ""}
}

// check is the command that shows the struct, as an object where an address is given.
func (t *structType) check(at kernel.Addr) string {
	s := "struct " + t.Name
	if t.module != "" {
		s += " --module " + t.module
	}
	if at != 0 {
		s += fmt.Sprintf(" %v", at)
	}
	return s
}

// object describes an object in a slab cache.
func (c *Case) object(o *heap.SlabObject, role string) Object {
	out := Object{Addr: o.Start, Role: role, Cache: o.Cache.Name, Size: o.Size, State: o.State.String(), Index: &o.Index}
	if typ, _ := c.structOf(o.Cache); typ != nil {
		out.Type, out.Module = typ.Name, typ.module
	}
	return out
}

// structNamed returns the struct of a name and a size, as a module's code means it, nil
// when there is none. A driver may have several of one name.
func structNamed(types *kernel.Types, name, module string, size uint64) *structType {
	if typ, home, err := types.Find("struct "+name, module); err == nil {
		if s, ok := typ.(*btf.Struct); ok && uint64(s.Size) == size {
			return &structType{s, home}
		}
	}
	if module == "" {
		return nil
	}
	for typ := range types.All(module) {
		if s, ok := typ.(*btf.Struct); ok && s.Name == name && uint64(s.Size) == size {
			return &structType{s, module}
		}
	}
	return nil
}

// homeOf returns the slab cache that is called after a struct and has objects of its
// size, nil when there is none.
func (c *Case) homeOf(typ *btf.Struct) *heap.Cache {
	caches, _ := c.heap().Caches()
	modules := c.stackModules()
	for _, cache := range caches {
		if cache.ObjectSize == uint64(typ.Size) && !cache.Kmalloc() && namedAfter(cache.Name, typ.Name, modules) {
			return cache
		}
	}
	return nil
}

// stackModules are the modules that have code on the crashed stack.
func (c *Case) stackModules() []string {
	var names []string
	if c.Crash == nil || c.Crash.Trace == nil {
		return nil
	}
	for _, f := range c.Crash.Trace.Frames {
		if m := f.Symbol.Module; m != "" && !slices.Contains(names, m) {
			names = append(names, m)
		}
	}
	return names
}

// slabObject returns the object of a slab cache that an address lies in.
func (c *Case) slabObject(at kernel.Addr) (*heap.SlabObject, bool) {
	mem, err := c.heap().Identify(at)
	if err != nil || mem.Slab == nil || mem.Slab.Start == 0 || mem.Slab.Offset >= mem.Slab.Size {
		return nil, false
	}
	return mem.Slab, true
}

// history says who allocated an object, and who freed it before, where the kernel
// keeps that (slub_debug=U).
func (c *Case) history(o *heap.SlabObject) []Evidence {
	var all []Evidence
	for _, t := range []struct {
		what  string
		track *heap.Track
	}{{"allocated", o.Alloc}, {"freed", o.FreeTrack}} {
		if t.track == nil || t.track.Caller == 0 {
			continue
		}
		all = append(all, Evidence{
			Text:  fmt.Sprintf("it was last %s by %s, by pid %d on CPU %d", t.what, c.Kernel.Name(c.trackCaller(t.track)), t.track.PID, t.track.CPU),
			Addr:  o.Start,
			Check: fmt.Sprintf("whatis %v", o.Start),
		})
	}
	return all
}

// trackCaller is the innermost function of a track that is not the allocator's own.
func (c *Case) trackCaller(t *heap.Track) kernel.Addr {
	for _, pc := range t.Stack {
		if !allocatorNames[base(functionOf(c.Kernel.Name(pc)))] {
			return pc
		}
	}
	return t.Caller
}
