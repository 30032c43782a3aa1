package lock

import (
	"errors"
	"testing"

	"github.com/cilium/ebpf/btf"
	"github.com/google/go-cmp/cmp"

	"inquest/internal/kerneltest"
	"inquest/kernel"
	"inquest/stack"
)

// counter is atomic_long_t.
var counter = &btf.Typedef{Name: "atomic_long_t", Type: kerneltest.Struct("", kerneltest.Field{Name: "counter", Type: kerneltest.Long})}

// TestHolder reads who holds a lock. The low bits of the owner are flags.
func TestHolder(t *testing.T) {
	mutex := kerneltest.Struct("mutex", kerneltest.Field{Name: "owner", Type: counter}, kerneltest.Field{Name: "wait_lock", Type: kerneltest.U32})
	rwsem := kerneltest.Struct("rw_semaphore", kerneltest.Field{Name: "count", Type: counter}, kerneltest.Field{Name: "owner", Type: counter})
	m := kerneltest.Linux(kerneltest.Options{})
	m.Types(mutex, rwsem)
	held := func(typ *btf.Struct, owner uint64) kernel.Addr {
		at := m.New(typ)
		m.Set(at, typ, "owner.counter", owner)
		return kernel.Addr(at)
	}
	const task = 0xffff888000123400
	tests := []struct {
		name string
		kind Kind
		at   kernel.Addr
		want kernel.Addr
	}{
		{"a mutex", "mutex", held(mutex, task), task},
		{"a mutex with waiters", "mutex", held(mutex, task|1), task},
		{"a mutex that somebody is to have next", "mutex", held(mutex, task|1|2), task},
		{"a mutex handed over", "mutex", held(mutex, task|1|4), 0},
		{"a mutex that is free", "mutex", held(mutex, 0), 0},
		{"a semaphore held for writing", "rw_semaphore", held(rwsem, task), task},
		{"a semaphore held by readers", "rw_semaphore", held(rwsem, task|1), 0},
		{"memory that is not there", "mutex", 0xffff8880f0000000, 0},
		{"a lock of another kind", "semaphore", held(mutex, task), 0},
	}
	k, err := kernel.Open(m.Dump())
	if err != nil {
		t.Fatal(err)
	}
	f := New(k, nil)
	for _, tt := range tests {
		if got := f.Holder(tt.kind, tt.at); got != tt.want {
			t.Errorf("%s: held by %v, want %v", tt.name, got, tt.want)
		}
	}
}

// TestArgument takes the lock from the first argument, if that is one.
func TestArgument(t *testing.T) {
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
		if _, ok := argument(tt.args, Mutex); ok != tt.want {
			t.Errorf("%s: %v, want %v", tt.name, ok, tt.want)
		}
	}
}

// TestTakes tells the functions that wait for a lock from those that only sound like it.
func TestTakes(t *testing.T) {
	for function, want := range map[string]Kind{
		"__mutex_lock.constprop.0": Mutex, "mutex_lock_interruptible": Mutex, "ww_mutex_lock": Mutex,
		"down_write_killable": RWSem, "rwsem_down_read_slowpath": RWSem, "down_read": RWSem,
		"down": Semaphore, "__down_common": Semaphore, "down_timeout": Semaphore, "down_trylock": "", "downgrade_write": "",
		"rt_mutex_slowlock.isra.0": RTMutex, "wait_for_completion_killable": Completion, "percpu_down_write": PerCPURWSem,
		"mutex_unlock": "", "schedule": "", "": "",
	} {
		if got, _, _ := takes(function); got != want {
			t.Errorf("%s waits for %q, want %q", function, got, want)
		}
	}
	for function, want := range map[string]Mode{"queued_read_lock_slowpath": Read, "_raw_write_lock_irqsave": Write, "_raw_spin_lock_bh": ""} {
		if _, got, ok := spins(function); got != want || !ok {
			t.Errorf("%s spins for %q, %v", function, got, ok)
		}
	}
}

// TestCircles finds each circle once, and only circles.
func TestCircles(t *testing.T) {
	task := func(i int) *kernel.Task {
		return &kernel.Task{PID: i, Object: kernel.Object{Addr: kernel.Addr(i)}}
	}
	for _, tt := range []struct {
		name   string
		holder map[int]int // of what each waits for; 0 for nobody
		want   [][]int
	}{
		{"nobody", nil, nil},
		{"one behind the other", map[int]int{1: 2, 2: 3, 3: 0}, nil},
		{"itself", map[int]int{1: 1}, [][]int{{1}}},
		{"two", map[int]int{1: 2, 2: 1}, [][]int{{1, 2}}},
		{"three, and one who waits for them", map[int]int{1: 2, 2: 3, 3: 4, 4: 2}, [][]int{{2, 3, 4}}},
		{"two circles", map[int]int{1: 2, 2: 1, 3: 4, 4: 3}, [][]int{{1, 2}, {3, 4}}},
	} {
		g := &Graph{waits: map[kernel.Addr]Wait{}}
		for i := 1; i <= len(tt.holder); i++ {
			w := Wait{Task: task(i), Lock: kernel.Addr(100 + i), Holder: kernel.Addr(tt.holder[i])}
			g.waits[w.Task.Addr] = w
			g.Locks = append(g.Locks, &Lock{Waits: []Wait{w}})
		}
		g.findCircles()
		var got [][]int
		for _, c := range g.Circles {
			var pids []int
			for _, w := range c {
				pids = append(pids, w.Task.PID)
			}
			got = append(got, pids)
		}
		if diff := cmp.Diff(tt.want, got); diff != "" {
			t.Errorf("%s: %s", tt.name, diff)
		}
	}
}

// TestQueue walks the waiters of a mutex in both shapes, and one whose list does not end.
func TestQueue(t *testing.T) {
	list := kerneltest.Struct("list_head", kerneltest.Field{Name: "next", Type: kerneltest.Long}, kerneltest.Field{Name: "prev", Type: kerneltest.Long})
	waiter := kerneltest.Struct("mutex_waiter", kerneltest.Field{Name: "list", Type: list}, kerneltest.Field{Name: "task", Type: kerneltest.Long})
	head := kerneltest.Struct("mutex", kerneltest.Field{Name: "owner", Type: counter}, kerneltest.Field{Name: "wait_list", Type: list})
	first := kerneltest.Struct("mutex", kerneltest.Field{Name: "owner", Type: counter}, kerneltest.Field{Name: "first_waiter", Type: kerneltest.Long})
	// ring links what is in a list: the waiters, and where it has a wait_list the lock.
	ring := func(m *kerneltest.Kernel, nodes ...uint64) {
		for i, at := range nodes {
			m.Write64(at, nodes[(i+1)%len(nodes)])
			m.Write64(at+8, nodes[(i+len(nodes)-1)%len(nodes)])
		}
	}
	for _, tt := range []struct {
		name   string
		typ    *btf.Struct
		broken bool
	}{{"wait_list", head, false}, {"first_waiter", first, false}, {"a list that does not come back", head, true}} {
		m := kerneltest.Linux(kerneltest.Options{})
		m.Types(list, waiter, tt.typ)
		lock, a, b := m.New(tt.typ), m.New(waiter), m.New(waiter)
		m.Set(a, waiter, "task", 0xa)
		m.Set(b, waiter, "task", 0xb)
		if tt.typ == head {
			ring(m, lock+8, a, b)
		} else {
			m.Set(lock, first, "first_waiter", a)
			ring(m, a, b)
		}
		if tt.broken {
			m.Write64(b, a)
		}
		k, err := kernel.Open(m.Dump())
		if err != nil {
			t.Fatal(err)
		}
		var got []kernel.Addr
		err = New(k, nil).queue(Wait{Kind: Mutex, Lock: kernel.Addr(lock)}, func(task kernel.Addr, _ Mode) { got = append(got, task) })
		if tt.broken {
			if !errors.Is(err, kernel.ErrCorrupt) {
				t.Errorf("%s: %v", tt.name, err)
			}
			continue
		}
		if diff := cmp.Diff([]kernel.Addr{0xa, 0xb}, got); diff != "" || err != nil {
			t.Errorf("%s: %v %s", tt.name, err, diff)
		}
	}
}
