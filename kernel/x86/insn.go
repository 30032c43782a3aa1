package x86

import (
	"bytes"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/arch/x86/x86asm"
)

// MaxInsn is the longest x86 instruction in bytes.
const MaxInsn = 15

// ErrDecode reports bytes that are no instruction this package knows.
var ErrDecode = errors.New("no known instruction")

// Insn is one decoded instruction.
type Insn struct {
	Addr uint64
	Len  int
	Code []byte
	x86asm.Inst
	name string // set for instructions that x86asm does not decode
}

// fixed are instructions of the kernel's text that x86asm does not know, by
// their bytes. They neither read nor write a general register.
var fixed = []struct {
	code string
	name string
}{
	{"\xf3\x0f\x1e\xfa", "endbr64"},
	{"\xf3\x0f\x1e\xfb", "endbr32"},
	{"\x0f\x01\xca", "clac"},
	{"\x0f\x01\xcb", "stac"},
	{"\x0f\x01\xc1", "vmcall"},
	{"\x0f\x01\xd9", "vmmcall"},
	{"\x0f\x01\xee", "rdpkru"},
	{"\x0f\x01\xef", "wrpkru"},
	{"\xd6", "udb"},
}

// Decode decodes the instruction at the start of code, which lies at addr.
func Decode(code []byte, addr uint64) (Insn, error) {
	code = code[:min(len(code), MaxInsn)]
	for _, f := range fixed {
		if bytes.HasPrefix(code, []byte(f.code)) {
			return Insn{Addr: addr, Len: len(f.code), Code: code[:len(f.code)], name: f.name}, nil
		}
	}
	// ud1 with operands is WARN/UBSAN's trap since 6.13: 67 0f b9 40 imm (ud1 imm(%eax),%eax).
	if n := ud1Len(code); n > 0 {
		return Insn{Addr: addr, Len: n, Code: code[:n], name: "ud1"}, nil
	}
	inst, err := x86asm.Decode(code, 64)
	if err != nil || inst.Len <= 0 || inst.Len > len(code) || inst.Op == 0 {
		return Insn{}, fmt.Errorf("% x at %#x: %w", code[:min(len(code), 8)], addr, ErrDecode)
	}
	signExtend(&inst)
	return Insn{Addr: addr, Len: inst.Len, Code: code[:inst.Len], Inst: inst}, nil
}

// signExtend mends the displacements of memory operands: those of 32 bits are
// signed, but x86asm takes them for unsigned. mov between rax and an absolute
// address (a0 to a3) has 64 bits of it.
func signExtend(inst *x86asm.Inst) {
	if op := inst.Opcode >> 24; inst.AddrSize != 64 || inst.Op == x86asm.MOV && op >= 0xa0 && op <= 0xa3 {
		return
	}
	for i, a := range inst.Args {
		if m, ok := a.(x86asm.Mem); ok && m.Disp == int64(uint32(m.Disp)) {
			m.Disp = int64(int32(m.Disp))
			inst.Args[i] = m
		}
	}
}

// ud1Len returns the length of a ud1 instruction (0f b9 /r) with its memory
// operand, or 0.
func ud1Len(code []byte) int {
	n := 0
	if n < len(code) && code[n] == 0x67 {
		n++
	}
	if n < len(code) && code[n]&0xf0 == 0x40 {
		n++
	}
	if len(code) < n+3 || code[n] != 0x0f || code[n+1] != 0xb9 {
		return 0
	}
	modrm := code[n+2]
	n += 3
	mod, rm := modrm>>6, modrm&7
	if mod != 3 && rm == 4 { // SIB, whose base may say no base as rm does
		if n < len(code) {
			rm = code[n] & 7
		}
		n++
	}
	switch {
	case mod == 1:
		n++
	case mod == 2, mod == 0 && rm == 5:
		n += 4
	}
	if n > len(code) {
		return 0
	}
	return n
}

// Known reports whether the operands in Inst are valid; it is false for the few
// instructions that only have a name.
func (i Insn) Known() bool { return i.name == "" }

// Target returns where a direct call or jump goes.
func (i Insn) Target() (uint64, bool) {
	if !i.Known() {
		return 0, false
	}
	rel, ok := i.Args[0].(x86asm.Rel)
	if !ok {
		return 0, false
	}
	return i.Addr + uint64(i.Len) + uint64(int64(rel)), true
}

// Text returns the instruction in AT&T syntax, as objdump and crash print it.
// symname may be nil; else it names addresses: (name, base) as in x86asm.GNUSyntax.
func (i Insn) Text(symname func(uint64) (string, uint64)) string {
	if !i.Known() {
		return i.name
	}
	var s x86asm.SymLookup
	if symname != nil {
		s = symname
	}
	return mendGNU(strings.TrimSpace(x86asm.GNUSyntax(i.Inst, i.Addr, s)))
}
