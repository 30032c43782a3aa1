package explain

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/cilium/ebpf/btf"

	"inquest/kernel"
	"inquest/stack"
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

// wait is a task that waits for a lock.
type wait struct {
	task  *kernel.Task
	lock  kernel.Addr
	kind  string // the lock's struct
	in    string // the function that it called for it
	from  string // how the lock's address was found
	owner kernel.Addr
	sure  bool // the task's stack is reliable
	stack []stack.Frame
}

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
func (c *Case) circle(t *kernel.Task, seen map[kernel.Addr]bool) []wait {
	var chain []wait
	for range maxCircle {
		for i := range chain {
			if chain[i].task.Addr == t.Addr {
				return chain[i:]
			}
		}
		if seen[t.Addr] {
			return nil
		}
		seen[t.Addr] = true
		w, ok := c.waitsFor(t)
		if !ok || w.owner == 0 {
			return nil
		}
		chain = append(chain, w)
		// Part of a task may be missing from the dump.
		next, _ := c.Kernel.TaskAt(w.owner)
		if next == nil {
			return nil
		}
		t = next
	}
	return nil
}

// locking are the functions in which a task waits for a lock, by what their names begin
// with (kernel/locking/mutex.c, rwsem.c).
var locking = []struct{ function, lock string }{
	{"mutex_lock", "mutex"}, {"__mutex_lock", "mutex"}, {"ww_mutex_lock", "mutex"}, {"__ww_mutex_lock", "mutex"},
	{"down_write", "rw_semaphore"}, {"down_read", "rw_semaphore"}, {"__down_write", "rw_semaphore"}, {"__down_read", "rw_semaphore"},
	{"rwsem_down_write", "rw_semaphore"}, {"rwsem_down_read", "rw_semaphore"},
}

// waitsFor finds the lock that a task sleeps for: the functions in which it sleeps are
// the scheduler's, and then those that take a lock.
func (c *Case) waitsFor(t *kernel.Task) (w wait, ok bool) {
	if t.OnCPU || t.State == "R" {
		return w, false
	}
	trace := c.Unwinder.Task(t)
	c.Unwinder.Arguments(trace)
	w.task, w.sure, w.stack = t, trace.Reliable, trace.Frames
	try := func(function string, args []stack.Arg) bool {
		for _, l := range locking {
			if !strings.HasPrefix(function, l.function) {
				continue
			}
			w.kind, w.in = l.lock, base(function)
			if a, known := lockArg(args, l.lock); known {
				w.lock, w.from = kernel.Addr(a.Value), a.From
			}
			return true
		}
		return false
	}
	for i := range trace.Frames {
		f := &trace.Frames[i]
		taking := try(f.Symbol.Name, f.Args)
		for _, tail := range f.Tail {
			taking = try(tail.Symbol.Name, tail.Args) || taking
		}
		if !taking && (w.in != "" || !scheduling[base(f.Symbol.Name)]) {
			break
		}
	}
	if w.lock == 0 {
		return w, false
	}
	w.owner = c.lockOwner(w.kind, w.lock)
	return w, true
}

// lockArg is the argument that is the lock: the first, also of a function whose prototype
// the compiler changed.
func lockArg(args []stack.Arg, lock string) (stack.Arg, bool) {
	if len(args) == 0 || !args[0].Known {
		return stack.Arg{}, false
	}
	a := args[0]
	if a.BTF == nil {
		return a, a.Name == "rdi"
	}
	target, ok := pointee(a.BTF)
	s, isStruct := target.(*btf.Struct)
	return a, ok && isStruct && (s.Name == lock || lock == "mutex" && s.Name == "ww_mutex")
}

// lockOwner returns the task_struct of who holds a lock, 0 when nobody is known to. The
// low bits of the owner are flags: for a mutex MUTEX_FLAGS, of which MUTEX_FLAG_PICKUP
// says that the one who is to be next has not taken it yet; for an rw_semaphore the first
// says that readers hold it, of whom one is only the last that came.
func (c *Case) lockOwner(kind string, lock kernel.Addr) kernel.Addr {
	const flags, readers, pickup = 7, 1, 4
	o, err := c.Kernel.Object("struct "+kind, lock)
	if err != nil {
		return 0
	}
	for _, member := range []string{"owner.counter", "rtmutex.owner", "rwbase.rtmutex.owner", "owner"} { // the second and third with PREEMPT_RT
		v, err := o.Uint(member)
		if err != nil {
			continue
		}
		switch {
		case member != "owner.counter":
		case kind == "rw_semaphore" && v&readers != 0, kind == "mutex" && v&pickup != 0:
			return 0
		}
		return kernel.Addr(v &^ flags)
	}
	return 0
}

func (c *Case) deadlockFinding(circle []wait) Finding {
	f := Finding{Class: Deadlock, Confidence: Certain, Weight: 3}
	var names []string
	for _, w := range circle {
		names = append(names, fmt.Sprintf("%s (pid %d)", w.task.Comm, w.task.PID))
		if !w.sure {
			f.Confidence = Likely
		}
	}
	n := len(circle)
	switch n {
	case 1:
		f.Title = fmt.Sprintf("deadlock: a task waits for a %s that it holds itself", circle[0].kind)
	case 2:
		f.Title = "deadlock: two tasks each wait for a lock that the other holds"
	default:
		f.Title = fmt.Sprintf("deadlock: %d tasks wait in a circle for locks that the next of them holds", n)
	}
	if by := c.lockers(&f, circle); by != "" {
		f.Title += ", in " + by
	}
	for i, w := range circle {
		what := fmt.Sprintf("struct %s %s", w.kind, c.lockName(w.lock))
		f.Objects = append(f.Objects, Object{Addr: w.lock, Type: w.kind, Role: fmt.Sprintf("%s waits for it", names[i])})
		f.Evidence = append(f.Evidence,
			Evidence{
				Text: fmt.Sprintf("%s waits in %s for %s (%s)", names[i], w.in, what, w.from), Addr: w.lock, Check: fmt.Sprintf("bt %d --args", w.task.PID),
			},
			Evidence{
				Text: fmt.Sprintf("its owner is the task_struct at %v: %s", w.owner, names[(i+1)%n]), Addr: w.lock,
				Check: fmt.Sprintf("struct %s.owner %v", w.kind, w.lock),
			})
	}
	f.Advice = append(f.Advice, "All tasks must take these locks in the same order. A kernel with CONFIG_PROVE_LOCKING reports the wrong order "+
		"before anything hangs.")
	return f
}

// lockers names the functions that asked for the locks of a circle, in an order that does
// not depend on where the search began, and notes the first one's stack.
func (c *Case) lockers(f *Finding, circle []wait) string {
	functions := map[string][]stack.Frame{}
	for _, w := range circle {
		if b := BlameFor(c.places(w.stack)); b.Function != "" {
			functions[b.Function] = w.stack
		}
	}
	names := slices.Sorted(maps.Keys(functions))
	if len(names) > 0 {
		f.stack = functions[names[0]]
	}
	return strings.Join(names, ", ")
}

// heldBy says of a task that waits for a lock who holds that, and where that one is.
func (c *Case) heldBy(t *kernel.Task) []Evidence {
	w, ok := c.waitsFor(t)
	if !ok {
		return nil
	}
	e := Evidence{
		Text: fmt.Sprintf("it called %s for struct %s %s (%s)", w.in, w.kind, c.lockName(w.lock), w.from),
		Addr: w.lock, Check: fmt.Sprintf("bt %d --args", t.PID),
	}
	owner, _ := c.Kernel.TaskAt(w.owner)
	if w.owner == 0 || owner == nil {
		return []Evidence{e}
	}
	held := Evidence{
		Text: fmt.Sprintf("%s (pid %d) holds that", owner.Comm, owner.PID), Addr: w.owner, Check: fmt.Sprintf("bt %d", owner.PID),
	}
	for _, fr := range c.Unwinder.Task(owner).Frames {
		if name := fr.Symbol.Name; name != "" && !scheduling[base(name)] && !dying(name) {
			held.Text += " and is in " + fr.Name()
			break
		}
	}
	return []Evidence{e, held}
}

// lockName is where a lock is: a variable's name, or the address.
func (c *Case) lockName(at kernel.Addr) string {
	if sym, off, ok := c.Kernel.SymbolAt(at); ok && !sym.IsCode() && off < 1<<16 {
		return fmt.Sprintf("%s at %v", c.Kernel.Name(at), at)
	}
	return fmt.Sprintf("at %v", at)
}
