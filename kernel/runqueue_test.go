package kernel

import (
	"errors"
	"testing"

	"github.com/cilium/ebpf/btf"
	"github.com/google/go-cmp/cmp"

	"inquest/internal/kerneltest"
)

// TestFairQueue walks the tree of a run queue, with a group that has a tree of its own,
// and groups that are in themselves.
func TestFairQueue(t *testing.T) {
	node := kerneltest.Struct("rb_node", kerneltest.Field{Name: "up", Type: kerneltest.Long}, kerneltest.Field{Name: "right", Type: kerneltest.Long}, kerneltest.Field{Name: "left", Type: kerneltest.Long})
	queue := &btf.Struct{Name: "cfs_rq"}
	entity := kerneltest.Struct("sched_entity", kerneltest.Field{Name: "run_node", Type: node}, kerneltest.Field{Name: "my_q", Type: kerneltest.Ptr(queue)})
	kerneltest.Complete(queue, kerneltest.Field{Name: "tasks_timeline", Type: kerneltest.Long}, kerneltest.Field{Name: "curr", Type: kerneltest.Ptr(entity)})
	task := kerneltest.Struct("task_struct", kerneltest.Field{Name: "pid", Type: kerneltest.Int}, kerneltest.Field{Name: "prio", Type: kerneltest.Int},
		kerneltest.Field{Name: "se", Type: entity})
	const se = 8
	for _, tt := range []struct {
		name string
		make func(m *kerneltest.Machine, root uint64, thread func(pid uint64) uint64, group func() (entity, queue uint64))
		want []int
		bad  bool
	}{
		{"empty", func(m *kerneltest.Machine, root uint64, thread func(uint64) uint64, group func() (uint64, uint64)) {}, nil, false},
		{"in order", func(m *kerneltest.Machine, root uint64, thread func(uint64) uint64, group func() (uint64, uint64)) {
			m.RBTree(root, thread(3), thread(1), thread(2))
		}, []int{3, 1, 2}, false},
		{"a group between", func(m *kerneltest.Machine, root uint64, thread func(uint64) uint64, group func() (uint64, uint64)) {
			g, in := group()
			m.RBTree(in, thread(7), thread(8))
			m.RBTree(root, thread(1), g, thread(2))
		}, []int{1, 7, 8, 2}, false},
		{"the group that runs", func(m *kerneltest.Machine, root uint64, thread func(uint64) uint64, group func() (uint64, uint64)) {
			g, in := group()
			m.RBTree(in, thread(7))
			m.Set(root, queue, "curr", g)
			m.RBTree(root, thread(1))
		}, []int{7, 1}, false},
		{"a group in itself", func(m *kerneltest.Machine, root uint64, thread func(uint64) uint64, group func() (uint64, uint64)) {
			g, in := group()
			m.RBTree(in, g)
			m.RBTree(root, g)
		}, nil, true},
		{"a queue that is its own group's", func(m *kerneltest.Machine, root uint64, thread func(uint64) uint64, group func() (uint64, uint64)) {
			g, _ := group()
			m.Set(g, entity, "my_q", root)
			m.RBTree(root, g, thread(1))
		}, []int{1}, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := kerneltest.New()
			m.Types(task, queue, entity)
			root := m.New(queue)
			tt.make(m, root, func(pid uint64) uint64 {
				at := m.New(task)
				m.Set(at, task, "pid", pid)
				return at + se
			}, func() (uint64, uint64) {
				g, in := m.New(entity), m.New(queue)
				m.Set(g, entity, "my_q", in)
				return g, in
			})
			k := open(t, m)
			o, err := k.Object("cfs_rq", Addr(root))
			if err != nil {
				t.Fatal(err)
			}
			w := queueWalk{k: k, seen: map[Addr]bool{}}
			err = w.fair(o, 0)
			var got []int
			for _, q := range w.list {
				got = append(got, q.Task.PID)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Error(diff)
			}
			// The task_struct here is too small to be read whole.
			if errors.Is(err, ErrCorrupt) != tt.bad || err != nil && !tt.bad && !errors.Is(err, ErrNoMember) {
				t.Errorf("error: %v", err)
			}
		})
	}
}

// TestChains walks a table of chains that end in the same element, as those of a struct
// kobj_map do, and one that does not end.
func TestChains(t *testing.T) {
	element := &btf.Struct{Name: "probe"}
	kerneltest.Complete(element, kerneltest.Field{Name: "next", Type: kerneltest.Ptr(element)}, kerneltest.Field{Name: "dev", Type: kerneltest.U32})
	m := kerneltest.New()
	m.Types(element)
	table := m.Alloc(3*8, 8)
	a, b, end := m.New(element), m.New(element), m.New(element)
	m.Chain(table, 0, a, end)
	m.Write64(table+8, end)
	m.Chain(table+16, end, b)
	c, d := m.New(element), m.New(element)
	ring, lost := m.Alloc(8, 8), m.Alloc(8, 8)
	m.Chain(ring, c, c, d)
	m.Write64(lost, 0xdead000000000100)
	k := open(t, m)
	var got []Addr
	visit := func(o Object) error { got = append(got, o.Addr); return nil }
	if err := k.hashedAt(Addr(table), 3, "probe", visit); err != nil {
		t.Error(err)
	}
	if diff := cmp.Diff(addrs([]uint64{a, end, b}), got); diff != "" {
		t.Error(diff)
	}
	if err := k.hashedAt(Addr(ring), 1, "probe", visit); !errors.Is(err, ErrCorrupt) {
		t.Errorf("a ring: %v", err)
	}
	if err := k.hashedAt(Addr(lost), 1, "probe", visit); err == nil {
		t.Error("a wild pointer is no error")
	}
}
