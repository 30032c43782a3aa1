package lab

import (
	"archive/zip"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"inquest/lab/guest/wire"
)

// resultFile is where an experiment's directory holds its Result.
const resultFile = "scenario.json"

// How long a guest may take to boot before Run thinks that it never will.
const (
	bootByKVM = 20 * time.Second
	bootByTCG = 3 * time.Minute
)

// errNotBooted is the error for a guest from which nothing was heard.
var errNotBooted = errors.New("the guest did not boot")

// Run boots the experiment's kernel, makes happen what the scenario says, and dumps
// the machine. What it leaves in the experiment's directory is of use even when it
// fails: the console, above all. That the outcome is not the expected one is no error.
//
// A /dev/kvm that can be opened need not run a guest. With Auto a guest that does not
// boot under KVM is booted again under TCG.
func Run(ctx context.Context, experiment Experiment) (Result, error) {
	e, err := experiment.validated()
	if err != nil {
		return Result{}, err
	}
	work, leave, err := e.workspace(ctx)
	if err != nil {
		return Result{}, fmt.Errorf("prepare %s: %w", e.Scenario.Name, err)
	}
	defer leave()
	m, err := e.machine(ctx, work)
	if err != nil {
		return Result{}, fmt.Errorf("prepare %s: %w", e.Scenario.Name, err)
	}
	accels := []Accel{e.Accel}
	if e.Accel == Auto {
		accels = []Accel{TCG}
		if offersKVM() == nil {
			accels = []Accel{KVM, TCG}
		}
	}
	var result Result
	for i := range accels {
		m.Accel = accels[i]
		result, err = e.run(ctx, m)
		if i == len(accels)-1 || !errors.Is(err, errNotBooted) || ctx.Err() != nil {
			break
		}
		e.Progress(fmt.Sprintf("no luck with %s (%s)", m.Accel, lastLine(err)))
	}
	if e.Keep {
		err = errors.Join(err, m.keepScript(work))
	}
	if err != nil {
		return result, fmt.Errorf("run %s under %s: %w%s", e.Scenario.Name, m.Accel, err, lastLines(m.Console, 8))
	}
	if len(result.Dumps) > 0 {
		if err := keepVMCoreInfo(result.Dumps[0].Path, filepath.Join(e.Dir, vmcoreinfoFile)); err != nil {
			e.Progress(fmt.Sprintf("no VMCOREINFO (%v)", err))
		}
	}
	text, err := json.MarshalIndent(result, "", "  ")
	if err != nil {
		return result, err
	}
	return result, os.WriteFile(filepath.Join(e.Dir, resultFile), append(text, '\n'), 0o644)
}

// run runs the machine once.
func (e *Experiment) run(ctx context.Context, m *Machine) (r Result, err error) {
	start := time.Now()
	for _, old := range []string{m.Console, m.Report, filepath.Join(e.Dir, resultFile), filepath.Join(e.Dir, vmcoreinfoFile)} {
		if err := os.Remove(old); err != nil && !errors.Is(err, os.ErrNotExist) {
			return r, err
		}
	}
	r = Result{
		Scenario: e.Scenario.Name, Doc: e.Scenario.Doc, Options: e.options, Kernel: firstOf(e.Kernel.Name, e.Kernel.Release),
		Accel: m.Accel, CPUs: m.CPUs, Memory: m.MemoryMiB, Console: m.Console,
	}
	e.Progress("boot " + e.Kernel.String())
	vm, err := Start(ctx, m)
	if err != nil {
		return r, fmt.Errorf("%w: %w", errNotBooted, err)
	}
	defer vm.Close()
	t := &trial{Experiment: e, vm: vm, events: vm.Events(), result: &r}
	if err := t.boot(ctx); err != nil {
		return r, err
	}
	for _, command := range e.Run {
		e.Progress("run " + strings.Join(command, " "))
		ran, err := t.events.Wait(ctx, wire.Ran)
		if err != nil {
			return r, err
		}
		r.Ran = append(r.Ran, Ran{ran.Name, ran.Output, ran.Error})
	}
	e.Progress("scenario " + e.Scenario.Name)
	if err := t.play(ctx); err != nil {
		return r, err
	}
	if r.Outcome == Panicked && len(e.Kdump) > 0 {
		r.Dumps, err = t.dumpInside(ctx, m.Disk)
	} else {
		r.Dumps, err = t.dumpOutside(ctx)
	}
	if err != nil {
		return r, err
	}
	r.Seconds = time.Since(start).Seconds()
	return r, t.conclude()
}

// extract takes the dumps from a capture kernel's disk, whose first size bytes are a
// zip archive.
func (e *Experiment) extract(disk string, size int64) ([]Dump, error) {
	f, err := os.Open(disk)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	archive, err := zip.NewReader(io.NewSectionReader(f, 0, size), size)
	if err != nil {
		return nil, fmt.Errorf("read the capture kernel's disk: %w", err)
	}
	var dumps []Dump
	for _, save := range e.Kdump {
		path := filepath.Join(e.Dir, save.File)
		if err := extractFile(archive, save.File, path); err != nil {
			return dumps, fmt.Errorf("take %s from the capture kernel's disk: %w", save.File, err)
		}
		if e.Unflatten && len(save.Arguments) > 0 {
			if err := unflatten(path); err != nil {
				return dumps, err
			}
		}
		d := Dump{Path: path, By: "kernel", How: "/proc/vmcore"}
		if len(save.Arguments) > 0 {
			d.By, d.How = "makedumpfile", fmt.Sprint(save.Arguments)
		}
		dumps = append(dumps, d)
	}
	return dumps, nil
}

func extractFile(archive *zip.Reader, name, path string) error {
	in, err := archive.Open(name)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.Create(path)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}

// lastLine is the end of an error, which is what QEMU complains of.
func lastLine(err error) string {
	text := strings.TrimSpace(err.Error())
	return text[strings.LastIndexByte(text, '\n')+1:]
}

// lastLines returns the end of a console, to be shown with an error.
func lastLines(path string, n int) string {
	text, err := os.ReadFile(path)
	if err != nil || len(text) == 0 {
		return ""
	}
	lines := bytes.Split(bytes.TrimSpace(text), []byte("\n"))
	lines = lines[max(0, len(lines)-n):]
	return "; the console ends with:\n" + string(bytes.Join(lines, []byte("\n")))
}
