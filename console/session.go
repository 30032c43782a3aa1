package console

import (
	"bytes"
	"regexp"
	"strconv"
	"strings"
)

// session is a stack as crash(8)'s bt prints it, while it is read.
type session struct {
	r   *Report
	sec *Section
}

var (
	sessionPID   = regexp.MustCompile(`^PID: (\d+) +TASK: [0-9a-f]+ +CPU: (\d+) +COMMAND: "(.*)"`)
	sessionFrame = regexp.MustCompile(`^#(\d+) \[[0-9a-f]+\] (\S+) at ([0-9a-f]+)(?: \[(\S+)\])?`)
	sessionData  = regexp.MustCompile(`^[0-9a-f]{16}: `) // bt -f
	sessionRIP   = regexp.MustCompile(`^\[exception RIP: (\S+?)(?:\+(\d+))?\]`)
)

func sessionHead(t []byte) bool { return sessionPID.Match(t) }

// beginSession takes the head of a stack.
func (p *parser) beginSession(t []byte) {
	if p.session != nil {
		p.endSession()
	}
	m := sessionPID.FindStringSubmatch(string(t))
	l := p.makeLine(t)
	p.keep(l)
	r := &Report{Kind: Session, Message: l.Text, Opening: l, CPU: atoi(m[2]), PID: atoi(m[1]), Comm: m[3], CodeAt: -1, Boot: p.boots[l.Source]}
	r.Sections = []Section{{Role: Main, CPU: r.CPU, PID: r.PID, Comm: r.Comm}}
	r.Before = p.lastLines(beforeLines)
	r.add(l)
	p.session = &session{r: r, sec: &r.Sections[0]}
	p.release = "crash"
}

// banner reads the lines of crash's banner that say something of the crash.
func (p *parser) banner(t []byte) bool {
	if v, ok := bytes.CutPrefix(t, []byte("RELEASE: ")); ok {
		p.log.Release = string(bytes.TrimSpace(v[:min(len(v), 128)]))
		p.release = p.log.Release
		return true
	}
	v, ok := bytes.CutPrefix(t, []byte(`PANIC: "`))
	if ok && p.release != "" {
		v, _, _ = bytes.Cut(v, []byte(`"`))
		p.panic = strings.TrimSpace(string(v))
		return true
	}
	return false
}

// take reads a line of the stack; false when the line is none.
func (s *session) take(p *parser, t []byte) bool {
	text := string(t)
	if m := sessionFrame.FindStringSubmatch(text); m != nil {
		addr, err := strconv.ParseUint(m[3], 16, 64)
		if err == nil && symbolic(m[2]) && len(s.sec.Frames) < maxFrames {
			name, off, _ := strings.Cut(m[2], "+")
			offset, _ := strconv.ParseUint(off, 10, 64)
			s.sec.Frames = append(s.sec.Frames, Frame{Symbol: name, Offset: offset, Module: m[4], Addr: addr})
		}
	} else if m := sessionRIP.FindStringSubmatch(text); m != nil {
		if off, _ := strconv.ParseUint(m[2], 10, 64); symbolic(m[1]) && len(s.sec.Frames) < maxFrames {
			f := Frame{Symbol: m[1], Offset: off, Trap: true}
			if s.sec.PC == nil {
				s.sec.PC = &f
			}
			s.sec.Frames = append(s.sec.Frames, f)
		}
	} else if colon := bytes.IndexByte(t, ':'); colon > 0 && (registerName(string(bytes.TrimSpace(t[:colon]))) || bytes.HasPrefix(t, []byte("RIP:"))) {
		b := body{r: s.r}
		b.registers(text)
	} else if !bytes.HasPrefix(t, []byte("ORIG_RAX")) && !bytes.HasPrefix(t, []byte("--- <")) && t[0] != '(' && t[0] != '/' && !sessionData.Match(t) {
		p.endSession()
		return false
	}
	l := p.makeLine(t)
	p.keep(l)
	s.r.add(l)
	return true
}

// endSession takes a stack that says how the machine died; other tasks' stacks do not.
func (p *parser) endSession() {
	r := p.session.r
	p.session = nil
	for i := range r.Sections[0].Frames {
		switch r.Sections[0].Frames[i].Name() {
		case "panic", "vpanic", "crash_kexec", "__crash_kexec", "machine_kexec", "oops_end", "die", "nmi_panic", "sysrq_handle_crash":
			r.Fatal, r.Panic = true, p.panic
			p.admit(r)
			return
		}
	}
}
