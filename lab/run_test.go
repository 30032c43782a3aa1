package lab

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"inquest/lab/guest/wire"
)

// testExperiment is one that the fake QEMU can play.
func testExperiment(t *testing.T) Experiment {
	guest := filepath.Join(t.TempDir(), "guest")
	if err := os.WriteFile(guest, []byte("guest"), 0o755); err != nil {
		t.Fatal(err)
	}
	// What a run leaves behind shows in its directory for temporary files.
	t.Setenv("TMPDIR", t.TempDir())
	sysrq, err := FindScenario("sysrq")
	if err != nil {
		t.Fatal(err)
	}
	return Experiment{Scenario: sysrq, Kernel: testKernel(t), Guest: guest, Accel: TCG, NoVMCoreInfo: true,
		Dir: filepath.Join(t.TempDir(), "a, b"), Timeout: 30 * time.Second}
}

func checkNothingLeft(t *testing.T) {
	t.Helper()
	if left, err := os.ReadDir(os.Getenv("TMPDIR")); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v (%v)", left, err)
	}
}

func TestRunFromOutside(t *testing.T) {
	useFakeQEMU(t, "")
	s := testExperiment(t)
	s.QEMU = []string{FormatELF, FormatKdumpZlib}
	var steps []string
	s.Progress = func(step string) {
		if !strings.HasPrefix(step, "no VMCOREINFO") { // the fake dumps have none
			steps = append(steps, step)
		}
	}
	for range 2 { // over the results of the first run
		r, err := Run(t.Context(), s)
		if err != nil {
			t.Fatal(err)
		}
		if r.Guest.Release != "6.1.0-test" || r.Crasher == nil || r.Crasher.Comm != "init" || len(r.Tasks) != 1 ||
			r.Truth.Classes[0] != "user-panic" || r.Accel != TCG ||
			r.Outcome != Panicked || !r.Expected() || r.Fact("bytes") != 1.0 || !slices.Equal(r.Steps, []string{"write c"}) {
			t.Errorf("result %+v", r)
		}
		for i, format := range s.QEMU {
			text, err := os.ReadFile(r.Dumps[i].Path)
			if err != nil || string(text) != "a dump in format "+format {
				t.Errorf("dump %s: %q, %v", format, text, err)
			}
		}
		var kept Result
		text, err := os.ReadFile(filepath.Join(s.Dir, "scenario.json"))
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(text, &kept); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(r, kept); diff != "" {
			t.Errorf("scenario.json is not the result:\n%s", diff)
		}
	}
	want := []string{"pack the guest", "boot 6.1.0-test", "scenario sysrq", "write c", "dump elf", "dump kdump-zlib"}
	if !slices.Equal(steps[:len(steps)/2], want) {
		t.Errorf("steps %q, want %q", steps, want)
	}
	checkNothingLeft(t)
}

func TestRunKdump(t *testing.T) {
	useFakeQEMU(t, "")
	s := testExperiment(t)
	writeFiles(t, s.Kernel.Modules, map[string][]byte{"kernel/virtio_pci_modern_dev.ko": moduleELF()})
	s.Kdump = []Save{{File: "vmcore"}}
	r, err := Run(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	if len(r.Dumps) != 1 || r.Dumps[0].By != "kernel" {
		t.Fatalf("dumps %+v", r.Dumps)
	}
	if text, err := os.ReadFile(r.Dumps[0].Path); err != nil || string(text) != "a dump from inside" {
		t.Errorf("dump %q, %v", text, err)
	}
	checkNothingLeft(t)
}

// Where kdump does not come about, QEMU dumps.
func TestRunKdumpWithoutPanic(t *testing.T) {
	useFakeQEMU(t, "warn")
	e := testExperiment(t)
	writeFiles(t, e.Kernel.Modules, map[string][]byte{"kernel/virtio_pci_modern_dev.ko": moduleELF()})
	e.Kdump = []Save{{File: "vmcore"}}
	r, err := Run(t.Context(), e)
	if err != nil || len(r.Dumps) != 1 || r.Dumps[0].By != "qemu" || r.Dumps[0].How != FormatELF {
		t.Errorf("dumps %+v, %v", r.Dumps, err)
	}
}

func TestRunFails(t *testing.T) {
	for behaviour, want := range map[string]string{
		"exit":    "run sysrq under tcg: the guest did not boot",
		"silent":  "the guest did not boot: wait for event \"up\" of the guest: context deadline exceeded; the console ends with:\n[    0.000000] Linux version",
		"unborn":  "the guest did not boot: the kernel panicked; the console ends with:\n[    0.000000] Linux version",
		"failed":  "guest: load modules: exec format error",
		"vanish":  "the virtual machine ended; the console ends with:",
		"refuse":  "QMP dump-guest-memory: dump: failed to write",
		"garbage": "not an event of a lab guest: \"Segmentation fault",
	} {
		t.Run(behaviour, func(t *testing.T) {
			useFakeQEMU(t, behaviour)
			s := testExperiment(t)
			s.QEMU = []string{FormatELF}
			ctx := t.Context()
			if behaviour == "silent" {
				var cancel context.CancelFunc
				ctx, cancel = context.WithTimeout(ctx, 500*time.Millisecond)
				defer cancel()
			}
			writeFiles(t, s.Dir, map[string][]byte{"scenario.json": []byte("of an earlier run")})
			start := time.Now()
			_, err := Run(ctx, s)
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("error %v, want %q", err, want)
			}
			if took := time.Since(start); took > 20*time.Second {
				t.Errorf("it took %s", took)
			}
			if _, err := os.Stat(filepath.Join(s.Dir, "scenario.json")); err == nil {
				t.Error("scenario.json of a run that failed")
			}
			checkNothingLeft(t)
		})
	}
}

func TestRunWithoutTools(t *testing.T) {
	s := testExperiment(t)
	t.Setenv("PATH", t.TempDir())
	var missing *MissingToolError
	_, err := Run(t.Context(), s)
	if !errors.As(err, &missing) || !strings.Contains(err.Error(), "apt-get install qemu-system-x86") {
		t.Errorf("without QEMU: %v", err)
	}
	s.Kdump = []Save{{"d31", []string{"-d", "31"}}}
	_, err = Run(t.Context(), s)
	if !errors.As(err, &missing) || !strings.Contains(err.Error(), "apt-get install makedumpfile") {
		t.Errorf("without makedumpfile: %v", err)
	}
	s.Kdump, s.Guest = nil, ""
	_, err = Run(t.Context(), s)
	if !errors.As(err, &missing) || !strings.Contains(err.Error(), "apt-get install golang-go") {
		t.Errorf("without go: %v", err)
	}
}

// A VM does not outlive its Close, nor its context.
func TestVMEnds(t *testing.T) {
	useFakeQEMU(t, "silent")
	dir := t.TempDir()
	m := &Machine{Accel: TCG, Console: filepath.Join(dir, "console"), Report: filepath.Join(dir, "report")}
	ctx, cancel := context.WithCancel(t.Context())
	for _, end := range []func(*VM){(*VM).Close, func(*VM) { cancel() }} {
		vm, err := Start(ctx, m)
		if err != nil {
			t.Fatal(err)
		}
		end(vm)
		select {
		case <-vm.ended:
		case <-time.After(20 * time.Second):
			t.Fatal("QEMU is still there")
		}
		vm.Close()
	}
}

func TestWaitConsole(t *testing.T) {
	path := filepath.Join(t.TempDir(), "console")
	vm := &VM{console: path, ended: make(chan struct{}), err: ErrEnded}
	go func() {
		var text []byte
		for _, piece := range []string{"", "end Ker", "nel pan", "ic"} {
			text = append(text, piece...)
			os.WriteFile(path, text, 0o644)
			time.Sleep(40 * time.Millisecond)
		}
		close(vm.ended)
	}()
	for range 2 { // what was there before is found too
		if err := vm.WaitConsole(t.Context(), "end Kernel panic"); err != nil {
			t.Error(err)
		}
	}
	if err := vm.WaitConsole(t.Context(), "something else"); !errors.Is(err, ErrEnded) {
		t.Errorf("error %v, want %v", err, ErrEnded)
	}
}

func TestOutcomes(t *testing.T) {
	var told any
	for _, tt := range []struct {
		behaviour string
		meanwhile func(ctx context.Context, vm *VM, e *Experiment) error
		want      Outcome
		warnings  int
	}{
		{"", nil, Panicked, 0},
		{"warn", nil, Warned, 1},
		{"hang", nil, Hung, 0},
		{"alive", nil, Alive, 0},
		{"alive", func(ctx context.Context, vm *VM, e *Experiment) error {
			events := vm.Events()
			var err error
			if told, err = events.WaitFact(ctx, "bytes"); err != nil {
				return err
			}
			if err := events.WaitPause(ctx, "here"); err != nil {
				return err
			}
			e.Tell("host", "was here")
			return vm.Resume()
		}, Alive, 0},
	} {
		useFakeQEMU(t, tt.behaviour)
		e := testExperiment(t)
		s := *e.Scenario
		s.Meanwhile = tt.meanwhile
		e.Scenario = &s
		if tt.want == Hung {
			e.Timeout = 200 * time.Millisecond
		}
		r, err := Run(t.Context(), e)
		if err != nil {
			t.Errorf("%s: %v", tt.behaviour, err)
			continue
		}
		if r.Outcome != tt.want || r.Expected() != (tt.want == Panicked) || len(r.Warnings) != tt.warnings {
			t.Errorf("%s: outcome %s, warnings %q; want %s", tt.behaviour, r.Outcome, r.Warnings, tt.want)
		}
		if (r.Crasher != nil) != (tt.want == Panicked) {
			t.Errorf("%s: crasher %+v", tt.behaviour, r.Crasher)
		}
		if tt.meanwhile != nil && (told != 1.0 || r.Fact("host") != "was here") {
			t.Errorf("%s: the host was told %v; facts %v", tt.behaviour, told, r.Facts)
		}
	}
}

// A host's part that fails ends the run.
func TestMeanwhileFails(t *testing.T) {
	useFakeQEMU(t, "hang")
	e := testExperiment(t)
	s := *e.Scenario
	broken := errors.New("no debugger")
	s.Meanwhile = func(context.Context, *VM, *Experiment) error { return broken }
	e.Scenario = &s
	if _, err := Run(t.Context(), e); !errors.Is(err, broken) {
		t.Errorf("error %v, want %v", err, broken)
	}
}

func TestEvents(t *testing.T) {
	ours, theirs := net.Pipe()
	path := filepath.Join(t.TempDir(), "report")
	r, err := newReport(ours, path)
	if err != nil {
		t.Fatal(err)
	}
	vm := &VM{report: r, ended: make(chan struct{}), err: ErrEnded}
	go func() {
		for _, e := range []wire.Event{{Kind: wire.Up}, {Kind: wire.Saved, Name: "a"}, {Kind: wire.Done, Bytes: 7}, {Kind: wire.Failed, Text: "s", Error: "e"}} {
			theirs.Write(bytes.ReplaceAll(e.Line(), []byte("\n"), []byte("\r\n"))) // as a terminal does
		}
		theirs.Close()
		close(vm.ended)
	}()
	for range 2 { // each reader reads all
		events := vm.Events()
		if e, err := events.Wait(t.Context(), wire.Done); err != nil || e.Bytes != 7 {
			t.Errorf("event %+v, %v", e, err)
		}
		var failed *GuestError
		if _, err := events.Wait(t.Context(), wire.Done); !errors.As(err, &failed) || *failed != (GuestError{"s", "e"}) {
			t.Errorf("a failed step: %v", err)
		}
		if _, err := events.Wait(t.Context(), wire.Done); !errors.Is(err, ErrEnded) {
			t.Errorf("after the end: %v", err)
		}
	}
	r.Close()
	if text, err := os.ReadFile(path); err != nil || bytes.Count(text, []byte("\n")) != 4 {
		t.Errorf("the report is kept as %q (%v)", text, err)
	}
}

func TestMachineArgs(t *testing.T) {
	m := &Machine{Accel: TCG, CPUs: 2, MemoryMiB: 512, Kernel: "vmlinuz", Initrd: "initrd", Append: "console=ttyS0 lab.crash=sysrq",
		Console: "console.log", Report: "report.jsonl"}
	const common = "-name inquest-lab -no-user-config -nodefaults -display none -no-reboot -machine q35 -accel tcg -cpu max,la57=off,cx16=off " +
		"-smp 2 -m 512M -kernel vmlinuz -initrd initrd -append console=ttyS0 lab.crash=sysrq " +
		"-serial file:console.log -chardev socket,id=report,fd=4 -serial chardev:report -chardev socket,id=qmp,fd=3 -mon chardev=qmp,mode=control"
	for _, tt := range []struct {
		change func(*Machine)
		want   string
	}{
		{func(*Machine) {}, common},
		{func(m *Machine) { m.VMCoreInfo = true }, common + " -device vmcoreinfo"},
		{func(m *Machine) { m.Disk = "/tmp/a,b" }, common + " -drive if=none,id=disk,format=raw,cache=unsafe,file=/tmp/a,,b -device virtio-blk-pci,drive=disk"},
		{func(m *Machine) { m.Accel = KVM }, strings.Replace(common, "tcg -cpu max,la57=off,cx16=off", "kvm -cpu host", 1)},
	} {
		c := *m
		tt.change(&c)
		if got := strings.Join(c.Args(), " "); got != tt.want {
			t.Errorf("arguments\n%s\nwant\n%s", got, tt.want)
		}
	}
}

// Two runs do not share a directory, and what a killed one left does not matter.
func TestRunDirectory(t *testing.T) {
	useFakeQEMU(t, "")
	e := testExperiment(t)
	writeFiles(t, e.Dir, map[string][]byte{"machine/disk": []byte("of a run that was killed")})
	unlock, err := tryLock(e.Dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Run(t.Context(), e); !errors.Is(err, ErrBusy) {
		t.Errorf("error %v, want %v", err, ErrBusy)
	}
	unlock()
	if _, err := Run(t.Context(), e); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(e.Dir, machineDir)); err == nil {
		t.Error("the machine is left behind")
	}
	e.Keep = true
	if _, err := Run(t.Context(), e); err != nil {
		t.Fatal(err)
	}
	script, err := os.ReadFile(filepath.Join(e.Dir, machineDir, "boot.sh"))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"'-initrd' '" + filepath.Join(e.Dir, machineDir, "initrd") + "'", "'-serial' 'mon:stdio'", "lab.scenario=sysrq'"} {
		if !strings.Contains(string(script), want) {
			t.Errorf("boot.sh lacks %s:\n%s", want, script)
		}
	}
	if strings.Contains(string(script), "fd=") {
		t.Errorf("boot.sh speaks of file descriptors:\n%s", script)
	}
}
