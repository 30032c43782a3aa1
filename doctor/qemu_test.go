//go:build qemu

// This test boots kernels under QEMU and examines them from inside. It needs
//
//	apt-get install qemu-system-x86
//
// and a network for the first run, which fetches or builds the kernels.

package doctor

import (
	"encoding/json"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"inquest/lab"
)

var (
	accel   = flag.String("lab.accel", "", `accelerator: tcg, kvm, or "" for what works`)
	kernels = flag.String("lab.kernels", "debian,nfqbug-6.1", "kernels to boot, as lab.FindKernel takes them; those that begin with nfqbug have the bug")
)

// TestDoctorQEMU examines running kernels by the code in /proc/kcore.
func TestDoctorQEMU(t *testing.T) {
	programs := map[string]string{"inquest": "inquest/cmd/inquest", "doctor.test": "inquest/doctor"}
	for name, pkg := range programs {
		out := filepath.Join(t.TempDir(), name)
		args := []string{"build", "-ldflags=-s -w", "-o", out, pkg}
		if strings.HasSuffix(name, ".test") {
			args = []string{"test", "-c", "-ldflags=-s -w", "-o", out, pkg}
		}
		build := exec.Command("go", args...)
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		if text, err := build.CombinedOutput(); err != nil {
			t.Fatalf("go %s: %v\n%s", strings.Join(args, " "), err, text)
		}
		programs[name] = out
	}
	none, err := lab.FindScenario("none")
	if err != nil {
		t.Fatal(err)
	}
	for name := range strings.SplitSeq(*kernels, ",") {
		t.Run(name, func(t *testing.T) {
			k, err := lab.FindKernel(t.Context(), name, nil)
			if err != nil {
				t.Fatal(err)
			}
			r, err := lab.Run(t.Context(), lab.Experiment{
				Scenario: none, Kernel: k, Dir: t.TempDir(), Accel: lab.Accel(*accel), Programs: programs,
				Modules: []string{"nfnetlink_queue", "nft_queue"},
				Run: [][]string{
					{"/bin/inquest", "doctor", "--json"},
					{"/bin/doctor.test", "-test.v", "-test.run=^TestThisMachine$"},
				},
			})
			if err != nil {
				t.Fatal(err)
			}
			if len(r.Ran) != 2 || r.Ran[1].Error != "" {
				t.Fatalf("ran %+v", r.Ran)
			}
			t.Logf("%s under %s: %s", r.Guest.Release, r.Accel, r.Ran[1].Output)
			var report struct {
				Release  string
				Exposed  bool
				Findings []struct {
					Check, State, Sure, Title, Advisory string
					Looked                              []string `json:"looked_at"`
					Found                               []string
				}
			}
			if err := json.NewDecoder(strings.NewReader(r.Ran[0].Output)).Decode(&report); err != nil {
				t.Fatalf("%v\n%s", err, r.Ran[0].Output)
			}
			want := "fine"
			if strings.HasPrefix(name, "nfqbug") {
				want = "exposed"
			}
			if report.Release != k.Release || report.Exposed != (want == "exposed") {
				t.Errorf("kernel %s, exposed %t", report.Release, report.Exposed)
			}
			decided := false
			for _, f := range report.Findings {
				t.Logf("%s: %s, %s: %s", f.Check, f.State, f.Sure, f.Title)
				if f.Check == "known-bugs" && f.Advisory == requestSockBug {
					decided = true
					if f.State != want || f.Sure != "certain" || !slices.Contains(f.Looked, "/proc/kcore") {
						t.Errorf("want %s by the code in /proc/kcore: %+v", want, f)
					}
				}
				if f.State == "unknown" && f.Check != "kdump" && f.Check != "known-bugs" {
					t.Errorf("root could not look: %+v", f)
				}
			}
			if !decided {
				t.Errorf("nothing is said of %s", requestSockBug)
			}
		})
	}
}
