package kernel

import (
	"cmp"
	"fmt"
	"slices"
)

// TimerBase is a timer wheel of a CPU: struct timer_base (kernel/time/timer.c).
type TimerBase struct {
	Object
	CPU    int
	Name   string // BASE_STD and BASE_DEF; since 6.9 BASE_LOCAL, BASE_GLOBAL and BASE_DEF
	Timers []Timer
	Err    error // why there may be more
}

// HRTimerBase is a queue of high-resolution timers of a CPU: struct hrtimer_clock_base.
type HRTimerBase struct {
	Object
	CPU    int
	Index  int
	Clock  string // "monotonic", "realtime", "boottime" or "tai"
	Soft   bool   // its timers expire in softirq context
	Now    int64  // what the clock said when the kernel last kept its time, ns; 0 when unknown
	Timers []Timer
	Err    error // why there may be more
}

// Timer is a struct timer_list, in jiffies, or a struct hrtimer, in ns.
type Timer struct {
	Addr     Addr
	Expires  int64
	Soft     int64 // the earliest that will do, of an hrtimer
	Function Addr
	// Work is the function of the work that a delayed_work's timer will queue, 0 for others.
	Work Addr
	// Task is what a timer will wake, nil when it is not for that.
	Task *Task
}

// maxTimers bounds the timers of one base.
const maxTimers = 1 << 20

// Jiffies returns jiffies_64, which begins five minutes before it wraps around 32 bits.
func (k *Kernel) Jiffies() (uint64, error) {
	at, err := k.Symbol("jiffies_64")
	if err != nil {
		return 0, err
	}
	return k.U64(at)
}

// TimerBases returns the timer wheels of a CPU, with their timers by expiry.
func (k *Kernel) TimerBases(cpu int) ([]*TimerBase, error) {
	sym, err := k.Lookup("timer_bases")
	if err != nil {
		return nil, err
	}
	first, err := k.PerCPUVar("timer_bases", "timer_base", cpu)
	if err != nil {
		return nil, err
	}
	size, err := first.Size()
	if err != nil {
		return nil, err
	}
	names := [][]string{{"BASE_STD"}, {"BASE_STD", "BASE_DEF"}, {"BASE_LOCAL", "BASE_GLOBAL", "BASE_DEF"}}
	n := min(max(sym.Size/max(size, 1), 1), uint64(len(names)))
	var bases []*TimerBase
	for i, name := range names[n-1] {
		b := &TimerBase{Object: k.ObjectOf(first.Type, first.Addr+Addr(uint64(i)*size)), CPU: cpu, Name: name}
		if err := b.read(); err != nil {
			b.Err = fmt.Errorf("timer_base %v of CPU %d: %w", b.Addr, cpu, err)
		}
		slices.SortStableFunc(b.Timers, func(x, y Timer) int { return cmp.Compare(x.Expires, y.Expires) })
		bases = append(bases, b)
	}
	return bases, nil
}

// read collects the timers of all slots of the wheel.
func (b *TimerBase) read() error {
	k := b.k
	vectors, err := b.Member("vectors")
	if err != nil {
		return err
	}
	heads, err := vectors.Bytes()
	if err != nil {
		return err
	}
	for i := 0; 8*i+8 <= len(heads); i++ {
		if le.Uint64(heads[8*i:]) == 0 {
			continue
		}
		for node, err := range k.HList(vectors.Addr + Addr(8*i)) {
			if err != nil {
				return err
			}
			if len(b.Timers) == maxTimers {
				return fmt.Errorf("more than %d timers: %w", maxTimers, ErrCorrupt)
			}
			o, err := k.ContainerOf(node, "timer_list", "entry")
			if err != nil {
				return err
			}
			t := Timer{Addr: o.Addr}
			if t.Expires, err = o.Int("expires"); err != nil {
				return err
			}
			if t.Function, err = o.Pointer("function"); err != nil {
				return err
			}
			t.purpose(k)
			b.Timers = append(b.Timers, t)
		}
	}
	return nil
}

// HRTimerBases returns the queues of high-resolution timers of a CPU, and the struct
// hrtimer_cpu_base that they are in.
func (k *Kernel) HRTimerBases(cpu int) (Object, []*HRTimerBase, error) {
	o, err := k.PerCPUVar("hrtimer_bases", "hrtimer_cpu_base", cpu)
	if err != nil {
		return o, nil, err
	}
	now, _ := k.Monotonic()
	// enum hrtimer_base_type: the second half are the soft ones (since 4.16).
	clocks := []string{"monotonic", "realtime", "boottime", "tai"}
	var bases []*HRTimerBase
	for i := range 2 * len(clocks) {
		base, err := o.Member(fmt.Sprintf("clock_base[%d]", i))
		if err != nil {
			return o, bases, err
		}
		b := &HRTimerBase{Object: base, CPU: cpu, Index: i, Clock: clocks[i%len(clocks)], Soft: i >= len(clocks)}
		if off, err := base.Int("offset"); err == nil && now != 0 {
			b.Now = int64(now) + off
		}
		if err := b.read(); err != nil {
			b.Err = fmt.Errorf("hrtimer_clock_base %v of CPU %d: %w", base.Addr, cpu, err)
		}
		bases = append(bases, b)
	}
	return o, bases, nil
}

func (b *HRTimerBase) read() error {
	k := b.k
	root, err := b.AddrOf("active.rb_root")
	if err != nil {
		if root, err = b.AddrOf("active.head"); err != nil { // until 5.3
			return err
		}
	}
	for node, err := range k.RBTree(root) {
		if err != nil {
			return err
		}
		if len(b.Timers) == maxTimers {
			return fmt.Errorf("more than %d timers: %w", maxTimers, ErrCorrupt)
		}
		o, err := k.ContainerOf(node, "hrtimer", "node")
		if err != nil {
			return err
		}
		t := Timer{Addr: o.Addr}
		if t.Expires, err = o.Int("node.expires"); err != nil {
			return err
		}
		if t.Soft, err = o.Int("_softexpires"); err != nil {
			return err
		}
		if t.Function, err = o.Pointer("function"); err != nil {
			return err
		}
		t.purpose(k)
		b.Timers = append(b.Timers, t)
	}
	return nil
}

// purpose looks into what a timer is part of, where its function tells what that is.
func (t *Timer) purpose(k *Kernel) {
	sym, off, ok := k.SymbolAt(t.Function)
	if !ok || off != 0 {
		return
	}
	part := func(typ, member, path string) Addr {
		o, err := k.ContainerOf(t.Addr, typ, member)
		if err != nil {
			return 0
		}
		at, _ := o.Pointer(path)
		return at
	}
	var task Addr
	switch sym.Name {
	case "delayed_work_timer_fn":
		t.Work = part("delayed_work", "timer", "work.func")
	case "process_timeout": // struct process_timer since 4.15
		task = part("process_timer", "timer", "task")
	case "hrtimer_wakeup":
		task = part("hrtimer_sleeper", "timer", "task")
	case "it_real_fn":
		task = part("signal_struct", "real_timer", "curr_target")
	}
	if task != 0 {
		t.Task, _ = k.TaskAt(task)
	}
}
