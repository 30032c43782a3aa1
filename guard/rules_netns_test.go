//go:build netns

// These tests need root, the programs of the packages iptables and nftables, and a kernel with nf_tables, nft_compat
// and the older tables. Each is in a network namespace of its own:
//
//	go test -tags netns -run Netns ./guard

package guard

import (
	"context"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// inNamespace puts the test's thread into a new network namespace, where it stays: the
// thread ends with the test.
func inNamespace(t *testing.T) {
	t.Helper()
	runtime.LockOSThread()
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Fatalf("make a network namespace: %v (these tests need root)", err)
	}
}

// run runs a command line, whose words have no blanks, and returns what it prints.
func run(t *testing.T, line string) string {
	t.Helper()
	words := strings.Fields(line)
	out, err := exec.Command(words[0], words[1:]...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", line, err, out)
	}
	return string(out)
}

// without are the lines of a listing but counters and handles, which change.
func without(text string) string {
	var lines []string
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, "#") {
			continue
		}
		line, _, _ = strings.Cut(strings.TrimSpace(line), " # handle")
		lines = append(lines, line)
	}
	return strings.Join(lines, "\n")
}

func states(r *Rules) []State {
	var list []State
	for _, p := range r.Points {
		list = append(list, p.State)
	}
	return list
}

// The rules of iptables, old and new, in chains that are jumped to, with conditions of
// all sorts.
var iptablesRules = []string{
	"-N inspect",
	"-A OUTPUT -o dummy+ -j ACCEPT",
	"-A OUTPUT -p udp -m udp --dport 53 -j NFQUEUE --queue-num 1",
	"-A OUTPUT -p tcp -m tcp --sport 8080 -j NFQUEUE --queue-num 2 --queue-bypass",
	"-A OUTPUT -m multiport -p tcp --sports 80,443 -j inspect",
	"-A OUTPUT -p tcp -m limit --limit 10/sec -j NFQUEUE --queue-balance 4:7",
	"-A OUTPUT -j DROP",
	"-A inspect -m mark ! --mark 0x1 -j NFQUEUE --queue-num 3",
	"-A INPUT -p tcp -j NFQUEUE --queue-num 9",
}

func TestIPTablesNetns(t *testing.T) {
	for _, program := range []string{"iptables-legacy", "ip6tables-legacy", "iptables-nft", "ip6tables-nft"} {
		t.Run(program, func(t *testing.T) {
			inNamespace(t)
			for _, r := range iptablesRules {
				run(t, program+" "+r)
			}
			before := without(run(t, program+"-save"))
			r, err := ReadRules(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			got := states(r)
			slices.Sort(got)
			if want := []State{Harmless, Harmless, Open, Open, Open}; !slices.Equal(got, want) {
				t.Fatalf("got %v of %+v, want %v", got, r.Points, want)
			}
			for range 2 { // the second finds nothing to do
				if r, err = ApplyRules(t.Context()); err != nil {
					t.Fatal(err)
				}
				if r.Open() || r.Stale != 0 {
					t.Fatalf("after ApplyRules: %+v", r)
				}
			}
			after := run(t, program+"-save")
			if n := strings.Count(after, "--tcp-flags SYN,ACK SYN,ACK"); n != 3 {
				t.Errorf("%d carve-outs, want 3:\n%s", n, after)
			}
			t.Logf("%s-save:\n%s", program, after)
			if r, err = RemoveRules(t.Context()); err != nil || !r.Open() {
				t.Fatalf("RemoveRules: %+v, %v", r, err)
			}
			if got := without(run(t, program+"-save")); got != before {
				t.Errorf("a trace is left:\n%s\nbefore:\n%s", got, before)
			}
		})
	}
}

func TestWatchNetns(t *testing.T) {
	inNamespace(t)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for _, r := range iptablesRules {
		run(t, "iptables-nft "+r)
	}
	saved := run(t, "iptables-nft-save")
	looks := make(chan Look, 100)
	ended := make(chan error, 1)
	w, err := Watch(ctx)
	if err != nil {
		t.Fatal(err)
	}
	go func() { ended <- w.Run(ctx, func(l Look) { looks <- l }) }()
	for range 5 {
		if l := <-looks; l.Err != nil || l.Open() {
			t.Fatalf("open: %+v", l)
		}
		restore := exec.Command("iptables-nft-restore")
		restore.Stdin = strings.NewReader(saved)
		if out, err := restore.CombinedOutput(); err != nil {
			t.Fatalf("restore: %v\n%s", err, out)
		}
	}
	<-looks
	cancel()
	if err := <-ended; err != nil && ctx.Err() == nil {
		t.Fatal(err)
	}
}
