package lab

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sync/errgroup"
)

// Matrix runs scenarios with all settings of their options on several kernels, and
// holds what is said of each dump against the truth. It keeps what it knows in its
// directory: run again it goes on where it was stopped.
type Matrix struct {
	Scenarios []*Scenario
	Kernels   []*Kernel
	Sets      []map[string]string // each a setting of options; none are the scenario's own
	Dir       string
	Jobs      int // runs at a time; 0 is 1
	// Experiment is how all of them are run; scenario, settings, kernel and directory
	// are filled in. Without dumps there is nothing to judge.
	Experiment Experiment
	// Explain, if set, says what there is to be said of a dump. Package lab has no
	// opinion of its own.
	Explain func(ctx context.Context, dump string) (Answer, error)
	// Again has Explain asked once more about the dumps that were kept.
	Again bool
	Keep  Keep
	// Shrink makes a small copy of a dump, for KeepSmall.
	Shrink func(ctx context.Context, dump, to string) error
	// Progress, if set, hears of each cell that is finished. Calls do not overlap.
	Progress func(c *Cell, done, total int)
}

// Keep says which dumps a matrix leaves in its directory.
type Keep string

// What may be kept.
const (
	KeepNone  Keep = ""
	KeepSmall Keep = "small" // what Shrink makes of the first of them, as dump.kdump
	KeepAll   Keep = "all"
)

// smallDump is the name of a cell's dump that was made small.
const smallDump = "dump.kdump"

// ErrMatrix is the error for a matrix that contradicts itself.
var ErrMatrix = errors.New("invalid matrix")

// Cell is one run of a matrix.
type Cell struct {
	Scenario  string            `json:"scenario"`
	Set       map[string]string `json:"set,omitempty"`
	Kernel    string            `json:"kernel"` // release
	Dir       string            `json:"dir"`    // of its results, below the matrix's
	Truth     Truth             `json:"truth"`
	Outcome   Outcome           `json:"outcome,omitempty"`
	Warnings  []string          `json:"warnings,omitempty"` // of the kernel
	Happened  string            `json:"happened,omitempty"` // in words, where the scenario has them
	Dump      string            `json:"dump,omitempty"`     // that was kept, in Dir
	Answer    *Answer           `json:"answer,omitempty"`   // nil when there was no dump
	Judgement Judgement         `json:"judgement"`
	Reason    string            `json:"reason,omitempty"` // of the judgement
	Offers    []string          `json:"offers,omitempty"` // of the family, that the kernel has
	Seconds   float64           `json:"seconds"`

	experiment Experiment
}

// cellFile is where a cell's directory holds it.
const cellFile = "cell.json"

// Combinations returns all settings of options that there are: each value with each of
// the others. Options in fixed have that value only, and those that are open to any
// value, or have just one, their default.
func Combinations(options []Option, fixed map[string]string) []map[string]string {
	sets := []map[string]string{maps.Clone(fixed)}
	for _, o := range options {
		if _, is := fixed[o.Name]; is || o.Open || len(o.Values) < 2 {
			continue
		}
		var longer []map[string]string
		for _, set := range sets {
			for _, value := range o.Values {
				with := map[string]string{o.Name: value}
				maps.Copy(with, set)
				longer = append(longer, with)
			}
		}
		sets = longer
	}
	return sets
}

// cells are all that a matrix consists of, kernel by kernel.
func (m *Matrix) cells() []*Cell {
	var all []*Cell
	for _, k := range m.Kernels {
		for _, s := range m.Scenarios {
			sets := m.Sets
			if len(sets) == 0 {
				sets = s.Sets
			}
			if len(sets) == 0 {
				sets = []map[string]string{nil}
			}
			for _, set := range sets {
				c := &Cell{Scenario: s.Name, Set: set, Kernel: k.Release, experiment: m.Experiment}
				c.Dir = filepath.Join(append([]string{k.Release, filepath.FromSlash(s.Name)}, c.settings()...)...)
				e := &c.experiment
				e.Scenario, e.Set, e.Kernel, e.Dir = s, set, k, filepath.Join(m.Dir, c.Dir)
				all = append(all, c)
			}
		}
	}
	return all
}

// settings are a cell's, each as "key=value", in order.
func (c *Cell) settings() []string {
	var words []string
	for _, key := range slices.Sorted(maps.Keys(c.Set)) {
		words = append(words, key+"="+c.Set[key])
	}
	return words
}

// Run runs what was not run before. That one cell cannot be run is a fact about that
// cell; an error is what ends all of them: of the directory, or of the context. What
// was finished by then is in the table.
func (m *Matrix) Run(ctx context.Context) (*Table, error) {
	switch {
	case len(m.Scenarios) == 0 || len(m.Kernels) == 0 || m.Dir == "":
		return nil, fmt.Errorf("%w: it takes scenarios, kernels and a directory", ErrMatrix)
	case m.Keep == KeepSmall && m.Shrink == nil:
		return nil, fmt.Errorf("%w: nobody makes dumps small", ErrMatrix)
	}
	cells := m.cells()
	var mu sync.Mutex
	done := 0
	finished := func(c *Cell) {
		mu.Lock()
		defer mu.Unlock()
		if done++; m.Progress != nil {
			m.Progress(c, done, len(cells))
		}
	}
	// What a kernel offers of a family, its first cell says.
	offers := make(map[[2]string][]string)
	learn := func(c *Cell) {
		mu.Lock()
		defer mu.Unlock()
		if len(c.Offers) > 0 {
			offers[[2]string{c.Kernel, c.experiment.Scenario.Family()}] = c.Offers
		}
	}
	var open []*Cell
	for _, c := range cells {
		if !c.load(m.Dir) {
			open = append(open, c)
			continue
		}
		learn(c)
	}
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(max(1, m.Jobs))
	for _, c := range cells {
		group.Go(func() error {
			if err := ctx.Err(); err != nil {
				return err
			}
			mu.Lock()
			offered := offers[[2]string{c.Kernel, c.experiment.Scenario.Family()}]
			mu.Unlock()
			var err error
			switch {
			case !slices.Contains(open, c):
				err = m.review(ctx, c)
			case len(offered) > 0 && !slices.Contains(offered, c.Scenario):
				c.Judgement, c.Reason = NotOffered, "the kernel does not have it"
			default:
				err = m.run(ctx, c)
				learn(c)
			}
			if err == nil {
				finished(c)
			}
			return err
		})
	}
	err := group.Wait()
	return &Table{Cells: cells}, err
}

// run runs a cell, and keeps what came of it unless that is an error.
func (m *Matrix) run(ctx context.Context, c *Cell) error {
	r, err := Run(ctx, c.experiment)
	if errors.Is(err, errNotBooted) { // on a busy machine, that happens
		r, err = Run(ctx, c.experiment)
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil {
		c.Judgement, c.Reason = Failed, err.Error()
		return nil
	}
	c.Truth, c.Outcome, c.Warnings, c.Seconds = r.Truth, r.Outcome, r.Warnings, r.Seconds
	if happened := c.experiment.Scenario.Happened; happened != nil {
		c.Happened = happened(&r)
	}
	if names, ok := r.Fact("offers").([]any); ok {
		for _, name := range names {
			c.Offers = append(c.Offers, fmt.Sprint(name))
		}
	}
	if len(r.Dumps) > 0 {
		if err := m.explain(ctx, c, r.Dumps[0].Path); err != nil {
			return err
		}
	}
	c.judge()
	if err := m.keep(ctx, c, r.Dumps); err != nil {
		return err
	}
	return c.save(m.Dir)
}

// review judges a finished cell once more: the truth may be known better by now, and
// Inquest may know more.
func (m *Matrix) review(ctx context.Context, c *Cell) error {
	if e, err := c.experiment.validated(); err == nil && e.Scenario.Truth != nil {
		var r Result // whose facts the truth may rest on
		if text, err := os.ReadFile(filepath.Join(m.Dir, c.Dir, resultFile)); err == nil && json.Unmarshal(text, &r) == nil {
			e.facts.list = r.Facts
		}
		c.Truth = e.Scenario.Truth(e)
	}
	if m.Again && c.Dump != "" {
		if err := m.explain(ctx, c, filepath.Join(m.Dir, c.Dir, c.Dump)); err != nil {
			return err
		}
	}
	c.judge()
	return c.save(m.Dir)
}

// explain asks for an answer. That there is none is an answer, too.
func (m *Matrix) explain(ctx context.Context, c *Cell, dump string) error {
	if m.Explain == nil {
		return nil
	}
	answer, err := m.Explain(ctx, dump)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil {
		answer.Error = err.Error()
	}
	c.Answer = &answer
	return nil
}

// keep removes the dumps that are not to be kept.
func (m *Matrix) keep(ctx context.Context, c *Cell, dumps []Dump) error {
	if len(dumps) == 0 {
		return nil
	}
	first := dumps[0].Path
	switch {
	case m.Keep == KeepAll:
		c.Dump = filepath.Base(first)
		return nil
	case m.Keep == KeepSmall:
		small := filepath.Join(m.Dir, c.Dir, smallDump)
		if err := os.Remove(small); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		if err := m.Shrink(ctx, first, small); err != nil {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			c.Dump = filepath.Base(first) // it is one to look at
			if err := os.Remove(small); err != nil && !errors.Is(err, os.ErrNotExist) {
				return err
			}
			return nil
		}
		c.Dump = smallDump
	}
	for _, d := range dumps {
		if err := os.Remove(d.Path); err != nil {
			return err
		}
	}
	return nil
}

// load reads a finished cell. What cannot be read was not finished.
func (c *Cell) load(dir string) bool {
	text, err := os.ReadFile(filepath.Join(dir, c.Dir, cellFile))
	if err != nil {
		return false
	}
	kept := Cell{experiment: c.experiment}
	if json.Unmarshal(text, &kept) != nil || kept.Scenario != c.Scenario || kept.Dir != c.Dir {
		return false
	}
	*c = kept
	return true
}

// save writes the cell, all of it or nothing.
func (c *Cell) save(dir string) error {
	text, err := json.MarshalIndent(c, "", "  ")
	if err != nil {
		return err
	}
	path := filepath.Join(dir, c.Dir, cellFile)
	if err := os.WriteFile(path+".new", append(text, '\n'), 0o644); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

// name is how a table calls the cell.
func (c *Cell) name() string { return strings.Join(append([]string{c.Scenario}, c.settings()...), " ") }
