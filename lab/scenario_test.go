package lab

import (
	"errors"
	"slices"
	"strings"
	"testing"
)

func TestScenarios(t *testing.T) {
	seen := make(map[string]bool)
	for _, s := range Scenarios() {
		if seen[s.Name] {
			t.Errorf("two scenarios are called %s", s.Name)
		}
		seen[s.Name] = true
		if s.Doc == "" || s.Truth == nil || strings.ContainsAny(s.Name, " \t\",=") {
			t.Errorf("scenario %+v", s)
		}
		set := make(map[string]string)
		for _, o := range s.Options {
			if o.Doc == "" || len(o.Values) == 0 || strings.Contains(o.Name, "=") {
				t.Errorf("option %+v of %s", o, s.Name)
				continue
			}
			set[o.Name] = o.Values[len(o.Values)-1]
		}
		e, err := Experiment{Scenario: s, Set: set, Kernel: &Kernel{}, Dir: "out"}.validated()
		if err != nil {
			t.Errorf("%s: %v", s.Name, err)
			continue
		}
		if truth := s.Truth(e); len(truth.Classes) == 0 && len(truth.Culprits) > 0 {
			t.Errorf("truth of %s: %+v", s.Name, truth)
		}
	}
	if _, err := FindScenario("sysrc"); !errors.Is(err, ErrNoScenario) || !strings.Contains(err.Error(), "did you mean sysrq?") {
		t.Errorf("error %v, want %v with the name that was meant", err, ErrNoScenario)
	}
}

func TestFamily(t *testing.T) {
	for _, s := range Scenarios() {
		for _, name := range []string{s.Name, s.Family()} {
			if name == "" {
				continue
			}
			if family, err := Family(name); err != nil || !slices.Contains(family, s) {
				t.Errorf("%s is not in %s (%v)", s.Name, name, err)
			}
		}
	}
	if _, err := Family("none-such"); !errors.Is(err, ErrNoScenario) {
		t.Errorf("error %v, want %v", err, ErrNoScenario)
	}
}
