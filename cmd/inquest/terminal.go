package main

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/term"
)

// terminal is what standard output can show.
type terminal struct {
	width  int // columns; 0 when it is no terminal
	colour bool
}

// terminalOf looks whether a writer is a terminal. The zero terminal is plain text.
func terminalOf(w io.Writer) terminal {
	f := fileOf(w)
	if f == nil || !term.IsTerminal(int(f.Fd())) {
		return terminal{}
	}
	t := terminal{width: 80, colour: os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"}
	if w, _, err := term.GetSize(int(f.Fd())); err == nil && w > 0 {
		t.width = w
	}
	return t
}

// fileOf returns the file that a writer ends in, nil when it is none.
func fileOf(w io.Writer) *os.File {
	if b, ok := w.(*output); ok {
		return b.file
	}
	f, _ := w.(*os.File)
	return f
}

// output is buffered standard output that still knows its file.
type output struct {
	*bufio.Writer
	file *os.File
}

func newOutput(w io.Writer) *output {
	f, _ := w.(*os.File)
	return &output{bufio.NewWriterSize(w, 64<<10), f}
}

// Colours of a terminal (ECMA-48, SGR).
const (
	bold   = "1"
	dim    = "2"
	red    = "31"
	green  = "32"
	yellow = "33"
	cyan   = "36"
)

// paint colours text, if the terminal can.
func (t terminal) paint(sgr, text string) string {
	if !t.colour || text == "" {
		return text
	}
	return "\x1b[" + sgr + "m" + text + "\x1b[0m"
}

// clean makes text from a dump safe to show: control characters could drive the
// terminal.
func clean(text string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' && r != '\t' || r >= 0x7f && r < 0xa0 {
			return '·'
		}
		return r
	}, text)
}

// cleanLines is clean for text of several lines.
func cleanLines(text string) string {
	lines := strings.Split(text, "\n")
	for i := range lines {
		lines[i] = clean(lines[i])
	}
	return strings.Join(lines, "\n")
}

// progress draws a bar on standard error for work that takes over a second.
type progress struct {
	w     io.Writer // nil when standard error is no terminal
	width int

	mu    sync.Mutex
	since time.Time
	drawn time.Time
}

const (
	progressAfter = time.Second
	progressEvery = 100 * time.Millisecond
)

func newProgress(w io.Writer) *progress {
	p := &progress{since: time.Now()}
	if t := terminalOf(w); t.width > 0 {
		p.w, p.width = w, t.width
	}
	return p
}

// report draws how far some work is. It is safe for concurrent use.
func (p *progress) report(what string, done, total int64) {
	if p.w == nil || total <= 0 {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	if now.Sub(p.since) < progressAfter || now.Sub(p.drawn) < progressEvery {
		return
	}
	p.drawn = now
	done = min(done, total)
	room := p.width - len(what) - 10
	if room < 10 {
		fmt.Fprintf(p.w, "\r%3d%%", 100*done/total)
		return
	}
	room = min(room, 40)
	full := int(int64(room) * done / total)
	fmt.Fprintf(p.w, "\r%s [%s%s] %3d%%", what, strings.Repeat("#", full), strings.Repeat(".", room-full), 100*done/total)
}

// end wipes the bar away.
func (p *progress) end() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.drawn.IsZero() {
		fmt.Fprintf(p.w, "\r%s\r", strings.Repeat(" ", p.width-1))
		p.drawn = time.Time{}
	}
	p.since = time.Now()
}
