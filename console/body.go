package console

import (
	"regexp"
	"strconv"
	"strings"
)

// maxSections and maxFrames bound what a report is taken apart into.
const (
	maxSections = 512
	maxFrames   = 512
	maxModules  = 2048
	maxDetails  = 24
)

// parse takes a report apart. Lines of different callers are read one caller after
// another: they were interleaved.
func (r *Report) parse() {
	if r.Kind == Session {
		return
	}
	b := body{r: r}
	b.start(Main, "", 0)
	r.Sections[0].CPU, r.Sections[0].PID = -1, -1
	var callers []string
	for i := range r.Lines {
		seen := false
		for _, c := range callers {
			seen = seen || c == r.Lines[i].Caller
		}
		if !seen && len(callers) < 64 {
			callers = append(callers, r.Lines[i].Caller)
		}
	}
	for _, c := range callers {
		for i := range r.Lines {
			if r.Lines[i].Caller == c {
				b.line(&r.Lines[i])
			}
		}
		b.newCaller()
	}
	if r.CPU < 0 || r.PID < 0 {
		if m := r.Main(); m != nil && !r.Kind.Watchdog() {
			if r.CPU < 0 {
				r.CPU = m.CPU
			}
			if r.PID < 0 {
				r.PID, r.Comm = m.PID, m.Comm
			}
		}
	}
}

// body is the state of taking a report apart.
type body struct {
	r       *Report
	cur     int  // section
	user    bool // the registers that come are those of user mode
	ended   bool // the report is over; some machines repeat its registers then
	modules bool // the list of modules goes on
	aside   bool // the next frame is none of the stack
	traced  bool // a line "Call Trace:" announced the frames that come
}

func (b *body) newCaller() { b.user, b.ended, b.modules, b.traced = false, false, false, false }

func (b *body) section() *Section { return &b.r.Sections[b.cur] }

// start begins a section.
func (b *body) start(role Role, title string, line int64) *Section {
	b.user, b.traced = false, false
	if len(b.r.Sections) > 0 {
		if s := b.section(); s.Title == "" && role == Main && s.empty() && title == "" {
			return s
		}
		if len(b.r.Sections) >= maxSections {
			return b.section()
		}
	}
	b.r.Sections = append(b.r.Sections, Section{Role: role, Title: title, Line: line, CPU: -1, PID: -1})
	b.cur = len(b.r.Sections) - 1
	return b.section()
}

func (s *Section) empty() bool { return s.PC == nil && len(s.Frames) == 0 && len(s.Registers) == 0 }

func (b *body) line(l *Line) {
	s := strings.TrimSpace(l.Text)
	if s == "" {
		return
	}
	if b.modules {
		if b.moreModules(s) {
			return
		}
		b.modules = false
	}
	if b.stack(s) || b.label(s, l) || b.machine(s) || b.facts(s) {
		return
	}
}

// stack reads marks and frames.
func (b *body) stack(s string) bool {
	for s != "" && s[0] == '<' {
		end := strings.IndexByte(s, '>')
		if end < 0 || end > 24 || strings.ContainsAny(s[1:end], " :") {
			break
		}
		s = strings.TrimSpace(s[end+1:])
		if s == "" {
			return true
		}
	}
	if armFrames(s, b) {
		return true
	}
	if strings.HasPrefix(s, "RIP: ") || strings.HasPrefix(s, "RIP  ") {
		return b.rip(s)
	}
	f, ok := ParseFrame(s)
	if !ok {
		b.aside = s == "Preemption disabled at:" || strings.HasSuffix(s, ") at:") // of lockdep's locks
		return false
	}
	if b.aside {
		b.aside = false
		if len(b.r.Details) < maxDetails {
			b.r.Details = append(b.r.Details, "at: "+f.String())
		}
		return true
	}
	if b.ended && !b.traced {
		return true // "RIP [<...>] f+0x1/0x2" after the end
	}
	b.user = false
	sec := b.section()
	if len(sec.Frames) < maxFrames {
		sec.Frames = append(sec.Frames, f)
	}
	return true
}

// rip reads x86-64's program counter, which also stands between the frames where an
// exception came in between.
func (b *body) rip(s string) bool {
	rest := strings.TrimLeft(strings.TrimPrefix(s, "RIP"), ": ")
	if len(rest) > 5 && rest[4] == ':' {
		sel := rest[:4]
		b.user = sel != "0010" && sel != "e030" && sel != "e033" && sel != "0060" && sel != "0008"
		rest = rest[5:]
	}
	if b.user || b.ended {
		return true
	}
	f, ok := lastFrame(rest)
	if !ok {
		return true
	}
	sec := b.section()
	if len(sec.Frames) > 0 && b.traced {
		f.Trap = true
		if len(sec.Frames) < maxFrames {
			sec.Frames = append(sec.Frames, f)
		}
		if sec.PC == nil {
			sec.PC = &f
		}
		return true
	}
	if sec.PC == nil {
		sec.PC = &f
	}
	return true
}

// lastFrame reads "[<addr>]  [<addr>] symbol+0x1/0x2" and "symbol+0x1/0x2 file:1", and
// an address alone.
func lastFrame(s string) (Frame, bool) {
	if f, ok := ParseFrame(s); ok {
		return f, true
	}
	if i := strings.Index(s, "+0x"); i > 0 {
		start := strings.LastIndexAny(s[:i], " (") + 1
		if f, ok := ParseFrame(strings.TrimRight(s[start:], ")")); ok {
			return f, true
		}
		return Frame{}, false
	}
	s, prefixed := strings.CutPrefix(strings.TrimSpace(s), "0x")
	if addr, rest, ok := hexPrefix(s); ok && (prefixed || len(s)-len(rest) >= 8) {
		return Frame{Addr: addr}, true
	}
	return Frame{}, false
}

// armFrames reads 32-bit arm's "[<c010e4e8>] (f) from [<c010ab2c>] (g+0x10/0x14)", and
// "f from g+0x10/0x14" since 5.18.
func armFrames(s string, b *body) bool {
	left, right, ok := strings.Cut(s, " from ")
	if !ok || !strings.Contains(right, "+0x") {
		return false
	}
	name := func(t string) string {
		if i := strings.IndexByte(t, '('); i >= 0 {
			t = strings.TrimSuffix(strings.TrimSpace(t[i+1:]), ")")
		}
		return t
	}
	f, ok := ParseFrame(name(right))
	if !ok {
		return false
	}
	sec := b.section()
	if callee := name(left); len(sec.Frames) == 0 {
		c, known := ParseFrame(callee)
		if !known && symbolic(callee) {
			c, known = Frame{Symbol: callee}, true
		}
		if known {
			sec.Frames = append(sec.Frames, c)
		}
	}
	if len(sec.Frames) < maxFrames {
		sec.Frames = append(sec.Frames, f)
	}
	return true
}

// labels begin a section.
var labels = []struct {
	role Role
	re   *pattern
}{
	{Allocated, re(`^(?:Allocated by task \S+|allocated by task .*|Allocated|INFO: Allocated in (?P<frame>\S+) age=.*|Slab \S+ .*allocated.*)(?::$|$| )`)},
	{Freed, re(`^(?:Freed by task \S+|freed by task .*|Freed|Freed in \S+|INFO: Freed in (?P<frame>\S+) age=.*|page last free (?:pid \d+ tgid \d+ )?stack trace)(?::$|$| )`)},
	{Related, re(`^(?:Last potentially related work creation|Second to last potentially related work creation|Last call_rcu\(\)|Second to last call_rcu\(\)|page last allocated via order|page_owner tracks)`)},
	{Origin, re(`^(?:Uninit was (?:created|stored to memory) at|Local variable .* created at|origin|chained origin):?`)},
	{OnCPU, re(`^(?:NMI backtrace for cpu (?P<cpu>\d+)|Task dump for CPU (?P<cpu2>\d+):|CPU(?P<cpu3>\d+): stopping)`)},
	{OnTask, re(`^task:(?P<comm>.*?) +state:(?P<state>\S).* pid: *(?P<pid>\d+)`)},
	{OnTask, re(`^(?P<comm>[^\s:]+) +(?P<state>[RSDTtXZPI])(?:  ?| running task on cpu +\d+)(?: running task +| stack: *| +)+(?:[0-9a-f]+ +)?\d+ +(?P<pid>\d+) +\d+ 0x`)},
	{Race, re(`^(?:write|read|read-write|read \(marked\)|write \(marked\)|race at unknown origin|assert no accesses|assert no writes)(?: \(.*\))? to 0x[0-9a-f]+ of \d+ bytes by (?:task (?P<pid>\d+)|interrupt) on cpu (?P<cpu>\d+):`)},
	{Chain, re(`^(?:-> #\d+ \(|\.\.\. which became |.*has been \S+ by another|the (?:shortest|existing) dependenc|\{(?:IN-|HARDIRQ-|SOFTIRQ-|RECLAIM_FS-).* state was registered at)`)},
	{Backtrace, re(`^(?:stack backtrace|Sending NMI from CPU|rcu: RCU grace-period kthread stack dump|RCU grace-period kthread stack dump|Showing all locks held|Stack dump where RCU GP kthread last ran|rcu: Stack dump where)`)},
}

var traceLine = regexp.MustCompile(`^(?:Call [Tt]race|Backtrace|Stack traceback)\b`)

// label reads a line that begins a section or announces frames.
func (b *body) label(s string, l *Line) bool {
	if c := s[0]; (c == 'C' || c == 'B' || c == 'S') && traceLine.MatchString(s) {
		if sec := b.section(); len(sec.Frames) > 0 {
			role := OnTask
			switch sec.Role {
			case Allocated, Freed, Related, Origin, Chain:
				role = Backtrace
			}
			b.start(role, s, l.Number)
		}
		b.traced, b.user = true, false
		return true
	}
	for i := range labels {
		lab := &labels[i]
		p := lab.re.compiled()
		m := p.FindStringSubmatch(s)
		if m == nil {
			continue
		}
		if lab.role == Race && b.r.Kind == KCSAN && len(b.r.Sections) == 1 && b.section().empty() {
			b.r.Sections = b.r.Sections[:0]
		}
		cause := lab.role
		if cause == OnTask && b.r.Kind == HungTask && !b.blamed() {
			cause = Main
		}
		sec := b.start(cause, s, l.Number)
		for i, name := range p.SubexpNames() {
			switch v := m[i]; name {
			case "cpu", "cpu2", "cpu3":
				setNumber(&sec.CPU, v)
			case "pid":
				setNumber(&sec.PID, v)
			case "comm":
				sec.Comm = v
			case "state":
				sec.State = v
			case "frame":
				if f, ok := ParseFrame(v); ok {
					sec.Frames = append(sec.Frames, f)
				} else if symbolic(v) {
					sec.Frames = append(sec.Frames, Frame{Symbol: v})
				}
			}
		}
		return true
	}
	if strings.HasPrefix(s, "---[ end ") {
		b.ended = true
		return true
	}
	return false
}

// blamed reports whether the task that a hung task report names had its section.
func (b *body) blamed() bool {
	for i := range b.r.Sections {
		if s := &b.r.Sections[i]; s.Role == Main && (s.Title != "" || len(s.Frames) > 0) {
			return true
		}
	}
	return false
}

// moreModules reads the lines that a list of modules goes on with.
func (b *body) moreModules(s string) bool {
	if strings.ContainsAny(s, "=<>/+?:") {
		return false
	}
	b.addModules(s)
	return true
}

func (b *body) addModules(s string) {
	s, last, unloaded := strings.Cut(s, "[last unloaded: ")
	_ = last
	for _, word := range strings.Fields(s) {
		if len(b.r.Modules) >= maxModules {
			return
		}
		name, taints, _ := strings.Cut(word, "(")
		if name == "" || !symbolic(name) && !digit(name[0]) {
			continue
		}
		b.r.Modules = append(b.r.Modules, Module{name, strings.Trim(taints, ")+-")})
	}
	b.modules = !unloaded
}

func atoi(s string) int {
	n, err := strconv.Atoi(s)
	if err != nil {
		return -1
	}
	return n
}
