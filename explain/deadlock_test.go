package explain

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"inquest/internal/kerneltest"
	"inquest/kernel"
	"inquest/lock"
	"inquest/stack"
)

// TestDeadlockFinding puts circles of each length into words.
func TestDeadlockFinding(t *testing.T) {
	m := kerneltest.Linux(kerneltest.Options{})
	k, err := kernel.Open(m.Dump())
	if err != nil {
		t.Fatal(err)
	}
	c := &Case{Kernel: k}
	waits := func(sure bool, comms ...string) []lock.Wait {
		var all []lock.Wait
		for i, comm := range comms {
			all = append(all, lock.Wait{Task: &kernel.Task{Comm: comm, PID: i + 1}, Lock: kernel.Addr(0x1000 * (i + 1)), Kind: lock.Mutex, In: "mutex_lock", Sure: sure})
		}
		return all
	}
	for _, tt := range []struct {
		circle     []lock.Wait
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
