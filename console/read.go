package console

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"time"
)

// Bounds on what is kept of a text, whose length nobody knows.
const (
	maxLine      = 4096      // bytes of a line; the rest is skipped
	maxReports   = 256       // the first half of it, and the last
	maxLines     = 4000      // of a report
	maxBytes     = 256 << 10 // of a report
	quietLines   = 160       // without anything that belongs to a report, until it is over
	maxSources   = 1024
	tailLines    = 60
	beforeLines  = 20
	readAhead    = 256 << 10
	sameIncident = 40 // lines in which a report can be explained by a second opening line
)

// Read reads a text to its end. It fails only where reading does; what was read until
// then is in the log.
func Read(r io.Reader) (*Log, error) {
	p := &parser{log: &Log{}, open: map[string]*Report{}, recent: map[string]*Report{}, boots: map[string]int{}}
	in := bufio.NewReaderSize(r, readAhead)
	for {
		line, err := in.ReadSlice('\n')
		p.log.Bytes += int64(len(line))
		if errors.Is(err, bufio.ErrBufferFull) {
			head := bytes.Clone(line[:maxLine])
			for errors.Is(err, bufio.ErrBufferFull) {
				line, err = in.ReadSlice('\n')
				p.log.Bytes += int64(len(line))
			}
			p.line(head)
		} else if len(line) > 0 {
			p.line(line[:min(len(line), maxLine)])
		}
		if err != nil {
			p.finish()
			if err == io.EOF {
				return p.log, nil
			}
			return p.log, fmt.Errorf("read the log: %w", err)
		}
	}
}

// parser is the state of reading.
type parser struct {
	log     *Log
	open    map[string]*Report // by source and caller: the report that their lines go to
	recent  map[string]*Report // by source: the last report that was opened
	boots   map[string]int     // by source
	sources map[string]bool
	tail    [tailLines]remembered
	tails   int
	release string // that a crash session names
	panic   string // its panic
	m       meta
	active  int    // open reports
	key     []byte // scratch
	session *session
	foreign int // lines with a syslog prefix
}

func (p *parser) line(raw []byte) {
	p.log.Lines++
	for raw != nil {
		raw = p.part(raw)
	}
}

// part takes a line up to where another one begins: consoles lose line ends. It returns
// the other.
func (p *parser) part(raw []byte) (rest []byte) {
	text := strip(raw, &p.m)
	if i := nextTime(text); i > 0 && p.m.timed {
		text, rest = text[:i], text[i:]
	}
	p.text(text)
	return rest
}

// nextTime returns where a time in brackets stands in a text, 0 when there is none.
func nextTime(text []byte) int {
	for at, n := 1, 0; at < len(text)-12 && n < 4; n++ {
		i := bytes.IndexByte(text[at:], '[')
		if i < 0 {
			return 0
		}
		at += i
		if rest := text[at:]; len(rest) > 12 && (rest[1] == ' ' || digit(rest[1])) {
			if end := bytes.IndexByte(rest[:min(len(rest), 24)], ']'); end > 8 && end+1 < len(rest) && (rest[end+1] == ' ' || rest[end+1] == '[') {
				if _, ok := seconds(rest[1:end]); ok {
					return at
				}
			}
		}
		at++
	}
	return 0
}

func (p *parser) text(text []byte) {
	trimmed := bytes.TrimLeft(text, " \t")
	if len(trimmed) < 2 {
		return
	}
	if len(p.m.source) > 0 {
		p.foreign++
	}
	if c := trimmed[0]; c == 'L' && bytes.HasPrefix(trimmed, []byte("Linux version ")) {
		p.boot(trimmed)
	} else if (c == 'R' || c == 'P') && p.banner(trimmed) {
		return
	} else if c == 'P' && bytes.HasPrefix(trimmed, []byte("PID: ")) && sessionHead(trimmed) {
		p.beginSession(trimmed)
		return
	} else if p.session != nil && p.session.take(p, trimmed) {
		return
	}
	o, opened := opens(trimmed)
	if o == nil && p.active == 0 {
		p.remember(text)
		return
	}
	line := p.makeLine(text)
	if o != nil {
		p.begin(o, string(opened), line)
		p.keep(line)
		return
	}
	p.keep(line)
	p.body(line, trimmed)
}

// boot notes that a kernel introduced itself.
func (p *parser) boot(text []byte) {
	fields := bytes.Fields(text[:min(len(text), 256)])
	if len(fields) < 3 || !bytes.ContainsAny(fields[2], "0123456789") {
		return
	}
	p.log.Release = string(fields[2])
	p.log.Boots++
	source := string(p.m.source)
	if last := p.recent[source]; last != nil && last.Boot == p.boots[source] && p.log.Lines-last.last < quietLines {
		last.Fatal = true // what comes next is the next kernel
	}
	p.boots[source]++
	for key, r := range p.open {
		if r.Opening.Source == source {
			p.close(key)
		}
	}
	delete(p.recent, source)
}

// contextKey names who writes the lines that belong together.
func (p *parser) contextKey(l *Line) string {
	p.key = append(p.key[:0], l.Source...)
	p.key = append(p.key, 0)
	return string(append(p.key, l.Caller...))
}

// begin takes a line that opens a report.
func (p *parser) begin(o *opening, text string, l Line) {
	key := p.contextKey(&l)
	cur := p.open[key]
	if cur == nil && (o.kind == Panic || o.kind == StackEnd) {
		// Panics may come from another context than what led to them.
		if last := p.recent[l.Source]; last != nil && last.Boot == p.boots[l.Source] && near(last, &l) {
			cur = last
		}
	}
	if cur != nil && cur.joins(o, text, &l) {
		cur.join(o, text, l)
		if p.open[key] == nil {
			p.track(key, cur)
		}
		return
	}
	if cur != nil {
		p.close(key)
	}
	r := &Report{Kind: o.kind, Message: text, Boot: p.boots[l.Source], Opening: l, CPU: -1, PID: -1, CodeAt: -1, Release: p.log.Release}
	r.take(o.re, text)
	r.weak, r.Before = o.weak, p.lastLines(beforeLines)
	r.add(l)
	p.track(key, r)
	p.recent[l.Source] = r
	p.admit(r)
	p.knowSource(l.Source)
}

func (p *parser) track(key string, r *Report) {
	if len(p.open) >= maxSources {
		for k := range p.open {
			p.close(k)
			break
		}
	}
	p.open[key] = r
	p.active = len(p.open)
}

func (p *parser) knowSource(s string) {
	if p.sources == nil {
		p.sources = map[string]bool{}
	}
	if s != "" && !p.sources[s] && len(p.sources) < maxSources {
		p.sources[s] = true
		p.log.Sources = append(p.log.Sources, s)
	}
}

// admit makes room for a report: the first ones and the last ones stay.
func (p *parser) admit(r *Report) {
	p.log.Reports = append(p.log.Reports, r)
	if len(p.log.Reports) <= maxReports {
		return
	}
	// The oldest of the second half goes; those that are open still are among the last.
	const half = maxReports / 2
	copy(p.log.Reports[half:], p.log.Reports[half+1:])
	p.log.Reports = p.log.Reports[:maxReports]
	p.log.Dropped++
}

// near reports whether a line follows a report closely.
func near(r *Report, l *Line) bool {
	if l.Timed && r.Opening.Timed {
		return l.Time >= r.Opening.Time && l.Time-r.Opening.Time < 10*time.Second
	}
	return l.Number-r.last < quietLines
}

// body takes a line that opens nothing.
func (p *parser) body(l Line, trimmed []byte) {
	key := p.contextKey(&l)
	r := p.open[key]
	if r == nil {
		if bytes.HasPrefix(trimmed, []byte("NMI backtrace for cpu")) {
			if last := p.recent[l.Source]; last != nil && last.Kind.Watchdog() {
				p.track(key, last)
				last.add(l)
			}
		}
		return
	}
	if belongs(trimmed) {
		r.last = l.Number
	} else if l.Number-r.last > quietLines {
		p.close(key)
		return
	}
	r.add(l)
	if !r.stacked && stackLine(trimmed) {
		r.stacked = true
	}
	if !r.Ended && bytes.HasPrefix(trimmed, []byte("---[ end ")) {
		r.Ended = true
	}
}

func (p *parser) close(key string) {
	delete(p.open, key)
	p.active = len(p.open)
}

// finish ends all reports and takes them apart.
func (p *parser) finish() {
	if p.session != nil {
		p.endSession()
	}
	kept := p.log.Reports[:0]
	for _, r := range p.log.Reports {
		r.parse()
		if r.weak && r.Main() == nil {
			continue
		}
		r.settle()
		kept = append(kept, r)
	}
	p.log.Reports = kept
	p.log.Tail = p.lastLines(tailLines)
	p.log.Format = p.format()
	p.log.Machine = machine(kept)
	if p.log.Release == "" {
		for _, r := range kept {
			setString(&p.log.Release, r.Release)
		}
	}
}

func (p *parser) format() string {
	switch {
	case p.release != "":
		return "crash session"
	case len(p.log.Sources) > 1:
		return "log of several machines"
	case p.foreign > 0 && int64(p.foreign)*2 > p.log.Lines:
		return "journal or syslog"
	}
	return "kernel log"
}

// add keeps a line of a report.
func (r *Report) add(l Line) {
	if len(r.Lines) >= maxLines || r.bytes+len(l.Text) > maxBytes {
		r.Cut = true
		return
	}
	r.bytes += len(l.Text) + 64
	if r.Lines == nil {
		r.Lines = make([]Line, 0, 64)
	}
	r.Lines = append(r.Lines, l)
	if r.last == 0 {
		r.last = l.Number
	}
}
