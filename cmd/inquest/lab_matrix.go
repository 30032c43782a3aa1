package main

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/spf13/pflag"

	"inquest/lab"
)

var labMatrixTool = &tool{
	name:  "matrix",
	args:  "SCENARIO|FAMILY",
	min:   1,
	max:   1,
	short: "run a family with all options on several kernels, and judge the answers",
	long: `Runs each scenario of a family on each kernel, dumps the machine, has the dump explained,
and holds the answer against the truth: right, wrong or silent. With --options it does so
with each combination of the options' values; --set fixes some of them.

What is done is kept in the directory: a matrix that was interrupted goes on where it
stood. --again has the dumps that were kept explained once more.`,
	example: `inquest lab matrix lkdtm --kernel debian-6.1 -j 2
inquest lab matrix nfqueue-reqsk --options --kernel nfqbug-6.1 --kernel nfqfix-6.1`,
	setup: func(flags *pflag.FlagSet) toolFunc {
		var m labMatrix
		flags.StringArrayVarP(&m.kernels, "kernel", "k", nil, "run on `KERNEL`; may be repeated; by default the one that the scenarios are for")
		flags.Var(&m.accel, "accel", "how QEMU runs the guests; by default KVM where it works")
		flags.StringArrayVar(&m.set, "set", nil, "give an option the one value: `KEY=VALUE`; may be repeated")
		flags.BoolVar(&m.options, "options", false, "run all combinations of the options' values")
		flags.StringVarP(&m.dir, "dir", "d", "", "keep what is done in `DIR`; by default FAMILY.matrix")
		flags.IntVarP(&m.jobs, "jobs", "j", 1, "run `N` machines at a time")
		flags.IntVar(&m.memory, "memory", matrixMemory, "give each machine `MIB` MiB of memory")
		flags.StringVar(&m.keep, "keep", "small", "keep of the dumps `WHICH`: none, small ones, or all")
		flags.BoolVar(&m.again, "again", false, "explain and judge once more what is there")
		flags.BoolVar(&m.markdown, "markdown", false, "print the table in Markdown")
		flags.BoolVar(&m.json, "json", false, "print JSON: the cells and the totals")
		return m.run
	},
}

// matrixMemory is what a machine of a matrix has, in MiB: enough for each scenario, and
// little to dump.
const matrixMemory = 256

// labMatrix is a matrix as the flags ask for it.
type labMatrix struct {
	kernels, set                   []string
	accel                          accel
	dir, keep                      string
	jobs, memory                   int
	options, again, markdown, json bool
}

func (m *labMatrix) run(io stdio, args []string) error {
	family, err := lab.Family(args[0])
	if err != nil {
		return labError("matrix", err)
	}
	keep, ok := map[string]lab.Keep{"none": lab.KeepNone, "small": lab.KeepSmall, "all": lab.KeepAll}[m.keep]
	if !ok {
		return usageError{"lab matrix: --keep takes none, small or all\nSee `inquest help lab matrix`."}
	}
	set, err := assignments(m.set)
	if err != nil {
		return err
	}
	for _, s := range family {
		if _, err := lab.Expected(s, set); err != nil {
			return labError("matrix", err)
		}
	}
	if m.dir == "" {
		m.dir = strings.ReplaceAll(args[0], "/", "-") + ".matrix"
	}
	if err := os.MkdirAll(m.dir, 0o755); err != nil {
		return labError("matrix", err)
	}
	program, err := ownProgram()
	if err != nil {
		return err
	}
	ctx, stop := untilInterrupted()
	defer stop()
	matrix := lab.Matrix{
		Scenarios: family, Dir: m.dir, Jobs: m.jobs, Again: m.again, Keep: keep,
		Experiment: lab.Experiment{Accel: lab.Accel(m.accel), MemoryMiB: m.memory, QEMU: []string{lab.FormatELF}, Guest: program},
		Explain:    answerDump, Shrink: shrinkDump,
	}
	if len(set) > 0 {
		matrix.Sets = []map[string]string{set}
	}
	if m.options {
		matrix.Sets = lab.Combinations(family[0].Options, set)
	}
	steps := newSteps(io.err, false)
	for _, name := range m.names(family) {
		k, err := lab.FindKernel(ctx, name, steps.begin)
		if err != nil {
			steps.end()
			return labError("matrix", err)
		}
		matrix.Kernels = append(matrix.Kernels, k)
	}
	matrix.Progress = func(c *lab.Cell, done, total int) {
		steps.begin(strings.TrimSpace(fmt.Sprintf("%d/%d %s: %s %s", done, total, c.Scenario, c.Judgement, c.Reason)))
	}
	table, err := matrix.Run(ctx)
	steps.end()
	if table != nil {
		err = errors.Join(err, m.print(io, table))
	}
	return labError("matrix", err)
}

// names are the kernels to run on.
func (m *labMatrix) names(family []*lab.Scenario) []string {
	if len(m.kernels) > 0 {
		return m.kernels
	}
	var names []string
	for _, s := range family {
		if !slices.Contains(names, s.Kernel) {
			names = append(names, s.Kernel)
		}
	}
	return names
}

func (m *labMatrix) print(io stdio, t *lab.Table) error {
	if m.json {
		return t.JSON(io.out)
	}
	if m.markdown {
		return t.Markdown(io.out)
	}
	for _, c := range t.Cells {
		name := strings.TrimSpace(c.Scenario + setText(c.Set))
		fmt.Fprintln(io.out, strings.TrimRight(fmt.Sprintf("%-12s %-8s %-34s %-24s %s", c.Judgement, c.Outcome, name, c.Kernel, clean(c.Reason)), " "))
	}
	for _, totals := range t.Totals() {
		fmt.Fprintf(io.out, "%s: %s; of %s %d explained right; %d wrong though certain\n",
			totals.Kernel, counts(totals.Counts, 0), plural(totals.Crashes, "panic"), totals.Right, totals.Certain)
	}
	return nil
}
