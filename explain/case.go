package explain

import (
	"fmt"
	"strings"
	"sync"

	"inquest/heap"
	"inquest/kernel"
	"inquest/kernel/x86"
	"inquest/lock"
	"inquest/stack"
)

// maxLog is how much of the log a case looks at, from its end.
const maxLog = 100_000

// Case is a dump under examination.
type Case struct {
	Kernel   *kernel.Kernel
	Unwinder *stack.Unwinder
	Log      []kernel.Record
	LogError error // why the log is missing or ends early
	Events   []Event
	Crash    *Crash // nil when nothing says that the machine crashed

	heap  func() *heap.Heap
	locks func() *lock.Finder
}

// Crash is how the machine died, from three witnesses: log, registers and stack.
type Crash struct {
	Event   *Event // the report in the log, nil when it has none
	Panic   *Event // the line "Kernel panic", nil when kexec came first
	CPU     int
	Task    *kernel.Task // nil when unknown
	Trace   *stack.Trace // nil when unknown
	Culprit int          // index in Trace.Frames of the innermost frame that is not part of dying
	// Fault is the trapped instruction with its registers; nil for a panic that no
	// trap led to.
	Fault *FaultSite
	// Doubts are the points on which the witnesses do not agree.
	Doubts []string

	args         sync.Once // for the arguments in Trace
	promisesOnce sync.Once
	promises     []promise
	leadsOnce    sync.Once
	leads        []lead
}

// FaultSite is where a trap was taken, or a watchdog's interrupt.
type FaultSite struct {
	PC    kernel.Addr
	Regs  x86.Regs
	Insn  x86.Insn // zero when the code there cannot be read or decoded
	Known bool     // Insn is valid
	Frame int      // index in Trace.Frames
}

// New puts a case together. It fails only where nothing at all can be said.
func New(k *kernel.Kernel) (*Case, error) {
	c := &Case{Kernel: k, Unwinder: stack.NewUnwinder(k)}
	c.heap = sync.OnceValue(func() *heap.Heap { return heap.New(k) })
	c.locks = sync.OnceValue(func() *lock.Finder { return lock.New(k, c.Unwinder) })
	c.readLog()
	c.Events = Events(c.Log)
	c.findCrash()
	if c.Crash == nil && len(c.Log) == 0 && c.LogError != nil {
		return c, fmt.Errorf("neither a crashed CPU nor a log: %w", c.LogError)
	}
	return c, nil
}

func (c *Case) readLog() {
	for rec, err := range c.Kernel.Log() {
		if err != nil {
			c.LogError = err
			break
		}
		c.Log = append(c.Log, rec)
		if len(c.Log) >= 2*maxLog {
			c.Log = append(c.Log[:0], c.Log[maxLog:]...)
		}
	}
}

func (c *Case) findCrash() {
	cr := &Crash{CPU: -1}
	cr.Event, cr.Panic = lastEvents(c.Events)
	cpu, panicked := c.Kernel.PanicCPU()
	switch {
	case panicked:
		cr.CPU = cpu
	case cr.Event != nil && cr.Event.CPU >= 0:
		cr.CPU = cr.Event.CPU
	case cr.Event == nil && cr.Panic == nil:
		return
	}
	c.Crash = cr
	if cr.CPU < 0 {
		return
	}
	task, err := c.Kernel.Current(cr.CPU)
	if task == nil {
		cr.doubt("the task of CPU %d cannot be read: %v", cr.CPU, err)
		return
	}
	cr.Task = task
	if !panicked && cr.Event.PID >= 0 && cr.Event.PID != task.PID {
		// The machine lived on: who oopsed is gone from the CPU, perhaps from the list.
		if t, err := c.Kernel.FindTask(cr.Event.PID); err == nil {
			cr.Task = t
		} else {
			cr.Task = nil
			cr.doubt("pid %d, which the log names, no longer exists", cr.Event.PID)
			return
		}
	}
	cr.Trace = c.Unwinder.Task(cr.Task)
	c.findFault()
	c.crossCheck()
}

func (cr *Crash) doubt(format string, args ...any) {
	cr.Doubts = append(cr.Doubts, fmt.Sprintf(format, args...))
}

// lastEvents returns the report that led to the end: the last one, and the panic
// that may have followed it. A panic that names its own reason is the report itself.
func lastEvents(events []Event) (event, panic *Event) {
	for i := len(events) - 1; i >= 0; i-- {
		e := &events[i]
		if e.Kind == KindPanic {
			if panic == nil {
				panic = e
			}
			continue
		}
		if panic == nil || followsFrom(panic, e) {
			return e, panic
		}
		break
	}
	return nil, panic
}

// followsFrom reports whether a panic is only the consequence of a report in front
// of it (panic_on_oops and its like), or has a reason of its own.
func followsFrom(panic, e *Event) bool {
	for reason, kinds := range consequences {
		if !strings.Contains(panic.Trigger, reason) {
			continue
		}
		for _, k := range kinds {
			if e.Kind == k {
				return true
			}
		}
	}
	return false
}

// findFault finds the trapped instruction: the innermost frame that an exception
// interrupted, once the frames of dying itself are behind.
func (c *Case) findFault() {
	cr := c.Crash
	frames := cr.Trace.Frames
	i := endOfPanic(frames)
	for i < len(frames) && dying(frames[i].Symbol.Name) {
		i++
	}
	cr.Culprit = min(i, max(len(frames)-1, 0))
	for j, f := range frames {
		// With kdump the unwinding itself begins at the trap's registers.
		first := j == 0 && f.Exact && cr.Trace.Running && i == 0
		if (f.RegsAt == 0 || j < i) && !first {
			continue
		}
		// Between the trap and dying there is only the trap's handler.
		if !first && j > i && !onlyHandlers(frames[i:j]) {
			break
		}
		site := &FaultSite{PC: f.PC, Regs: f.Regs, Frame: j}
		if code, err := c.Kernel.Slice(f.PC, x86.MaxInsn); err == nil {
			if insn, err := x86.Decode(code, uint64(f.PC)); err == nil {
				site.Insn, site.Known = insn, true
			}
		}
		cr.Fault, cr.Culprit = site, j
		return
	}
}

// crossCheck holds log, registers and stack against each other.
func (c *Case) crossCheck() {
	cr := c.Crash
	if !cr.Trace.Reliable {
		cr.doubt("the stack is not reliable: %s", cr.Trace.Problem)
	}
	e := cr.Event
	if e == nil || e.Kind.ofAnother() {
		return
	}
	if e.CPU >= 0 && e.CPU != cr.CPU {
		cr.doubt("the log reports CPU %d, the dump says CPU %d panicked", e.CPU, cr.CPU)
	}
	if e.PID >= 0 && cr.Task != nil && e.PID != cr.Task.PID {
		cr.doubt("the log reports pid %d, CPU %d was running pid %d", e.PID, cr.CPU, cr.Task.PID)
	}
	if e.RIP != "" && cr.Fault != nil {
		f := cr.Trace.Frames[cr.Fault.Frame]
		got := f.PC.String()
		if f.Symbol.Name != "" {
			got = fmt.Sprintf("%s+%#x", f.Symbol.Name, f.Offset)
		}
		if got != e.RIP {
			cr.doubt("the log reports RIP %s, the registers say %s", e.RIP, got)
		}
	}
}

// culpritName names the innermost frame that is not part of dying.
func (c *Case) culpritName() string {
	cr := c.Crash
	if cr.Trace != nil && len(cr.Trace.Frames) > 0 {
		return cr.Trace.Frames[cr.Culprit].Name()
	}
	if cr.Event != nil && cr.Event.RIP != "" {
		return cr.Event.RIP
	}
	return "an unknown function"
}

// consequences are the panics that only follow from a report, by a part of their reason.
var consequences = map[string][]Kind{
	"Fatal exception":             {KindPageFault, KindProtection, KindBug, KindInvalidOp, KindDivide, KindOtherTrap, KindDouble, KindStack},
	"panic_on_warn set":           {KindWarning},
	"kernel: panic_on_warn set":   {KindWarning},
	"softlockup":                  {KindSoftLockup},
	"Hard LOCKUP":                 {KindHardLockup},
	"hard LOCKUP":                 {KindHardLockup},
	"hung_task":                   {KindHungTask},
	"RCU Stall":                   {KindRCUStall},
	"achine check":                {KindMachine},
	"double fault":                {KindDouble, KindStack},
	"kernel stack overflow":       {KindDouble, KindStack},
	"ttempted to kill init":       {KindPageFault, KindProtection, KindBug, KindInvalidOp, KindDivide},
	"ttempted to kill the idle":   {KindPageFault, KindProtection, KindBug, KindInvalidOp, KindDivide},
	"iolation of":                 {KindPageFault},
	"Machine halted":              {KindDouble, KindStack},
	"NMI":                         {KindNMI, KindHardLockup},
	"Out of memory":               {KindMemory},
	"System is deadlocked on mem": {KindMemory},
}
