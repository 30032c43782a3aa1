//go:build kernels && record

package advisory

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"inquest/kernel"
)

var kernels = flag.String("kernels", "", "directory of unpacked packages of kernels, one directory each: a word to sort it by, and its name")

// TestRecord writes testdata/code anew: of each advisory, what its signatures see of the
// oldest and the newest kernel that is exposed, and of as many that are fixed.
func TestRecord(t *testing.T) {
	all, err := Shipped()
	if err != nil {
		t.Fatal(err)
	}
	dirs, err := os.ReadDir(*kernels)
	if err != nil {
		t.Fatal(err)
	}
	taken := make(map[string]map[State][]*excerpt)
	for _, dir := range dirs {
		_, name, _ := strings.Cut(dir.Name(), " ")
		root := filepath.Join(*kernels, dir.Name())
		files, _ := filepath.Glob(root + "/boot/vmlinuz-*")
		more, _ := filepath.Glob(root + "/usr/lib/modules/*/vmlinuz")
		if files = append(files, more...); len(files) != 1 {
			t.Fatalf("%s: %d kernels", root, len(files))
		}
		img := OpenImage(t, files[0], root+"/.", all)
		for _, a := range all {
			e := &excerpt{kernel: name, code: make(map[kernel.Addr][]byte)}
			v := a.CheckCode(recorder{img, e})
			e.state = v.State
			if taken[a.ID] == nil {
				taken[a.ID] = make(map[State][]*excerpt)
			}
			taken[a.ID][v.State] = append(taken[a.ID][v.State], e)
			t.Logf("%-32s %-26s %-8v %s", dir.Name(), a.ID, v.State, v.Reason)
		}
	}
	for _, a := range all {
		var text strings.Builder
		for _, state := range []State{Exposed, Fixed} {
			list := taken[a.ID][state]
			for i, e := range list {
				if i == 0 || i == len(list)-1 {
					e.write(&text)
				}
			}
		}
		if err := os.WriteFile(filepath.Join("testdata", "code", a.ID+".txt"), []byte(text.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// recorder keeps what is asked of a kernel.
type recorder struct {
	Code
	to *excerpt
}

func (r recorder) note(s kernel.Symbol) {
	if !slices.ContainsFunc(r.to.symbols, func(have kernel.Symbol) bool { return have.Addr == s.Addr && have.Name == s.Name }) {
		r.to.symbols = append(r.to.symbols, s)
	}
}

func (r recorder) LookupAll(name string) ([]kernel.Symbol, error) {
	all, err := r.Code.LookupAll(name)
	for _, s := range all {
		r.note(s)
	}
	return all, err
}

func (r recorder) SymbolAt(addr kernel.Addr) (kernel.Symbol, uint64, bool) {
	s, off, ok := r.Code.SymbolAt(addr)
	if ok {
		r.note(s)
	}
	return s, off, ok
}

func (r recorder) Slice(addr kernel.Addr, n int) ([]byte, error) {
	code, err := r.Code.Slice(addr, n)
	if err == nil {
		r.to.code[addr] = slices.Clone(code)
	}
	return code, err
}

// write prints the excerpt as readExcerpts reads it.
func (e *excerpt) write(w *strings.Builder) {
	fmt.Fprintf(w, "kernel %s %v\n", e.kernel, e.state)
	for _, s := range e.symbols {
		fmt.Fprintf(w, "symbol %x %d %s\n", uint64(s.Addr), s.Size, s.Name)
	}
	for _, s := range e.symbols {
		code := e.code[s.Addr]
		if len(code) == 0 {
			continue
		}
		fmt.Fprintf(w, "code %x\n", uint64(s.Addr))
		for line := range slices.Chunk(code, 40) {
			fmt.Fprintf(w, "%x\n", line)
		}
	}
}
