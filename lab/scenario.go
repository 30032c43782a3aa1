package lab

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"inquest/internal/spelling"
)

// Scenario is a thing with a name that can be made to happen in a guest. What the
// guest does is told by the function of the same name in package guest; the rest is
// here.
type Scenario struct {
	Name    string   // "sysrq"; in a family "FAMILY/NAME"
	Doc     string   // one line
	Options []Option // what --set changes
	Kernel  string   // that it is for, as FindKernel takes it; "" is DefaultKernel

	Modules   []string          // loaded in the guest, with all that they depend on
	Sysctls   map[string]string // set before it begins, by name: "kernel.panic_on_oops"
	Append    []string          // words for the kernel's command line
	CPUs      int               // 0 is 2
	MemoryMiB int               // 0 is 512
	Patience  time.Duration     // after which a guest that neither panics nor ends counts as hung; 0 is two minutes

	// Prepare, if set, adds to the guest's files what the scenario needs besides: a
	// module that is built out of tree.
	Prepare func(ctx context.Context, e *Experiment, image *Initramfs) error
	// Meanwhile, if set, is the host's part while the scenario runs in the guest:
	// what is to be done at its pauses, all of which it has to end. Without it, pauses
	// end by themselves.
	Meanwhile func(ctx context.Context, vm *VM, e *Experiment) error
	// Truth is what ought to happen, given the experiment's options and kernel.
	Truth func(e *Experiment) Truth

	// Sets are the settings that a matrix has of it; none is one with the defaults.
	Sets []map[string]string
	// Happened, if set, says in a few words what came of a run, for a matrix's table.
	Happened func(r *Result) string
}

// Option is a setting of a scenario.
type Option struct {
	Name   string
	Doc    string   // one line
	Values []string // the first is the default
	Open   bool     // takes other values too: numbers, times
}

// Outcome is how a scenario ended.
type Outcome string

// The outcomes.
const (
	Panicked Outcome = "panic"   // the kernel panicked
	Alive    Outcome = "alive"   // the scenario ended, and the kernel said nothing
	Warned   Outcome = "warning" // the scenario ended, but the kernel had warned
	Hung     Outcome = "hung"    // neither panic nor end in time
)

// Truth is what a scenario really is: what an explanation of its dump ought to say.
// Of several classes or culprits each is right, and the first says most; with no
// class there is nothing to be found.
type Truth struct {
	Outcome  Outcome  `json:"outcome,omitempty"`  // "" when any will do
	Classes  []string `json:"classes,omitempty"`  // as in package explain
	Culprits []string `json:"culprits,omitempty"` // the functions to blame
	Object   string   `json:"object,omitempty"`   // the type or the slab cache of the object that was misused
	Why      string   `json:"why,omitempty"`      // in words, where the rest needs them
}

// scenarios are all that there are, in the order of `inquest lab list`.
var scenarios = slices.Concat(
	plainScenarios,
	reqskScenarios,
	lkdtmScenarios,
	guardScenarios,
)

// plainScenarios are those that need nothing but a kernel.
var plainScenarios = []*Scenario{
	{
		Name: "sysrq",
		Doc:  "write c to /proc/sysrq-trigger: the crash that is asked for",
		Truth: func(*Experiment) Truth {
			return Truth{Outcome: Panicked, Classes: []string{"user-panic"}, Culprits: []string{"sysrq_handle_crash", "sysrq"}}
		},
	},
	{
		Name:  "none",
		Doc:   "boot, start some tasks, and stay alive",
		Truth: func(*Experiment) Truth { return Truth{Outcome: Alive} },
	},
}

// Scenarios returns all scenarios.
func Scenarios() []*Scenario { return slices.Clone(scenarios) }

// ErrNoScenario is the error for a name that no scenario has.
var ErrNoScenario = errors.New("no such scenario")

// FindScenario returns the scenario of a name.
func FindScenario(name string) (*Scenario, error) {
	var names, members []string
	for _, s := range scenarios {
		if s.Name == name {
			return s, nil
		}
		names = append(names, s.Name)
		if s.Family() == name {
			members = append(members, s.Name)
		}
	}
	if len(members) > 0 {
		const most = 4
		more := ""
		if len(members) > most {
			more = fmt.Sprintf(" and %d more", len(members)-most)
		}
		return nil, fmt.Errorf("%w: %s is a family: %s%s; --matrix runs all of it", ErrNoScenario, name,
			strings.Join(members[:min(most, len(members))], ", "), more)
	}
	return nil, fmt.Errorf("%w: %q%s", ErrNoScenario, name, spelling.DidYouMean(spelling.Closest(name, names)))
}

// Family returns the scenarios of a family, or the one of that name.
func Family(name string) ([]*Scenario, error) {
	var family []*Scenario
	for _, s := range scenarios {
		if s.Family() == name || s.Name == name {
			family = append(family, s)
		}
	}
	if len(family) == 0 {
		_, err := FindScenario(name)
		return nil, err
	}
	return family, nil
}

// Family is the part of the name that related scenarios share; "" if it stands alone.
func (s *Scenario) Family() string {
	family, _, ok := strings.Cut(s.Name, "/")
	if !ok {
		return ""
	}
	return family
}

// Expected returns what ought to come of a scenario with options set, on a kernel that
// is not known yet.
func Expected(s *Scenario, set map[string]string) (Truth, error) {
	e, err := Experiment{Scenario: s, Set: set, Kernel: &Kernel{}, Dir: "."}.validated()
	if err != nil || s.Truth == nil {
		return Truth{}, err
	}
	return s.Truth(e), nil
}

// options returns the value of each option: as set, or its default.
func (s *Scenario) options(set map[string]string) (map[string]string, error) {
	values := make(map[string]string)
	for _, o := range s.Options {
		if len(o.Values) > 0 {
			values[o.Name] = o.Values[0]
		}
	}
	for _, key := range slices.Sorted(maps.Keys(set)) {
		i := slices.IndexFunc(s.Options, func(o Option) bool { return o.Name == key })
		if i < 0 {
			var names []string
			for _, o := range s.Options {
				names = append(names, o.Name)
			}
			return nil, fmt.Errorf("there is no option %q%s", key, spelling.DidYouMean(spelling.Closest(key, names)))
		}
		o := s.Options[i]
		if !o.Open && !slices.Contains(o.Values, set[key]) {
			return nil, fmt.Errorf("option %s is one of %s, not %q", key, strings.Join(o.Values, ", "), set[key])
		}
		values[key] = set[key]
	}
	return values, nil
}
