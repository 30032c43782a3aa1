package explain

import (
	"fmt"
	"regexp"
	"strings"

	"inquest/kernel"
	"inquest/stack"
)

// FreedWrong finds what was given back to the slab allocator though it is not the
// cache's: SLUB warns of it and leaves it (cache_from_obj and virt_to_cache in
// mm/slab.h, later mm/slub.c; free_large_kmalloc since 5.17).
var FreedWrong = &Analyzer{
	Name: "wrong-free",
	Doc:  "an object that was freed to a slab cache it is not from, or memory that is no slab object",
	Run: func(c *Case) []Finding {
		for _, l := range c.reportLines() {
			if m := wrongCache.FindStringSubmatch(l); m != nil {
				return c.freedWrong(l, m[1], m[2])
			}
			if notSlab.MatchString(l) {
				return c.freedWrong(l, "", "")
			}
		}
		return nil
	},
}

var (
	wrongCache = regexp.MustCompile(`^(?:cache_from_obj: )?(?:kmem_cache_free\([^)]*\): )?Wrong slab cache\. (.+) but object is from (.+)$`)
	notSlab    = regexp.MustCompile(`: [Oo]bject (?:0x[0-9a-f]+ |\S+ )?is not (?:a Slab page|in a slab page)!?`)
)

func (c *Case) freedWrong(text, taken, really string) []Finding {
	f := Finding{Class: TypeConfusion, Confidence: Certain, Weight: 4, Evidence: []Evidence{{Text: "the kernel says: " + text, Check: "log"}}}
	caller, _ := c.outside(func(function string) bool { return allocatorNames[function] || plumbing(function) })
	if caller == "" {
		caller = c.culpritName()
	}
	f.culprit = functionOf(caller)
	f.Evidence = append(f.Evidence, Evidence{Text: "it was freed in " + caller, Check: "bt"})
	if really == "" {
		f.Title = "memory that is no slab object was freed as one, in " + f.culprit
	} else {
		f.Title = fmt.Sprintf("an object of slab cache %s was freed as one of %s, in %s", really, taken, f.culprit)
	}
	var seen kernel.Addr
	c.arguments(func(_ int, function string, a stack.Arg) {
		name := base(function)
		if seen != 0 || !a.Known || !strings.Contains(name, "free") || !allocatorNames[name] || a.Name == "s" {
			return
		}
		at := kernel.Addr(a.Value)
		if obj, ok := c.slabObject(at); ok && obj.Cache.Name == really {
			seen = at
			f.Objects = append(f.Objects, c.object(obj, "freed to another cache"))
			f.Evidence = append(f.Evidence, Evidence{
				Text: fmt.Sprintf("%s = %v is object %d of slab cache %s, at %v", a.Name, at, obj.Index, obj.Cache.Name, obj.Start),
				Addr: obj.Start, Check: fmt.Sprintf("whatis %v", at),
			})
		}
	})
	return []Finding{f}
}
