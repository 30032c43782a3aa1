//go:build qemu

// These tests boot a Debian kernel under QEMU, crash and dump it, and hold what
// Inquest says of the dump against what the guest said of itself. They need
//
//	apt-get install qemu-system-x86 makedumpfile
//
// and a network for the first run, which fetches the kernel.

package lab_test

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"inquest/explain"
	"inquest/kernel"
	"inquest/lab"
	"inquest/lab/guest/wire"
	"inquest/stack"
	"inquest/vmcore"
)

var (
	accel      = flag.String("lab.accel", "tcg", `accelerator: tcg, kvm, or "" for what works`)
	kernelName = flag.String("lab.kernel", "", "kernel to boot, as lab.FindKernel takes it")
)

// bootedKernel is the kernel under test.
var bootedKernel = sync.OnceValues(func() (*lab.Kernel, error) {
	return lab.FindKernel(context.Background(), *kernelName, nil)
})

func TestSysrqQEMU(t *testing.T) {
	for name, vmcoreinfo := range map[string]bool{"vmcoreinfo": true, "no vmcoreinfo": false} {
		t.Run(name, func(t *testing.T) {
			r := run(t, "sysrq", lab.Experiment{
				NoVMCoreInfo: !vmcoreinfo,
				QEMU:         []string{lab.AllFormats},
				Unflatten:    vmcoreinfo,
			})
			for _, d := range r.Dumps {
				t.Run(d.How, func(t *testing.T) {
					c := open(t, d)
					// Without the note, only a scan of memory tells the release.
					if release := c.Kernel.Dump.Release; (release != "") != vmcoreinfo {
						t.Errorf("release in the dump's headers: %q, with device vmcoreinfo: %t", release, vmcoreinfo)
					}
					if flattened := d.How != lab.FormatELF && !vmcoreinfo; c.Kernel.Dump.Flattened != flattened {
						t.Errorf("flattened: %t, want %t", c.Kernel.Dump.Flattened, flattened)
					}
					if w := c.Kernel.Dump.Writer; w != "qemu" {
						t.Errorf("written by %q, want qemu", w)
					}
					checkCrash(t, c, r)
					checkTasks(t, c, r)
					checkLog(t, c, r)
				})
			}
		})
	}
}

func TestSysrqKdump(t *testing.T) {
	want := map[string]struct {
		arguments   string
		compression string
		level       int
	}{
		"lzo-d31":  {"-l -d 31", "lzo", 31},
		"zlib-d17": {"-c -d 17", "zlib", 17},
		"elf-d31":  {"-E -d 31", "none", -1},
		"vmcore":   {"", "none", -1},
	}
	var saves []lab.Save
	for _, name := range slices.Sorted(maps.Keys(want)) {
		saves = append(saves, lab.Save{File: name, Arguments: strings.Fields(want[name].arguments)})
	}
	r := run(t, "sysrq", lab.Experiment{Kdump: saves})
	info, err := os.ReadFile(filepath.Join(filepath.Dir(r.Console), "vmcoreinfo"))
	if err != nil || !strings.Contains(string(info), "OSRELEASE="+r.Guest.Release+"\n") {
		t.Errorf("vmcoreinfo: %v\n%s", err, info)
	}
	for _, d := range r.Dumps {
		name := filepath.Base(d.Path)
		t.Run(name, func(t *testing.T) {
			c := open(t, d)
			dump, want := c.Kernel.Dump, want[name]
			if dump.Compression != want.compression || dump.DumpLevel != want.level {
				t.Errorf("compression %s, level %d, want %s and %d", dump.Compression, dump.DumpLevel, want.compression, want.level)
			}
			if dump.Flattened != (len(want.arguments) > 0) {
				t.Errorf("flattened: %t", dump.Flattened)
			}
			checkCrash(t, c, r)
			checkTasks(t, c, r)
			checkLog(t, c, r)
		})
	}
}

// A machine that is well has no finding.
func TestAliveQEMU(t *testing.T) {
	r := run(t, "none", lab.Experiment{QEMU: []string{lab.FormatELF}})
	c := open(t, r.Dumps[0])
	if c.Crash != nil {
		t.Errorf("crash %+v in a machine that is alive", c.Crash)
	}
	if f := c.Findings(); len(f) > 0 {
		t.Errorf("finding %q in a machine that is alive", f[0].Title)
	}
	checkTasks(t, c, r)
	checkLog(t, c, r)
}

// run runs a scenario in a directory of its own.
func run(t *testing.T, scenario string, e lab.Experiment) lab.Result {
	t.Helper()
	k, err := bootedKernel()
	if err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	if e.Scenario, err = lab.FindScenario(scenario); err != nil {
		t.Fatal(err)
	}
	e.Kernel, e.Dir, e.Accel = k, t.TempDir(), lab.Accel(*accel)
	e.Progress = func(step string) { t.Logf("%5.1fs %s", time.Since(start).Seconds(), step) }
	r, err := lab.Run(t.Context(), e)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%5.1fs done, under %s", time.Since(start).Seconds(), r.Accel)
	if r.Guest.Release != k.Release || r.Guest.CPUs != 2 || r.Guest.Capture {
		t.Fatalf("guest is %+v, want kernel %s with 2 CPUs", r.Guest, k.Release)
	}
	if !r.Expected() {
		t.Errorf("outcome %s (%q), want %s", r.Outcome, r.Warnings, r.Truth.Outcome)
	}
	return r
}

// open opens a dump the way the commands do.
func open(t *testing.T, d lab.Dump) *explain.Case {
	t.Helper()
	dump, err := vmcore.Open(d.Path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { dump.Close() })
	k, err := kernel.Open(dump)
	if err != nil {
		t.Fatal(err)
	}
	c, err := explain.New(k)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func checkCrash(t *testing.T, c *explain.Case, r lab.Result) {
	t.Helper()
	crashed, err := c.Kernel.Crashed()
	if err != nil {
		t.Fatal(err)
	}
	if crashed.PID != r.Crasher.PID || crashed.Comm != r.Crasher.Comm {
		t.Errorf("crashed task is %s (%d), want %s (%d)", crashed.Comm, crashed.PID, r.Crasher.Comm, r.Crasher.PID)
	}
	findings := c.Findings()
	if len(findings) == 0 {
		t.Fatal("no finding")
	}
	if f := findings[0]; !slices.Contains(r.Truth.Classes, string(f.Class)) || f.Confidence != explain.Certain {
		t.Errorf("first finding is %q: %s, %s; want %v, certain", f.Title, f.Class, f.Confidence, r.Truth.Classes)
	}
	if len(c.Crash.Doubts) > 0 {
		t.Errorf("doubts: %q", c.Crash.Doubts)
	}
	trace := c.Crash.Trace
	culprit := r.Truth.Culprits[0]
	if f, _ := trace.Find(culprit); f == nil || !trace.Reliable || trace.User == nil {
		t.Errorf("the stack lacks %s, or is not reliable (%t), or does not end in user mode (%t):\n%s",
			culprit, trace.Reliable, trace.User != nil, strings.Join(names(trace), "\n"))
	}
}

// checkTasks holds tasks and stacks against the guest's own lists, and the identity
// of the kernel with them.
func checkTasks(t *testing.T, c *explain.Case, r lab.Result) {
	t.Helper()
	k := c.Kernel
	if k.Release != r.Guest.Release || k.BuildID != r.Guest.BuildID {
		t.Errorf("kernel %s, build %s; want %s, %s", k.Release, k.BuildID, r.Guest.Release, r.Guest.BuildID)
	}
	tasks, err := k.Tasks()
	if err != nil {
		t.Fatal(err)
	}
	traces := make(map[int]*stack.Trace)
	for _, trace := range c.Unwinder.All(tasks) {
		if !trace.Task.Idle {
			traces[trace.Task.PID] = trace
		}
		if !trace.Reliable {
			t.Errorf("stack of %s (%d) is not reliable: %s\n%s", trace.Task.Comm, trace.Task.PID, trace.Problem,
				strings.Join(names(trace), "\n"))
		}
	}
	slept := 0
	for _, want := range r.Tasks {
		trace := traces[want.PID]
		if trace == nil {
			t.Errorf("%s (%d) is not listed", want.Comm, want.PID)
			continue
		}
		if got := trace.Task; got.Comm != want.Comm || got.TGID != want.TGID {
			t.Errorf("pid %d is %s of process %d, want %s of %d", want.PID, got.Comm, got.TGID, want.Comm, want.TGID)
		}
		if trace.User == nil {
			t.Errorf("stack of %s (%d) does not end in user mode", want.Comm, want.PID)
		}
		if len(want.Stack) > 0 {
			slept++
			checkStack(t, want, trace)
		}
	}
	for _, comm := range slices.Concat([]string{"init"}, wire.Processes) {
		if !slices.ContainsFunc(r.Tasks, func(t wire.Task) bool { return t.Comm == comm && t.PID == t.TGID }) {
			t.Errorf("the guest did not report its process %s", comm)
		}
	}
	if slept != 3 {
		t.Errorf("the guest reported %d sleeping threads, want 3", slept)
	}
}

// checkStack holds a stack against the kernel's own unwinding, which begins above the
// functions of the scheduler.
func checkStack(t *testing.T, want wire.Task, trace *stack.Trace) {
	t.Helper()
	got := names(trace)
	if len(got) < len(want.Stack) || !slices.Equal(got[len(got)-len(want.Stack):], want.Stack) {
		t.Errorf("stack of %s:\n%s\nwant it to end in:\n%s", want.Comm, strings.Join(got, "\n"), strings.Join(want.Stack, "\n"))
	}
}

// names are the frames of a stack as "function+0x12".
func names(trace *stack.Trace) []string {
	var list []string
	for i := range trace.Frames {
		list = append(list, trace.Frames[i].Name())
	}
	return list
}

// consoleLine matches what printk writes to the console: time and text.
var consoleLine = regexp.MustCompile(`(?m)^\[ *(\d+\.\d{6})\] (.*?)\s*$`)

// checkLog looks for the last lines of the console in the dump's log, times included.
func checkLog(t *testing.T, c *explain.Case, r lab.Result) {
	t.Helper()
	const enough = 12
	text, err := os.ReadFile(r.Console)
	if err != nil {
		t.Fatal(err)
	}
	var console []string
	var last time.Duration
	for _, m := range consoleLine.FindAllStringSubmatch(string(text), -1) {
		now, err := time.ParseDuration(m[1] + "s")
		if err != nil {
			t.Fatal(err)
		}
		if now < last || strings.HasPrefix(m[2], "reboot: ") {
			break // the capture kernel has begun, which says nothing but that it ends
		}
		last, console = now, append(console, m[1]+" "+m[2])
	}
	if len(console) < enough {
		t.Fatalf("only %d lines on the console", len(console))
	}
	console = console[len(console)-enough:]
	var log []string
	for _, record := range c.Log {
		for line := range strings.SplitSeq(record.Text, "\n") {
			µs := record.Time.Microseconds()
			log = append(log, strings.TrimRight(fmt.Sprintf("%d.%06d %s", µs/1e6, µs%1e6, line), " "))
		}
	}
	for i := range log {
		if len(log)-i >= enough && slices.Equal(log[i:i+enough], console) {
			return
		}
	}
	t.Errorf("the log does not have the end of the console:\n%s\nthe log ends in:\n%s",
		strings.Join(console, "\n"), strings.Join(log[max(0, len(log)-20):], "\n"))
}

// TestKcoreQEMU runs Inquest inside the guest on the running kernel's /proc/kcore, and
// compares what it says with what the guest says of itself.
func TestKcoreQEMU(t *testing.T) {
	program := filepath.Join(t.TempDir(), "inquest")
	build := exec.Command("go", "build", "-o", program, "inquest/cmd/inquest")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build inquest: %v\n%s", err, out)
	}
	const kcore = "/proc/kcore"
	commands := map[string][]string{"info": nil, "ps": nil, "log": nil, "mod": nil, "bt": {"1"}}
	e := lab.Experiment{NoVMCoreInfo: true, Programs: map[string]string{"inquest": program}, Modules: []string{"nfnetlink"}}
	for name, args := range commands {
		e.Run = append(e.Run, slices.Concat([]string{"/bin/inquest", name, kcore}, args, []string{"--json"}))
	}
	r := run(t, "none", e)
	type task struct {
		PID    int
		Comm   string
		Frames []struct{ Symbol string }
	}
	var all struct {
		Release string
		Format  string
		Modules []struct{ Name string }
		Records []struct{ Text string }
		Tasks   []task
	}
	for _, ran := range r.Ran {
		if ran.Error != "" {
			t.Errorf("%s: %s\n%s", ran.Command, ran.Error, ran.Output)
			continue
		}
		all.Tasks = nil
		if err := json.Unmarshal([]byte(ran.Output), &all); err != nil {
			t.Errorf("%s: %v\n%.400s", ran.Command, err, ran.Output)
			continue
		}
		switch strings.Fields(ran.Command)[1] {
		case "ps":
			for _, want := range r.Tasks {
				if !slices.ContainsFunc(all.Tasks, func(t task) bool { return t.PID == want.PID && t.Comm == want.Comm }) {
					t.Errorf("ps does not list %+v", want)
				}
			}
		case "bt":
			if len(all.Tasks) != 1 || len(all.Tasks[0].Frames) < 4 {
				t.Errorf("stack of init: %+v", all.Tasks)
			}
		}
	}
	if all.Release != r.Guest.Release || all.Format != "kcore" {
		t.Errorf("info says %s, format %s; the guest runs %s", all.Release, all.Format, r.Guest.Release)
	}
	if len(all.Records) < 100 || !strings.Contains(all.Records[0].Text, r.Guest.Release) {
		t.Errorf("log of %d records", len(all.Records))
	}
	if len(all.Modules) != 1 || all.Modules[0].Name != "nfnetlink" {
		t.Errorf("modules %+v, want nfnetlink", all.Modules)
	}
}
