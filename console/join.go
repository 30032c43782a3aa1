package console

import (
	"bytes"
	"strings"
)

// joins reports whether an opening line belongs to a report that is open.
func (r *Report) joins(o *opening, text string, l *Line) bool {
	close := l.Number-r.Opening.Number < sameIncident
	switch {
	case o.kind == Panic:
		return true
	case o.kind == StackProtector || o.kind == StackEnd:
		return false
	case r.Kind == Panic || r.Panic != "":
		return false
	case r.Ended:
		return false
	case o.weak:
		return close
	case r.Kind == Leak && o.kind == Leak:
		return strings.HasPrefix(r.Message, "BUG: memory leak") && !r.HasAddress
	case !close:
		return false
	case r.stacked: // what explains a report stands in front of its stack
		return false
	case o.kind == r.Kind:
		return o.kind.trap() || o.kind == MachineCheck || o.kind == Slab || o.kind == DebugObject || o.kind == UserCopy || o.kind == StackGuard
	case o.kind.trap():
		// "kernel BUG at", then the trap; a page fault, then "Internal error: Oops".
		return r.Kind.trap() || r.Kind.note() || r.Kind == BUG || r.Kind == StackGuard || r.Kind == SysRq
	case o.kind.note():
		return r.Kind == Warning || r.Kind == BUG
	case o.kind == BUG, o.kind == Warning:
		return r.Kind.note() || r.Kind.trap() && o.kind == BUG && r.Kind == Trap
	}
	return false
}

// join takes a further opening line.
func (r *Report) join(o *opening, text string, l Line) {
	r.add(l)
	r.last = l.Number
	if o.kind == Panic {
		if r.Panic == "" {
			r.Panic = strings.TrimPrefix(strings.TrimPrefix(text, "Kernel panic - not syncing"), ": ")
		}
		return
	}
	r.Also = append(r.Also, Also{o.kind, text})
	if o.weak {
		return
	}
	switch {
	case r.Kind == Trap && o.kind.trap(), r.Kind == Warning && o.kind.note(), r.Kind == BUG && o.kind.note(), r.Kind == Trap && o.kind == BUG:
		if r.Kind == Trap && o.kind == Trap {
			break
		}
		r.Kind = o.kind
		if o.kind.note() || r.What == "" {
			r.What = ""
		}
		r.take(o.re, text)
		return
	}
	what := r.What
	r.take(o.re, text)
	if what != "" {
		r.What = what
	}
}

// belongs is a cheap test for lines that look like a part of a report.
func belongs(t []byte) bool {
	if bytes.Contains(t, []byte("+0x")) {
		return true
	}
	for _, s := range bodyStarts[t[0]] {
		if bytes.HasPrefix(t, []byte(s)) {
			return true
		}
	}
	return false
}

// stackLine reports whether a line is a part of a stack.
func stackLine(t []byte) bool {
	if bytes.HasPrefix(t, []byte("Call T")) || bytes.HasPrefix(t, []byte("Call t")) {
		return true
	}
	if !bytes.Contains(t, []byte("+0x")) {
		return false
	}
	_, ok := ParseFrame(string(t))
	return ok
}

var bodyStarts = func() (index [256][]string) {
	for _, s := range []string{"Call ", "CPU: ", "RIP: ", "RSP: ", "RAX: ", "R10: ", "CR2: ", "Code: ", "Modules linked", "Hardware name", "Workqueue: ",
		"Backtrace", "pc : ", "lr : ", "sp : ", "x29: ", "[<", "---[", "NMI backtrace", "task:", "Allocated", "Freed", "The buggy", "Oops", "Internal error"} {
		index[s[0]] = append(index[s[0]], s)
	}
	return index
}()
