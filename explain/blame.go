package explain

import (
	"fmt"
	"strings"

	"inquest/stack"
)

// Blame is where to look first: not the function that noticed the damage, but the
// innermost one that has a subject of its own.
type Blame struct {
	Function  string   `json:"function"` // without the compiler's suffixes
	Module    string   `json:"module,omitempty"`
	Subsystem string   `json:"subsystem,omitempty"`
	Why       []string `json:"why,omitempty"` // what spoke for another function, and why it does not count
}

// Place is a function on a stack, as a name alone.
type Place struct {
	Function string
	Module   string // "" for the kernel itself
	Foreign  bool   // the module is out of tree or proprietary (taints O, P)
}

// reach is how many functions with a subject of their own may lie between the innermost
// of them and one of a foreign module that is blamed instead.
const reach = 3

// BlameFor chooses from a stack, innermost function first. Functions that end the kernel
// and those that serve everyone (allocator, lists, locks, reference counts, strings)
// are skipped: they were handed what was wrong. A foreign module not far outside of
// the function that is left is the more likely one of the two.
func BlameFor(places []Place) Blame {
	var skipped []string
	own := -1
	near := 0
	for i, p := range places {
		name := base(p.Function)
		inKernel := p.Module == ""
		if inKernel && boundary(name) && own >= 0 || near > reach {
			break // what lies further out did not call this
		}
		switch {
		case name == "" || dying(name) || inKernel && boundary(name):
			continue
		case inKernel && plumbing(name):
			if own < 0 && len(skipped) < 4 {
				skipped = append(skipped, name)
			}
			continue
		}
		if own < 0 {
			own = i
		}
		if p.Foreign {
			return blame(places, own, i, skipped)
		}
		near++
	}
	if own < 0 { // a stack of plumbing: its innermost function is all there is
		for i, p := range places {
			if name := base(p.Function); name != "" && !dying(name) {
				return blame(places, i, i, nil)
			}
		}
		return Blame{}
	}
	return blame(places, own, own, skipped)
}

func blame(places []Place, own, chosen int, skipped []string) Blame {
	p := places[chosen]
	b := Blame{Function: base(p.Function), Module: p.Module}
	b.Subsystem = Subsystem(b.Function, p.Module)
	if len(skipped) > 0 {
		b.Why = append(b.Why, strings.Join(skipped, ", ")+" only did what it was asked to")
	}
	if chosen != own {
		b.Why = append(b.Why, fmt.Sprintf("%s is from outside the kernel, and called %s", p.Module, base(places[own].Function)))
	}
	return b
}

// places are the frames of a stack from one of them outwards, with the functions that a
// tail call removed where the arguments were worked out.
func (c *Case) places(frames []stack.Frame) []Place {
	if len(frames) == 0 {
		return nil
	}
	foreign := c.foreignModules()
	var all []Place
	for i := range frames {
		f := &frames[i]
		if f.Guess {
			continue
		}
		all = append(all, Place{f.Symbol.Name, f.Symbol.Module, foreign[f.Symbol.Module]})
		for _, t := range f.Tail {
			if !t.OneOf {
				all = append(all, Place{t.Symbol.Name, t.Symbol.Module, foreign[t.Symbol.Module]})
			}
		}
	}
	return all
}

// foreignModules are those with taint O or P (struct module.taints).
func (c *Case) foreignModules() map[string]bool {
	foreign := map[string]bool{}
	mods, _ := c.Kernel.Modules() // those that can be read
	for _, m := range mods {
		if strings.ContainsAny(m.Taints, "OP") {
			foreign[m.Name] = true
		}
	}
	return foreign
}

// blameFinding says whom a finding points at: the function that the analyzer found, or
// the one that the stack shows it happened in.
func (c *Case) blameFinding(f *Finding) {
	if f.Blame != nil || f.Class == OutOfMemory || f.Class == UserPanic || f.Class == MachineCheck {
		return // no function did that
	}
	var frames []stack.Frame
	switch {
	case f.stack != nil:
		frames = f.stack
	case c.Crash != nil && c.Crash.Trace != nil:
		c.arguments(nil)
		frames = c.Crash.Trace.Frames[min(c.Crash.Culprit, len(c.Crash.Trace.Frames)):]
	}
	places := c.places(frames)
	if f.culprit != "" {
		for i, p := range places {
			if base(p.Function) == f.culprit {
				places = places[i:]
				break
			}
		}
		if len(places) == 0 || base(places[0].Function) != f.culprit { // a tail call left no frame of it
			p := Place{Function: f.culprit}
			if sym, err := c.Kernel.Lookup(f.culprit); err == nil {
				p.Module, p.Foreign = sym.Module, c.foreignModules()[sym.Module]
			}
			places = append([]Place{p}, places...)
		}
	}
	if b := BlameFor(places); b.Function != "" {
		f.Blame = &b
	}
}

// plumbing reports whether a function serves everyone: what goes wrong in it was
// prepared by its caller.
func plumbing(function string) bool {
	if plumbingNames[function] {
		return true
	}
	name := strings.TrimLeft(function, "_")
	for _, p := range plumbingPrefixes {
		if strings.HasPrefix(name, p) {
			return true
		}
	}
	return false
}

// plumbingPrefixes are how the names of such functions begin, behind underscores.
var plumbingPrefixes = []string{
	// memory: mm/slub.c, page_alloc.c, vmalloc.c, util.c, swap.c
	"kmem_cache_", "slab_", "kmalloc", "kzalloc", "kcalloc", "kvmalloc", "kvfree", "kfree", "krealloc", "vfree", "vmalloc", "vzalloc",
	"free_pages", "free_unref_", "free_one_page", "free_pcp", "free_slab", "alloc_pages", "get_free_pages", "get_page_from_freelist",
	"rmqueue", "put_page", "folio_put", "page_frag_", "put_partials", "discard_slab", "allocate_slab", "new_slab", "unfreeze_partials",
	"deactivate_slab", "object_err", "print_trailer", "check_slab", "check_object", "check_bytes", "init_object", "free_to_partial",
	"free_debug_processing", "alloc_debug_processing", "free_consistency_checks", "alloc_consistency_checks", "bad_page", "free_tail_pages",
	"free_frozen_page", "rcu_free_slab", "usercopy_", "check_object_size", "check_heap_object", "copy_from_user", "copy_to_user", "copy_user_",
	"fortify_", "mempool_", "percpu_ref_", "kasan_", "asan_", "hwasan_", "kfence_", "kcsan_", "tsan_", "kmsan_", "msan_", "ubsan_",
	// counts and structures: lib/
	"refcount_", "kref_", "list_add", "list_del", "list_move", "hlist_", "plist_", "llist_", "rb_", "rbt_", "xa_", "xas_", "mas_", "mtree_", "idr_",
	"ida_", "radix_tree_", "rhashtable_", "rht_", "debug_object_", "debug_check_no_obj_freed", "stack_depot_", "sg_alloc_table", "sg_free_table", "sg_next", "sg_copy_", "sg_miter_",
	// locks: kernel/locking
	"raw_spin_", "raw_read_", "raw_write_", "spin_", "queued_", "native_queued_", "pv_queued_", "mutex_", "ww_mutex_", "rwsem_", "down_", "up_read", "up_write",
	"rt_mutex_", "rtmutex_", "rwbase_", "percpu_down_", "percpu_up_", "percpu_rwsem_", "lock_acquire", "lock_release", "lockdep_", "osq_", "mcs_", "do_raw_spin_",
	"do_raw_read_", "do_raw_write_", "rcu_lock_", "check_wait_context", "mark_lock", "validate_chain", "print_lock", "print_usage_bug", "print_circular_bug", "print_deadlock_bug",
	// waiting
	"schedule", "io_schedule", "wait_for_completion", "wait_for_common", "do_wait_", "wait_event", "context_switch", "switch_to", "preempt_schedule", "cond_resched",
	"might_sleep", "might_resched", "might_fault", "msleep", "usleep_", "fsleep", "bit_wait", "wait_on_bit", "out_of_line_wait_on_bit", "folio_wait_bit", "wait_on_page_bit",
	// telling of it: lib/dump_stack.c, kernel/printk, panic.c
	"dump_stack", "show_stack", "show_regs", "show_trace", "print_report", "print_address_description", "warn", "vprintk", "printk", "console_", "stack_chk_fail",
	"slab_err", "slab_bug", "slab_fix", "dump_page", "dump_header", "oom_kill_process", "out_of_memory", "stack_trace_", "check_flags",
	// strings
	"memcpy", "memset", "memmove", "memcmp", "memchr", "memdup", "memscan", "strlen", "strcpy", "strncpy", "strscpy", "strlcpy", "strcmp", "strncmp", "strcat", "strlcat",
	"strchr", "strrchr", "strstr", "strnlen", "strsep", "vsnprintf", "snprintf", "sprintf", "scnprintf", "string_nocheck", "clear_page", "copy_page", "csum_partial", "rep_movs", "rep_stos",
	// doors between code and code: kernel/entry, static calls, notifiers, tracing
	"x86_indirect_", "SCT__", "SCK__", "notifier_call_chain", "blocking_notifier_", "raw_notifier_", "ftrace_", "kprobe_", "bpf_trampoline_", "srso_", "retbleed_",
	"pfx_", "cfi_",
}

// plumbingNames are such functions that no prefix fits.
var plumbingNames = set("find_get_context", "delay_tsc", "__udelay", "ktime_get", "cpu_relax", "rep_nop", "native_write_cr4", "native_write_cr0",
	"wake_up_process", "try_to_wake_up", "__wake_up", "__wake_up_common", "__wake_up_common_lock", "complete", "complete_all", "swake_up_locked", "down",
	"default_wake_function", "autoremove_wake_function", "up", "call_rcu", "kvfree_call_rcu", "synchronize_rcu", "container_of", "find_vm_area",
	"panic", "no_context", "iov_iter_copy_from_user", "_copy_from_iter", "_copy_to_iter", "copyin", "copyout", "copy_page_from_iter", "nmi_cpu_backtrace",
	"nmi_trigger_cpumask_backtrace", "trigger_single_cpu_backtrace", "rcu_dump_cpu_stacks", "sched_show_task", "debug_show_all_locks", "percpu_counter_add_batch",
	"cpuidle_enter_state", "cpuidle_enter", "call_cpuidle", "intel_idle", "acpi_idle_enter", "mwait_idle", "default_idle", "default_idle_call", "native_halt", "arch_cpu_idle", "acpi_safe_halt", "acpi_idle_do_entry", "pv_native_safe_halt")

// boundary reports whether a function is one by which everything in the kernel begins.
func boundary(function string) bool {
	if boundaryNames[function] {
		return true
	}
	for _, p := range [...]string{"entry_", "__x64_sys_", "__ia32_sys_", "__se_sys_", "__do_sys_", "ksys_", "ret_from_", "el0", "el1", "__arm64_sys_", "do_el0", "asm_", "secondary_startup"} {
		if strings.HasPrefix(function, p) {
			return true
		}
	}
	return false
}

var boundaryNames = set("do_syscall_64", "x64_sys_call", "ia32_sys_call", "do_int80_emulation", "do_fast_syscall_32", "kthread", "worker_thread", "process_one_work",
	"process_scheduled_works", "run_workqueue", "rescuer_thread", "smpboot_thread_fn", "kthread_worker_fn", "cpu_startup_entry", "do_idle", "cpu_idle",
	"start_secondary", "start_kernel", "rest_init", "x86_64_start_kernel", "x86_64_start_reservations", "arch_call_rest_init", "kernel_init", "invoke_syscall",
	"el0_svc_common", "do_el0_svc", "__do_softirq", "handle_softirqs", "do_softirq", "do_softirq_own_stack", "irq_exit_rcu", "irq_exit", "__irq_exit_rcu",
	"invoke_softirq", "run_ksoftirqd", "syscall_exit_to_user_mode", "exit_to_user_mode_prepare", "exit_to_user_mode_loop", "task_work_run", "do_one_initcall", "do_init_module",
	"load_module", "idempotent_init_module", "init_module_from_file", "do_initcalls", "kernel_init_freeable", "run_init_process", "call_timer_fn", "run_timer_softirq", "__run_timers", "expire_timers",
	"rcu_do_batch", "rcu_core", "rcu_core_si", "rcu_process_callbacks", "rcu_nocb_cb_kthread", "tasklet_action_common", "tasklet_action", "do_group_exit", "get_signal",
	"arch_do_signal_or_restart", "generic_handle_irq", "handle_irq_event", "__handle_irq_event_percpu", "handle_irq_event_percpu", "handle_edge_irq", "handle_fasteoi_irq", "common_interrupt", "__common_interrupt", "do_IRQ",
	"irq_thread", "irq_thread_fn", "irq_forced_thread_fn", "call_on_stack", "call_softirq", "common_startup_64", "system_call_fastpath", "ret_fast_syscall", "do_exit", "__fput", "____fput")
