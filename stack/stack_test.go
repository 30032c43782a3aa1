package stack_test

import (
	"slices"
	"strings"
	"testing"

	"inquest/kernel"
	"inquest/stack"
	"inquest/vmcore"
)

func example(t testing.TB) *kernel.Kernel {
	t.Helper()
	d, err := vmcore.Open("../testdata/example.kdump")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	k, err := kernel.Open(d)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// TestExample compares the crashed task's stack with what the kernel printed of it
// when it died (its own unwinder, other code), and asks that every task's be reliable.
func TestExample(t *testing.T) {
	k := example(t)
	task, err := k.Crashed()
	if err != nil {
		t.Fatal(err)
	}
	trace := stack.NewUnwinder(k).Task(task)
	var got []string
	for _, f := range trace.Frames {
		got = append(got, f.Symbol.Name)
	}
	log := kernelTrace(t, k)
	i := slices.Index(got, "queued_write_lock_slowpath")
	if i < 0 || !slices.Equal(got[i:], log[slices.Index(log, "queued_write_lock_slowpath"):]) {
		t.Errorf("unwound %v\nthe kernel printed %v", got, log)
	}
	fault := trace.Frames[i-1]
	if fault.RegsAt == 0 || !fault.Exact || fault.Symbol.Name != "native_queued_spin_lock_slowpath" {
		t.Errorf("the frame below is no exception: %+v", fault)
	}
	if trace.User == nil {
		t.Error("the stack of a system call does not end in user mode")
	}
	tasks, err := k.Tasks()
	if err != nil {
		t.Fatal(err)
	}
	for _, tr := range stack.NewUnwinder(k).All(tasks) {
		if !tr.Reliable || len(tr.Frames) < 3 {
			t.Errorf("pid %d (%s): %d frames, %s", tr.Task.PID, tr.Task.Comm, len(tr.Frames), tr.Problem)
		}
	}
}

// kernelTrace takes the sure frames of the last call trace in the log.
func kernelTrace(t *testing.T, k *kernel.Kernel) []string {
	t.Helper()
	var names []string
	inside := false
	for rec, err := range k.Log() {
		if err != nil {
			t.Fatal(err)
		}
		line := strings.TrimSpace(rec.Text)
		switch {
		case line == "Call Trace:":
			names, inside = nil, true
		case strings.HasPrefix(line, "</TASK>"), strings.HasPrefix(line, "RIP: "):
			inside = false
		case inside && strings.Contains(line, "+0x") && !strings.HasPrefix(line, "? "):
			name, _, _ := strings.Cut(line, "+")
			names = append(names, name)
		}
	}
	if len(names) == 0 {
		t.Fatal("no call trace in the log")
	}
	return names
}

func BenchmarkAll(b *testing.B) {
	k := example(b)
	tasks, err := k.Tasks()
	if err != nil {
		b.Fatal(err)
	}
	u := stack.NewUnwinder(k)
	for b.Loop() {
		u.All(tasks)
	}
	b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N*len(tasks)), "µs/task")
}
