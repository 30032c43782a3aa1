package kernel

import (
	"fmt"
	"math/bits"
)

const (
	maxTasks  = 4 << 20    // PID_MAX_LIMIT
	pfKthread = 0x00200000 // PF_KTHREAD, include/linux/sched.h
)

// Task is a thread: struct task_struct.
type Task struct {
	Object
	PID   int // of the thread
	TGID  int // of its process
	PPID  int // of the process' parent
	Comm  string
	State string // ps(1)'s letter: R S D T t X Z P I
	CPU   int    // it runs on, or ran on last
	OnCPU bool   // it was running
	Stack Addr   // lowest address of its kernel stack
	MM    Addr   // struct mm_struct of its user memory, 0 for a kernel thread
	Flags uint64 // PF_*
	Idle  bool   // a CPU's idle task, pid 0
}

// Kernel reports whether the task is a kernel thread.
func (t *Task) Kernel() bool { return t.Flags&pfKthread != 0 }

// TaskAt reads the task_struct at an address. Where part of it is missing from the
// dump, what could be read comes with the error; the task is nil when not even its
// pid could be.
func (k *Kernel) TaskAt(addr Addr) (*Task, error) {
	o, err := k.Object("task_struct", addr)
	if err != nil {
		return nil, err
	}
	t := &Task{Object: o}
	var first error
	keep := func(what string, err error) {
		if err != nil && first == nil {
			first = fmt.Errorf("read task_struct at %v: %s: %w", addr, what, err)
		}
	}
	pid, err := o.Int("pid")
	if err != nil {
		keep("pid", err)
		return nil, first
	}
	tgid, err := o.Int("tgid")
	keep("tgid", err)
	t.PID, t.TGID = int(pid), int(tgid)
	t.Comm, err = o.String("comm")
	keep("comm", err)
	t.Stack, err = o.Pointer("stack")
	keep("stack", err)
	t.MM, err = o.Pointer("mm")
	keep("mm", err)
	t.Flags, err = o.Uint("flags")
	keep("flags", err)
	if ppid, err := o.Int("real_parent->tgid"); err == nil {
		t.PPID = int(ppid)
	}
	t.State = taskState(o)
	onCPU, _ := o.Uint("on_cpu")
	t.OnCPU = onCPU != 0
	for _, path := range []string{"thread_info.cpu", "cpu"} { // in thread_info since 5.16
		if cpu, err := o.Uint(path); err == nil && cpu < maxCPUs {
			t.CPU = int(cpu)
			break
		}
	}
	t.Idle = t.PID == 0
	return t, first
}

// taskState is task_state_to_char() of include/linux/sched.h.
func taskState(o Object) string {
	const (
		letters         = "RSDTtXZPI"
		report          = 0x7f  // TASK_REPORT
		reportIdle      = 0x80  // TASK_REPORT_IDLE
		idle            = 0x402 // TASK_UNINTERRUPTIBLE | TASK_NOLOAD
		uninterruptible = 2
		rtlockWait      = 0x1000 // since 5.15
		frozen          = 0x8000 // since 6.1; shown as D since 6.14 (commit f718faf3940e)
	)
	state, err := o.Uint("__state") // since 5.14
	if err != nil {
		if state, err = o.Uint("state"); err != nil {
			return "?"
		}
	}
	exit, _ := o.Uint("exit_state")
	v := (state | exit) & report
	if state&idle == idle { // with TASK_FREEZABLE or without
		v = reportIdle
	}
	if state&(rtlockWait|frozen) != 0 {
		v = uninterruptible
	}
	if i := bits.Len64(v); i < len(letters) {
		return letters[i : i+1]
	}
	return "?"
}

// Tasks returns every thread: of each process in the order of the kernel's list,
// the leader first, and then the idle task of each CPU that was up. What could be
// read comes with the error. Where the list is broken, the threads that follow are
// found by their pid, in no order of processes.
func (k *Kernel) Tasks() ([]*Task, error) {
	var tasks []*Task
	var first error
	keep := func(err error) {
		if first == nil {
			first = err
		}
	}
	idle, err := k.idleTasks()
	keep(err)
	seen := map[Addr]bool{}
	for _, addr := range idle {
		seen[addr] = true
	}
	add := func(addr Addr) error {
		if seen[addr] {
			return nil
		}
		if len(seen) >= maxTasks {
			return fmt.Errorf("more than %d tasks: %w", maxTasks, ErrCorrupt)
		}
		seen[addr] = true
		t, err := k.TaskAt(addr)
		if t != nil {
			tasks = append(tasks, t)
		}
		return err
	}
	if err := k.processes(add); err != nil {
		keep(err)
		keep(k.pids(add))
	}
	for _, addr := range idle {
		t, err := k.TaskAt(addr)
		keep(err)
		if t != nil {
			tasks = append(tasks, t)
		}
	}
	return tasks, first
}

// pids calls add with the thread of every pid (init_pid_ns.idr, since 4.15).
func (k *Kernel) pids(add func(Addr) error) error {
	ns, err := k.Var("init_pid_ns", "pid_namespace")
	if err != nil {
		return err
	}
	idr, err := ns.AddrOf("idr")
	if err != nil {
		return err
	}
	// The first of each pid's lists of tasks is that of PIDTYPE_PID.
	list, err := k.OffsetOf("pid", "tasks[0]")
	if err != nil {
		return err
	}
	link, err := k.OffsetOf("task_struct", "pid_links[0]") // since 4.19
	if err != nil {
		if link, err = k.OffsetOf("task_struct", "pids[0].node"); err != nil {
			return err
		}
	}
	var first error
	keep := func(err error) {
		if first == nil {
			first = err
		}
	}
	for e, err := range k.IDR(idr) {
		if err != nil {
			keep(err)
			break
		}
		pid, ok := e.Pointer()
		if !ok {
			continue
		}
		node, err := k.Pointer(pid + Addr(list))
		if err != nil {
			keep(fmt.Errorf("read struct pid of %d: %w", e.Index, err))
		} else if node != 0 {
			keep(add(node - Addr(link)))
		}
	}
	return first
}

// processes calls add with every thread of every process, init_task aside. A
// process that cannot be read does not hide the others.
func (k *Kernel) processes(add func(Addr) error) error {
	init, err := k.Var("init_task", "task_struct")
	if err != nil {
		return err
	}
	head, err := init.AddrOf("tasks")
	if err != nil {
		return err
	}
	leaders, err := k.Structs("task_struct", "tasks", head)
	if err != nil {
		return err
	}
	var first error
	keep := func(err error) {
		if first == nil {
			first = err
		}
	}
	signals := map[Addr]bool{} // forged processes could share one, with all its threads
	for leader, err := range leaders {
		if err != nil {
			keep(err)
			break
		}
		if err := add(leader.Addr); err != nil {
			keep(err)
		}
		threads, err := leader.Pointer("signal")
		if err != nil {
			keep(err)
			continue
		}
		if signals[threads] {
			continue
		}
		signals[threads] = true
		signal, err := k.Object("signal_struct", threads)
		if err != nil {
			keep(err)
			continue
		}
		list, err := signal.AddrOf("thread_head")
		if err != nil {
			keep(err)
			continue
		}
		members, err := k.Structs("task_struct", "thread_node", list)
		if err != nil {
			keep(err)
			continue
		}
		for t, err := range members {
			if err == nil {
				err = add(t.Addr)
			}
			if err != nil {
				keep(err)
				break
			}
		}
	}
	return first
}

// idleTasks returns the idle task of every present CPU, from its run queue.
func (k *Kernel) idleTasks() ([]Addr, error) {
	cpus, err := k.PresentCPUs()
	if err != nil {
		return nil, err
	}
	var idle []Addr
	for _, cpu := range cpus {
		rq, err := k.PerCPUVar("runqueues", "rq", cpu)
		if err != nil {
			return idle, err
		}
		a, err := rq.Pointer("idle")
		if err != nil {
			return idle, fmt.Errorf("read run queue of CPU %d: %w", cpu, err)
		}
		if a != 0 {
			idle = append(idle, a)
		}
	}
	return idle, nil
}

// Current returns the task that a CPU was running.
func (k *Kernel) Current(cpu int) (*Task, error) {
	a, err := k.CurrentAddr(cpu)
	if err != nil {
		return nil, err
	}
	t, err := k.TaskAt(a)
	if t != nil && err != nil {
		t.CPU, t.OnCPU = cpu, true // the run queue says so, should the task's own memory be missing
	}
	return t, err
}

// CurrentAddr returns the address of the task_struct that a CPU was running: its
// `current`, whose stack it was on. While a CPU switches tasks, its run queue is ahead
// of that.
func (k *Kernel) CurrentAddr(cpu int) (Addr, error) {
	at, err := k.Symbol("current_task") // but from 6.2 to 6.14
	if err != nil {
		if at, err = k.Symbol("pcpu_hot"); err == nil {
			var off uint64
			off, err = k.OffsetOf("pcpu_hot", "current_task")
			at += Addr(off)
		}
	}
	if err == nil {
		if at, err = k.PerCPU(at, cpu); err == nil {
			if a, err := k.Pointer(at); err == nil && a != 0 {
				return a, nil
			}
		}
	}
	rq, err := k.PerCPUVar("runqueues", "rq", cpu)
	if err != nil {
		return 0, err
	}
	a, err := rq.Pointer("curr")
	if err != nil {
		return 0, fmt.Errorf("read run queue of CPU %d: %w", cpu, err)
	}
	return a, nil
}

// FindTask returns the thread with that pid, or the task_struct at that address.
func (k *Kernel) FindTask(pid int) (*Task, error) {
	tasks, err := k.Tasks()
	for _, t := range tasks {
		if t.PID == pid && !t.Idle {
			return t, nil
		}
	}
	if err != nil {
		return nil, fmt.Errorf("pid %d: %w", pid, err)
	}
	return nil, fmt.Errorf("pid %d: %w", pid, ErrNoTask)
}

// StackSize returns THREAD_SIZE, the size of a task's kernel stack in bytes.
func (k *Kernel) StackSize() uint64 {
	for _, pair := range [][2]string{{"__start_init_stack", "__end_init_stack"}, {"__start_init_task", "__end_init_task"}} {
		start, err1 := k.Symbol(pair[0])
		end, err2 := k.Symbol(pair[1])
		if n := uint64(end - start); err1 == nil && err2 == nil && n >= 4096 && n <= 128<<10 {
			return n
		}
	}
	return 16 << 10
}
