package advisory

import (
	"bufio"
	"encoding/binary"
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

func readExcerpts(t testing.TB, path string) []*excerpt {
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

// On a machine booted with preempt=full the kernel has patched the calls of
// cond_resched() out: that the fix is not to be seen then says nothing.
func TestPatchedOut(t *testing.T) {
	all, err := Shipped()
	if err != nil {
		t.Fatal(err)
	}
	a := Find(all, "memcg-oom-soft-lockup")
	patched := 0
	for _, e := range readExcerpts(t, filepath.Join("testdata", "code", a.ID+".txt")) {
		if e.state != Fixed {
			continue
		}
		for at, code := range e.code {
			for i := range len(code) - 5 {
				to := at + kernel.Addr(i+5) + kernel.Addr(int64(int32(binary.LittleEndian.Uint32(code[i+1:]))))
				if s, _, ok := e.SymbolAt(to); code[i] == 0xe8 && ok && slices.Contains(a.Code[0].Fixed.Any, s.Name) {
					copy(code[i:], patchedOut)
					patched++
				}
			}
		}
		if v := a.CheckCode(e); v.State != Undecided {
			t.Errorf("%s with preempt=full: %v (%s)", e.kernel, v.State, v.Reason)
		}
	}
	if patched == 0 {
		t.Error("no call was patched out")
	}
}

// The guide's table has them all, and what each was tested on.
func TestGuide(t *testing.T) {
	guide, err := os.ReadFile("../docs/advisories.md")
	if err != nil {
		t.Fatal(err)
	}
	all, err := Shipped()
	if err != nil {
		t.Fatal(err)
	}
	rows := make(map[string]string)
	for line := range strings.Lines(string(guide)) {
		if id, row, ok := strings.Cut(strings.TrimPrefix(line, "| `"), "` | "); ok {
			rows[id] = row
		}
	}
	for _, a := range all {
		row := rows[a.ID]
		want := []string{a.Title, a.CVE, "| " + a.Fixed[0].Version + " |", "| " + strings.Join(a.Stable, ", ") + " |"}
		for _, e := range readExcerpts(t, filepath.Join("testdata", "code", a.ID+".txt")) {
			_, version, _ := strings.Cut(e.kernel, "=")
			want = append(want, version)
		}
		for _, w := range want {
			if !strings.Contains(row, w) {
				t.Errorf("docs/advisories.md says of %s %q, without %q", a.ID, row, w)
			}
		}
	}
}

// A dump's code may be anything.
func FuzzCheckCode(f *testing.F) {
	all, err := Shipped()
	if err != nil {
		f.Fatal(err)
	}
	f.Add([]byte{0xf3, 0x0f, 0x1e, 0xfa, 0xe8, 0, 0, 0, 0, 0xc3}, uint64(10), "tcp_close.cold")
	f.Add([]byte{0x2e, 0x2e, 0x2e, 0x31, 0xc0, 0xc3}, uint64(1<<40), "__pfx_")
	f.Fuzz(func(t *testing.T, code []byte, size uint64, other string) {
		const at kernel.Addr = 0xffffffff81000000
		for _, a := range all {
			e := &excerpt{code: make(map[kernel.Addr][]byte)}
			for i, s := range a.Code {
				addr := at + kernel.Addr(i)*4096
				e.symbols = append(e.symbols, kernel.Symbol{Name: s.In[0], Addr: addr, Size: size})
				e.code[addr] = code
			}
			e.symbols = append(e.symbols, kernel.Symbol{Name: other, Addr: at + 1<<16, Size: size}, kernel.Symbol{Name: "", Addr: at - 64, Size: 64})
			if v := a.CheckCode(e); (v.State == Undecided) != (v.Reason == "") {
				t.Errorf("%s: %+v", a.ID, v)
			}
		}
	})
}

// What it costs to ask of one bug: the excerpts of all, each once.
func BenchmarkCheckCode(b *testing.B) {
	all, err := Shipped()
	if err != nil {
		b.Fatal(err)
	}
	excerpts := make([][]*excerpt, len(all))
	n := 0
	for i, a := range all {
		excerpts[i] = readExcerpts(b, filepath.Join("testdata", "code", a.ID+".txt"))
		n += len(excerpts[i])
	}
	for b.Loop() {
		for i, a := range all {
			for _, e := range excerpts[i] {
				a.CheckCode(e)
			}
		}
	}
	b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N*n), "µs/question")
}
