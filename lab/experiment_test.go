package lab

import (
	"errors"
	"strings"
	"testing"
)

func TestCommandLine(t *testing.T) {
	k := &Kernel{Release: "6.1.0"}
	s := &Scenario{Name: "x/y", Append: []string{"slub_debug=F"}, Sysctls: map[string]string{"kernel.panic_on_oops": "1"},
		Options: []Option{{Name: "family", Values: []string{"ipv4", "ipv6"}}, {Name: "seconds", Values: []string{"20"}, Open: true}}}
	plain := plainScenarios[0]
	for _, tt := range []struct {
		name string
		e    Experiment
		want string
	}{
		{"from outside", Experiment{Scenario: plain, QEMU: []string{FormatELF}},
			"console=ttyS0 ignore_loglevel no_timer_check panic=0 lab.scenario=sysrq"},
		{"sysctls", Experiment{Scenario: plain, Sysctls: map[string]string{"kernel.panic_on_warn": "1", "kernel.panic_on_oops": "0"}},
			"console=ttyS0 ignore_loglevel no_timer_check panic=0 lab.sysctl=kernel.panic_on_oops=0 lab.sysctl=kernel.panic_on_warn=1 lab.scenario=sysrq"},
		{"kdump", Experiment{Scenario: plain, Kdump: []Save{{"vmcore", nil}, {"lzo-d31", []string{"-l", "-d", "31"}}}},
			"console=ttyS0 ignore_loglevel no_timer_check panic=-1 crashkernel=160M lab.save=vmcore lab.save=lzo-d31:-l,-d,31 lab.scenario=sysrq"},
		{"own crashkernel", Experiment{Scenario: plain, CrashKernel: "1G,high", Kdump: []Save{{"vmcore", nil}}},
			"console=ttyS0 ignore_loglevel no_timer_check panic=-1 crashkernel=1G,high lab.save=vmcore lab.scenario=sysrq"},
		{"options", Experiment{Scenario: s, Set: map[string]string{"seconds": "3"}, Append: []string{"nokaslr"}},
			"console=ttyS0 ignore_loglevel no_timer_check panic=0 slub_debug=F nokaslr lab.sysctl=kernel.panic_on_oops=1 lab.set=family=ipv4 lab.set=seconds=3 lab.scenario=x/y"},
		{"over the scenario's sysctls", Experiment{Scenario: s, Sysctls: map[string]string{"kernel.panic_on_oops": "0"}},
			"console=ttyS0 ignore_loglevel no_timer_check panic=0 slub_debug=F lab.sysctl=kernel.panic_on_oops=0 lab.set=family=ipv4 lab.set=seconds=20 lab.scenario=x/y"},
	} {
		tt.e.Kernel, tt.e.Dir = k, "out"
		e, err := tt.e.validated()
		if err != nil {
			t.Errorf("%s: %v", tt.name, err)
			continue
		}
		if got := e.commandLine(); got != tt.want {
			t.Errorf("%s:\n%s\nwant:\n%s", tt.name, got, tt.want)
		}
	}
}

func TestInvalidExperiments(t *testing.T) {
	s := &Scenario{Name: "x", Options: []Option{{Name: "family", Values: []string{"ipv4", "ipv6"}}, {Name: "seconds", Values: []string{"20"}, Open: true}}}
	valid := Experiment{Scenario: s, Kernel: &Kernel{}, Dir: "out"}
	set := func(key, value string) func(*Experiment) {
		return func(e *Experiment) { e.Set = map[string]string{key: value} }
	}
	for _, tt := range []struct {
		change func(*Experiment)
		want   string
	}{
		{func(e *Experiment) { e.Scenario = nil }, "no scenario"},
		{func(e *Experiment) { e.Kernel = nil }, "no kernel"},
		{func(e *Experiment) { e.Dir = "" }, "no directory"},
		{func(e *Experiment) { e.Kdump, e.QEMU = []Save{{"a", nil}}, []string{FormatELF} }, "exclude each other"},
		{func(e *Experiment) { e.Kdump = []Save{{"../a", nil}} }, `bad name of a dump: "../a"`},
		{func(e *Experiment) { e.Kdump = []Save{{"..", nil}} }, `bad name of a dump: ".."`},
		{func(e *Experiment) { e.Kdump = []Save{{"", nil}} }, `bad name of a dump: ""`},
		{func(e *Experiment) { e.Kdump = []Save{{"a:b", nil}} }, `bad name of a dump: "a:b"`},
		{func(e *Experiment) { e.Kdump = []Save{{"a", nil}, {"a", nil}} }, `bad name of a dump: "a"`},
		{func(e *Experiment) { e.Kdump = []Save{{"a", []string{"-d 31"}}} }, `argument "-d 31" of makedumpfile`},
		{func(e *Experiment) { e.QEMU = []string{"../elf"} }, `bad format of a dump: "../elf"`},
		{func(e *Experiment) { e.Run = [][]string{{"/bin/a", "b,c"}} }, `word "b,c" of a command`},
		{func(e *Experiment) { e.Sysctls = map[string]string{"kernel.core_pattern": "|a b"} }, `sysctl "kernel.core_pattern"`},
		{func(e *Experiment) { e.CPUs = -1 }, "negative"},
		{set("famly", "ipv4"), `there is no option "famly"; did you mean family?`},
		{set("family", "ipx"), `option family is one of ipv4, ipv6, not "ipx"`},
		{set("seconds", "1 2"), `option "seconds" does not fit`},
	} {
		e := valid
		tt.change(&e)
		if _, err := e.validated(); !errors.Is(err, ErrExperiment) || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("error %v, want %q", err, tt.want)
		}
	}
	if _, err := valid.validated(); err != nil {
		t.Errorf("a valid experiment: %v", err)
	}
}
