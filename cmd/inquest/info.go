package main

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"inquest/explain"
	"inquest/kernel"
	"inquest/vmcore"
)

var infoCommand = &command{
	name:  "info",
	short: "say what the dump is: kernel, machine, time, cause of death, what was left out",
	long: `Say what the file is and what it holds: the format and who wrote it, which pages
were left out, the kernel and where it was loaded, the machine, when it crashed, how
long it had been up, and the message it crashed with.

If no kernel can be found in the dump, what the file alone says is printed and the
exit status is 1.`,
	example: `inquest info /var/crash/202611220142/dump
inquest info vmcore.1 vmcore.2 vmcore.3
inquest info vmcore --json | jq -r .release`,
	setup: func(*pflag.FlagSet) runFunc {
		return func(s *session, _ []string) error {
			d, err := s.Dump()
			if err != nil {
				return err
			}
			k, kernelErr := s.Kernel()
			info := gatherInfo(s, d, k)
			if s.json {
				info.Missing = s.missing()
				err = s.writeJSON(info)
			} else {
				info.print(s)
				s.missing()
			}
			return errors.Join(err, kernelErr)
		}
	},
}

type dumpInfo struct {
	Format        string     `json:"format"`
	Writer        string     `json:"writer"`
	Compression   string     `json:"compression"`
	HeaderVersion int        `json:"header_version"`
	Flattened     bool       `json:"flattened"`
	Parts         int        `json:"parts"`
	FileBytes     int64      `json:"file_bytes"`
	Incomplete    bool       `json:"incomplete"`
	DumpLevel     *int       `json:"dump_level"` // null when unknown
	Pages         pageCounts `json:"pages"`
	MemoryBytes   uint64     `json:"memory_bytes"`

	Release   string   `json:"release"`
	Version   string   `json:"version"`
	BuildID   string   `json:"build_id"`
	Machine   string   `json:"machine"`
	NodeName  string   `json:"nodename"`
	CPUs      int      `json:"cpus"`
	CrashTime string   `json:"crash_time"` // RFC 3339, UTC; "" when unknown
	Uptime    *float64 `json:"uptime_s"`   // null when unknown
	Taint     string   `json:"taint"`

	Crashed *crashedTask `json:"crashed"` // null when the machine did not panic
	Oops    string       `json:"oops"`
	Panic   string       `json:"panic"`

	KASLROffset hex    `json:"kaslr_offset"`
	PhysBase    hex    `json:"phys_base"`
	Levels      int    `json:"page_table_levels"` // 0 when unknown
	VMCoreInfo  string `json:"vmcoreinfo"`        // where it was found

	Missing []string `json:"missing,omitempty"`

	layout string
}

type pageCounts struct {
	Present  uint64 `json:"present"`
	Excluded uint64 `json:"excluded"`
	Absent   uint64 `json:"absent"`
}

type crashedTask struct {
	PID  int    `json:"pid"`
	Comm string `json:"comm"`
	CPU  int    `json:"cpu"`
	Task hex    `json:"task"`
}

// gatherInfo asks the file and, if there is one, the kernel.
func gatherInfo(s *session, d *vmcore.Dump, k *kernel.Kernel) *dumpInfo {
	info := &dumpInfo{
		Format: d.Format, Writer: d.Writer, Compression: d.Compression, HeaderVersion: d.HeaderVersion,
		Flattened: d.Flattened, Parts: d.Parts, FileBytes: d.FileSize, Incomplete: d.Incomplete,
		Release: d.Release, Version: d.Version, Machine: d.Machine, NodeName: d.NodeName,
		CPUs: len(d.CPUs), PhysBase: hex(d.PhysBase),
	}
	if d.DumpLevel >= 0 {
		info.DumpLevel = &d.DumpLevel
	}
	info.Pages.Present, info.Pages.Excluded, info.Pages.Absent = d.PageCounts()
	info.MemoryBytes = (info.Pages.Present + info.Pages.Excluded) * uint64(d.PageSize)
	if !d.CrashTime.IsZero() {
		info.CrashTime = d.CrashTime.UTC().Format(time.RFC3339)
	}
	if v, err := d.VMCoreInfo(); err == nil {
		info.VMCoreInfo = v.Source
	}
	if k != nil {
		info.addKernel(s, k)
	}
	return info
}

func (info *dumpInfo) addKernel(s *session, k *kernel.Kernel) {
	k.Preload()
	info.Release, info.BuildID = k.Release, k.BuildID
	info.KASLROffset, info.PhysBase = hex(k.Layout.KASLROffset), hex(k.Layout.PhysBase)
	info.layout = k.Layout.Source
	if info.Levels = 4; k.Layout.FiveLevel {
		info.Levels = 5
	}
	if uts, err := k.Var("init_uts_ns", "uts_namespace"); err == nil {
		for _, f := range []struct {
			path string
			to   *string
		}{{"name.release", &info.Release}, {"name.version", &info.Version}, {"name.machine", &info.Machine}, {"name.nodename", &info.NodeName}} {
			if text, err := uts.String(f.path); err == nil && *f.to == "" {
				*f.to = text
			}
		}
	}
	if cpus, err := k.PresentCPUs(); err == nil && len(cpus) > 0 {
		info.CPUs = len(cpus)
	}
	info.Taint = k.Taint()
	if c, ok := readClock(k); ok {
		up := c.uptime.Seconds()
		info.Uptime = &up
		if info.CrashTime == "" {
			info.CrashTime = c.now.Format(time.RFC3339)
		}
	}
	if t, err := k.Crashed(); t != nil {
		info.Crashed = &crashedTask{t.PID, t.Comm, t.CPU, hex(t.Addr)}
	} else if err != nil {
		s.miss(fmt.Errorf("find the task that crashed: %w", err))
	}
	info.Oops, info.Panic = lastWords(s, k)
}

// lastWords returns the opening line of the report that the machine died of, and
// what panic said.
func lastWords(s *session, k *kernel.Kernel) (oops, panic string) {
	var log []kernel.Record
	for rec, err := range k.Log() {
		if err != nil {
			s.miss(fmt.Errorf("read the log: %w", err))
			break
		}
		log = append(log, rec)
	}
	for _, e := range explain.Events(log) {
		if e.Kind == explain.KindPanic {
			return oops, e.Trigger
		}
		oops = e.Message
	}
	return oops, ""
}

func (info *dumpInfo) print(s *session) {
	line := func(name, format string, args ...any) {
		if text := fmt.Sprintf(format, args...); strings.TrimSpace(text) != "" {
			s.printf("%s  %s\n", s.term.paint(cyan, fmt.Sprintf("%11s", name)), clean(text))
		}
	}
	line("DUMP", "%s", strings.Join(s.paths, " "))
	line("FORMAT", "%s", info.format())
	line("PAGES", "%s", info.pages())
	if info.Incomplete {
		line("", "%s", s.term.paint(red, "INCOMPLETE: the writer ran out of space, or the file was cut short"))
	}
	line("KERNEL", "%s", info.Release)
	line("", "%s", info.Version)
	if info.BuildID != "" {
		line("BUILD ID", "%s", info.BuildID)
	}
	line("TAINTED", "%s", taintText(info.Taint))
	if info.NodeName != "(none)" {
		line("NODE", "%s", info.NodeName)
	}
	line("MACHINE", "%s", info.machine())
	line("CRASHED", "%s", strings.Replace(strings.Replace(info.CrashTime, "T", " ", 1), "Z", " UTC", 1))
	if info.Uptime != nil {
		line("UPTIME", "%s", formatUptime(time.Duration(*info.Uptime)*time.Second))
	}
	if c := info.Crashed; c != nil {
		line("TASK", "%s (pid %d) on CPU %d, task_struct at %016x", c.Comm, c.PID, c.CPU, uint64(c.Task))
	}
	line("OOPS", "%s", info.Oops)
	line("PANIC", "%s", info.Panic)
	if info.Levels > 0 {
		line("LAYOUT", "KASLR offset %#x, phys_base %#x, %d-level page tables (from %s)", uint64(info.KASLROffset), uint64(info.PhysBase), info.Levels, info.layout)
	}
	line("VMCOREINFO", "%s", info.VMCoreInfo)
}

// taintNames are the taint flags (Documentation/admin-guide/tainted-kernels.rst).
var taintNames = map[rune]string{
	'P': "proprietary module", 'F': "module was force loaded", 'S': "out of specification system", 'R': "module was force unloaded",
	'M': "machine check", 'B': "bad page", 'U': "user request", 'D': "died before: an oops or BUG", 'A': "ACPI table overridden",
	'W': "warning", 'C': "staging driver", 'I': "firmware workaround", 'O': "out-of-tree module", 'E': "unsigned module",
	'L': "soft lockup", 'K': "live patched", 'X': "auxiliary, of the distribution", 'T': "randomized structs", 'N': "test", 'J': "fwctl debug",
}

// taintText spells taint letters out.
func taintText(letters string) string {
	var names []string
	for _, c := range letters {
		if name := taintNames[c]; name != "" {
			names = append(names, name)
		}
	}
	if len(names) == 0 {
		return letters
	}
	return letters + " (" + strings.Join(names, ", ") + ")"
}

func (info *dumpInfo) format() string {
	list := []string{info.Format}
	if info.Compression != "" && info.Compression != "none" {
		list = append(list, info.Compression)
	}
	if info.HeaderVersion > 0 {
		list = append(list, fmt.Sprintf("header version %d", info.HeaderVersion))
	}
	if info.Flattened {
		list = append(list, "flattened")
	}
	if info.Parts > 1 {
		list = append(list, fmt.Sprintf("%d parts", info.Parts))
	}
	if info.Writer != "" {
		list = append(list, "written by "+info.Writer)
	}
	return strings.Join(append(list, formatBytes(uint64(max(info.FileBytes, 0)))), ", ")
}

func (info *dumpInfo) pages() string {
	text := fmt.Sprintf("%d in the dump", info.Pages.Present)
	if info.Pages.Excluded > 0 {
		text += fmt.Sprintf(", %d left out", info.Pages.Excluded)
	}
	// QEMU claims level 1, but leaves nothing out.
	if info.DumpLevel != nil && info.Writer != "qemu" {
		text += fmt.Sprintf(" (dump level %d: %s)", *info.DumpLevel, levelText(*info.DumpLevel))
	}
	return text
}

// levelText says which pages makedumpfile -d leaves out.
func levelText(level int) string {
	if level == 0 {
		return "nothing was filtered"
	}
	var out []string
	for i, what := range []string{"zero", "clean cache", "cache", "user", "free"} {
		if level>>i&1 == 1 {
			out = append(out, what)
		}
	}
	return "without " + strings.Join(out, ", ") + " pages"
}

func (info *dumpInfo) machine() string {
	var list []string
	if info.Machine != "" {
		list = append(list, info.Machine)
	}
	if info.CPUs > 0 {
		list = append(list, plural(info.CPUs, "CPU"))
	}
	if info.MemoryBytes > 0 {
		list = append(list, formatBytes(info.MemoryBytes)+" of memory")
	}
	return strings.Join(list, ", ")
}

func plural(n int, what string) string {
	if n != 1 {
		what += "s"
	}
	return fmt.Sprintf("%d %s", n, what)
}

func formatBytes(n uint64) string {
	units := []string{"bytes", "KiB", "MiB", "GiB", "TiB", "PiB"}
	f, i := float64(n), 0
	for ; f >= 1024 && i < len(units)-1; i++ {
		f /= 1024
	}
	if i == 0 {
		return fmt.Sprintf("%d bytes", n)
	}
	return fmt.Sprintf("%.1f %s", f, units[i])
}

func formatUptime(d time.Duration) string {
	day := 24 * time.Hour
	text := fmt.Sprintf("%02d:%02d:%02d", d%day/time.Hour, d%time.Hour/time.Minute, d%time.Minute/time.Second)
	if d >= day {
		text = plural(int(d/day), "day") + ", " + text
	}
	return text
}
