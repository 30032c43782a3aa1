package explain

import (
	"fmt"
	"strings"

	"inquest/console"
)

// TextSanitizer explains what the sanitizers found: KASAN, KFENCE, KMSAN, KCSAN, UBSAN.
var TextSanitizer = &TextAnalyzer{
	Name: "sanitizer",
	Doc:  "reports of KASAN, KFENCE, KMSAN, KCSAN and UBSAN",
	Run: func(r *console.Report) (Finding, bool) {
		f := Finding{Confidence: Certain}
		at := function(r)
		switch r.Kind {
		case console.KASAN, console.KFENCE:
			var what string
			f.Class, what = memoryError(r)
			f.Title = what + in(at)
		case console.KMSAN:
			f.Class, f.Title = Bug, "use of memory that was never written to"+in(at)
			if strings.Contains(r.What, "infoleak") {
				f.Title = "memory that was never written to is given away" + in(at)
			}
		case console.KCSAN:
			f.Class, f.Title = Bug, raceTitle(r)
		case console.UBSAN:
			f.Class, f.Title = undefined(r)
			f.Title += in(at)
		default:
			return f, false
		}
		f.Evidence = append(accessEvidence(r), historyEvidence(r)...)
		return f, true
	},
}

// memoryError is the class of what KASAN or KFENCE reports (kasan_report_error() and
// get_bug_type() in mm/kasan, kfence_report_error() in mm/kfence/report.c).
func memoryError(r *console.Report) (Class, string) {
	what := r.What
	has := func(s string) bool { return strings.Contains(what, s) }
	switch {
	case has("double-free"), has("invalid-free"), has("invalid free"):
		return DoubleFree, "double or invalid free"
	case has("use-after-free"), has("use after free"):
		return UseAfterFree, "use-after-free"
	case has("use-after-scope"):
		return UseAfterFree, "use of a variable out of its scope"
	case has("out-of-bounds"), has("out of bounds"), has("memory corruption"):
		return OutOfBounds, "out-of-bounds " + accessVerb(r, "access")
	case has("null-ptr-deref"):
		return NullDereference, "NULL pointer dereference"
	case has("invalid-access") && r.Section(console.Freed) != nil: // tags tell the two only by the record
		return UseAfterFree, "use-after-free"
	case has("invalid-access"):
		return WildPointer, accessVerb(r, "access") + " with a wrong memory tag"
	case has("user-memory-access"):
		return WildPointer, accessVerb(r, "access") + " of user memory by a kernel pointer"
	}
	return WildPointer, accessVerb(r, "access") + " of a wild address"
}

func accessVerb(r *console.Report, otherwise string) string {
	if r.Access != "" {
		return r.Access
	}
	for _, word := range [...]string{"read", "write"} {
		if strings.HasSuffix(r.What, " "+word) {
			return word
		}
	}
	return otherwise
}

// undefined is what UBSAN caught (lib/ubsan.c).
func undefined(r *console.Report) (Class, string) {
	text := r.What
	for _, d := range r.Details {
		text += " " + d
	}
	has := func(s string) bool { return strings.Contains(text, s) }
	switch {
	case has("array-index-out-of-bounds"), has("is out of range for type"):
		return OutOfBounds, "array index out of bounds"
	case has("division by zero"), has("divrem-overflow"):
		return DivideError, "division by zero, or an overflowing quotient,"
	case has("shift"):
		return Bug, "shift by more than the type has bits"
	case has("overflow"):
		return Bug, "integer overflow"
	case has("null pointer"), has("null-ptr"):
		return NullDereference, "NULL pointer dereference"
	case has("misaligned"):
		return Bug, "misaligned access"
	case has("invalid-load"), has("load of value"):
		return Bug, "a value that its type does not have"
	}
	return Bug, "undefined behaviour"
}

// raceTitle names both sides of a data race in the order of their names, so that it does
// not depend on who came first.
func raceTitle(r *console.Report) string {
	var sides []string
	for i := range r.Sections {
		if s := &r.Sections[i]; s.Role == console.Race && len(s.Frames) > 0 && len(sides) < 2 {
			sides = append(sides, culprit(sure(s.Frames, false), nil))
		}
	}
	switch {
	case len(sides) == 0:
		sides = append(sides, r.Function.Name())
		if r.Other != "" {
			sides = append(sides, console.Base(r.Other))
		}
	case len(sides) == 1:
		return "data race in " + sides[0]
	}
	if len(sides) == 2 && sides[0] > sides[1] {
		sides[0], sides[1] = sides[1], sides[0]
	}
	return "data race between " + strings.Join(sides, " and ")
}

func accessEvidence(r *console.Report) []Evidence {
	var out []Evidence
	if r.Size > 0 && r.HasAddress {
		out = append(out, Evidence{Text: fmt.Sprintf("%s of %d bytes at %#x", accessVerb(r, "access"), r.Size, r.Address)})
	}
	if r.Cache != "" && r.ObjectSize > 0 {
		out = append(out, Evidence{Text: fmt.Sprintf("the object is one of %d bytes from the slab cache %s", r.ObjectSize, r.Cache)})
	}
	if r.Where != "" {
		out = append(out, Evidence{Text: r.Where})
	}
	for _, d := range r.Details {
		if len(out) < 6 {
			out = append(out, Evidence{Text: d})
		}
	}
	return out
}

// historyEvidence says who allocated the object and who freed it.
func historyEvidence(r *console.Report) []Evidence {
	var out []Evidence
	for i := range r.Sections {
		s := &r.Sections[i]
		var what string
		switch s.Role {
		case console.Allocated:
			what = "allocated"
		case console.Freed:
			what = "freed"
		case console.Origin:
			what = "created"
		default:
			continue
		}
		if by := culprit(sure(s.Frames, false), nil); by != "" {
			out = append(out, Evidence{Text: fmt.Sprintf("the object was %s in %s", what, by), Line: s.Line})
		}
	}
	return out
}

// TextSlab explains what the allocators found in their own structures (mm/slub.c,
// mm/page_alloc.c).
var TextSlab = &TextAnalyzer{
	Name: "allocator",
	Doc:  "damage that SLUB or the page allocator found, and leaks that kmemleak found",
	Run: func(r *console.Report) (Finding, bool) {
		f := Finding{Confidence: Certain}
		has := func(s string) bool { return strings.Contains(r.What, s) || strings.Contains(r.Message, s) }
		cache := ""
		if r.Cache != "" {
			cache = " of the cache " + r.Cache
		}
		// Who noticed is of no interest; who had the object may be.
		owner := ""
		for _, role := range [...]console.Role{console.Freed, console.Allocated} {
			if s := r.Section(role); s != nil && owner == "" {
				owner = culprit(sure(s.Frames, false), nil)
			}
		}
		if owner == "" {
			owner = function(r)
		}
		switch {
		case r.Kind == console.Leak:
			f.Class, f.Title = Bug, "memory leak"+in(culprit(textFrames(r), func(name string) bool { return strings.Contains(name, "alloc") }))
		case r.Kind == console.BadPage && has("page state"):
			f.Class, f.Title = Bug, "a page was freed that is still in use"+in(function(r))
		case r.Kind == console.BadPage && has("rss-counter"):
			f.Class, f.Title = Bug, "a process ended whose count of pages was wrong"
		case r.Kind == console.BadPage:
			f.Class, f.Title = Bug, "a page table with an impossible entry"+in(function(r))
		case r.Kind != console.Slab:
			return f, false
		case has("already free"), has("double free"):
			f.Class, f.Title = DoubleFree, "double free"+in(function(r))
		case has("are to be freed"): // more than the slab has allocated (free_to_partial_list, since 6.0)
			f.Class, f.Title, f.Confidence = DoubleFree, "free of an object that was free already"+in(function(r)), Likely
		case has("Poison overwritten"), has("Poison check failed"):
			f.Class, f.Title = UseAfterFree, "write to a freed object, last used"+in(owner)
		case has("edzone overwritten"), has("edzone"), has("adding overwritten"), has("padding"):
			f.Class, f.Title = OutOfBounds, "write beyond the end of an object, allocated"+in(owner)
			if s := r.Section(console.Allocated); s != nil {
				f.Title = "write beyond the end of an object, allocated" + in(culprit(sure(s.Frames, false), nil))
			}
		case has("reepointer corrupt"), has("reechain corrupt"), has("Freelist Pointer check fails"):
			f.Class, f.Title, f.Confidence = UseAfterFree, "corrupt free list, found"+in(function(r)), Likely
		case has("Objects remaining"):
			f.Class, f.Title = Bug, "a slab cache was destroyed that still had objects"+in(function(r))
		case has("Invalid object pointer"), has("not a valid"), has("page slab pointer corrupt"), has("Wrong slab"):
			f.Class, f.Title = WildPointer, "free of what is no object"+in(function(r))
		default:
			f.Class, f.Title = Bug, "the slab allocator found damage"+in(function(r))
		}
		if cache != "" {
			f.Evidence = append(f.Evidence, Evidence{Text: "the object is" + cache})
		}
		f.Evidence = append(f.Evidence, historyEvidence(r)...)
		return f, true
	},
}

// TextChecks explains what the checks of lists, counters, copies and stacks found.
var TextChecks = &TextAnalyzer{
	Name: "check",
	Doc:  "list and reference count checks, usercopy, FORTIFY_SOURCE, stack canaries",
	Run: func(r *console.Report) (Finding, bool) {
		f := Finding{Confidence: Certain}
		at := function(r)
		switch r.Kind {
		case console.List:
			f.Class = ListCorruption
			doing := "adding to it"
			if strings.Contains(said(r, "list_"), "list_del") {
				doing = "deleting from it"
			}
			f.Title = "corrupted list, found when " + doing + in(at)
		case console.RefCount:
			f.Class = RefCount
			what := r.What
			if what == "" {
				what = "reference counter misused"
			}
			f.Title = what + in(at)
		case console.UserCopy:
			f.Class, f.Title = OutOfBounds, "copy to or from user space beyond the object"+in(at)
		case console.Fortify:
			f.Class, f.Title = OutOfBounds, "buffer overflow in a string or memory function, called"+in(at)
			if strings.Contains(r.What, "field-spanning") {
				f.Class, f.Title = OutOfBounds, "write across the end of a struct's member"+in(at)
			}
		case console.SKB:
			f.Class, f.Title = OutOfBounds, "packet data beyond the end of its buffer"+in(at)
			if strings.Contains(r.What, "under") {
				f.Title = "packet data in front of its buffer" + in(at)
			}
		case console.StackProtector:
			name := r.Function.Name()
			if name == "" || r.Function.Symbol == "" || strings.HasPrefix(name, "0x") {
				name = at
			}
			f.Class, f.Title = StackOverflow, "stack protector found a smashed stack"+in(name)
		case console.StackEnd:
			f.Class, f.Title = StackOverflow, "kernel stack overflow, found when switching tasks"+in(stackEater(r))
		case console.StackGuard:
			f.Class, f.Title = StackOverflow, "kernel stack overflow"+in(stackEater(r))
		case console.DebugObject:
			f.Class, f.Title = Warning, "an active object was freed or set up anew"+in(at)
			if strings.Contains(r.What, "free active") {
				f.Class, f.Title = UseAfterFree, "an object was freed that is still active"+in(at)
				f.Confidence = Likely
			}
		default:
			return f, false
		}
		f.Evidence = append(f.Evidence, accessEvidence(r)...)
		return f, true
	},
}

// said returns what a report says with a prefix, its opening line where nothing does.
func said(r *console.Report, prefix string) string {
	for _, a := range r.Also {
		if strings.HasPrefix(a.Text, prefix) {
			return a.Text
		}
	}
	return r.Message
}

// stackEater is the function that a stack overflow is most likely due to: of a recursion
// its first member by name, else the innermost of the stack's own functions.
func stackEater(r *console.Report) string {
	frames := textFrames(r)
	count := map[string]int{}
	best := ""
	for i := range frames {
		name := frames[i].Name()
		if name == "" || reporting(name) || serving(name) || textBoundary(name) {
			continue
		}
		count[name]++
		if n := count[name]; n >= 3 && (best == "" || n > count[best] || n == count[best] && name < best) {
			best = name
		}
	}
	if best == "" {
		return outermost(frames)
	}
	return best
}

// outermost is the last function of a stack in front of a door into the kernel: of a
// stack that is too deep, the only one that does not depend on how deep it was just then.
func outermost(frames []console.Frame) string {
	last := ""
	for i := range frames {
		name := frames[i].Name()
		switch {
		case name == "" || reporting(name) || serving(name):
		case systemCall(name):
			return name
		case textBoundary(name):
			if last != "" {
				return last
			}
		default:
			last = name
		}
	}
	return last
}
