package console

import (
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func read(t *testing.T, text string) *Log {
	t.Helper()
	l, err := Read(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// One oops, taken apart to the last.
func TestReadOops(t *testing.T) {
	l := read(t, "[    1.000000] usb 1-1: new device\n"+oops)
	if len(l.Reports) != 1 {
		t.Fatalf("%d reports, want 1", len(l.Reports))
	}
	r := l.Reports[0]
	if r.Kind != PageFault || !r.Fatal || r.Panic != "Fatal exception" || r.Address != 0x40 || r.Access != "write" {
		t.Errorf("kind %q fatal %v panic %q address %#x access %q", r.Kind, r.Fatal, r.Panic, r.Address, r.Access)
	}
	if r.CPU != 0 || r.PID != 1 || r.Comm != "init" || r.Release != "5.10.0-43-cloud-amd64" || r.Taint != "OE" {
		t.Errorf("cpu %d pid %d comm %q release %q taint %q", r.CPU, r.PID, r.Comm, r.Release, r.Taint)
	}
	if len(r.Modules) != 17 || r.Modules[0] != (Module{"crasher", "OE"}) {
		t.Errorf("modules %v", r.Modules)
	}
	m := r.Main()
	if m == nil || m.PC == nil || m.PC.Name() != "fault_null" || m.PC.Module != "crasher" {
		t.Fatalf("main section %+v", m)
	}
	if rax, ok := m.Get("r10"); !ok || rax != 0x40 {
		t.Errorf("r10 = %#x, %v: the registers are those of user mode", rax, ok)
	}
	var names []string
	for i := range m.Frames {
		names = append(names, m.Frames[i].Name())
	}
	if got, want := strings.Join(names, " "), "crash_null crasher_write proc_reg_write vfs_write ksys_write do_syscall_64 entry_SYSCALL_64_after_hwframe"; got != want {
		t.Errorf("frames %s, want %s", got, want)
	}
	if r.CodeAt != 42 || r.Code[r.CodeAt] != 0x48 {
		t.Errorf("code %x at %d", r.Code, r.CodeAt)
	}
	if len(r.Before) != 1 || r.Before[0].Text != "usb 1-1: new device" || l.Machine != "x86_64" {
		t.Errorf("before %v, machine %q", r.Before, l.Machine)
	}
}

// However the log came here, it says the same.
func TestReadPrefixes(t *testing.T) {
	bare := strings.NewReplacer().Replace(oops)
	var plain []string
	for line := range strings.Lines(bare) {
		_, text, _ := strings.Cut(strings.TrimRight(line, "\n"), "] ")
		plain = append(plain, text)
	}
	with := func(prefix string) string {
		var b strings.Builder
		for i, line := range plain {
			b.WriteString(prefix + line)
			if b.WriteByte('\n'); i%7 == 3 {
				b.WriteString(strings.Replace(prefix, "T77", "T78", 1) + "usb 1-1: something of no interest\n")
			}
		}
		return b.String()
	}
	for _, prefix := range []string{
		"", "<4>[   10.123567] ", "[Mon Jan  2 15:04:05 2006] ", "kern  :alert : [   10.123567] ", "Jan  2 15:04:05 box kernel: [   10.123567] ", "Jan 02 15:04:05 box kernel: ",
		"2006-01-02T15:04:05.123456+00:00 box kernel: ", "[   10.123567][   T77] ", "10.0.0.7 [   10.123567] ", "4,77,10123567,-;", "> ",
	} {
		l := read(t, with(prefix))
		if len(l.Reports) != 1 || l.Reports[0].Kind != PageFault || l.Reports[0].Panic != "Fatal exception" {
			t.Errorf("%q: %d reports", prefix, len(l.Reports))
			continue
		}
		if m := l.Reports[0].Main(); m == nil || len(m.Frames) != 7 || m.PC == nil || m.PC.Name() != "fault_null" {
			t.Errorf("%q: main section %+v", prefix, m)
		}
	}
}

// Two machines that send their logs to one place, and two threads of one, line by line.
func TestReadInterleaved(t *testing.T) {
	var b strings.Builder
	lines := strings.Split(strings.TrimRight(oops, "\n"), "\n")
	for _, line := range lines {
		_, text, _ := strings.Cut(line, "] ")
		b.WriteString("10.0.0.7 [   10.000000][    T1] " + text + "\n")
		b.WriteString("10.0.0.8 [   11.000000][    T1] " + text + "\n")
		b.WriteString("10.0.0.7 [   10.000000][   T99] " + strings.ReplaceAll(text, "crash_null", "other") + "\n")
	}
	l := read(t, b.String())
	if len(l.Reports) < 3 || len(l.Sources) != 2 {
		t.Fatalf("%d reports of %v", len(l.Reports), l.Sources)
	}
	for i, r := range l.Reports[:3] {
		want := [...]string{"crash_null", "crash_null", "other"}[i]
		if m := r.Main(); m == nil || len(m.Frames) < 7 || m.Frames[0].Name() != want {
			t.Errorf("report %d of %s: %+v", i, r.Opening.Source, m)
		}
	}
}

const banner = `      KERNEL: /usr/lib/debug/vmlinux
     RELEASE: 4.18.0-305.el8.x86_64
       PANIC: "Oops: 0002 [#1] SMP NOPTI" (check log for details)

PID: 1234     TASK: ffff9a3c40f18000  CPU: 3    COMMAND: "bash"
 #0 [ffffb8a1c1b3bb78] machine_kexec at ffffffff9146156e
 #1 [ffffb8a1c1b3bbd0] __crash_kexec at ffffffff9158f99d
 #2 [ffffb8a1c1b3bc98] crash_kexec at ffffffff9159088d
 #3 [ffffb8a1c1b3bcb0] oops_end at ffffffff9142434d
 #4 [ffffb8a1c1b3bcd0] no_context at ffffffff9147262f
 #5 [ffffb8a1c1b3bd28] __bad_area_nosemaphore at ffffffff9147298c
 #6 [ffffb8a1c1b3bd70] do_page_fault at ffffffff91473267
 #7 [ffffb8a1c1b3bda0] page_fault at ffffffff91e010fe
    [exception RIP: my_write+22]
    RIP: ffffffffc0a12016  RSP: ffffb8a1c1b3be58  RFLAGS: 00010246
    RAX: 0000000000000063  RBX: 0000000000000004  RCX: 0000000000000000
    ORIG_RAX: ffffffffffffffff  CS: 0010  SS: 0018
 #8 [ffffb8a1c1b3be60] vfs_write at ffffffff91723e15 [mymod]
 #9 [ffffb8a1c1b3be98] ksys_write at ffffffff9172408f
`

func TestReadSession(t *testing.T) {
	l := read(t, banner)
	if len(l.Reports) != 1 || l.Release != "4.18.0-305.el8.x86_64" || l.Format != "crash session" {
		t.Fatalf("%d reports, release %q, format %q", len(l.Reports), l.Release, l.Format)
	}
	r := l.Reports[0]
	m := r.Main()
	if r.PID != 1234 || r.CPU != 3 || r.Comm != "bash" || r.Panic != "Oops: 0002 [#1] SMP NOPTI" || m == nil || len(m.Frames) != 11 || m.PC == nil || m.PC.Symbol != "my_write" {
		t.Errorf("%+v\n%+v", r, m)
	}
	if rax, ok := m.Get("rax"); !ok || rax != 0x63 {
		t.Errorf("rax %#x, %v", rax, ok)
	}
}

// The parts of a pstore record come newest first, in files or in one.
func TestOpenPstore(t *testing.T) {
	lines := strings.SplitAfter(oops, "\n")
	n := len(lines) / 3
	parts := []string{"Panic#1 Part3\n" + strings.Join(lines[:n], ""), "Panic#1 Part2\n" + strings.Join(lines[n:2*n], ""), "Panic#1 Part1\n" + strings.Join(lines[2*n:], "")}
	dir := t.TempDir()
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o666); err != nil {
			t.Fatal(err)
		}
		return path
	}
	var z bytes.Buffer
	zw := gzip.NewWriter(&z)
	io.WriteString(zw, oops)
	zw.Close()
	for name, paths := range map[string][]string{
		"files":      {file("a-1", parts[2]), file("a-2", parts[1]), file("a-3", parts[0])},
		"one file":   {file("b", parts[2]+parts[1]+parts[0])},
		"ramoops":    {file("c", "====1700000000.123456-D\n"+parts[2]+parts[1]+parts[0])},
		"compressed": {file("d.gz", z.String())},
	} {
		r, err := Open(paths...)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		l, err := Read(r)
		if err != nil || r.Close() != nil {
			t.Fatal(err)
		}
		if len(l.Reports) != 1 || l.Reports[0].Main() == nil || len(l.Reports[0].Main().Frames) != 7 || !l.Reports[0].Fatal {
			t.Errorf("%s: %d reports", name, len(l.Reports))
		}
	}
	for _, path := range []string{file("zero", strings.Repeat("\x00", 1000)), file("empty", ""), file("binary", "KDUMP   \x06\x00\x00\x00\xff\xfe\x80\x81\x82\x83\x01\x02\x03\x04"), dir} {
		if _, err := Open(path); !errors.Is(err, ErrNotText) {
			t.Errorf("%s: %v, want ErrNotText", path, err)
		}
	}
	if _, err := Open(filepath.Join(dir, "missing")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("missing file: %v", err)
	}
}

func TestReadNothing(t *testing.T) {
	l := read(t, "Called the data centre at three.\nNobody there.")
	if len(l.Reports) != 0 || l.Lines != 2 || len(l.Tail) != 2 {
		t.Errorf("%d reports, %d lines, %d at the end", len(l.Reports), l.Lines, len(l.Tail))
	}
	if l := read(t, strings.Repeat("x", 10<<20)+"\nBUG: KASAN: use-after-free in f+0x1/0x2\n"); len(l.Reports) != 1 || l.Lines != 2 {
		t.Errorf("behind a long line: %d reports in %d lines", len(l.Reports), l.Lines)
	}
}

// Whatever the text holds, reading it ends, within its bounds.
func FuzzRead(f *testing.F) {
	f.Add([]byte(oops))
	f.Add([]byte(banner))
	f.Add([]byte("Panic#1 Part1\nBUG: KASAN: use-after-free in f+0x1/0x2\n"))
	f.Add([]byte("WARNING: possible circular locking dependency detected\n-> #1 (&a){+.+.}:\n f+0x1/0x2\nis trying to acquire lock:\n(x), at: f+0x1/0x2\n"))
	f.Add([]byte("rcu: INFO: rcu_sched self-detected stall on CPU\nNMI backtrace for cpu 1\ntask:a state:D stack:0 pid:1 ppid:1\nCall Trace:\n f+0x1/0x2\n"))
	f.Add([]byte("[<c010e4e8>] (f) from [<c010ab2c>] (g+0x10/0x14)\nUnable to handle kernel NULL pointer dereference at virtual address 00000004\n"))
	f.Add([]byte("4,1,1,-,caller=T1;BUG: unable to handle page fault for address: 0\n[    1.000000] [    2.000000] x[    3.000000] y\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		l, err := Read(bytes.NewReader(text))
		if err != nil {
			t.Fatal(err)
		}
		IsText(text)
		records(text)
		if len(l.Reports) > maxReports {
			t.Errorf("%d reports", len(l.Reports))
		}
		for _, r := range l.Reports {
			if len(r.Lines) > maxLines || len(r.Sections) > maxSections+1 || len(r.Modules) > maxModules {
				t.Errorf("%d lines, %d sections, %d modules", len(r.Lines), len(r.Sections), len(r.Modules))
			}
		}
	})
}
