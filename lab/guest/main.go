//go:build linux

// Command guest is the only program in a lab guest's initramfs. As init it brings
// the machine up, starts tasks for a dump to show, and crashes the kernel the way the
// kernel command line asks for; as init of a kdump capture kernel it saves
// /proc/vmcore to the first virtio disk and turns the machine off.
//
// Kernel command line:
//
//	lab.crash=sysrq              write c to /proc/sysrq-trigger
//	lab.crash=none               stay alive, all CPUs running
//	lab.sysctl=KEY=VALUE         set /proc/sys/KEY (dots or slashes); may be repeated
//	lab.run=PROGRAM,ARG,...      run a program before the crash; may be repeated
//	lab.save=FILE                have kdump copy /proc/vmcore to FILE; may be repeated
//	lab.save=FILE:ARG,ARG,...    the same by makedumpfile with these arguments
//
// With lab.save the capture kernel /boot/vmlinuz and its /boot/initrd are loaded
// before the crash, which takes crashkernel= on the command line too.
//
// Reports go to the second serial port as events of package wire. A step that fails
// is reported, and ends the guest.
package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"

	"inquest/lab/guest/wire"
)

// The main goroutine stays on the thread that is PID 1, so that it is init that crashes.
func init() { runtime.LockOSThread() }

func main() {
	if os.Getpid() != 1 {
		work(filepath.Base(os.Args[0]))
		return
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
	for _, way := range words["lab.crash"] {
		report(wire.Event{Kind: wire.Crash, Way: way, Crasher: &tasks[0]})
		check("crash", crash(way))
	}
	sleepForever()
}

// run runs a command and says what came of it.
func run(command []string) wire.Event {
	const most = 256 << 10 // of output: the serial port is slow
	cmd := exec.Command(command[0], command[1:]...)
	out, err := cmd.CombinedOutput()
	e := wire.Event{Kind: wire.Ran, Way: strings.Join(command, " "), Output: string(out[:min(len(out), most)])}
	if err != nil {
		e.Error = err.Error()
	}
	return e
}

// crash makes the crash happen. It returns only when that did not work, or when
// there is nothing to do.
func crash(way string) error {
	switch way {
	case "none":
		return nil
	case "sysrq":
		if err := os.WriteFile("/proc/sysrq-trigger", []byte("c"), 0); err != nil {
			return err
		}
		return fmt.Errorf("the machine survived sysrq c")
	}
	return fmt.Errorf("unknown way lab.crash=%s", way)
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

// channel is where events go: the console until openReport has found better.
var channel = os.Stdout

func openReport() error {
	f, err := os.OpenFile("/dev/ttyS1", os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	channel = f
	return nil
}

// report sends one event, and waits until it has left the machine: the next step
// may be the last.
func report(e wire.Event) {
	channel.Write(e.Line())
	unix.IoctlSetInt(int(channel.Fd()), unix.TCSBRK, 1) // tcdrain(3)
}

// check ends the guest if a step failed.
func check(step string, err error) {
	if err == nil {
		return
	}
	fmt.Printf("guest: %s: %v\n", step, err)
	report(wire.Event{Kind: wire.Failed, Step: step, Error: err.Error()})
	unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
	sleepForever()
}
