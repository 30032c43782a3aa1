package stack_test

import (
	"strings"
	"testing"

	"inquest/stack"
)

// TestArguments checks what is known of the example's stack by other means: its story,
// and the registers in the log.
func TestArguments(t *testing.T) {
	k := example(t)
	task, err := k.Crashed()
	if err != nil {
		t.Fatal(err)
	}
	u := stack.NewUnwinder(k)
	trace := u.Task(task)
	u.Arguments(trace)
	const sk, entry, callbackLock = 0xff36ff3c40d87000, 0xff36ff3c40141300, 0x208
	for _, want := range []struct {
		function, param string
		value           uint64
	}{
		{"native_queued_spin_lock_slowpath", "lock", sk + callbackLock + 4},
		{"queued_write_lock_slowpath", "lock", sk + callbackLock},
		{"bpf_sk_reuseport_detach", "sk", sk},
		{"reuseport_detach_sock", "sk", sk},
		{"sk_destruct", "sk", sk},
		{"nf_queue_entry_release_refs", "entry", entry},
		{"nf_reinject", "entry", entry},
		{"__sys_sendmsg", "forbid_cmsg_compat", 1},
	} {
		f, _ := trace.Find(want.function)
		if f == nil {
			t.Fatalf("no frame of %s", want.function)
		}
		a := param(f.Args, want.param)
		if !a.Known || a.Value != want.value {
			t.Errorf("%s: %s is %#x (%s), want %#x", want.function, want.param, a.Value, a.From, want.value)
		}
	}
	for _, want := range []struct {
		function string
		tails    []string // innermost first
		param    string
		value    uint64
	}{
		{"sk_destruct", []string{"__sk_free", "sk_free"}, "sk", sk},
		{"queued_write_lock_slowpath", []string{"_raw_write_lock_bh"}, "lock", sk + callbackLock},
		{"nf_reinject", []string{"nfqnl_reinject"}, "entry", entry},
	} {
		f, _ := trace.Find(want.function)
		var got []string
		for _, tail := range f.Tail {
			got = append(got, tail.Symbol.Name)
			if a := param(tail.Args, want.param); !a.Known || a.Value != want.value {
				t.Errorf("%s: %s is %#x (%s), want %#x", tail.Symbol.Name, want.param, a.Value, a.From, want.value)
			}
		}
		if len(got) != len(want.tails) || got[0] != want.tails[0] || got[len(got)-1] != want.tails[len(want.tails)-1] {
			t.Errorf("%s was reached by %v, want %v", want.function, got, want.tails)
		}
	}
}

func param(args []stack.Arg, name string) stack.Arg {
	for _, a := range args {
		if a.Name == name {
			return a
		}
	}
	return stack.Arg{From: "no such parameter"}
}

// TestArgumentsProvenance reads the provenance of some arguments.
func TestArgumentsProvenance(t *testing.T) {
	k := example(t)
	task, err := k.Crashed()
	if err != nil {
		t.Fatal(err)
	}
	u := stack.NewUnwinder(k)
	trace := u.Task(task)
	u.Arguments(trace)
	for _, want := range []struct{ function, param, from string }{
		{"native_queued_spin_lock_slowpath", "lock", "rbx at native_queued_spin_lock_slowpath+0x1b7"},
		{"bpf_sk_reuseport_detach", "sk", "rbx, saved by queued_write_lock_slowpath at 0xff45f589c018b8d8"},
		{"sk_destruct", "sk", "rbx, saved by reuseport_detach_sock at 0xff45f589c018b908, minus 0x2b8"},
		{"nfqnl_recv_verdict", "info", "address in nfnetlink_rcv_msg's frame"},
		{"netlink_unicast", "skb", "set by netlink_sendmsg from r15, saved by netlink_unicast at 0xff45f589c018bc50"},
		{"__sys_sendmsg", "forbid_cmsg_compat", "constant in __x64_sys_sendmsg"},
		{"netlink_sendmsg", "len", "unknown"},
	} {
		f, _ := trace.Find(want.function)
		if f == nil {
			t.Fatalf("no frame of %s", want.function)
		}
		if a := param(f.Args, want.param); a.From != want.from {
			t.Errorf("%s: %s is from %q, want %q", want.function, want.param, a.From, want.from)
		}
	}
}

// TestArgumentsFromAfar: a value is carried inwards over a function that kept nothing of
// it, from the one that has it still.
func TestArgumentsFromAfar(t *testing.T) {
	k := example(t)
	tasks, err := k.Tasks()
	if err != nil {
		t.Fatal(err)
	}
	u := stack.NewUnwinder(k)
	found := 0
	for _, trace := range u.All(tasks) {
		f, _ := trace.Find("do_epoll_wait")
		if f == nil {
			continue
		}
		found++
		u.Arguments(trace)
		if a := param(f.Args, "epfd"); !a.Known || a.Value != 4 ||
			!strings.HasPrefix(a.From, "set by do_epoll_pwait.part.0, set by __x64_sys_epoll_pwait from rbx, saved by do_epoll_wait") {
			t.Errorf("pid %d: epfd is %d, known %v, %s", trace.Task.PID, a.Value, a.Known, a.From)
		}
	}
	if found == 0 {
		t.Error("no task is in do_epoll_wait")
	}
}

// BenchmarkArguments follows the code of one stack that has not been looked at before.
func BenchmarkArguments(b *testing.B) {
	k := example(b)
	task, err := k.Crashed()
	if err != nil {
		b.Fatal(err)
	}
	trace := stack.NewUnwinder(k).Task(task)
	b.ReportAllocs()
	for b.Loop() {
		stack.NewUnwinder(k).Arguments(trace)
	}
}
