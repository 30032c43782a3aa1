package lab

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// Scenario is something to happen in a guest, and how to dump it. Zero values of the
// numbers, of Accel and of CrashKernel stand for what suits most.
type Scenario struct {
	Name        string
	Crash       string            // a key of Crashes
	Kernel      *Kernel           // to boot
	Dir         string            // that the results go to; it is made if need be
	Accel       Accel             // Auto
	CPUs        int               // 2
	MemoryMiB   int               // 512
	Sysctls     map[string]string // set before the crash, by name: "kernel.panic_on_oops"
	Modules     []string          // loaded besides what the scenario itself needs
	VMCoreInfo  bool              // the machine has a vmcoreinfo device, so that QEMU's dumps have the note
	QEMU        []string          // dumps from outside, by format of dump-guest-memory
	Kdump       []Save            // dumps from inside, by a capture kernel; excludes QEMU
	CrashKernel string            // "160M": memory for the capture kernel; in one piece, so have thrice as much
	Programs    map[string]string // static programs of the host to put into the guest's /bin, by name there
	Run         [][]string        // commands of the guest to run before the crash, one after the other
	Guest       string            // path of the compiled inquest/lab/guest; compiled when empty
	Timeout     time.Duration     // 5 minutes

	// Progress, if set, hears of each step as it begins.
	Progress func(step string)
}

// Save is a dump that the capture kernel makes.
type Save struct {
	File      string   // its name
	Arguments []string // of makedumpfile, which adds -F: "-z", "-d", "31"; without any, /proc/vmcore is copied
}

// Truth is what really happened in a crash: what an explanation of the dump ought to say.
type Truth struct {
	Class   string `json:"class"`   // as in package explain; "" when nothing crashed
	Culprit string `json:"culprit"` // the function to blame
}

// Crashes are the ways for a guest to crash, by what its init calls them (lab.crash=).
var Crashes = map[string]Truth{
	"none":  {},
	"sysrq": {Class: "user-panic", Culprit: "sysrq_handle_crash"},
}

// ErrScenario is the error for a scenario that contradicts itself.
var ErrScenario = errors.New("invalid scenario")

// validated returns the scenario with its defaults filled in.
func (s Scenario) validated() (Scenario, error) {
	if s.CPUs == 0 {
		s.CPUs = 2
	}
	if s.MemoryMiB == 0 {
		s.MemoryMiB = 512
	}
	if s.CrashKernel == "" {
		s.CrashKernel = "160M"
	}
	if s.Timeout == 0 {
		s.Timeout = 5 * time.Minute
	}
	if s.Progress == nil {
		s.Progress = func(string) {}
	}
	_, known := Crashes[s.Crash]
	problem := ""
	switch {
	case s.Kernel == nil:
		problem = "no kernel"
	case s.Dir == "":
		problem = "no directory for the results"
	case !known:
		problem = fmt.Sprintf("unknown crash %q: expected one of %s", s.Crash,
			strings.Join(slices.Sorted(maps.Keys(Crashes)), ", "))
	case len(s.Kdump) > 0 && len(s.QEMU) > 0:
		problem = "dumps from outside and by kdump exclude each other: the capture kernel overwrites the machine"
	case len(s.Kdump) > 0 && s.Crash == "none":
		problem = "kdump needs a crash"
	case s.CPUs < 0 || s.MemoryMiB < 0:
		problem = "a negative size"
	}
	for _, save := range s.Kdump {
		if !safeName(save.File) {
			problem = fmt.Sprintf("bad name of a dump: %q", save.File)
		}
		for _, a := range save.Arguments {
			if strings.ContainsAny(a, ", \t\n\"") {
				problem = fmt.Sprintf("argument %q of makedumpfile does not fit on a kernel command line", a)
			}
		}
	}
	for _, command := range s.Run {
		for _, word := range command {
			if strings.ContainsAny(word, ", \t\n\"") {
				problem = fmt.Sprintf("word %q of a command does not fit on a kernel command line", word)
			}
		}
	}
	for key, value := range s.Sysctls {
		if strings.ContainsAny(key+value, " \t\n\"") {
			problem = fmt.Sprintf("sysctl %q does not fit on a kernel command line", key)
		}
	}
	if problem != "" {
		return s, fmt.Errorf("%w %s: %s", ErrScenario, s.Name, problem)
	}
	return s, nil
}

// safeName reports whether a guest may name a file so: without directories, and
// without what a kernel command line or the guest's init gives a meaning.
func safeName(name string) bool {
	return name != "" && name[0] != '.' && strings.IndexFunc(name, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("._-+", r))
	}) < 0
}

// commandLine is what the guest's kernel and init are told.
func (s *Scenario) commandLine() string {
	words := []string{"console=ttyS0", "ignore_loglevel"} // the console is to have all that the log has
	if len(s.Kdump) > 0 {
		// Where no capture kernel takes over the machine resets, and QEMU ends.
		words = append(words, "panic=-1", "crashkernel="+s.CrashKernel)
	} else {
		words = append(words, "panic=0")
	}
	for _, key := range slices.Sorted(maps.Keys(s.Sysctls)) {
		words = append(words, "lab.sysctl="+key+"="+s.Sysctls[key])
	}
	for _, save := range s.Kdump {
		word := "lab.save=" + save.File
		if len(save.Arguments) > 0 {
			word += ":" + strings.Join(save.Arguments, ",")
		}
		words = append(words, word)
	}
	for _, command := range s.Run {
		words = append(words, "lab.run="+strings.Join(command, ","))
	}
	return strings.Join(append(words, "lab.crash="+s.Crash), " ")
}

// modules are what the guest loads.
func (s *Scenario) modules() []string {
	names := slices.Clone(s.Modules)
	if s.VMCoreInfo {
		names = append(names, "qemu_fw_cfg") // hands VMCOREINFO to QEMU
	}
	return names
}

// captureModules are what the capture kernel needs for its disk.
var captureModules = []string{"virtio_pci", "virtio_blk"}
