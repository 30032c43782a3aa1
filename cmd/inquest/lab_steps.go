package main

import (
	"fmt"
	"io"
	"strings"
	"sync"
	"time"
)

// steps shows on standard error what long work is at, and since when. On a terminal
// the last line's clock runs on.
type steps struct {
	w     io.Writer
	width int // 0 when standard error is no terminal
	quiet bool

	mu      sync.Mutex
	start   time.Time
	since   time.Time // of the current step
	current string    // "" between steps
	stop    chan struct{}
	wait    sync.WaitGroup
}

func newSteps(w io.Writer, quiet bool) *steps {
	s := &steps{w: w, width: terminalOf(w).width, quiet: quiet, start: time.Now(), stop: make(chan struct{})}
	if s.width > 0 && !quiet {
		s.wait.Go(s.run)
	}
	return s
}

// begin says that a step begins, and ends the one before.
func (s *steps) begin(text string) {
	if s.quiet {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.finish()
	s.current, s.since = clean(text), time.Now()
	if s.width == 0 {
		fmt.Fprintf(s.w, "%6.1fs  %s\n", time.Since(s.start).Seconds(), s.current)
		return
	}
	s.draw()
}

// end ends the last step.
func (s *steps) end() {
	close(s.stop)
	s.wait.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.finish()
}

// run redraws the clock.
func (s *steps) run() {
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-s.stop:
			return
		case <-tick.C:
			s.mu.Lock()
			s.draw()
			s.mu.Unlock()
		}
	}
}

// line is the current step with the time that it began at, and how long it takes.
func (s *steps) line() string {
	text := fmt.Sprintf("%6.1fs  %s", s.since.Sub(s.start).Seconds(), s.current)
	took := fmt.Sprintf("  %.1fs", time.Since(s.since).Seconds())
	room := []rune(text)
	return string(room[:max(0, min(len(room), s.width-1-len(took)))]) + took
}

func (s *steps) draw() {
	if s.current != "" {
		fmt.Fprintf(s.w, "\r%s\x1b[K", s.line())
	}
}

// finish leaves the current step's line as it is.
func (s *steps) finish() {
	if s.current != "" && s.width > 0 {
		fmt.Fprintf(s.w, "\r%s\x1b[K\n", strings.TrimRight(s.line(), " "))
	}
	s.current = ""
}
