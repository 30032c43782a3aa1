package lab

import (
	"archive/zip"
	"bufio"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"inquest/lab/guest/wire"
)

// TestMain lets the test binary play QEMU, when it is called by its name.
func TestMain(m *testing.M) {
	if filepath.Base(os.Args[0]) == "qemu-system-x86_64" {
		fakeQEMU(os.Args[1:], os.Getenv("FAKE_QEMU"))
		return
	}
	os.Exit(m.Run())
}

// useFakeQEMU puts the fake in front of PATH. How it behaves, fakeQEMU says.
func useFakeQEMU(t *testing.T, behaviour string) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := os.Symlink(self, filepath.Join(dir, "qemu-system-x86_64")); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+string(filepath.ListSeparator)+os.Getenv("PATH"))
	t.Setenv("FAKE_QEMU", behaviour)
}

// fakeQEMU plays QEMU together with a guest that crashes:
//
//	""         all goes well
//	"exit"     QEMU refuses its arguments
//	"silent"   the guest never says anything
//	"unborn"   the kernel panics before there is a guest
//	"failed"   a step of the guest fails
//	"vanish"   the machine ends in place of the crash
//	"refuse"   QEMU does not dump
//	"garbage"  the guest's report is not one
//	"hang"     nothing happens
//	"warn"     the guest survives, with a warning
//	"alive"    the guest pauses, and survives
func fakeQEMU(args []string, behaviour string) {
	if behaviour == "exit" {
		fmt.Fprintln(os.Stderr, "qemu-system-x86_64: invalid accelerator")
		os.Exit(1)
	}
	option := func(name string, n int) string {
		for i := range args[:len(args)-1] {
			if args[i] == name {
				if n--; n < 0 {
					return args[i+1]
				}
			}
		}
		return ""
	}
	console := strings.TrimPrefix(option("-serial", 0), "file:")
	report := os.NewFile(reportFD, "report")
	kdump := strings.Contains(option("-append", 0), "lab.save=")
	append := func(path, text string) {
		f, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
		if err == nil {
			_, err = f.WriteString(text)
			f.Close()
		}
		if err != nil {
			panic(err)
		}
	}
	tell := func(e wire.Event) { report.Write(e.Line()) }

	negotiated := make(chan struct{})
	go func() {
		<-negotiated
		append(console, "[    0.000000] Linux version 6.1.0-test\r\n")
		switch behaviour {
		case "silent":
			return
		case "unborn":
			append(console, "[    0.010000] ---[ end Kernel panic - not syncing: IO-APIC + timer doesn't work!\r\n")
			return
		case "garbage":
			report.WriteString("Segmentation fault\r\n")
			return
		}
		tell(wire.Event{Kind: wire.Up, Guest: &wire.Guest{Release: "6.1.0-test", CPUs: 2}})
		if behaviour == "failed" {
			tell(wire.Event{Kind: wire.Failed, Text: "load modules", Error: "exec format error"})
			return
		}
		tasks := []wire.Task{{PID: 1, TGID: 1, Comm: "init"}}
		tell(wire.Event{Kind: wire.Ready, Tasks: tasks})
		tell(wire.Event{Kind: wire.Begin, Name: "sysrq", Task: &tasks[0]})
		tell(wire.Event{Kind: wire.Step, Text: "write c"})
		tell(wire.Event{Kind: wire.Fact, Name: "bytes", Value: 1})
		switch behaviour {
		case "hang":
			return
		case "warn":
			append(console, "[    1.000000] refcount_t: underflow; use-after-free.\r\n")
			tell(wire.Event{Kind: wire.Ended})
			return
		case "alive":
			tell(wire.Event{Kind: wire.Paused, Name: "here"})
			if line, err := bufio.NewReader(report).ReadString('\n'); err != nil || line != wire.Resume {
				os.Exit(1)
			}
			tell(wire.Event{Kind: wire.Ended})
			return
		}
		append(console, "[    1.000000] Kernel panic - not syncing: sysrq triggered crash\r\n")
		if behaviour == "vanish" {
			os.Exit(0)
		}
		if !kdump {
			append(console, "[    1.000000] ---[ end Kernel panic")
			time.Sleep(10 * time.Millisecond) // a line comes in pieces
			append(console, " - not syncing: sysrq triggered crash ]---\r\n")
			return
		}
		tell(wire.Event{Kind: wire.Up, Guest: &wire.Guest{Release: "6.1.0-test", CPUs: 1, Capture: true}})
		_, disk, _ := strings.Cut(option("-drive", 0), "file=")
		tell(wire.Event{Kind: wire.Done, Bytes: writeDisk(strings.ReplaceAll(disk, ",,", ","))})
		os.Exit(0)
	}()
	serveQMP(behaviour, sync.OnceFunc(func() { close(negotiated) }))
	time.Sleep(time.Minute) // killed before
}

// writeDisk writes the dump "vmcore" as a capture kernel does.
func writeDisk(disk string) int64 {
	f, err := os.OpenFile(disk, os.O_WRONLY, 0)
	if err != nil {
		panic(err)
	}
	z := zip.NewWriter(f)
	w, err := z.CreateHeader(&zip.FileHeader{Name: "vmcore", Method: zip.Store})
	if err != nil {
		panic(err)
	}
	fmt.Fprint(w, "a dump from inside")
	if err := z.Close(); err != nil {
		panic(err)
	}
	n, err := f.Seek(0, 1)
	if err != nil {
		panic(err)
	}
	return n
}

// serveQMP answers on file descriptor 3, until the other end is closed. It calls
// answered after each answer.
func serveQMP(behaviour string, answered func()) {
	conn, err := net.FileConn(os.NewFile(qmpFD, "qmp"))
	if err != nil {
		panic(err)
	}
	fmt.Fprintln(conn, greeting)
	for in := bufio.NewScanner(conn); in.Scan(); {
		var request struct {
			Execute   string
			Arguments struct{ Format, Protocol string }
		}
		if err := json.Unmarshal(in.Bytes(), &request); err != nil {
			panic(err)
		}
		if request.Execute == "dump-guest-memory" {
			if behaviour == "refuse" {
				fmt.Fprintln(conn, `{"error": {"class": "GenericError", "desc": "dump: failed to write"}}`)
				continue
			}
			path := strings.TrimPrefix(request.Arguments.Protocol, "file:")
			// As QEMU does, read-only.
			if err := os.WriteFile(path, []byte("a dump in format "+request.Arguments.Format), 0o400); err != nil {
				panic(err)
			}
		}
		fmt.Fprintln(conn, `{"event": "STOP"}`)
		answer := `{}`
		if request.Execute == "query-dump-guest-memory-capability" {
			answer = `{"formats": ["elf", "kdump-zlib", "win-dmp"]}`
		}
		fmt.Fprintf(conn, `{"return": %s}`+"\n", answer)
		answered()
	}
}
