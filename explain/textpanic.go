package explain

import (
	"strings"

	"inquest/console"
)

// TextPanic explains a panic that the kernel decided on without another report.
var TextPanic = &TextAnalyzer{
	Name: "panic",
	Doc:  "panics by decision: sysrq, init killed, out of memory, no root file system …",
	Run: func(r *console.Report) (Finding, bool) {
		if r.Kind != console.Panic && r.Kind != console.SysRq {
			return Finding{}, false
		}
		reason := r.What
		f := Finding{Class: Unknown, Title: "panic: " + reason, Confidence: Certain}
		has := func(s string) bool { return strings.Contains(reason, s) }
		switch {
		case r.Kind == console.SysRq, has("sysrq triggered crash"), onTextStack(r, "sysrq_handle_crash"):
			f.Class, f.Title = UserPanic, "somebody crashed the machine on purpose, by sysrq"
		case has("Attempted to kill init"):
			f.Title = "init died, and a kernel cannot go on without it"
			f.Advice = append(f.Advice, "exitcode is init's wait status: the low byte is the signal that killed it, the next one its exit code.")
		case has("ut of memory"), has("deadlocked on memory"):
			f.Class, f.Title = OutOfMemory, "the machine ran out of memory"
		case has("achine check"):
			f.Class, f.Title = MachineCheck, "machine check: the hardware reported an error it could not correct"
		case has("hung_task"):
			f.Class, f.Title = HungTask, "task blocked for too long"
		case has("softlockup"):
			f.Class, f.Title = SoftLockup, "soft lockup"+in(function(r))
		case has("ard LOCKUP"):
			f.Class, f.Title = HardLockup, "hard lockup"+in(function(r))
		case has("RCU Stall"):
			f.Class, f.Title = RCUStall, "RCU grace period stalled"+in(function(r))
		case has("panic_on_warn"):
			f.Class, f.Title, f.Confidence = Warning, "warning"+in(function(r))+", which panic_on_warn made fatal", Likely
		case has("Fatal exception"):
			f.Title, f.Confidence = "an exception in the kernel"+in(function(r))+", of which the text has no report", Possible
		case has("NMI"), has("IOCK"):
			f.Title = "panic by a non-maskable interrupt"
		case has("kernel stack overflow"):
			f.Class, f.Title = StackOverflow, "kernel stack overflow"+in(function(r))
		case has("VFS: Unable to mount root fs"), has("No working init found"), has("No init found"):
			f.Title = "the machine could not boot: " + short(reason)
		case reason == "":
			f.Title = "panic" + in(function(r))
		default:
			f.Title = "panic: " + short(reason)
		}
		return f, true
	},
}

func onTextStack(r *console.Report, name string) bool {
	m := r.Main()
	return m != nil && find(m.Frames, name) >= 0
}

// TextSession explains a stack that crash(8) printed, by the functions on it.
var TextSession = &TextAnalyzer{
	Name: "stack",
	Doc:  "the stack of the task that panicked, as crash(8) shows it",
	Run: func(r *console.Report) (Finding, bool) {
		if r.Kind != console.Session {
			return Finding{}, false
		}
		f := Finding{Class: Unknown, Confidence: Likely}
		at := in(function(r))
		on := func(names ...string) bool {
			for _, n := range names {
				if onTextStack(r, n) {
					return true
				}
			}
			return false
		}
		switch {
		case on("sysrq_handle_crash", "__handle_sysrq") || strings.Contains(r.Panic, "SysRq") || strings.Contains(r.Panic, "sysrq"):
			f.Class, f.Title, f.Confidence = UserPanic, "somebody crashed the machine on purpose, by sysrq", Certain
		case on("__warn", "warn_slowpath_fmt", "warn_slowpath_null"):
			f.Class, f.Title = Warning, "warning"+at+", which panic_on_warn made fatal"
		case on("out_of_memory", "oom_kill_process"):
			f.Class, f.Title = OutOfMemory, "the machine ran out of memory"
		case on("mce_panic", "do_machine_check"):
			f.Class, f.Title = MachineCheck, "machine check: the hardware reported an error it could not correct"
		case on("watchdog_timer_fn") && on("panic"):
			f.Class, f.Title = SoftLockup, "soft lockup"+at
		case on("watchdog_overflow_callback", "watchdog_hardlockup_check"):
			f.Class, f.Title = HardLockup, "hard lockup"+at
		case on("check_hung_uninterruptible_tasks", "watchdog") && on("kthread"):
			f.Class, f.Title = HungTask, "task blocked for too long"
		case on("panic_on_rcu_stall", "rcu_check_gp_kthread_starvation", "print_cpu_stall", "print_other_cpu_stall"):
			f.Class, f.Title = RCUStall, "RCU grace period stalled"+at
		case on("do_divide_error", "exc_divide_error", "asm_exc_divide_error", "divide_error"):
			f.Class, f.Title = DivideError, "division by zero, or an overflowing quotient,"+at
		case on("exc_double_fault", "do_double_fault", "double_fault"):
			f.Class, f.Title = DoubleFault, "double fault"+at
		case on("exc_invalid_op", "asm_exc_invalid_op", "do_invalid_op", "invalid_op"):
			f.Class, f.Title = Bug, "BUG"+at
		case strings.Contains(r.Panic, "NULL pointer"):
			f.Class, f.Title = NullDereference, "NULL pointer dereference"+at
		case on("exc_general_protection", "asm_exc_general_protection", "general_protection", "do_general_protection", "page_fault", "exc_page_fault", "asm_exc_page_fault", "do_page_fault", "no_context", "page_fault_oops", "bad_area_nosemaphore"):
			f.Class, f.Title = WildPointer, "access to a bad address"+at
		case on("do_exit", "do_group_exit") && on("panic"):
			f.Title = "init died, and a kernel cannot go on without it"
		default:
			f.Title, f.Confidence = "panic"+at, Possible
		}
		if r.Panic != "" {
			f.Evidence = append(f.Evidence, Evidence{Text: "crash says: " + r.Panic})
		}
		return f, true
	},
}
