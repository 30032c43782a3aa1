package explain

import (
	"regexp"
	"strconv"
	"strings"

	"inquest/kernel"
)

// Event is one report of trouble in the kernel's log, such as an oops: the line
// that opens it and what its other lines say.
type Event struct {
	Kind    Kind
	Record  int    // index of the opening line in the log
	Message string // the opening line
	CPU     int    // -1 when not said
	PID     int    // -1 when not said
	Comm    string
	RIP     string // "symbol+0xoffset", as the log writes it; empty when not said
	Address string // the faulting address, in hex without 0x; empty when not said
	Code    string // the oops' error code
	Trigger string // further detail, by kind: file:line of a BUG, the panic's reason …
}

// Kind is the kernel's own kind of report.
type Kind string

// The kinds of report that are told apart in the log.
const (
	KindPageFault  Kind = "page fault"
	KindProtection Kind = "general protection fault"
	KindBug        Kind = "BUG"
	KindWarning    Kind = "warning"
	KindInvalidOp  Kind = "invalid opcode"
	KindDivide     Kind = "divide error"
	KindOtherTrap  Kind = "trap"
	KindDouble     Kind = "double fault"
	KindStack      Kind = "stack overflow"
	KindProtector  Kind = "stack protector"
	KindSoftLockup Kind = "soft lockup"
	KindHardLockup Kind = "hard lockup"
	KindHungTask   Kind = "hung task"
	KindRCUStall   Kind = "RCU stall"
	KindMachine    Kind = "machine check"
	KindNMI        Kind = "NMI"
	KindMemory     Kind = "out of memory"
	KindPanic      Kind = "panic"
)

// ofAnother reports whether a report is, as a rule, on another task or CPU than the
// one that made it: a watchdog's on what it watches.
func (k Kind) ofAnother() bool {
	return k == KindHungTask || k == KindHardLockup || k == KindRCUStall
}

// opening says which lines open a report. The first match counts; the text is
// that of arch/x86/mm/fault.c, kernel/panic.c, kernel/watchdog.c and so on, from
// 4.18 to today.
var opening = []struct {
	kind Kind
	re   *regexp.Regexp
}{
	{KindPanic, regexp.MustCompile(`^Kernel panic - not syncing: (?P<trigger>.*)`)},
	{KindBug, regexp.MustCompile(`^[kK]ernel BUG at (?P<trigger>.*?)(?:!| \[verbose debug info unavailable\])$`)},
	{KindPageFault, regexp.MustCompile(`^BUG: (?:kernel NULL pointer dereference, address: |unable to handle page fault for address: |unable to handle kernel (?:NULL pointer dereference|paging request) at )(?P<address>[0-9a-f]+)`)},
	{KindProtection, regexp.MustCompile(`^(?:Oops: )?general protection fault(?:, (?:probably|maybe) for (?:non-canonical )?address 0x(?P<address>[0-9a-f]+))?.*: (?P<code>[0-9a-f]{4}) \[#`)},
	{KindDouble, regexp.MustCompile(`^(?:Oops: |traps: PANIC: |PANIC: )?double fault`)},
	{KindStack, regexp.MustCompile(`^(?:BUG: (?:IRQ|TASK|NMI|#DF|.*) stack guard page was hit at \(?(?P<address>[0-9a-f]*)|kernel stack overflow|BUG: stack guard page was hit at \(?(?P<address2>[0-9a-f]*))`)},
	{KindInvalidOp, regexp.MustCompile(`^(?:Oops: )?invalid opcode: (?P<code>[0-9a-f]{4}) \[#`)},
	{KindDivide, regexp.MustCompile(`^(?:Oops: )?divide error: (?P<code>[0-9a-f]{4}) \[#`)},
	{KindOtherTrap, regexp.MustCompile(`^(?:Oops: )?(?P<trigger>int3|bounds|stack segment|alignment check|segment not present|invalid TSS|coprocessor[a-z ]*|simd exception|control protection|overflow|debug): (?P<code>[0-9a-f]{4}) \[#`)},
	{KindSoftLockup, regexp.MustCompile(`BUG: soft lockup - CPU#(?P<cpu>\d+) stuck for (?P<trigger>\d+s)! \[(?P<comm>[^:]*):(?P<pid>\d+)\]`)},
	{KindHardLockup, regexp.MustCompile(`(?:Watchdog detected hard LOCKUP on cpu ?(?P<cpu>\d+)|CPU(?P<cpu2>\d+): Watchdog detected hard LOCKUP)`)},
	{KindHungTask, regexp.MustCompile(`^INFO: task (?P<comm>.*):(?P<pid>\d+) blocked (?:in I/O wait )?for more than (?P<trigger>\d+ seconds)`)},
	{KindRCUStall, regexp.MustCompile(`^rcu: INFO: (?P<trigger>\S+) (?:self-)?detected (?:expedited )?stall`)},
	{KindRCUStall, regexp.MustCompile(`^INFO: (?P<trigger>rcu\S*) (?:self-)?detected stall`)},
	{KindMachine, regexp.MustCompile(`^(?:mce: )?\[Hardware Error\]: (?P<trigger>CPU (?P<cpu>\d+): Machine Check.*)`)},
	{KindNMI, regexp.MustCompile(`^(?:NMI: )?(?P<trigger>(?:PCI system error|IOCK error|Uhhuh. NMI received for unknown reason).*)`)},
	{KindMemory, regexp.MustCompile(`^(?P<trigger>(?:Out of memory|Memory cgroup out of memory).*)`)},
	{KindProtector, regexp.MustCompile(`^stack-protector: (?P<trigger>Kernel stack is corrupted in: .*)`)},
	{KindWarning, regexp.MustCompile(`^WARNING: (?:CPU: (?P<cpu>\d+) PID: (?P<pid>\d+) )?at (?P<trigger>.*)`)},
	{KindWarning, regexp.MustCompile(`^WARNING: (?P<trigger>\S+:\d+ at .*), CPU#(?P<cpu>\d+): (?P<comm>.*)/(?P<pid>\d+)`)},
}

// body says what other lines of a report tell.
var body = []*regexp.Regexp{
	regexp.MustCompile(`^CPU: (?P<cpu>\d+) (?:UID: \d+ )?PID: (?P<pid>\d+) Comm: (?P<comm>.*?) (?:Kdump:|Tainted:|Not tainted)`),
	regexp.MustCompile(`^RIP: 0010:(?P<rip>\S+)`),
	regexp.MustCompile(`^CR2: (?P<address>[0-9a-f]+) CR3`),
	regexp.MustCompile(`^(?:Oops: )?Oops: (?P<code>[0-9a-f]{4}) \[#`),
	regexp.MustCompile(`^Oops: (?P<code>[0-9a-f]{4}) \[#`),
}

// interesting is a cheap test that most lines fail.
func interesting(line string) bool {
	for _, s := range [...]string{"BUG", "panic", "fault", "WARNING", "INFO: ", "CPU: ", "RIP: ", "CR2: ", "Oops", "opcode",
		"error", "LOCKUP", "Machine Check", "NMI", "ut of memory", "stack", "int3: ", "bounds: ", "debug: "} {
		if strings.Contains(line, s) {
			return true
		}
	}
	return false
}

// Events finds the reports of trouble in a log.
func Events(log []kernel.Record) []Event {
	var events []Event
	for i, rec := range log {
		for line := range strings.Lines(rec.Text) {
			line = strings.TrimSpace(line)
			if !interesting(line) {
				continue
			}
			if e, ok := open(line); ok {
				e.Record = i
				if cur := last(events); cur != nil && i-cur.Record < 40 && cur.adopts(e) {
					cur.fill(e)
					continue
				}
				events = append(events, e)
				continue
			}
			if cur := last(events); cur != nil && cur.Kind != KindPanic && i-cur.Record < 120 {
				cur.read(line)
			}
		}
	}
	return events
}

func last(events []Event) *Event {
	if len(events) == 0 {
		return nil
	}
	return &events[len(events)-1]
}

func open(line string) (Event, bool) {
	for _, o := range opening {
		if m := o.re.FindStringSubmatch(line); m != nil {
			e := Event{Kind: o.kind, Message: line, CPU: -1, PID: -1}
			e.set(o.re, m)
			return e, true
		}
	}
	return Event{}, false
}

// adopts reports whether what opens another report belongs to this one: "kernel
// BUG at" is followed by the invalid opcode that it trapped with.
func (e *Event) adopts(o Event) bool {
	return e.Kind == KindBug && o.Kind == KindInvalidOp || e.Kind == KindStack && o.Kind == KindDouble
}

func (e *Event) fill(o Event) {
	if e.Code == "" {
		e.Code = o.Code
	}
}

func (e *Event) read(line string) {
	for _, re := range body {
		if m := re.FindStringSubmatch(line); m != nil {
			e.set(re, m)
		}
	}
}

// set takes the named groups of a match; what is known already stays.
func (e *Event) set(re *regexp.Regexp, m []string) {
	for i, name := range re.SubexpNames() {
		v := m[i]
		if v == "" {
			continue
		}
		switch strings.TrimRight(name, "2") {
		case "trigger":
			e.Trigger = v
		case "address":
			if e.Address == "" {
				e.Address = v
			}
		case "code":
			if e.Code == "" {
				e.Code = v
			}
		case "rip":
			if e.RIP == "" {
				e.RIP, _, _ = strings.Cut(v, "/")
			}
		case "comm":
			if e.Comm == "" {
				e.Comm = v
			}
		case "cpu":
			if n, err := strconv.Atoi(v); err == nil && e.CPU < 0 {
				e.CPU = n
			}
		case "pid":
			if n, err := strconv.Atoi(v); err == nil && e.PID < 0 {
				e.PID = n
			}
		}
	}
}
