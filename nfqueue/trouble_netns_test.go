//go:build netns

package nfqueue_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"inquest/nfqueue"
)

// roleEnv makes the test binary another program: one that opens queue N and
// says how that went ("open N"), or serves it ("serve N").
const roleEnv = "NFQUEUE_TEST_ROLE"

func role() int {
	var verb string
	var num uint16
	fmt.Sscan(os.Getenv(roleEnv), &verb, &num)
	g, err := nfqueue.Open(nfqueue.Config{First: num, Default: nfqueue.Accept()})
	if err != nil {
		fmt.Println(err)
		if errors.Is(err, nfqueue.ErrPermission) {
			return 3
		}
		return 1
	}
	if verb == "open" {
		return 0
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	fmt.Println("bound")
	if err := g.Serve(ctx, func(*nfqueue.Packet) nfqueue.Verdict { return nfqueue.Accept() }); err != nil {
		fmt.Println(err)
		return 1
	}
	return 0
}

func TestBusy(t *testing.T) {
	g, err := nfqueue.Open(nfqueue.Config{First: 62})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := nfqueue.Open(nfqueue.Config{First: 60, Count: 4}); !errors.Is(err, nfqueue.ErrBusy) {
		t.Errorf("open a queue twice: %v", err)
	}
	if err := g.Close(); err != nil {
		t.Error(err)
	}
	// Neither it nor the others of the range are bound now.
	g, err = nfqueue.Open(nfqueue.Config{First: 60, Count: 4})
	if err != nil {
		t.Fatal(err)
	}
	stats, err := nfqueue.ReadKernelStats()
	if err != nil || len(stats) < 4 {
		t.Errorf("%+v, %v", stats, err)
	}
	if err := g.Close(); err != nil {
		t.Error(err)
	}
}

func TestPermission(t *testing.T) {
	// Where others can read and run it.
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "nfqueue")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	os.Chmod(dir, 0o755)
	path := filepath.Join(dir, "test")
	if err := os.WriteFile(path, self, 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(path)
	cmd.Dir = "/"
	cmd.Env = append(os.Environ(), roleEnv+"=open 65")
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	out, err := cmd.CombinedOutput()
	if cmd.ProcessState == nil || cmd.ProcessState.ExitCode() != 3 {
		t.Errorf("%v: %s", err, out)
	}
}

// holdAll holds all packets and hands them to the test.
func holdAll(n int) (chan nfqueue.Held, nfqueue.Handler) {
	held := make(chan nfqueue.Held, n)
	return held, func(p *nfqueue.Packet) nfqueue.Verdict {
		held <- p.Hold()
		return nfqueue.Verdict{}
	}
}

func TestFullQueue(t *testing.T) {
	for _, open1 := range []bool{false, true} {
		t.Run(fmt.Sprintf("fail open %v", open1), func(t *testing.T) {
			rule(t, "mangle -A INPUT -p udp --dport 4010 -j NFQUEUE --queue-num 70")
			held, handle := holdAll(10)
			g := open(t, nfqueue.Config{First: 70, MaxLen: 2, FailOpen: open1}, handle)
			c := newPair(t, "127.0.0.1:4010")
			for i := range 5 {
				c.send(t, fmt.Sprint(i))
			}
			var want []string
			dropped := uint32(3)
			if open1 {
				want, dropped = []string{"2", "3", "4"}, 0
			}
			if got := c.receive(t, len(want)); !slices.Equal(got, want) {
				t.Errorf("%q passed, want %q", got, want)
			}
			s := g.Stats()[0]
			if s.Received != 2 || s.Held != 2 || s.Kernel.Waiting != 2 || s.Kernel.Dropped != dropped {
				t.Errorf("%+v %+v", s, s.Kernel)
			}
			for range 2 {
				if err := (<-held).Judge(nfqueue.Accept()); err != nil {
					t.Error(err)
				}
			}
			if got := c.receive(t, 2); len(got) != 2 {
				t.Errorf("%q of those held arrived", got)
			}
		})
	}
}

// A socket's buffer that is too small loses packets; they are counted to the
// last one, and the loop goes on.
func TestOverrun(t *testing.T) {
	rule(t, "mangle -A INPUT -p udp --dport 4011 -j NFQUEUE --queue-num 75")
	var events uint64
	g, err := nfqueue.Open(nfqueue.Config{First: 75, ReadBuffer: 32 << 10, MaxLen: 100_000, Event: func(e nfqueue.Event) {
		if e.Err == nfqueue.ErrOverrun {
			events += e.Packets
		}
	}})
	if err != nil {
		t.Fatal(err)
	}
	c := newPair(t, "127.0.0.1:4011")
	for range 1000 {
		c.send(t, "flood") // nobody reads the queue yet
	}
	served := make(chan error)
	go func() {
		served <- g.Serve(context.Background(), func(*nfqueue.Packet) nfqueue.Verdict { return nfqueue.Accept() })
	}()
	before := len(c.receive(t, 1))
	c.send(t, "after")
	if got := c.receive(t, 1); !slices.Equal(got, []string{"after"}) {
		t.Errorf("received %q after the overrun", got)
	}
	s := g.Stats()[0]
	if err := g.Close(); err != nil {
		t.Error(err)
	}
	if err := <-served; err != nil {
		t.Error(err)
	}
	if s.Lost == 0 || s.Lost != events || s.Lost != uint64(s.Kernel.UserDropped) || s.Received+s.Lost != 1001 || s.Received != uint64(before)+1 {
		t.Errorf("%d received, %d arrived, %d lost, %d told, kernel says %+v", s.Received, before+1, s.Lost, events, s.Kernel)
	}
}

// The kernel drops what is queued when its device goes down. Verdicts for it
// come too late: counted, and nothing else.
func TestFlushed(t *testing.T) {
	rule(t, "mangle -A INPUT -p udp --dport 4012 -j NFQUEUE --queue-num 80")
	var mu sync.Mutex
	hold := true
	var held []nfqueue.Held
	g := open(t, nfqueue.Config{First: 80}, func(p *nfqueue.Packet) nfqueue.Verdict {
		mu.Lock()
		defer mu.Unlock()
		if hold {
			held = append(held, p.Hold())
		}
		return nfqueue.Accept()
	})
	c := newPair(t, "127.0.0.1:4012")
	for i := range 10 {
		c.send(t, fmt.Sprint(i))
	}
	eventually(t, "10 held", func() bool { return g.Stats()[0].Held == 10 })
	run(t, "ip", "link", "set", "lo", "down")
	run(t, "ip", "link", "set", "lo", "up")
	mu.Lock()
	hold = false
	mu.Unlock()
	for _, h := range held {
		if err := h.Judge(nfqueue.Accept()); err != nil {
			t.Error(err)
		}
	}
	c.send(t, "after")
	if got := c.receive(t, 1); !slices.Equal(got, []string{"after"}) {
		t.Errorf("received %q", got)
	}
	eventually(t, "10 flushed", func() bool { return g.Stats()[0].Flushed == 10 })
}

// flow sends numbered packets until stopped.
func flow(t *testing.T, c *pair) (stop func() int) {
	quit, sent := make(chan bool), make(chan int)
	go func() {
		for n := 0; ; n++ {
			select {
			case <-quit:
				sent <- n
				return
			default:
			}
			c.send(t, strconv.Itoa(n))
			if n%20 == 19 {
				time.Sleep(time.Millisecond)
			}
		}
	}()
	return func() int {
		close(quit)
		return <-sent
	}
}

// With an accepting Default and a rule with bypass no packet is lost, however
// often a program binds and unbinds the queue.
func TestRestartLosesNothing(t *testing.T) {
	rule(t, "mangle -A INPUT -p udp --dport 4013 -j NFQUEUE --queue-num 85 --queue-bypass")
	c := newPair(t, "127.0.0.1:4013")
	stop := flow(t, c)
	var handled uint64
	for i := range 30 {
		g, err := nfqueue.Open(nfqueue.Config{First: 85, Default: nfqueue.Accept()})
		if err != nil {
			t.Fatal(err)
		}
		served := make(chan error)
		go func() {
			served <- g.Serve(context.Background(), func(p *nfqueue.Packet) nfqueue.Verdict {
				if i%2 == 0 && p.ID%7 == 0 {
					p.Hold() // and forgotten
				}
				return nfqueue.Accept()
			})
		}()
		eventually(t, "packets in the queue", func() bool { return g.Stats()[0].Received > 20 })
		g.Close()
		if err := <-served; err != nil {
			t.Fatal(err)
		}
		handled += g.Stats()[0].Received
	}
	sent := stop()
	got := c.receive(t, sent)
	slices.SortFunc(got, func(a, b string) int { x, _ := strconv.Atoi(a); y, _ := strconv.Atoi(b); return x - y })
	for n := range sent {
		if n >= len(got) || got[n] != strconv.Itoa(n) {
			t.Fatalf("packet %d of %d is lost; %d arrived, %d were handled", n, sent, len(got), handled)
		}
	}
	if handled == 0 || handled >= uint64(sent) {
		t.Errorf("%d of %d packets were handled: the test shows nothing", handled, sent)
	}
}

// A program that is killed leaves nothing behind: traffic goes on, and another
// can bind the queue at once.
func TestKillAndRestart(t *testing.T) {
	rule(t, "mangle -A INPUT -p udp --dport 4014 -j NFQUEUE --queue-num 90 --queue-bypass")
	c := newPair(t, "127.0.0.1:4014")
	stop := flow(t, c)
	for range 10 {
		cmd := exec.Command("/proc/self/exe")
		cmd.Env = append(os.Environ(), roleEnv+"=serve 90")
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		line := make([]byte, 100)
		n, _ := out.Read(line)
		if string(line[:n]) != "bound\n" {
			t.Errorf("program says %q", line[:n])
		}
		eventually(t, "packets in the queue", func() bool {
			stats, err := nfqueue.ReadKernelStats()
			return err == nil && slices.ContainsFunc(stats, func(k nfqueue.KernelStats) bool { return k.Queue == 90 && k.LastID > 10 })
		})
		cmd.Process.Kill()
		cmd.Wait()
	}
	time.Sleep(20 * time.Millisecond)
	sent := stop()
	got := c.receive(t, sent/2)
	if len(got) < sent/2 || len(got) > sent {
		t.Errorf("%d of %d packets arrived", len(got), sent)
	}
	if last, _ := strconv.Atoi(got[len(got)-1]); last < sent-1 {
		t.Errorf("the last to arrive is %d of %d", last, sent)
	}
}
