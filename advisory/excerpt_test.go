package advisory

import (
	"bufio"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"inquest/kernel"
)

// excerpt is what the signatures of one advisory see of one kernel: the functions that
// they look into, and the symbols that those lead to. testdata/code has one file an
// advisory; they were taken from kernels that distributions ship, by the test with the
// tags kernels and record.
type excerpt struct {
	kernel  string // a distribution's package and its version
	state   State
	symbols []kernel.Symbol
	code    map[kernel.Addr][]byte
}

func (e *excerpt) LookupAll(name string) ([]kernel.Symbol, error) {
	var all []kernel.Symbol
	for _, s := range e.symbols {
		if s.Name == name {
			all = append(all, s)
		}
	}
	if len(all) == 0 {
		return nil, kernel.ErrNoSymbol
	}
	return all, nil
}

func (e *excerpt) SymbolAt(addr kernel.Addr) (kernel.Symbol, uint64, bool) {
	for _, s := range e.symbols {
		if off := uint64(addr - s.Addr); addr >= s.Addr && off < max(s.Size, 1) {
			return s, off, true
		}
	}
	return kernel.Symbol{}, 0, false
}

func (e *excerpt) Slice(addr kernel.Addr, n int) ([]byte, error) {
	code, ok := e.code[addr]
	if !ok || len(code) < n {
		return nil, fmt.Errorf("no code at %v", addr)
	}
	return code[:n], nil
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

func readExcerpts(t *testing.T, path string) []*excerpt {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var all []*excerpt
	var e *excerpt
	var at kernel.Addr
	number := func(s string, base int) uint64 {
		n, err := strconv.ParseUint(s, base, 64)
		if err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		return n
	}
	for s := bufio.NewScanner(f); s.Scan(); {
		words := strings.Fields(s.Text())
		switch words[0] {
		case "kernel":
			e = &excerpt{kernel: strings.Join(words[1:len(words)-1], " "), code: make(map[kernel.Addr][]byte)}
			e.state = map[string]State{"exposed": Exposed, "fixed": Fixed, "unknown": Undecided}[words[len(words)-1]]
			all = append(all, e)
		case "symbol":
			e.symbols = append(e.symbols, kernel.Symbol{Addr: kernel.Addr(number(words[1], 16)), Size: number(words[2], 10), Name: words[3], Type: 't'})
		case "code":
			at = kernel.Addr(number(words[1], 16))
		default:
			b, err := hex.DecodeString(words[0])
			if err != nil {
				t.Fatalf("%s: %v", path, err)
			}
			e.code[at] = append(e.code[at], b...)
		}
	}
	return all
}

// The signature of every advisory tells a distribution's kernel that has the bug from
// one that has the fix.
func TestSignatures(t *testing.T) {
	all, err := Shipped()
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range all {
		seen := map[State]int{}
		for _, e := range readExcerpts(t, filepath.Join("testdata", "code", a.ID+".txt")) {
			v := a.CheckCode(e)
			if v.State != e.state {
				t.Errorf("%s on %s: %v (%s), want %v", a.ID, e.kernel, v.State, v.Reason, e.state)
			}
			if (v.State != Undecided) != (v.Reason != "") || v.State != Undecided && !strings.HasPrefix(v.Reason, v.Function+" ") {
				t.Errorf("%s on %s: %v by %s with reason %q", a.ID, e.kernel, v.State, v.Function, v.Reason)
			}
			seen[v.State]++
		}
		if seen[Exposed] == 0 || seen[Fixed] == 0 {
			t.Errorf("%s was tested against %d exposed kernels and %d fixed ones", a.ID, seen[Exposed], seen[Fixed])
		}
	}
}

// A function that ends in the middle of an instruction, or has bytes that are none,
// proves nothing by what it has not.
func TestSignaturesDamaged(t *testing.T) {
	all, err := Shipped()
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range all {
		for _, e := range readExcerpts(t, filepath.Join("testdata", "code", a.ID+".txt")) {
			for _, code := range e.code {
				for i := range code {
					code[i] = 0x06 // push %es, which 64-bit mode has not
				}
			}
			if v := a.CheckCode(e); v.State == Exposed || v.State != e.state && v.State == Fixed {
				t.Errorf("%s on %s without its code: %v (%s)", a.ID, e.kernel, v.State, v.Reason)
			}
		}
	}
}
