package lab

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// lkdtmModule is the kernel's own crash test module (Documentation/fault-injection/
// provoke-crashes.rst).
var lkdtmModule = sourceModule{
	name: "lkdtm", dir: "drivers/misc/lkdtm", option: "CONFIG_LKDTM",
	// UNSET_SMEP calls native_write_cr4(), which a kernel exports only to an LKDTM of its
	// own; it does not for user mode Linux.
	further: []string{"CFLAGS_bugs.o=-DCONFIG_UML=1"},
}

// lkdtmScenarios are the family lkdtm: LKDTM's triggers, those of all kernels. Which of
// them a kernel has, its guest tells as fact "offers".
var lkdtmScenarios = func() []*Scenario {
	var family []*Scenario
	for _, t := range triggers {
		name := "lkdtm/" + t.name
		if slices.ContainsFunc(family, func(s *Scenario) bool { return s.Name == name }) {
			continue
		}
		way := lkdtmWays[t.name]
		family = append(family, &Scenario{
			Name:     name,
			Doc:      "kernel crash test: " + t.why,
			Options:  lkdtmOptions,
			Append:   way.append,
			Patience: firstOf(way.patience, 45*time.Second),
			Prepare:  prepareLKDTM,
			Truth:    func(e *Experiment) Truth { return e.triggerTruth(t.name) },
		})
	}
	return family
}()

// lkdtmOptions are what makes kernels see more than they do by themselves.
var lkdtmOptions = []Option{
	{Name: "slub_debug", Doc: "have SLUB check its objects: red zones, poison, owners", Values: []string{"off", "on"}},
}

// lkdtmWays are what triggers need of the machine; what they need of the running
// kernel, the guest sets.
var lkdtmWays = map[string]struct {
	append   []string
	patience time.Duration
}{
	// The first CPU keeps the time only as long as it is not idle.
	"HARDLOCKUP":             {append: []string{"nohz=off"}},
	"SMP_CALL_LOCKUP":        {append: []string{"nohz=off"}},
	"KFENCE_READ_AFTER_FREE": {append: []string{"kfence.sample_interval=10"}},
	// Nobody waits for what goes on for minutes.
	"ATOMIC_TIMING":   {patience: 10 * time.Second},
	"REFCOUNT_TIMING": {patience: 10 * time.Second},
}

// prepareLKDTM adds the module, which is built when the kernel has none.
func prepareLKDTM(ctx context.Context, e *Experiment, image *Initramfs) error {
	cache, err := cacheDir()
	if err != nil {
		return err
	}
	modules, err := e.Kernel.sourceModule(ctx, cache, lkdtmModule, e.Progress)
	if err != nil {
		return err
	}
	image.Modules = append(image.Modules, modules...)
	if e.Option("slub_debug") == "on" {
		// Newer kernels call it slab_debug, and take this name as well.
		e.Append = append(slices.Clip(e.Append), "slub_debug=FZPU")
	}
	return nil
}

// triggerTruth is what a trigger does in an experiment's kernel.
func (e *Experiment) triggerTruth(name string) Truth {
	config, err := e.Kernel.config()
	if err != nil {
		config = nil
	}
	set := map[string]bool{"slub_debug": e.Option("slub_debug") == "on"}
	for _, t := range triggers {
		if t.name == name && t.holds(e.Kernel.Release, config, set) {
			return Truth{
				Outcome:  t.outcome,
				Classes:  strings.Fields(t.classes),
				Culprits: strings.Fields(t.culprits),
				Object:   t.object,
				Why:      t.why,
			}
		}
	}
	return Truth{Why: fmt.Sprintf("nothing is known of %s on this kernel", name)}
}

// holds reports whether a trigger's conditions are fulfilled. Where the kernel's
// configuration is not known (nil), it has all that is asked for.
func (t *trigger) holds(release string, config kernelConfig, set map[string]bool) bool {
	for condition := range strings.FieldsSeq(t.when) {
		if !slices.ContainsFunc(strings.Split(condition, "|"), func(c string) bool {
			switch {
			case strings.HasPrefix(c, ">="):
				return !olderThan(release, c[2:])
			case strings.HasPrefix(c, "<"):
				return olderThan(release, c[1:])
			case c == strings.ToLower(c):
				return set[c]
			case strings.HasPrefix(c, "!"):
				return config != nil && !config[c[1:]]
			}
			return config == nil || config[c]
		}) {
			return false
		}
	}
	return true
}

// olderThan compares a release ("6.1.0-56-cloud-amd64") with a version ("6.2").
func olderThan(release, version string) bool {
	return slices.Compare(leadingNumbers(release), leadingNumbers(version)) < 0
}

// leadingNumbers are the first two of a version: 6 and 1 of "6.1.0-56".
func leadingNumbers(version string) []int {
	numbers := make([]int, 2)
	for i := range numbers {
		end := strings.IndexFunc(version+".", func(r rune) bool { return r < '0' || r > '9' })
		n, err := strconv.Atoi(version[:end])
		if err != nil {
			break
		}
		numbers[i] = n
		version = strings.TrimPrefix(version[end:], ".")
	}
	return numbers
}
