//go:build qemu

package lab_test

import (
	"regexp"
	"slices"
	"strings"
	"testing"

	"inquest/lab"
)

// One trigger of LKDTM, which distributions do not build: this takes gcc, make and the
// headers of the kernel besides what the other tests need.
func TestLKDTMQEMU(t *testing.T) {
	r := run(t, "lkdtm/CORRUPT_LIST_DEL", lab.Experiment{MemoryMiB: 256, QEMU: []string{lab.FormatELF}})
	offers, _ := r.Fact("offers").([]any)
	if len(offers) < 50 {
		t.Errorf("the kernel offers %d triggers: %v", len(offers), offers)
	}
	for _, name := range offers {
		if _, err := lab.FindScenario(name.(string)); err != nil {
			t.Errorf("the kernel offers what nobody knows: %v", err)
		}
	}
	c := open(t, r.Dumps[0])
	findings := c.Findings()
	if len(findings) == 0 {
		t.Fatal("no finding")
	}
	f := findings[0]
	answer := lab.Answer{Class: string(f.Class), Title: f.Title, Names: regexp.MustCompile(`\w+`).FindAllString(f.Title, -1)}
	if judgement, why := r.Truth.Judge(answer); judgement != lab.Right {
		t.Errorf("%q is %s: %s", f.Title, judgement, why)
	}
	if frames := names(c.Crash.Trace); !slices.ContainsFunc(frames, func(f string) bool { return strings.HasSuffix(f, " [lkdtm]") }) {
		t.Errorf("no frame of the module in %v", frames)
	}
	checkTasks(t, c, r)
	checkLog(t, c, r)
}
