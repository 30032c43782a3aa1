package app

import "bytes"

// SSH reads the identification lines of both sides (RFC 4253 section 4.2).
var SSH = &Analyzer{
	Name: "ssh",
	Doc:  "SSH: the identification line of each side",
	Fields: []Field{
		{ID: FieldSSHClient, Name: "ssh.client", Type: String,
			Doc:    `the client's identification line, "SSH-2.0-OpenSSH_9.9"`,
			String: func(f *Facts) string { return f.SSH.Client.Line }},
		{ID: FieldSSHClientVersion, Name: "ssh.client_version", Type: String,
			Doc:    `the client's protocol version, "2.0"`,
			String: func(f *Facts) string { return f.SSH.Client.Version }},
		{ID: FieldSSHClientSoftware, Name: "ssh.client_software", Type: String,
			Doc:    `the client's software, "OpenSSH_9.9"`,
			String: func(f *Facts) string { return f.SSH.Client.Software }},
		{ID: FieldSSHServer, Name: "ssh.server", Type: String,
			Doc:    "the server's identification line",
			String: func(f *Facts) string { return f.SSH.Server.Line }},
		{ID: FieldSSHServerVersion, Name: "ssh.server_version", Type: String,
			Doc:    "the server's protocol version",
			String: func(f *Facts) string { return f.SSH.Server.Version }},
		{ID: FieldSSHServerSoftware, Name: "ssh.server_software", Type: String,
			Doc:    "the server's software",
			String: func(f *Facts) string { return f.SSH.Server.Software }},
	},
	Match: matchSSH,
	New:   func() Parser { return new(sshParser) },
}

// sshFields are what each direction tells.
var sshFields = [2]FieldSet{
	ToServer: Set(FieldSSHClient, FieldSSHClientVersion, FieldSSHClientSoftware),
	ToClient: Set(FieldSSHServer, FieldSSHServerVersion, FieldSSHServerSoftware),
}

const (
	sshPrefix  = "SSH-"
	maxSSHLine = 255 // with its end
	// maxSSHGreeting bounds the lines that a server may send before its own.
	maxSSHGreeting = 4 << 10
)

// matchSSH wants "SSH-" and a digit; either side may be the first to speak.
func matchSSH(flow Flow, _ Dir, first []byte) Verdict {
	if flow.Transport != TCP {
		return NotMine
	}
	n := min(len(first), len(sshPrefix))
	if string(first[:n]) != sshPrefix[:n] {
		return NotMine
	}
	if len(first) <= len(sshPrefix) {
		return More
	}
	if c := first[len(sshPrefix)]; c < '0' || c > '9' {
		return NotMine
	}
	return Mine
}

type sshParser struct {
	sides [2]sshSide
}

type sshSide struct {
	line    [maxSSHLine]byte
	n       int
	skipped int  // bytes of lines before the identification
	skip    bool // within a line that is longer than any identification
	over    bool
}

func (p *sshParser) Start(Flow) {
	for d := range p.sides {
		s := &p.sides[d]
		s.n, s.skipped, s.skip, s.over = 0, 0, false, false
	}
}

func (p *sshParser) Close() {}

func (p *sshParser) Feed(dir Dir, data []byte, f *Facts) (int, Verdict) {
	if f.Proto == ProtoUnknown {
		f.claim(ProtoSSH, sshFields[ToServer]|sshFields[ToClient])
	}
	if s := &p.sides[dir]; !s.over {
		line, ok := s.read(data)
		if !ok {
			return len(data), p.giveUp(dir, f)
		}
		if line != nil {
			p.learn(dir, line, f)
		}
	}
	return len(data), p.verdict()
}

func (p *sshParser) Gap(dir Dir, _ int, f *Facts) Verdict {
	if p.sides[dir].over {
		return Mine
	}
	return p.giveUp(dir, f)
}

func (p *sshParser) giveUp(dir Dir, f *Facts) Verdict {
	f.Gap = true
	f.version++
	f.settle(sshFields[dir])
	p.sides[dir].over = true
	return p.verdict()
}

func (p *sshParser) verdict() Verdict {
	if p.sides[ToServer].over && p.sides[ToClient].over {
		return Done
	}
	return Mine
}

// read takes bytes and returns the identification line without its end once it is
// there. It is false when none can come.
func (s *sshSide) read(data []byte) (line []byte, ok bool) {
	for len(data) > 0 {
		n := bytes.IndexByte(data, '\n')
		ended := n >= 0
		if !ended {
			n = len(data)
		}
		if !s.skip {
			s.skip = copy(s.line[s.n:], data[:n]) < n
			s.n = min(s.n+n, len(s.line))
		}
		if ended && !s.skip && bytes.HasPrefix(s.line[:s.n], []byte(sshPrefix)) {
			return bytes.TrimSuffix(s.line[:s.n], []byte("\r")), true
		}
		if s.skip && bytes.HasPrefix(s.line[:], []byte(sshPrefix)) {
			return nil, false
		}
		s.skipped += n
		if s.skipped > maxSSHGreeting {
			return nil, false
		}
		if !ended {
			return nil, true
		}
		s.n, s.skip = 0, false
		data = data[n+1:]
	}
	return nil, true
}

func (p *sshParser) learn(dir Dir, line []byte, f *Facts) {
	banner := &f.SSH.Client
	if dir == ToClient {
		banner = &f.SSH.Server
	}
	whole := text(line)
	*banner = SSHBanner{Line: whole}
	rest := whole[len(sshPrefix):]
	for i := range len(rest) {
		if rest[i] == '-' {
			banner.Version, banner.Software = rest[:i], rest[i+1:]
			break
		}
	}
	for i := range len(banner.Software) {
		if banner.Software[i] == ' ' {
			banner.Software = banner.Software[:i]
			break
		}
	}
	f.settle(sshFields[dir])
	p.sides[dir].over = true
}
