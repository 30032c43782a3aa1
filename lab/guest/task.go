//go:build linux

package guest

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"inquest/lab/guest/wire"
)

// sleepers are the threads of process "waiters": by comm, the system call each of
// them stays in.
var sleepers = []struct {
	comm string
	call uintptr
	run  func()
}{
	{"w-futex", unix.SYS_FUTEX, func() {
		const waitPrivate = 128 // FUTEX_WAIT | FUTEX_PRIVATE_FLAG
		var word uint32
		unix.Syscall6(unix.SYS_FUTEX, uintptr(unsafe.Pointer(&word)), waitPrivate, 0, 0, 0, 0)
	}},
	{"w-pipe", unix.SYS_READ, func() {
		var p [2]int
		unix.Pipe(p[:])
		unix.Read(p[0], make([]byte, 1))
	}},
	{"w-nanosleep", unix.SYS_NANOSLEEP, func() {
		unix.Nanosleep(&unix.Timespec{Sec: 1 << 30}, nil)
	}},
}

// work is what the processes do that init starts; their name says which.
func work(name string) {
	switch name {
	case "waiters":
		for _, s := range sleepers {
			go func() {
				runtime.LockOSThread()
				unix.Prctl(unix.PR_SET_NAME, uintptr(unsafe.Pointer(unsafe.StringData(s.comm+"\x00"))), 0, 0, 0)
				for {
					s.run()
				}
			}()
		}
		sleepForever()
	case "spinner": // stays in user mode, on the last CPU
		pin(runtime.NumCPU() - 1)
		for n := 0; ; n++ { // counting is all it does
		}
	}
	fmt.Println("guest: no work is called", name)
	os.Exit(2)
}

// startTasks starts the processes, waits until each is at its place, and returns all
// threads of user mode, init first.
func startTasks() ([]wire.Task, error) {
	var pids []int
	for _, name := range wire.Processes {
		cmd := exec.Command("/bin/" + name)
		cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
		cmd.Env = []string{"GODEBUG=asyncpreemptoff=1"} // or the runtime's signals disturb the spinner
		if err := cmd.Start(); err != nil {
			return nil, err
		}
		pids = append(pids, cmd.Process.Pid)
	}
	if err := pin(0); err != nil { // last: children inherit it
		return nil, err
	}
	waiters, spinner := pids[0], pids[1] // as wire.Processes has them
	settled := func() bool {
		tasks, err := threads(waiters)
		return err == nil && len(sleepersOf(tasks)) == len(sleepers) && systemCall(spinner) == "running"
	}
	for start := time.Now(); !settled(); time.Sleep(20 * time.Millisecond) {
		if time.Since(start) > time.Minute {
			return nil, errors.New("the tasks did not get where they belong within a minute")
		}
	}
	var all []wire.Task
	for _, pid := range append([]int{1}, pids...) {
		tasks, err := threads(pid)
		if err != nil {
			return nil, err
		}
		all = append(all, tasks...)
	}
	for _, t := range sleepersOf(all) {
		var err error
		if t.Stack, err = kernelStack(t.PID); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// threads lists the threads of a process by pid, its leader first.
func threads(pid int) ([]wire.Task, error) {
	dirs, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*", pid))
	if err != nil {
		return nil, err
	}
	var tasks []wire.Task
	for _, dir := range dirs {
		comm, err := os.ReadFile(dir + "/comm")
		if err != nil {
			return nil, err
		}
		tid, err := strconv.Atoi(filepath.Base(dir))
		if err != nil {
			return nil, err
		}
		tasks = append(tasks, wire.Task{PID: tid, TGID: pid, Comm: strings.TrimSpace(string(comm))})
	}
	slices.SortFunc(tasks, func(a, b wire.Task) int { return a.PID - b.PID })
	return tasks, nil
}

// sleepersOf picks the sleepers that are in their system call.
func sleepersOf(tasks []wire.Task) []*wire.Task {
	var found []*wire.Task
	for i := range tasks {
		for _, s := range sleepers {
			if t := &tasks[i]; t.Comm == s.comm && systemCall(t.PID) == strconv.Itoa(int(s.call)) {
				found = append(found, t)
			}
		}
	}
	return found
}

// systemCall is the number of the system call that a thread sleeps in, or "running".
func systemCall(tid int) string {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/syscall", tid))
	if err != nil {
		return ""
	}
	number, _, _ := strings.Cut(strings.TrimSpace(string(text)), " ")
	return number
}

// kernelStack reads /proc/TID/stack, whose lines are "[<0>] function+0x12/0x34 [module]".
func kernelStack(tid int) ([]string, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stack", tid))
	if err != nil {
		return nil, err
	}
	var frames []string
	for line := range strings.Lines(string(text)) {
		fields := strings.Fields(line)
		if len(fields) < 2 {
			return nil, fmt.Errorf("stack of %d: unexpected line %q", tid, line)
		}
		frame, _, _ := strings.Cut(fields[1], "/")
		frames = append(frames, frame)
	}
	return frames, nil
}

// pin puts the calling thread on one CPU.
func pin(cpu int) error {
	var set unix.CPUSet
	set.Set(cpu)
	return unix.SchedSetaffinity(0, &set)
}

// sleepForever is not an empty select, which the runtime takes for a deadlock.
func sleepForever() {
	for {
		time.Sleep(time.Hour)
	}
}
