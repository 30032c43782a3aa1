//go:build qemu

// This test boots a Debian kernel under QEMU and runs the tests with real traffic in it:
// there nft_queue does what elsewhere may be done by the target of iptables. It needs
//
//	apt-get install qemu-system-x86
//
// and a network for the first run, which fetches the kernel.

package verdict

import (
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"inquest/lab"
)

var (
	accel      = flag.String("lab.accel", "tcg", `accelerator: tcg, kvm, or "" for what works`)
	kernelName = flag.String("lab.kernel", "", "kernel to boot, as lab.FindKernel takes it")
)

func TestVerdictQEMU(t *testing.T) {
	k, err := lab.FindKernel(t.Context(), *kernelName, nil)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	programs := map[string]string{"inquest": filepath.Join(dir, "inquest"), "verdict.test": filepath.Join(dir, "verdict.test")}
	for _, args := range [][]string{
		{"build", "-ldflags=-s -w", "-o", programs["inquest"], "inquest/cmd/inquest"},
		{"test", "-tags", "netns", "-c", "-ldflags=-s -w", "-o", programs["verdict.test"], "inquest/verdict"},
	} {
		build := exec.Command("go", args...)
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := build.CombinedOutput(); err != nil {
			t.Fatalf("go %s: %v\n%s", strings.Join(args, " "), err, out)
		}
	}
	// Those that call programs of the host, iptables, stay there.
	tests := []string{"Install", "ForeignTable", "NoPermission", "Names", "Reject", "RejectLocal", "Kill", "Reload", "Flush", "Busy", "LeastPrivilege"}
	none, err := lab.FindScenario("none")
	if err != nil {
		t.Fatal(err)
	}
	r, err := lab.Run(t.Context(), lab.Experiment{
		Scenario: none, Kernel: k, Dir: dir, Accel: lab.Accel(*accel), MemoryMiB: 1024,
		Modules:  []string{"nfnetlink_queue", "nft_queue", "nft_ct", "nft_reject_inet", "veth"},
		Programs: programs,
		Run: [][]string{{
			"/bin/verdict.test", "-test.v", "-inquest=/bin/inquest", "-test.run=^Test(" + strings.Join(tests, "|") + ")Netns$",
		}},
		Progress: func(step string) { t.Log(step) },
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("kernel %s under %s, %.0f s", r.Guest.Release, r.Accel, r.Seconds)
	for _, ran := range r.Ran {
		t.Logf("%s\n%s", ran.Command, ran.Output)
		if ran.Error != "" {
			t.Errorf("%s: %s", ran.Command, ran.Error)
		}
		for _, name := range tests {
			if !strings.Contains(ran.Output, "--- PASS: Test"+name+"Netns") {
				t.Errorf("Test%sNetns did not pass in the guest", name)
			}
		}
		for _, want := range []string{
			"the kernel queues by nft_queue",
			// The guest can read its own kernel, which has the fix.
			"carve-out: false",
			"sock_gen_put",
		} {
			if !strings.Contains(ran.Output, want) {
				t.Errorf("the guest does not say %q", want)
			}
		}
	}
}
