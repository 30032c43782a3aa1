//go:build netns

// This test needs root and iptables. It runs in a network namespace of its own:
//
//	go test -tags netns ./doctor

package doctor

import (
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"inquest/nfqueue"
)

// insideNetns says that the test runs in the namespace already.
const insideNetns = "INQUEST_DOCTOR_NETNS"

// TestQueuesNetns examines queues and rules that are really there.
func TestQueuesNetns(t *testing.T) {
	if os.Getenv(insideNetns) == "" {
		// /proc/net is that of the process, so a thread's own namespace will not do.
		inner := exec.Command(os.Args[0], "-test.v", "-test.run=^TestQueuesNetns$")
		inner.Env = append(os.Environ(), insideNetns+"=1")
		inner.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
		out, err := inner.CombinedOutput()
		if err != nil || !strings.Contains(string(out), "--- PASS: TestQueuesNetns") {
			t.Fatalf("in a network namespace: %v\n%s", err, out)
		}
		return
	}
	for _, rule := range []string{"OUTPUT -p tcp -j NFQUEUE --queue-num 3", "INPUT -p udp -j NFQUEUE --queue-num 9 --queue-bypass"} {
		if out, err := exec.Command("iptables-legacy", append([]string{"-A"}, strings.Fields(rule)...)...).CombinedOutput(); err != nil {
			t.Fatalf("iptables-legacy -A %s: %v\n%s", rule, err, out)
		}
	}
	examine := func() *Report {
		s, err := Machine("/")
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		return s.Examine()
	}
	find := func(r *Report, check string, state State, title string) Finding {
		for _, f := range r.Findings {
			if f.Check == check && f.State == state && strings.Contains(f.Title, title) {
				return f
			}
		}
		t.Errorf("no finding of %s that is %v and says %q: %+v", check, state, title, r.Findings)
		return Finding{}
	}
	r := examine()
	find(r, "queues", Fine, "Nobody reads a packet queue")
	find(r, "queue-rules", Exposed, "Nobody reads queue 3")
	find(r, "queue-rules", Weak, "Nobody reads queue 9")
	if !r.Exposed {
		t.Error("packets are dropped, and nothing is exposed")
	}

	q, err := nfqueue.Open(nfqueue.Config{First: 3})
	if err != nil {
		t.Fatal(err)
	}
	defer q.Close()
	r = examine()
	find(r, "queue-rules", Fine, "OUTPUT rule 1 are read")
	f := find(r, "queues", Fine, "Queue 3 has a reader")
	if !strings.Contains(strings.Join(f.Found, "\n"), "its reader's socket buffer has") {
		t.Errorf("its buffer is not known: %+v", f)
	}
}
