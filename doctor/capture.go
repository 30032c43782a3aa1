package doctor

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"regexp"
	"strings"
)

// Kdump looks whether a crash would leave a dump behind.
var Kdump = &Check{
	Name: "kdump",
	Doc: `looks whether a crash would leave a dump: a capture kernel that is loaded, memory that is
enough for it, room where the dump goes, and whether Inquest explains it there`,
	Run:     kdump,
	Applies: onMachine,
}

func kdump(s *Subject) []Finding {
	loaded, err := s.number("sys/kernel/kexec_crash_loaded")
	if errors.Is(err, fs.ErrNotExist) && s.exists("sys/kernel") {
		return []Finding{{
			State: Weak, Title: "This kernel was built without kexec: a crash leaves no dump", Sure: Certain,
			Looked: []string{"/sys/kernel/kexec_crash_loaded"},
			Advice: []string{"Of a virtual machine the host can take the dump: QEMU's dump-guest-memory, virsh dump --memory-only."},
		}}
	}
	if err != nil {
		return []Finding{unread("The capture kernel", err, "/sys/kernel/kexec_crash_loaded")}
	}
	found := []Finding{s.captureKernel(loaded == 1)}
	if f, ok := s.captureMemory(); ok {
		found = append(found, f)
	}
	if loaded == 1 {
		found = append(found, s.captureRoom(), s.captureHook())
	}
	return found
}

func (s *Subject) captureKernel(loaded bool) Finding {
	f := Finding{Looked: []string{"/sys/kernel/kexec_crash_loaded", "/proc/cmdline"}, Sure: Certain}
	if loaded {
		f.Title = "A capture kernel is loaded"
		return f
	}
	f.State, f.Title = Weak, "No capture kernel is loaded: a crash leaves no dump"
	cmdline, _ := s.read("proc/cmdline")
	reserved, _ := s.number("sys/kernel/kexec_crash_size")
	switch {
	case reserved > 0:
		f.Found = []string{fmt.Sprintf("%s are reserved for one", size(uint64(reserved)))}
		f.Advice = []string{"Start the service: systemctl enable --now kdump (on Debian and Ubuntu kdump-tools)."}
	case strings.Contains(cmdline, "crashkernel="):
		f.Found = []string{"crashkernel= is on the kernel's command line, but nothing could be reserved"}
		f.Advice = []string{"Ask for less, or for crashkernel=SIZE,high; dmesg says why it failed."}
	default:
		f.Found = []string{"no crashkernel= on the kernel's command line"}
		f.Advice = []string{fmt.Sprintf("Install kdump-tools (Debian, Ubuntu) or kexec-tools (Red Hat, SUSE), boot with crashkernel=%dM, and test it.", s.needed()>>20)}
	}
	return f
}

// needed is how much memory a capture kernel ought to have: what Red Hat's installer
// reserves, kdumpctl's default for x86-64: 1G-4G:192M,4G-64G:256M,64G-:512M.
func (s *Subject) needed() uint64 {
	text, _ := s.read("proc/meminfo")
	switch total := parseMeminfo(text)["MemTotal"]; {
	case total > 64<<30:
		return 512 << 20
	case total > 4<<30:
		return 256 << 20
	}
	return 192 << 20
}

func (s *Subject) captureMemory() (Finding, bool) {
	reserved, err := s.number("sys/kernel/kexec_crash_size")
	if err != nil || reserved <= 0 {
		return Finding{}, false // captureKernel says so
	}
	f := Finding{Looked: []string{"/sys/kernel/kexec_crash_size", "/proc/meminfo"}, Sure: Certain}
	f.Found = []string{fmt.Sprintf("%s reserved; %s are usual for a machine of this size", size(uint64(reserved)), size(s.needed()))}
	if uint64(reserved) < s.needed() {
		f.State, f.Sure, f.Title = Weak, Likely, "The memory reserved for the capture kernel may be too small: it may die while it dumps"
		f.Advice = []string{fmt.Sprintf("Boot with crashkernel=%dM, or try it out: echo c > /proc/sysrq-trigger, when the machine may crash.", s.needed()>>20)}
	} else {
		f.Title = "The memory reserved for the capture kernel is enough"
	}
	return f, true
}

// dumpTarget is where dumps go: a path, or another machine.
type dumpTarget struct {
	path, elsewhere, source string
}

var coreDir = regexp.MustCompile(`(?m)^[ \t]*KDUMP_COREDIR=["']?([^"'\s]+)`)

// target reads where dumps go: /etc/kdump.conf (kdump.conf(5)), or /etc/default/kdump-tools.
func (s *Subject) target() dumpTarget {
	if text, err := s.read("etc/kdump.conf"); err == nil {
		t := dumpTarget{path: "/var/crash", source: "/etc/kdump.conf"}
		for line := range strings.Lines(text) {
			f := strings.Fields(line)
			if len(f) < 2 {
				continue
			}
			switch f[0] {
			case "path":
				t.path = path.Clean("/" + f[1])
			case "nfs", "ssh", "raw", "ext2", "ext3", "ext4", "xfs", "btrfs", "minix", "virtiofs":
				t.elsewhere = f[0] + " " + f[1]
			}
		}
		return t
	}
	if text, err := s.read("etc/default/kdump-tools"); err == nil {
		t := dumpTarget{path: "/var/crash", source: "/etc/default/kdump-tools"}
		if m := coreDir.FindStringSubmatch(text); m != nil {
			t.path = path.Clean("/" + m[1])
		}
		return t
	}
	return dumpTarget{path: "/var/crash"}
}

// kernelMemory is what a dump without user pages and free pages is made of.
func (s *Subject) kernelMemory() uint64 {
	text, _ := s.read("proc/meminfo")
	m := parseMeminfo(text)
	sum := m["Slab"] + m["KernelStack"] + m["PageTables"] + m["Percpu"] + m["VmallocUsed"]
	// The map of all pages is in it: 64 bytes for each.
	return sum + m["MemTotal"]/64 + 128<<20
}

func (s *Subject) captureRoom() Finding {
	t := s.target()
	f := Finding{Looked: []string{t.path}, Sure: Certain}
	if t.source != "" {
		f.Looked = []string{t.source, t.path}
	}
	if t.elsewhere != "" {
		f.State, f.Title = Unknown, "Dumps go to "+t.elsewhere+": whether there is room was not looked at"
		return f
	}
	free, err := s.free(t.path)
	if err != nil {
		f := unread("The room for dumps", err, f.Looked...)
		return f
	}
	need := s.kernelMemory()
	f.Sure = Likely
	f.Found = []string{fmt.Sprintf("%s free in %s; a dump without user memory would have some %s before it is compressed", size(free), t.path, size(need))}
	if free < need {
		f.State, f.Title = Weak, "There may not be room for a dump"
		f.Advice = []string{"Make room, let dumps go elsewhere, or let Inquest shrink them in the capture kernel."}
	} else {
		f.Title = "There is room for a dump"
	}
	return f
}

// captureHooks are files in which Inquest may be made part of the capture.
var captureHooks = []string{
	"etc/kdump.conf", "etc/kdump/post.d/*", "etc/kdump/pre.d/*",
	"etc/default/kdump-tools", "etc/kdump-tools/*", "etc/initramfs-tools/hooks/*", "usr/share/initramfs-tools/hooks/*",
	"etc/systemd/system/kdump-tools.service.d/*", "usr/lib/systemd/system/kdump-tools.service.d/*", "lib/systemd/system/kdump-tools.service.d/*",
}

func (s *Subject) captureHook() Finding {
	f := Finding{Looked: []string{"/etc/kdump.conf", "/etc/kdump", "/etc/default/kdump-tools"}, Sure: Likely}
	for _, pattern := range captureHooks {
		names, _ := fs.Glob(s.Files, pattern)
		for _, name := range names {
			text, err := s.read(name)
			if err == nil && mentions(text, "inquest") {
				f.Title, f.Sure, f.Found = "Inquest explains a crash while it is captured", Certain, []string{"/" + name}
				return f
			}
		}
	}
	f.State, f.Title = Weak, "Inquest is not part of the capture"
	f.Advice = []string{"With a hook it explains and shrinks the dump before the machine reboots, also when the whole dump does not fit."}
	return f
}

// mentions reports whether a line of a file that is no comment has a word.
func mentions(text, word string) bool {
	for line := range strings.Lines(text) {
		if code, _, _ := strings.Cut(line, "#"); strings.Contains(code, word) {
			return true
		}
	}
	return false
}

// PanicSettings looks which failures make the machine panic, and so leave a dump.
var PanicSettings = &Check{
	Name:    "panic-settings",
	Doc:     `looks which failures make the kernel panic: only what panics leaves a dump`,
	Run:     panicSettings,
	Applies: onMachine,
}

// panics are settings that turn a failure into a panic (Documentation/admin-guide/sysctl).
var panics = []struct{ name, failure string }{
	{"kernel/panic_on_oops", "an oops"},
	{"kernel/softlockup_panic", "a CPU that is stuck in the kernel"},
	{"kernel/hardlockup_panic", "a CPU that takes no interrupts"},
	{"kernel/hung_task_panic", "a task that waits for minutes"},
	{"kernel/panic_on_rcu_stall", "a stall of RCU"},
	{"kernel/unknown_nmi_panic", "an NMI, such as a hypervisor or a management board sends to a dead machine"},
	{"kernel/panic_on_warn", "a warning"},
	{"vm/panic_on_oom", "memory that has run out"},
}

func panicSettings(s *Subject) []Finding {
	f := Finding{Sure: Certain, Looked: []string{"/proc/sys/kernel", "/proc/sys/vm"}}
	oops, err := s.sysctl("kernel/panic_on_oops")
	if err != nil {
		return []Finding{unread("What makes the kernel panic", err, "/proc/sys/kernel/panic_on_oops")}
	}
	var on, off []string
	for _, p := range panics {
		v, err := s.sysctl(p.name)
		switch {
		case err != nil: // the kernel was built without it
		case v != 0:
			on = append(on, p.failure)
		default:
			off = append(off, p.failure)
		}
	}
	if len(on) > 0 {
		f.Found = append(f.Found, "panics on "+list(on, len(on)))
	}
	if len(off) > 0 {
		f.Found = append(f.Found, "goes on after "+list(off, len(off)))
	}
	if reboot, err := s.sysctl("kernel/panic"); err == nil && reboot == 0 {
		f.Found = append(f.Found, "if no dump can be taken it stays dead and does not reboot (kernel.panic = 0)")
	}
	if oops == 0 {
		f.State = Weak
		f.Title = "An oops does not make the kernel panic: it leaves no dump, and the machine runs on damaged"
		f.Advice = []string{"sysctl kernel.panic_on_oops=1, and kernel.panic=10 for a reboot where no dump can be taken."}
	} else {
		f.Title = "An oops makes the kernel panic"
	}
	return []Finding{f}
}

// size writes a number of bytes for people.
func size(n uint64) string {
	switch {
	case n >= 10<<30:
		return fmt.Sprintf("%d GiB", n>>30)
	case n >= 1<<30:
		return fmt.Sprintf("%.1f GiB", float64(n)/(1<<30))
	case n >= 1<<20:
		return fmt.Sprintf("%d MiB", n>>20)
	}
	return fmt.Sprintf("%d KiB", n>>10)
}
