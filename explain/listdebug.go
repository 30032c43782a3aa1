package explain

import (
	"fmt"
	"strings"
)

// ListDebug reports what the kernel's own list checks found (lib/list_debug.c).
var ListDebug = &Analyzer{
	Name: "list-debug",
	Doc:  "list_add and list_del on a list whose neighbours do not agree",
	Run: func(c *Case) []Finding {
		rec, text := c.lastLine("list_add corruption", "list_add double add", "list_del corruption")
		if rec < 0 || !c.during(rec) {
			return nil
		}
		frame, caller := c.firstOutside("__list_add_valid", "__list_del_entry_valid", "__list_add_valid_or_report", "__list_del_entry_valid_or_report")
		if frame == "" {
			return nil
		}
		doing := "adding to it"
		if strings.Contains(text, "list_del") {
			doing = "deleting from it"
		}
		return []Finding{{
			Class:      ListCorruption,
			Title:      fmt.Sprintf("corrupted list, found when %s in %s", doing, functionOf(caller)),
			Confidence: Certain,
			Weight:     2,
			culprit:    functionOf(caller),
			Evidence: []Evidence{
				{Text: "the kernel's list check says: " + text, Check: "log"},
				{Text: fmt.Sprintf("%s was called from %s", functionOf(frame), caller), Check: "bt"},
			},
		}}
	},
}

// lastLine returns the last log line that begins with one of the prefixes, and its
// record's number, -1 when there is none.
func (c *Case) lastLine(prefixes ...string) (record int, line string) {
	for i := len(c.Log) - 1; i >= 0; i-- {
		for _, p := range prefixes {
			if strings.HasPrefix(c.Log[i].Text, p) {
				line, _, _ = strings.Cut(c.Log[i].Text, "\n")
				return i, line
			}
		}
	}
	return -1, ""
}

// during reports whether a log record belongs to the crash: it is not older than a
// few lines before the report that led to it.
func (c *Case) during(record int) bool {
	if c.Crash == nil || c.Crash.Event == nil {
		return false
	}
	const before, after = 12, 120
	return record >= c.Crash.Event.Record-before && record <= c.Crash.Event.Record+after
}

// firstOutside returns the innermost frame from the trap outwards, and the first
// one beyond the named functions. Both are "" when the trap was not in one of them.
func (c *Case) firstOutside(functions ...string) (frame, caller string) {
	inside := set(functions...)
	caller, last := c.outside(func(function string) bool { return inside[function] })
	if caller == "" {
		return "", ""
	}
	return c.Crash.Trace.Frames[last].Name(), caller
}

// outside returns the first function from the trap outwards that is not inside, and the
// number of the last frame that is. It may have left the stack by a tail call to one that
// is. It is "" when the trap was not inside, or all is.
func (c *Case) outside(inside func(function string) bool) (caller string, last int) {
	cr := c.Crash
	if cr == nil || cr.Trace == nil {
		return "", 0
	}
	c.arguments(nil)
	for i := cr.Culprit; i < len(cr.Trace.Frames); i++ {
		f := &cr.Trace.Frames[i]
		if !inside(base(f.Symbol.Name)) {
			if i == cr.Culprit {
				return "", 0
			}
			return f.Name(), i - 1
		}
		for _, t := range f.Tail {
			if !t.OneOf && !inside(base(t.Symbol.Name)) {
				return c.Kernel.Name(t.Symbol.Addr), i
			}
		}
	}
	return "", 0
}
