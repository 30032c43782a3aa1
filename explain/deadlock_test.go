package explain

import (
	"testing"

	"github.com/cilium/ebpf/btf"
	"github.com/google/go-cmp/cmp"

	"inquest/internal/kerneltest"
	"inquest/kernel"
	"inquest/stack"
)

// counter is atomic_long_t.
var counter = &btf.Typedef{Name: "atomic_long_t", Type: kerneltest.Struct("", kerneltest.Field{Name: "counter", Type: kerneltest.Long})}

// TestLockOwner reads who holds a lock. The low bits of the owner are flags.
func TestLockOwner(t *testing.T) {
	mutex := kerneltest.Struct("mutex", kerneltest.Field{Name: "owner", Type: counter}, kerneltest.Field{Name: "wait_lock", Type: kerneltest.U32})
	rwsem := kerneltest.Struct("rw_semaphore", kerneltest.Field{Name: "count", Type: counter}, kerneltest.Field{Name: "owner", Type: counter})
	m := kerneltest.Linux(kerneltest.Options{})
	m.Types(mutex, rwsem)
	lock := func(typ *btf.Struct, owner uint64) kernel.Addr {
		at := m.New(typ)
		m.Set(at, typ, "owner.counter", owner)
		return kernel.Addr(at)
	}
	const task = 0xffff888000123400
	tests := []struct {
		name, kind string
		at         kernel.Addr
		want       kernel.Addr
	}{
		{"a mutex", "mutex", lock(mutex, task), task},
		{"a mutex with waiters", "mutex", lock(mutex, task|1), task},
		{"a mutex that somebody is to have next", "mutex", lock(mutex, task|1|2), task},
		{"a mutex handed over", "mutex", lock(mutex, task|1|4), 0},
		{"a mutex that is free", "mutex", lock(mutex, 0), 0},
		{"a semaphore held for writing", "rw_semaphore", lock(rwsem, task), task},
		{"a semaphore held by readers", "rw_semaphore", lock(rwsem, task|1), 0},
		{"memory that is not there", "mutex", 0xffff8880f0000000, 0},
		{"a lock of another kind", "semaphore", lock(mutex, task), 0},
	}
	k, err := kernel.Open(m.Dump())
	if err != nil {
		t.Fatal(err)
	}
	c := &Case{Kernel: k}
	for _, tt := range tests {
		if got := c.lockOwner(tt.kind, tt.at); got != tt.want {
			t.Errorf("%s: held by %v, want %v", tt.name, got, tt.want)
		}
	}
}

// TestLockArg takes the lock from the first argument, if that is one.
func TestLockArg(t *testing.T) {
	pointer := func(name string) btf.Type { return &btf.Pointer{Target: &btf.Struct{Name: name, Size: 32}} }
	for _, tt := range []struct {
		name string
		args []stack.Arg
		want bool
	}{
		{"a mutex", []stack.Arg{{Name: "lock", BTF: pointer("mutex"), Known: true, Value: 1}}, true},
		{"a ww_mutex", []stack.Arg{{Name: "lock", BTF: pointer("ww_mutex"), Known: true, Value: 1}}, true},
		{"its register, of a function that the compiler changed", []stack.Arg{{Name: "rdi", Known: true, Value: 1}}, true},
		{"another register", []stack.Arg{{Name: "rsi", Known: true, Value: 1}}, false},
		{"something else", []stack.Arg{{Name: "sem", BTF: pointer("rw_semaphore"), Known: true, Value: 1}}, false},
		{"one that is not known", []stack.Arg{{Name: "lock", BTF: pointer("mutex")}}, false},
		{"nothing", nil, false},
	} {
		if _, ok := lockArg(tt.args, "mutex"); ok != tt.want {
			t.Errorf("%s: %v, want %v", tt.name, ok, tt.want)
		}
	}
}

// TestDeadlockFinding puts circles of each length into words.
func TestDeadlockFinding(t *testing.T) {
	m := kerneltest.Linux(kerneltest.Options{})
	k, err := kernel.Open(m.Dump())
	if err != nil {
		t.Fatal(err)
	}
	c := &Case{Kernel: k}
	waits := func(sure bool, comms ...string) []wait {
		var all []wait
		for i, comm := range comms {
			all = append(all, wait{task: &kernel.Task{Comm: comm, PID: i + 1}, lock: kernel.Addr(0x1000 * (i + 1)), kind: "mutex", in: "mutex_lock", sure: sure})
		}
		return all
	}
	for _, tt := range []struct {
		circle     []wait
		title      string
		confidence Confidence
	}{
		{waits(true, "a"), "deadlock: a task waits for a mutex that it holds itself", Certain},
		{waits(true, "a", "b"), "deadlock: two tasks each wait for a lock that the other holds", Certain},
		{waits(false, "a", "b", "c"), "deadlock: 3 tasks wait in a circle for locks that the next of them holds", Likely},
	} {
		f := c.deadlockFinding(tt.circle)
		if diff := cmp.Diff(tt.title, f.Title); diff != "" || f.Confidence != tt.confidence || f.Class != Deadlock {
			t.Errorf("%s, %s: %s", f.Class, f.Confidence, diff)
		}
		if len(f.Objects) != len(tt.circle) || len(f.Evidence) != 2*len(tt.circle) {
			t.Errorf("%d objects, %d pieces of evidence", len(f.Objects), len(f.Evidence))
		}
	}
}

// TestStoppedAt finds what a CPU was at when the panic stopped it.
func TestStoppedAt(t *testing.T) {
	frame := func(function string, exact bool) stack.Frame {
		return stack.Frame{Symbol: kernel.Symbol{Name: function}, Exact: exact}
	}
	for _, tt := range []struct {
		name   string
		frames []stack.Frame
		want   int
	}{
		{"its registers were saved right there", []stack.Frame{frame("spin", true), frame("kthread", false)}, 0},
		{"stopped by NMI", []stack.Frame{frame("stop_this_cpu", true), frame("default_do_nmi", false), frame("asm_exc_nmi", false), frame("spin", true)}, 3},
		{"no registers", []stack.Frame{frame("stop_this_cpu", true), frame("spin", false)}, -1},
		{"in user mode", []stack.Frame{frame("stop_this_cpu", true), frame("asm_exc_nmi", false)}, -1},
		{"nothing", nil, -1},
	} {
		if got := stoppedAt(&stack.Trace{Frames: tt.frames}); got != tt.want {
			t.Errorf("%s: frame %d, want %d", tt.name, got, tt.want)
		}
	}
}

// TestTimerLate reads how long a CPU's timer has been due.
func TestTimerLate(t *testing.T) {
	timers := kerneltest.Struct("hrtimer_cpu_base", kerneltest.Field{Name: "cpu", Type: kerneltest.U32}, kerneltest.Field{Name: "expires_next", Type: kerneltest.Long})
	for _, tt := range []struct{ due, now, late uint64 }{
		{1e9, 5e9, 4e9}, {5e9, 1e9, 0}, {0, 5e9, 0}, {1<<63 - 1, 5e9, 0}, {1e9, 1 << 63, 0},
	} {
		m := kerneltest.Linux(kerneltest.Options{})
		m.Types(timers)
		const area, offset = 0xffff888000000000, 0x800 // of CPU 0
		sym := area - m.Offsets[0] + offset
		m.Symbol("hrtimer_bases", 'd', sym)
		m.Set(m.PerCPUVar(sym, 0), timers, "expires_next", tt.due)
		k, err := kernel.Open(m.Dump())
		if err != nil {
			t.Fatal(err)
		}
		c := &Case{Kernel: k}
		if late, due := c.timerLate(0, tt.now); uint64(late) != tt.late || late > 0 && due != tt.due {
			t.Errorf("due at %d, now %d: late by %v", tt.due, tt.now, late)
		}
		if late, _ := c.timerLate(99, 5e9); late != 0 {
			t.Error("a CPU that is not there is late")
		}
	}
}
