package console

import (
	"bytes"
	"regexp"
	"strconv"
	"strings"
	"sync"
)

// An opening says which line opens a report, and what is in it. The named groups of re
// are what [Report.take] knows. A weak opening makes a report only if a stack follows.
type opening struct {
	prefix string
	kind   Kind
	re     *pattern // nil: the prefix says it all
	weak   bool
}

// function matches "symbol+0x12/0x34 [module]".
const function = `(?P<function>\S+\+0x[0-9a-f]+(?:/0x[0-9a-f]+)?(?: \[[^\]]*\])?)`

// openings are the lines as kernels from 2.6.32 to 7.x write them: arch/*/mm/fault.c,
// arch/*/kernel/traps.c, kernel/panic.c, kernel/watchdog.c, kernel/hung_task.c,
// kernel/rcu/tree_stall.h, kernel/locking, kernel/sched/core.c, lib/list_debug.c,
// lib/refcount.c, lib/ubsan.c, lib/string_helpers.c, mm/slub.c, mm/page_alloc.c,
// mm/usercopy.c, mm/oom_kill.c, mm/kasan/report.c, mm/kfence/report.c. The first match
// counts.
var openings = []opening{
	// Sanitizers.
	{prefix: "BUG: KASAN: ", kind: KASAN, re: re(`^BUG: KASAN: (?P<what>[a-z -]+?)(?: (?:in|on address) (?P<function>\S+)(?: \[\S+\])?)?(?: at addr (?P<address>[0-9a-f]+))?(?:\s|$)`)},
	{prefix: "BUG KASAN: ", kind: KASAN, re: re(`^BUG KASAN: (?P<what>[a-z -]+?) in (?P<function>\S+)(?: at addr (?P<address>[0-9a-f]+))?`)},
	{prefix: "BUG: KFENCE: ", kind: KFENCE, re: re(`^BUG: KFENCE: (?P<what>[a-z -]+?) in (?P<function>\S+)`)},
	{prefix: "BUG: KMSAN: ", kind: KMSAN, re: re(`^BUG: KMSAN: (?P<what>[a-z -]+?) in (?P<function>\S+)`)},
	{prefix: "BUG: KCSAN: ", kind: KCSAN, re: re(`^BUG: KCSAN: (?P<what>[a-z: -]+?) in (?P<function>\S+)(?: / (?P<function2>\S+))?`)},
	{prefix: "UBSAN: ", kind: UBSAN, re: re(`^UBSAN: (?P<what>.+?) in (?P<place>\S+:\d+)`)},

	// Bad accesses, by architecture.
	{prefix: "BUG: unable to handle ", kind: PageFault, re: re(`^BUG: unable to handle (?P<what>kernel NULL pointer dereference|kernel paging request|page fault)(?: (?:at|for address:?)(?: virtual address)? ?(?P<address>[0-9a-f]+))?`)},
	{prefix: "BUG: kernel NULL pointer dereference, address: ", kind: PageFault, re: re(`^BUG: (?P<what>kernel NULL pointer dereference), address: (?P<address>[0-9a-f]+)`)},
	{prefix: "BUG: Kernel NULL pointer dereference", kind: PageFault, re: re(`^BUG: (?P<what>Kernel NULL pointer dereference)(?: on (?P<access>\w+))?(?: at (?P<address>0x[0-9a-f]+))?`)},
	{prefix: "BUG: Unable to handle kernel ", kind: PageFault, re: re(`^BUG: (?P<what>Unable to handle kernel [a-z ]+?)(?: on (?P<access>\w+))?(?: at (?P<address>0x[0-9a-f]+))?$`)},
	{prefix: "BUG: unable to handle ", kind: PageFault},
	{prefix: "BUG: User access ", kind: PageFault},
	{prefix: "BUG: spinlock ", kind: LockUse, re: re(`^BUG: (?P<what>spinlock [a-z ]+?)(?: on CPU#(?P<cpu>\d+), (?P<comm>.*)/(?P<pid>\d+))?(?:,|$)`)},
	{prefix: "BUG: rwlock ", kind: LockUse, re: re(`^BUG: (?P<what>rwlock [a-z -]+?)(?: on CPU#(?P<cpu>\d+), (?P<comm>.*)/(?P<pid>\d+))?(?:,|$)`)},
	{prefix: "Unable to handle kernel ", kind: PageFault, re: re(`^(?P<what>Unable to handle kernel .+?)(?: at(?: virtual address)?:? (?P<address>[0-9a-fx]+)(?:, epc)?.*| in virtual (?:kernel|user) address space)?$`)},
	{prefix: "CPU ", kind: PageFault, re: re(`^CPU (?P<cpu>\d+) (?P<what>Unable to handle kernel paging request) at virtual address (?P<address>[0-9a-f]+)`)},
	{prefix: "Unable to handle paging request ", kind: PageFault},
	{prefix: "Kernel attempted to ", kind: PageFault, re: re(`^(?P<what>Kernel attempted to (?P<access>\w+) (?:user|non-executable|[a-z]+) page) \((?P<address>[0-9a-f]+)\)`)},
	{prefix: "kernel tried to execute ", kind: PageFault},
	{prefix: "Unhandled fault: ", kind: Trap, re: re(`^(?P<what>Unhandled fault: .*?)(?: \(0x[0-9a-f]+\))?(?: at (?P<address>0x[0-9a-f]+))?$`)},
	{prefix: "Unhandled prefetch abort: ", kind: Trap, re: re(`^(?P<what>Unhandled prefetch abort: .*?)(?: \(0x[0-9a-f]+\))?(?: at (?P<address>0x[0-9a-f]+))?$`)},
	{prefix: "Alignment trap: ", kind: Trap, re: re(`^(?P<what>Alignment trap): not handling instruction`)},
	{prefix: "Unable to handle kernel pointer dereference ", kind: PageFault},

	// Other exceptions. Since 6.9 x86 has "Oops: " in front of all of them.
	{prefix: "general protection fault", kind: Protection, re: re(`^(?P<what>general protection fault)(?:, (?:probably|maybe) for (?:non-canonical )?address 0x(?P<address>[0-9a-f]+))?.*: (?P<code>[0-9a-f]{4}) \[#`)},
	{prefix: "invalid opcode: ", kind: InvalidOpcode, re: re(`^(?P<what>invalid opcode): (?P<code>[0-9a-f]{4}) \[#`)},
	{prefix: "segment-related general protection fault", kind: Protection, re: re(`^(?P<what>segment-related general protection fault): (?P<code>[0-9a-f]{4}) \[#`)},
	{prefix: "divide_error: ", kind: DivideError},
	{prefix: "divide error: ", kind: DivideError, re: re(`^(?P<what>divide error): (?P<code>[0-9a-f]{4}) \[#`)},
	{prefix: "PANIC: double fault", kind: DoubleFault},
	{prefix: "double fault: ", kind: DoubleFault},
	{prefix: "int3: ", kind: Trap, re: re(`^(?P<what>int3): [0-9a-f]{4} \[#`)},
	{prefix: "stack segment: ", kind: Trap, re: re(`^(?P<what>stack segment): [0-9a-f]{4} \[#`)},
	{prefix: "segment not present: ", kind: Trap, re: re(`^(?P<what>segment not present): [0-9a-f]{4} \[#`)},
	{prefix: "invalid TSS: ", kind: Trap, re: re(`^(?P<what>invalid TSS): [0-9a-f]{4} \[#`)},
	{prefix: "alignment check: ", kind: Trap, re: re(`^(?P<what>alignment check): [0-9a-f]{4} \[#`)},
	{prefix: "bounds: ", kind: Trap, re: re(`^(?P<what>bounds): [0-9a-f]{4} \[#`)},
	{prefix: "overflow: ", kind: Trap, re: re(`^(?P<what>overflow): [0-9a-f]{4} \[#`)},
	{prefix: "debug: ", kind: Trap, re: re(`^(?P<what>debug): [0-9a-f]{4} \[#`)},
	{prefix: "control protection: ", kind: Trap, re: re(`^(?P<what>control protection): [0-9a-f]{4} \[#`)},
	{prefix: "simd exception: ", kind: Trap, re: re(`^(?P<what>simd exception): [0-9a-f]{4} \[#`)},
	{prefix: "illegal operation: ", kind: InvalidOpcode, re: re(`^(?P<what>illegal operation): [0-9a-f]{4} .*\[#`)},
	{prefix: "addressing exception: ", kind: Trap, re: re(`^(?P<what>addressing exception): [0-9a-f]{4} .*\[#`)},
	{prefix: "specification exception: ", kind: Trap, re: re(`^(?P<what>specification exception): [0-9a-f]{4} .*\[#`)},
	{prefix: "fixpoint divide exception: ", kind: DivideError, re: re(`^(?P<what>fixpoint divide exception): [0-9a-f]{4} .*\[#`)},
	{prefix: "monitor event: ", kind: BUG, re: re(`^(?P<what>monitor event): [0-9a-f]{4} .*\[#`)},
	{prefix: "Missing ENDBR: ", kind: Trap, re: re(`^(?P<what>Missing ENDBR): ` + function)},
	{prefix: "CFI failure at ", kind: Trap, re: re(`^(?P<what>CFI failure) at ` + function)},
	{prefix: "Internal error: ", kind: Trap, re: re(`^(?P<what>Internal error: .*?): ?(?P<code>[0-9a-f]+)(?: \[#\d+\]|$)`)},
	{prefix: "SError Interrupt on CPU", kind: MachineCheck, re: re(`^SError Interrupt on CPU(?P<cpu>\d+)`)},
	{prefix: "Bad mode in ", kind: Trap, re: re(`^(?P<what>Bad mode in .*) handler detected(?: on CPU(?P<cpu>\d+))?`)},
	{prefix: "Unexpected kernel BRK exception", kind: InvalidOpcode},
	{prefix: "Unhandled 64-bit ", kind: Trap},
	{prefix: "Unhandled exception", kind: Trap, weak: true},
	{prefix: "Kernel bug detected[#", kind: BUG},
	{prefix: "Kernel BUG [#", kind: BUG},
	{prefix: "Kernel unaligned instruction access[#", kind: Trap},
	{prefix: "Oops - ", kind: Trap, re: re(`^(?P<what>Oops - .*?) \[#`)},
	{prefix: "Oops: ", kind: Trap, re: re(`^(?P<what>Oops: .*?),? (?:sig: \d+ )?\[#`)},
	{prefix: "Oops[#", kind: Trap},
	{prefix: "Kernel stack overflow", kind: StackGuard},
	{prefix: "kernel stack overflow", kind: StackGuard},
	{prefix: "Insufficient stack space to handle exception!", kind: StackGuard},

	// BUG() and what says BUG.
	{prefix: "kernel BUG at ", kind: BUG, re: re(`^kernel BUG at (?P<place>.*?)!`)},
	{prefix: "BUG: soft lockup ", kind: SoftLockup, re: re(`^BUG: soft lockup - CPU#(?P<cpu>\d+) stuck for (?P<what>\d+s)! \[(?P<comm>.*):(?P<pid>\d+)\]`)},
	{prefix: "BUG: workqueue lockup", kind: Workqueue, re: re(`^BUG: (?P<what>workqueue lockup)`)},
	{prefix: "BUG: workqueue leaked ", kind: LockUse, re: re(`^BUG: (?P<what>workqueue leaked (?:lock or atomic|atomic, lock or RCU|[a-z ]+)): `)},
	{prefix: "BUG: scheduling while atomic", kind: Atomic, re: re(`^BUG: (?P<what>scheduling while atomic): (?P<comm>.*)/(?P<pid>\d+)/0x`)},
	{prefix: "BUG: sleeping function called from invalid context", kind: Atomic, re: re(`^BUG: (?P<what>sleeping function called from invalid context) at (?P<place>\S+)`)},
	{prefix: "BUG: using ", kind: Preemptible, re: re(`^BUG: (?P<what>using [a-z_]+\(\) in preemptible(?: \[[0-9a-f]+\])? code)(?:: \S+/(?P<pid>\d+))?`)},
	{prefix: "BUG: Bad page state in process ", kind: BadPage, re: re(`^BUG: (?P<what>Bad page state) in process (?P<comm>.*?) +pfn:`)},
	{prefix: "BUG: Bad page ", kind: BadPage, re: re(`^BUG: (?P<what>Bad page \w+) in process (?P<comm>.*?) +`)},
	{prefix: "BUG: Bad rss-counter state ", kind: BadPage, re: re(`^BUG: (?P<what>Bad rss-counter state)`)},
	{prefix: "BUG: non-zero pgtables_bytes", kind: BadPage},
	{prefix: "BUG: stack guard page was hit at ", kind: StackGuard, re: re(`^BUG: stack guard page was hit at (?P<address>[0-9a-f]+)`)},
	{prefix: "BUG: ", kind: StackGuard, re: re(`^BUG: (?:IRQ|TASK|NMI|ENTRY|#DF|#DB|\S+) stack guard page was hit at (?P<address>[0-9a-f]+)`)},
	{prefix: "BUG: ", kind: Slab, re: re(`^BUG: (?P<what>(?:Object already free|Poison overwritten|[A-Z][a-z]+ overwritten))$`)},
	{prefix: "BUG ", kind: Slab, re: re(`^BUG (?P<cache>\S+(?: \S+)?) \((?:Not tainted|Tainted: .*)\): (?P<what>.*)`)},
	{prefix: "BUG: Dentry ", kind: BUG, re: re(`^BUG: (?P<what>Dentry) .* still in use`)},
	{prefix: "BUG: held lock freed", kind: LockUse, re: re(`^BUG: (?P<what>held lock freed)`)},
	{prefix: "BUG: bad unlock balance", kind: LockUse, re: re(`^BUG: (?P<what>bad unlock balance)`)},
	{prefix: "BUG: lock held ", kind: LockUse, re: re(`^BUG: (?P<what>lock held (?:when returning to user space|at task exit time))`)},
	{prefix: "BUG: ", kind: LockUse, re: re(`^BUG: (?:.*/\d+ )?(?P<what>still has locks held|key .* has not been registered)`)},
	{prefix: "BUG: Invalid wait context", kind: LockUse},
	{prefix: "BUG: ", kind: BUG, weak: true, re: re(`^BUG: (?P<what>.*)`)},
	{prefix: "Bad swap ", kind: BadPage, weak: true},

	// Warnings. 6.17 and later name the place, the function, the CPU and the task.
	{prefix: "WARNING: CPU: ", kind: Warning, re: re(`^WARNING: CPU: (?P<cpu>\d+) PID: (?P<pid>\d+) at (?P<place>\S+)(?: ` + function + `)?`)},
	{prefix: "WARNING: at ", kind: Warning, re: re(`^WARNING: at (?P<place>\S+)(?: ` + function + `)?`)},
	{prefix: "WARNING: ", kind: Warning, re: re(`^WARNING: (?:\[.*\] )?(?P<place>\S+:\d+) at (?:0x[0-9a-f]+|` + function + `), CPU#(?P<cpu>\d+): (?P<comm>.*)/(?P<pid>\d+)`)},
	{prefix: "WARNING: possible circular locking dependency detected", kind: Lockdep, re: re(`^WARNING: (?P<what>.*)`)},
	{prefix: "WARNING: possible recursive locking detected", kind: Lockdep, re: re(`^WARNING: (?P<what>.*)`)},
	{prefix: "WARNING: possible irq lock inversion dependency detected", kind: Lockdep, re: re(`^WARNING: (?P<what>.*)`)},
	{prefix: "WARNING: inconsistent lock state", kind: Lockdep, re: re(`^WARNING: (?P<what>.*)`)},
	{prefix: "WARNING: ", kind: Lockdep, re: re(`^WARNING: (?P<what>\S+-safe -> \S+-unsafe lock order detected)`)},
	{prefix: "WARNING: suspicious RCU usage", kind: RCUUsage, re: re(`^WARNING: (?P<what>.*)`)},
	{prefix: "WARNING: bad unlock balance", kind: LockUse, re: re(`^WARNING: (?P<what>bad unlock balance)`)},
	{prefix: "WARNING: held lock freed", kind: LockUse, re: re(`^WARNING: (?P<what>held lock freed)`)},
	{prefix: "WARNING: Nested lock was not taken", kind: LockUse, re: re(`^WARNING: (?P<what>Nested lock was not taken)`)},
	{prefix: "WARNING: lock held ", kind: LockUse, re: re(`^WARNING: (?P<what>lock held when returning to user space)`)},
	{prefix: "WARNING: ", kind: LockUse, re: re(`^WARNING: .*/\d+ (?P<what>still has locks held)`)},
	{prefix: "WARNING: ", kind: Warning, re: re(`^WARNING: (?P<what>kernel stack (?:regs|frame pointer)) (?:at .* )?in .* has bad`)},
	{prefix: "WARNING: ", kind: Warning, weak: true, re: re(`^WARNING: (?P<what>.*)`)},
	{prefix: "[ BUG: bad unlock balance detected! ]", kind: LockUse, re: re(`(?P<what>bad unlock balance)`)},
	{prefix: "[ BUG: ", kind: LockUse, re: re(`^\[ BUG: (?:.*/\d+ )?(?P<what>.*?)!? \]`)},
	{prefix: "[ INFO: possible ", kind: Lockdep, re: re(`^\[ INFO: (?P<what>.*) \]`)},
	{prefix: "[ INFO: inconsistent lock state", kind: Lockdep, re: re(`^\[ INFO: (?P<what>.*) \]`)},
	{prefix: "[ INFO: suspicious RCU usage", kind: RCUUsage, re: re(`^\[ INFO: (?P<what>suspicious RCU usage)`)},
	{prefix: "[ INFO: suspicious rcu_dereference", kind: RCUUsage},
	{prefix: "[ INFO: ", kind: Lockdep, re: re(`^\[ INFO: (?P<what>\S+-safe -> \S+-unsafe lock order detected) \]`)},
	{prefix: "================================= ", kind: Lockdep, weak: true, re: re(`(?P<what>inconsistent lock state)`)},
	{prefix: "inconsistent {", kind: Lockdep, weak: true},
	{prefix: "ODEBUG: ", kind: DebugObject, re: re(`^ODEBUG: (?P<what>.*?)(?: object)?(?: type: (?P<cache>\S+)| .*)?$`)},
	{prefix: "INFO: trying to register non-static key", kind: LockUse, re: re(`^INFO: (?P<what>.*?)\.?$`)},
	{prefix: "INFO: suspicious RCU usage", kind: RCUUsage},

	// What stands still.
	{prefix: "INFO: task ", kind: HungTask, re: re(`^INFO: task (?P<comm>.*):(?P<pid>\d+) (?P<what>blocked (?:in I/O wait |on [a-z-]+ )?for more than \d+ seconds|can't die for more than \d+ seconds|is blocked on .*)`)},
	{prefix: "INFO: ", kind: RCUStall, re: re(`^INFO: (?P<what>rcu\S*) (?:self-)?detected (?:expedited )?stalls?`)},
	{prefix: "Watchdog detected hard LOCKUP on cpu ", kind: HardLockup, re: re(`on cpu (?P<cpu>\d+)`)},
	{prefix: "CPU", kind: HardLockup, re: re(`^CPU(?P<cpu>\d+): Watchdog detected hard LOCKUP`)},
	{prefix: "CPU ", kind: HardLockup, re: re(`^CPU (?P<cpu>\d+) (?:self-detected hard LOCKUP|Hard LOCKUP|detected hard LOCKUP)`)},
	{prefix: "Watchdog CPU:", kind: HardLockup, re: re(`^Watchdog CPU:(?P<cpu>\d+) Hard LOCKUP`)},
	{prefix: "BUG: soft lockup", kind: SoftLockup},

	// Memory.
	{prefix: "Out of memory", kind: OutOfMemory, re: re(`^(?P<what>Out of memory)(?: \([^)]*\))?:? Kill(?:ed)? process (?P<pid>\d+) \((?P<comm>[^)]*)\)`)},
	{prefix: "Memory cgroup out of memory", kind: OutOfMemory, re: re(`^(?P<what>Memory cgroup out of memory): Kill(?:ed)? process (?P<pid>\d+) \((?P<comm>[^)]*)\)`)},
	{prefix: "list_add corruption", kind: List},
	{prefix: "list_add double add", kind: List},
	{prefix: "list_del corruption", kind: List},
	{prefix: "refcount_t: ", kind: RefCount, re: re(`^refcount_t: (?P<what>.*?)\.?$`)},
	{prefix: "Kernel memory exposure attempt detected ", kind: UserCopy},
	{prefix: "Kernel memory overwrite attempt detected ", kind: UserCopy},
	{prefix: "kernel memory exposure attempt detected ", kind: UserCopy},
	{prefix: "kernel memory overwrite attempt detected ", kind: UserCopy},
	{prefix: "Bad or missing usercopy whitelist? ", kind: UserCopy},
	{prefix: "detected buffer overflow in ", kind: Fortify, re: re(`^(?P<what>detected buffer overflow in \S+)`)},
	{prefix: "mem", kind: Fortify, re: re(`^(?P<what>mem\w+: detected (?:buffer overflow|field-spanning \w+)).*`)},
	{prefix: "str", kind: Fortify, re: re(`^(?P<what>str\w+: detected buffer (?:over|under)flow).*`)},
	{prefix: "skb_over_panic: ", kind: SKB, re: re(`^(?P<what>skb_over_panic)`)},
	{prefix: "skb_under_panic: ", kind: SKB, re: re(`^(?P<what>skb_under_panic)`)},
	{prefix: "unreferenced object 0x", kind: Leak, re: re(`^unreferenced object 0x(?P<address>[0-9a-f]+) \(size (?P<what>\d+)\)`)},
	{prefix: "BUG: memory leak", kind: Leak},
	{prefix: "rust_kernel: panicked at ", kind: Rust, re: re(`^rust_kernel: panicked at (?P<what>.*)`)},

	// Hardware.
	{prefix: "[Hardware Error]: CPU ", kind: MachineCheck, re: re(`^\[Hardware Error\]: CPU (?P<cpu>\d+): Machine Check(?: Exception)?`)},
	{prefix: "[Hardware Error]: Machine check events logged", kind: MachineCheck, weak: true},
	{prefix: "PCI system error (SERR) ", kind: NMI},
	{prefix: "IOCK error (debug interrupt?)", kind: NMI},
	{prefix: "NMI: PCI system error", kind: NMI},
	{prefix: "NMI: IOCK error", kind: NMI},
	{prefix: "Uhhuh. NMI received for unknown reason", kind: NMI},

	// The end.
	{prefix: "Kernel panic - not syncing: stack-protector: ", kind: StackProtector, re: re(`stack is corrupted in: (?P<function>\S+)`)},
	{prefix: "Kernel panic - not syncing: corrupted stack end detected ", kind: StackEnd},
	{prefix: "Kernel panic - not syncing", kind: Panic, re: re(`^Kernel panic - not syncing(?:: (?P<what>.*))?`)},
	{prefix: "Trigger a crash", kind: SysRq},
	{prefix: "SysRq : Trigger a crash", kind: SysRq},
	{prefix: "sysrq triggered crash", kind: SysRq},
}

// facilities are what kernel code puts in front of such lines by pr_fmt().
var facilities = []string{"watchdog: ", "NMI watchdog: ", "rcu: ", "traps: ", "mce: ", "sysrq: ", "usercopy: ", "skbuff: ", "slub: ", "kfence: ", "Oops: ", "stack-protector: ", "x86/mm: ", "list_debug: ", "kmemleak: ", "kasan: GPF could be caused by NULL-ptr deref or user memory access"}

// byFirst are the openings by the first letter of their prefix: most lines fail here.
var byFirst = func() (index [256][]*opening) {
	for i := range openings {
		o := &openings[i]
		index[o.prefix[0]] = append(index[o.prefix[0]], o)
	}
	return index
}()

var facilityFirst = func() (index [256]bool) {
	for _, f := range facilities {
		index[f[0]] = true
	}
	return index
}()

// pattern is a regular expression that is compiled when it is first needed.
type pattern struct {
	expr string
	once sync.Once
	re   *regexp.Regexp
}

func re(expr string) *pattern { return &pattern{expr: expr} }

func (p *pattern) compiled() *regexp.Regexp {
	p.once.Do(func() { p.re = regexp.MustCompile(p.expr) })
	return p.re
}

// opens finds the opening that a line is, and the line without the facility in front.
func opens(text []byte) (*opening, []byte) {
	var o *opening
	found := text
	for range 3 {
		if len(text) < 4 {
			break
		}
		if m := match(text); m != nil {
			o, found = m, text
		}
		// Behind "Oops: " there may be a better name for the trap.
		if o != nil && o.kind != Trap || !facilityFirst[text[0]] {
			break
		}
		f := facility(text)
		if f == "" {
			break
		}
		text = text[len(f):]
	}
	return o, found
}

func match(text []byte) *opening {
	if len(text) < 4 {
		return nil
	}
	for _, o := range byFirst[text[0]] {
		if text[1] == o.prefix[1] && bytes.HasPrefix(text, []byte(o.prefix)) && (o.re == nil || o.re.compiled().Match(text)) {
			return o
		}
	}
	return nil
}

func facility(text []byte) string {
	for _, f := range facilities {
		if bytes.HasPrefix(text, []byte(f)) {
			return f
		}
	}
	return ""
}

// take takes what the groups of a pattern found; what is known already stays.
func (r *Report) take(p *pattern, text string) {
	if p == nil {
		return
	}
	re := p.compiled()
	m := re.FindStringSubmatch(text)
	if m == nil {
		return
	}
	for i, name := range re.SubexpNames() {
		v := m[i]
		if v == "" {
			continue
		}
		switch name {
		case "what":
			setString(&r.What, v)
		case "place":
			setString(&r.Place, v)
		case "function":
			if f, ok := ParseFrame(v); ok && r.Function.Symbol == "" {
				r.Function = f
			} else if r.Function.Symbol == "" && symbolic(v) && strings.Trim(v, "0123456789abcdef") != "" {
				r.Function = Frame{Symbol: v}
			}
		case "function2":
			r.Other, _, _ = strings.Cut(v, "+")
		case "address":
			if a, err := strconv.ParseUint(strings.TrimPrefix(v, "0x"), 16, 64); err == nil && !r.HasAddress {
				r.Address, r.HasAddress = a, true
			}
		case "access":
			setString(&r.Access, v)
		case "code":
			if c, err := strconv.ParseUint(v, 16, 64); err == nil && !r.HasCode {
				r.ErrorCode, r.HasCode = c, true
			}
		case "cache":
			setString(&r.Cache, v)
		case "comm":
			setString(&r.Comm, v)
		case "cpu":
			setNumber(&r.CPU, v)
		case "pid":
			setNumber(&r.PID, v)
		}
	}
}

func setString(to *string, v string) {
	if *to == "" {
		*to = v
	}
}

func setNumber(to *int, v string) {
	if n, err := strconv.Atoi(v); err == nil && *to < 0 {
		*to = n
	}
}
