package lab

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"inquest/lab/guest/wire"
)

// Experiment is a scenario to be run: in which kernel and machine, and how to dump
// it. Zero values of numbers and of Accel stand for what the scenario wants.
type Experiment struct {
	Scenario *Scenario
	Set      map[string]string // options of the scenario that are not to have their defaults
	Kernel   *Kernel           // to boot
	Dir      string            // that the results go to; it is made if need be

	Accel     Accel             // Auto
	CPUs      int               // the scenario's, or 2
	MemoryMiB int               // the scenario's, or 512
	Sysctls   map[string]string // besides the scenario's, or in place of them
	Modules   []string          // loaded besides the scenario's
	Append    []string          // words for the kernel's command line, behind the scenario's

	QEMU         []string // dumps from outside, by format of dump-guest-memory
	NoVMCoreInfo bool     // leave out the vmcoreinfo device, so that QEMU's dumps lack the note
	Kdump        []Save   // dumps from inside, by a capture kernel; excludes QEMU, which dumps if there is no panic
	Unflatten    bool     // write flattened dumps anew, as the files that they stand for
	CrashKernel  string   // "160M": memory for the capture kernel; in one piece, so have thrice as much

	Programs map[string]string // programs of the host to put into the guest's /bin, by name there
	Run      [][]string        // commands of the guest to run before the scenario, one after the other
	Guest    string            // program that is the guest's init: see package guest; "" compiles it, which takes Go and this module
	Keep     bool              // keep what the machine is made of, too, and a script that boots it
	Timeout  time.Duration     // in place of the scenario's Patience

	// Progress, if set, hears of each step as it begins.
	Progress func(step string)

	options map[string]string // all of the scenario's
	facts   *facts
}

// Save is a dump that the capture kernel makes.
type Save struct {
	File      string   // its name
	Arguments []string // of makedumpfile, which adds -F: "-z", "-d", "31"; without any, /proc/vmcore is copied
}

// Fact is something that a run found out about itself.
type Fact struct {
	Key   string `json:"key"`
	Value any    `json:"value"` // as JSON has it; addresses are text
}

// facts may be told by the guest and by the host's part of a scenario at once.
type facts struct {
	mu   sync.Mutex
	list []Fact
}

// Option is the value of one of the scenario's options.
func (e *Experiment) Option(key string) string { return e.options[key] }

// Tell notes a fact.
func (e *Experiment) Tell(key string, value any) {
	e.facts.mu.Lock()
	defer e.facts.mu.Unlock()
	e.facts.list = append(e.facts.list, Fact{key, value})
}

// Fact returns the latest value of a fact; nil if nobody told it.
func (e *Experiment) Fact(key string) any { return latest(e.Facts(), key) }

// Facts returns what was told so far, in order.
func (e *Experiment) Facts() []Fact {
	e.facts.mu.Lock()
	defer e.facts.mu.Unlock()
	return slices.Clone(e.facts.list)
}

func latest(list []Fact, key string) any {
	for _, f := range slices.Backward(list) {
		if f.Key == key {
			return f.Value
		}
	}
	return nil
}

// ErrExperiment is the error for an experiment that contradicts itself.
var ErrExperiment = errors.New("invalid experiment")

// validated returns the experiment with its defaults filled in.
func (e Experiment) validated() (*Experiment, error) {
	if e.Scenario == nil {
		return nil, fmt.Errorf("%w: no scenario", ErrExperiment)
	}
	s := e.Scenario
	e.CPUs = firstOf(e.CPUs, s.CPUs, 2)
	e.MemoryMiB = firstOf(e.MemoryMiB, s.MemoryMiB, 512)
	e.Timeout = firstOf(e.Timeout, s.Patience, 2*time.Minute)
	e.CrashKernel = firstOf(e.CrashKernel, "160M")
	if e.Progress == nil {
		e.Progress = func(string) {}
	}
	e.facts = &facts{}
	var err error
	if e.options, err = s.options(e.Set); err != nil {
		return nil, fmt.Errorf("%w %s: %w", ErrExperiment, s.Name, err)
	}
	if problem := e.problem(); problem != "" {
		return nil, fmt.Errorf("%w %s: %s", ErrExperiment, s.Name, problem)
	}
	return &e, nil
}

// firstOf returns the first value that is not zero.
func firstOf[T comparable](values ...T) T {
	var zero T
	for _, v := range values {
		if v != zero {
			return v
		}
	}
	return zero
}

// problem says what is wrong with an experiment; "" if nothing is.
func (e *Experiment) problem() string {
	const space = " \t\n\""
	switch {
	case e.Kernel == nil:
		return "no kernel"
	case e.Dir == "":
		return "no directory for the results"
	case len(e.Kdump) > 0 && len(e.QEMU) > 0:
		return "dumps from outside and by kdump exclude each other: the capture kernel overwrites the machine"
	case e.CPUs < 0 || e.MemoryMiB < 0:
		return "a negative size"
	}
	for i, save := range e.Kdump {
		if !safeName(save.File) || slices.ContainsFunc(e.Kdump[:i], func(s Save) bool { return s.File == save.File }) {
			return fmt.Sprintf("bad name of a dump: %q", save.File)
		}
		for _, a := range save.Arguments {
			if strings.ContainsAny(a, ","+space) {
				return fmt.Sprintf("argument %q of makedumpfile does not fit on a kernel command line", a)
			}
		}
	}
	for _, format := range e.QEMU {
		if !safeName(format) {
			return fmt.Sprintf("bad format of a dump: %q", format)
		}
	}
	for _, command := range e.Run {
		for _, word := range command {
			if strings.ContainsAny(word, ","+space) {
				return fmt.Sprintf("word %q of a command does not fit on a kernel command line", word)
			}
		}
	}
	for key, value := range e.sysctls() {
		if strings.ContainsAny(key+value, space) {
			return fmt.Sprintf("sysctl %q does not fit on a kernel command line", key)
		}
	}
	for key, value := range e.options {
		if strings.ContainsAny(key+value, space) {
			return fmt.Sprintf("option %q does not fit on a kernel command line", key)
		}
	}
	return ""
}

// safeName reports whether a guest may name a file so: without directories, and
// without what a kernel command line or the guest's init gives a meaning.
func safeName(name string) bool {
	return name != "" && name[0] != '.' && strings.IndexFunc(name, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("._-+", r))
	}) < 0
}

// sysctls are the scenario's and the experiment's own.
func (e *Experiment) sysctls() map[string]string {
	all := maps.Clone(e.Scenario.Sysctls)
	if all == nil {
		all = make(map[string]string)
	}
	maps.Copy(all, e.Sysctls)
	return all
}

// commandLine is what the guest's kernel and init are told.
func (e *Experiment) commandLine() string {
	// The console is to have all that the log has. Timers of a guest on a busy host fail the
	// check whether they tick.
	words := []string{"console=ttyS0", "ignore_loglevel", "no_timer_check"}
	if len(e.Kdump) > 0 {
		// Where no capture kernel takes over the machine resets, and QEMU ends.
		words = append(words, "panic=-1", "crashkernel="+e.CrashKernel)
	} else {
		words = append(words, "panic=0")
	}
	words = slices.Concat(words, e.Scenario.Append, e.Append)
	assign := func(word string, values map[string]string) {
		for _, key := range slices.Sorted(maps.Keys(values)) {
			words = append(words, word+"="+key+"="+values[key])
		}
	}
	assign("lab.sysctl", e.sysctls())
	for _, save := range e.Kdump {
		word := "lab.save=" + save.File
		if len(save.Arguments) > 0 {
			word += ":" + strings.Join(save.Arguments, ",")
		}
		words = append(words, word)
	}
	for _, command := range e.Run {
		words = append(words, "lab.run="+strings.Join(command, ","))
	}
	assign("lab.set", e.options)
	return strings.Join(append(words, "lab.scenario="+e.Scenario.Name), " ")
}

// vmcoreinfoModule hands VMCOREINFO to QEMU.
const vmcoreinfoModule = "qemu_fw_cfg"

// modules are what the guest loads.
func (e *Experiment) modules() ([]string, error) {
	names := slices.Concat(e.Scenario.Modules, e.Modules)
	if e.NoVMCoreInfo || e.Kernel.Modules == "" {
		return names, nil
	}
	has, err := e.Kernel.has(vmcoreinfoModule) // else the note is missed, but nothing else
	if has {
		names = append(names, vmcoreinfoModule)
	}
	return names, err
}

// captureModules are what the capture kernel needs for its disk.
var captureModules = []string{"virtio_pci", "virtio_blk"}

// Result is what came of an experiment. It lies in the experiment's directory too, as
// scenario.json.
type Result struct {
	Scenario string            `json:"scenario"`
	Doc      string            `json:"doc"`
	Options  map[string]string `json:"options"`
	Kernel   string            `json:"kernel"` // the name it was found by, or its release
	Accel    Accel             `json:"accel"`
	CPUs     int               `json:"cpus"`
	Memory   int               `json:"memory_mib"`
	Guest    wire.Guest        `json:"guest"` // the kernel that ran, as it describes itself
	Truth    Truth             `json:"truth"` // what ought to happen
	Outcome  Outcome           `json:"outcome"`
	Crasher  *wire.Task        `json:"crasher,omitempty"` // nil when nothing crashed
	Steps    []string          `json:"steps,omitempty"`
	Facts    []Fact            `json:"facts,omitempty"`
	Warnings []string          `json:"warnings,omitempty"` // of the kernel: what it says first of each
	Tasks    []wire.Task       `json:"tasks"`              // threads of user mode that ran in it
	Ran      []Ran             `json:"ran,omitempty"`
	Console  string            `json:"console"` // path of what the console showed
	Dumps    []Dump            `json:"dumps,omitempty"`
	Seconds  float64           `json:"seconds"` // that it took from the start of QEMU
}

// Expected reports whether the outcome is the one that was to be expected.
func (r *Result) Expected() bool { return r.Truth.Outcome == "" || r.Outcome == r.Truth.Outcome }

// Fact returns the latest value of a fact; nil if nobody told it.
func (r *Result) Fact(key string) any { return latest(r.Facts, key) }

// Ran is what came of a command that ran in the guest.
type Ran struct {
	Command string `json:"command"`
	Output  string `json:"output"` // standard output and standard error
	Error   string `json:"error,omitempty"`
}

// Dump is one dump of an experiment's guest.
type Dump struct {
	Path string `json:"path"`
	By   string `json:"by"` // "qemu" or "makedumpfile" or "kernel"
	How  string `json:"how"`
}
