package stack

import (
	"golang.org/x/arch/x86/x86asm"
)

// writesNothing are the instructions without a destination operand.
var writesNothing = map[x86asm.Op]bool{
	x86asm.CMP: true, x86asm.TEST: true, x86asm.BT: true, x86asm.NOP: true, x86asm.RET: true, x86asm.UD2: true, x86asm.UD1: true,
	x86asm.JMP: true, x86asm.HLT: true, x86asm.PAUSE: true, x86asm.LFENCE: true, x86asm.MFENCE: true, x86asm.SFENCE: true,
	x86asm.CLI: true, x86asm.STI: true, x86asm.CLD: true, x86asm.STD: true, x86asm.CLC: true, x86asm.STC: true, x86asm.CLTS: true,
	x86asm.SWAPGS: true, x86asm.WRMSR: true, x86asm.INVLPG: true, x86asm.INVPCID: true, x86asm.PREFETCHT0: true, x86asm.PREFETCHT1: true,
	x86asm.PREFETCHT2: true, x86asm.PREFETCHNTA: true, x86asm.PREFETCHW: true, x86asm.VERW: true, x86asm.WBINVD: true, x86asm.LTR: true,
	x86asm.LGDT: true, x86asm.LIDT: true, x86asm.LLDT: true, x86asm.WRFSBASE: true, x86asm.WRGSBASE: true, x86asm.INT: true,
	x86asm.DIV: true, x86asm.IDIV: true, x86asm.MUL: true, x86asm.MWAIT: true, x86asm.MONITOR: true, x86asm.CLFLUSH: true,
	x86asm.JA: true, x86asm.JAE: true, x86asm.JB: true, x86asm.JBE: true, x86asm.JE: true, x86asm.JG: true, x86asm.JGE: true,
	x86asm.JL: true, x86asm.JLE: true, x86asm.JNE: true, x86asm.JNO: true, x86asm.JNP: true, x86asm.JNS: true, x86asm.JO: true,
	x86asm.JP: true, x86asm.JS: true, x86asm.JRCXZ: true,
}

// implicit are the registers that instructions write without naming them.
var implicit = map[x86asm.Op][]gpr{
	x86asm.MUL: {rax, rdx}, x86asm.IMUL: {rax, rdx}, x86asm.DIV: {rax, rdx}, x86asm.IDIV: {rax, rdx},
	x86asm.CDQ: {rdx}, x86asm.CQO: {rdx}, x86asm.CWD: {rdx}, x86asm.CDQE: {rax}, x86asm.CWDE: {rax}, x86asm.CBW: {rax},
	x86asm.CPUID: {rax, rbx, rcx, rdx}, x86asm.RDTSC: {rax, rdx}, x86asm.RDTSCP: {rax, rdx, rcx}, x86asm.RDMSR: {rax, rdx},
	x86asm.RDPMC: {rax, rdx}, x86asm.XGETBV: {rax, rdx}, x86asm.CMPXCHG: {rax}, x86asm.CMPXCHG8B: {rax, rdx},
	x86asm.CMPXCHG16B: {rax, rdx}, x86asm.LAHF: {rax}, x86asm.XLATB: {rax}, x86asm.IN: {rax},
	x86asm.MOVSB: {rsi, rdi, rcx}, x86asm.MOVSW: {rsi, rdi, rcx}, x86asm.MOVSD: {rsi, rdi, rcx}, x86asm.MOVSQ: {rsi, rdi, rcx},
	x86asm.STOSB: {rdi, rcx}, x86asm.STOSW: {rdi, rcx}, x86asm.STOSD: {rdi, rcx}, x86asm.STOSQ: {rdi, rcx},
	x86asm.LODSB: {rax, rsi, rcx}, x86asm.LODSW: {rax, rsi, rcx}, x86asm.LODSD: {rax, rsi, rcx}, x86asm.LODSQ: {rax, rsi, rcx},
	x86asm.SCASB: {rdi, rcx}, x86asm.SCASW: {rdi, rcx}, x86asm.SCASD: {rdi, rcx}, x86asm.SCASQ: {rdi, rcx},
	x86asm.CMPSB: {rsi, rdi, rcx}, x86asm.CMPSW: {rsi, rdi, rcx}, x86asm.CMPSD: {rsi, rdi, rcx}, x86asm.CMPSQ: {rsi, rdi, rcx},
	x86asm.INSB: {rdi, rcx}, x86asm.INSW: {rdi, rcx}, x86asm.INSD: {rdi, rcx}, x86asm.OUTSB: {rsi, rcx}, x86asm.OUTSW: {rsi, rcx},
	x86asm.OUTSD: {rsi, rcx}, x86asm.LOOP: {rcx}, x86asm.LOOPE: {rcx}, x86asm.LOOPNE: {rcx}, x86asm.SYSCALL: {rcx, r11},
}

// implicitByName are the registers that instructions which x86asm does not know may
// write: of a hypercall, all that some hypervisor answers in.
var implicitByName = map[string][]gpr{
	"rdpkru":  {rax, rdx},
	"vmcall":  {rax, rbx, rcx, rdx, rsi, rdi, r8, r9, r10, r11},
	"vmmcall": {rax, rbx, rcx, rdx, rsi, rdi, r8, r9, r10, r11},
}

// stringWrites are the instructions that write memory through rdi, and how many bytes
// at a time.
var stringWrites = map[x86asm.Op]int64{
	x86asm.MOVSB: 1, x86asm.MOVSW: 2, x86asm.MOVSD: 4, x86asm.MOVSQ: 8, x86asm.STOSB: 1, x86asm.STOSW: 2,
	x86asm.STOSD: 4, x86asm.STOSQ: 8, x86asm.INSB: 1, x86asm.INSW: 2, x86asm.INSD: 4,
}

// general returns the general register of an operand, of any width.
func general(a x86asm.Arg) (gpr, bool) {
	r, ok := a.(x86asm.Reg)
	if !ok {
		return 0, false
	}
	_, num, ok := width(r)
	return num, ok
}

// width returns how many bits of which register an operand names. The old
// high-byte registers count as their whole register, of unknown bits.
func width(r x86asm.Reg) (bits uint8, num gpr, ok bool) {
	switch {
	case r >= x86asm.RAX && r <= x86asm.R15:
		return 64, gpr(r - x86asm.RAX), true
	case r >= x86asm.EAX && r <= x86asm.R15L:
		return 32, gpr(r - x86asm.EAX), true
	case r >= x86asm.AX && r <= x86asm.R15W:
		return 16, gpr(r - x86asm.AX), true
	case r >= x86asm.AL && r <= x86asm.BL:
		return 8, gpr(r - x86asm.AL), true
	case r >= x86asm.SPB && r <= x86asm.R15B:
		return 8, gpr(r - x86asm.SPB + 4), true
	case r >= x86asm.AH && r <= x86asm.BH:
		return 0, gpr(r - x86asm.AH), true
	}
	return 0, 0, false
}
