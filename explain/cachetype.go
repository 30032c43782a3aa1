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

// structOf returns the struct that the objects of a slab cache are, if its name and
// its size say so. The objects of kmalloc() and of merged caches may be anything.
func (c *Case) structOf(cache *heap.Cache) (*btf.Struct, string) {
	types, err := c.Kernel.Types()
	if err != nil || cache.Kmalloc() || cache.RefCount > 1 || cache.ObjectSize == 0 {
		return nil, ""
	}
	modules := c.stackModules()
	for _, module := range append([]string{""}, modules...) {
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

// ofCache returns the struct of a name that a cache's objects were found to be.
func (c *Case) ofCache(cache *heap.Cache, name string) btf.Type {
	if s, _ := c.structOf(cache); s != nil && s.Name == name {
		return s
	}
	if o, err := c.Kernel.Object("struct "+name, 0); err == nil {
		return o.Type
	}
	return nil
}

// structNamed returns the struct of a name and a size. Drivers have structs of the
// same name, so that the kernel's may not be the module's.
func structNamed(types *kernel.Types, name, module string, size uint64) *btf.Struct {
	if typ, err := types.Named("struct " + name); err == nil {
		if s, ok := typ.(*btf.Struct); ok && uint64(s.Size) == size {
			return s
		}
	}
	if module == "" {
		return nil
	}
	for typ := range types.All(module) {
		if s, ok := typ.(*btf.Struct); ok && s.Name == name && uint64(s.Size) == size {
			return s
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
