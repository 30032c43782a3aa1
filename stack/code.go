package stack

import (
	"errors"
	"fmt"

	"golang.org/x/arch/x86/x86asm"

	"inquest/kernel/x86"
)

const maxFunction = 64 << 10

var errNoFrame = errors.New("the code does not tell the frame")

// stepCode goes one frame outwards by the function's own code, for functions that
// the kernel excludes from its ORC tables (STACK_FRAME_NON_STANDARD), such as
// __crash_kexec, in which every panic with kdump ends.
func (u *Unwinder) stepCode(s state) (state, error) {
	sym, _, ok := u.k.SymbolAt(lookupPC(s))
	if !ok || !sym.IsCode() || sym.Size == 0 || sym.Size > maxFunction {
		return s, errNoFrame
	}
	code := make([]byte, sym.Size)
	if err := u.k.Read(code, sym.Addr); err != nil {
		return s, err
	}
	f, err := frameAt(code, uint64(sym.Addr), uint64(s.pc))
	if err != nil {
		return s, fmt.Errorf("%s: %w", sym.Name, err)
	}
	e := orcEntry{spReg: orcSP, spOffset: int64(f.depth) + 8, typ: typeCall}
	if f.based {
		e.spReg, e.spOffset = orcBP, int64(f.base)+8
	}
	if f.savedBP != 0 {
		e.bpReg, e.bpOffset = orcPrevSP, -8-int64(f.savedBP)
	}
	next, err := u.pop(s, e)
	if err == nil && !u.returnAddress(next.pc) {
		err = fmt.Errorf("%v is behind no call: %w", next.pc, errNoFrame)
	}
	return next, err
}

// frame is what a function has done to its stack, in bytes from the return address.
type frame struct {
	depth   int  // pushed or reserved below the return address
	lost    bool // rsp is not at a known depth, but rbp may be
	based   bool // rbp is a frame pointer …
	base    int  // … at this depth
	savedBP int  // depth at which the caller's rbp was saved, 0 when it was not
}

// frameAt follows every path from the function's entry to pc; all of them must
// leave the stack alike.
func frameAt(code []byte, start, pc uint64) (frame, error) {
	type point struct {
		at uint64
		f  frame
	}
	seen := map[uint64]frame{}
	todo := []point{{start, frame{}}}
	var found []frame
	for len(todo) > 0 && len(seen) < maxFunction {
		p := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		for {
			if p.at == pc {
				found = append(found, p.f)
			}
			if _, been := seen[p.at]; been || p.at < start || p.at >= start+uint64(len(code)) {
				break
			}
			seen[p.at] = p.f
			insn, err := x86.Decode(code[p.at-start:], p.at)
			if err != nil {
				break
			}
			target, direct := insn.Target()
			ends := false
			switch {
			case insn.Op == x86asm.JMP:
				ends = true
				if direct {
					todo = append(todo, point{target, p.f})
				}
			case insn.Op == x86asm.RET || insn.Op == x86asm.UD2:
				ends = true
			case direct && insn.Op != x86asm.CALL: // a conditional jump
				todo = append(todo, point{target, p.f})
			}
			if ends || !p.f.run(insn) {
				break
			}
			p.at += uint64(insn.Len)
		}
	}
	if len(found) == 0 {
		return frame{}, fmt.Errorf("no path to %#x: %w", pc, errNoFrame)
	}
	for _, f := range found[1:] {
		if f != found[0] {
			return frame{}, fmt.Errorf("paths to %#x differ: %w", pc, errNoFrame)
		}
	}
	if found[0].lost && !found[0].based {
		return frame{}, errNoFrame
	}
	return found[0], nil
}

// run applies one instruction; false when what it does to rsp cannot be followed.
func (f *frame) run(insn x86.Insn) bool {
	if !insn.Known() {
		return true
	}
	imm, isImm := insn.Args[1].(x86asm.Imm)
	to, _ := insn.Args[0].(x86asm.Reg)
	switch insn.Op {
	case x86asm.PUSH, x86asm.PUSHFQ:
		f.depth += 8
		if to == x86asm.RBP && f.savedBP == 0 && !f.based {
			f.savedBP = f.depth
		}
	case x86asm.POP, x86asm.POPFQ:
		f.depth -= 8
		if to == x86asm.RBP {
			f.savedBP, f.based = 0, false
		}
	case x86asm.LEAVE:
		f.depth, f.lost = f.base-8, false
		f.savedBP, f.based = 0, false
	case x86asm.SUB, x86asm.ADD:
		if to != x86asm.RSP {
			break
		}
		if !isImm {
			f.lost = true
		} else if insn.Op == x86asm.SUB {
			f.depth += int(imm)
		} else {
			f.depth -= int(imm)
		}
	case x86asm.MOV:
		switch {
		case to == x86asm.RBP && insn.Args[1] == x86asm.RSP && f.savedBP == f.depth:
			f.based, f.base = true, f.depth
		case to == x86asm.RSP && insn.Args[1] == x86asm.RBP && f.based:
			f.depth, f.lost = f.base, false
		case to == x86asm.RSP:
			return false
		}
	case x86asm.LEA:
		if to != x86asm.RSP {
			break
		}
		mem, ok := insn.Args[1].(x86asm.Mem)
		switch {
		case ok && mem.Base == x86asm.RBP && mem.Index == 0 && f.based:
			f.depth, f.lost = f.base-int(mem.Disp), false
		case ok && mem.Base == x86asm.RSP && mem.Index == 0:
			f.depth -= int(mem.Disp)
		default:
			f.lost = true
		}
	case x86asm.AND, x86asm.XCHG:
		if to == x86asm.RSP {
			f.lost = true
		}
	}
	const deepest = 1 << 20
	return f.depth >= 0 && f.depth < deepest
}
