package explain

import (
	"fmt"
	"strings"

	"inquest/console"
)

// TextStuck explains what a watchdog barked at: CPUs and tasks that make no progress.
var TextStuck = &TextAnalyzer{
	Name: "stuck",
	Doc:  "soft and hard lockups, RCU stalls, hung tasks, workqueue stalls",
	Run: func(r *console.Report) (Finding, bool) {
		f := Finding{Confidence: Certain}
		s := stuckSection(r)
		at, frames := "", []console.Frame(nil)
		if s != nil {
			frames = stuckFrames(s)
			at = culprit(frames, idling)
		}
		switch r.Kind {
		case console.SoftLockup:
			f.Class, f.Title = SoftLockup, "soft lockup"+in(at)
		case console.HardLockup:
			f.Class, f.Title = HardLockup, "hard lockup"+in(at)
		case console.RCUStall:
			f.Class, f.Title = RCUStall, "RCU grace period stalled"+in(at)
		case console.HungTask:
			f.Class, f.Title = HungTask, "task blocked for too long"+in(at)
		case console.Workqueue:
			f.Class, f.Title = HungTask, "a workqueue made no progress"+in(at)
		default:
			return f, false
		}
		if s != nil {
			if len(frames) > 0 {
				f.Blame = blameFrames(&console.Report{Modules: r.Modules}, afterPlumbing(frames))
			}
			switch {
			case s.Comm != "" && s.PID >= 0:
				f.Evidence = append(f.Evidence, Evidence{Text: fmt.Sprintf("it was %s (pid %d)%s", s.Comm, s.PID, onCPU(s.CPU)), Line: s.Line})
			case r.Comm != "" && r.PID >= 0:
				f.Evidence = append(f.Evidence, Evidence{Text: fmt.Sprintf("it was %s (pid %d)%s", r.Comm, r.PID, onCPU(r.CPU)), Line: s.Line})
			}
			if s.PC != nil && s.PC.Symbol != "" {
				f.Evidence = append(f.Evidence, Evidence{Text: "the CPU was at " + s.PC.String(), Line: s.Line})
			}
		}
		for _, l := range r.Lines {
			if strings.Contains(l.Text, "starved for") {
				f.Evidence = append(f.Evidence, Evidence{Text: strings.TrimSpace(l.Text), Line: l.Number})
				break
			}
		}
		return f, true
	},
}

func onCPU(cpu int) string {
	if cpu < 0 {
		return ""
	}
	return fmt.Sprintf(" on CPU %d", cpu)
}

// afterPlumbing leaves out the frames of waiting and interrupts at the inner end.
func afterPlumbing(frames []console.Frame) []console.Frame {
	chosen := culpritFrame(frames, idling)
	for i := range frames {
		if &frames[i] == chosen {
			return frames[i:]
		}
	}
	return frames
}

// stuckSection is the section of the CPU or task that is stuck: not the one that noticed,
// not an idle one, not RCU's own.
func stuckSection(r *console.Report) *console.Section {
	var best *console.Section
	score := 0
	for i := range r.Sections {
		s := &r.Sections[i]
		if len(s.Frames) == 0 && s.PC == nil || s.Role == console.Backtrace || s.Role == console.Chain {
			continue
		}
		n := 1
		at := culprit(stuckFrames(s), idling)
		switch {
		case idle(s):
			n = 0
		case s.Comm == "rcu_sched" || s.Comm == "rcu_preempt" || s.Comm == "rcu_bh" || strings.HasPrefix(s.Comm, "khungtaskd") || strings.HasPrefix(at, "rcu_gp_"):
			n = 0
		case s.CPU >= 0 && s.CPU == r.CPU && r.Kind != console.RCUStall:
			n = 4
		case s.Role == console.Main:
			n = 3
		case s.Role == console.OnTask && s.State != "R" && s.State != "" && r.Kind == console.RCUStall:
			n = 1
		default:
			n = 2
		}
		if at != "" && n > 0 && !textBoundary(at) && !idling(at) && !plumbing(at) {
			n += 4
		}
		if n > score {
			best, score = s, n
		}
	}
	if best == nil && len(r.Sections) > 0 {
		best = r.Main()
	}
	return best
}

// idle reports whether a section is of a CPU that had nothing to do.
func idle(s *console.Section) bool {
	for i := range s.Frames {
		switch s.Frames[i].Name() {
		case "do_idle", "cpu_idle", "cpu_startup_entry", "default_idle_call", "cpuidle_enter", "cpu_idle_loop":
			return !interrupted(s)
		}
	}
	return false
}

// interrupted reports whether the idle loop had been left for an interrupt's work.
func interrupted(s *console.Section) bool {
	for i := range s.Frames {
		f := &s.Frames[i]
		name := f.Name()
		if f.Guess || name == "" {
			continue
		}
		if strings.Contains(name, "idle") {
			return false
		}
		if !reporting(name) && !idling(name) && !serving(name) && !textBoundary(name) {
			return true
		}
	}
	return false
}

// stuckFrames are the frames of what was interrupted: without the watchdog's interrupt.
func stuckFrames(s *console.Section) []console.Frame {
	frames := sectionFrames(s, console.Frame{})
	for i := range frames {
		if watchdogEntry(frames[i].Name()) && watched(frames[:i]) {
			i++
			for i < len(frames)-1 && (watchdogEntry(frames[i].Name()) || strings.HasPrefix(frames[i].Name(), "asm_call_")) {
				i++
			}
			return frames[min(i, len(frames)-1):]
		}
	}
	return frames
}

// watchdogEntry reports whether a function is the door by which a timer's interrupt or an
// NMI comes in.
func watchdogEntry(name string) bool {
	if strings.Contains(name, "apic_timer_interrupt") && !strings.HasPrefix(name, "local_") {
		return true
	}
	switch name {
	case "apic_timer_interrupt", "smp_apic_timer_interrupt", "asm_sysvec_apic_timer_interrupt", "sysvec_apic_timer_interrupt", "nmi", "end_repeat_nmi", "asm_exc_nmi", "el1_irq", "el1h_64_irq",
		"el1h_64_irq_handler", "__irq_svc", "arch_timer_handler_virt", "arch_timer_handler_phys", "smp_apic_timer_interrupt_entry_after_kaiser_bti", "smp_trace_apic_timer_interrupt", "trace_apic_timer_interrupt", "timer_interrupt", "hv_stimer0_vector_handler",
		"asm_sysvec_hyperv_stimer0", "reschedule_interrupt", "asm_sysvec_reschedule_ipi", "asm_common_interrupt":
		return true
	}
	return false
}

// watched reports whether frames are those of a clock's tick or of dumping stacks.
func watched(frames []console.Frame) bool {
	for i := range frames {
		name := strings.TrimLeft(frames[i].Name(), "_")
		for _, p := range [...]string{"update_process_times", "tick_", "hrtimer_", "rcu_sched_clock_irq", "rcu_check_callbacks", "rcu_dump_cpu", "print_cpu_stall", "check_cpu_stall", "watchdog", "nmi_", "sched_show_task", "perf_event_"} {
			if strings.HasPrefix(name, p) {
				return true
			}
		}
	}
	return false
}

// idling are functions in which a CPU or a task is whatever it waits for or does over and
// over: besides plumbing those of timers, of interrupts between CPUs, of tracing, and the
// small helpers in which a watchdog happens to find a loop.
func idling(name string) bool {
	if scheduling[name] || idlingNames[name] {
		return true
	}
	trimmed := strings.TrimLeft(name, "_")
	for _, p := range [...]string{"schedule", "io_schedule", "wait_for_", "do_wait_for", "wait_on_", "wait_event", "bit_wait", "out_of_line_wait", "prepare_to_wait", "finish_wait", "csd_lock", "on_each_cpu", "generic_exec_single",
		"flush_smp_call", "hrtimer_", "tick_", "update_process_times", "local_apic_timer", "smp_apic_timer", "apic_timer", "sysvec_", "asm_sysvec_", "irq_enter", "irq_exit", "irqentry_", "handle_irq", "gic_", "generic_handle", "handle_domain", "retint_", "timer_interrupt",
		"arch_timer_", "sanitizer_cov", "preempt_count", "rcu_sched", "rcu_preempt", "rcu_eqs", "rcu_nmi", "rcu_irq", "rcu_dynticks", "rcu_read", "wait_rcu_gp", "kthread_should", "kick_", "folio_wait", "folio_lock", "lock_page", "lock_acquire", "lock_release", "stack_trace_consume", "kvm_wait", "pv_wait", "cpuidle",
		"percpu_rwsem", "is_ftrace", "virt_addr_valid", "srcu_read", "prandom_", "get_random", "msg_print", "print_time", "prb_", "jhash", "siphash", "hsiphash", "build_skb", "consume_skb", "kfree_skb", "skb_release", "migration_entry", "count_memcg", "mem_cgroup_", "get_mem_cgroup", "check_zeroed", "cache_alloc", "free_percpu", "free_thread_stack", "handle_percpu", "pvclock_", "ktime_get", "read_tsc", "kvm_clock", "sched_clock", "do_softirq", "softirq", "pick_next", "put_prev", "perf_trace_", "trace_event_", "debug_lockdep"} {
		if strings.HasPrefix(trimmed, p) {
			return true
		}
	}
	return false
}

var idlingNames = set("__switch_to", "__switch_to_asm", "context_switch", "freezable_schedule", "freezer_do_not_count", "finish_task_switch", "arch_local_irq_restore", "native_safe_halt", "default_idle", "arch_cpu_idle", "cpu_do_idle", "call_cpuidle",
	"mwait_idle", "native_apic_mem_write", "native_write_msr", "x2apic_send_IPI", "kvm_pv_send_ipi", "__x2apic_send_IPI_mask", "write_comp_data", "check_kcov_mode", "__fentry__", "ftrace_caller", "do_nanosleep", "hrtimer_nanosleep", "msleep", "cond_resched", "_cond_resched", "__cond_resched",
	"asm_call_on_stack", "asm_call_irq_on_stack", "call_on_irq_stack", "do_interrupt_handler", "el1_interrupt", "__el1_irq", "handle_domain_irq", "delay_tsc", "read_pnet", "__read_once_size", "__write_once_size", "csd_lock_wait")
