package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"inquest/lab"
	"inquest/report"
)

var labRunTool = &tool{
	name:  "run",
	args:  "SCENARIO",
	min:   1,
	max:   1,
	short: "make a scenario happen, dump the machine, and explain the dump",
	long: `Boots a kernel, makes the scenario happen in it, dumps the machine, and holds what
Inquest says of the dump against what was really done. "inquest lab list" lists scenarios
and their options.

Dumps are taken from outside by QEMU, in any of its formats (--dump), or from inside by a
capture kernel and makedumpfile (--kdump with makedumpfile's arguments; with "" it is
/proc/vmcore itself). Both may be repeated; they exclude each other. Without either,
QEMU dumps in ELF; "--dump none" dumps nothing.

KERNEL is debian-6.1 and the like for the newest of a suite, a Debian package with or
without a suite (linux-image-amd64/trixie), a recipe (nfqbug-6.1), a directory with an
unpacked kernel, a bzImage or a vmlinux; "inquest lab kernel list" lists what there is.

Of several runs in a row (-n) only those dumps are left that show something else than
was expected, unless --keep is given.

What a run leaves is in its folder: console.log, the dumps, vmcoreinfo, report.jsonl
(what the guest said) and scenario.json (what was done, and what came of it). With --keep
there is also what the machine was made of, and boot.sh to boot it by hand.`,
	example: `inquest lab run sysrq
inquest lab run sysrq --kernel debian-6.12 --kdump "-l -d 31"
inquest lab run nfqueue-reqsk/retransmit --set outcome=crash -n 10`,
	setup: func(flags *pflag.FlagSet) toolFunc {
		var r labRun
		flags.StringVarP(&r.kernel, "kernel", "k", "", "boot `KERNEL`; by default the one that the scenario is for")
		flags.Var(&r.accel, "accel", "how QEMU runs the guest; by default KVM where it works")
		flags.StringArrayVar(&r.set, "set", nil, "give an option of the scenario a value: `KEY=VALUE`; may be repeated")
		flags.StringArrayVar(&r.sysctls, "sysctl", nil, "set a sysctl in the guest: `KEY=VALUE`; may be repeated")
		flags.StringVar(&r.append, "append", "", "add `WORDS` to the kernel's command line")
		flags.StringVarP(&r.dir, "dir", "d", "", "put results into `DIR`; by default one named after the scenario, made anew")
		flags.StringArrayVar(&r.dumps, "dump", nil, `have QEMU dump in this `+"`FORMAT`"+`, "all" of them, or "none"`)
		flags.StringArrayVar(&r.kdumps, "kdump", nil, "have kdump save a dump with these `ARGUMENTS` of makedumpfile")
		flags.BoolVar(&r.unflatten, "unflatten", false, "write flattened dumps as the files that they stand for")
		flags.IntVar(&r.cpus, "cpus", 0, "give the machine `N` CPUs")
		flags.IntVar(&r.memory, "memory", 0, "give the machine `MIB` MiB of memory")
		flags.IntVarP(&r.runs, "runs", "n", 1, "run it `N` times in a row, each in a folder of its own")
		flags.DurationVar(&r.timeout, "timeout", 0, "take the guest for hung after `TIME`; by default as the scenario says")
		flags.BoolVar(&r.keep, "keep", false, "keep what the machine is made of, too, with boot.sh to boot it again")
		flags.BoolVarP(&r.quiet, "quiet", "q", false, "show no progress")
		flags.BoolVar(&r.json, "json", false, "print JSON: the runs and a summary of their outcomes")
		flags.BoolVar(&r.matrix, "matrix", false, "run the scenario or its whole family in all its settings, as inquest lab matrix does")
		return r.run
	},
}

// labRun is a series of runs of one scenario.
type labRun struct {
	kernel, dir, append string
	accel               accel
	set, sysctls        []string
	dumps, kdumps       []string
	unflatten, keep     bool
	cpus, memory, runs  int
	timeout             time.Duration
	quiet, json, matrix bool
	io                  stdio
	steps               *steps
}

// labResult is a run as --json prints it.
type labResult struct {
	lab.Result
	Dir       string        `json:"dir"`
	Expected  bool          `json:"expected"`
	Answer    *lab.Answer   `json:"answer,omitempty"` // what Inquest says of the first dump
	Judgement lab.Judgement `json:"judgement"`
	Reason    string        `json:"reason,omitempty"` // of the judgement
	Error     string        `json:"error,omitempty"`  // why there is no result

	lines []string // of the report on the dump
}

// errUnexpected is the error for runs that ended otherwise than they ought to; all is
// said already.
var errUnexpected = errors.New("what happened is not what was expected")

func (r *labRun) run(io stdio, args []string) error {
	if r.runs < 1 {
		return usageError{"lab run: -n takes a number from 1 on\nSee `inquest help lab run`."}
	}
	if r.matrix {
		return r.asMatrix().run(io, args)
	}
	r.io = io
	e, err := r.experiment(args[0])
	if err != nil {
		return labError("run", err)
	}
	ctx, stop := untilInterrupted()
	defer stop()
	r.steps = newSteps(io.err, r.quiet)
	results, err := r.all(ctx, e)
	r.steps.end()
	if err != nil && len(results) == 0 {
		return labError("run", err)
	}
	if printErr := r.print(results); err == nil {
		err = printErr
	}
	if err != nil {
		return labError("run", err)
	}
	for _, result := range results {
		if !result.Expected {
			return errUnexpected
		}
	}
	return nil
}

// asMatrix is the matrix that the flags ask for.
func (r *labRun) asMatrix() *labMatrix {
	m := &labMatrix{accel: r.accel, set: r.set, dir: r.dir, jobs: 1, memory: r.memory, keep: "small", json: r.json}
	if r.kernel != "" {
		m.kernels = []string{r.kernel}
	}
	if r.memory == 0 {
		m.memory = matrixMemory
	}
	if r.keep {
		m.keep = "all"
	}
	return m
}

// experiment is what the flags ask for, but the kernel and the folder.
func (r *labRun) experiment(name string) (lab.Experiment, error) {
	e := lab.Experiment{
		Accel: lab.Accel(r.accel), CPUs: r.cpus, MemoryMiB: r.memory, Append: strings.Fields(r.append),
		Unflatten: r.unflatten, Keep: r.keep, Timeout: r.timeout,
	}
	var err error
	if e.Scenario, err = lab.FindScenario(name); err != nil {
		return e, err
	}
	if e.Set, err = assignments(r.set); err != nil {
		return e, err
	}
	if e.Sysctls, err = assignments(r.sysctls); err != nil {
		return e, err
	}
	if _, err = lab.Expected(e.Scenario, e.Set); err != nil { // before half an hour goes into a kernel
		return e, err
	}
	for _, arguments := range r.kdumps {
		words := strings.Fields(arguments)
		e.Kdump = append(e.Kdump, lab.Save{File: dumpName(words), Arguments: words})
	}
	for _, format := range r.dumps {
		if format != "none" {
			e.QEMU = append(e.QEMU, format)
		}
	}
	if len(r.dumps)+len(r.kdumps) == 0 {
		e.QEMU = []string{lab.FormatELF}
	}
	e.Guest, err = ownProgram()
	return e, err
}

// dumpName is the file of a dump by the arguments of makedumpfile: "kdump-l-d31".
func dumpName(arguments []string) string {
	name := "kdump"
	for _, a := range arguments {
		if strings.HasPrefix(a, "-") {
			name += a
		} else {
			name += strings.Map(func(c rune) rune {
				if c >= '0' && c <= '9' || c >= 'a' && c <= 'z' {
					return c
				}
				return '_'
			}, strings.ToLower(a))
		}
	}
	if name == "kdump" {
		return "vmcore"
	}
	return name
}

// all runs the experiment as often as is asked for. One run that fails ends the row
// only if it is the first.
func (r *labRun) all(ctx context.Context, e lab.Experiment) ([]labResult, error) {
	kernel := r.kernel
	if kernel == "" {
		kernel = e.Scenario.Kernel
	}
	var err error
	if e.Kernel, err = lab.FindKernel(ctx, kernel, r.steps.begin); err != nil {
		return nil, err
	}
	dir, err := r.folder(e.Scenario.Name)
	if err != nil {
		return nil, err
	}
	var results []labResult
	for i := range r.runs {
		e.Dir, e.Progress = dir, r.steps.begin
		if r.runs > 1 {
			e.Dir = filepath.Join(dir, fmt.Sprintf("%03d", i+1))
			e.Progress = func(step string) { r.steps.begin(fmt.Sprintf("%d/%d: %s", i+1, r.runs, step)) }
		}
		result, err := r.once(ctx, e)
		if err != nil && (i == 0 || ctx.Err() != nil) {
			return results, err
		}
		if r.runs > 1 && !r.keep && result.Expected && result.Judgement == lab.Right {
			if err := result.dropDumps(); err != nil {
				return results, err
			}
		}
		results = append(results, result)
	}
	return results, nil
}

// dropDumps removes the dumps of a run that has nothing to tell.
func (l *labResult) dropDumps() error {
	for _, d := range l.Dumps {
		if err := os.Remove(d.Path); err != nil {
			return err
		}
	}
	l.Dumps = nil
	return nil
}

// folder returns the directory for the results: --dir, or one that is made.
func (r *labRun) folder(scenario string) (string, error) {
	if r.dir != "" {
		return r.dir, os.MkdirAll(r.dir, 0o755)
	}
	name := strings.ReplaceAll(scenario, "/", "-")
	for i := 1; ; i++ {
		dir := name + ".lab"
		if i > 1 {
			dir = fmt.Sprintf("%s-%d.lab", name, i)
		}
		err := os.Mkdir(dir, 0o755)
		if err == nil || !errors.Is(err, os.ErrExist) {
			return dir, err
		}
	}
}

// once runs the experiment, has its dump explained, and judges what is said.
func (r *labRun) once(ctx context.Context, e lab.Experiment) (labResult, error) {
	result, err := lab.Run(ctx, e)
	l := labResult{Result: result, Dir: e.Dir, Judgement: lab.NotJudged}
	if err != nil {
		l.Error, l.Judgement = err.Error(), lab.Failed
		return l, err
	}
	l.Expected = result.Expected()
	if len(result.Dumps) == 0 {
		return l, nil
	}
	r.steps.begin("explain " + filepath.Base(result.Dumps[0].Path))
	explained, err := explainDump(result.Dumps[0].Path, report.Style{Width: 100})
	if err != nil {
		l.Answer = &lab.Answer{Error: err.Error()}
	} else {
		l.Answer = &explained.answer
		l.lines = explained.text
	}
	l.Judgement, l.Reason = result.Truth.Judge(*l.Answer)
	return l, nil
}
