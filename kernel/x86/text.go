package x86

import (
	"strings"

	"golang.org/x/arch/x86/x86asm"
)

// RIPTarget returns the address of an operand that is relative to rip: nearly
// every global variable of the kernel is reached so.
func (i Insn) RIPTarget() (uint64, bool) {
	if !i.Known() {
		return 0, false
	}
	for _, a := range i.Args {
		if m, ok := a.(x86asm.Mem); ok && m.Base == x86asm.RIP {
			return i.Addr + uint64(i.Len) + uint64(m.Disp), true
		}
	}
	return 0, false
}

// Immediate returns a constant or an absolute displacement that may be an
// address in the upper half: "mov $0xffffffff82e0a040,%rdi", or the base of a table
// in "mov -0x7d1f5fc0(,%rax,8),%rax".
func (i Insn) Immediate() (uint64, bool) {
	if !i.Known() {
		return 0, false
	}
	const upperHalf = 1 << 63
	for _, a := range i.Args {
		var v uint64
		switch a := a.(type) {
		case x86asm.Imm:
			v = uint64(a)
		case x86asm.Mem:
			v = uint64(a.Disp)
		}
		if v >= upperHalf && v < ^uint64(0)-1<<20 {
			return v, true
		}
	}
	return 0, false
}

// gnuNames are the names that objdump has for what GNUSyntax names otherwise.
var gnuNames = map[string]string{"movsxd": "movslq", "cdqe": "cltq"}

// mendGNU mends what GNUSyntax writes otherwise than objdump: an operand at the
// absolute address 0, which it leaves empty, an index register that is none, and
// some names.
func mendGNU(text string) string {
	if text == "data16 nop" {
		return "xchg %ax,%ax"
	}
	op, args, ok := strings.Cut(text, " ")
	if name := gnuNames[op]; name != "" {
		op = name
	}
	if !ok {
		return op
	}
	if strings.HasPrefix(args, ",") {
		args = "0x0" + args
	}
	if strings.HasSuffix(args, ",") || strings.HasSuffix(args, ":") {
		args += "0x0"
	}
	args = strings.ReplaceAll(args, ":,", ":0x0,") // %gs:
	return op + " " + strings.ReplaceAll(args, ",%riz)", ")")
}
