//go:build linux

package guest

import (
	"bufio"
	"fmt"
	"os"
	"sync"

	"golang.org/x/sys/unix"

	"inquest/lab/guest/wire"
)

// channel is where events go, and what the host says comes from: the console until
// openReport has found better.
var channel = struct {
	sync.Mutex
	file *os.File
	in   *bufio.Reader
}{file: os.Stdout}

// openReport opens the second serial port.
func openReport() error {
	f, err := os.OpenFile("/dev/ttyS1", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		return err
	}
	// A terminal would send back what the host says.
	t, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	if err != nil {
		return err
	}
	t.Lflag &^= unix.ECHO | unix.ECHONL
	t.Oflag &^= unix.OPOST
	if err := unix.IoctlSetTermios(int(f.Fd()), unix.TCSETS, t); err != nil {
		return err
	}
	channel.file, channel.in = f, bufio.NewReader(f)
	return nil
}

// report sends one event, and waits until it has left the machine: the next step
// may be the last. It is safe for concurrent use.
func report(e wire.Event) {
	channel.Lock()
	defer channel.Unlock()
	channel.file.Write(e.Line())
	unix.IoctlSetInt(int(channel.file.Fd()), unix.TCSBRK, 1) // tcdrain(3)
}

// awaitResume waits until the host says that a pause is over.
func awaitResume() error {
	line, err := channel.in.ReadString('\n')
	if err == nil && line != wire.Resume {
		err = fmt.Errorf("the host says %q, want %q", line, wire.Resume)
	}
	return err
}
