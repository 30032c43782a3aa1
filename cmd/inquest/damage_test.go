package main

import (
	"bytes"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"
)

// TestDamagedFiles cuts dumps at random places and flips random bytes of them, and
// runs commands on what is left: there must be a report or an error, soon, and never
// a panic. INQUEST_DUMPS may name further dumps, separated as in PATH.
func TestDamagedFiles(t *testing.T) {
	dumps := append([]string{"../../testdata/example.kdump"}, filepath.SplitList(os.Getenv("INQUEST_DUMPS"))...)
	for _, dump := range dumps {
		t.Run(filepath.Base(dump), func(t *testing.T) {
			whole, err := os.ReadFile(dump)
			if err != nil {
				t.Fatal(err)
			}
			r := rand.New(rand.NewPCG(1, uint64(len(whole))))
			path := filepath.Join(t.TempDir(), "damaged")
			for i := range 60 {
				file := bytes.Clone(whole)
				if i < 50 {
					file = file[:r.IntN(len(file))]
				} else {
					for range 1000 {
						file[r.IntN(len(file))] ^= byte(1 + r.IntN(255))
					}
				}
				if err := os.WriteFile(path, file, 0o600); err != nil {
					t.Fatal(err)
				}
				for _, command := range [][]string{{"explain", "--verbose"}, {"bt", "--all", "--json"}, {"ps"}} {
					survives(t, command, path)
				}
				// Of the others one after the other: each walks other structures.
				survives(t, walks[i%len(walks)], path)
				if t.Failed() {
					t.Fatalf("case %d of %s", i, dump)
				}
			}
		})
	}
}

// walks are the commands that follow lists and trees of the kernel.
var walks = [][]string{
	{"locks"}, {"runq", "-t"}, {"timer"}, {"timer", "-r"}, {"irq"}, {"dev"}, {"dev", "-d"}, {"net"}, {"net", "-a"}, {"mount"}, {"swap"},
	{"kmem", "-i"}, {"kmem", "-v"}, {"kmem", "-z"}, {"foreach", "files"}, {"foreach", "vm"}, {"foreach", "net"}, {"foreach", "user", "bt", "-R", "schedule"},
}

func survives(t *testing.T, command []string, path string) {
	t.Helper()
	var out, errOut bytes.Buffer
	start := time.Now()
	code := run(slices.Concat(command[:1], []string{path}, command[1:]), stdio{&out, &errOut})
	if took := time.Since(start); took > 20*time.Second {
		t.Errorf("%v took %v", command, took)
	}
	switch code {
	case exitDone:
		if out.Len() == 0 {
			t.Errorf("%v: nothing printed, and no error", command)
		}
	case exitNothing, exitNoDump:
		if errOut.Len() == 0 {
			t.Errorf("%v: exit code %d without a message", command, code)
		}
	default:
		t.Errorf("%v: exit code %d: %s", command, code, errOut.String())
	}
}
