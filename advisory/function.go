package advisory

import (
	"bytes"
	"slices"
	"strings"

	"golang.org/x/arch/x86/x86asm"

	"inquest/kernel"
	"inquest/kernel/x86"
)

const (
	maxFunction = 64 << 10 // bytes of one piece; none is larger
	maxPieces   = 16
)

// function is what a signature asks of a function's code.
type function struct {
	calls    []string // functions that it calls or jumps to directly, without suffixes
	compares []int64  // numbers in its cmp instructions
	uses     map[x86asm.Op]bool
	whole    bool // all of it was understood
}

// patchedOut is what lies in place of a call through a static_call that returns
// nothing at present (arch/x86/kernel/static_call.c, xor5rax): cond_resched() on a
// kernel that was booted with preempt=full.
var patchedOut = []byte{0x2e, 0x2e, 0x2e, 0x31, 0xc0}

// read disassembles a function and the pieces that the compiler split from it: what
// its code jumps to under the same name with another suffix (.cold, .part.0).
func read(k Code, sym kernel.Symbol) *function {
	f := &function{whole: true, uses: make(map[x86asm.Op]bool)}
	pieces := []kernel.Symbol{sym}
	for i := 0; i < len(pieces); i++ {
		if i == maxPieces || !f.readPiece(k, pieces[i], &pieces) {
			f.whole = false
			break
		}
	}
	return f
}

// readPiece adds the facts of one piece and the pieces that it leads to.
func (f *function) readPiece(k Code, sym kernel.Symbol, pieces *[]kernel.Symbol) bool {
	// The last symbol before a gap seems to reach across it: kallsyms knows no sizes.
	code, err := k.Slice(sym.Addr, int(min(sym.Size, maxFunction)))
	if err != nil || len(code) == 0 {
		return false
	}
	for off := 0; off < len(code); {
		if bytes.HasPrefix(code[off:], patchedOut) {
			f.whole = false
		}
		insn, err := x86.Decode(code[off:], uint64(sym.Addr)+uint64(off))
		if err != nil {
			f.whole = false
			off++ // resynchronise
			continue
		}
		off += insn.Len
		if insn.Known() {
			f.note(insn)
		}
		target, ok := insn.Target()
		if !ok || target-uint64(sym.Addr) < uint64(len(code)) {
			continue
		}
		to, at, ok := k.SymbolAt(kernel.Addr(target))
		if !ok {
			continue
		}
		name, padding := strings.CutPrefix(base(to.Name), "__pfx_") // call depth tracking calls into it
		switch {
		case name == base(sym.Name) && !padding:
			if !slices.ContainsFunc(*pieces, func(p kernel.Symbol) bool { return p.Addr == to.Addr }) {
				*pieces = append(*pieces, to)
			}
		case (at == 0 || padding) && !slices.Contains(f.calls, name):
			f.calls = append(f.calls, name)
		}
	}
	return true
}

// note keeps what an instruction does and the number that it compares with.
func (f *function) note(insn x86.Insn) {
	f.uses[insn.Op] = true
	if insn.Op != x86asm.CMP {
		return
	}
	if n, ok := insn.Args[1].(x86asm.Imm); ok && !slices.Contains(f.compares, int64(n)) {
		f.compares = append(f.compares, int64(n))
	}
}

// base cuts the suffixes off that the compiler appends (.isra.0, .cold).
func base(name string) string {
	name, _, _ = strings.Cut(name, ".")
	return name
}

// has returns those of the instructions that the function has.
func (f *function) has(names []string) []string {
	var found []string
	for _, name := range names {
		if f.uses[instructions[name]] {
			found = append(found, name)
		}
	}
	return found
}
