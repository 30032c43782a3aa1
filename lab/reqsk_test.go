package lab

import (
	"strings"
	"testing"
)

// A run's facts, in the words of a table.
func TestReqskHappened(t *testing.T) {
	for _, tt := range []struct {
		result Result
		want   string
	}{
		{Result{Outcome: Alive, Facts: []Fact{{"leaked", 0.0}, {"neighbour_connection", "accepted"}}}, "nothing"},
		{Result{Outcome: Alive, Facts: []Fact{{"leaked", 1.0}}}, "leak"},
		{Result{Outcome: Warned, Facts: []Fact{{"leaked", 20.0}, {"accepted", 3825.0}}}, "warning; 20 leaked of 3825 connections"},
		{Result{Outcome: Alive, Facts: []Fact{{"leaked", 0.0}, {"accepted", 7.0}}}, "nothing in 7 connections"},
		{Result{Outcome: Alive, Facts: []Fact{
			{"neighbour_client", "127.0.0.1:20015"}, {"neighbour_client", "127.0.0.1:19759"},
			{"neighbour_connection", "reset"}, {"leaked", 1.0},
		}}, "leak; the neighbour's connection is lost (its port 20015 became 19759)"},
		{Result{Outcome: Panicked, Warnings: []string{"refcount_t: underflow; use-after-free.", "WARNING: …"}}, "panic: refcount_t: underflow; use-after-free"},
		{Result{Outcome: Hung}, "hung"},
	} {
		if got := reqskHappened(&tt.result); got != tt.want {
			t.Errorf("%q, want %q", got, tt.want)
		}
	}
}

// What ought to happen depends on the kernel, and on what the bug needs.
func TestReqskTruth(t *testing.T) {
	s, err := FindScenario("nfqueue-reqsk/retransmit")
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		release, set string
		want         Outcome
	}{
		{"6.1.192-nfqbug", "", Panicked},
		{"6.1.192-nfqbug", "outcome=crash family=mapped path=bridge hook=postrouting", Panicked},
		{"6.1.192-nfqbug", "accept=no", Alive},
		{"6.1.192-nfqbug", "family=ipv6", Alive},
		{"6.1.192-nfqbug", "hook=input", Alive},
		{"6.1.192-nfqbug", "outcome=leak", Alive},
		{"6.1.192-nfqbug", "guard=hook", Alive},
		{"6.1.192-nfqfix", "", Alive},
		{"6.1.0-56-cloud-amd64", "outcome=crash", Alive},
		{"", "", Panicked},
	} {
		e, err := Experiment{Scenario: s, Set: with(tt.set), Kernel: &Kernel{Release: tt.release}, Dir: "."}.validated()
		if err != nil {
			t.Fatal(err)
		}
		if got := s.Truth(e); got.Outcome != tt.want || (len(got.Classes) > 0) != (tt.want != Alive) {
			t.Errorf("%s %s: %+v, want %q", tt.release, tt.set, got, tt.want)
		}
	}
}

// Every setting of the case's matrix is one that its scenario takes.
func TestReqskSets(t *testing.T) {
	family, err := Family("nfqueue-reqsk")
	if err != nil || len(family) != 3 {
		t.Fatalf("%d scenarios, %v", len(family), err)
	}
	for _, s := range family {
		if len(s.Sets) == 0 {
			t.Errorf("%s has no settings", s.Name)
		}
		for _, set := range s.Sets {
			if _, err := s.options(set); err != nil {
				t.Errorf("%s %v: %v", s.Name, set, err)
			}
		}
	}
}

func TestHappenedTable(t *testing.T) {
	table := &Table{Cells: []*Cell{
		{Scenario: "a/b", Kernel: "6.1", Happened: "leak"},
		{Scenario: "a/b", Kernel: "5.10", Outcome: Panicked, Happened: "panic: x", Answer: &Answer{}, Judgement: Right},
		{Scenario: "a/c", Kernel: "5.10", Happened: "nothing"},
	}}
	want := strings.Join([]string{
		"| scenario | 6.1 | 5.10 |",
		"| --- | --- | --- |",
		"| a/b | leak | panic: x (explained: right) |",
		"| a/c | - | nothing |",
		"",
	}, "\n")
	if got := table.happened(); got != want {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
}
