package verdict

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"golang.org/x/term"
)

// ErrNoTerminal is the error for a live view of which nobody could see anything.
var ErrNoTerminal = errors.New("standard output is not a terminal")

// Screen is a live view of a daemon on a terminal.
type Screen struct {
	Socket   string        // of the daemon
	Interval time.Duration // between two looks
	In, Out  *os.File      // the terminal
	Colour   bool
}

// Escape sequences of terminals (xterm's, understood by all others): the alternate
// screen, the cursor, and what is left of a line or of the screen.
const (
	enterScreen = "\x1b[?1049h\x1b[?25l"
	leaveScreen = "\x1b[?25h\x1b[?1049l"
	goHome      = "\x1b[H"
	clearLine   = "\x1b[K"
	clearBelow  = "\x1b[J"
)

// Run shows the daemon until the context ends or somebody presses q. It leaves the
// terminal as it was, whatever happens.
func (s *Screen) Run(ctx context.Context) error {
	if !term.IsTerminal(int(s.Out.Fd())) {
		return ErrNoTerminal
	}
	now, err := ReadStatus(s.Socket)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	keys := make(chan byte)
	if fd := int(s.In.Fd()); term.IsTerminal(fd) {
		old, err := term.MakeRaw(fd)
		if err != nil {
			return fmt.Errorf("prepare the terminal: %w", err)
		}
		defer term.Restore(fd, old)
		go s.read(ctx, keys)
	}
	s.Out.WriteString(enterScreen)
	defer s.Out.WriteString(leaveScreen)

	resized := make(chan os.Signal, 1)
	signal.Notify(resized, syscall.SIGWINCH)
	defer signal.Stop(resized)
	tick := time.NewTicker(s.Interval)
	defer tick.Stop()

	var before *Status
	var trouble error
	paused := false
	for {
		if err := s.draw(before, now, trouble, paused); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-resized:
		case key := <-keys:
			switch key {
			case 'q', 'Q', 3, 4: // and what Ctrl-C and Ctrl-D are in raw mode
				return nil
			case ' ', 'p':
				paused = !paused
			}
		case <-tick.C:
			if paused {
				continue
			}
			// A daemon that is started again is found again.
			var next *Status
			if next, trouble = ReadStatus(s.Socket); trouble == nil {
				before, now = now, next
			}
		}
	}
}

// read sends what is typed. It ends with the process: a read of a terminal cannot be
// interrupted.
func (s *Screen) read(ctx context.Context, keys chan<- byte) {
	r := bufio.NewReader(s.In)
	for {
		key, err := r.ReadByte()
		if err != nil {
			return
		}
		select {
		case keys <- key:
		case <-ctx.Done():
			return
		}
	}
}

func (s *Screen) draw(before, now *Status, trouble error, paused bool) error {
	width, height, err := term.GetSize(int(s.Out.Fd()))
	if err != nil || width < 1 || height < 1 {
		width, height = 80, 24
	}
	_, err = s.Out.WriteString(s.frame(View{Width: width, Height: height, Colour: s.Colour}, before, now, trouble, paused))
	return err
}

// frame is all that is written to draw the screen once.
func (s *Screen) frame(v View, before, now *Status, trouble error, paused bool) string {
	footer := "q quits, space pauses"
	switch {
	case trouble != nil:
		footer = "NOT UP TO DATE: " + trouble.Error()
	case paused:
		footer = "PAUSED, space goes on"
	}
	body := v
	body.Height = max(v.Height-1, 0)
	lines := body.Render(before, now)
	for len(lines) < body.Height {
		lines = append(lines, "")
	}
	lines = append(lines, shorten(printable(footer), v.Width))
	return goHome + strings.Join(lines, clearLine+"\r\n") + clearLine + clearBelow
}
