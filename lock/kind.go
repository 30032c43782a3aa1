package lock

import (
	"strings"

	"github.com/cilium/ebpf/btf"

	"inquest/kernel"
	"inquest/stack"
)

// Kind is what a lock is; the name is that of its struct.
type Kind string

// The kinds.
const (
	Mutex       Kind = "mutex"
	RWSem       Kind = "rw_semaphore"
	RTMutex     Kind = "rt_mutex_base"
	Semaphore   Kind = "semaphore"
	Completion  Kind = "completion"
	PerCPURWSem Kind = "percpu_rw_semaphore"
	Spinlock    Kind = "raw_spinlock"
	RWLock      Kind = "qrwlock"
)

// String names the kind as people do.
func (k Kind) String() string {
	switch k {
	case RTMutex:
		return "rt_mutex"
	case Spinlock:
		return "spinlock"
	case RWLock:
		return "rwlock"
	}
	return string(k)
}

// Mode is how a waiter wants a lock that has more than one way to be held.
type Mode string

// The modes, "" for locks with only one.
const (
	Read  Mode = "read"
	Write Mode = "write"
)

// taking are the functions in which a task waits for a lock, by what their names begin
// with; those that end in a $ have no other ending (kernel/locking, kernel/sched/completion.c).
var taking = []struct {
	function string
	kind     Kind
	mode     Mode
}{
	{"mutex_lock", Mutex, ""}, {"__mutex_lock", Mutex, ""}, {"ww_mutex_lock", Mutex, ""}, {"__ww_mutex_lock", Mutex, ""},
	{"percpu_down_write", PerCPURWSem, Write}, {"__percpu_down_read", PerCPURWSem, Read},
	{"down_write", RWSem, Write}, {"__down_write", RWSem, Write}, {"rwsem_down_write", RWSem, Write},
	{"down_read", RWSem, Read}, {"__down_read", RWSem, Read}, {"rwsem_down_read", RWSem, Read},
	{"rt_mutex_lock", RTMutex, ""}, {"__rt_mutex_lock", RTMutex, ""}, {"rt_mutex_slowlock", RTMutex, ""}, {"__rt_mutex_slowlock", RTMutex, ""},
	{"rt_spin_lock", RTMutex, ""}, {"rtlock_slowlock", RTMutex, ""},
	{"down$", Semaphore, ""}, {"down_interruptible", Semaphore, ""}, {"down_killable", Semaphore, ""}, {"down_timeout", Semaphore, ""},
	{"__down$", Semaphore, ""}, {"__down_common", Semaphore, ""}, {"__down_interruptible", Semaphore, ""}, {"__down_killable", Semaphore, ""},
	{"__down_timeout", Semaphore, ""}, {"___down_common", Semaphore, ""},
	{"wait_for_completion", Completion, ""}, {"__wait_for_common", Completion, ""}, {"wait_for_common", Completion, ""},
	{"do_wait_for_common", Completion, ""},
}

// spinning are the functions in which a CPU spins for a lock (kernel/locking/qspinlock.c,
// qrwlock.c, spinlock.c).
var spinning = []struct {
	function string
	kind     Kind
	mode     Mode
}{
	{"native_queued_spin_lock_slowpath", Spinlock, ""}, {"queued_spin_lock_slowpath", Spinlock, ""}, {"__pv_queued_spin_lock_slowpath", Spinlock, ""},
	{"_raw_spin_lock", Spinlock, ""}, {"do_raw_spin_lock", Spinlock, ""},
	{"queued_read_lock_slowpath", RWLock, Read}, {"_raw_read_lock", RWLock, Read}, {"do_raw_read_lock", RWLock, Read},
	{"queued_write_lock_slowpath", RWLock, Write}, {"_raw_write_lock", RWLock, Write}, {"do_raw_write_lock", RWLock, Write},
}

// asleep are the functions in which every sleeping task is, or one that spins for as long
// as the holder of a sleeping lock runs.
var asleep = set("__schedule", "schedule", "schedule_timeout", "schedule_preempt_disabled", "io_schedule", "io_schedule_timeout",
	"schedule_hrtimeout_range", "schedule_hrtimeout_range_clock", "schedule_hrtimeout", "context_switch", "__switch_to_asm",
	"schedule_rtlock", "rt_mutex_schedule", "preempt_schedule_common", "__cond_resched",
	"mutex_spin_on_owner", "mutex_optimistic_spin", "rwsem_spin_on_owner", "rwsem_optimistic_spin", "osq_lock", "rtmutex_spin_on_owner")

func set(names ...string) map[string]bool {
	m := make(map[string]bool, len(names))
	for _, n := range names {
		m[n] = true
	}
	return m
}

// base strips what the compiler appends to a function's name.
func base(name string) string {
	name, _, _ = strings.Cut(name, ".")
	return name
}

// Sleeping reports whether every task that sleeps may be in a function: those of the
// scheduler, and those that wait for a lock.
func Sleeping(function string) bool {
	_, _, taking := takes(function)
	return taking || asleep[base(function)]
}

// takes says what lock a function waits for.
func takes(function string) (Kind, Mode, bool) {
	name := base(function)
	for _, t := range taking {
		if whole, only := strings.CutSuffix(t.function, "$"); name == whole || !only && strings.HasPrefix(name, t.function) {
			return t.kind, t.mode, true
		}
	}
	return "", "", false
}

// spins says what lock a function spins for.
func spins(function string) (Kind, Mode, bool) {
	name := base(function)
	for _, t := range spinning {
		if strings.HasPrefix(name, t.function) {
			return t.kind, t.mode, true
		}
	}
	return "", "", false
}

// also are the structs that a function may say instead of a kind's own: those that begin
// with one.
var also = map[Kind][]string{
	Mutex:    {"ww_mutex"},
	RTMutex:  {"rt_mutex", "spinlock"},
	Spinlock: {"spinlock", "qspinlock"},
	RWLock:   {"rwlock_t", "rwlock"},
}

// argument is the argument that is the lock: the first, also of a function whose prototype
// the compiler changed.
func argument(args []stack.Arg, kind Kind) (stack.Arg, bool) {
	if len(args) == 0 || !args[0].Known || args[0].Value == 0 {
		return stack.Arg{}, false
	}
	a := args[0]
	if a.BTF == nil {
		return a, a.Name == "rdi"
	}
	p, ok := btf.UnderlyingType(a.BTF).(*btf.Pointer)
	if !ok {
		return a, false
	}
	target := btf.UnderlyingType(p.Target)
	s, ok := target.(*btf.Struct)
	if !ok {
		return a, false
	}
	if s.Name == "" { // typedef struct { … } rwlock_t
		return a, strings.Contains(kernel.TypeName(p.Target), "lock")
	}
	if s.Name == string(kind) {
		return a, true
	}
	for _, name := range also[kind] {
		if s.Name == name {
			return a, true
		}
	}
	return a, false
}
