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

// Result is what came of a scenario. It lies in the scenario's directory too, as
// scenario.json.
type Result struct {
	Scenario string      `json:"scenario"`
	Crash    string      `json:"crash"`
	Truth    Truth       `json:"truth"`
	Accel    Accel       `json:"accel"`
	Guest    wire.Guest  `json:"guest"`   // the kernel that crashed, as it describes itself
	Crasher  *wire.Task  `json:"crasher"` // nil when nothing crashed
	Tasks    []wire.Task `json:"tasks"`   // threads of user mode that ran in it
	Console  string      `json:"console"` // path of what the console showed
	Ran      []Ran       `json:"ran,omitempty"`
	Dumps    []Dump      `json:"dumps"`
	Seconds  float64     `json:"seconds"` // that it took from the start of QEMU
}

// Ran is what came of a command that ran in the guest.
type Ran struct {
	Command string `json:"command"`
	Output  string `json:"output"` // standard output and standard error
	Error   string `json:"error,omitempty"`
}

// Dump is one dump of a scenario's guest.
type Dump struct {
	Path string `json:"path"`
	By   string `json:"by"` // "qemu" or "makedumpfile" or "kernel"
	How  string `json:"how"`
}

// resultFile is where a scenario's directory holds its Result.
const resultFile = "scenario.json"

// kvmBoot is how long a guest may take to boot under KVM before Run thinks that it
// never will.
const kvmBoot = 20 * time.Second

// errNotBooted is the error for a guest from which nothing was heard.
var errNotBooted = errors.New("the guest did not boot")

// Run boots the scenario's kernel, makes happen what it says, and dumps the machine.
// What it leaves in the scenario's directory is of use even when it fails: the
// console, above all.
//
// A /dev/kvm that can be opened need not run a guest. With Auto a guest that does not
// boot under KVM is booted again under TCG.
func Run(ctx context.Context, s Scenario) (Result, error) {
	s, err := s.validated()
	if err != nil {
		return Result{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, s.Timeout)
	defer cancel()
	if err := os.MkdirAll(s.Dir, 0o755); err != nil {
		return Result{}, err
	}
	work, err := os.MkdirTemp("", "inquest-lab-")
	if err != nil {
		return Result{}, err
	}
	defer os.RemoveAll(work)

	m, err := s.machine(ctx, work)
	if err != nil {
		return Result{}, fmt.Errorf("prepare %s: %w", s.Name, err)
	}
	accels := []Accel{s.Accel}
	if s.Accel == Auto {
		accels = []Accel{TCG}
		if offersKVM() == nil {
			accels = []Accel{KVM, TCG}
		}
	}
	var result Result
	for i := range accels {
		m.Accel = accels[i]
		result, err = s.run(ctx, m)
		if i == len(accels)-1 || !errors.Is(err, errNotBooted) || ctx.Err() != nil {
			break
		}
		s.Progress(fmt.Sprintf("no luck with %s (%v)", m.Accel, err))
	}
	if err != nil {
		return result, fmt.Errorf("run %s under %s: %w%s", s.Name, m.Accel, err, lastLines(m.Console, 8))
	}
	text, err := json.MarshalIndent(result, "", "  ")
	if err != nil {
		return result, err
	}
	return result, os.WriteFile(filepath.Join(s.Dir, resultFile), append(text, '\n'), 0o644)
}

// machine prepares all that the virtual machine is made of.
func (s *Scenario) machine(ctx context.Context, work string) (*Machine, error) {
	s.Progress("pack the guest")
	program := s.Guest
	if program == "" {
		program = filepath.Join(work, "guest")
		if err := BuildGuest(ctx, program); err != nil {
			return nil, err
		}
	}
	guest, err := os.ReadFile(program)
	if err != nil {
		return nil, err
	}
	image := &Initramfs{Guest: guest}
	if image.Modules, err = s.Kernel.LoadOrder(ctx, s.modules()...); err != nil {
		return nil, err
	}
	m := &Machine{
		CPUs: s.CPUs, MemoryMiB: s.MemoryMiB, VMCoreInfo: s.VMCoreInfo,
		Kernel: s.Kernel.Image, Append: s.commandLine(),
		Initrd:  filepath.Join(work, "initrd"),
		Console: filepath.Join(s.Dir, "console.log"),
		Report:  filepath.Join(s.Dir, "report.jsonl"),
	}
	for name, path := range s.Programs {
		if err := image.Add("bin/"+name, path); err != nil {
			return nil, err
		}
	}
	if len(s.Kdump) > 0 {
		if err := s.addCapture(ctx, image); err != nil {
			return nil, err
		}
		// A dump is never longer than memory and a bit. The file has holes.
		m.Disk = filepath.Join(work, "disk")
		size := int64(len(s.Kdump)) * int64(s.MemoryMiB+64) << 20
		if err := os.WriteFile(m.Disk, nil, 0o600); err != nil {
			return nil, err
		}
		if err := os.Truncate(m.Disk, size); err != nil {
			return nil, err
		}
	}
	var archive bytes.Buffer
	if err := image.Write(&archive); err != nil {
		return nil, err
	}
	return m, os.WriteFile(m.Initrd, archive.Bytes(), 0o600)
}

// addCapture puts the capture kernel and its own initramfs into the guest's.
func (s *Scenario) addCapture(ctx context.Context, image *Initramfs) error {
	capture := &Initramfs{Guest: image.Guest}
	var err error
	if capture.Modules, err = s.Kernel.LoadOrder(ctx, captureModules...); err != nil {
		return err
	}
	for _, save := range s.Kdump {
		if len(save.Arguments) > 0 {
			if err := capture.AddProgram("makedumpfile"); err != nil {
				return err
			}
			break
		}
	}
	var archive bytes.Buffer
	if err := capture.Write(&archive); err != nil {
		return err
	}
	if err := image.Add("boot/vmlinuz", s.Kernel.Image); err != nil {
		return err
	}
	image.Files["boot/initrd"] = archive.Bytes()
	return nil
}

// run runs the machine once.
func (s *Scenario) run(ctx context.Context, m *Machine) (r Result, err error) {
	start := time.Now()
	for _, old := range []string{m.Console, m.Report, filepath.Join(s.Dir, resultFile)} {
		if err := os.Remove(old); err != nil && !errors.Is(err, os.ErrNotExist) {
			return r, err
		}
	}
	s.Progress("boot " + s.Kernel.Release)
	vm, err := Start(ctx, m)
	if err != nil {
		return r, fmt.Errorf("%w: %w", errNotBooted, err)
	}
	defer vm.Close()

	r = Result{Scenario: s.Name, Crash: s.Crash, Truth: Crashes[s.Crash], Accel: m.Accel, Console: m.Console}
	up, err := vm.firstEvent(ctx, m.Accel)
	if err != nil {
		return r, err
	}
	if up.Guest != nil {
		r.Guest = *up.Guest
	}
	ready, err := vm.WaitEvent(ctx, wire.Ready)
	if err != nil {
		return r, err
	}
	r.Tasks = ready.Tasks
	for _, command := range s.Run {
		s.Progress("run " + strings.Join(command, " "))
		e, err := vm.WaitEvent(ctx, wire.Ran)
		if err != nil {
			return r, err
		}
		r.Ran = append(r.Ran, Ran{e.Way, e.Output, e.Error})
	}
	s.Progress("crash: " + s.Crash)
	crash, err := vm.WaitEvent(ctx, wire.Crash)
	if err != nil {
		return r, err
	}
	if r.Truth.Class != "" {
		r.Crasher = crash.Crasher
	}
	if len(s.Kdump) > 0 {
		r.Dumps, err = s.dumpInside(ctx, vm, m.Disk)
	} else {
		r.Dumps, err = s.dumpOutside(ctx, vm)
	}
	r.Seconds = time.Since(start).Seconds()
	return r, err
}

// firstEvent waits for the guest to be up, not too long where it may never be.
func (vm *VM) firstEvent(ctx context.Context, accel Accel) (wire.Event, error) {
	boot := ctx
	if accel == KVM {
		var cancel context.CancelFunc
		boot, cancel = context.WithTimeout(ctx, kvmBoot)
		defer cancel()
	}
	e, err := vm.WaitEvent(boot, wire.Up)
	var failed *GuestError
	if err != nil && !errors.As(err, &failed) {
		err = fmt.Errorf("%w: %w", errNotBooted, err)
	}
	return e, err
}

// endOfPanic is the last thing that a kernel says which stays where it panicked.
const endOfPanic = "---[ end Kernel panic"

func (s *Scenario) dumpOutside(ctx context.Context, vm *VM) ([]Dump, error) {
	if Crashes[s.Crash].Class != "" {
		if err := vm.WaitConsole(ctx, endOfPanic); err != nil {
			return nil, err
		}
	}
	if err := vm.Stop(ctx); err != nil {
		return nil, err
	}
	var dumps []Dump
	for _, format := range s.QEMU {
		s.Progress("dump " + format)
		path, err := filepath.Abs(filepath.Join(s.Dir, "qemu."+format))
		if err != nil {
			return dumps, err
		}
		if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) { // QEMU makes them read-only
			return dumps, err
		}
		if err := vm.Dump(ctx, format, path); err != nil {
			return dumps, err
		}
		dumps = append(dumps, Dump{Path: path, By: "qemu", How: format})
	}
	return dumps, nil
}

func (s *Scenario) dumpInside(ctx context.Context, vm *VM, disk string) ([]Dump, error) {
	s.Progress("boot the capture kernel")
	if _, err := vm.WaitEvent(ctx, wire.Up); err != nil {
		return nil, err
	}
	s.Progress("save the dump")
	done, err := vm.WaitEvent(ctx, wire.Done)
	if err != nil {
		return nil, err
	}
	return s.extract(disk, done.Bytes)
}

// extract takes the dumps from a capture kernel's disk, whose first size bytes are a
// zip archive.
func (s *Scenario) extract(disk string, size int64) ([]Dump, error) {
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
	for _, save := range s.Kdump {
		path := filepath.Join(s.Dir, save.File)
		if err := extractFile(archive, save.File, path); err != nil {
			return dumps, fmt.Errorf("take %s from the capture kernel's disk: %w", save.File, err)
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
