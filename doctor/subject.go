package doctor

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"inquest/advisory"
	"inquest/doctor/exposure"
	"inquest/kernel"
	"inquest/kernel/image"
	"inquest/vmcore"
)

// Subject is what is examined.
type Subject struct {
	Name   string
	Files  fs.FS            // of the machine: proc, sys, etc …; nil for a dump or a kernel's file
	Kernel *exposure.Kernel // nil if it is not known which kernel it is

	kernelErr error // why Kernel is nil
	known     func() ([]*advisory.Advisory, error)
	live      bool // it is this machine, now
	root      string
	log       func() (lines []string, source string, err error) // the kernel's; nil without one
	rules     func() (*ruleset, error)
	buffers   map[uint32]uint64                 // of netlink sockets of netfilter, in bytes, by port; where known
	free      func(path string) (uint64, error) // bytes on a file system
	close     func()
}

// Release is the kernel's, "" if it is not known.
func (s *Subject) Release() string {
	if s.Kernel == nil {
		return ""
	}
	return s.Kernel.ID.Release
}

// Close releases what was opened.
func (s *Subject) Close() {
	if s.Kernel != nil {
		s.Kernel.Close()
	}
	if s.close != nil {
		s.close()
	}
}

// onMachine is for checks of a machine's files.
func onMachine(s *Subject) bool { return s.Files != nil }

// Machine opens the machine whose files lie below root: this one for "/" or "", else a copy
// of what some machine has there, as sosreport(1) makes one.
func Machine(root string) (*Subject, error) {
	if root == "" {
		root = "/"
	}
	root, err := filepath.Abs(root)
	if err != nil {
		return nil, err
	}
	s := &Subject{Name: root, root: root, known: advisory.All, free: func(string) (uint64, error) { return 0, errors.ErrUnsupported }}
	if s.live = root == "/"; s.live {
		s.Name, s.Files = "this machine", os.DirFS("/")
		s.log, s.rules, s.free = runningLog, runningRules, freeSpace
		s.buffers = socketBuffers()
	} else {
		r, err := os.OpenRoot(root)
		if err != nil {
			return nil, err
		}
		s.Files, s.close = r.FS(), func() { r.Close() }
		s.log, s.rules = s.recordedLog, s.recordedRules
	}
	s.Kernel, s.kernelErr = exposure.Open(root)
	return s, nil
}

// File opens a dump, or the file of a kernel: vmlinuz or vmlinux. The error wraps
// vmcore.ErrNotDump if it is neither.
func File(path string) (*Subject, error) {
	dump, err := vmcore.Open(path)
	if errors.Is(err, vmcore.ErrNotDump) {
		k, imageErr := exposure.OpenFile(path)
		switch {
		case imageErr == nil:
			return &Subject{Name: path, known: advisory.All, Kernel: k}, nil
		case !errors.Is(imageErr, image.ErrNotKernel):
			return nil, fmt.Errorf("%w: %w", imageErr, vmcore.ErrNotDump)
		}
	}
	if errors.Is(err, vmcore.ErrNotDump) {
		return nil, fmt.Errorf("%w, or a kernel's file (vmlinuz, vmlinux)", err)
	}
	if err != nil {
		return nil, err
	}
	k, err := kernel.Open(dump)
	if err != nil {
		dump.Close()
		return nil, err
	}
	s := &Subject{Name: path, known: advisory.All, close: func() { dump.Close() }, log: func() ([]string, string, error) { return dumpLog(k) }}
	s.Kernel = exposure.Of(k, exposure.NewID(k.Release, dumpBanner(k), ""), path)
	return s, nil
}

// dumpBanner is what /proc/version had.
func dumpBanner(k *kernel.Kernel) string {
	at, err := k.Symbol("linux_banner")
	if err != nil {
		return ""
	}
	text, _ := k.CString(at, 1024)
	return strings.TrimSpace(text)
}

// maxLog bounds a log, in lines.
const maxLog = 1 << 20

func dumpLog(k *kernel.Kernel) (lines []string, source string, err error) {
	const where = "the log in the dump"
	for r, err := range k.Log() {
		if err != nil {
			return lines, where, err
		}
		if lines = append(lines, strings.Split(r.Text, "\n")...); len(lines) > maxLog {
			break
		}
	}
	return lines, where, nil
}

// runningLog reads /dev/kmsg to its end (Documentation/ABI/testing/dev-kmsg): each read
// gives a record. A reader that is overtaken by the writer gets EPIPE and goes on.
func runningLog() (lines []string, source string, err error) {
	const name = "/dev/kmsg"
	fd, err := unix.Open(name, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, name, &fs.PathError{Op: "open", Path: name, Err: err}
	}
	defer unix.Close(fd)
	record := make([]byte, 16<<10)
	for len(lines) < maxLog {
		n, err := unix.Read(fd, record)
		switch {
		case err == unix.EPIPE || err == unix.EINTR:
			continue
		case err == unix.EAGAIN || n == 0 && err == nil:
			return lines, name, nil
		case err != nil:
			return lines, name, &fs.PathError{Op: "read", Path: name, Err: err}
		}
		lines = append(lines, kmsgText(string(record[:n])))
	}
	return lines, name, nil
}

// kmsgText is the text of a record of /dev/kmsg: "6,1,0,-;Linux version …", followed by
// lines of keys and values that begin with a space.
func kmsgText(record string) string {
	_, text, ok := strings.Cut(record, ";")
	if !ok {
		return ""
	}
	text, _, _ = strings.Cut(text, "\n")
	return text
}

// recordedLogs are where a copy of a machine's files may have the log.
var recordedLogs = []string{"var/log/dmesg", "sos_commands/kernel/dmesg", "sos_commands/kernel/dmesg_-T", "var/log/kern.log", "dmesg"}

func (s *Subject) recordedLog() (lines []string, source string, err error) {
	for _, name := range recordedLogs {
		if text, err := s.read(name); err == nil {
			return strings.Split(text, "\n"), "/" + name, nil
		}
	}
	return nil, "/" + recordedLogs[0], fmt.Errorf("no %s: %w", list(recordedLogs, 9), fs.ErrNotExist)
}

// maxText bounds the files that are read whole.
const maxText = 64 << 20

// read reads a file of the machine. Those of /proc do not know their size.
func (s *Subject) read(name string) (string, error) {
	f, err := s.Files.Open(name)
	if err != nil {
		return "", err
	}
	defer f.Close()
	var b bytes.Buffer
	if _, err := b.ReadFrom(io.LimitReader(f, maxText)); err != nil {
		return "", err
	}
	return b.String(), nil
}

// exists reports whether there is a file or directory: where /proc itself is missing, that a
// file in it is says nothing.
func (s *Subject) exists(name string) bool {
	_, err := fs.Stat(s.Files, name)
	return err == nil
}

// number reads a file that holds one number.
func (s *Subject) number(name string) (int64, error) {
	text, err := s.read(name)
	if err != nil {
		return 0, err
	}
	n, err := strconv.ParseInt(strings.TrimSpace(text), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("/%s: %w", name, err)
	}
	return n, nil
}

// sysctl reads a setting by its name with slashes: "kernel/panic_on_oops".
func (s *Subject) sysctl(name string) (int64, error) { return s.number("proc/sys/" + name) }

// freeSpace is what root may still write to a file system.
func freeSpace(path string) (uint64, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(path, &st); err != nil {
		return 0, &fs.PathError{Op: "statfs", Path: path, Err: err}
	}
	return st.Bfree * uint64(st.Bsize), nil
}
