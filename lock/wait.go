package lock

import (
	"fmt"
	"time"

	"inquest/kernel"
	"inquest/stack"
)

// Wait is a task that waits for a lock.
type Wait struct {
	Task *kernel.Task
	Lock kernel.Addr
	Kind Kind
	Mode Mode
	In   string // the function that it called for it; "" when the stack does not tell
	From string // how the lock's address was found
	// Holder is the address of the task_struct of who holds the lock, 0 when nobody is
	// known to.
	Holder kernel.Addr
	// Sure is set where the stack is reliable, or the kernel itself notes the wait.
	Sure bool
	// Spins is set where the task keeps a CPU busy meanwhile.
	Spins bool
	Stack []stack.Frame // the task's
}

// Finder finds what tasks wait for.
type Finder struct {
	k *kernel.Kernel
	u *stack.Unwinder

	now uint64 // what the latest clock of a CPU said, in ns
}

// New returns a finder, which unwinds by u.
func New(k *kernel.Kernel, u *stack.Unwinder) *Finder {
	f := &Finder{k: k, u: u}
	cpus, _ := k.PresentCPUs()
	for _, cpu := range cpus {
		rq, err := k.PerCPUVar("runqueues", "rq", cpu)
		if err != nil {
			break
		}
		// What exec_start was read from; without what interrupts took of the time.
		if clock, err := rq.Uint("clock_task"); err == nil && clock < 1<<62 {
			f.now = max(f.now, clock)
		}
	}
	return f
}

// Wait finds the lock that a task waits for; ok is false where it waits for none.
func (f *Finder) Wait(t *kernel.Task) (w Wait, ok bool) {
	if !t.OnCPU && t.State == "R" {
		return w, false
	}
	return f.wait(t, f.u.Task(t))
}

// wait is Wait of a task that has been unwound.
func (f *Finder) wait(t *kernel.Task, trace *stack.Trace) (w Wait, ok bool) {
	w = Wait{Task: t, Stack: trace.Frames}
	noted := f.noted(t, &w)
	first, is := 0, takes
	if t.OnCPU {
		first, is = spinsAt(trace)
		if first < 0 {
			return w, false
		}
		w.Spins = true
	}
	onStack := f.find(trace, first, is, &w, noted)
	if w.Lock == 0 {
		return w, false
	}
	if !noted && !onStack {
		return w, false
	}
	w.Sure = noted || trace.Reliable
	w.Holder = f.Holder(w.Kind, w.Lock)
	return w, true
}

// spinsAt is the frame in which a running task was, below what stopped its CPU, if that
// is a function that spins for a lock, or waits for the holder of one to give up its CPU.
func spinsAt(trace *stack.Trace) (int, func(string) (Kind, Mode, bool)) {
	for i := range trace.Frames {
		fr := &trace.Frames[i]
		if !fr.Exact {
			continue
		}
		name := base(fr.Symbol.Name)
		if _, _, ok := spins(name); ok {
			return i, spins
		}
		if _, _, ok := takes(name); ok || asleep[name] {
			return i, takes
		}
	}
	return -1, nil
}

// find looks on a stack, from a frame on, for functions that take a lock: behind the
// scheduler's, the innermost and those that called it. It fills in the function, and the
// lock if that is not known yet.
func (f *Finder) find(trace *stack.Trace, first int, is func(string) (Kind, Mode, bool), w *Wait, noted bool) bool {
	last := -1
	for i := first; i < len(trace.Frames); i++ {
		name := trace.Frames[i].Symbol.Name
		if _, _, ok := is(name); ok {
			last = i
		} else if last >= 0 || !asleep[base(name)] {
			break
		}
	}
	if last < 0 {
		return false
	}
	kind, mode, _ := is(trace.Frames[last].Symbol.Name)
	if noted {
		if kind == w.Kind {
			w.In, w.Mode = base(trace.Frames[last].Symbol.Name), mode
		}
		return true
	}
	f.u.Arguments(trace)
	for i := first; i <= last; i++ {
		fr := &trace.Frames[i]
		w.take(is, fr.Symbol.Name, fr.Args)
		for _, tail := range fr.Tail {
			w.take(is, tail.Symbol.Name, tail.Args)
		}
	}
	return true
}

// take notes the lock that a function was called for. The outermost such function has the
// last word: the others are how it is done.
func (w *Wait) take(is func(string) (Kind, Mode, bool), function string, args []stack.Arg) {
	kind, mode, ok := is(function)
	if !ok {
		return
	}
	w.In, w.Mode = base(function), mode
	if a, known := argument(args, kind); known {
		w.Kind, w.Lock, w.From = kind, kernel.Addr(a.Value), a.From
	} else if w.Lock == 0 {
		w.Kind = kind
	}
}

// noted reads what the kernel itself notes of the wait: rt_mutexes always have
// (pi_blocked_on), mutexes with CONFIG_SCHED_PROXY_EXEC or CONFIG_DEBUG_MUTEXES
// (blocked_on), and since 6.15 most with CONFIG_DETECT_HUNG_TASK_BLOCKER (blocker).
func (f *Finder) noted(t *kernel.Task, w *Wait) bool {
	if waiter, err := t.Pointer("pi_blocked_on"); err == nil && waiter != 0 {
		o, err := f.k.Object("rt_mutex_waiter", waiter)
		if err == nil {
			if lock, err := o.Pointer("lock"); err == nil && lock != 0 {
				w.Kind, w.Lock, w.From = RTMutex, lock, "task_struct.pi_blocked_on"
				return true
			}
		}
	}
	if v, err := t.Uint("blocker"); err == nil && v != 0 {
		// BLOCKER_TYPE_* of include/linux/hung_task.h
		kinds := [...]struct {
			kind Kind
			mode Mode
		}{{Mutex, ""}, {Semaphore, ""}, {RWSem, Read}, {RWSem, Write}}
		b := kinds[v&3]
		w.Kind, w.Mode, w.Lock, w.From = b.kind, b.mode, kernel.Addr(v&^3), "task_struct.blocker"
		return true
	}
	on, err := t.Member("blocked_on")
	if err != nil || kernel.TypeName(on.Type) != "struct mutex *" {
		return false
	}
	if lock, err := on.Pointer(""); err == nil && lock != 0 {
		w.Kind, w.Lock, w.From = Mutex, lock, "task_struct.blocked_on"
		return true
	}
	return false
}

// Waiting returns for how long a task has been off its CPU; ok is false for one that is
// running, and where the dump does not tell.
func (f *Finder) Waiting(t *kernel.Task) (d time.Duration, ok bool) {
	if t.OnCPU || f.now == 0 {
		return 0, false
	}
	// The scheduler last accounted for the task when it was switched out.
	at, err := t.Uint("se.exec_start")
	if err != nil || at == 0 || at > f.now {
		return 0, false
	}
	return time.Duration(f.now - at), true
}

// Holder returns the task_struct of who holds a lock, 0 when nobody is known to. The
// low bits of the owner are flags: for a mutex MUTEX_FLAGS, of which MUTEX_FLAG_PICKUP
// says that the one who is to be next has not taken it yet; for an rw_semaphore the first
// says that readers hold it, of whom one is only the last that came.
func (f *Finder) Holder(kind Kind, lock kernel.Addr) kernel.Addr {
	const flags, readers, pickup = 7, 1, 4
	o, err := f.k.Object("struct "+string(kind), lock)
	if err != nil {
		return 0
	}
	switch kind {
	case Mutex, RWSem, RTMutex, Spinlock:
	default:
		return 0
	}
	for _, member := range []string{"owner.counter", "rtmutex.owner", "rwbase.rtmutex.owner", "owner"} { // the second and third with PREEMPT_RT
		v, err := o.Uint(member)
		if err != nil {
			continue
		}
		switch {
		case kind == Spinlock && int64(v) == -1: // SPINLOCK_OWNER_INIT
			return 0
		case member != "owner.counter":
		case kind == RWSem && v&readers != 0, kind == Mutex && v&pickup != 0:
			return 0
		}
		return kernel.Addr(v &^ flags)
	}
	return 0
}

// Name is where a lock is: the name of a variable, or the address alone.
func Name(k *kernel.Kernel, at kernel.Addr) string {
	if sym, off, ok := k.SymbolAt(at); ok && !sym.IsCode() && off < 1<<16 {
		return fmt.Sprintf("%s at %v", k.Name(at), at)
	}
	return fmt.Sprintf("at %v", at)
}
