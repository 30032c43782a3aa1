package kernel

import "fmt"

// RunQueue is what one CPU has to run: struct rq (kernel/sched/sched.h).
type RunQueue struct {
	Object
	CPU     int
	Clock   uint64 // when the CPU last read its clock, in ns since boot
	Current *Task  // nil when it cannot be read
	Fair    Queue  // in the order of the tree
	RT      Queue  // by priority
	DL      Queue  // by deadline
	Ext     Queue  // of sched_ext, since 6.12
	// CFS and RTArray are the addresses of cfs.tasks_timeline and rt.active.
	CFS, RTArray Addr
}

// Queue is what waits in one class of the scheduler.
type Queue struct {
	Tasks []Queued
	Err   error // why there may be more
}

// Queued is a task that waits for a CPU.
type Queued struct {
	Task *Task
	Prio int // 0 to 99 for real-time tasks, 120 for a nice value of 0
	// Delayed tasks sleep, but stay queued until they have made up for the time that
	// they got too much (EEVDF, sched_entity.sched_delayed since 6.12).
	Delayed bool
}

// queueDepth bounds how deep groups of tasks may be in each other.
const queueDepth = 64

// RunQueue reads the run queue of a CPU. What could be read comes with the error.
func (k *Kernel) RunQueue(cpu int) (*RunQueue, error) {
	o, err := k.PerCPUVar("runqueues", "rq", cpu)
	if err != nil {
		return nil, err
	}
	rq := &RunQueue{Object: o, CPU: cpu}
	var first error
	keep := func(err error) {
		if err != nil && first == nil {
			first = fmt.Errorf("read run queue of CPU %d: %w", cpu, err)
		}
	}
	rq.Clock, err = o.Uint("clock")
	keep(err)
	curr, err := o.Pointer("curr")
	keep(err)
	if curr != 0 {
		rq.Current, err = k.TaskAt(curr)
		keep(err)
	}
	rq.CFS, _ = o.AddrOf("cfs.tasks_timeline")
	rq.RTArray, _ = o.AddrOf("rt.active")
	w := queueWalk{k: k, seen: map[Addr]bool{}}
	take := func(err error) Queue {
		keep(err)
		q := Queue{w.list, err}
		w.list = nil
		return q
	}
	cfs, err := o.Member("cfs")
	if err == nil {
		err = w.fair(cfs, 0)
	}
	rq.Fair = take(err)
	rt, err := o.Member("rt")
	if err == nil {
		err = w.realtime(rt, 0)
	}
	rq.RT = take(err)
	rq.DL = take(w.deadline(o))
	if o.Has("scx.runnable_list") {
		rq.Ext = take(w.ext(o, curr))
	}
	return rq, first
}

// queueWalk collects the tasks of a run queue.
type queueWalk struct {
	k    *Kernel
	list []Queued
	seen map[Addr]bool // tasks and the queues of groups
}

func (w *queueWalk) add(task Addr) error {
	if w.seen[task] {
		return fmt.Errorf("task_struct at %v is queued twice: %w", task, ErrCorrupt)
	}
	if w.seen[task] = true; len(w.seen) > maxTasks {
		return fmt.Errorf("more than %d tasks are queued: %w", maxTasks, ErrCorrupt)
	}
	t, err := w.k.TaskAt(task)
	if t == nil {
		return err
	}
	prio, _ := t.Int("prio")
	delayed, _ := t.Uint("se.sched_delayed")
	w.list = append(w.list, Queued{t, int(prio), delayed != 0})
	return err
}

// enter notes the queue of a group; false when it has been walked, or is too deep.
func (w *queueWalk) enter(queue Addr, depth int) error {
	if depth > queueDepth || w.seen[queue] {
		return fmt.Errorf("the queue of a group at %v is in itself: %w", queue, ErrCorrupt)
	}
	w.seen[queue] = true
	return nil
}

// fair walks a struct cfs_rq in the order of its tree. What runs is not in the tree,
// but if that is a group, others of the group may be waiting.
func (w *queueWalk) fair(cfs Object, depth int) error {
	if err := w.enter(cfs.Addr, depth); err != nil {
		return err
	}
	root, err := cfs.AddrOf("tasks_timeline")
	if err != nil {
		return err
	}
	group := func(entity Object) (bool, error) {
		if !entity.Has("my_q") { // without CONFIG_FAIR_GROUP_SCHED
			return false, nil
		}
		queue, err := entity.Pointer("my_q")
		if err != nil || queue == 0 {
			return false, err
		}
		return true, w.fair(w.k.ObjectOf(cfs.Type, queue), depth+1)
	}
	var first error
	keep := func(err error) {
		if first == nil {
			first = err
		}
	}
	if curr, err := cfs.Pointer("curr"); err != nil {
		keep(err)
	} else if curr != 0 {
		entity, err := w.k.Object("sched_entity", curr)
		if err == nil {
			_, err = group(entity)
		}
		keep(err)
	}
	for node, err := range w.k.RBTree(root) {
		if err != nil {
			keep(err)
			break
		}
		entity, err := w.k.ContainerOf(node, "sched_entity", "run_node")
		if err != nil {
			return err
		}
		is, err := group(entity)
		keep(err)
		if err != nil || is {
			continue
		}
		t, err := w.k.ContainerOf(entity.Addr, "task_struct", "se")
		if err != nil {
			return err
		}
		keep(w.add(t.Addr))
	}
	return first
}

// maxRTPrio is MAX_RT_PRIO, the number of lists of a struct rt_prio_array.
const maxRTPrio = 100

// realtime walks a struct rt_rq by priority. Its lists also hold what runs.
func (w *queueWalk) realtime(rt Object, depth int) error {
	if err := w.enter(rt.Addr, depth); err != nil {
		return err
	}
	var first error
	keep := func(err error) {
		if first == nil {
			first = err
		}
	}
	for prio := range maxRTPrio {
		head, err := rt.AddrOf(fmt.Sprintf("active.queue[%d]", prio))
		if err != nil {
			return err
		}
		next, err := w.k.Pointer(head)
		if err != nil {
			return err
		}
		if next == 0 || next == head { // the queue of a CPU that never came up is all zeros
			continue
		}
		entities, err := w.k.Structs("sched_rt_entity", "run_list", head)
		if err != nil {
			return err
		}
		for entity, err := range entities {
			if err != nil {
				keep(err)
				break
			}
			if entity.Has("my_q") { // CONFIG_RT_GROUP_SCHED
				queue, err := entity.Pointer("my_q")
				keep(err)
				if err == nil && queue != 0 {
					keep(w.realtime(w.k.ObjectOf(rt.Type, queue), depth+1))
				}
				if err != nil || queue != 0 {
					continue
				}
			}
			t, err := w.k.ContainerOf(entity.Addr, "task_struct", "rt")
			if err != nil {
				return err
			}
			keep(w.add(t.Addr))
		}
	}
	return first
}

// deadline walks rq.dl in the order of deadlines. The entities of servers, by which the
// fair tasks get a share of a CPU that is busy with others, are no tasks (since 6.8).
func (w *queueWalk) deadline(rq Object) error {
	root, err := rq.AddrOf("dl.root")
	if err != nil {
		return err
	}
	for node, err := range w.k.RBTree(root) {
		if err != nil {
			return err
		}
		entity, err := w.k.ContainerOf(node, "sched_dl_entity", "rb_node")
		if err != nil {
			return err
		}
		if entity.Has("dl_server") {
			if server, err := entity.Uint("dl_server"); err != nil || server != 0 {
				continue
			}
		}
		t, err := w.k.ContainerOf(entity.Addr, "task_struct", "dl")
		if err != nil {
			return err
		}
		if err := w.add(t.Addr); err != nil {
			return err
		}
	}
	return nil
}

// ext walks the tasks of sched_ext that can run, of which one may be running.
func (w *queueWalk) ext(rq Object, running Addr) error {
	head, err := rq.AddrOf("scx.runnable_list")
	if err != nil {
		return err
	}
	if next, err := w.k.Pointer(head); err != nil || next == 0 {
		return err // never set up
	}
	tasks, err := w.k.Structs("task_struct", "scx.runnable_node", head)
	if err != nil {
		return err
	}
	for t, err := range tasks {
		if err == nil && t.Addr != running {
			err = w.add(t.Addr)
		}
		if err != nil {
			return err
		}
	}
	return nil
}
