//go:build qemu

package lab_test

import (
	"flag"
	"os"
	"slices"
	"testing"
	"time"

	"inquest/explain"
	"inquest/lab"
)

var (
	times = flag.Int("lab.times", 3, "runs in a row of TestReqskAgainQEMU")
)

// caseKernel is the kernel with the bug of nf_queue. To build it takes ten minutes where
// it is not in the cache.
func caseKernel(t *testing.T) *lab.Kernel {
	t.Helper()
	recipe, err := lab.FindRecipe("nfqbug-6.1")
	if err != nil {
		t.Fatal(err)
	}
	k, err := recipe.Cached()
	if err == nil {
		return k
	}
	if k, err = recipe.Build(t.Context(), func(step string) { t.Log(step) }); err != nil {
		t.Fatal(err)
	}
	return k
}

func runReqsk(t *testing.T, k *lab.Kernel, scenario string, set map[string]string, dumps ...string) lab.Result {
	t.Helper()
	s, err := lab.FindScenario("nfqueue-reqsk/" + scenario)
	if err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	r, err := lab.Run(t.Context(), lab.Experiment{
		Scenario: s, Set: set, Kernel: k, Dir: t.TempDir(), Accel: lab.Accel(*accel), QEMU: dumps,
		Progress: func(step string) { t.Logf("%5.1fs %s", time.Since(start).Seconds(), step) },
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%5.1fs %s; %+v", time.Since(start).Seconds(), r.Outcome, r.Facts)
	if !r.Expected() {
		t.Errorf("outcome %s (%q), want %s", r.Outcome, r.Warnings, r.Truth.Outcome)
	}
	return r
}

// TestReqskCrashQEMU has the case happen, as it shows by itself and as it crashed
// first, and Inquest find it out from the dump alone.
func TestReqskCrashQEMU(t *testing.T) {
	k := caseKernel(t)
	for _, tt := range []struct {
		scenario, outcome string
		confidence        explain.Confidence
	}{
		{"retransmit", "warning", explain.Likely},
		{"retransmit", "crash", explain.Certain},
		{"expired", "crash", explain.Certain},
	} {
		t.Run(tt.scenario+"/"+tt.outcome, func(t *testing.T) {
			r := runReqsk(t, k, tt.scenario, map[string]string{"outcome": tt.outcome}, lab.FormatELF)
			if len(r.Dumps) != 1 {
				t.Fatalf("%d dumps", len(r.Dumps))
			}
			c := open(t, r.Dumps[0])
			crashed, err := c.Kernel.Crashed()
			if err != nil || crashed.PID != r.Crasher.PID {
				t.Errorf("crashed task %+v, %v, want %+v", crashed, err, r.Crasher)
			}
			findings := c.Findings()
			if len(findings) == 0 {
				t.Fatal("no finding")
			}
			f := findings[0]
			if !slices.Contains(r.Truth.Classes, string(f.Class)) || f.Confidence != tt.confidence {
				t.Errorf("first finding is %q: %s, %s; want %v, %s", f.Title, f.Class, f.Confidence, r.Truth.Classes, tt.confidence)
			}
			if object := f.Objects[0]; object.Type != r.Truth.Object || object.Addr.String() != r.Fact("victim") {
				t.Errorf("the object is %s at %v, want %s at %v", object.Type, object.Addr, r.Truth.Object, r.Fact("victim"))
			}
			if f.Advisory == nil || f.Advisory.ID != "nf-queue-request-sock" {
				t.Errorf("the advisory is %+v", f.Advisory)
			}
		})
	}
}

// TestReqskSilentQEMU has the case's silent forms happen, and Inquest find the lost
// request socket in the living guest.
func TestReqskSilentQEMU(t *testing.T) {
	k := caseKernel(t)
	t.Run("leak", func(t *testing.T) {
		r := runReqsk(t, k, "retransmit", map[string]string{"outcome": "leak"})
		wantFacts(t, r, map[string]any{"leaked": 1.0, "leaked_listeners": 1.0, "live_lost": 1})
	})
	t.Run("neighbour", func(t *testing.T) {
		r := runReqsk(t, k, "expired", map[string]string{"outcome": "neighbour"})
		wantFacts(t, r, map[string]any{"leaked": 1.0, "live_lost": 1, "neighbour_connection": "client: connection reset by peer"})
	})
}

// TestReqskFixedQEMU has the same things done to a kernel that has the fix.
func TestReqskFixedQEMU(t *testing.T) {
	k, err := bootedKernel()
	if err != nil {
		t.Fatal(err)
	}
	for _, set := range []struct{ scenario, outcome string }{
		{"retransmit", "warning"}, {"retransmit", "crash"}, {"expired", "neighbour"},
	} {
		t.Run(set.scenario+"/"+set.outcome, func(t *testing.T) {
			r := runReqsk(t, k, set.scenario, map[string]string{"outcome": set.outcome})
			if r.Outcome != lab.Alive {
				t.Errorf("outcome %s", r.Outcome)
			}
			wantFacts(t, r, map[string]any{"leaked": 0.0, "leaked_listeners": 0.0, "live_lost": 0, "neighbour_connection": "accepted"})
		})
	}
}

// TestReqskAgainQEMU: what comes of it is no matter of chance.
func TestReqskAgainQEMU(t *testing.T) {
	k := caseKernel(t)
	before, err := os.ReadDir(os.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for i := range *times {
		start := time.Now()
		if r := runReqsk(t, k, "retransmit", nil); r.Outcome != lab.Panicked || len(r.Warnings) == 0 || r.Warnings[0] != "refcount_t: underflow; use-after-free." {
			t.Errorf("run %d: %s, %q", i, r.Outcome, r.Warnings)
		}
		t.Logf("run %d took %.1f s", i, time.Since(start).Seconds())
	}
	after, err := os.ReadDir(os.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range after {
		if isOurs(entry.Name()) && !slices.ContainsFunc(before, func(e os.DirEntry) bool { return e.Name() == entry.Name() }) {
			t.Errorf("%s was left behind", entry.Name())
		}
	}
}

// isOurs reports whether a temporary directory is one that package lab makes.
func isOurs(name string) bool { return len(name) > 8 && name[:8] == "inquest-" }

func wantFacts(t *testing.T, r lab.Result, want map[string]any) {
	t.Helper()
	for key, value := range want {
		if got := r.Fact(key); got != value {
			t.Errorf("%s is %v, want %v", key, got, value)
		}
	}
}
