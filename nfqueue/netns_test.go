//go:build netns

package nfqueue_test

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// TestMain runs the tests in a network namespace of their own, in which the
// loopback device is up. They fail without root.
func TestMain(m *testing.M) {
	const inside = "NFQUEUE_TEST_NETNS"
	if os.Getenv(inside) == "" {
		runtime.LockOSThread()
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			fmt.Fprintln(os.Stderr, "these tests need root: unshare:", err)
			os.Exit(1)
		}
		// What this thread belongs to is what the program begins with.
		err := syscall.Exec("/proc/self/exe", os.Args, append(os.Environ(), inside+"=1"))
		fmt.Fprintln(os.Stderr, "exec:", err)
		os.Exit(1)
	}
	if out, err := exec.Command("ip", "link", "set", "lo", "up").CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "ip: %v: %s\n", err, out)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// rule adds an iptables rule, the table first, until the test ends.
func rule(t testing.TB, args string) {
	t.Helper()
	add := append([]string{"-w", "-t"}, strings.Fields(args)...)
	if out, err := exec.Command("iptables-legacy", add...).CombinedOutput(); err != nil {
		t.Fatalf("iptables-legacy %s: %v: %s", args, err, out)
	}
	t.Cleanup(func() {
		for i, a := range add {
			if a == "-A" || a == "-I" {
				add[i] = "-D"
			}
		}
		exec.Command("iptables-legacy", add...).Run()
	})
}
