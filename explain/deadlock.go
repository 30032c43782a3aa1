package explain

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"inquest/kernel"
	"inquest/lock"
)

// Deadlocked finds tasks that wait for each other: each for a lock that the next one
// holds. Mutexes and rw_semaphores that are held for writing say who holds them.
var Deadlocked = &Analyzer{
	Name: "deadlock",
	Doc:  "tasks that wait in a circle for locks that the others hold",
	Run:  runDeadlocked,
}

// Bounds of the search.
const (
	maxBlocked = 1024 // tasks whose stacks are looked at
	maxCircle  = 64   // tasks that wait for each other
)

func runDeadlocked(c *Case) []Finding {
	seen := map[kernel.Addr]bool{}
	for _, t := range c.blockedTasks() {
		if circle := c.circle(t, seen); circle != nil {
			return []Finding{c.deadlockFinding(circle)}
		}
	}
	return nil
}

// blockedTasks are those that may be part of a deadlock: where the machine died because
// of hung tasks, or was stopped from outside, those that the log calls hung. Where nothing
// says that it crashed, all tasks are asked that wait and take no signals.
func (c *Case) blockedTasks() []*kernel.Task {
	var tasks []*kernel.Task
	if c.Crash == nil {
		all, _ := c.Kernel.Tasks()
		for _, t := range all {
			if t.State == "D" && len(tasks) < maxBlocked {
				tasks = append(tasks, t)
			}
		}
		return tasks
	}
	if e := c.Crash.Event; (e == nil || e.Kind != KindHungTask) && !c.stoppedFromOutside() {
		return nil
	}
	hung := map[int]bool{}
	for _, e := range c.Events {
		if e.Kind == KindHungTask && len(hung) < maxBlocked {
			hung[e.PID] = true
		}
	}
	if len(hung) == 0 {
		return nil
	}
	all, _ := c.Kernel.Tasks()
	for _, t := range all {
		if hung[t.PID] && !t.Idle {
			tasks = append(tasks, t)
		}
	}
	return tasks
}

// circle follows a task to the owner of the lock that it waits for, and so on, until a
// task comes again. seen are the tasks that were followed before, without one.
func (c *Case) circle(t *kernel.Task, seen map[kernel.Addr]bool) []lock.Wait {
	var chain []lock.Wait
	for range maxCircle {
		for i := range chain {
			if chain[i].Task.Addr == t.Addr {
				return chain[i:]
			}
		}
		if seen[t.Addr] {
			return nil
		}
		seen[t.Addr] = true
		w, ok := c.locks().Wait(t)
		if !ok || w.Holder == 0 {
			return nil
		}
		chain = append(chain, w)
		// Part of a task may be missing from the dump.
		next, _ := c.Kernel.TaskAt(w.Holder)
		if next == nil {
			return nil
		}
		t = next
	}
	return nil
}

func (c *Case) deadlockFinding(circle []lock.Wait) Finding {
	f := Finding{Class: Deadlock, Confidence: Certain, Weight: 3}
	var names []string
	for _, w := range circle {
		names = append(names, fmt.Sprintf("%s (pid %d)", w.Task.Comm, w.Task.PID))
		if !w.Sure {
			f.Confidence = Likely
		}
	}
	n := len(circle)
	switch n {
	case 1:
		f.Title = fmt.Sprintf("deadlock: a task waits for a %s that it holds itself", circle[0].Kind)
	case 2:
		f.Title = "deadlock: two tasks each wait for a lock that the other holds"
	default:
		f.Title = fmt.Sprintf("deadlock: %d tasks wait in a circle for locks that the next of them holds", n)
	}
	if by := c.lockers(&f, circle); by != "" {
		f.Title += ", in " + by
	}
	for i, w := range circle {
		what := fmt.Sprintf("struct %s %s", string(w.Kind), lock.Name(c.Kernel, w.Lock))
		f.Objects = append(f.Objects, Object{Addr: w.Lock, Type: string(w.Kind), Role: fmt.Sprintf("%s waits for it", names[i])})
		f.Evidence = append(f.Evidence,
			Evidence{
				Text: fmt.Sprintf("%s waits in %s for %s (%s)", names[i], w.In, what, w.From), Addr: w.Lock, Check: fmt.Sprintf("bt %d --args", w.Task.PID),
			},
			Evidence{
				Text: fmt.Sprintf("its owner is the task_struct at %v: %s", w.Holder, names[(i+1)%n]), Addr: w.Lock,
				Check: fmt.Sprintf("struct %s.owner %v", string(w.Kind), w.Lock),
			})
	}
	f.Advice = append(f.Advice, "All tasks must take these locks in the same order. A kernel with CONFIG_PROVE_LOCKING reports the wrong order "+
		"before anything hangs.")
	return f
}

// lockers names the functions that asked for the locks of a circle, in an order that does
// not depend on where the search began, and notes the first one's stack.
func (c *Case) lockers(f *Finding, circle []lock.Wait) string {
	functions := map[string]lock.Wait{}
	for _, w := range circle {
		if b := BlameFor(c.places(w.Stack)); b.Function != "" {
			functions[b.Function] = w
		}
	}
	names := slices.Sorted(maps.Keys(functions))
	if len(names) > 0 {
		w := functions[names[0]]
		f.stack = w.Stack
		f.Trace = c.Unwinder.Task(w.Task)
		c.Unwinder.Arguments(f.Trace)
	}
	return strings.Join(names, ", ")
}

// heldBy says of a task that waits for a lock who holds that, and where that one is.
func (c *Case) heldBy(t *kernel.Task) []Evidence {
	w, ok := c.locks().Wait(t)
	if !ok {
		return nil
	}
	e := Evidence{
		Text: fmt.Sprintf("it called %s for struct %s %s (%s)", w.In, string(w.Kind), lock.Name(c.Kernel, w.Lock), w.From),
		Addr: w.Lock, Check: fmt.Sprintf("bt %d --args", t.PID),
	}
	owner, _ := c.Kernel.TaskAt(w.Holder)
	if w.Holder == 0 || owner == nil {
		return []Evidence{e}
	}
	held := Evidence{
		Text: fmt.Sprintf("%s (pid %d) holds that", owner.Comm, owner.PID), Addr: w.Holder, Check: fmt.Sprintf("bt %d", owner.PID),
	}
	for _, fr := range c.Unwinder.Task(owner).Frames {
		if name := fr.Symbol.Name; name != "" && !scheduling[base(name)] && !dying(name) {
			held.Text += " and is in " + fr.Name()
			break
		}
	}
	return []Evidence{e, held}
}
