package lab

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"inquest/lab/guest/wire"
)

// testScenario is one that the fake QEMU can play.
func testScenario(t *testing.T) Scenario {
	guest := filepath.Join(t.TempDir(), "guest")
	if err := os.WriteFile(guest, []byte("guest"), 0o755); err != nil {
		t.Fatal(err)
	}
	// What a run leaves behind shows in its directory for temporary files.
	t.Setenv("TMPDIR", t.TempDir())
	return Scenario{Name: "test", Crash: "sysrq", Kernel: testKernel(t), Guest: guest, Accel: TCG,
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
	s := testScenario(t)
	s.QEMU = []string{FormatELF, FormatKdumpZlib}
	var steps []string
	s.Progress = func(step string) { steps = append(steps, step) }
	for range 2 { // over the results of the first run
		r, err := Run(t.Context(), s)
		if err != nil {
			t.Fatal(err)
		}
		if r.Guest.Release != "6.1.0-test" || r.Crasher == nil || r.Crasher.Comm != "init" || len(r.Tasks) != 1 ||
			r.Truth != (Truth{"user-panic", "sysrq_handle_crash"}) || r.Accel != TCG {
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
	want := []string{"pack the guest", "boot 6.1.0-test", "crash: sysrq", "dump elf", "dump kdump-zlib"}
	if !slices.Equal(steps[:len(steps)/2], want) {
		t.Errorf("steps %q, want %q", steps, want)
	}
	checkNothingLeft(t)
}

func TestRunKdump(t *testing.T) {
	useFakeQEMU(t, "")
	s := testScenario(t)
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

func TestRunFails(t *testing.T) {
	for behaviour, want := range map[string]string{
		"exit":    "run test under tcg: the guest did not boot",
		"silent":  "the guest did not boot: wait for event \"up\" of the guest: context deadline exceeded; the console ends with:\n[    0.000000] Linux version",
		"failed":  "guest: load modules: exec format error",
		"vanish":  "the virtual machine ended; the console ends with:",
		"refuse":  "QMP dump-guest-memory: dump: failed to write",
		"garbage": "not an event of a lab guest: \"Segmentation fault",
	} {
		t.Run(behaviour, func(t *testing.T) {
			useFakeQEMU(t, behaviour)
			s := testScenario(t)
			s.QEMU = []string{FormatELF}
			if behaviour == "silent" {
				s.Timeout = 500 * time.Millisecond
			}
			writeFiles(t, s.Dir, map[string][]byte{"scenario.json": []byte("of an earlier run")})
			start := time.Now()
			_, err := Run(t.Context(), s)
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
	s := testScenario(t)
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

func TestWaitEvent(t *testing.T) {
	path := filepath.Join(t.TempDir(), "report")
	var text bytes.Buffer
	for _, e := range []wire.Event{{Kind: wire.Up}, {Kind: wire.Saved, File: "a"}, {Kind: wire.Done, Bytes: 7}, {Kind: wire.Failed, Step: "s", Error: "e"}} {
		text.Write(bytes.ReplaceAll(e.Line(), []byte("\n"), []byte("\r\n"))) // as a terminal does
	}
	if err := os.WriteFile(path, text.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
	vm := &VM{report: tail{path: path}, ended: make(chan struct{}), err: ErrEnded}
	close(vm.ended)
	if e, err := vm.WaitEvent(t.Context(), wire.Done); err != nil || e.Bytes != 7 {
		t.Errorf("event %+v, %v", e, err)
	}
	var failed *GuestError
	if _, err := vm.WaitEvent(t.Context(), wire.Done); !errors.As(err, &failed) || *failed != (GuestError{"s", "e"}) {
		t.Errorf("a failed step: %v", err)
	}
	if _, err := vm.WaitEvent(t.Context(), wire.Done); !errors.Is(err, ErrEnded) {
		t.Errorf("after the end: %v", err)
	}
}

func TestMachineArgs(t *testing.T) {
	m := &Machine{Accel: TCG, CPUs: 2, MemoryMiB: 512, Kernel: "vmlinuz", Initrd: "initrd", Append: "console=ttyS0 lab.crash=sysrq",
		Console: "console.log", Report: "report.jsonl"}
	const common = "-name inquest-lab -no-user-config -nodefaults -display none -no-reboot -machine q35 -accel tcg -cpu max,la57=off " +
		"-smp 2 -m 512M -kernel vmlinuz -initrd initrd -append console=ttyS0 lab.crash=sysrq " +
		"-serial file:console.log -serial file:report.jsonl -chardev socket,id=qmp,fd=3 -mon chardev=qmp,mode=control"
	for _, tt := range []struct {
		change func(*Machine)
		want   string
	}{
		{func(*Machine) {}, common},
		{func(m *Machine) { m.VMCoreInfo = true }, common + " -device vmcoreinfo"},
		{func(m *Machine) { m.Disk = "/tmp/a,b" }, common + " -drive if=none,id=disk,format=raw,cache=unsafe,file=/tmp/a,,b -device virtio-blk-pci,drive=disk"},
		{func(m *Machine) { m.Accel = KVM }, strings.Replace(common, "tcg -cpu max,la57=off", "kvm -cpu host", 1)},
	} {
		c := *m
		tt.change(&c)
		if got := strings.Join(c.Args(), " "); got != tt.want {
			t.Errorf("arguments\n%s\nwant\n%s", got, tt.want)
		}
	}
}
