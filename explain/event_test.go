package explain

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"inquest/kernel"
)

// logOf makes a log of lines.
func logOf(text string) []kernel.Record {
	var log []kernel.Record
	for line := range strings.Lines(text) {
		log = append(log, kernel.Record{Text: strings.TrimSpace(line)})
	}
	return log
}

func TestEvents(t *testing.T) {
	tests := []struct {
		name, log string
		want      []Event
	}{
		{"page fault, 5.x and later", `
			BUG: kernel NULL pointer dereference, address: 0000000000000040
			#PF: supervisor write access in kernel mode
			#PF: error_code(0x0002) - not-present page
			PGD 0 P4D 0
			Oops: 0002 [#1] PREEMPT SMP NOPTI
			CPU: 1 PID: 77 Comm: a name Tainted: G           OE      6.1.0-56-cloud-amd64 #1  Debian 6.1.192-2
			RIP: 0010:fault_null+0x5/0x20 [crasher]
			CR2: 0000000000000040 CR3: 0000000003b2c000 CR4: 00000000003506e0`,
			[]Event{{Kind: KindPageFault, CPU: 1, PID: 77, Comm: "a name", RIP: "fault_null+0x5", Address: "0000000000000040", Code: "0002"}}},
		{"BUG without the place in the source (no CONFIG_DEBUG_BUGVERBOSE)", `
			Kernel BUG at kmem_cache_free+0x284/0x2a0 [verbose debug info unavailable]
			invalid opcode: 0000 [#1] SMP
			CPU: 0 PID: 1 Comm: init Not tainted 6.1.192-nfqbug #1
			RIP: 0010:kmem_cache_free+0x284/0x2a0`,
			[]Event{{Kind: KindBug, CPU: 0, PID: 1, Comm: "init", RIP: "kmem_cache_free+0x284", Code: "0000", Trigger: "kmem_cache_free+0x284/0x2a0"}}},
		{"guard page, with pointers that are hidden until there is entropy", `
			BUG: TASK stack guard page was hit at (____ptrval____) (stack is (____ptrval____)..(____ptrval____))
			stack guard page: 0000 [#1] SMP
			CPU: 0 PID: 1 Comm: init Not tainted 6.1.192-nfqbug #1
			RIP: 0010:recursive_loop+0x2f/0xb0 [lkdtm]`,
			[]Event{{Kind: KindStack, CPU: 0, PID: 1, Comm: "init", RIP: "recursive_loop+0x2f"}}},
		{"page fault, 4.18", `
			BUG: unable to handle kernel paging request at ffffb2c841a3be00
			Oops: 0000 [#1] SMP NOPTI
			CPU: 3 PID: 12 Comm: kworker/3:0 Kdump: loaded Not tainted 4.18.0-305.el8.x86_64 #1
			RIP: 0010:__list_del_entry_valid+0x25/0x90`,
			[]Event{{Kind: KindPageFault, CPU: 3, PID: 12, Comm: "kworker/3:0", RIP: "__list_del_entry_valid+0x25", Address: "ffffb2c841a3be00", Code: "0000"}}},
		{"page fault, with the doubled Oops of 6.10", `
			BUG: unable to handle page fault for address: 00007f0000000000
			Oops: Oops: 0003 [#1] SMP PTI
			CPU: 0 UID: 0 PID: 5 Comm: cat Not tainted 7.2.0`,
			[]Event{{Kind: KindPageFault, CPU: 0, PID: 5, Comm: "cat", Address: "00007f0000000000", Code: "0003"}}},
		{"general protection, before and after 6.10", `
			general protection fault, probably for non-canonical address 0x5f656d69746da3f4: 0000 [#1] SMP
			RIP: 0010:native_queued_spin_lock_slowpath+0x1b7/0x1c0
			Oops: general protection fault, maybe for address 0xffffc90000000ff8: 0001 [#2] SMP NOPTI`,
			[]Event{
				{Kind: KindProtection, CPU: -1, PID: -1, RIP: "native_queued_spin_lock_slowpath+0x1b7", Address: "5f656d69746da3f4", Code: "0000"},
				{Kind: KindProtection, CPU: -1, PID: -1, Address: "ffffc90000000ff8", Code: "0001"},
			}},
		{"general protection without an address", `
			general protection fault: 0000 [#1] SMP NOPTI`,
			[]Event{{Kind: KindProtection, CPU: -1, PID: -1, Code: "0000"}}},
		{"BUG and its trap are one", `
			------------[ cut here ]------------
			kernel BUG at lib/list_debug.c:27!
			invalid opcode: 0000 [#1] PREEMPT SMP NOPTI
			CPU: 0 PID: 1 Comm: init Tainted: G OE 6.1.0
			Kernel panic - not syncing: Fatal exception`,
			[]Event{
				{Kind: KindBug, CPU: 0, PID: 1, Comm: "init", Code: "0000", Trigger: "lib/list_debug.c:27"},
				{Kind: KindPanic, CPU: -1, PID: -1, Trigger: "Fatal exception"},
			}},
		{"warnings, before and after 6.18", `
			WARNING: CPU: 1 PID: 53 at lib/refcount.c:28 refcount_warn_saturate+0xd8/0xe0
			WARNING: kernel/foo.c:12 at foo+0x1/0x2, CPU#3: some task/99`,
			[]Event{
				{Kind: KindWarning, CPU: 1, PID: 53, Trigger: "lib/refcount.c:28 refcount_warn_saturate+0xd8/0xe0"},
				{Kind: KindWarning, CPU: 3, PID: 99, Comm: "some task", Trigger: "kernel/foo.c:12 at foo+0x1/0x2"},
			}},
		{"lockups", `
			watchdog: BUG: soft lockup - CPU#1 stuck for 22s! [spin:1234]
			watchdog: Watchdog detected hard LOCKUP on cpu 2
			watchdog: CPU5: Watchdog detected hard LOCKUP on cpu 5
			INFO: task dd:321 blocked for more than 120 seconds.
			rcu: INFO: rcu_preempt self-detected stall on CPU`,
			[]Event{
				{Kind: KindSoftLockup, CPU: 1, PID: 1234, Comm: "spin", Trigger: "22s"},
				{Kind: KindHardLockup, CPU: 2, PID: -1},
				{Kind: KindHardLockup, CPU: 5, PID: -1},
				{Kind: KindHungTask, CPU: -1, PID: 321, Comm: "dd", Trigger: "120 seconds"},
				{Kind: KindRCUStall, CPU: -1, PID: -1, Trigger: "rcu_preempt"},
			}},
		{"stack and double faults", `
			BUG: TASK stack guard page was hit at 00000000b9f25c5e (stack is 0000000032c0ed34..00000000abf82b0e)
			BUG: stack guard page was hit at ffffb0000000fff8 (stack is ffffb00000010000..ffffb00000014000)
			traps: PANIC: double fault, error_code: 0x0
			Kernel panic - not syncing: stack-protector: Kernel stack is corrupted in: foo+0x1/0x2`,
			[]Event{
				{Kind: KindStack, CPU: -1, PID: -1, Address: "00000000b9f25c5e"},
				{Kind: KindStack, CPU: -1, PID: -1, Address: "ffffb0000000fff8"},
				{Kind: KindPanic, CPU: -1, PID: -1, Trigger: "stack-protector: Kernel stack is corrupted in: foo+0x1/0x2"},
			}},
		{"traps", `
			divide error: 0000 [#1] SMP
			Oops: invalid opcode: 0000 [#1] SMP
			int3: 0000 [#1] SMP`,
			[]Event{
				{Kind: KindDivide, CPU: -1, PID: -1, Code: "0000"},
				{Kind: KindInvalidOp, CPU: -1, PID: -1, Code: "0000"},
				{Kind: KindOtherTrap, CPU: -1, PID: -1, Code: "0000", Trigger: "int3"},
			}},
		{"ordinary lines", `
			Linux version 6.1.0 (gcc) #1 SMP
			e1000e: eth0 NIC Link is Up
			audit: error in audit_log_object_context
			process 'foo' used a deprecated BUG workaround`, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := Events(logOf(tt.log))
			for i := range got {
				got[i].Record, got[i].Message = 0, ""
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("events differ (-want +got):\n%s", diff)
			}
		})
	}
}

// TestLastEvents picks, of several reports, the one that the machine died of.
func TestLastEvents(t *testing.T) {
	tests := []struct {
		name, log string
		event     Kind // "" for none
		panic     bool
	}{
		{"an oops that was fatal", "BUG: kernel NULL pointer dereference, address: 0000000000000000\nKernel panic - not syncing: Fatal exception in interrupt", KindPageFault, true},
		{"an old warning, then sysrq", "WARNING: CPU: 0 PID: 1 at a.c:1 f+0x1/0x2\nKernel panic - not syncing: sysrq triggered crash", "", true},
		{"a warning that was fatal", "WARNING: CPU: 0 PID: 1 at a.c:1 f+0x1/0x2\nKernel panic - not syncing: kernel: panic_on_warn set ...", KindWarning, true},
		{"two oopses", "BUG: kernel NULL pointer dereference, address: 0000000000000000\ndivide error: 0000 [#2] SMP", KindDivide, false},
		{"a hung task", "INFO: task dd:321 blocked for more than 120 seconds.\nKernel panic - not syncing: hung_task: blocked tasks", KindHungTask, true},
		{"a lockup", "watchdog: BUG: soft lockup - CPU#1 stuck for 22s! [spin:1234]\nKernel panic - not syncing: softlockup: hung tasks", KindSoftLockup, true},
		{"nothing", "Linux version 6.1.0", "", false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			event, panic := lastEvents(Events(logOf(tt.log)))
			got := Kind("")
			if event != nil {
				got = event.Kind
			}
			if got != tt.event || (panic != nil) != tt.panic {
				t.Errorf("event %q, panic %v; want %q, %v", got, panic != nil, tt.event, tt.panic)
			}
		})
	}
}

func FuzzEvents(f *testing.F) {
	f.Add("BUG: kernel NULL pointer dereference, address: 0000000000000040\nCPU: 1 PID: 77 Comm: x Not tainted")
	f.Add("watchdog: BUG: soft lockup - CPU#99999999999999999999 stuck for 22s! [a:b:12]")
	f.Fuzz(func(t *testing.T, text string) {
		event, panic := lastEvents(Events(logOf(text)))
		if event != nil && event.Kind == KindPanic || panic != nil && panic.Kind != KindPanic {
			t.Errorf("event %+v, panic %+v", event, panic)
		}
	})
}

// TestOfAnother: a watchdog's report names what it watches, so that another task on
// the panicking CPU is no contradiction.
func TestOfAnother(t *testing.T) {
	for kind, want := range map[Kind]bool{KindHungTask: true, KindHardLockup: true, KindRCUStall: true,
		KindPageFault: false, KindBug: false, KindSoftLockup: false} {
		if got := kind.ofAnother(); got != want {
			t.Errorf("%s is of another task: %v, want %v", kind, got, want)
		}
	}
}
