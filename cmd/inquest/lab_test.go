package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"inquest/explain"
	"inquest/lab"
	"inquest/report"
)

func TestDumpName(t *testing.T) {
	for arguments, want := range map[string]string{
		"":                       "vmcore",
		"-l -d 31":               "kdump-l-d31",
		"-z":                     "kdump-z",
		"--cyclic-buffer 64 -c":  "kdump--cyclic-buffer64-c",
		"-x /usr/lib/vmlinux -c": "kdump-x_usr_lib_vmlinux-c",
	} {
		if got := dumpName(strings.Fields(arguments)); got != want {
			t.Errorf("%q: %s, want %s", arguments, got, want)
		}
	}
}

func TestAssignments(t *testing.T) {
	set, err := assignments([]string{"a=1", "b=c=d", "e="})
	if err != nil || len(set) != 3 || set["b"] != "c=d" || set["e"] != "" {
		t.Errorf("%v, %v", set, err)
	}
	for _, bad := range []string{"a", "=1", ""} {
		if set, err := assignments([]string{bad}); err == nil {
			t.Errorf("%q is %v", bad, set)
		}
	}
}

// What Inquest says of the example dump stands up to the truth about it.
func TestExplainDump(t *testing.T) {
	if e, err := explainDump("nowhere", report.Style{}); err == nil {
		t.Fatalf("a dump that is nowhere is explained: %+v", e)
	}
	e, err := explainDump("../../testdata/example.kdump", report.Style{})
	if err != nil {
		t.Fatal(err)
	}
	if e.answer.Class == "" || e.answer.Confidence == "" || len(e.text) < 10 {
		t.Fatalf("%+v", e.answer)
	}
	truth := lab.Truth{Classes: []string{e.answer.Class}, Culprits: []string{e.answer.Names[len(e.answer.Names)-1]}}
	if j, why := truth.Judge(e.answer); j != lab.Right {
		t.Errorf("%s, %s: %+v", j, why, e.answer)
	}
	truth.Culprits = []string{"start_kernel"}
	if j, _ := truth.Judge(e.answer); j != lab.Wrong {
		t.Errorf("%s, though it names %q", j, e.answer.Names)
	}
}

func TestAnswerOf(t *testing.T) {
	a := answerOf(&explain.Finding{
		Class: "type-confusion", Confidence: explain.Likely,
		Title:   "nf_queue_entry_release_refs() took a tcp_request_sock for a sock.",
		Blame:   &explain.Blame{Function: "nf_reinject"},
		Objects: []explain.Object{{Type: "tcp_request_sock", Cache: "request_sock_TCP"}, {}},
	})
	if a.Class != "type-confusion" || a.Confidence != "likely" {
		t.Errorf("%+v", a)
	}
	for _, name := range []string{"nf_queue_entry_release_refs", "tcp_request_sock", "request_sock_TCP", "nf_reinject"} {
		if !slices.Contains(a.Names, name) {
			t.Errorf("%s is not among %q", name, a.Names)
		}
	}
	if slices.Contains(a.Names, "") {
		t.Errorf("an empty name: %q", a.Names)
	}
}

// runResults are three runs: as expected, not so, and failed.
func runResults() []labResult {
	panicked := lab.Result{Scenario: "sysrq", Outcome: lab.Panicked, Seconds: 12, Truth: lab.Truth{Outcome: lab.Panicked}}
	alive := panicked
	alive.Outcome, alive.Seconds = lab.Alive, 30
	return []labResult{
		{Result: panicked, Dir: "a/001", Expected: true, Answer: &lab.Answer{Class: "user-panic"}, Judgement: lab.Right},
		{Result: alive, Dir: "a/002", Judgement: lab.NotJudged},
		{Dir: "a/003", Error: "run sysrq: no QEMU\nmore", Judgement: lab.Failed},
	}
}

func TestLabSummary(t *testing.T) {
	s := summarize(runResults())
	if s.Runs != 3 || s.Expected != 1 || s.Failed != 1 || s.Outcomes[lab.Panicked] != 1 || s.Outcomes[lab.Alive] != 1 ||
		s.Judgements[lab.Right] != 1 || s.Seconds != [3]float64{12, 30, 30} {
		t.Errorf("%+v", s)
	}
	if s := summarize(nil); s.Runs != 0 || s.Seconds != [3]float64{} {
		t.Errorf("%+v", s)
	}
}

func TestPrintRuns(t *testing.T) {
	var out bytes.Buffer
	r := labRun{io: stdio{&out, &out}}
	if err := r.print(runResults()); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"a/001  panic, Inquest: user-panic (right)\n", "a/002  alive\n", "a/003  run sysrq: no QEMU\n",
		"3 runs: alive 1, panic 1, failed 1; 1 as expected; Inquest - 1, failed 1, right 1; 12.0 to 30.0 s",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is not in\n%s", want, out.String())
		}
	}
	out.Reset()
	one := runResults()[1:2]
	one[0].Facts = []lab.Fact{{Key: "leaked", Value: 3.0}, {Key: "text", Value: "\x1b[2J"}, {Key: "victim", Value: map[string]any{"port": "80"}}}
	if err := r.print(one); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"outcome   alive, which was not expected", "fact      leaked: 3\n", `fact      victim: {"port":"80"}`, "folder    a/002\n"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is not in\n%s", want, out.String())
		}
	}
	if strings.Contains(out.String(), "\x1b") {
		t.Errorf("what the guest says drives the terminal: %q", out.String())
	}
	out.Reset()
	r.json = true
	if err := r.print(runResults()); err != nil {
		t.Fatal(err)
	}
	var document struct {
		Runs []struct {
			Scenario, Outcome, Judgement string
			Expected                     bool
		}
		Summary struct{ Runs int }
	}
	if err := json.Unmarshal(out.Bytes(), &document); err != nil || len(document.Runs) != 3 || document.Summary.Runs != 3 ||
		document.Runs[0].Outcome != "panic" || !document.Runs[0].Expected {
		t.Errorf("%v: %s", err, out.String())
	}
}

func TestFolder(t *testing.T) {
	t.Chdir(t.TempDir())
	r := labRun{}
	for _, want := range []string{"nfqueue-reqsk-storm.lab", "nfqueue-reqsk-storm-2.lab", "nfqueue-reqsk-storm-3.lab"} {
		if got, err := r.folder("nfqueue-reqsk/storm"); err != nil || got != want {
			t.Errorf("%s, %v; want %s", got, err, want)
		}
	}
	r.dir = "x/y"
	for range 2 {
		if got, err := r.folder("sysrq"); err != nil || got != "x/y" {
			t.Errorf("%s, %v", got, err)
		}
	}
}

func TestDropDumps(t *testing.T) {
	path := filepath.Join(t.TempDir(), "qemu.elf")
	if err := os.WriteFile(path, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	l := labResult{Result: lab.Result{Dumps: []lab.Dump{{Path: path}}}}
	if err := l.dropDumps(); err != nil || len(l.Dumps) > 0 {
		t.Errorf("%v, %v", l.Dumps, err)
	}
	if _, err := os.Stat(path); err == nil {
		t.Error("the dump is still there")
	}
}

func TestSteps(t *testing.T) {
	var out bytes.Buffer
	s := newSteps(&out, false)
	s.begin("one")
	s.begin("two\x1b")
	s.end()
	if lines := strings.Split(out.String(), "\n"); len(lines) != 3 || !strings.HasSuffix(lines[0], "s  one") || !strings.HasSuffix(lines[1], "s  two·") {
		t.Errorf("%q", out.String())
	}
	out.Reset()
	s = newSteps(&out, true)
	s.begin("one")
	s.end()
	if out.Len() > 0 {
		t.Errorf("quiet, but %q", out.String())
	}
	s = newSteps(&out, false)
	s.width = 24 // a terminal's
	s.begin("a text that is too long for it")
	s.since = s.since.Add(-75 * time.Second)
	s.draw()
	s.end()
	for piece := range strings.SplitSeq(out.String(), "\r") {
		if text, _, _ := strings.Cut(piece, "\x1b"); len([]rune(text)) >= 24 {
			t.Errorf("%q is too long", text)
		}
	}
	if !strings.Contains(out.String(), "75.0s") {
		t.Errorf("no clock in %q", out.String())
	}
}
