//go:build linux

// Package guest is what runs inside of a lab's virtual machine: the only program in
// its initramfs. As init it brings the machine up, starts tasks for a dump to show,
// and has its part of a scenario happen; as init of a kdump capture kernel it saves
// /proc/vmcore to the first virtio disk and turns the machine off.
//
// A scenario's part in the guest is one function of a [story], which the table
// stories names.
//
// Kernel command line:
//
//	lab.scenario=NAME            what is to happen
//	lab.set=KEY=VALUE            an option of the scenario; may be repeated
//	lab.sysctl=KEY=VALUE         set /proc/sys/KEY (dots or slashes); may be repeated
//	lab.run=PROGRAM,ARG,...      run a program before the scenario; may be repeated
//	lab.save=FILE                have kdump copy /proc/vmcore to FILE; may be repeated
//	lab.save=FILE:ARG,ARG,...    the same by makedumpfile with these arguments
//
// With lab.save the capture kernel /boot/vmlinuz and its /boot/initrd are loaded
// before the scenario, which takes crashkernel= on the command line too.
//
// Reports go to the second serial port as events of package wire. A step that fails
// is reported, and ends the guest.
package guest

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"inquest/lab/guest/wire"
)

// Called reports whether this process is one of a guest's: its init, or one of those
// that init starts. A program that is to be a guest's init asks before all else, and
// calls Main then.
func Called() bool {
	return os.Getpid() == 1 && os.Args[0] == "/init" || slices.Contains(wire.Processes, filepath.Base(os.Args[0]))
}

// The main goroutine stays on the thread that is PID 1, so that it is init that crashes.
func init() {
	if Called() {
		runtime.LockOSThread()
	}
}

// Main is the life of such a process. It does not return.
func Main() {
	if os.Getpid() != 1 {
		work(filepath.Base(os.Args[0]))
	}
	check("mount", mountAll())
	words, err := readCommandLine()
	check("read the command line", err)
	check("load modules", loadModules("/modules/order"))
	check("open the report", openReport())
	_, err = os.Stat("/proc/vmcore")
	capturing := err == nil
	guest, err := describe()
	check("describe the kernel", err)
	guest.Capture = capturing
	report(wire.Event{Kind: wire.Up, Guest: &guest})

	if capturing {
		check("save the dump", capture("/dev/vda", words["lab.save"]))
		check("power off", unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF))
	}
	for _, assignment := range words["lab.sysctl"] {
		check("set sysctl", setSysctl(assignment))
	}
	if saves := words["lab.save"]; len(saves) > 0 {
		check("load the capture kernel", loadCaptureKernel("/boot/vmlinuz", "/boot/initrd", saves))
	}
	tasks, err := startTasks()
	check("start tasks", err)
	report(wire.Event{Kind: wire.Ready, Tasks: tasks})
	for _, command := range words["lab.run"] {
		report(run(strings.Split(command, ",")))
	}
	for _, name := range words["lab.scenario"] {
		s := newStory(name, words["lab.set"])
		report(wire.Event{Kind: wire.Begin, Name: name, Task: &tasks[0]})
		check("scenario "+name, s.tell())
		report(wire.Event{Kind: wire.Ended})
	}
	sleepForever()
}

// run runs a command and says what came of it.
func run(command []string) wire.Event {
	const most = 256 << 10 // of output: the serial port is slow
	cmd := exec.Command(command[0], command[1:]...)
	out, err := cmd.CombinedOutput()
	e := wire.Event{Kind: wire.Ran, Name: strings.Join(command, " "), Output: string(out[:min(len(out), most)])}
	if err != nil {
		e.Error = err.Error()
	}
	return e
}

// readCommandLine returns the values of each word of the kernel command line, in order.
func readCommandLine() (map[string][]string, error) {
	text, err := os.ReadFile("/proc/cmdline")
	if err != nil {
		return nil, err
	}
	words := make(map[string][]string)
	for _, word := range strings.Fields(string(text)) {
		key, value, _ := strings.Cut(word, "=")
		words[key] = append(words[key], value)
	}
	return words, nil
}

// check ends the guest if a step failed.
func check(step string, err error) {
	if err == nil {
		return
	}
	fmt.Printf("guest: %s: %v\n", step, err)
	report(wire.Event{Kind: wire.Failed, Text: step, Error: err.Error()})
	unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
	sleepForever()
}
