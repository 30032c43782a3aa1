package lab

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestCombinations(t *testing.T) {
	options := []Option{
		{Name: "family", Values: []string{"ipv6", "ipv4"}},
		{Name: "link", Values: []string{"lo", "veth", "bridge"}},
		{Name: "seconds", Values: []string{"20"}, Open: true},
	}
	for _, tt := range []struct {
		fixed map[string]string
		want  []string
	}{
		{nil, []string{"family=ipv6 link=lo", "family=ipv6 link=veth", "family=ipv6 link=bridge",
			"family=ipv4 link=lo", "family=ipv4 link=veth", "family=ipv4 link=bridge"}},
		{map[string]string{"link": "veth", "seconds": "3"}, []string{"family=ipv6 link=veth seconds=3", "family=ipv4 link=veth seconds=3"}},
		{map[string]string{"family": "ipv4", "link": "lo"}, []string{"family=ipv4 link=lo"}},
	} {
		var got []string
		for _, set := range Combinations(options, tt.fixed) {
			c := Cell{Set: set}
			got = append(got, strings.Join(c.settings(), " "))
		}
		if diff := cmp.Diff(tt.want, got); diff != "" {
			t.Errorf("with %v: %s", tt.fixed, diff)
		}
	}
}

func TestJudge(t *testing.T) {
	crash := Truth{Outcome: Panicked, Classes: []string{"hard-lockup", "rcu-stall"}, Culprits: []string{"f", "g"}, Object: "kmalloc-1k"}
	for _, tt := range []struct {
		name  string
		truth Truth
		a     Answer
		want  Judgement
	}{
		{"the best", crash, Answer{Class: "hard-lockup", Names: []string{"x", "f"}}, Right},
		{"the other class, the other function", crash, Answer{Class: "rcu-stall", Names: []string{"g"}}, Right},
		{"what the compiler split", crash, Answer{Class: "rcu-stall", Names: []string{"g.constprop.0"}}, Right},
		{"the object", crash, Answer{Class: "hard-lockup", Names: []string{"kmalloc-1k"}}, Right},
		{"the class alone", crash, Answer{Class: "hard-lockup", Names: []string{"h", "fg"}}, Wrong},
		{"another class", crash, Answer{Class: "bug", Names: []string{"f"}}, Wrong},
		{"no cause", crash, Answer{Class: "unknown", Names: []string{"f"}}, Silent},
		{"nothing", crash, Answer{}, Silent},
		{"unreadable", crash, Answer{Error: "no kernel"}, Silent},
		{"no function to blame", Truth{Classes: []string{"out-of-memory"}}, Answer{Class: "out-of-memory"}, Right},
		{"nothing to be found", Truth{Outcome: Alive}, Answer{}, Right},
		{"a false alarm", Truth{Outcome: Alive}, Answer{Class: "bug"}, Wrong},
		{"a vague one", Truth{Outcome: Alive}, Answer{Class: "unknown"}, Wrong},
	} {
		if got, reason := tt.truth.Judge(tt.a); got != tt.want || got == Wrong && reason == "" {
			t.Errorf("%s: %s (%s), want %s", tt.name, got, reason, tt.want)
		}
	}
}

// testMatrix has three cells: one crashes, one cannot be run, one is known to survive
// what it does not survive.
func testMatrix(t *testing.T) *Matrix {
	useFakeQEMU(t, "")
	e := testExperiment(t)
	e.QEMU = []string{FormatELF}
	broken := &Scenario{Name: "family/broken", Prepare: func(context.Context, *Experiment, *Initramfs) error { return errors.New("no module") }}
	tame := &Scenario{Name: "family/tame", Truth: func(*Experiment) Truth { return Truth{Outcome: Alive} }}
	return &Matrix{
		Scenarios: []*Scenario{e.Scenario, broken, tame}, Kernels: []*Kernel{e.Kernel},
		Dir: filepath.Join(t.TempDir(), "matrix"), Experiment: e,
		Explain: func(_ context.Context, dump string) (Answer, error) {
			if text, err := os.ReadFile(dump); err != nil || len(text) == 0 {
				return Answer{}, fmt.Errorf("dump: %q, %v", text, err)
			}
			return Answer{Class: "user-panic", Title: "by | sysrq", Confidence: "certain", Names: []string{"sysrq_handle_crash"}}, nil
		},
	}
}

func TestMatrix(t *testing.T) {
	for jobs := range 3 {
		m := testMatrix(t)
		m.Jobs = jobs
		var steps []int
		m.Progress = func(_ *Cell, done, total int) { steps = append(steps, done*10+total) }
		table, err := m.Run(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		var got []Judgement
		for _, c := range table.Cells {
			got = append(got, c.Judgement)
		}
		if diff := cmp.Diff([]Judgement{Right, Failed, Unexpected}, got); diff != "" {
			t.Errorf("with %d jobs: %s", jobs, diff)
		}
		if !slices.Equal(steps, []int{13, 23, 33}) {
			t.Errorf("progress %v", steps)
		}
		dumps, err := filepath.Glob(filepath.Join(m.Dir, "*/*/qemu.elf"))
		if err != nil || len(dumps) > 0 {
			t.Errorf("dumps left: %v, %v", dumps, err)
		}
		checkNothingLeft(t)
	}
}

// What was finished is not run again, but judged again; what failed is run again.
func TestMatrixGoesOn(t *testing.T) {
	m := testMatrix(t)
	m.Keep = KeepAll
	if _, err := m.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	var asked atomic.Int32
	m.Explain = func(context.Context, string) (Answer, error) {
		asked.Add(1)
		return Answer{Class: "bug"}, nil
	}
	prepared := 0
	m.Scenarios[1].Prepare = func(context.Context, *Experiment, *Initramfs) error { prepared++; return errors.New("still no module") }
	table, err := m.Run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if asked.Load() != 0 || prepared != 1 || table.Cells[0].Judgement != Right || !strings.Contains(table.Cells[1].Reason, "still no module") {
		t.Errorf("asked %d times, prepared %d times, cells %+v", asked.Load(), prepared, table.Cells)
	}
	m.Again = true
	if table, err = m.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	if asked.Load() != 2 || table.Cells[0].Judgement != Wrong {
		t.Errorf("asked again %d times: %+v", asked.Load(), table.Cells[0])
	}
	// Of a cell that was not written to its end nothing is believed.
	path := filepath.Join(m.Dir, table.Cells[0].Dir, cellFile)
	if err := os.WriteFile(path, []byte(`{"scenario": "sys`), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := m.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	if asked.Load() != 4 {
		t.Errorf("asked %d times after the first cell was lost, want 4", asked.Load())
	}
}

func TestMatrixInterrupted(t *testing.T) {
	m := testMatrix(t)
	ctx, cancel := context.WithCancel(t.Context())
	explain := m.Explain
	m.Explain = func(ctx context.Context, dump string) (Answer, error) {
		cancel()
		return explain(ctx, dump)
	}
	if _, err := m.Run(ctx); !errors.Is(err, context.Canceled) {
		t.Fatalf("error %v, want %v", err, context.Canceled)
	}
	if cells, err := filepath.Glob(filepath.Join(m.Dir, "*/*", cellFile)); err != nil || len(cells) > 0 {
		t.Errorf("cells %v are finished (%v)", cells, err)
	}
	checkNothingLeft(t)
}

func TestMatrixKeep(t *testing.T) {
	for _, tt := range []struct {
		keep   Keep
		shrink error
		want   string // of the first cell's dumps
	}{
		{KeepNone, nil, ""},
		{KeepSmall, nil, "dump.kdump"},
		{KeepSmall, errors.New("too odd"), "qemu.elf"},
		{KeepAll, nil, "qemu.elf"},
	} {
		m := testMatrix(t)
		m.Scenarios, m.Keep = m.Scenarios[:1], tt.keep
		m.Shrink = func(_ context.Context, dump, to string) error {
			return errors.Join(tt.shrink, os.WriteFile(to, []byte("small"), 0o644))
		}
		table, err := m.Run(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		c := table.Cells[0]
		if c.Dump != tt.want {
			t.Errorf("keep %q: dump %q, want %q", tt.keep, c.Dump, tt.want)
		}
		for _, name := range []string{"dump.kdump", "qemu.elf"} {
			_, err := os.Stat(filepath.Join(m.Dir, c.Dir, name))
			if there := err == nil; there != (name == tt.want) {
				t.Errorf("keep %q: %s is there: %t", tt.keep, name, there)
			}
		}
	}
	m := testMatrix(t)
	m.Keep = KeepSmall
	if _, err := m.Run(t.Context()); !errors.Is(err, ErrMatrix) {
		t.Errorf("error %v, want %v", err, ErrMatrix)
	}
}

// What a kernel does not offer is not booted for.
func TestMatrixOffers(t *testing.T) {
	m := testMatrix(t)
	m.Scenarios = m.Scenarios[1:]
	first, other := m.Scenarios[0].Name, m.Scenarios[1].Name
	dir := filepath.Join(m.Kernels[0].Release, first)
	text, err := json.Marshal(Cell{Scenario: first, Kernel: m.Kernels[0].Release, Dir: dir, Offers: []string{first}})
	if err != nil {
		t.Fatal(err)
	}
	writeFiles(t, m.Dir, map[string][]byte{filepath.Join(dir, cellFile): text})
	table, err := m.Run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if c := table.Cells[1]; c.Scenario != other || c.Judgement != NotOffered || c.Outcome != "" {
		t.Errorf("cell %+v", c)
	}
}

func TestTable(t *testing.T) {
	crash := Truth{Outcome: Panicked, Classes: []string{"refcount"}, Culprits: []string{"f_g"}, Why: "counts\ndown | up"}
	table := &Table{Cells: []*Cell{
		{Scenario: "x/A", Kernel: "6.1", Truth: crash, Outcome: Panicked, Judgement: Right, Answer: &Answer{Class: "refcount", Confidence: "certain", Title: "in f_g"}},
		{Scenario: "x/B", Kernel: "6.1", Truth: crash, Outcome: Panicked, Judgement: Wrong, Reason: "bug is not refcount", Answer: &Answer{Class: "bug", Confidence: "certain", Title: "BUG"}},
		{Scenario: "x/C", Kernel: "6.1", Truth: crash, Outcome: Panicked, Judgement: Silent, Answer: &Answer{Error: "no kernel"}},
		{Scenario: "x/D", Kernel: "6.1", Outcome: Alive, Judgement: Right, Answer: &Answer{}},
		{Scenario: "x/A", Set: map[string]string{"debug": "on"}, Kernel: "7.2", Truth: crash, Judgement: NotOffered},
	}}
	want := []Totals{
		{Kernel: "6.1", Cells: 4, Counts: map[Judgement]int{Right: 2, Wrong: 1, Silent: 1}, Crashes: 3, Right: 1, Certain: 1},
		{Kernel: "7.2", Cells: 1, Counts: map[Judgement]int{NotOffered: 1}},
	}
	if diff := cmp.Diff(want, table.Totals()); diff != "" {
		t.Error(diff)
	}
	var text, data bytes.Buffer
	if err := errors.Join(table.Markdown(&text), table.JSON(&data)); err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{
		"| 6.1 | 4 | 3 | 1 (33 %) | 2 | 1 | 1 | 1 | 0 | 0 | 0 |",
		`| x/A | counts down \| up | panic | refcount | f\_g | refcount, certain: in f\_g | right |`,
		"| x/D | - | alive | - | - | nothing | right |",
		"Not there: x/A debug=on.",
	} {
		if !strings.Contains(text.String(), line+"\n") {
			t.Errorf("no line %s in\n%s", line, text.String())
		}
	}
	var back struct {
		Totals []Totals
		Cells  []Cell
	}
	if err := json.Unmarshal(data.Bytes(), &back); err != nil || len(back.Cells) != 5 || len(back.Totals) != 2 {
		t.Errorf("JSON %v: %s", err, data.Bytes())
	}
}

func TestSignatures(t *testing.T) {
	cell := func(scenario, kernel, signature string) *Cell {
		return &Cell{Scenario: scenario, Kernel: kernel, Answer: &Answer{Signature: signature}}
	}
	table := &Table{Cells: []*Cell{
		cell("a", "6.1", "1"), cell("b", "6.1", "2"), cell("c", "6.1", "1"), cell("d", "6.1", ""), {Scenario: "e", Kernel: "6.1"},
		cell("a", "7.2", "1"), cell("b", "7.2", "3"), cell("c", "7.2", "1"), cell("d", "7.2", "4"), cell("b", "8.0", "2"), cell("f", "8.0", "3"),
	}}
	if diff := cmp.Diff([][]string{{"a", "c"}, {"b", "f"}}, table.SharedSignatures()); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{"b"}, table.UnstableSignatures()); diff != "" {
		t.Error(diff)
	}
	var text bytes.Buffer
	if err := table.Markdown(&text); err != nil {
		t.Fatal(err)
	}
	if !strings.HasSuffix(text.String(), "- One signature: a, c\n- One signature: b, f\n- Not the same signature on all kernels: b\n") {
		t.Errorf("the end of\n%s", text.String())
	}
}
