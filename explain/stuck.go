package explain

import (
	"fmt"
	"strings"
	"time"

	"inquest/kernel"
	"inquest/kernel/x86"
	"inquest/lock"
	"inquest/stack"
)

// StuckCPU finds CPUs that stayed in the kernel with their interrupts off, where no
// watchdog has said so: on machines that were dumped or stopped from outside because
// they hung, or of which RCU noticed first.
var StuckCPU = &Analyzer{
	Name: "stuck-cpu",
	Doc:  "CPUs with interrupts off and timers long overdue, on a machine that was stopped from outside or by an RCU stall",
	Run:  runStuckCPU,
}

// overdue is how late a CPU's timer must be: the tick comes at least a hundred times a
// second where a CPU is busy.
const overdue = time.Second

func runStuckCPU(c *Case) []Finding {
	if cr := c.Crash; cr != nil && !c.stoppedFromOutside() && (cr.Event == nil || cr.Event.Kind != KindRCUStall) {
		return nil
	}
	now, ok := c.lastTick()
	if !ok {
		return nil
	}
	var all []Finding
	for _, state := range c.Kernel.CPUStates() {
		if c.Crash != nil && state.CPU == c.Crash.CPU || state.Regs.User() {
			continue
		}
		late, due := c.timerLate(state.CPU, now)
		if late < overdue {
			continue
		}
		t, _ := c.Kernel.Current(state.CPU)
		if t == nil {
			continue
		}
		trace := c.Unwinder.Task(t)
		const interruptFlag = 1 << 9
		at := stoppedAt(trace)
		if at < 0 {
			continue
		}
		if flags, ok := trace.Frames[at].Regs.Get(x86.EFlags); ok && flags&interruptFlag == 0 {
			all = append(all, c.stuckFinding(state.CPU, trace, at, late, due, now))
		}
	}
	return all
}

// lastTick is when a CPU last saw the clock tick, in nanoseconds since boot. Those that
// the panic itself stopped are not late: what it did after is left out.
func (c *Case) lastTick() (now uint64, ok bool) {
	at, err := c.Kernel.Symbol("last_jiffies_update") // kernel/time/tick-sched.c
	if err != nil {
		return 0, false
	}
	if now, err = c.Kernel.U64(at); err != nil {
		return 0, false
	}
	if c.Crash != nil && c.Crash.Panic != nil {
		now = min(now, uint64(c.Log[c.Crash.Panic.Record].Time))
	}
	return now, true
}

// stopping are the functions by which a panic stops other CPUs (arch/x86/kernel/smp.c,
// reboot.c), beside the handlers of the interrupt that brings it.
var stopping = set("stop_this_cpu", "smp_stop_nmi_callback", "crash_nmi_callback", "kdump_nmi_callback", "nmi_shootdown_cpus", "halt")

// stoppedAt is the frame that a CPU was in when it was stopped or looked at, whose
// registers are all known; -1 when there is none.
func stoppedAt(t *stack.Trace) int {
	for i := range t.Frames {
		f := &t.Frames[i]
		if name := f.Symbol.Name; stopping[base(name)] || dying(name) {
			continue
		}
		if !f.Exact || f.Guess {
			break
		}
		return i
	}
	return -1
}

// stoppedFromOutside reports whether somebody stopped the machine, by an NMI or by sysrq:
// perhaps because it hung.
func (c *Case) stoppedFromOutside() bool {
	cr := c.Crash
	if cr.Event != nil {
		return cr.Event.Kind == KindNMI
	}
	return cr.Panic != nil && (strings.Contains(cr.Panic.Trigger, "NMI") || strings.Contains(cr.Panic.Trigger, "sysrq")) ||
		c.onStack("sysrq_handle_crash")
}

// timerLate returns how long the next timer of a CPU was overdue, in the time of the
// last tick that any CPU saw. While a CPU handles its timers, none is the next.
func (c *Case) timerLate(cpu int, now uint64) (late time.Duration, due uint64) {
	timers, err := c.Kernel.PerCPUVar("hrtimer_bases", "hrtimer_cpu_base", cpu)
	if err != nil {
		return 0, 0
	}
	const never = 1<<63 - 1 // KTIME_MAX
	due, err = timers.Uint("expires_next")
	if err != nil || due == 0 || due >= never || now >= never || now < due {
		return 0, 0
	}
	return time.Duration(now - due), due
}

func (c *Case) stuckFinding(cpu int, trace *stack.Trace, at int, late time.Duration, due, now uint64) Finding {
	f := Finding{Class: HardLockup, Title: "hard lockup: interrupts stay off", Confidence: Likely, Weight: 1, Trace: trace, stack: trace.Frames[at:]}
	c.Unwinder.Arguments(trace)
	f.Evidence = append(f.Evidence, Evidence{
		Text: fmt.Sprintf("%s (pid %d) keeps CPU %d for %.1f s: it was at %s, with the interrupt flag clear", trace.Task.Comm, trace.Task.PID, cpu,
			late.Seconds(), trace.Frames[at].Name()), Addr: trace.Frames[at].PC,
		Check: fmt.Sprintf("bt --cpu %d", cpu),
	})
	f.Title += " in " + BlameFor(c.places(f.stack)).Function
	f.Evidence = append(f.Evidence, c.spinsFor(f.stack, cpu)...)
	f.Evidence = append(f.Evidence, Evidence{
		Text: fmt.Sprintf("its next timer was due at %.3f s, the clock of the machine stood at %.3f s: no timer interrupt has come through since",
			time.Duration(due).Seconds(), time.Duration(now).Seconds()),
		Check: fmt.Sprintf("struct hrtimer_cpu_base.expires_next hrtimer_bases:%d", cpu),
	})
	return f
}

// spinsFor names the lock for which a CPU spins in the innermost frames.
func (c *Case) spinsFor(frames []stack.Frame, cpu int) []Evidence {
	for i := range frames {
		fr := &frames[i]
		if !spins(fr.Symbol.Name) {
			break
		}
		if arg, ok := spinLock(fr); ok {
			return []Evidence{{
				Text: fmt.Sprintf("there it spins for the lock %s (%s: %s)", lock.Name(c.Kernel, kernel.Addr(arg.Value)), base(fr.Symbol.Name), arg.From),
				Addr: kernel.Addr(arg.Value), Check: fmt.Sprintf("bt --cpu %d --args", cpu),
			}}
		}
	}
	return nil
}

// spins reports whether a function waits for a spinlock.
func spins(function string) bool {
	name := base(function)
	return strings.Contains(name, "spin_lock") || strings.Contains(name, "read_lock") || strings.Contains(name, "write_lock")
}

// spinLock is the lock that such a function was given.
func spinLock(f *stack.Frame) (stack.Arg, bool) {
	if len(f.Args) == 0 || !f.Args[0].Known || f.Args[0].Value < userTop {
		return stack.Arg{}, false
	}
	return f.Args[0], true
}
