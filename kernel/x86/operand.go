package x86

import (
	"golang.org/x/arch/x86/x86asm"
)

// Access is one memory operand of an instruction.
type Access struct {
	Mem   x86asm.Mem
	Bytes int // how wide, 0 when the instruction does not say
	Write bool
	Read  bool
	next  uint64 // address of the next instruction, which rip-relative operands count from
}

// Accesses returns the memory that the instruction reads or writes through an
// explicit operand. lea and nop have such an operand, but access nothing.
func (i Insn) Accesses() []Access {
	if !i.Known() {
		return nil
	}
	switch i.Op {
	case x86asm.LEA, x86asm.NOP, x86asm.PREFETCHT0, x86asm.PREFETCHT1, x86asm.PREFETCHT2, x86asm.PREFETCHNTA, x86asm.PREFETCHW:
		return nil
	}
	var all []Access
	for n, arg := range i.Args {
		mem, ok := arg.(x86asm.Mem)
		if !ok {
			continue
		}
		a := Access{Mem: mem, Bytes: i.MemBytes, next: i.Addr + uint64(i.Len)}
		a.Write = n == 0 && !readOnly[i.Op] || i.Op == x86asm.XCHG || i.Op == x86asm.XADD
		a.Read = n != 0 || !writeOnly[i.Op]
		all = append(all, a)
	}
	return all
}

// readOnly are the instructions that only read their first operand.
var readOnly = map[x86asm.Op]bool{
	x86asm.CMP: true, x86asm.TEST: true, x86asm.PUSH: true, x86asm.CALL: true, x86asm.JMP: true, x86asm.BT: true,
	x86asm.DIV: true, x86asm.IDIV: true, x86asm.MUL: true, x86asm.IMUL: true, x86asm.CMPSB: true, x86asm.CMPSD: true,
	x86asm.CMPSQ: true, x86asm.CMPSW: true, x86asm.LCALL: true, x86asm.LJMP: true, x86asm.LGDT: true, x86asm.LIDT: true,
	x86asm.LDMXCSR: true, x86asm.FXRSTOR: true, x86asm.XRSTOR: true, x86asm.INVLPG: true, x86asm.CLFLUSH: true,
	x86asm.FXRSTOR64: true, x86asm.XRSTOR64: true, x86asm.XRSTORS: true, x86asm.XRSTORS64: true,
	x86asm.LTR: true, x86asm.LLDT: true, x86asm.LMSW: true, x86asm.VERR: true, x86asm.VERW: true,
	x86asm.FLD: true, x86asm.FILD: true, x86asm.FBLD: true, x86asm.FLDCW: true, x86asm.FLDENV: true, x86asm.FRSTOR: true,
	x86asm.FADD: true, x86asm.FIADD: true, x86asm.FSUB: true, x86asm.FISUB: true, x86asm.FSUBR: true, x86asm.FISUBR: true,
	x86asm.FMUL: true, x86asm.FIMUL: true, x86asm.FDIV: true, x86asm.FIDIV: true, x86asm.FDIVR: true, x86asm.FIDIVR: true,
	x86asm.FCOM: true, x86asm.FICOM: true, x86asm.FCOMP: true, x86asm.FICOMP: true,
}

// writeOnly are the instructions that only write their first operand.
var writeOnly = map[x86asm.Op]bool{
	x86asm.MOV: true, x86asm.MOVNTI: true, x86asm.POP: true, x86asm.STOSB: true, x86asm.STOSD: true, x86asm.STOSQ: true,
	x86asm.STOSW: true, x86asm.MOVSB: true, x86asm.MOVSD: true, x86asm.MOVSQ: true, x86asm.MOVSW: true, x86asm.STMXCSR: true,
	x86asm.FXSAVE: true, x86asm.XSAVE: true, x86asm.MOVUPS: true, x86asm.MOVAPS: true, x86asm.MOVDQU: true, x86asm.MOVDQA: true,
}

// Address computes the operand's linear address. ok is false when a register it
// needs is not known.
func (a Access) Address(r *Regs) (addr uint64, ok bool) {
	addr = uint64(a.Mem.Disp)
	switch a.Mem.Segment {
	case x86asm.GS:
		base, ok := r.Get(GSBase)
		if !ok {
			return 0, false
		}
		addr += base
	case x86asm.FS:
		base, ok := r.Get(FSBase)
		if !ok {
			return 0, false
		}
		addr += base
	}
	if a.Mem.Base != 0 {
		v, ok := a.reg(r, a.Mem.Base)
		if !ok {
			return 0, false
		}
		addr += v
	}
	if a.Mem.Index != 0 {
		v, ok := a.reg(r, a.Mem.Index)
		if !ok {
			return 0, false
		}
		addr += v * uint64(a.Mem.Scale)
	}
	return addr, true
}

func (a Access) reg(r *Regs, n x86asm.Reg) (uint64, bool) {
	if n == x86asm.RIP {
		return a.next, true
	}
	reg, mask, ok := General(n)
	if !ok {
		return 0, false
	}
	v, ok := r.Get(reg)
	return v & mask, ok
}

// Registers returns the general registers that make up the address.
func (a Access) Registers() []Reg {
	var regs []Reg
	for _, n := range []x86asm.Reg{a.Mem.Base, a.Mem.Index} {
		if r, _, ok := General(n); ok {
			regs = append(regs, r)
		}
	}
	return regs
}

// General maps a general register of any width to the 64-bit register it is part
// of, and the bits that it covers. The old high-byte registers are not covered.
func General(n x86asm.Reg) (r Reg, mask uint64, ok bool) {
	order := [16]Reg{RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI, R8, R9, R10, R11, R12, R13, R14, R15}
	switch {
	case n >= x86asm.RAX && n <= x86asm.R15:
		return order[n-x86asm.RAX], ^uint64(0), true
	case n >= x86asm.EAX && n <= x86asm.R15L:
		return order[n-x86asm.EAX], 0xffffffff, true
	case n >= x86asm.AX && n <= x86asm.R15W:
		return order[n-x86asm.AX], 0xffff, true
	case n >= x86asm.AL && n <= x86asm.BL:
		return order[n-x86asm.AL], 0xff, true
	case n >= x86asm.SPB && n <= x86asm.R15B:
		return order[n-x86asm.SPB+4], 0xff, true
	}
	return 0, 0, false
}
