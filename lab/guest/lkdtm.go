//go:build linux

package guest

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"runtime"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

func init() { stories["lkdtm"] = lkdtm }

// lkdtmDirect takes the name of a trigger, and acts at once; read, it lists them.
const lkdtmDirect = "/sys/kernel/debug/provoke-crash/DIRECT"

// lkdtm pulls a trigger of the kernel's crash test module. It tells as fact "offers"
// which scenarios of the family the kernel has; one that it has not ends at once.
func lkdtm(s *story) error {
	if err := unix.Mount("debugfs", "/sys/kernel/debug", "debugfs", 0, ""); err != nil {
		return fmt.Errorf("mount debugfs: %w", err)
	}
	list, err := os.ReadFile(lkdtmDirect)
	if err != nil {
		return fmt.Errorf("the kernel has no LKDTM: %w", err)
	}
	offers := lkdtmTriggers(string(list))
	names := make([]string, len(offers))
	for i, trigger := range offers {
		names[i] = s.family + "/" + trigger
	}
	s.Fact("offers", names)
	trigger := strings.TrimPrefix(s.Name, s.family+"/")
	if !slices.Contains(offers, trigger) {
		return nil
	}
	way := lkdtmWays[trigger]
	if err := way.arm(); err != nil {
		return err
	}
	// Opened before: what comes between two triggers is to be nothing but a system call.
	direct, err := unix.Open(lkdtmDirect, unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open %s: %w", lkdtmDirect, err)
	}
	s.Step("trigger " + trigger)
	for range max(1, way.times) {
		if _, err := unix.Write(direct, []byte(trigger)); err != nil {
			return fmt.Errorf("trigger %s: %w", trigger, err)
		}
	}
	return nil
}

// lkdtmTriggers reads the names from what DIRECT says: a heading, and one a line.
func lkdtmTriggers(list string) []string {
	_, list, _ = strings.Cut(list, "\n")
	return strings.Fields(list)
}

// lkdtmWay is how a trigger is pulled, where that is not once, on the first CPU, with
// oopses and warnings fatal.
type lkdtmWay struct {
	times    int               // 0 is once
	last     bool              // on the last CPU: the first one keeps the time
	rcu      bool              // while the first CPU has RCU busy
	settings map[string]string // files to be written, as long as the kernel has them
}

// Settings under which a machine that hangs panics within seconds. They are made just
// before: to boot takes longer than they have patience.
var (
	panicOnSoftLockup = map[string]string{
		"/proc/sys/kernel/softlockup_panic": "1",
		"/proc/sys/kernel/watchdog_thresh":  "2", // after twice as many seconds
	}
	// A machine without a performance counter, as TCG makes it, has no NMI to tell a
	// CPU that is locked hard. RCU misses it, in 3 seconds at the earliest.
	panicOnHardLockup = map[string]string{
		"/proc/sys/kernel/hardlockup_panic":                      "1",
		"/proc/sys/kernel/watchdog_thresh":                       "2",
		"/proc/sys/kernel/panic_on_rcu_stall":                    "1",
		"/sys/module/rcupdate/parameters/rcu_cpu_stall_timeout":  "3",
		"/sys/module/rcupdate/parameters/rcu_cpu_stall_suppress": "0",
	}
	panicOnHungTask = map[string]string{
		"/proc/sys/kernel/hung_task_panic":        "1",
		"/proc/sys/kernel/hung_task_timeout_secs": "2",
	}
	// Counting to INT_MAX takes longer than anybody may have a CPU.
	patience = map[string]string{
		"/proc/sys/kernel/watchdog":                              "0",
		"/sys/module/rcupdate/parameters/rcu_cpu_stall_suppress": "1",
	}
)

var lkdtmWays = map[string]lkdtmWay{
	"LOOP":            {settings: panicOnSoftLockup},
	"SOFTLOCKUP":      {settings: panicOnSoftLockup},
	"HARDLOCKUP":      {settings: panicOnHardLockup, rcu: true, last: true},
	"SMP_CALL_LOCKUP": {settings: panicOnHardLockup}, // it is the other CPU that is locked
	"HUNG_TASK":       {settings: panicOnHungTask},
	"ATOMIC_TIMING":   {settings: patience},
	"REFCOUNT_TIMING": {settings: patience},
	// The first one returns with the lock held, and so with preemption off, of which
	// the scheduler may warn.
	"SPINLOCKUP": {times: 2, settings: map[string]string{
		"/proc/sys/kernel/panic_on_warn":    "0",
		"/proc/sys/kernel/softlockup_panic": "1",
		"/proc/sys/kernel/watchdog_thresh":  "2",
	}},
}

// arm makes fatal what the trigger is to end in.
func (w lkdtmWay) arm() error {
	settings := map[string]string{
		"/proc/sys/kernel/panic_on_oops": "1",
		"/proc/sys/kernel/panic_on_warn": "1",
	}
	maps.Copy(settings, w.settings)
	for path, value := range settings {
		if err := os.WriteFile(path, []byte(value), 0); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("set %s: %w", path, err)
		}
	}
	if w.rcu {
		if err := keepRCUBusy(); err != nil {
			return err
		}
	}
	if w.last {
		return pin(runtime.NumCPU() - 1)
	}
	return nil
}

// keepRCUBusy has grace periods begin all the time, on the first CPU: each file that
// is closed is freed at the end of one.
func keepRCUBusy() error {
	pinned := make(chan error)
	go func() {
		runtime.LockOSThread()
		err := pin(0)
		pinned <- err
		for err == nil {
			if fd, err := unix.Open("/proc/version", unix.O_RDONLY, 0); err == nil {
				unix.Close(fd)
			}
		}
	}()
	return <-pinned
}
