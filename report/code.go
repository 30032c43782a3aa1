package report

import (
	"fmt"
	"strings"

	"inquest/kernel"
	"inquest/kernel/x86"
)

// codeLine is a line of disassembly.
type codeLine struct {
	Place string // "function+0x1b7"
	Text  string
	Here  bool // the trapped instruction
}

// disassemble returns a few instructions up to the one at pc, and one more; nothing
// where the code cannot be read, or decodes to other boundaries.
func disassemble(k *kernel.Kernel, pc kernel.Addr) []codeLine {
	const before = 3
	sym, off, ok := k.SymbolAt(pc)
	if !ok || off > 64<<10 {
		return nil
	}
	code := make([]byte, off+2*x86.MaxInsn)
	if err := k.Read(code, sym.Addr); err != nil {
		if code = code[:off+x86.MaxInsn]; k.Read(code, sym.Addr) != nil {
			return nil
		}
	}
	name := func(a uint64) (string, uint64) {
		s, _, ok := k.SymbolAt(kernel.Addr(a))
		if !ok {
			return "", 0
		}
		return s.Name, uint64(s.Addr)
	}
	var lines []codeLine
	seen := -1
	for at := uint64(0); at < uint64(len(code)) && (seen < 0 || len(lines) <= seen+1); {
		insn, err := x86.Decode(code[at:], uint64(sym.Addr)+at)
		text, n := "(bad)", uint64(1)
		if err == nil {
			text, n = insn.Text(name), uint64(insn.Len)
		}
		if at == off {
			seen = len(lines)
		}
		lines = append(lines, codeLine{clean(fmt.Sprintf("%s+%#x", sym.Name, at)), clean(strings.TrimSpace(text)), at == off})
		at += n
	}
	if seen < 0 {
		return nil
	}
	return lines[max(0, seen-before):]
}
