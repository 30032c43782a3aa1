package lab

import (
	"errors"
	"strings"
	"testing"
)

func TestCommandLine(t *testing.T) {
	k := &Kernel{Release: "6.1.0"}
	for _, tt := range []struct {
		name string
		s    Scenario
		want string
	}{
		{"from outside", Scenario{Crash: "sysrq", QEMU: []string{FormatELF}},
			"console=ttyS0 ignore_loglevel panic=0 lab.crash=sysrq"},
		{"sysctls", Scenario{Crash: "none", Sysctls: map[string]string{"kernel.panic_on_warn": "1", "kernel.panic_on_oops": "0"}},
			"console=ttyS0 ignore_loglevel panic=0 lab.sysctl=kernel.panic_on_oops=0 lab.sysctl=kernel.panic_on_warn=1 lab.crash=none"},
		{"kdump", Scenario{Crash: "sysrq", Kdump: []Save{{"vmcore", nil}, {"lzo-d31", []string{"-l", "-d", "31"}}}},
			"console=ttyS0 ignore_loglevel panic=-1 crashkernel=160M lab.save=vmcore lab.save=lzo-d31:-l,-d,31 lab.crash=sysrq"},
		{"own crashkernel", Scenario{Crash: "sysrq", CrashKernel: "1G,high", Kdump: []Save{{"vmcore", nil}}},
			"console=ttyS0 ignore_loglevel panic=-1 crashkernel=1G,high lab.save=vmcore lab.crash=sysrq"},
	} {
		tt.s.Kernel, tt.s.Dir = k, "out"
		s, err := tt.s.validated()
		if err != nil {
			t.Errorf("%s: %v", tt.name, err)
		}
		if got := s.commandLine(); got != tt.want {
			t.Errorf("%s:\n%s\nwant:\n%s", tt.name, got, tt.want)
		}
	}
}

func TestInvalidScenarios(t *testing.T) {
	valid := Scenario{Name: "x", Crash: "sysrq", Kernel: &Kernel{}, Dir: "out"}
	for _, tt := range []struct {
		change func(*Scenario)
		want   string
	}{
		{func(s *Scenario) { s.Kernel = nil }, "no kernel"},
		{func(s *Scenario) { s.Dir = "" }, "no directory"},
		{func(s *Scenario) { s.Crash = "sysrc" }, `unknown crash "sysrc": expected one of none, sysrq`},
		{func(s *Scenario) { s.Kdump, s.QEMU = []Save{{"a", nil}}, []string{FormatELF} }, "exclude each other"},
		{func(s *Scenario) { s.Kdump, s.Crash = []Save{{"a", nil}}, "none" }, "kdump needs a crash"},
		{func(s *Scenario) { s.Kdump = []Save{{"../a", nil}} }, `bad name of a dump: "../a"`},
		{func(s *Scenario) { s.Kdump = []Save{{"..", nil}} }, `bad name of a dump: ".."`},
		{func(s *Scenario) { s.Kdump = []Save{{"", nil}} }, `bad name of a dump: ""`},
		{func(s *Scenario) { s.Kdump = []Save{{"a:b", nil}} }, `bad name of a dump: "a:b"`},
		{func(s *Scenario) { s.Kdump = []Save{{"a", []string{"-d 31"}}} }, `argument "-d 31" of makedumpfile`},
		{func(s *Scenario) { s.Sysctls = map[string]string{"kernel.core_pattern": "|a b"} }, `sysctl "kernel.core_pattern"`},
		{func(s *Scenario) { s.CPUs = -1 }, "negative"},
	} {
		s := valid
		tt.change(&s)
		if _, err := s.validated(); !errors.Is(err, ErrScenario) || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("error %v, want %q", err, tt.want)
		}
	}
	if _, err := valid.validated(); err != nil {
		t.Errorf("a valid scenario: %v", err)
	}
}
