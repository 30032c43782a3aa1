package explain

import (
	"strings"

	"inquest/console"
)

// TextLocks explains what lockdep and the locks themselves found.
var TextLocks = &TextAnalyzer{
	Name: "locks",
	Doc:  "possible deadlocks that lockdep found, and locks that were misused",
	Run: func(r *console.Report) (Finding, bool) {
		f := Finding{Confidence: Certain}
		at := function(r)
		if who := lockedIn(r); who != "" {
			at = who
		} else if who := heldIn(r); who != "" {
			at = who
		}
		switch r.Kind {
		case console.Lockdep:
			f.Class, f.Title, f.Confidence = Deadlock, "possible deadlock"+in(at), Likely
		case console.LockUse:
			f.Class, f.Title = Warning, r.What+in(at)
			if strings.HasPrefix(strings.TrimPrefix(r.Message, "[ "), "BUG") {
				f.Class = Bug
			}
			switch {
			case strings.Contains(r.What, "recursion"), strings.Contains(r.What, "lockup"):
				f.Class, f.Title = Deadlock, "deadlock on a spinlock"+in(at)
			case r.What == "":
				f.Title = "lock misused" + in(at)
			}
		case console.RCUUsage:
			f.Class, f.Title = Warning, "RCU-protected data used without protection"+in(at)
		default:
			return f, false
		}
		f.Evidence = append(f.Evidence, accessEvidence(r)...)
		if at != "" && f.Blame == nil {
			frames := textFrames(r)
			if i := find(frames, at); i > 0 {
				f.Blame = blameFrames(r, frames[i:])
			} else if i < 0 {
				b := BlameFor([]Place{{Function: at}})
				f.Blame = &b
			}
		}
		return f, true
	},
}

// lockedIn is where lockdep saw the lock taken that would close the cycle: "is trying to
// acquire lock:", then the lock with "at: FUNCTION".
func lockedIn(r *console.Report) string {
	for i, l := range r.Lines {
		if !taking(l.Text) {
			continue
		}
		for _, next := range r.Lines[i:min(i+4, len(r.Lines))] {
			text := next.Text
			if at := strings.LastIndex(text, "at: "); at >= 0 {
				text = text[at+4:]
			}
			fr, ok := console.ParseFrame(text)
			if !ok || fr.Symbol == "" {
				continue
			}
			name := fr.Name()
			if !plumbing(name) && !textPlumbing(name) && !reporting(name) {
				return name
			}
			// The lock function's caller is on the stack.
			if frames := textFrames(r); find(frames, name) >= 0 {
				return culprit(frames[find(frames, name):], nil)
			}
			return name
		}
	}
	return ""
}

// taking reports whether a line of lockdep's says that the lock in the next is the one in
// question.
func taking(line string) bool {
	for _, s := range [...]string{"is trying to acquire", "is trying to lock", "is trying to release lock", "just changed the state of lock", "takes:", "is freeing memory"} {
		if strings.Contains(line, s) {
			return true
		}
	}
	return false
}

// heldIn is where a lock was taken that should be free by now, or the work that left it
// held: "#0: …, at: FUNCTION", "last function: FUNCTION".
func heldIn(r *console.Report) string {
	if !strings.Contains(r.What, "held") && !strings.Contains(r.What, "leaked") || strings.Contains(r.What, "freed") {
		return ""
	}
	for _, mark := range [...]string{"last function: ", "at: "} {
		for _, d := range r.Details {
			i := strings.LastIndex(d, mark)
			if i < 0 {
				continue
			}
			name := strings.TrimSpace(d[i+len(mark):])
			if fr, ok := console.ParseFrame(name); ok {
				name = fr.Name()
			}
			return console.Base(name)
		}
	}
	return ""
}
