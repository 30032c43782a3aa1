package lab

import (
	"bytes"
	"debug/elf"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// A program works as before without what is behind its segments.
func TestStripped(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	code, err := os.ReadFile(self)
	if err != nil {
		t.Fatal(err)
	}
	symbols := make([]byte, 1<<20) // or what else may be there
	short := stripped(append(code, symbols...))
	if len(short) > len(code) {
		t.Errorf("%d bytes of %d are left", len(short), len(code)+len(symbols))
	}
	path := filepath.Join(t.TempDir(), "lab.test")
	if err := os.WriteFile(path, short, 0o755); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(path, "-test.list", "^TestStripped$").CombinedOutput(); err != nil || !bytes.Contains(out, []byte("TestStripped")) {
		t.Errorf("it does not run: %v\n%s", err, out)
	}
	if again := stripped(short); !bytes.Equal(again, short) {
		t.Errorf("stripped twice it has %d bytes, once %d", len(again), len(short))
	}
}

func FuzzStripped(f *testing.F) {
	program := buildELF("/lib64/ld.so")
	program[32] = elfHeader // e_phoff
	program[54] = 56        // e_phentsize
	f.Add(program)
	f.Fuzz(func(t *testing.T, program []byte) {
		if !isELF(program) {
			return
		}
		if len(stripped(program)) > len(program) {
			t.Error("it has grown")
		}
		if e, err := elf.NewFile(bytes.NewReader(program)); err == nil {
			e.Close()
		}
	})
}
