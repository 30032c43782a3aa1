//go:build linux

package guest

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"

	"inquest/lab/guest/wire"
)

func mountAll() error {
	for _, m := range []struct{ fstype, dir string }{
		{"proc", "/proc"},
		{"sysfs", "/sys"},
		{"devtmpfs", "/dev"},
	} {
		if err := os.MkdirAll(m.dir, 0o755); err != nil {
			return err
		}
		if err := unix.Mount(m.fstype, m.dir, m.fstype, 0, ""); err != nil {
			return fmt.Errorf("mount %s: %w", m.dir, err)
		}
	}
	return nil
}

// loadModules inserts the modules that a file lists, one path a line, in that order.
func loadModules(list string) error {
	text, err := os.ReadFile(list)
	if err != nil {
		return err
	}
	for path := range strings.FieldsSeq(string(text)) {
		if err := loadModule(path); err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
	}
	return nil
}

func loadModule(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	err = unix.FinitModule(int(f.Fd()), "", 0)
	if errors.Is(err, unix.EEXIST) {
		return nil
	}
	return err
}

// setSysctl takes "kernel.panic_on_warn=1".
func setSysctl(assignment string) error {
	key, value, ok := strings.Cut(assignment, "=")
	if !ok {
		return fmt.Errorf("%q: expected KEY=VALUE", assignment)
	}
	return os.WriteFile(filepath.Join("/proc/sys", strings.ReplaceAll(key, ".", "/")), []byte(value), 0)
}

// loadCaptureKernel arms kdump. It removes both files then, lest they fill the
// memory that is to be dumped.
func loadCaptureKernel(kernel, initrd string, saves []string) error {
	size, err := os.ReadFile("/sys/kernel/kexec_crash_size")
	if err != nil {
		return err
	}
	if strings.TrimSpace(string(size)) == "0" {
		return errors.New("no memory is reserved: crashkernel= is missing, or memory has no hole of that size")
	}
	k, err := os.Open(kernel)
	if err != nil {
		return err
	}
	defer k.Close()
	i, err := os.Open(initrd)
	if err != nil {
		return err
	}
	defer i.Close()
	// A capture kernel has one CPU and must not trust any device's state. If it
	// panics, the machine resets.
	line := "console=ttyS0 quiet nr_cpus=1 reset_devices irqpoll no_timer_check panic=-1"
	for _, s := range saves {
		line += " lab.save=" + s
	}
	if err := unix.KexecFileLoad(int(k.Fd()), int(i.Fd()), line, unix.KEXEC_FILE_ON_CRASH); err != nil {
		return fmt.Errorf("kexec_file_load: %w", err)
	}
	return errors.Join(os.Remove(kernel), os.Remove(initrd))
}

// describe says which kernel this is.
func describe() (wire.Guest, error) {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return wire.Guest{}, err
	}
	notes, err := os.ReadFile("/sys/kernel/notes")
	if err != nil {
		return wire.Guest{}, err
	}
	return wire.Guest{
		Release: unix.ByteSliceToString(u.Release[:]),
		Version: unix.ByteSliceToString(u.Version[:]),
		BuildID: buildID(notes),
		CPUs:    runtime.NumCPU(),
	}, nil
}

// buildID finds the GNU build ID (note type 3) among ELF notes, in hex.
func buildID(notes []byte) string {
	const header, typeBuildID = 12, 3
	align := func(n uint32) int { return (int(n) + 3) &^ 3 }
	for len(notes) >= header {
		name, desc := binary.NativeEndian.Uint32(notes), binary.NativeEndian.Uint32(notes[4:])
		typ := binary.NativeEndian.Uint32(notes[8:])
		start := header + align(name)
		if start+int(desc) > len(notes) {
			break
		}
		if typ == typeBuildID && string(notes[header:header+int(name)]) == "GNU\x00" {
			return hex.EncodeToString(notes[start : start+int(desc)])
		}
		notes = notes[min(start+align(desc), len(notes)):]
	}
	return ""
}
