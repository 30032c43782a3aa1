//go:build qemu

// These tests build kernel modules, and boot Debian kernels under QEMU. They need
//
//	apt-get install qemu-system-x86 gcc make xz-utils
//
// and a network for the first run, which fetches the kernels and their headers.

package guard_test

import (
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"inquest/lab"
)

var accel = flag.String("lab.accel", "tcg", `accelerator: tcg, kvm, or "" for what works`)

func findKernel(t *testing.T, name string) *lab.Kernel {
	t.Helper()
	k, err := lab.FindKernel(t.Context(), name, func(step string) { t.Log(step) })
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// The module builds with the headers of kernels that have nf_reinject for modules and
// of such that have not. (Those of 6.12 and later take a newer C library than that of
// Debian 12 to be used.)
func TestModuleQEMU(t *testing.T) {
	for _, name := range []string{"debian-5.10", "debian-6.1"} {
		t.Run(name, func(t *testing.T) {
			k := findKernel(t, name)
			path, err := k.GuardModule(t.Context(), func(step string) { t.Log(step) })
			if err != nil {
				t.Fatal(err)
			}
			if code, err := os.ReadFile(path); err != nil || !strings.Contains(string(code), "vermagic="+k.Release) {
				t.Errorf("%s is no module for %s: %v", path, k.Release, err)
			}
		})
	}
}

// A kernel with the fix refuses to be hooked.
func TestRefusesFixedQEMU(t *testing.T) {
	s, err := lab.FindScenario("guard/load")
	if err != nil {
		t.Fatal(err)
	}
	_, err = lab.Run(t.Context(), lab.Experiment{
		Scenario: s, Kernel: findKernel(t, "debian-6.1"), Dir: t.TempDir(), Accel: lab.Accel(*accel),
		Set: map[string]string{"guard": "hook"}, Progress: func(step string) { t.Log(step) },
	})
	if err == nil || !strings.Contains(err.Error(), "there is nothing to hook") {
		t.Errorf("loaded into a kernel with the fix: %v", err)
	}
}

// The rules, where nft_queue is, which other kernels lack.
func TestRulesQEMU(t *testing.T) {
	none, err := lab.FindScenario("none")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	program := filepath.Join(dir, "guard.test")
	build := exec.Command("go", "test", "-tags", "netns", "-c", "-ldflags=-s -w", "-o", program, "inquest/guard")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("go test -c: %v\n%s", err, out)
	}
	tests := []string{"Queue", "Changed"} // the others call programs of the host
	r, err := lab.Run(t.Context(), lab.Experiment{
		Scenario: none, Kernel: findKernel(t, "debian-6.1"), Dir: dir, Accel: lab.Accel(*accel), MemoryMiB: 1024,
		Modules:  []string{"nf_tables", "nfnetlink_queue", "nft_queue"},
		Programs: map[string]string{"guard.test": program},
		Run:      [][]string{{"/bin/guard.test", "-test.v", "-test.run=^Test(" + strings.Join(tests, "|") + ")Netns$"}},
		Progress: func(step string) { t.Log(step) },
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, ran := range r.Ran {
		t.Logf("%s\n%s", ran.Command, ran.Output)
		for _, name := range tests {
			if !strings.Contains(ran.Output, "--- PASS: Test"+name+"Netns") || strings.Contains(ran.Output, "no nft_queue") {
				t.Errorf("Test%sNetns did not pass in the guest with nft_queue", name)
			}
		}
	}
}
