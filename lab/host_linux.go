package lab

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"

	"golang.org/x/sys/unix"
)

// dieWithParent has the kernel kill a process as soon as this one is gone, however it
// went. (The signal is tied to the thread that starts the process, not to its
// process; the Go runtime keeps its threads.)
func dieWithParent(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
}

// endWithChildren has the end of a program's context end what it started, too: make and
// its compilers.
func endWithChildren(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
}

// offersKVM says whether /dev/kvm makes virtual machines, or why it does not. That a
// guest runs in them is not certain: some hosts of nested guests offer half of it.
func offersKVM() error {
	const (
		getAPIVersion = 0xae00 // KVM_GET_API_VERSION
		createVM      = 0xae01 // KVM_CREATE_VM
		apiVersion    = 12
	)
	f, err := os.OpenFile("/dev/kvm", os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	version, err := unix.IoctlRetInt(int(f.Fd()), getAPIVersion)
	if err != nil {
		return fmt.Errorf("KVM_GET_API_VERSION: %w", err)
	}
	if version != apiVersion {
		return errors.New("/dev/kvm has an unknown version")
	}
	vm, err := unix.IoctlRetInt(int(f.Fd()), createVM)
	if err != nil {
		return fmt.Errorf("KVM_CREATE_VM: %w", err)
	}
	return unix.Close(vm)
}
