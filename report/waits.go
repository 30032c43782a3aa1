package report

import (
	"fmt"
	"strings"

	"inquest/kernel"
	"inquest/lock"
)

// waits is who waits for which lock, in words.
type waits struct {
	locks []heldLock
	tasks []string // the names of all that wait or hold, in the order of the picture
}

// heldLock is a lock that somebody waits for.
type heldLock struct {
	name    string // "mutex mutex_a [m]"
	holder  string // "" when not known
	state   string
	waiters []waiter
	circle  bool // it is part of a deadlock
}

type waiter struct{ task, how string }

// newWaits takes over a graph; nil stays nil.
func newWaits(k *kernel.Kernel, g *lock.Graph, f *lock.Finder) *waits {
	if g == nil {
		return nil
	}
	inCircle := map[kernel.Addr]bool{}
	for _, c := range g.Circles {
		for _, w := range c {
			inCircle[w.Lock] = true
		}
	}
	v := &waits{}
	seen := map[string]bool{}
	name := func(t *kernel.Task) string {
		n := clean(fmt.Sprintf("%s (pid %d)", t.Comm, t.PID))
		if !seen[n] {
			seen[n] = true
			v.tasks = append(v.tasks, n)
		}
		return n
	}
	for _, l := range g.Locks {
		h := heldLock{name: clean(l.Kind.String() + " " + lock.Name(k, l.Addr)), state: clean(l.State), circle: inCircle[l.Addr]}
		if l.Holder != nil {
			h.holder = name(l.Holder)
		}
		for _, w := range l.Waits {
			h.waiters = append(h.waiters, waiter{name(w.Task), clean(howLong(f, w))})
		}
		v.locks = append(v.locks, h)
	}
	return v
}

// howLong says how a task waits.
func howLong(f *lock.Finder, w lock.Wait) string {
	var parts []string
	if w.Spins {
		parts = append(parts, fmt.Sprintf("spins on CPU %d", w.Task.CPU))
	} else if d, ok := f.Waiting(w.Task); ok {
		parts = append(parts, fmt.Sprintf("for %.1f s", d.Seconds()))
	}
	if w.Mode != "" {
		parts = append(parts, "to "+string(w.Mode))
	}
	if w.In != "" {
		parts = append(parts, "in "+w.In)
	}
	return strings.Join(parts, ", ")
}

// text is one item a lock, and one for each that waits for it.
func (v *waits) text(most int) []string {
	var lines []string
	for i, l := range v.locks {
		if i == most {
			lines = append(lines, fmt.Sprintf("(%d more locks: inquest locks DUMP)", len(v.locks)-i))
			break
		}
		head := l.name
		switch {
		case l.holder != "":
			head += ", held by " + l.holder
		case l.state != "":
			head += ": " + l.state
		default:
			head += ", whose holder is not known"
		}
		if l.circle {
			head += ", in a deadlock"
		}
		lines = append(lines, head)
		for j, w := range l.waiters {
			if j == most {
				lines = append(lines, fmt.Sprintf("    <- %d more", len(l.waiters)-j))
				break
			}
			lines = append(lines, strings.TrimRight("    <- "+w.task+"  "+w.how, " "))
		}
	}
	return lines
}

// waitPicture is the graph as a drawing: tasks on the left, locks on the right.
type waitPicture struct {
	Width, Height int
	Desc          string
	Boxes         []rect
	Lines         []waitLine
	More          string // what did not fit
}

// waitLine leads from a task to the lock that it waits for, or from a lock to its holder.
type waitLine struct {
	Class          string // "waits" or "holds"
	X1, Y1, X2, Y2 int
	Head           string // points of the polygon
}

// Places of the picture, in its own units.
const (
	waitWidth    = 480
	waitBoxWidth = 170
	waitBoxStep  = 44
	waitBoxTall  = 30
	waitMost     = 12 // boxes on either side
	waitLabel    = 22 // characters in a box
)

// picture works out where everything goes.
func (v *waits) picture() *waitPicture {
	p := &waitPicture{Width: waitWidth, Desc: strings.Join(v.text(waitMost), "; ")}
	box := func(class, label string, x, i int) {
		y := top + i*waitBoxStep
		p.Boxes = append(p.Boxes, rect{Class: class, X: x, Y: y, W: waitBoxWidth, H: waitBoxTall,
			Lines: []svgLine{{x + 8, y + 19, "name", shorten(label, waitLabel)}}})
	}
	row := map[string]int{}
	for i, t := range v.tasks {
		if i < waitMost {
			row[t] = i
			box("object", t, leftX, i)
		}
	}
	right := waitWidth - waitBoxWidth - leftX
	line := func(class string, fromTask bool, task string, lockRow, shift int) {
		i, shown := row[task]
		if !shown {
			return
		}
		l := waitLine{Class: class, X1: leftX + waitBoxWidth, Y1: top + i*waitBoxStep + waitBoxTall/2 + shift, X2: right, Y2: top + lockRow*waitBoxStep + waitBoxTall/2 + shift}
		if fromTask {
			l.Head = fmt.Sprintf("%d,%d %d,%d %d,%d", l.X2, l.Y2, l.X2-9, l.Y2-4, l.X2-9, l.Y2+4)
		} else {
			l.Head = fmt.Sprintf("%d,%d %d,%d %d,%d", l.X1, l.Y1, l.X1+9, l.Y1-4, l.X1+9, l.Y1+4)
		}
		p.Lines = append(p.Lines, l)
	}
	for i, l := range v.locks {
		if i == waitMost {
			break
		}
		class := "taken"
		if l.circle {
			class = "neighbour"
		}
		label, _, _ := strings.Cut(l.name, " at 0x")
		box(class, label, right, i)
		if l.holder != "" {
			line("holds", false, l.holder, i, 6)
		}
		for _, w := range l.waiters {
			line("waits", true, w.task, i, -6)
		}
	}
	if more := max(len(v.tasks)-waitMost, 0) + max(len(v.locks)-waitMost, 0); more > 0 {
		p.More = fmt.Sprintf("%d more tasks and locks: inquest locks DUMP", more)
	}
	p.Height = top + min(max(len(v.tasks), len(v.locks)), waitMost)*waitBoxStep
	return p
}
