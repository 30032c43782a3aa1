package x86

import (
	"encoding/binary"
	"fmt"
)

// Reg numbers the registers in struct user_regs_struct order
// (arch/x86/include/asm/user_64.h), which is also that of struct pt_regs up to SS.
type Reg int

// The registers of user_regs_struct.
const (
	R15 Reg = iota
	R14
	R13
	R12
	RBP
	RBX
	R11
	R10
	R9
	R8
	RAX
	RCX
	RDX
	RSI
	RDI
	OrigRAX
	RIP
	CS
	EFlags
	RSP
	SS
	FSBase
	GSBase
	DS
	ES
	FS
	GS
	NumRegs
)

var regNames = [NumRegs]string{"r15", "r14", "r13", "r12", "rbp", "rbx", "r11", "r10", "r9", "r8", "rax", "rcx", "rdx",
	"rsi", "rdi", "orig_rax", "rip", "cs", "eflags", "rsp", "ss", "fs_base", "gs_base", "ds", "es", "fs", "gs"}

func (r Reg) String() string {
	if r < 0 || r >= NumRegs {
		return fmt.Sprintf("reg(%d)", int(r))
	}
	return regNames[r]
}

// PtRegsSize is the size of struct pt_regs.
const PtRegsSize = 21 * 8

// Regs is a register file of which some values may be unknown.
type Regs struct {
	val   [NumRegs]uint64
	known uint32
}

// Get returns a register's value and whether it is known.
func (r *Regs) Get(n Reg) (uint64, bool) {
	return r.val[n], r.known>>n&1 == 1
}

// Set makes a register known.
func (r *Regs) Set(n Reg, v uint64) {
	r.val[n] = v
	r.known |= 1 << n
}

// Forget makes registers unknown.
func (r *Regs) Forget(regs ...Reg) {
	for _, n := range regs {
		r.known &^= 1 << n
	}
}

// PC returns the instruction pointer, 0 when unknown.
func (r *Regs) PC() uint64 { return r.orZero(RIP) }

// SP returns the stack pointer, 0 when unknown.
func (r *Regs) SP() uint64 { return r.orZero(RSP) }

func (r *Regs) orZero(n Reg) uint64 {
	if v, ok := r.Get(n); ok {
		return v
	}
	return 0
}

// User reports whether the registers are those of user mode.
func (r *Regs) User() bool {
	cs, ok := r.Get(CS)
	return ok && cs&3 == 3
}

// FromUserRegs takes all of a user_regs_struct, as NT_PRSTATUS holds it.
func FromUserRegs(u [NumRegs]uint64) Regs {
	return Regs{val: u, known: 1<<NumRegs - 1}
}

// FromPtRegs decodes a struct pt_regs. Above bit 15 of CS the kernel keeps other
// things (csx, fred_cs since 6.9), so only 16 bits of the selectors count.
func FromPtRegs(b []byte) (Regs, error) {
	var r Regs
	if len(b) < PtRegsSize {
		return r, fmt.Errorf("pt_regs: %d bytes, want %d", len(b), PtRegsSize)
	}
	for n := R15; n <= SS; n++ {
		r.Set(n, binary.LittleEndian.Uint64(b[n*8:]))
	}
	r.val[CS] &= 0xffff
	r.val[SS] &= 0xffff
	return r, nil
}

// PrstatusSize is the size of struct elf_prstatus (include/linux/elfcore.h).
const PrstatusSize = 336

// FromPrstatus decodes the registers in the contents of an NT_PRSTATUS note.
func FromPrstatus(b []byte) (Regs, error) {
	const regsAt = 112 // offsetof(struct elf_prstatus, pr_reg)
	if len(b) < PrstatusSize {
		return Regs{}, fmt.Errorf("elf_prstatus: %d bytes, want %d", len(b), PrstatusSize)
	}
	var u [NumRegs]uint64
	for n := range u {
		u[n] = binary.LittleEndian.Uint64(b[regsAt+8*n:])
	}
	return FromUserRegs(u), nil
}
