package lab

import (
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"inquest/explain"
)

// classes are those that a finding may have.
var classes = []explain.Class{
	explain.TypeConfusion, explain.UseAfterFree, explain.DoubleFree, explain.OutOfBounds, explain.NullDereference,
	explain.WildPointer, explain.ListCorruption, explain.RefCount, explain.StackOverflow, explain.Bug, explain.Warning,
	explain.HungTask, explain.SoftLockup, explain.HardLockup, explain.Deadlock, explain.RCUStall, explain.OutOfMemory,
	explain.DoubleFault, explain.MachineCheck, explain.DivideError, explain.BadInstruction, explain.UserPanic,
}

func TestTriggers(t *testing.T) {
	condition := regexp.MustCompile(`^(?:>=\d+\.\d+|<\d+\.\d+|!?[A-Z][A-Z0-9_]*(?:\|[A-Z][A-Z0-9_]*)*|slub_debug)$`)
	var seen []string
	for i, tr := range triggers {
		again := slices.Contains(seen, tr.name)
		switch {
		case again && triggers[i-1].name != tr.name:
			t.Errorf("the entries of %s are not together", tr.name)
		case again && triggers[i-1].when == "":
			t.Errorf("an entry of %s can never hold: the one in front always does", tr.name)
		}
		seen = append(seen, tr.name)
		for word := range strings.FieldsSeq(tr.when) {
			if !condition.MatchString(word) {
				t.Errorf("%s: condition %q", tr.name, word)
			}
		}
		for class := range strings.FieldsSeq(tr.classes) {
			if !slices.Contains(classes, explain.Class(class)) {
				t.Errorf("%s: there is no class %q", tr.name, class)
			}
		}
		fatal := tr.outcome == Panicked || tr.outcome == Warned
		if fatal && (tr.classes == "" || tr.culprits == "") || (tr.outcome == Alive || tr.outcome == "") && tr.classes != "" {
			t.Errorf("%s ends in %s with class %q and culprit %q", tr.name, tr.outcome, tr.classes, tr.culprits)
		}
		if tr.why == "" || strings.HasSuffix(tr.why, ".") {
			t.Errorf("%s: why %q", tr.name, tr.why)
		}
	}
	for name := range lkdtmWays {
		if !slices.Contains(seen, name) {
			t.Errorf("a way to pull %s, which no trigger is called", name)
		}
	}
}

func TestTriggerTruth(t *testing.T) {
	kernel := func(release, config string) *Kernel {
		root := t.TempDir()
		writeFiles(t, root, map[string][]byte{filepath.Join("boot", "config-"+release): []byte(config)})
		return &Kernel{Release: release, Image: filepath.Join(root, "boot", "vmlinuz-"+release)}
	}
	const hardened = "CONFIG_SLAB_FREELIST_HARDENED=y\nCONFIG_PREEMPT_VOLUNTARY=y\nCONFIG_SOFTLOCKUP_DETECTOR=y\n"
	for _, tt := range []struct {
		trigger, release, config string
		set                      map[string]string
		outcome                  Outcome
		class                    string // the first
	}{
		{"SLAB_FREE_DOUBLE", "6.1.0-56-amd64", hardened, nil, Panicked, "double-free"},
		{"SLAB_FREE_DOUBLE", "6.1.0-56-amd64", hardened, map[string]string{"slub_debug": "on"}, Warned, "double-free"},
		{"SLAB_FREE_DOUBLE", "6.1.0-56-amd64", "CONFIG_SLUB=y\n", nil, Alive, ""},
		{"SLAB_FREE_DOUBLE", "7.2.13+deb14-amd64", hardened, nil, Alive, ""},
		{"LOOP", "6.1.0-56-amd64", hardened, nil, Panicked, "soft-lockup"},
		{"LOOP", "7.2.13+deb14-amd64", "CONFIG_PREEMPT_LAZY=y\n", nil, Hung, ""},
		{"CORRUPT_LIST_ADD", "6.12.1", "CONFIG_LIST_HARDENED=y\n", nil, Panicked, "list-corruption"},
		{"CORRUPT_LIST_ADD", "6.12.1", "CONFIG_SLUB=y\n", nil, Alive, ""},
		{"USERCOPY_STACK_FRAME_TO", "5.10.0-43-amd64", "CONFIG_HARDENED_USERCOPY=y\n", nil, Alive, ""},
		{"USERCOPY_STACK_FRAME_TO", "6.1.0", "CONFIG_HARDENED_USERCOPY=y\n", nil, Panicked, "out-of-bounds"},
	} {
		s, err := FindScenario("lkdtm/" + tt.trigger)
		if err != nil {
			t.Fatal(err)
		}
		e, err := Experiment{Scenario: s, Kernel: kernel(tt.release, tt.config), Set: tt.set, Dir: "out"}.validated()
		if err != nil {
			t.Fatal(err)
		}
		truth := s.Truth(e)
		class := strings.Join(truth.Classes[:min(1, len(truth.Classes))], "")
		if truth.Outcome != tt.outcome || class != tt.class || truth.Why == "" {
			t.Errorf("%s on %s: %+v, want %s, %q", tt.trigger, tt.release, truth, tt.outcome, tt.class)
		}
	}
	// Nothing is known of a kernel without a configuration: it has what is asked for.
	s, err := FindScenario("lkdtm/FORTIFY_STRSCPY")
	if err != nil {
		t.Fatal(err)
	}
	e, err := Experiment{Scenario: s, Kernel: &Kernel{Release: "6.6.0", Image: "/nowhere/vmlinuz", Modules: "/nowhere"}, Dir: "out"}.validated()
	if err != nil {
		t.Fatal(err)
	}
	if truth := s.Truth(e); truth.Outcome != Panicked {
		t.Errorf("truth %+v", truth)
	}
}

func TestOlderThan(t *testing.T) {
	for _, tt := range []struct {
		release, version string
		want             bool
	}{
		{"6.1.0-56-cloud-amd64", "6.2", true},
		{"6.1.0-56-cloud-amd64", "6.1", false},
		{"6.12.117+deb12-amd64", "6.2", false},
		{"7.2-rc3", "7.3", true},
		{"7.2-rc3", "7.2", false},
		{"10.0", "9.9", false},
		{"6", "6.1", true},
		{"", "5.10", true},
	} {
		if got := olderThan(tt.release, tt.version); got != tt.want {
			t.Errorf("%q older than %s: %t", tt.release, tt.version, got)
		}
	}
}
