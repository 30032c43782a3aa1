package lock

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	"inquest/kernel"
)

// Graph is who waits for whom.
type Graph struct {
	Locks   []*Lock  // most waiters first
	Circles [][]Wait // each waits for a lock that the next one holds, the last for one of the first

	waits map[kernel.Addr]Wait // by the waiting task
}

// Lock is a lock that somebody waits for.
type Lock struct {
	Kind   Kind
	Addr   kernel.Addr
	Holder *kernel.Task // nil when nobody is known to hold it
	State  string       // what the lock itself says: "3 readers", "CPU 2 is the last in the queue"
	Waits  []Wait       // longest first, as far as that is known
}

// Bounds: of the waiters of one lock, and of the tasks whose arguments are recovered.
const (
	maxWaiters   = 1 << 20
	maxRecovered = 4096
	maxChain     = 1 << 16
)

// Graph finds what tasks wait for. What could be found comes with the error.
func (f *Finder) Graph(tasks []*kernel.Task) (*Graph, error) {
	g := &Graph{waits: map[kernel.Addr]Wait{}}
	byAddr := map[kernel.Addr]*kernel.Task{}
	for _, t := range tasks {
		byAddr[t.Addr] = t
	}
	locks := map[kernel.Addr]*Lock{}
	var errs []error
	recovered := 0
	for _, t := range tasks {
		if _, known := g.waits[t.Addr]; known || t.Idle && !t.OnCPU || !t.OnCPU && t.State == "R" || t.State == "Z" || t.State == "X" {
			continue
		}
		if recovered == maxRecovered {
			errs = append(errs, fmt.Errorf("more than %d tasks wait for something: the others were not looked at", maxRecovered))
			break
		}
		w, ok := f.wait(t, f.u.Task(t))
		if !ok {
			continue
		}
		recovered++
		g.waits[t.Addr] = w
		l := locks[w.Lock]
		if l == nil {
			l = &Lock{Kind: w.Kind, Addr: w.Lock, State: f.state(w.Kind, w.Lock)}
			locks[w.Lock] = l
			g.Locks = append(g.Locks, l)
			if w.Holder != 0 {
				// Part of a task may be missing from the dump.
				if l.Holder = byAddr[w.Holder]; l.Holder == nil {
					l.Holder, _ = f.k.TaskAt(w.Holder)
				}
			}
			// All others that wait for it need not be looked at.
			if err := f.queue(w, func(task kernel.Addr, mode Mode) {
				other := byAddr[task]
				if _, known := g.waits[task]; known || other == nil || other.OnCPU {
					return
				}
				o := w
				o.Task, o.Mode, o.In, o.From, o.Sure, o.Spins, o.Stack = other, cmp.Or(mode, w.Mode), "", "the lock's list of waiters", true, false, nil
				g.waits[task] = o
				l.Waits = append(l.Waits, o)
			}); err != nil {
				errs = append(errs, fmt.Errorf("waiters of the %v %v: %w", w.Kind, w.Lock, err))
			}
		}
		l.Waits = append(l.Waits, w)
	}
	for _, l := range g.Locks {
		slices.SortStableFunc(l.Waits, func(a, b Wait) int {
			x, _ := f.Waiting(a.Task)
			y, _ := f.Waiting(b.Task)
			return cmp.Compare(y, x)
		})
	}
	slices.SortStableFunc(g.Locks, func(a, b *Lock) int { return cmp.Compare(len(b.Waits), len(a.Waits)) })
	g.findCircles()
	return g, errors.Join(errs...)
}

// WaitOf returns what a task waits for.
func (g *Graph) WaitOf(task kernel.Addr) (Wait, bool) {
	w, ok := g.waits[task]
	return w, ok
}

// findCircles follows every waiter to the holder of its lock, and so on.
func (g *Graph) findCircles() {
	done := map[kernel.Addr]bool{}
	for _, l := range g.Locks {
		for _, w := range l.Waits {
			var chain []Wait
			at := map[kernel.Addr]int{}
			for ok := true; ok && !done[w.Task.Addr] && len(chain) < maxChain; {
				at[w.Task.Addr] = len(chain)
				chain = append(chain, w)
				done[w.Task.Addr] = true
				if i, seen := at[w.Holder]; seen {
					g.Circles = append(g.Circles, chain[i:])
					break
				}
				w, ok = g.waits[w.Holder]
			}
		}
	}
}

// queue visits the waiters in a lock's own list.
func (f *Finder) queue(w Wait, visit func(task kernel.Addr, mode Mode)) error {
	waiter := map[Kind]string{Mutex: "mutex_waiter", RWSem: "rwsem_waiter", Semaphore: "semaphore_waiter"}[w.Kind]
	if waiter == "" {
		return nil
	}
	lock, err := f.k.Object("struct "+string(w.Kind), w.Lock)
	if err != nil {
		return err
	}
	one := func(node kernel.Addr) error {
		o, err := f.k.ContainerOf(node, waiter, "list")
		if err != nil {
			return err
		}
		task, err := o.Pointer("task")
		if err != nil {
			return err
		}
		mode := Mode("")
		if typ, err := o.Uint("type"); err == nil && w.Kind == RWSem { // enum rwsem_waiter_type
			if mode = Read; typ == 0 {
				mode = Write
			}
		}
		visit(task, mode)
		return nil
	}
	n := 0
	walk := func(head kernel.Addr) error {
		for node, err := range f.k.List(head) {
			if err != nil {
				return err
			}
			if n++; n > maxWaiters {
				return fmt.Errorf("more than %d: %w", maxWaiters, kernel.ErrCorrupt)
			}
			if err := one(node); err != nil {
				return err
			}
		}
		return nil
	}
	if lock.Has("wait_list") {
		head, err := lock.AddrOf("wait_list")
		if err != nil {
			return err
		}
		return walk(head)
	}
	// Since 7.0 the lock points to the first waiter, and only waiters are in the ring.
	first, err := lock.Pointer("first_waiter")
	if err != nil || first == 0 {
		return err
	}
	off, err := f.k.OffsetOf(waiter, "list")
	if err != nil {
		return err
	}
	if err := one(first + kernel.Addr(off)); err != nil {
		return err
	}
	return walk(first + kernel.Addr(off))
}

// state says what a lock's own counters do.
func (f *Finder) state(kind Kind, lock kernel.Addr) string {
	o, err := f.k.Object("struct "+string(kind), lock)
	if err != nil {
		return ""
	}
	word := func(paths ...string) (uint64, bool) {
		for _, p := range paths {
			if v, err := o.Uint(p); err == nil {
				return v, true
			}
		}
		return 0, false
	}
	var list []string
	add := func(format string, args ...any) { list = append(list, fmt.Sprintf(format, args...)) }
	switch kind {
	case Mutex:
		if v, ok := word("owner.counter"); ok && v&^7 == 0 {
			add("free")
		} else if ok && v&4 != 0 {
			add("handed over, not taken yet")
		}
	case RWSem:
		// RWSEM_* of kernel/locking/rwsem.c
		v, ok := word("count.counter")
		if !ok {
			break
		}
		if v&1 != 0 {
			add("held for writing")
		}
		if n := v >> 8 & (1<<55 - 1); n > 0 {
			add("%d readers", n)
			if last, ok := word("owner.counter"); ok && last&1 != 0 && last&^7 != 0 {
				if t, _ := f.k.TaskAt(kernel.Addr(last &^ 7)); t != nil {
					add("the last that came was %s (pid %d)", t.Comm, t.PID)
				}
			}
		}
		if v&1 == 0 && v>>8 == 0 {
			add("free")
		}
	case Semaphore:
		if v, ok := word("count"); ok {
			add("count %d", v)
		}
		if last, ok := word("last_holder"); ok && last != 0 { // since 6.16
			if t, _ := f.k.TaskAt(kernel.Addr(last)); t != nil {
				add("last taken by %s (pid %d)", t.Comm, t.PID)
			}
		}
	case Completion:
		if v, ok := word("done"); ok {
			add("done %d", v)
		}
	case Spinlock:
		// include/asm-generic/qspinlock_types.h, for less than 16384 CPUs
		v, ok := word("raw_lock.val.counter")
		if !ok {
			break
		}
		if v&0xff != 0 {
			add("held")
		} else {
			add("free")
		}
		if v>>8&1 != 0 {
			add("one CPU spins for it")
		}
		if tail := v >> 18; tail != 0 {
			add("CPU %d is the last in its queue", tail-1)
		}
	case RWLock:
		v, ok := word("cnts.counter", "raw_lock.cnts.counter")
		if !ok {
			break
		}
		if v&0xff == 0xff {
			add("held for writing")
		}
		if n := v >> 9; n > 0 {
			add("%d readers", n)
		}
	}
	return strings.Join(list, ", ")
}
