package explain

import (
	"bytes"
	"strings"
	"testing"

	"inquest/console"
)

// trace is a stack as it ends on x86-64, with some functions in front.
func trace(functions ...string) string {
	var b strings.Builder
	b.WriteString("CPU: 1 PID: 4711 Comm: a.out Not tainted 6.1.0-13-amd64 #1 Debian\nCall Trace:\n <TASK>\n")
	for _, f := range functions {
		b.WriteString(" " + f + "+0x12/0x34\n")
	}
	b.WriteString(" do_syscall_64+0x5b/0x80\n entry_SYSCALL_64_after_hwframe+0x64/0xce\n </TASK>\n")
	return b.String()
}

const atF = "RIP: 0010:tcp_f.isra.0+0x12/0x34 [mod]\nRSP: 0018:ffffc90000013e60 EFLAGS: 00010246\n"

func TestText(t *testing.T) {
	tests := []struct {
		log   string
		class Class
		title string
	}{
		{"BUG: kernel NULL pointer dereference, address: 0000000000000018\n#PF: supervisor read access in kernel mode\nOops: 0000 [#1] SMP\n" + atF + trace("g"),
			NullDereference, "NULL pointer dereference in tcp_f"},
		{"BUG: unable to handle page fault for address: ffffc900003a8ff8\n#PF: supervisor write access in kernel mode\nOops: 0002 [#1] SMP\n" + atF + trace("g"),
			WildPointer, "write to a wild address in tcp_f"},
		{"BUG: unable to handle page fault for address: ffffffffffffffea\nOops: 0000 [#1] SMP\n" + atF + trace("g"), WildPointer, "access to a wild address in tcp_f"},
		{"BUG: kernel NULL pointer dereference, address: 0000000000000000\n#PF: supervisor instruction fetch in kernel mode\nOops: 0010 [#1] SMP\nRIP: 0010:0x0\nCode: Unable to access opcode bytes at 0xffffffffffffffd6.\nRSP: 0018:ffffc90000013e60\n" + trace("ops_call"),
			NullDereference, "call through a NULL function pointer from ops_call"},
		{"general protection fault, probably for non-canonical address 0xdffffc0000000003: 0000 [#1] SMP KASAN\nKASAN: null-ptr-deref in range [0x0000000000000018-0x000000000000001f]\n" + atF + trace("g"),
			NullDereference, "NULL pointer dereference in tcp_f"},
		{"general protection fault, probably for non-canonical address 0xdffffc0000000003: 0000 [#1] SMP\n" + atF + trace("g"), NullDereference, "NULL pointer dereference in tcp_f"},
		// mov (%rax),%rsi
		{"general protection fault: 0000 [#1] SMP\n" + atF + "Code: 90 <48> 8b 30 90\nRAX: dead000000000100 RBX: 0000000000000000\n" + trace("g"), WildPointer, "read from a wild address in tcp_f"},
		// idiv %ecx
		{"divide error: 0000 [#1] SMP\n" + atF + "Code: 99 <f7> f9 90\nRAX: 00000000000003e8 RBX: 0000000000000003 RCX: 0000000000000000\n" + trace("g"), DivideError, "division by zero in tcp_f"},
		{"------------[ cut here ]------------\nkernel BUG at net/core/x.c:12!\ninvalid opcode: 0000 [#1] SMP\n" + atF + trace("g"), Bug, "BUG in tcp_f"},
		{"list_del corruption. prev->next should be ffff8e695f958058, but was 0000000000000000\n------------[ cut here ]------------\nkernel BUG at lib/list_debug.c:54!\ninvalid opcode: 0000 [#1] SMP\nRIP: 0010:__list_del_entry_valid.cold+0x1/0x2\n" + trace("nft_set_destroy"),
			ListCorruption, "corrupted list, found when deleting from it in nft_set_destroy"},
		{"------------[ cut here ]------------\nrefcount_t: underflow; use-after-free.\nWARNING: CPU: 1 PID: 4711 at lib/refcount.c:28 refcount_warn_saturate+0xba/0x110\nRIP: 0010:refcount_warn_saturate+0xba/0x110\n" + trace("kobject_put", "cdev_put"),
			RefCount, "underflow; use-after-free in cdev_put"},
		{"------------[ cut here ]------------\nWARNING: CPU: 1 PID: 4711 at net/x.c:28 tcp_f+0xba/0x110\nRIP: 0010:tcp_f+0xba/0x110\n" + trace("g") + "Kernel panic - not syncing: panic_on_warn set ...\n", Warning, "warning in tcp_f, which panic_on_warn made fatal"},
		{"BUG: KASAN: slab-use-after-free in __list_del_entry_valid+0x12/0x34\nRead of size 8 at addr ffff888012345678 by task a.out/4711\n" + trace("dump_stack_lvl", "kasan_report", "__list_del_entry_valid", "nft_set_destroy") +
			"\nAllocated by task 4711:\n kasan_save_stack+0x1/0x2\n __kmalloc+0x1/0x2\n nft_set_new+0x1/0x2\n\nFreed by task 4711:\n kasan_save_stack+0x1/0x2\n kfree+0x1/0x2\n nft_set_gone+0x1/0x2\n", UseAfterFree, "use-after-free in nft_set_destroy"},
		{"BUG: KASAN: slab-out-of-bounds in memcpy+0x12/0x34\nWrite of size 8 at addr ffff888012345678 by task a.out/4711\n" + trace("kasan_report", "memcpy", "ea_set"), OutOfBounds, "out-of-bounds write in ea_set"},
		{"BUG: KFENCE: use-after-free read in f+0x1/0x2\n\nUse-after-free read at 0x00000000f3f4a1b2 (in kfence-#12):\n f+0x1/0x2\n g+0x1/0x2\n", UseAfterFree, "use-after-free in f"},
		{"BUG: KCSAN: data-race in b / a\n\nwrite to 0xffff888012345678 of 8 bytes by task 1 on cpu 0:\n b+0x1/0x2\n g+0x1/0x2\n\nread to 0xffff888012345678 of 8 bytes by task 2 on cpu 1:\n a+0x1/0x2\n", Bug, "data race between a and b"},
		{"UBSAN: array-index-out-of-bounds in net/x.c:12:3\nindex 5 is out of range for type 'u8 [4]'\n" + trace("dump_stack", "ubsan_epilogue", "__ubsan_handle_out_of_bounds", "f"), OutOfBounds, "array index out of bounds in f"},
		{"BUG kmalloc-64 (Not tainted): Poison overwritten\n-----------------\nINFO: Allocated in nft_new+0x1/0x2 age=1 cpu=0 pid=1\nINFO: Freed in nft_gone+0x1/0x2 age=1 cpu=0 pid=1\n" + trace("check_bytes_and_report", "alloc_debug_processing", "kmem_cache_alloc", "other"),
			UseAfterFree, "write to a freed object, last used in nft_gone"},
		{"watchdog: BUG: soft lockup - CPU#1 stuck for 22s! [a.out:4711]\nCPU: 1 PID: 4711 Comm: a.out Not tainted 6.1.0 #1\nRIP: 0010:native_queued_spin_lock_slowpath+0x1/0x2\nCall Trace:\n _raw_spin_lock+0x1/0x2\n fq_dequeue+0x1/0x2\n", SoftLockup, "soft lockup in fq_dequeue"},
		{"INFO: task a.out:4711 blocked for more than 120 seconds.\n      Not tainted 6.1.0 #1\ntask:a.out state:D stack:0 pid:4711 ppid:1 flags:0x00000000\nCall Trace:\n __schedule+0x1/0x2\n schedule+0x1/0x2\n rwsem_down_read_slowpath+0x1/0x2\n ext4_map_blocks+0x1/0x2\n", HungTask, "task blocked for too long in ext4_map_blocks"},
		{"rcu: INFO: rcu_sched self-detected stall on CPU\nrcu: \t1-....: (1 GPs behind)\nNMI backtrace for cpu 1\nCPU: 1 PID: 4711 Comm: a.out Not tainted 6.1.0 #1\nCall Trace:\n <IRQ>\n dump_stack+0x1/0x2\n rcu_dump_cpu_stacks+0x1/0x2\n rcu_sched_clock_irq+0x1/0x2\n update_process_times+0x1/0x2\n asm_sysvec_apic_timer_interrupt+0x1/0x2\n </IRQ>\nRIP: 0010:d_walk+0x1/0x2\n shrink_f+0x1/0x2\n",
			RCUStall, "RCU grace period stalled in d_walk"},
		{"WARNING: possible circular locking dependency detected\n6.1.0 #1 Not tainted\n------\na.out/1 is trying to acquire lock:\nffff888012345678 (&a){+.+.}-{3:3}, at: tcp_f+0x1/0x2\n\nbut task is already holding lock:\nffff888012345670 (&b){+.+.}-{3:3}, at: g+0x1/0x2\n-> #0 (&a){+.+.}-{3:3}:\n lock_acquire+0x1/0x2\n\nstack backtrace:\n" + trace("dump_stack", "check_noncircular", "lock_acquire", "tcp_f"), Deadlock, "possible deadlock in tcp_f"},
		{"BUG: scheduling while atomic: a.out/4711/0x00000002\n" + trace("dump_stack_lvl", "__schedule_bug", "__schedule", "schedule", "ath_f"), Bug, "scheduling while atomic in ath_f"},
		{"BUG: sleeping function called from invalid context at mm/slab.h:421\nin_atomic(): 1\n" + trace("dump_stack_lvl", "__might_resched", "kmem_cache_alloc", "ath_f"), Bug, "sleep in atomic context in ath_f"},
		{"BUG: TASK stack guard page was hit at ffffc90000a1fff8 (stack is ffffc90000a20000..ffffc90000a24000)\nstack guard page: 0000 [#1] SMP\n" + atF + trace("recurse", "recurse", "recurse", "recurse", "g"), StackOverflow, "kernel stack overflow in recurse"},
		{"Kernel panic - not syncing: stack-protector: Kernel stack is corrupted in: ip6_f+0x1/0x2\n", StackOverflow, "stack protector found a smashed stack in ip6_f"},
		{"sysrq: Trigger a crash\nKernel panic - not syncing: sysrq triggered crash\n" + trace("panic", "sysrq_handle_crash"), UserPanic, "somebody crashed the machine on purpose, by sysrq"},
		{"Kernel panic - not syncing: Attempted to kill init! exitcode=0x0000000b\n" + trace("panic", "do_exit"), Unknown, "init died, and a kernel cannot go on without it"},
		{"Kernel panic - not syncing: System is deadlocked on memory\n", OutOfMemory, "the machine ran out of memory"},
		{"mce: [Hardware Error]: CPU 2: Machine Check Exception: 5 Bank 4: be00000000800400\nKernel panic - not syncing: Fatal machine check\n", MachineCheck, "machine check: the hardware reported an error it could not correct"},
		{"mce: [Hardware Error]: CPU 2: Machine Check: 0 Bank 5: 8c00004000010092\n", MachineCheck, "machine check: the hardware corrected an error"},
		{"mce: [Hardware Error]: CPU 2: Machine Check: 0 Bank 5: ac00004000010092\n", MachineCheck, "machine check: the hardware reported an error it could not correct"},
		{"traps: PANIC: double fault, error_code: 0x0\ndouble fault: 0000 [#1] SMP\n" + atF + trace("g"), DoubleFault, "double fault in tcp_f"},
		{"BUG: Bad page state in process a.out  pfn:12345\npage dumped because: nonzero mapcount\n" + trace("dump_stack_lvl", "bad_page", "free_pcp_prepare", "tcp_f"), Bug, "a page was freed that is still in use in tcp_f"},
		{"BUG: workqueue lockup - pool cpus=0 node=0 flags=0x0 nice=0 stuck for 30s!\nShowing busy workqueues and worker pools:\n", HungTask, "a workqueue made no progress"},
		{"Unable to handle kernel NULL pointer dereference at virtual address 0000000000000010\nMem abort info:\nInternal error: Oops: 96000006 [#1] SMP\nCPU: 1 PID: 4711 Comm: a.out Not tainted 6.1.0 #1\npc : tcp_f+0x12/0x34 [mod]\nlr : g+0x12/0x34\nx29: ffff80000aff39f0 x28: fbff0000236abf00\nCall trace:\n tcp_f+0x12/0x34 [mod]\n g+0x1/0x2\n", NullDereference, "NULL pointer dereference in tcp_f"},
		{"BUG: Kernel NULL pointer dereference on read at 0x00000010\nFaulting instruction address: 0xc0000000007d2a5c\nOops: Kernel access of bad area, sig: 11 [#1]\nNIP [c0000000007d2a5c] tcp_f+0x1c/0x50\nLR [c0000000007d2a40] g+0x10/0x50\nCall Trace:\n[c000000002b7fb10] [c0000000001b5a2c] g+0x68/0xf0\n", NullDereference, "NULL pointer dereference in tcp_f"},
		{"Unable to handle kernel access to user memory without uaccess routines at virtual address 0000000000000118\nOops [#1]\nCPU: 0 PID: 1 Comm: a.out Not tainted 6.1.0 #1\nepc : tcp_f+0x12/0x34\n ra : g+0x1/0x2\nepc : ffffffff80012345 ra : ffffffff80012340 sp : ff20000000013e60\n[<ffffffff80012345>] tcp_f+0x12/0x34\n", NullDereference, "NULL pointer dereference in tcp_f"},
		{"Unable to handle kernel pointer dereference in virtual kernel address space\nFailing address: 0000000000000000 TEID: 0000000000000483\nOops: 0004 ilc:2 [#1] SMP\nKrnl PSW : 0704c00180000000 000000000012bb5e (tcp_f+0x26/0x40 [mod])\nCall Trace:\n([<000000000012bb5e>] tcp_f+0x26/0x40 [mod])\n [<000000000012bb00>] g+0x1/0x2\n", WildPointer, "access to a wild address in tcp_f"},
		{"8<--- cut here ---\nUnable to handle kernel NULL pointer dereference at virtual address 00000004\nInternal error: Oops: 17 [#1] SMP ARM\nPC is at tcp_f+0x12/0x34\nLR is at g+0x1/0x2\nBacktrace:\n[<c010e4e8>] (tcp_f) from [<c010ab2c>] (g+0x10/0x14)\n", NullDereference, "NULL pointer dereference in tcp_f"},
		{"PID: 1234     TASK: ffff9a3c40f18000  CPU: 3    COMMAND: \"bash\"\n #0 [ffffb8a1c1b3bb78] machine_kexec at ffffffff9146156e\n #1 [ffffb8a1c1b3bbd0] crash_kexec at ffffffff9158f99d\n #2 [ffffb8a1c1b3bda0] page_fault at ffffffff91e010fe\n    [exception RIP: sysrq_handle_crash+22]\n #3 [ffffb8a1c1b3be60] __handle_sysrq at ffffffff91723e15\n", UserPanic, "somebody crashed the machine on purpose, by sysrq"},
	}
	for _, tt := range tests {
		l, err := console.Read(strings.NewReader(tt.log))
		if err != nil {
			t.Fatal(err)
		}
		head, _, _ := strings.Cut(tt.log, "\n")
		found := NewText(l).Findings()
		if len(found) == 0 {
			t.Errorf("%s: no finding", head)
			continue
		}
		if f := found[0]; f.Class != tt.class || f.Title != tt.title {
			t.Errorf("%s:\n got %s: %s\nwant %s: %s", head, f.Class, f.Title, tt.class, tt.title)
		}
	}
}

// Of several reports the first serious one is the cause, a warning shortly in front of it
// before that; what an earlier boot or another machine had is another matter.
func TestTextCause(t *testing.T) {
	at := func(prefix, log string) string {
		var b strings.Builder
		for line := range strings.Lines(log) {
			b.WriteString(prefix + line)
		}
		return b.String()
	}
	warn := "WARNING: CPU: 1 PID: 1 at a.c:1 net_f+0x1/0x2\nRIP: 0010:net_f+0x1/0x2\n" + trace("g") + "---[ end trace 0 ]---\n"
	oops := func(function string) string {
		return "BUG: kernel NULL pointer dereference, address: 0000000000000018\nOops: 0000 [#1] SMP\nRIP: 0010:" + function + "+0x1/0x2\n" + trace("g") + "---[ end trace 0 ]---\n"
	}
	boot := "[    0.000000] Linux version 6.1.0 (gcc)\n"
	tests := []struct{ name, log, title string }{
		{"the second oops follows from the first", at("[   10.000000] ", oops("first")) + at("[   11.000000] ", oops("second")), "NULL pointer dereference in first"},
		{"a warning just before", at("[   10.000000] ", warn) + at("[   10.500000] ", oops("died")), "warning in net_f"},
		{"a warning long before", at("[   10.000000] ", warn) + at("[ 9000.500000] ", oops("died")), "NULL pointer dereference in died"},
		{"only a warning", at("[   10.000000] ", warn), "warning in net_f"},
		{"the boot before", boot + at("[   10.000000] ", oops("before")) + boot + at("[   10.000000] ", oops("now")), "NULL pointer dereference in now"},
		{"the boot after warns", boot + at("[   10.000000] ", oops("before")) + boot + at("[   10.000000] ", warn), "NULL pointer dereference in before"},
	}
	for _, tt := range tests {
		l, err := console.Read(strings.NewReader(tt.log))
		if err != nil {
			t.Fatal(err)
		}
		found := NewText(l).Findings()
		if len(found) == 0 || found[0].Title != tt.title {
			t.Errorf("%s: %+v, want %s", tt.name, found, tt.title)
		}
	}
}

// A stack that is that of a known bug says so, and that the code is not known.
func TestTextKnown(t *testing.T) {
	log := "------------[ cut here ]------------\nrefcount_t: underflow; use-after-free.\nWARNING: CPU: 1 PID: 4711 at lib/refcount.c:28 refcount_warn_saturate+0xba/0x110\nRIP: 0010:refcount_warn_saturate+0xba/0x110\n" +
		trace("nf_queue_entry_release_refs", "nf_reinject", "nfqnl_recv_verdict")
	l, err := console.Read(strings.NewReader(log))
	if err != nil {
		t.Fatal(err)
	}
	f := NewText(l).Findings()[0]
	if f.Advisory == nil || f.Advisory.ID != "nf-queue-request-sock" || f.Advisory.Code != "unknown" || len(f.Advice) == 0 {
		t.Errorf("%+v", f)
	}
	if f.Blame == nil || f.Blame.Subsystem != "netfilter" || f.Signature == "" {
		t.Errorf("blame %+v, signature %q", f.Blame, f.Signature)
	}
}

func FuzzText(f *testing.F) {
	f.Add([]byte("BUG: kernel NULL pointer dereference, address: 0000000000000018\nOops: 0000 [#1] SMP\n" + atF + "Code: 90 <48> 8b 30 90\n" + trace("g")))
	f.Add([]byte("rcu: INFO: rcu_sched self-detected stall on CPU\nNMI backtrace for cpu 1\nCall Trace:\n f+0x1/0x2\n apic_timer_interrupt+0x1/0x2\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		l, err := console.Read(bytes.NewReader(text))
		if err != nil {
			t.Fatal(err)
		}
		c := NewText(l)
		for _, finding := range c.Findings() {
			if finding.Title == "" || finding.Class == "" || finding.Analyzer == "" {
				t.Errorf("%+v", finding)
			}
		}
		c.Stack()
	})
}
