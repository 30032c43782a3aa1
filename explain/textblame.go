package explain

import (
	"strings"

	"inquest/console"
)

// textFrames is the stack that a report is about, innermost first, from the function that
// it was in: without the frames of reporting it, and without leftovers where there is
// anything else.
func textFrames(r *console.Report) []console.Frame {
	m := r.Main()
	if s := r.Section(console.Backtrace); m == nil || s != nil && r.Kind == console.Lockdep {
		m = s
	}
	if m == nil {
		m = r.Section(console.Race)
	}
	if m == nil {
		return nil
	}
	return sectionFrames(m, r.Function)
}

// sectionFrames is the stack of a section, from the function that the report names if it
// names one.
func sectionFrames(m *console.Section, named console.Frame) []console.Frame {
	frames := sure(m.Frames, named.Symbol != "")
	switch i := trapIndex(frames, m.PC); {
	case named.Symbol != "" && find(frames, named.Name()) >= 0:
		frames = frames[find(frames, named.Name()):]
	case i >= 0:
		frames = frames[i:]
	case m.PC != nil && m.PC.Trap:
	case m.PC != nil && (m.PC.Symbol != "" || m.PC.Addr != 0 || len(frames) > 0):
		frames = append([]console.Frame{*m.PC}, frames...)
	case named.Symbol != "" && !reporting(named.Name()):
		for len(frames) > 0 && reporting(frames[0].Name()) {
			frames = frames[1:]
		}
		frames = append([]console.Frame{named}, frames...)
	}
	for len(frames) > 1 && frames[0].Symbol != "" && reporting(frames[0].Name()) && !(m.PC != nil && frames[0] == *m.PC) {
		frames = frames[1:]
	}
	if len(frames) > 1 && frames[0].Symbol != "" && frames[1].Symbol == frames[0].Symbol && frames[1].Offset == frames[0].Offset {
		frames = frames[1:] // the program counter, and again as the first frame
	}
	return frames
}

// sure are the frames that are no leftovers; all of them where those are all there is to
// name a function by.
func sure(frames []console.Frame, named bool) []console.Frame {
	var out []console.Frame
	for _, f := range frames {
		if !f.Guess {
			out = append(out, f)
		}
	}
	own := 0
	for i := range out {
		if n := out[i].Name(); n != "" && !reporting(n) && !boundary(n) {
			own++
		}
	}
	if own == 0 && len(out) < len(frames) && !named {
		return append([]console.Frame(nil), frames...)
	}
	return out
}

// trapIndex is the frame at which a trap stands that is the program counter of the whole:
// inside of it there is only its handling.
func trapIndex(frames []console.Frame, pc *console.Frame) int {
	if pc == nil || !pc.Trap {
		return -1
	}
	for i := range frames {
		if frames[i].Trap && frames[i].Symbol == pc.Symbol {
			return i
		}
		if name := frames[i].Name(); name != "" && !reporting(name) && !textPlumbing(name) && !plumbing(name) {
			return -1
		}
	}
	return -1
}

func find(frames []console.Frame, name string) int {
	for i := range frames {
		if frames[i].Name() == name {
			return i
		}
	}
	return -1
}

// culprit is the innermost function with a subject of its own; of a stack of plumbing, the
// innermost of that.
func culprit(frames []console.Frame, skip func(string) bool) string {
	return culpritFrame(frames, skip).Name()
}

func culpritFrame(frames []console.Frame, skip func(string) bool) *console.Frame {
	var plumber *console.Frame
	for i := range frames {
		f := &frames[i]
		name := f.Name()
		if name == "" {
			continue
		}
		if f.Module != "" {
			if skip == nil || !skip(name) {
				return f
			}
			continue
		}
		switch {
		case systemCall(name):
			return f
		case strings.HasPrefix(name, "el1"): // arm64's door of exceptions that came from the kernel itself
		case textBoundary(name):
			if plumber != nil && (skip == nil || !skip(plumber.Name())) {
				return plumber
			}
			return f // what lies further out did not call it
		case reporting(name):
		case serving(name) || skip != nil && skip(name):
			if plumber == nil {
				plumber = f
			}
		default:
			return f
		}
	}
	if plumber != nil {
		return plumber
	}
	return &console.Frame{}
}

// serving reports whether a function serves everyone.
func serving(name string) bool {
	if rest, ok := strings.CutPrefix(name, "sg_"); ok { // scatterlists, or the SCSI generic driver
		for _, p := range [...]string{"next", "init", "alloc", "free", "miter", "copy", "pcopy", "zero", "chain", "last", "nents", "set", "mark", "unmark", "split", "page_iter", "phys", "dma", "virt"} {
			if strings.HasPrefix(rest, p) {
				return true
			}
		}
		return textPlumbing(name)
	}
	return textPlumbing(name) || plumbing(name)
}

// systemCall reports whether a function is that of one system call.
func systemCall(name string) bool {
	for _, p := range [...]string{"__x64_sys_", "__ia32_sys_", "__se_sys_", "__do_sys_", "__arm64_sys_", "__riscv_sys_", "__s390x_sys_", "__sys_", "SyS_", "SYSC_", "sys_", "compat_SyS_", "C_SYSC_", "ksys_", "__se_compat_sys_"} {
		if strings.HasPrefix(name, p) {
			return true
		}
	}
	return false
}

// function is the function that a report's title names; "" when it is not known.
func function(r *console.Report) string {
	if m := r.Main(); m != nil && m.PC != nil && (r.Kind == console.PageFault || r.Kind == console.Protection || r.Kind == console.DivideError) {
		// It did fault, whatever else it is there for.
		if name := m.PC.Name(); name != "" && !serving(name) && !strings.HasPrefix(name, "__x86_indirect_") {
			return name
		}
	}
	if name := culprit(textFrames(r), nil); name != "" {
		return name
	}
	return r.Function.Name()
}

// in is " in FUNCTION", or nothing.
func in(function string) string {
	if function == "" {
		return ""
	}
	return " in " + function
}

// blameText says where to look first.
func blameText(r *console.Report) *Blame {
	return blameFrames(r, textFrames(r))
}

func blameFrames(r *console.Report, frames []console.Frame) *Blame {
	foreign := map[string]bool{}
	for _, m := range r.Modules {
		foreign[m.Name] = strings.ContainsAny(m.Taints, "OP")
	}
	chosen := culpritFrame(frames, nil)
	var places []Place
	for i := range frames {
		f := &frames[i]
		if f == chosen {
			places = places[:0]
		}
		if f.Symbol != "" {
			places = append(places, Place{f.Name(), f.Module, foreign[f.Module]})
		}
	}
	b := BlameFor(places)
	if b.Function == "" {
		if r.Function.Symbol == "" {
			return nil
		}
		b = BlameFor([]Place{{r.Function.Name(), r.Function.Module, foreign[r.Function.Module]}})
	}
	if b.Function == "" {
		return nil
	}
	return &b
}

// reporting reports whether a function is one of noticing and telling: the sanitizers,
// the watchdogs, traps and their handlers, dumping stacks, panicking.
func reporting(name string) bool {
	if dying(name) || reportingNames[name] || strings.HasSuffix(name, "_panic") || strings.HasSuffix(name, "assertfail") || name == "assfail" ||
		strings.Contains(name, "::") && (strings.HasSuffix(name, "rust_begin_unwind") || strings.HasPrefix(name, "core::panicking")) {
		return true
	}
	name = strings.TrimLeft(name, "_")
	for _, p := range reportingPrefixes {
		if strings.HasPrefix(name, p) {
			return true
		}
	}
	return false
}

var reportingPrefixes = []string{
	"kasan_", "asan_", "hwasan_", "kmsan_", "msan_", "kcsan_", "tsan_", "ubsan_", "sanitizer_", "kfence_", "dump_stack", "dump_backtrace", "show_stack", "show_regs", "show_trace",
	"print_address_description", "print_report", "print_trailer", "print_bad_", "print_usage_bug", "print_circular_bug", "print_deadlock", "print_irq_inversion", "print_unlock_imbalance",
	"print_lock_invalid", "print_freed_lock", "print_shadow", "print_other_cpu_stall", "print_cpu_stall", "object_err", "slab_err", "slab_bug", "slab_fix", "check_bytes", "check_memory_region",
	"warn_slowpath", "warn_", "report_bug", "die_", "do_trap", "do_error_trap", "do_page_fault", "do_translation_fault", "do_mem_abort", "do_kernel_fault", "do_DataAbort", "do_PrefetchAbort",
	"exc_", "asm_exc_", "el1_", "el1h_", "bug_handler", "brk_handler", "do_debug_exception", "do_undefinstr", "do_undef", "do_el1_", "bad_mode", "die_kernel_fault", "handle_BUG", "handle_bug",
	"arch_trigger_", "nmi_trigger_", "nmi_cpu_backtrace", "trigger_single_cpu", "trigger_all_cpu", "rcu_dump_cpu_stacks", "rcu_check_gp", "rcu_sched_clock_irq", "rcu_check_callbacks", "rcu_pending", "check_cpu_stall", "watchdog",
	"debug_print_object", "debug_object", "debug_check_no_obj_freed", "debug_smp_processor_id", "check_preemption_disabled", "might_sleep", "might_resched", "schedule_bug", "lockdep_rcu_suspicious",
	"refcount_error_report", "usercopy_abort", "fortify_panic", "fortify_report", "skb_panic", "skb_over_panic", "skb_under_panic", "fixup_bug", "fixup_exception", "rust_begin_unwind",
	"bad_page", "free_pages_check", "check_free_page", "free_page_is_bad", "check_new_page", "dump_page", "walk_stackframe", "unwind_backtrace", "save_stack", "stack_trace_",
	"oops_", "stack_chk_fail", "check_heap_object", "check_object_size", "spin_bug", "rwlock_bug", "check_slab", "check_object", "free_debug_processing", "alloc_debug_processing", "slab_pad_check",
	"bad_range", "page_fault", "general_protection", "invalid_op", "divide_error", "double_fault", "stack_segment", "error_code", "data_abort", "dabt_", "pabt_", "und_svc", "undef_",
	"vprintk", "printk", "console_unlock", "emit_console", "report_addr", "memory_is_poisoned", "end_report", "start_report", "complete_report_info", "do_report_trap", "do_trap_break", "handle_exception", "ret_from_exception",
	"ret_from_intr", "early_fixup", "panic", "rust_helper_", "kernel_panic", "spin_dump", "handle_overflow", "do_bad_area", "x86_indirect_", "srso_", "retbleed_", "entry_untrain", "clear_bhb", "notify_die", "pkvm_",
}

var reportingNames = set("kasan_report", "bust_spinlocks", "die", "no_context", "__bad_area_nosemaphore", "bad_area", "__do_kernel_fault", "kernelmode_fixup_or_oops", "page_fault_oops", "nmi_panic",
	"debug_show_all_locks", "sched_show_task", "_sched_show_task", "dump_cpu_task", "show_state_filter", "add_taint", "do_invalid_op", "do_int3", "int3", "do_general_protection", "do_divide_error", "trace_hardirqs_off_thunk", "trace_hardirqs_on_thunk",
	"el1_sync", "el1_da", "el1_inv", "el1_dbg", "el1_irq", "el1_error", "el1_abort", "el0_sync", "__dabt_svc", "__und_svc", "__pabt_svc", "__irq_svc", "do_alignment", "do_bad", "do_serror", "arm64_notify_die", "arm64_serror_panic",
	"__warn", "panic", "vpanic", "check_panic_on_warn", "backtrace", "c_backtrace", "kmemleak_alloc", "kmemleak_alloc_percpu", "create_object", "__create_object", "slab_post_alloc_hook",
	"dump_header", "oom_kill_process", "out_of_memory", "__alloc_pages_may_oom", "print_tainted", "__list_add_valid_or_report", "__list_del_entry_valid_or_report", "restore_regs_and_return_to_kernel", "program_check_exception",
	"program_check_common", "data_access_exception", "bad_page_fault", "__do_kernel_fault", "do_exception", "user_fault", "handle_page_fault", "__handle_page_fault", "bad_area_nosemaphore", "fault_in_kernel_space", "__handle_sysrq", "vic_handle")

// textPlumbing are functions that serve everyone, besides those of [plumbing]: what is
// visible in a trace that a symbolizer widened by inlined functions, or on other machines.
func textPlumbing(name string) bool {
	if textPlumbingNames[name] {
		return true
	}
	name = strings.TrimLeft(name, "_")
	for _, p := range textPlumbingPrefixes {
		if strings.HasPrefix(name, p) {
			return true
		}
	}
	return false
}

var textPlumbingPrefixes = []string{
	"atomic_", "atomic64_", "atomic_long_", "arch_atomic", "raw_atomic", "instrument_", "instrumented_", "arch_spin_", "arch_read_", "arch_write_", "do_raw_", "arch_local_irq_", "local_irq_", "local_bh_", "native_",
	"test_bit", "set_bit", "clear_bit", "test_and_", "arch_test_", "arch_set_", "arch_clear_", "bitmap_", "find_next_bit", "find_first_bit", "find_last_bit", "list_", "rcu_read_", "rcu_assign", "rcu_is_watching", "rcu_note_context", "rcu_lockdep",
	"lock_is_held", "lock_acquired", "lock_contended", "lock_downgrade", "lock_set_", "lock_unpin", "match_held_lock", "find_held_lock", "reacquire_held", "check_prev", "check_prevs", "check_noncircular", "check_deadlock", "check_irq_usage", "check_usage", "mark_held", "mark_usage", "mark_irqflags", "register_lock_class", "assign_lock_key", "look_up_lock_class",
	"trace_irq", "trace_hardirqs", "trace_softirqs", "seqcount_", "read_seq", "write_seq", "preempt_count", "get_current", "READ_ONCE", "WRITE_ONCE", "read_once", "write_once", "mem_cgroup_from", "stackdepot_", "unwind_next_frame", "unwind_", "arch_stack_walk", "stack_access_ok", "deref_stack_reg", "update_stack_state", "get_reg",
	"call_rcu", "call_rwsem_", "rwsem_", "down", "vunmap", "vm_unmap", "remove_vm_area", "free_vm", "put_cpu_partial", "flush_cpu_slab", "cmpxchg_double", "free_large_kmalloc", "alloc_frozen_pages", "free_frozen_pages", "alloc_pages", "pcpu_", "percpu_counter", "kmemleak_", "ref_tracker_", "debug_lockdep", "work_is_static", "read_word_at_a_time", "strscpy", "init_timer", "va_format", "print_hex_dump", "hex_dump", "kstrdup", "kasprintf", "kvasprintf", "vasprintf", "compound_head", "device_remove_file", "device_create_file", "seqprop", "alloc_page", "phys_addr", "sk_stop_timer", "proc_register",
	"usb_start_wait_urb", "usb_bulk_msg", "usb_control_msg", "usb_internal_control_msg", "usb_kill_anchored", "hlock_class", "release_sock", "cleanup_srcu", "rb_erase", "aes_",
	"kobject_", "kset_", "klist_", "sysfs_remove", "sysfs_create", "add_uevent_var", "device_add", "device_del", "device_register", "device_unregister", "get_device_parent", "device_private",
	"del_timer", "mod_timer", "add_timer", "timer_is_static", "timer_delete", "lock_timer_base", "timer_shutdown", "try_to_del_timer", "hrtimer_cancel", "hrtimer_start", "hrtimer_try",
	"flush_work", "cancel_work", "cancel_delayed_work", "insert_work", "queue_work", "queue_delayed_work", "flush_delayed", "drain_workqueue", "start_flush_work", "kthread_stop", "finish_wait", "prepare_to_wait", "add_wait_queue", "try_to_grab_pending", "device_destroy", "dpm_sysfs", "devres_release",
	"raw_read", "raw_write", "ioread", "iowrite", "vscnprintf", "dev_printk", "dev_vprintk", "dev_err", "dev_warn", "dev_info", "strn", "strsp", "strcspn", "strpbrk", "print_context_stack", "dump_trace",
	"usb_kill_urb", "usb_submit_urb", "usb_unlink_urb", "usb_poison_urb", "skb_put", "skb_push", "skb_pull", "pskb_", "drop_nlink", "inc_nlink", "set_nlink", "clear_nlink", "ihold", "dput", "fast_dput", "mark_buffer_dirty", "folio_unlock", "unlock_page", "end_page_writeback", "folio_end_writeback",
	"perf_trace_", "trace_lock_", "trace_event_raw", "crc", "save_stack", "stack_access_ok", "task_rq_lock", "lock_sock", "simple_copy_to_iter",
	"raw_copy_", "copy_to_iter", "copy_from_iter", "copy_page_", "iov_iter_copy", "get_user", "put_user", "strncpy_from", "strnlen_user", "clear_user", "arch_copy_", "string_", "hex_", "format_decode", "rep_movs", "memcpy", "qlist_", "quarantine", "cache_alloc", "cache_free", "cache_grow", "slab_", "cache_from_obj",
	"alloc_skb", "kmalloc", "kmem_", "dma_alloc", "fscache", "SCT__", "spin_lock", "write_lock", "read_lock", "mutex", "rwsem", "rtmutex",
}

var textPlumbingNames = set("string", "number", "pointer", "kernel_text_address", "__kernel_text_address", "is_bpf_text_address", "is_module_text_address", "bpf_ksym_find", "core_kernel_text", "iput", "kfree", "kvfree", "vfree", "ksize", "queued_spin_lock_slowpath", "native_queued_spin_lock_slowpath", "pv_queued_spin_lock_slowpath", "nop", "rep_nop", "cpu_relax", "INIT_LIST_HEAD", "get_cpu", "raw_smp_processor_id",
	"virt_to_head_page", "virt_to_cache", "arch_static_branch", "static_key_false", "preempt_schedule_common", "preempt_schedule", "preempt_schedule_irq", "preempt_schedule_thunk", "preempt_schedule_notrace", "___preempt_schedule", "write_comp_data", "csum_partial_copy_generic", "csum_partial", "__const_udelay", "__delay",
	"memchr_inv", "memweight", "sort", "bsearch", "crc32c", "crc32_le", "do_csum", "strim", "kstrdup", "kstrndup", "kmemdup", "kmemdup_noprof", "memdup_user", "vmemdup_user", "kobject_put", "kobject_get", "put_device", "get_device", "kref_put", "kref_get", "fput", "smp_call_function_single_async_dummy")

// textBoundary are the doors into the kernel, besides those of [boundary].
func textBoundary(name string) bool {
	if boundary(name) {
		return true
	}
	for _, p := range [...]string{"system_call", "ret_fast", "invoke_", "kernel_thread", "stub_", "tracesys", "sysenter_", "do_fast_syscall", "ia32_", "int_ret"} {
		if strings.HasPrefix(name, p) {
			return true
		}
	}
	return name == "apic_timer_interrupt" || name == "reschedule_interrupt" || name == "smp_apic_timer_interrupt" || name == "irq_exit" || name == "hrtimer_interrupt"
}
