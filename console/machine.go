package console

import (
	"encoding/hex"
	"regexp"
	"strconv"
	"strings"
)

// who is the line that dump_stack_print_info() (lib/dump_stack.c) begins with.
var who = regexp.MustCompile(`^CPU: (\d+) (?:UID: \d+ )?PID: (\d+) Comm: (.*?) (?:Kdump: \S+ )?(Tainted: .*|Not tainted .*)$`)

// oldWho is that line before 3.11.
var oldWho = regexp.MustCompile(`^Pid: (\d+), comm: +(.*?) (?:Not tainted|Tainted:) *(.*)$`)

// process is a line of arm and of old x86: "Process insmod (pid: 812, …".
var process = regexp.MustCompile(`^Process (.*?) \(pid: (\d+),`)

// pcOf are the lines that name the program counter on other machines than x86-64.
var pcOf = []struct {
	prefix string
	link   bool // the link register
}{
	{"pc : ", false}, {"lr : ", true}, {"PC is at ", false}, {"LR is at ", true}, {"epc : ", false}, {"epc: ", false}, {"epc   : ", false}, {"ra    : ", true},
	{"NIP [", false}, {"LR [", true}, {"EIP is at ", false}, {"EIP: ", false}, {"IP: ", false}, {"Krnl PSW : ", false}, {"ERA: ", false}, {"RA: ", true},
	{"pc is at ", false}, {"CPU: 0 PC is at", false}, {"PC: ", false},
}

// machine reads registers, the program counter, and who it was.
func (b *body) machine(s string) bool {
	sec := b.section()
	switch {
	case strings.HasPrefix(s, "CPU: ") || strings.HasPrefix(s, "Pid: ") || strings.HasPrefix(s, "Process "):
		return b.who(s)
	case strings.HasPrefix(s, "Hardware name: "):
		setString(&b.r.Hardware, strings.TrimPrefix(s, "Hardware name: "))
		return true
	case strings.HasPrefix(s, "Workqueue: "):
		setString(&b.r.Workqueue, strings.TrimPrefix(s, "Workqueue: "))
		return true
	case strings.HasPrefix(s, "Modules linked in:"):
		if len(b.r.Modules) == 0 {
			b.addModules(strings.TrimPrefix(s, "Modules linked in:"))
		}
		return true
	case strings.HasPrefix(s, "Code: "):
		b.code(strings.TrimPrefix(s, "Code: "))
		return true
	}
	for _, p := range pcOf {
		rest, ok := strings.CutPrefix(s, strings.TrimSuffix(p.prefix, "["))
		if !ok || b.ended {
			continue
		}
		if i := strings.Index(rest, " ra : "); i >= 0 { // riscv has both in one line
			if f, ok := lastFrame(rest[i+6:]); ok && sec.LR == nil {
				sec.LR = &f
			}
			rest = rest[:i]
		}
		if i := strings.Index(rest, " lr : "); i >= 0 {
			rest = rest[:i]
		}
		f, ok := lastFrame(rest)
		if !ok {
			continue
		}
		switch {
		case p.link && sec.LR == nil:
			sec.LR = &f
		case !p.link && (sec.PC == nil || sec.PC.Symbol == "" && f.Symbol != ""):
			sec.PC = &f
		}
		if f.Symbol != "" || !strings.Contains(s, ": ") {
			return true
		}
	}
	return b.registers(s)
}

func (b *body) who(s string) bool {
	sec := b.section()
	var cpu, pid, comm, rest string
	if m := who.FindStringSubmatch(s); m != nil {
		cpu, pid, comm, rest = m[1], m[2], m[3], m[4]
		b.taint(rest)
	} else if m := oldWho.FindStringSubmatch(s); m != nil {
		pid, comm = m[1], m[2]
		if f := strings.Fields(m[3]); len(f) > 0 {
			for _, w := range f {
				if digit(w[0]) {
					setString(&b.r.Release, w)
					break
				}
			}
		}
	} else if m := process.FindStringSubmatch(s); m != nil {
		comm, pid = m[1], m[2]
	} else {
		return false
	}
	if sec.CPU < 0 && cpu != "" {
		sec.CPU = atoi(cpu)
	}
	if sec.PID < 0 {
		sec.PID, sec.Comm = atoi(pid), comm
	}
	return true
}

// taint reads "Tainted: G        W  O      5.10.0-8-amd64 #1 …" and "Not tainted 6.1.0 …".
func (b *body) taint(s string) {
	words := strings.Fields(strings.TrimPrefix(strings.TrimPrefix(s, "Not tainted"), "Tainted:"))
	letters := ""
	for _, w := range words {
		if strings.Trim(w, "ABCDEFGHIJKLMNOPQRSTUVWXYZ") != "" {
			if b.r.Release == "" && strings.ContainsAny(w, "0123456789") {
				b.r.Release = w
			}
			break
		}
		letters += w
	}
	setString(&b.r.Taint, strings.TrimPrefix(letters, "G"))
}

// code reads x86's bytes around the program counter, and arm64's words.
func (b *body) code(s string) {
	if b.user || b.r.Code != nil || b.ended || b.section().Role != Main {
		return
	}
	if strings.HasPrefix(s, "Unable to access opcode bytes") || strings.HasPrefix(s, "Bad RIP value") {
		b.r.NoCode = true
		return
	}
	var code []byte
	at := -1
	for _, w := range strings.Fields(s) {
		mark := strings.HasPrefix(w, "<") || strings.HasPrefix(w, "(")
		raw, err := hex.DecodeString(strings.Trim(w, "<>()"))
		if err != nil || len(code) > 256 {
			return
		}
		if mark {
			at = len(code)
		}
		code = append(code, raw...)
	}
	if at >= 0 {
		b.r.Code, b.r.CodeAt = code, at
	}
}

// registers reads lines such as "RAX: 0000000000000000 RBX: ffff888003f5a000" and
// "x29: ffff800011e5bd30 x28: ffff0000c6d8a000".
func (b *body) registers(s string) bool {
	colon := strings.IndexByte(s, ':')
	if colon < 1 || colon > 8 || !registerName(strings.TrimSpace(s[:colon])) {
		return false
	}
	sec := b.section()
	for s != "" {
		colon := strings.IndexByte(s, ':')
		if colon < 1 {
			break
		}
		name := strings.TrimSpace(s[:colon])
		if i := strings.LastIndexByte(name, ' '); i >= 0 {
			name = name[i+1:]
		}
		s = strings.TrimLeft(s[colon+1:], " ")
		if len(s) > 5 && s[4] == ':' && hexDigit(s[0]) { // a segment: "0018:ffffc90006e0f598"
			s = s[5:]
		}
		v, rest, ok := hexPrefix(s)
		if !ok {
			break
		}
		if n := len(s) - len(rest); n >= 4 && registerName(name) && !b.user && !b.ended && len(sec.Registers) < 96 {
			if _, have := sec.Get(strings.ToLower(name)); !have {
				sec.Registers = append(sec.Registers, Register{strings.ToLower(name), v})
			}
		}
		s = rest
	}
	return true
}

// registerName reports whether a word is the name of a register of some machine.
func registerName(s string) bool {
	if len(s) < 2 || len(s) > 7 {
		return false
	}
	switch s {
	case "RAX", "RBX", "RCX", "RDX", "RSI", "RDI", "RBP", "RSP", "R08", "R09", "EFLAGS", "FS", "GS", "CS", "DS", "ES", "SS", "CR0", "CR2", "CR3", "CR4", "EAX", "EBX", "ECX",
		"EDX", "ESI", "EDI", "EBP", "ESP", "sp", "pstate", "psr", "ip", "fp", "gp", "tp", "ra", "epc", "status", "badaddr", "cause", "DAR", "DSISR", "MSR", "CTR", "PKRU", "knlGS":
		return true
	}
	switch s[0] {
	case 'x', 'r', 'R', 'a', 't', 's':
		_, err := strconv.ParseUint(s[1:], 10, 8)
		return err == nil
	}
	return false
}

var factPatterns = []*pattern{
	re(`^(?P<access>Read|Write) of size (?P<size>\d+) (?:at addr|by) (?P<address>[0-9a-f]+)?(?: by task (?P<comm>.*)/(?P<pid>\d+))?`),
	re(`^Read of size (?P<size>\d+)`),
	re(`^(?P<where>The buggy address is located .*)`),
	re(`^(?:The buggy address belongs to the object at|Object at) (?P<object>[0-9a-f]+)(?:, in cache (?P<cache>\S+)(?: size: (?P<objsize>\d+))?)?`),
	re(`^which belongs to the cache (?P<cache>\S+) of size (?P<objsize>\d+)`),
	re(`^(?:Use-after-free|Out-of-bounds|Invalid) (?P<access>read|write) at 0x(?P<address>[0-9a-f]+)`),
	re(`^(?:Invalid free|Corrupted memory) (?:of|at) 0x(?P<address>[0-9a-f]+)`),
	re(`^kfence-#\d+.*?: 0x(?P<object>[0-9a-f]+)-0x[0-9a-f]+, size=(?P<objsize>\d+), cache=(?P<cache>\S+)`),
	re(`^CPU: (?P<cpu>\d+) `),
	re(`^Mem abort info:`),
	re(`^#PF: supervisor (?P<access>read|write|instruction) (?:access|fetch)`),
	re(`^(?P<detail>KASAN: (?:null-ptr-deref|maybe wild-memory-access|probably user-memory-access|.*) in range .*)`),
	re(`^(?P<detail>kernel tried to execute (?:NX-protected page|user page).*)`),
	re(`^(?P<detail>#PF: error_code\(0x[0-9a-f]+\).*)`),
	re(`^(?P<detail>unable to execute userspace code.*)`),
	re(`^(?P<detail>Unable to handle .*|Execute from non-executable memory.*|.*\(uid: \d+\))$`),
	re(`^(?P<detail>(?:index -?\d+ is out of range|shift exponent|signed integer overflow|division by zero|load of value|member access within|null pointer).*)`),
	re(`^(?P<detail>in_atomic\(\): .*|preempt_count: .*|caller is .*|last function: .*|DEBUG_LOCKS_WARN_ON.*|ODEBUG: .*|kobject_add_internal failed .*|skbuff: .*|\d+ locks? held by .*)`),
	re(`^(?P<detail>.* is trying to (?:acquire|release) lock.*|.* is freeing memory .*|but task is already holding lock:|but there are no more locks to release!)`),
	re(`^(?P<detail>#\d+: .*, at: .*)`),
	re(`^(?P<detail>(?:\(?[0-9a-f]{8,16}\)? )?\(.*\)\{.*\}(?:-\{\d+:\d+\})?, at: .*)`),
	re(`^(?P<detail>page:\S+ .*|page dumped because: .*)`),
	re(`^(?P<detail>Out of memory: .*|oom-kill:.*|Tasks in .* killed as a result.*)`),
	re(`^(?P<detail>\[Hardware Error\]: .*)`),
	re(`^(?P<detail>esr: .*|ESR = .*|FAR.*)`),
	re(`^(?P<detail>invoked oom-killer: .*|\S+ invoked oom-killer: .*)`),
	re(`^(?P<detail>faulting instruction address: .*|Faulting instruction address: .*)`),
}

// facts reads what is particular to a kind of report.
func (b *body) facts(s string) bool {
	if b.ended {
		return false
	}
	c := s[0]
	if c == '-' || c == '=' {
		return false
	}
	r := b.r
	for _, p := range factPatterns {
		m := p.compiled().FindStringSubmatch(s)
		if m == nil {
			continue
		}
		for i, name := range p.compiled().SubexpNames() {
			v := m[i]
			if v == "" {
				continue
			}
			switch name {
			case "access":
				if v = strings.ToLower(v); v == "instruction" {
					v = "execute"
				}
				setString(&r.Access, v)
			case "size":
				if r.Size == 0 {
					r.Size = max(atoi(v), 0)
				}
			case "address":
				if a, err := strconv.ParseUint(v, 16, 64); err == nil && !r.HasAddress {
					r.Address, r.HasAddress = a, true
				}
			case "object":
				if a, err := strconv.ParseUint(v, 16, 64); err == nil && r.Object == 0 {
					r.Object = a
				}
			case "objsize":
				if r.ObjectSize == 0 {
					r.ObjectSize = max(atoi(v), 0)
				}
			case "cache":
				setString(&r.Cache, v)
			case "comm":
				setString(&r.Comm, v)
			case "pid":
				setNumber(&r.PID, v)
			case "where":
				setString(&r.Where, v)
			case "detail":
				if len(r.Details) < maxDetails {
					r.Details = append(r.Details, v)
				}
			}
		}
		return true
	}
	return false
}

// settle draws what follows from all lines together.
func (r *Report) settle() {
	if r.Panic != "" || r.Kind == Panic || r.Kind == StackProtector || r.Kind == StackEnd {
		r.Fatal = true
	}
	if r.Kind == PageFault && !r.HasAddress {
		if m := r.Main(); m != nil {
			if v, ok := m.Get("cr2"); ok {
				r.Address, r.HasAddress = v, true
			}
		}
	}
	for i := range r.Sections {
		s := &r.Sections[i]
		if s.Role == Main && r.CPU < 0 && !r.Kind.Watchdog() {
			r.CPU = s.CPU
		}
	}
}

// machine guesses the architecture from the names of registers.
func machine(reports []*Report) string {
	for _, r := range reports {
		for i := range r.Sections {
			for _, reg := range r.Sections[i].Registers {
				switch reg.Name {
				case "rax", "rsp":
					return "x86_64"
				case "eax":
					return "i686"
				case "x29":
					return "aarch64"
				case "psr":
					return "armv7l"
				case "dar", "dsisr":
					return "ppc64"
				case "gp":
					return "riscv64"
				}
			}
		}
	}
	return ""
}
