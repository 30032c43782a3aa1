package console

import "testing"

// A line of each kind, as the kernels of the field write it.
func TestOpens(t *testing.T) {
	tests := []struct {
		line string
		kind Kind // "": opens nothing
	}{
		{"BUG: kernel NULL pointer dereference, address: 0000000000000040", PageFault},
		{"BUG: unable to handle kernel NULL pointer dereference at 0000000000000008", PageFault},
		{"BUG: unable to handle kernel paging request at ffff88002bde1e40", PageFault},
		{"BUG: unable to handle page fault for address: ffffc900003a8ff8", PageFault},
		{"Unable to handle kernel NULL pointer dereference at virtual address 0000000000000010", PageFault},
		{"Unable to handle kernel paging request at virtual address dead000000000108", PageFault},
		{"Unable to handle kernel access to user memory without uaccess routines at virtual address 0000000000000118", PageFault},
		{"BUG: Kernel NULL pointer dereference on read at 0x00000000", PageFault},
		{"BUG: Unable to handle kernel data access on write at 0xc00a000000000200", PageFault},
		{"Unable to handle kernel pointer dereference in virtual kernel address space", PageFault},
		{"CPU 0 Unable to handle kernel paging request at virtual address 00000004, epc == 80012345, ra == 80054321", PageFault},
		{"general protection fault: 0000 [#1] SMP", Protection},
		{"general protection fault, probably for non-canonical address 0xdffffc0000000003: 0000 [#1] PREEMPT SMP KASAN", Protection},
		{"Oops: general protection fault, probably for non-canonical address 0xdead000000000122: 0000 [#1] SMP", Protection},
		{"traps: PANIC: double fault, error_code: 0x0", DoubleFault},
		{"invalid opcode: 0000 [#1] SMP NOPTI", InvalidOpcode},
		{"Oops: invalid opcode: 0000 [#1] SMP", InvalidOpcode},
		{"divide error: 0000 [#1] SMP", DivideError},
		{"int3: 0000 [#1] SMP", Trap},
		{"Internal error: Oops: 96000004 [#1] SMP", Trap},
		{"Internal error: Oops - BUG: 0 [#1] PREEMPT SMP ARM", Trap},
		{"Oops: Kernel access of bad area, sig: 11 [#1]", Trap},
		{"addressing exception: 0005 ilc:2 [#1] SMP", Trap},
		{"BUG: stack guard page was hit at 00000000d8a2a5c4 (stack is 000000002ff9d6a6..00000000ad16368f)", StackGuard},
		{"BUG: TASK stack guard page was hit at ffffc90000a1fff8 (stack is ffffc90000a20000..ffffc90000a24000)", StackGuard},
		{"kernel BUG at mm/slub.c:419!", BUG},
		{"WARNING: CPU: 1 PID: 24071 at drivers/a/b.c:73 f+0x2db/0x380", Warning},
		{"WARNING: fs/ext4/xattr.c:1058 at f+0x2db/0x380, CPU#0: a.out/5982", Warning},
		{"WARNING: [time_after(jiffies, timeout)] io_uring/io_uring.c:3026 at f+0x44c/0xbc0, CPU#0: kworker/u8:0/10040", Warning},
		{"BUG: KASAN: slab-use-after-free in f+0x302a/0x3b50", KASAN},
		{"BUG: KASAN: double-free or invalid-free", KASAN},
		{"BUG: KFENCE: out-of-bounds read in f+0xa3/0x22b", KFENCE},
		{"BUG: KMSAN: uninit-value in f+0x20e2/0x60f0", KMSAN},
		{"BUG: KCSAN: data-race in a / b", KCSAN},
		{"UBSAN: array-index-out-of-bounds in drivers/a/b.c:73:12", UBSAN},
		{"watchdog: BUG: soft lockup - CPU#1 stuck for 22s! [a.out:158]", SoftLockup},
		{"NMI watchdog: Watchdog detected hard LOCKUP on cpu 3", HardLockup},
		{"watchdog: CPU3: Watchdog detected hard LOCKUP on cpu 3", HardLockup},
		{"INFO: task a.out:160 blocked for more than 120 seconds.", HungTask},
		{"INFO: task a.out:160 blocked in I/O wait for more than 120 seconds.", HungTask},
		{"rcu: INFO: rcu_preempt detected stalls on CPUs/tasks:", RCUStall},
		{"rcu: INFO: rcu_sched self-detected stall on CPU", RCUStall},
		{"INFO: rcu_sched self-detected stall on CPU { 0}  (t=15000 jiffies g=1 c=1 q=2)", RCUStall},
		{"rcu: INFO: rcu_preempt detected expedited stalls on CPUs/tasks: { 1-...D } 42 jiffies s: 1 root: 0x2/.", RCUStall},
		{"mce: [Hardware Error]: CPU 2: Machine Check Exception: 5 Bank 4: be00000000800400", MachineCheck},
		{"NMI: PCI system error (SERR) for reason a1 on CPU 0.", NMI},
		{"Uhhuh. NMI received for unknown reason 3d on CPU 0.", NMI},
		{"Out of memory: Killed process 1234 (a.out) total-vm:1kB, anon-rss:1kB", OutOfMemory},
		{"Memory cgroup out of memory: Killed process 1234 (a.out) total-vm:1kB", OutOfMemory},
		{"Kernel panic - not syncing: Fatal exception", Panic},
		{"Kernel panic - not syncing: stack-protector: Kernel stack is corrupted in: f+0x1/0x2", StackProtector},
		{"Kernel panic - not syncing: corrupted stack end detected inside scheduler", StackEnd},
		{"list_del corruption. prev->next should be ffff8e695f958058, but was 0000000000000000", List},
		{"refcount_t: underflow; use-after-free.", RefCount},
		{"usercopy: Kernel memory exposure attempt detected from SLUB object 'kmalloc-64' (offset 0, size 128)!", UserCopy},
		{"detected buffer overflow in strlen", Fortify},
		{"memcpy: detected field-spanning write (size 20) of single field \"x\" at f.c:1 (size 8)", Fortify},
		{"strnlen: detected buffer overflow: 8 byte read of buffer size 4", Fortify},
		{"BUG kmalloc-64 (Not tainted): Poison overwritten", Slab},
		{"BUG skbuff_head_cache (Tainted: G    B  ): Object already free", Slab},
		{"BUG: Bad page state in process a.out  pfn:12345", BadPage},
		{"BUG: Bad page map in process a.out  pte:1 pmd:2", BadPage},
		{"BUG: workqueue lockup - pool cpus=0 node=0 flags=0x0 nice=0 stuck for 30s!", Workqueue},
		{"BUG: scheduling while atomic: a.out/21395/0x00000201", Atomic},
		{"BUG: sleeping function called from invalid context at mm/slab.h:421", Atomic},
		{"BUG: using smp_processor_id() in preemptible [00000000] code: a.out/1234", Preemptible},
		{"WARNING: possible circular locking dependency detected", Lockdep},
		{"[ INFO: possible recursive locking detected ]", Lockdep},
		{"WARNING: inconsistent lock state", Lockdep},
		{"WARNING: suspicious RCU usage", RCUUsage},
		{"BUG: spinlock bad magic on CPU#0, swapper/0/1", LockUse},
		{"unreferenced object 0xffff8881d2bec000 (size 512):", Leak},
		{"skbuff: skb_over_panic: text:ffffffff8343632e len:4 put:4 head:00000000 data:0 tail:4 end:0 dev:<NULL>", SKB},
		{"ODEBUG: free active (active state 0) object type: timer_list hint: f+0x0/0x1", DebugObject},
		{"sysrq: Trigger a crash", SysRq},
		{"rust_kernel: panicked at drivers/a.rs:12:34:", Rust},

		{"usb 1-1: new high-speed USB device number 4 using xhci_hcd", ""},
		{"rcu: Hierarchical RCU implementation.", ""},
		{"mce: CPU0: Thermal monitoring enabled (TM1)", ""},
		{"Kernel command line: quiet panic=1", ""},
		{"traps: a.out[1234] general protection fault ip:401136 sp:7ffd error:0 in a.out[401000+1000]", ""},
		{"a.out[1234]: segfault at 0 ip 0000000000401136 sp 00007ffd error 4 in a.out[401000+1000]", ""},
		{"Bad page", ""},
		{"", ""},
	}
	for _, tt := range tests {
		o, _ := opens([]byte(tt.line))
		var kind Kind
		if o != nil {
			kind = o.kind
		}
		if kind != tt.kind {
			t.Errorf("%q opens %q, want %q", tt.line, kind, tt.kind)
		}
	}
}
