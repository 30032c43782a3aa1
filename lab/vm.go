package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Machine is a virtual machine to be started. Everything in it is a path, a number
// or a word for QEMU.
type Machine struct {
	Accel      Accel  // KVM or TCG
	CPUs       int    // 1 or more
	MemoryMiB  int    // of RAM
	Kernel     string // bzImage
	Initrd     string
	Append     string // kernel command line
	VMCoreInfo bool   // has the device that takes VMCOREINFO from the guest, for dump-guest-memory
	Disk       string // raw image of a virtio disk; "" for none
	Console    string // file that the first serial port is written to
	Report     string // file that keeps what the guest sends over the second serial port
}

// The file descriptors at which QEMU finds its ends of sockets: the first ones after
// standard error.
const (
	qmpFD    = 3 // the monitor
	reportFD = 4 // the second serial port
)

// Args returns QEMU's arguments.
func (m *Machine) Args() []string {
	// TCG's CPU "max" has 5-level page tables, which few machines use yet. After cmpxchg16b,
	// which SLUB uses where there is one, QEMU 7.2 may return to garbage flags: 6.12 dies of that.
	cpu := "max,la57=off,cx16=off"
	if m.Accel == KVM {
		cpu = "host"
	}
	args := []string{
		"-name", "inquest-lab",
		"-no-user-config", "-nodefaults", "-display", "none", "-no-reboot",
		"-machine", "q35", "-accel", string(m.Accel), "-cpu", cpu,
		"-smp", strconv.Itoa(m.CPUs), "-m", strconv.Itoa(m.MemoryMiB) + "M",
		"-kernel", m.Kernel, "-initrd", m.Initrd, "-append", m.Append,
		"-serial", "file:" + m.Console,
		"-chardev", "socket,id=report,fd=" + strconv.Itoa(reportFD),
		"-serial", "chardev:report",
		"-chardev", "socket,id=qmp,fd=" + strconv.Itoa(qmpFD),
		"-mon", "chardev=qmp,mode=control",
	}
	if m.VMCoreInfo {
		args = append(args, "-device", "vmcoreinfo")
	}
	if m.Disk != "" {
		args = append(args,
			"-drive", "if=none,id=disk,format=raw,cache=unsafe,file="+escape(m.Disk),
			"-device", "virtio-blk-pci,drive=disk")
	}
	return args
}

// escape protects the commas of a path from QEMU's option parser.
func escape(path string) string { return strings.ReplaceAll(path, ",", ",,") }

// VM is a running virtual machine. It ends at the latest when Close is called, when
// the context of Start ends, or when this process does.
type VM struct {
	QMP     *QMP
	console string // path
	report  *report
	cancel  context.CancelFunc
	ended   chan struct{} // closed when QEMU is gone; err is set then
	err     error
}

// ErrEnded is the error for a machine that is off when it ought to run.
var ErrEnded = errors.New("the virtual machine ended")

// Start starts a machine and connects to its monitor.
func Start(ctx context.Context, m *Machine) (*VM, error) {
	program, err := findTool("qemu-system-x86_64")
	if err != nil {
		return nil, err
	}
	monitor, monitorEnd, err := socketPair("qmp")
	if err != nil {
		return nil, err
	}
	serial, serialEnd, err := socketPair("report")
	if err != nil {
		monitor.Close()
		monitorEnd.Close()
		return nil, err
	}
	report, err := newReport(serial, m.Report)
	if err != nil {
		monitor.Close()
		monitorEnd.Close()
		serialEnd.Close()
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	cmd := exec.CommandContext(ctx, program, m.Args()...)
	cmd.ExtraFiles = []*os.File{monitorEnd, serialEnd} // become qmpFD and reportFD
	var complaint bytes.Buffer
	cmd.Stderr = &complaint
	cmd.WaitDelay = 5 * time.Second
	dieWithParent(cmd)
	err = cmd.Start()
	monitorEnd.Close() // or their ends would stay open when QEMU's are not
	serialEnd.Close()
	if err != nil {
		cancel()
		monitor.Close()
		report.Close()
		return nil, err
	}
	vm := &VM{
		console: m.Console,
		report:  report,
		cancel:  cancel,
		ended:   make(chan struct{}),
	}
	go func() {
		vm.err = ErrEnded
		if err := cmd.Wait(); err != nil {
			vm.err = fmt.Errorf("%w: %w: %s", ErrEnded, err, bytes.TrimSpace(complaint.Bytes()))
		}
		close(vm.ended)
	}()
	if vm.QMP, err = NewQMP(ctx, monitor); err != nil {
		vm.Close()
		return nil, errors.Join(err, vm.err)
	}
	return vm, nil
}

// socketPair returns the two ends of a connection: ours, and QEMU's.
func socketPair(name string) (net.Conn, *os.File, error) {
	syscall.ForkLock.RLock() // or a program that is started meanwhile inherits them
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM, 0)
	if err == nil {
		syscall.CloseOnExec(fds[0])
		syscall.CloseOnExec(fds[1])
	}
	syscall.ForkLock.RUnlock()
	if err != nil {
		return nil, nil, os.NewSyscallError("socketpair", err)
	}
	ours, theirs := os.NewFile(uintptr(fds[0]), name), os.NewFile(uintptr(fds[1]), name)
	conn, err := net.FileConn(ours)
	ours.Close()
	if err != nil {
		theirs.Close()
		return nil, nil, err
	}
	return conn, theirs, nil
}

// Close kills the machine, and waits until it is gone.
func (vm *VM) Close() {
	vm.cancel()
	<-vm.ended
	if vm.QMP != nil {
		vm.QMP.Close()
	}
	vm.report.Close()
}

// Dump stops the machine for as long as it writes its memory to a file.
func (vm *VM) Dump(ctx context.Context, format, path string) error {
	path, err := filepath.Abs(path)
	if err != nil {
		return err
	}
	return vm.QMP.Run(ctx, "dump-guest-memory", map[string]any{
		"paging": false, "protocol": "file:" + path, "format": format,
	}, nil)
}

// Stop stops all CPUs.
func (vm *VM) Stop(ctx context.Context) error { return vm.QMP.Run(ctx, "stop", nil, nil) }

// Continue has stopped CPUs run on.
func (vm *VM) Continue(ctx context.Context) error { return vm.QMP.Run(ctx, "cont", nil, nil) }

// Debugger connects to QEMU's GDB stub, which stops the machine. There can be one
// connection at a time; after its end the machine is as it was left.
func (vm *VM) Debugger(ctx context.Context) (net.Conn, error) {
	dir, err := os.MkdirTemp("", "inquest-gdb-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir) // the socket needs no name once it is connected
	path := filepath.Join(dir, "socket")
	var answer string
	err = vm.QMP.Run(ctx, "human-monitor-command", map[string]any{"command-line": "gdbserver unix:" + path + ",server=on,wait=off"}, &answer)
	if err != nil {
		return nil, err
	}
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "unix", path)
	if err != nil {
		return nil, fmt.Errorf("connect to QEMU's GDB stub: %w: %s", err, strings.TrimSpace(answer))
	}
	return conn, nil
}

// WaitConsole waits until a text is on the console, or returns at once if it was there before.
func (vm *VM) WaitConsole(ctx context.Context, text string) error {
	console := tail{path: vm.console}
	var seen []byte
	err := vm.wait(ctx, func() (bool, error) {
		more, err := console.next()
		seen = append(seen, more...)
		found := bytes.Contains(seen, []byte(text))
		seen = seen[max(0, len(seen)-len(text)):] // where it may have begun
		return found, err
	})
	if err != nil {
		return fmt.Errorf("wait for %q on the console: %w", text, err)
	}
	return nil
}

// wait calls ready until it is, at intervals that are short against anything a guest does.
func (vm *VM) wait(ctx context.Context, ready func() (bool, error)) error {
	tick := time.NewTicker(25 * time.Millisecond)
	defer tick.Stop()
	for {
		ended := false
		select {
		case <-vm.ended:
			ended = true // after which there may still be something to read
		default:
		}
		if ok, err := ready(); ok || err != nil {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		if ended {
			return vm.err
		}
		select {
		case <-ctx.Done():
		case <-vm.ended:
		case <-tick.C:
		}
	}
}

// tail reads a file that grows.
type tail struct {
	path   string
	offset int64
}

// next returns what was added to the file since the last call. A file that does not
// exist yet is empty.
func (t *tail) next() ([]byte, error) {
	f, err := os.Open(t.path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	added, err := io.ReadAll(io.NewSectionReader(f, t.offset, 1<<62-t.offset))
	t.offset += int64(len(added))
	return added, err
}
