package explain

import (
	"fmt"
	"strings"

	"inquest/console"
)

// TextTrap explains exceptions that no memory access raises.
var TextTrap = &TextAnalyzer{
	Name: "trap",
	Doc:  "divide errors, invalid instructions, double faults, machine checks",
	Run: func(r *console.Report) (Finding, bool) {
		f := Finding{Confidence: Certain}
		at := in(function(r))
		switch r.Kind {
		case console.DivideError:
			f.Class, f.Title = DivideError, "division by zero, or an overflowing quotient,"+at
			if insn, zero := dividedByZero(r); zero {
				f.Title = "division by zero" + at
				f.Evidence = append(f.Evidence, Evidence{Text: "the trapped instruction is " + insn + ", and that register is 0"})
			}
		case console.InvalidOpcode:
			f.Class, f.Title = BadInstruction, "invalid instruction"+at
			if bugText(r) {
				f.Class, f.Title = Bug, "BUG"+at
			}
		case console.DoubleFault:
			f.Class, f.Title = DoubleFault, "double fault"+at
		case console.MachineCheck:
			f.Class, f.Title = MachineCheck, "machine check: the hardware reported an error it could not correct"
			for _, d := range r.Details {
				if len(f.Evidence) < 6 {
					f.Evidence = append(f.Evidence, Evidence{Text: d})
				}
			}
		case console.Trap:
			f.Class, f.Title = trapText(r)
			f.Title += at
		default:
			return f, false
		}
		return f, true
	},
}

// bugText reports whether an invalid instruction is that of BUG(), whose line the text
// lacks: ud2 on x86.
func bugText(r *console.Report) bool {
	return r.CodeAt >= 0 && r.CodeAt+1 < len(r.Code) && r.Code[r.CodeAt] == 0x0f && r.Code[r.CodeAt+1] == 0x0b || strings.Contains(r.Message, "BRK")
}

func trapText(r *console.Report) (Class, string) {
	text := r.What
	if text == "" {
		text = r.Message
	}
	has := func(s string) bool { return strings.Contains(text, s) }
	switch {
	case has("int3"):
		return BadInstruction, "int3 breakpoint that nothing handled,"
	case has("undefined instruction"), has("illegal instruction"), has("CFI"), has("ENDBR"), has("control protection"):
		return BadInstruction, "invalid instruction or jump"
	case has("Oops - BUG"), has("Exception in kernel mode"), has("BRK handler"):
		return Bug, "BUG"
	case has("external abort"), has("SError"):
		return MachineCheck, "the hardware refused an access"
	case has("stack segment"), has("segment not present"), has("invalid TSS"):
		return WildPointer, "access to a wild address"
	}
	return Unknown, "unexpected exception"
}

// TextBug explains BUG() and what else says BUG.
var TextBug = &TextAnalyzer{
	Name: "bug",
	Doc:  "BUG() and BUG_ON(), and other complaints that begin with BUG",
	Run: func(r *console.Report) (Finding, bool) {
		at := function(r)
		f := Finding{Class: Bug, Confidence: Certain}
		switch r.Kind {
		case console.BUG:
			f.Title = "BUG" + in(at)
			switch {
			case r.What != "" && r.Place == "" && r.What != "Dentry":
				f.Title = "BUG: " + short(r.What)
				if at != "" {
					f.Title += in(at)
				}
			case r.What == "Dentry":
				f.Title = "a file system was unmounted that is still in use" + in(at)
			}
			bugPlace(r, &f, at)
		case console.Atomic:
			f.Title = "sleep in atomic context" + in(at)
			if strings.Contains(r.What, "scheduling") {
				f.Title = "scheduling while atomic" + in(at)
			}
			f.Evidence = append(f.Evidence, accessEvidence(r)...)
		case console.Preemptible:
			f.Title = "per-CPU data used where the task can be moved" + in(at)
		case console.Rust:
			f.Title = "Rust code panicked" + in(at)
		case console.RCUDetail:
			f.Title = "call_rcu() misused" + in(at)
		default:
			return f, false
		}
		if r.Place != "" {
			f.Evidence = append(f.Evidence, Evidence{Text: "in the source, that is " + r.Place})
		}
		return f, true
	},
}

// bugPlace says more of a BUG() whose place is known to check one thing only.
func bugPlace(r *console.Report, f *Finding, at string) {
	m := r.Main()
	if m == nil || m.PC == nil {
		return
	}
	switch m.PC.Name() {
	case "set_freepointer", "__slab_free", "kfree", "kmem_cache_free", "do_slab_free", "slab_free":
		if strings.Contains(r.Place, "slub.c") {
			// CONFIG_SLAB_FREELIST_HARDENED: BUG_ON(object == fp) in set_freepointer().
			f.Class, f.Title, f.Confidence = DoubleFree, "double free"+in(at), Likely
		}
	case "__list_add_valid", "__list_del_entry_valid", "__list_add_valid_or_report", "__list_del_entry_valid_or_report":
		f.Class, f.Title = ListCorruption, "corrupted list, found"+in(at)
	case "usercopy_abort":
		f.Class, f.Title = OutOfBounds, "copy to or from user space beyond the object"+in(at)
	case "fortify_panic", "__fortify_panic":
		f.Class, f.Title = OutOfBounds, "buffer overflow in a string or memory function, called"+in(at)
	}
}

// short is a message without what differs from machine to machine.
func short(text string) string {
	words := strings.Fields(text)
	var out []string
	for _, w := range words {
		if len(out) == 10 {
			break
		}
		if strings.ContainsAny(w, "0123456789") {
			continue
		}
		out = append(out, strings.Trim(w, ":,"))
	}
	return strings.Join(out, " ")
}

// TextLocks explains what lockdep and the locks themselves found.
var TextLocks = &TextAnalyzer{
	Name: "locks",
	Doc:  "possible deadlocks that lockdep found, and locks that were misused",
	Run: func(r *console.Report) (Finding, bool) {
		f := Finding{Confidence: Certain}
		at := function(r)
		if who := lockedIn(r); who != "" {
			at = who
		} else if who := heldIn(r); who != "" {
			at = who
		}
		switch r.Kind {
		case console.Lockdep:
			f.Class, f.Title, f.Confidence = Deadlock, "possible deadlock"+in(at), Likely
		case console.LockUse:
			f.Class, f.Title = Warning, r.What+in(at)
			if strings.HasPrefix(strings.TrimPrefix(r.Message, "[ "), "BUG") {
				f.Class = Bug
			}
			switch {
			case strings.Contains(r.What, "recursion"), strings.Contains(r.What, "lockup"):
				f.Class, f.Title = Deadlock, "deadlock on a spinlock"+in(at)
			case r.What == "":
				f.Title = "lock misused" + in(at)
			}
		case console.RCUUsage:
			f.Class, f.Title = Warning, "RCU-protected data used without protection"+in(at)
		default:
			return f, false
		}
		f.Evidence = append(f.Evidence, accessEvidence(r)...)
		if at != "" && f.Blame == nil {
			frames := textFrames(r)
			if i := find(frames, at); i > 0 {
				f.Blame = blameFrames(r, frames[i:])
			} else if i < 0 {
				b := BlameFor([]Place{{Function: at}})
				f.Blame = &b
			}
		}
		return f, true
	},
}

// lockedIn is where lockdep saw the lock taken that would close the cycle: "is trying to
// acquire lock:", then the lock with "at: FUNCTION".
func lockedIn(r *console.Report) string {
	for i, l := range r.Lines {
		if !taking(l.Text) {
			continue
		}
		for _, next := range r.Lines[i:min(i+4, len(r.Lines))] {
			at := strings.LastIndex(next.Text, "at: ")
			if at < 0 {
				continue
			}
			fr, ok := console.ParseFrame(strings.TrimSpace(next.Text[at+4:]))
			if !ok || fr.Symbol == "" {
				continue
			}
			name := fr.Name()
			if !plumbing(name) && !textPlumbing(name) && !reporting(name) {
				return name
			}
			// The lock function's caller is on the stack.
			if frames := textFrames(r); find(frames, name) >= 0 {
				return culprit(frames[find(frames, name):], nil)
			}
			return name
		}
	}
	return ""
}

// taking reports whether a line of lockdep's says that the lock in the next is the one in
// question.
func taking(line string) bool {
	for _, s := range [...]string{"is trying to acquire", "is trying to lock", "is trying to release lock", "just changed the state of lock", "takes:", "is freeing memory"} {
		if strings.Contains(line, s) {
			return true
		}
	}
	return false
}

// heldIn is where a lock was taken that should be free by now, or the work that left it
// held: "#0: …, at: FUNCTION", "last function: FUNCTION".
func heldIn(r *console.Report) string {
	if !strings.Contains(r.What, "held") && !strings.Contains(r.What, "leaked") || strings.Contains(r.What, "freed") {
		return ""
	}
	for _, mark := range [...]string{"last function: ", "at: "} {
		for _, d := range r.Details {
			i := strings.LastIndex(d, mark)
			if i < 0 {
				continue
			}
			name := strings.TrimSpace(d[i+len(mark):])
			if fr, ok := console.ParseFrame(name); ok {
				name = fr.Name()
			}
			return console.Base(name)
		}
	}
	return ""
}

// TextWarning explains WARN() and other warnings.
var TextWarning = &TextAnalyzer{
	Name: "warning",
	Doc:  "WARN()",
	Run: func(r *console.Report) (Finding, bool) {
		f := Finding{Class: Warning, Confidence: Certain}
		switch r.Kind {
		case console.Warning:
		case console.NMI:
			f.Class, f.Title = Unknown, "a non-maskable interrupt for which nobody had a reason"
			return f, true
		case console.OutOfMemory:
			f.Class, f.Title = OutOfMemory, "the machine ran out of memory"
			if strings.HasPrefix(r.What, "Memory cgroup") {
				f.Title = "a memory cgroup ran out of memory"
			}
			if r.Comm != "" {
				f.Evidence = append(f.Evidence, Evidence{Text: fmt.Sprintf("the kernel killed %s (pid %d) for its memory", r.Comm, r.PID)})
			}
			return f, true
		default:
			return f, false
		}
		f.Title = "warning" + in(function(r))
		if r.What != "" && r.Place == "" {
			f.Title = "warning: " + short(r.What)
		}
		if strings.Contains(r.Panic, "panic_on_warn") {
			f.Title += ", which panic_on_warn made fatal"
			f.Advice = append(f.Advice, "Without kernel.panic_on_warn=1 the machine would have gone on after this warning.")
		}
		if r.Place != "" {
			f.Evidence = append(f.Evidence, Evidence{Text: "in the source, that is " + r.Place})
		}
		f.Evidence = append(f.Evidence, accessEvidence(r)...)
		return f, true
	},
}

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
