//go:build netns

package verdict

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// daemon is a running "inquest verdict run".
type daemon struct {
	t      *testing.T
	n      *namespace
	cmd    *exec.Cmd
	rules  string // path
	socket string
	notify chan string // what it tells systemd
	ended  chan error
	rights *syscall.SysProcAttr // nil for those of the test

	mu  sync.Mutex
	log bytes.Buffer
}

func (d *daemon) Write(b []byte) (int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.log.Write(b)
}

func (d *daemon) logged() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.log.String()
}

// run starts a daemon in a namespace and waits until it is ready. What rules say is
// preceded by a section daemon with these settings.
func (n *namespace) run(t *testing.T, settings, rules string, args ...string) *daemon {
	t.Helper()
	d := n.prepare(t, settings, rules)
	d.start(args...)
	return d
}

// prepare writes the rule file of a daemon that is not started.
func (n *namespace) prepare(t *testing.T, settings, rules string) *daemon {
	t.Helper()
	dir := t.TempDir()
	d := &daemon{t: t, n: n, rules: filepath.Join(dir, "rules.yaml"), socket: filepath.Join(dir, "verdict.sock")}
	d.write(settings, rules)
	return d
}

// write replaces the rule file as editors do.
func (d *daemon) write(settings, rules string) {
	d.t.Helper()
	text := fmt.Sprintf("daemon:\n  socket: %s\n%s\n%s\n", d.socket, indented(settings), rules)
	if err := os.WriteFile(d.rules+"~", []byte(text), 0o644); err != nil {
		d.t.Fatal(err)
	}
	if err := os.Rename(d.rules+"~", d.rules); err != nil {
		d.t.Fatal(err)
	}
}

func indented(settings string) string {
	var b strings.Builder
	for line := range strings.Lines(settings) {
		b.WriteString("  " + strings.TrimLeft(line, "\t"))
	}
	return strings.TrimRight(b.String(), "\n")
}

func (d *daemon) start(args ...string) {
	d.t.Helper()
	program, err := inquestBinary()
	if err != nil {
		d.t.Fatal(err)
	}
	path := filepath.Join(d.t.TempDir(), "notify")
	listener, err := net.ListenPacket("unixgram", path)
	if err != nil {
		d.t.Fatal(err)
	}
	if err := os.Chmod(path, 0o777); err != nil { // daemons may be nobody's
		d.t.Fatal(err)
	}
	d.notify = make(chan string, 1000)
	go func() {
		b := make([]byte, 4096)
		for {
			k, _, err := listener.ReadFrom(b)
			if err != nil {
				return
			}
			d.notify <- string(b[:k])
		}
	}()
	d.cmd = exec.Command(program, append([]string{"verdict", "run", "--config", d.rules}, args...)...)
	d.cmd.Stderr = d
	d.cmd.SysProcAttr = d.rights
	d.cmd.Env = append(os.Environ(), "NOTIFY_SOCKET="+path, "WATCHDOG_USEC=2000000")
	d.n.must(d.cmd.Start)
	d.ended = make(chan error, 1)
	cmd, ended := d.cmd, d.ended
	go func() { ended <- cmd.Wait() }()
	d.t.Cleanup(func() {
		listener.Close()
		cmd.Process.Kill()
		if d.t.Failed() {
			d.t.Logf("the daemon's log:\n%s", d.logged())
		}
	})
	d.await("READY=1")
}

// await waits until the daemon has told systemd something.
func (d *daemon) await(word string) {
	d.t.Helper()
	timeout := time.After(20 * time.Second)
	for {
		select {
		case said := <-d.notify:
			if strings.Contains(said, word) {
				return
			}
		case err := <-d.ended:
			d.t.Fatalf("the daemon ended: %v\n%s", err, d.logged())
		case <-timeout:
			d.t.Fatalf("the daemon does not say %s\n%s", word, d.logged())
		}
	}
}

// stop ends the daemon with a signal and waits for it.
func (d *daemon) stop(signal syscall.Signal) error {
	d.t.Helper()
	d.cmd.Process.Signal(signal)
	select {
	case err := <-d.ended:
		return err
	case <-time.After(20 * time.Second):
		d.t.Fatalf("the daemon does not end\n%s", d.logged())
		return nil
	}
}

func (d *daemon) status() *Status {
	d.t.Helper()
	s, err := ReadStatus(d.socket)
	if err != nil {
		d.t.Fatal(err)
	}
	return s
}

// rule returns the counts of one rule.
func (s *Status) rule(name string) RuleStatus {
	for _, r := range s.Rules {
		if r.Name == name {
			return r
		}
	}
	return RuleStatus{}
}

// eventually waits until something holds.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if holds() {
			return
		}
	}
	t.Fatalf("in vain waited until %s", what)
}
