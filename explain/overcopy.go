package explain

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"inquest/kernel"
	"inquest/stack"
)

// Overcopy reports copies that the kernel refused because they would have left the
// object that they began in: by hardened usercopy (mm/usercopy.c), and by fortified
// string functions (lib/string_helpers.c).
var Overcopy = &Analyzer{
	Name: "overcopy",
	Doc:  "copies that hardened usercopy or a fortified string function stopped: the object, its size, what was asked for",
	Run: func(c *Case) []Finding {
		if rec, text := c.lastLine("usercopy: Kernel memory ", "usercopy: kernel memory "); rec >= 0 && c.during(rec) {
			return c.usercopy(text)
		}
		for _, l := range c.reportLines() {
			if m := fortified.FindStringSubmatch(l); m != nil {
				return c.fortify(l, m)
			}
		}
		return nil
	},
}

// refused is what usercopy_abort prints, since 4.16.
var refused = regexp.MustCompile(`^usercopy: [Kk]ernel memory (exposure|overwrite) attempt detected (?:from|to) (.*?)(?: '(.*)')? \(offset (\d+), size (\d+)\)!`)

// fortified are the reports of fortify_report (since 6.9), fortify_panic and of memcpy
// between members of a struct (since 6.1).
var fortified = regexp.MustCompile(`^(?:detected buffer overflow in (\w+)|(\w+): detected buffer overflow: (\d+) byte (read|write) of buffer size (\d+)|` +
	`(\w+): detected field-spanning write \(size (\d+)\) of single field "(.*)" at .* \(size (\d+)\))`)

// usercopy explains a copy to or from user space.
func (c *Case) usercopy(text string) []Finding {
	m := refused.FindStringSubmatch(text)
	if m == nil {
		return nil
	}
	what, cache := m[2], m[3]
	offset, _ := strconv.ParseUint(m[4], 10, 64)
	size, _ := strconv.ParseUint(m[5], 10, 64)
	way, end := "copy to user space", "from"
	if m[1] == "overwrite" {
		way, end = "copy from user space", "to"
	}
	f := Finding{Class: OutOfBounds, Confidence: Certain, Weight: 4, via: m[1] + what}
	f.Evidence = []Evidence{{Text: "the kernel says: " + text, Check: "log"}}
	place := "beyond the end of " + what
	switch what {
	case "null address", "wrapped address", "kernel text", "linear kernel text":
		f.Class, place = WildPointer, what
	case "process stack":
		place = "outside of the frames of the stack"
	case "SLUB object", "SLAB object":
		place = "outside of an object of slab cache " + cache
		c.copied(&f, offset, size)
	}
	in := c.copier(&f)
	f.Title = fmt.Sprintf("%s %s %s, in %s", way, end, place, in)
	return []Finding{f}
}

// copied adds the object, and which part of it may be copied.
func (c *Case) copied(f *Finding, offset, size uint64) {
	var at kernel.Addr
	c.arguments(func(_ int, function string, a stack.Arg) {
		if base(function) == "__check_object_size" && a.Name == "ptr" && a.Known && at == 0 {
			at = kernel.Addr(a.Value)
		}
	})
	if at == 0 {
		return
	}
	obj, ok := c.slabObject(at)
	if !ok {
		return
	}
	f.Objects = append(f.Objects, c.object(obj, "copied from or to"))
	f.Evidence = append(f.Evidence, Evidence{
		Text: fmt.Sprintf("%v is %d bytes into object %d of slab cache %s, which has %d: bytes %d to %d were asked for",
			at, obj.Offset, obj.Index, obj.Cache.Name, obj.Size, offset, offset+size),
		Addr: obj.Start, Check: fmt.Sprintf("whatis %v", at),
	})
	from, long := obj.Cache.UserOffset, obj.Cache.UserSize
	text := fmt.Sprintf("of its objects, bytes %d to %d may be copied", from, from+long)
	if long == 0 {
		text = "of its objects, nothing may be copied: kmem_cache_create_usercopy() was not told of anything"
	}
	f.Evidence = append(f.Evidence, Evidence{Text: text, Addr: obj.Cache.Addr, Check: "slab " + obj.Cache.Name})
}

// copier is who asked for the copy.
func (c *Case) copier(f *Finding) string {
	caller, _ := c.outside(plumbing)
	if caller == "" {
		caller = c.culpritName()
	}
	f.culprit = functionOf(caller)
	f.Evidence = append(f.Evidence, Evidence{Text: "it was asked for in " + caller, Check: "bt"})
	return f.culprit
}

// fortify explains a report of a fortified function.
func (c *Case) fortify(text string, m []string) []Finding {
	f := Finding{Class: OutOfBounds, Confidence: Certain, Weight: 4}
	f.Evidence = []Evidence{{Text: "the kernel says: " + text, Check: "log"}}
	in := c.copier(&f)
	switch {
	case m[2] != "":
		f.Title = fmt.Sprintf("%s of %s bytes by %s in a buffer of %s, in %s", m[4], m[3], m[2], m[5], in)
	case m[6] != "":
		f.Title = fmt.Sprintf("write of %s bytes by %s to member %s of %s, in %s", m[7], m[6], m[8], m[9], in)
	default:
		f.Title = fmt.Sprintf("%s beyond the end of a buffer, in %s", m[1], in)
	}
	return []Finding{f}
}

// reportLines are the lines of the log about the report that led to the crash.
func (c *Case) reportLines() []string {
	if c.Crash == nil || c.Crash.Event == nil {
		return nil
	}
	const before = 12
	at := c.Crash.Event.Record
	var lines []string
	for i := max(0, at-before); i <= at && i < len(c.Log); i++ {
		for line := range strings.Lines(c.Log[i].Text) {
			lines = append(lines, strings.TrimSpace(line))
		}
	}
	return lines
}
