package lab

import (
	"bytes"
	"encoding/hex"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// cpioEntry is what the tests read of an entry.
type cpioEntry struct {
	Name string
	Mode uint32
	Data string
}

// readCpio reads an archive as the kernel's init/initramfs.c does.
func readCpio(t *testing.T, archive []byte) []cpioEntry {
	t.Helper()
	var entries []cpioEntry
	inodes := make(map[uint32]bool)
	at := 0
	take := func(n int) []byte {
		if at+n > len(archive) {
			t.Fatalf("archive of %d bytes ends early: %d wanted at %d", len(archive), n, at)
		}
		at += n
		return archive[at-n : at]
	}
	align := func() {
		for at%4 != 0 {
			if b := take(1)[0]; b != 0 {
				t.Fatalf("padding is %#x", b)
			}
		}
	}
	for {
		if magic := take(6); string(magic) != "070701" {
			t.Fatalf("magic %q at %d", magic, at-6)
		}
		var fields [13]uint32
		for i := range fields {
			b, err := hex.DecodeString(string(take(8)))
			if err != nil {
				t.Fatal(err)
			}
			fields[i] = uint32(b[0])<<24 | uint32(b[1])<<16 | uint32(b[2])<<8 | uint32(b[3])
		}
		name := take(int(fields[11]))
		align()
		data := take(int(fields[6]))
		align()
		if name[len(name)-1] != 0 {
			t.Fatalf("name %q has no end", name)
		}
		e := cpioEntry{string(name[:len(name)-1]), fields[1], string(data)}
		if e.Name == "TRAILER!!!" {
			if at != len(archive) {
				t.Errorf("%d bytes after the trailer", len(archive)-at)
			}
			return entries
		}
		// The kernel makes hard links of entries with the same inode.
		if inodes[fields[0]] {
			t.Errorf("inode %d of %s is used twice", fields[0], e.Name)
		}
		inodes[fields[0]] = true
		entries = append(entries, e)
	}
}

func TestArchive(t *testing.T) {
	var out bytes.Buffer
	a := NewArchive(&out)
	a.Dir("proc")
	a.File("/a/b/one", 0o755, []byte("x"))
	a.File("a/b/empty", 0o644, nil)
	a.Link("bin/tool", "/a/b/one")
	a.Dir("a//b/")
	a.File("a/four", 0o600, []byte("four"))
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	want := []cpioEntry{
		{"proc", 0o040755, ""},
		{"a", 0o040755, ""},
		{"a/b", 0o040755, ""},
		{"a/b/one", 0o100755, "x"},
		{"a/b/empty", 0o100644, ""},
		{"bin", 0o040755, ""},
		{"bin/tool", 0o120777, "/a/b/one"},
		{"a/four", 0o100600, "four"},
	}
	if diff := cmp.Diff(want, readCpio(t, out.Bytes())); diff != "" {
		t.Error(diff)
	}
}

type failingWriter struct{ left int }

func (w *failingWriter) Write(p []byte) (int, error) {
	if len(p) > w.left {
		return 0, errDiskFull
	}
	w.left -= len(p)
	return len(p), nil
}

var errDiskFull = errors.New("disk full")

func TestArchiveReportsTheFirstError(t *testing.T) {
	a := NewArchive(&failingWriter{200})
	a.File("file", 0o644, make([]byte, 1000))
	a.File("small", 0o644, nil)
	if err := a.Close(); !errors.Is(err, errDiskFull) {
		t.Errorf("Close: %v, want %v", err, errDiskFull)
	}
}

func TestInitramfs(t *testing.T) {
	var out bytes.Buffer
	i := &Initramfs{
		Guest:   []byte("guest"),
		Modules: []Module{{"virtio", []byte("v")}, {"virtio_blk", []byte("vb")}},
		Files:   map[string][]byte{"/lib64/ld.so": []byte("ld"), "bin/tool": []byte("tool")},
	}
	if err := i.Write(&out); err != nil {
		t.Fatal(err)
	}
	files := make(map[string]string)
	for _, e := range readCpio(t, out.Bytes()) {
		files[e.Name] = e.Data
	}
	for name, want := range map[string]string{
		"init":                  "guest",
		"bin/waiters":           "/init",
		"bin/spinner":           "/init",
		"modules/order":         "/modules/virtio.ko\n/modules/virtio_blk.ko\n",
		"modules/virtio_blk.ko": "vb",
		"lib64/ld.so":           "ld",
		"bin/tool":              "tool",
	} {
		if files[name] != want {
			t.Errorf("%s is %q, want %q", name, files[name], want)
		}
	}
	var again bytes.Buffer
	if err := i.Write(&again); err != nil || !slices.Equal(out.Bytes(), again.Bytes()) {
		t.Errorf("the archive differs when it is written again (%v)", err)
	}
}

func BenchmarkArchive(b *testing.B) {
	data := []byte(strings.Repeat("x", 10<<20))
	b.SetBytes(int64(len(data)))
	for b.Loop() {
		var out bytes.Buffer
		a := NewArchive(&out)
		a.File("init", 0o755, data)
		a.Close()
	}
}
