package explain

import (
	"strings"

	"inquest/stack"
)

// dyingNames are the functions by which a kernel ends itself: the innermost frames
// of any panic, which say nothing of the cause.
var dyingNames = set(
	"machine_kexec", "__crash_kexec", "crash_kexec", "crash_setup_regs", "native_machine_crash_shutdown", "machine_crash_shutdown",
	"panic", "vpanic", "nmi_panic", "nmi_panic_self_stop", "oops_end", "oops_exit", "die", "__die", "__die_body", "__die_header", "die_addr",
	"oops_begin", "rewind_stack_and_make_dead", "rewind_stack_do_exit", "make_task_dead", "do_exit",
	"delay_tsc", "__const_udelay", "__udelay", "__ndelay", "__delay", "delay_loop", "delay_halt", "panic_smp_self_stop", "crash_smp_send_stop",
	"native_safe_halt", "emergency_restart", "machine_emergency_restart", "native_machine_emergency_restart", "touch_nmi_watchdog",
	"kdb_main_loop", "pvpanic_panic_notify", "atomic_notifier_call_chain", "notifier_call_chain", "panic_other_cpus_shutdown",
	"console_unlock", "vprintk_emit", "_printk", "printk", "console_flush_all", "serial8250_console_write", "io_serial_in", "io_serial_out",
	"check_panic_on_warn", "wait_for_lsr", "__warn", "__warn_printk", "warn_slowpath_fmt", "warn_slowpath_null", "report_bug", "__report_bug", "report_bug_entry", "__report_bug",
	"handle_bug", "fixup_bug", "xen_panic_event", "hv_panic_notify_crash",
)

// handlerNames are the trap handlers between a trap and the functions above.
var handlerNames = set(
	"page_fault_oops", "no_context", "__bad_area_nosemaphore", "bad_area_nosemaphore", "bad_area", "__bad_area", "bad_area_access_error",
	"kernelmode_fixup_or_oops", "do_kern_addr_fault", "do_user_addr_fault", "__do_page_fault", "do_page_fault", "page_fault",
	"do_trap", "do_trap_no_signal", "do_error_trap", "do_invalid_op", "invalid_op", "do_general_protection", "general_protection",
	"do_divide_error", "divide_error", "do_double_fault", "double_fault", "handle_stack_overflow", "handle_page_fault",
	"gp_user_force_sig_segv", "die_nmi", "spurious_kernel_fault_check", "pgtable_bad", "show_fault_oops", "fixup_exception",
	"mce_panic", "do_machine_check", "mce_timed_out", "default_do_nmi", "do_nmi", "nmi", "end_repeat_nmi", "nmi_handle",
	"unknown_nmi_error", "pci_serr_error", "io_check_error", "search_exception_tables", "irqentry_enter", "notify_die", "__handle_bug", "do_int3", "int3", "do_debug", "debug",
	"error_entry", "error_return", "sysvec_thermal", "perf_event_nmi_handler", "watchdog_overflow_callback", "watchdog_hardlockup_check",
	"__perf_event_overflow", "handle_pmi_common", "intel_pmu_handle_irq", "amd_pmu_handle_irq", "x86_pmu_handle_irq",
	"local_apic_timer_interrupt", "hrtimer_interrupt", "__hrtimer_run_queues", "__hrtimer_run_queues.constprop.0", "watchdog_timer_fn",
	"smp_apic_timer_interrupt", "apic_timer_interrupt", "__sysvec_apic_timer_interrupt",
)

// enders are the functions from which whatever else is called while the kernel ends
// itself: notifiers, blinking lights, consoles.
var enders = set("panic", "vpanic", "nmi_panic", "oops_end", "die", "crash_kexec", "__crash_kexec", "machine_kexec", "make_task_dead")

// endOfPanic is the number of the frame outside of the last of them; 0 when there is none.
func endOfPanic(frames []stack.Frame) int {
	const deepest = 48 // frames that a panic may have
	end := 0
	for i := range frames[:min(deepest, len(frames))] {
		if enders[base(frames[i].Symbol.Name)] {
			end = i + 1
		} else if frames[i].RegsAt != 0 {
			break // what was interrupted
		}
	}
	return end
}

func set(names ...string) map[string]bool {
	m := make(map[string]bool, len(names))
	for _, n := range names {
		m[n] = true
	}
	return m
}

// base strips what the compiler appends to a function's name.
func base(name string) string {
	name, _, _ = strings.Cut(name, ".")
	return name
}

func dying(function string) bool { return dyingNames[base(function)] || handler(function) }

func handler(function string) bool {
	name := base(function)
	return handlerNames[name] || strings.HasPrefix(name, "exc_") || strings.HasPrefix(name, "asm_exc_") ||
		strings.HasPrefix(name, "asm_sysvec_") || strings.HasPrefix(name, "sysvec_")
}

func onlyHandlers(frames []stack.Frame) bool {
	for i := range frames {
		if !dying(frames[i].Symbol.Name) {
			return false
		}
	}
	return true
}
