package stack

import (
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/arch/x86/x86asm"
)

const testEntry = 0xffffffff81000000

func codeOf(t testing.TB, bytes string) *code {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(bytes, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return newCode(nil, "f", part{testEntry, b})
}

// TestFlow follows small functions, written as machine code behind the nop that ftrace
// leaves, to a place that <> marks: in front of an instruction, or behind a call that has
// not returned. What it wants is registers, and slots by their offset from the CFA: the
// value of a register at the entry, that plus a number, its low bits (lo, sx if they are
// sign-extended), a word of the caller's stack, the CFA, a constant, or ? if it is none of
// these. A star is a saved register.
func TestFlow(t *testing.T) {
	for _, tt := range []struct {
		name, asm, code string
		at              uint64
		want            string
	}{
		{"push and mov saves",
			"push %rbp; push %rbx; mov %rdi,%rbx; mov %rsi,%rbp; call f <>",
			"0f 1f 44 00 00 55 53 48 89 fb 48 89 f5 e8 00 00 10 00 90 c3", 18, "rbx=rdi rbp=rsi rsp=cfa-0x18 -0x10=rbp* -0x18=rbx* rdi=? rax=?"},
		{"restored",
			"push %rbx; mov %rdi,%rbx; call f; pop %rbx <> ret",
			"0f 1f 44 00 00 53 48 89 fb e8 00 00 10 00 5b c3 90 c3", 15, "rbx=rbx rsp=cfa-0x8"},
		{"spills",
			"sub $0x18,%rsp; mov %rdi,0x8(%rsp); mov %esi,0x4(%rsp); call f <>",
			"0f 1f 44 00 00 48 83 ec 18 48 89 7c 24 08 89 74 24 04 e8 00 00 10 00 90 c3", 23, "-0x18=rdi -0x1c=lo32(rsi) -0x20=none"},
		{"a spill is read back",
			"sub $8,%rsp; mov %rdx,(%rsp); call f; mov (%rsp),%rax; call f <>",
			"0f 1f 44 00 00 48 83 ec 08 48 89 14 24 e8 00 00 10 00 48 8b 04 24 e8 00 00 10 00 90 c3", 27, "-0x10=rdx"},
		{"lea of an argument",
			"push %rbx; lea 0x2b8(%rdi),%rbx; call f <>",
			"0f 1f 44 00 00 53 48 8d 9f b8 02 00 00 e8 00 00 10 00 90 c3", 18, "rbx=rdi+0x2b8"},
		{"add and sub",
			"push %rbx; push %rbp; mov %rdi,%rbx; add $0x10,%rbx; mov %rsi,%rbp; sub $0x8,%rbp; inc %rbp; call f <>",
			"0f 1f 44 00 00 53 55 48 89 fb 48 83 c3 10 48 89 f5 48 83 ed 08 48 ff c5 e8 00 00 10 00 90 c3", 29, "rbx=rdi+0x10 rbp=rsi-0x7"},
		{"32 bits of an argument",
			"push %rbx; mov %esi,%ebx; call f <>",
			"0f 1f 44 00 00 53 89 f3 e8 00 00 10 00 90 c3", 13, "rbx=lo32(rsi)"},
		{"sign extension",
			"push %rbx; push %rbp; movslq %edi,%rbx; movswl %si,%ebp; call f <>",
			"0f 1f 44 00 00 53 55 48 63 df 0f bf ee e8 00 00 10 00 90 c3", 18, "rbx=sx32(rdi) rbp=?"},
		{"zero extension",
			"push %rbx; push %rbp; movzbl %dil,%ebx; movzwl %si,%ebp; call f <>",
			"0f 1f 44 00 00 53 55 40 0f b6 df 0f b7 ee e8 00 00 10 00 90 c3", 19, "rbx=lo8(rdi) rbp=lo16(rsi)"},
		{"the sign is cut off",
			"push %rbx; movsbq %dil,%rax; mov %eax,%ebx; call f <>",
			"0f 1f 44 00 00 53 48 0f be c7 89 c3 e8 00 00 10 00 90 c3", 17, "rbx=?"},
		{"part of a register written",
			"push %rbx; mov %rdi,%rbx; mov $1,%bl; call f <>",
			"0f 1f 44 00 00 53 48 89 fb b3 01 e8 00 00 10 00 90 c3", 16, "rbx=?"},
		{"32-bit arithmetic",
			"push %rbx; lea -1(%rdi),%eax; mov %esi,%ebx; add $4,%ebx; call f <>",
			"0f 1f 44 00 00 53 8d 47 ff 89 f3 83 c3 04 e8 00 00 10 00 90 c3", 19, "rbx=lo32(rsi+0x4)"},
		{"constants",
			"push %rbx; push %rbp; push %r12; xor %ebx,%ebx; mov $7,%ebp; or $-1,%r12; call f <>",
			"0f 1f 44 00 00 53 55 41 54 31 db bd 07 00 00 00 49 83 cc ff e8 00 00 10 00 90 c3", 25, "rbx=0x0 rbp=0x7 r12=-0x1"},
		{"frame pointer, realigned stack",
			"push %rbp; mov %rsp,%rbp; and $-16,%rsp; mov %rdi,-0x10(%rbp) <> nop; leave; ret",
			"0f 1f 44 00 00 55 48 89 e5 48 83 e4 f0 48 89 7d f0 90 c9 c3 90 c3", 17, "rsp=? rbp=cfa-0x10 -0x20=rdi -0x10=rbp*"},
		{"leave",
			"push %rbp; mov %rsp,%rbp; and $-16,%rsp; sub $0x20,%rsp; leave <> ret",
			"0f 1f 44 00 00 55 48 89 e5 48 83 e4 f0 48 83 ec 20 c9 c3 90 c3", 18, "rsp=cfa-0x8 rbp=rbp"},
		{"realigned through r10",
			"lea 0x8(%rsp),%r10; and $-32,%rsp; push -8(%r10); push %rbp; mov %rsp,%rbp; push %r10; mov (%r10),%rax <> nop",
			"0f 1f 44 00 00 4c 8d 54 24 08 48 83 e4 e0 41 ff 72 f8 55 48 89 e5 41 52 49 8b 02 90 90 c3", 27, "rsp=? rbp=? r10=cfa rax=?"},
		{"a loop that counts",
			"push %rbx; push %rbp; mov %rdi,%rbx; mov %rsi,%rbp; 1: add $8,%rbx; call f <> cmp %rbp,%rbx; jne 1b",
			"0f 1f 44 00 00 53 55 48 89 fb 48 89 f5 48 83 c3 08 e8 00 00 10 00 48 39 eb 75 f2 90 c3", 22, "rbx=? rbp=rsi"},
		{"a loop that changes nothing",
			"push %rbx; mov %rdi,%rbx; 1: call f <> test %eax,%eax; jne 1b; pop %rbx; ret",
			"0f 1f 44 00 00 53 48 89 fb e8 00 00 10 00 85 c0 75 f7 5b c3 90 c3", 14, "rbx=rdi"},
		{"two variables of a loop are not the same",
			"push %rbx; push %rbp; mov %rdi,%rbx; mov %rdi,%rbp; 1: mov %rbx,%rbp; add $8,%rbx; call f <> test %eax,%eax; jne 1b",
			"0f 1f 44 00 00 53 55 48 89 fb 48 89 fd 48 89 dd 48 83 c3 08 e8 00 00 10 00 85 c0 75 f0 90 c3", 25, "rbx=? rbp=? rbx!=rbp"},
		{"what an earlier turn left behind",
			"push %rbx; push %rbp; xor %ebx,%ebx; 1: mov %rbx,%rbp; call f; mov %rax,%rbx; call f <> test %eax,%eax; jne 1b",
			"0f 1f 44 00 00 53 55 31 db 48 89 dd e8 00 00 10 00 48 89 c3 e8 00 00 10 00 85 c0 75 ec 90 c3", 25, "rbx=? rbp=? rbx!=rbp"},
		{"both ways agree",
			"push %rbx; test %esi,%esi; je 1f; mov %rdi,%rbx; jmp 2f; 1: mov %rdi,%rbx; 2: call f <>",
			"0f 1f 44 00 00 53 85 f6 74 05 48 89 fb eb 03 48 89 fb e8 00 00 10 00 90 c3", 23, "rbx=rdi"},
		{"the ways differ",
			"push %rbx; mov %rdi,%rbx; test %esi,%esi; je 1f; mov %rdx,%rbx; 1: call f <>",
			"0f 1f 44 00 00 53 48 89 fb 85 f6 74 03 48 89 d3 e8 00 00 10 00 90 c3", 21, "rbx=?"},
		{"a slot on one way only",
			"sub $8,%rsp; test %esi,%esi; je 1f; mov %rdi,(%rsp); 1: call f <>",
			"0f 1f 44 00 00 48 83 ec 08 85 f6 74 04 48 89 3c 24 e8 00 00 10 00 90 c3", 22, "-0x10=none"},
		{"shrink-wrapped push",
			"test %rdi,%rdi; je 1f; push %rbx; mov %rdi,%rbx; call f <> pop %rbx; 1: ret",
			"0f 1f 44 00 00 48 85 ff 74 0a 53 48 89 fb e8 00 00 10 00 5b c3 90 c3", 19, "rbx=rdi -0x10=rbx*"},
		{"an address is passed on",
			"sub $0x18,%rsp; mov %rdi,(%rsp); mov %rsi,0x10(%rsp); lea 0x8(%rsp),%rdi; call f <>",
			"0f 1f 44 00 00 48 83 ec 18 48 89 3c 24 48 89 74 24 10 48 8d 7c 24 08 e8 00 00 10 00 90 c3", 28, "-0x20=none -0x10=none"},
		{"an address is stored",
			"sub $0x18,%rsp; mov %rdi,(%rsp); lea 0x8(%rsp),%rax; mov %rax,(%rsi); call f <>",
			"0f 1f 44 00 00 48 83 ec 18 48 89 3c 24 48 8d 44 24 08 48 89 06 e8 00 00 10 00 90 c3", 26, "-0x20=none"},
		{"an address is passed on afterwards",
			"sub $0x18,%rsp; mov %rdi,(%rsp); call f; lea 0x8(%rsp),%rdi; 1: call f <> jmp 1b",
			"0f 1f 44 00 00 48 83 ec 18 48 89 3c 24 e8 00 00 10 00 48 8d 7c 24 08 e8 00 00 10 00 eb f9 90 c3", 28, "-0x20=none"},
		{"saved registers are nobody's variable",
			"push %rbx; sub $0x10,%rsp; mov %rsp,%rdi; call f <>",
			"0f 1f 44 00 00 53 48 83 ec 10 48 89 e7 e8 00 00 10 00 90 c3", 18, "-0x10=rbx* rsp=cfa-0x20"},
		{"an array of the function's own",
			"push %rbx; sub $0x20,%rsp; mov %rdi,(%rsp); mov %rdx,0x8(%rsp,%rcx,8) <> nop",
			"0f 1f 44 00 00 53 48 83 ec 20 48 89 3c 24 48 89 54 cc 08 90 90 c3", 19, "-0x30=none -0x10=rbx*"},
		{"a bit of an array",
			"sub $0x18,%rsp; mov %rdi,(%rsp); bts %rsi,0x8(%rsp) <> nop",
			"0f 1f 44 00 00 48 83 ec 18 48 89 3c 24 48 0f ab 74 24 08 90 90 c3", 19, "-0x20=none"},
		{"a write through an argument",
			"sub $8,%rsp; mov %rdi,(%rsp); mov %rsi,(%rdx) <> nop",
			"0f 1f 44 00 00 48 83 ec 08 48 89 3c 24 48 89 32 90 90 c3", 16, "-0x10=rdi"},
		{"a write through what was read",
			"sub $8,%rsp; mov %rdi,(%rsp); mov (%rsi),%rax; movq $0,(%rax) <> nop",
			"0f 1f 44 00 00 48 83 ec 08 48 89 3c 24 48 8b 06 48 c7 00 00 00 00 00 90 90 c3", 23, "-0x10=rdi"},
		{"overwritten in part",
			"sub $8,%rsp; mov %rdi,(%rsp); movb $1,0x3(%rsp) <> nop",
			"0f 1f 44 00 00 48 83 ec 08 48 89 3c 24 c6 44 24 03 01 90 90 c3", 18, "-0x10=none"},
		{"overwritten by a vector",
			"sub $0x18,%rsp; mov %rdi,0x8(%rsp); movups %xmm0,(%rsp) <> nop",
			"0f 1f 44 00 00 48 83 ec 18 48 89 7c 24 08 0f 11 04 24 90 90 c3", 18, "-0x18=none"},
		{"popped",
			"push %rdi; pop %rax; push %rsi <> nop",
			"0f 1f 44 00 00 57 58 56 90 90 c3", 8, "-0x10=rsi rax=rdi"},
		{"cut off by a move to rsp",
			"push %rbp; mov %rsp,%rbp; push %rdi; mov %rbp,%rsp <> nop",
			"0f 1f 44 00 00 55 48 89 e5 57 48 89 ec 90 90 c3", 13, "-0x18=none rsp=cfa-0x10"},
		{"rep stos of known length",
			"sub $0x28,%rsp; mov %rdi,%rdx; mov %rdx,(%rsp); mov %rdx,0x20(%rsp); lea 0x8(%rsp),%rdi; mov $3,%ecx; xor %eax,%eax; rep stosq <> nop",
			"0f 1f 44 00 00 48 83 ec 28 48 89 fa 48 89 14 24 48 89 54 24 20 48 8d 7c 24 08 b9 03 00 00 00 31 c0 f3 48 ab 90 90 c3", 36, "-0x30=rdi -0x10=rdi rcx=? rdi=?"},
		{"rep stos of unknown length",
			"sub $0x28,%rsp; mov %rdi,%rdx; mov %rdx,(%rsp); mov %rdx,0x20(%rsp); lea 0x8(%rsp),%rdi; mov %rsi,%rcx; rep stosq <> nop",
			"0f 1f 44 00 00 48 83 ec 28 48 89 fa 48 89 14 24 48 89 54 24 20 48 8d 7c 24 08 48 89 f1 f3 48 ab 90 90 c3", 32, "-0x30=rdi -0x10=none"},
		{"rep movs",
			"mov %rdx,%rcx; rep movsb <> nop",
			"0f 1f 44 00 00 48 89 d1 f3 a4 90 90 c3", 10, "rdi=? rsi=? rcx=? rdx=rdx"},
		{"interrupted in a rep movs",
			"mov %rdx,%rcx <> rep movsb; ret",
			"0f 1f 44 00 00 48 89 d1 f3 a4 c3 90 c3", 8, "rdi=rdi rsi=rsi rcx=rdx"},
		{"xchg",
			"push %rbx; xchg %rdi,%rsi; xchg %rdx,(%rcx) <> nop",
			"0f 1f 44 00 00 53 48 87 fe 48 87 11 90 90 c3", 12, "rdi=rsi rsi=rdi rdx=?"},
		{"cmpxchg",
			"mov %rdi,%rax; lock cmpxchg %rsi,(%rdx) <> nop",
			"0f 1f 44 00 00 48 89 f8 f0 48 0f b1 32 90 90 c3", 13, "rax=? rsi=rsi rdx=rdx"},
		{"cmpxchg16b",
			"cmpxchg16b (%rdi) <> nop",
			"0f 1f 44 00 00 48 0f c7 0f 90 90 c3", 9, "rax=? rdx=? rbx=rbx rcx=rcx"},
		{"xadd",
			"lock xadd %rsi,(%rdi) <> nop",
			"0f 1f 44 00 00 f0 48 0f c1 37 90 90 c3", 10, "rsi=? rdi=rdi"},
		{"mul and div",
			"mul %rsi; mov %rdi,%rcx <> nop",
			"0f 1f 44 00 00 48 f7 e6 48 89 f9 90 90 c3", 11, "rax=? rdx=? rcx=rdi"},
		{"div",
			"div %rcx <> nop",
			"0f 1f 44 00 00 48 f7 f1 90 90 c3", 8, "rax=? rdx=? rcx=rcx"},
		{"imul of two operands",
			"imul %rsi,%rdi <> nop",
			"0f 1f 44 00 00 48 0f af fe 90 90 c3", 9, "rdi=? rax=rax rdx=rdx"},
		{"imul of three operands",
			"imul $5,%rsi,%rdi <> nop",
			"0f 1f 44 00 00 48 6b fe 05 90 90 c3", 9, "rdi=? rsi=rsi rdx=rdx"},
		{"cltd",
			"cltd <> nop",
			"0f 1f 44 00 00 99 90 90 c3", 6, "rdx=? rax=rax"},
		{"cmov of another value",
			"cmove %rsi,%rdi <> nop",
			"0f 1f 44 00 00 48 0f 44 fe 90 90 c3", 9, "rdi=?"},
		{"cmov of the same value",
			"mov %rdi,%rsi; cmove %rsi,%rdi <> nop",
			"0f 1f 44 00 00 48 89 fe 48 0f 44 fe 90 90 c3", 12, "rdi=rdi"},
		{"bswap, not, neg, shift",
			"bswap %rdi; not %rsi; neg %rdx; shl $3,%rcx <> nop",
			"0f 1f 44 00 00 48 0f cf 48 f7 d6 48 f7 da 48 c1 e1 03 90 90 c3", 18, "rdi=? rsi=? rdx=? rcx=?"},
		{"setcc",
			"mov %rdi,%rax; sete %al <> nop",
			"0f 1f 44 00 00 48 89 f8 0f 94 c0 90 90 c3", 11, "rax=?"},
		{"rdmsr and cpuid",
			"rdmsr <> nop",
			"0f 1f 44 00 00 0f 32 90 90 c3", 7, "rax=? rdx=? rcx=rcx"},
		{"cpuid",
			"cpuid <> nop",
			"0f 1f 44 00 00 0f a2 90 90 c3", 7, "rax=? rbx=? rcx=? rdx=?"},
		{"rdpkru",
			".byte 0x0f,0x01,0xee <> nop",
			"0f 1f 44 00 00 0f 01 ee 90 90 c3", 8, "rax=? rdx=? rcx=rcx"},
		{"vmcall",
			".byte 0x0f,0x01,0xc1 <> nop",
			"0f 1f 44 00 00 0f 01 c1 90 90 c3", 8, "rax=? rbx=? rbp=rbp"},
		{"a call keeps what is saved",
			"call f <>",
			"0f 1f 44 00 00 e8 00 00 10 00 90 c3", 10, "rbx=rbx rbp=rbp r12=r12 r13=r13 r14=r14 r15=r15 rdi=? r10=? rsp=cfa-0x8"},
		{"arguments on the stack",
			"mov 0x8(%rsp),%rax; mov 0x10(%rsp),%rbx <> nop",
			"0f 1f 44 00 00 48 8b 44 24 08 48 8b 5c 24 10 90 90 c3", 15, "rax=stack0 rbx=stack1"},
		{"BUG",
			"push %rbx; mov %rdi,%rbx; test %esi,%esi; jne 1f; call f <> pop %rbx; ret; 1: mov %rdx,%rbx; ud2; jmp <>",
			"0f 1f 44 00 00 53 48 89 fb 85 f6 75 07 e8 00 00 10 00 5b c3 48 89 d3 0f 0b eb f7 90 c3", 18, "rbx=rdi"},
		{"loop and jrcxz",
			"1: jrcxz 2f; loop 1b; 2: nop <> nop",
			"0f 1f 44 00 00 e3 02 e2 fc 90 90 90 c3", 10, "rcx=? rdi=rdi"},
		{"enter",
			"enter $16,$0 <> nop",
			"0f 1f 44 00 00 c8 10 00 00 90 90 c3", 9, "rsp=? rbp=?"},
		{"endbr",
			"endbr64; mov %rdi,%rax <> nop",
			"0f 1f 44 00 00 f3 0f 1e fa 48 89 f8 90 90 c3", 12, "rax=rdi"},
		{"push of a register and its frame",
			"push %rsp <> nop",
			"0f 1f 44 00 00 54 90 90 c3", 6, "-0x10=cfa-0x8"},
		{"pushf and popf",
			"pushf; push %rdi; popf; pop %rax <> nop",
			"0f 1f 44 00 00 9c 57 9d 58 90 90 c3", 9, "rax=? rsp=cfa-0x8"},
		{"high byte",
			"mov %rdi,%rax; mov %ah,%bl; mov $1,%ch <> nop",
			"0f 1f 44 00 00 48 89 f8 88 e3 b5 01 90 90 c3", 12, "rax=rdi rbx=? rcx=?"},
		{"rip-relative",
			"lea 0x10(%rip),%rax <> nop",
			"0f 1f 44 00 00 48 8d 05 10 00 00 00 90 90 c3", 12, "rax=-0x7effffe4"},
		{"gs-relative",
			"mov %gs:0x28,%rax; mov %rdi,%gs:0x30 <> nop",
			"0f 1f 44 00 00 65 48 8b 04 25 28 00 00 00 65 48 89 3c 25 30 00 00 00 90 90 c3", 23, "rax=? rdi=rdi"},
		{"byte and word loads",
			"sub $8,%rsp; mov %rdi,(%rsp); movzbl (%rsp),%eax; movslq (%rsp),%rcx; movzwl 0x2(%rsp),%edx <> nop",
			"0f 1f 44 00 00 48 83 ec 08 48 89 3c 24 0f b6 04 24 48 63 0c 24 0f b7 54 24 02 90 90 c3", 26, "rax=lo8(rdi) rcx=sx32(rdi) rdx=?"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f, err := codeOf(t, tt.code).flow()
			if err != nil {
				t.Fatal(err)
			}
			var l *locations
			if strings.HasSuffix(tt.asm[:strings.Index(tt.asm, "<>")], "call f ") {
				l, _, _, err = f.after(testEntry + tt.at)
			} else {
				l, err = f.at(testEntry + tt.at)
			}
			if err != nil {
				t.Fatal(err)
			}
			for want := range strings.FieldsSeq(tt.want) {
				if a, b, ok := strings.Cut(want, "!="); ok {
					if location(t, l, a) == location(t, l, b) {
						t.Errorf("%s and %s are the same: %v", a, b, location(t, l, a))
					}
					continue
				}
				place, value, _ := strings.Cut(want, "=")
				if got := describe(location(t, l, place)); got != value {
					t.Errorf("%s is %s, want %s", place, got, value)
				}
			}
		})
	}
}

// location returns the slot with an offset such as -0x10, or a register as a slot.
func location(t *testing.T, l *locations, place string) slot {
	if off, err := strconv.ParseInt(place, 0, 64); err == nil {
		s, _ := l.slot(off)
		return s
	}
	for r := range gprRegs {
		if gpr(r).String() == place {
			return slot{size: 8, val: l.regs[r]}
		}
	}
	t.Fatalf("no location %s", place)
	return slot{}
}

func describe(s slot) string {
	if s.size == 0 {
		return "none"
	}
	v := s.val
	text := "?"
	switch v.root.kind {
	case rootEntry:
		text = gpr(v.root.addr).String()
	case rootStack:
		text = fmt.Sprintf("stack%d", v.root.addr)
	case rootCFA:
		text = "cfa"
	case rootConst:
		return fmt.Sprintf("%#x", v.off)
	default:
		return text
	}
	if v.off != 0 {
		text += fmt.Sprintf("%+#x", v.off)
	}
	switch {
	case v.bits < 64 && v.signed:
		text = fmt.Sprintf("sx%d(%s)", v.bits, text)
	case v.bits < 64:
		text = fmt.Sprintf("lo%d(%s)", v.bits, text)
	}
	if s.saved {
		text += "*"
	}
	return text
}

// TestFrame leaves functions without ORC data by their code.
func TestFrame(t *testing.T) {
	tests := []struct {
		name string
		code string
		at   uint64
		want orcEntry
		err  bool
	}{
		{"at the entry", "53 c3", 0, orcEntry{spReg: orcSP, spOffset: 8}, false},
		{"push and sub", // push %rbx; sub $0xb0,%rsp; nop
			"53 48 81 ec b0 00 00 00 90 c3", 8, orcEntry{spReg: orcSP, spOffset: 0xc0}, false},
		{"saved rbp", // push %rbp; push %rbx; mov %rdi,%rbp; nop
			"55 53 48 89 fd 90 c3", 5, orcEntry{spReg: orcSP, spOffset: 24, bpReg: orcPrevSP, bpOffset: -16}, false},
		{"frame pointer, aligned stack", // push %rbp; mov %rsp,%rbp; and $-16,%rsp; nop
			"55 48 89 e5 48 83 e4 f0 90 c3", 8, orcEntry{spReg: orcBP, spOffset: 16, bpReg: orcPrevSP, bpOffset: -16}, false},
		{"leave", // push %rbp; mov %rsp,%rbp; sub $32,%rsp; leave; ret
			"55 48 89 e5 48 83 ec 20 c9 c3", 9, orcEntry{spReg: orcSP, spOffset: 8}, false},
		{"past a return that a jump goes over", // push %rbx; je 1f; pop %rbx; ret; 1: nop
			"53 74 02 5b c3 90 c3", 5, orcEntry{spReg: orcSP, spOffset: 16}, false},
		{"paths that differ", // je 1f; push %rbx; 1: nop
			"74 01 53 90 c3", 3, orcEntry{}, true},
		{"behind a loop", // 1: push %rbx; pop %rbx; jne 1b; nop
			"53 5b 75 fc 90 c3", 4, orcEntry{spReg: orcSP, spOffset: 8}, false},
		{"no path", "c3 90", 1, orcEntry{}, true},                       // ret; nop
		{"more popped than pushed", "58 5b 90 c3", 2, orcEntry{}, true}, // pop %rax; pop %rbx; nop
		{"rsp from elsewhere", "48 89 c4 90 c3", 3, orcEntry{}, true},   // mov %rax,%rsp; nop
	}
	for _, tt := range tests {
		tt.want.typ = typeCall
		got, err := func() (e orcEntry, err error) {
			f, err := codeOf(t, tt.code).flow()
			if err != nil {
				return e, err
			}
			l, err := f.at(testEntry + tt.at)
			if err != nil {
				return e, err
			}
			return l.frame()
		}()
		if (err != nil) != tt.err || err == nil && got != tt.want {
			t.Errorf("%s: %+v, %v; want %+v", tt.name, got, err, tt.want)
		}
		if err != nil && !errors.Is(err, errFlow) {
			t.Errorf("%s: error %v is not errFlow", tt.name, err)
		}
	}
}

// TestUnfollowable has code of which too little is known to trust the rest.
func TestUnfollowable(t *testing.T) {
	for _, tt := range []struct{ name, code string }{
		{"no instruction", "06"},
		{"a jump out of the function with its frame", "53 e9 00 10 00 00"},                      // push %rbx; jmp f
		{"a conditional one", "53 0f 84 00 10 00 00 5b c3"},                                     // push %rbx; je f; pop %rbx; ret
		{"a computed jump", "53 ff e0"},                                                         // push %rbx; jmp *%rax
		{"a jump table that cannot be read", "ff 24 c5 00 00 00 81"},                            // jmp *0xffffffff81000000(,%rax,8)
		{"a call into the function, as of an entry that fills the RSB", "e8 01 00 00 00 cc c3"}, // call 1f; int3; 1: ret
	} {
		if _, err := codeOf(t, tt.code).flow(); !errors.Is(err, errFlow) {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
}

// TestInterruptedString has an exception in the middle of a rep movsb: what its registers
// hold is no longer what they held.
func TestInterruptedString(t *testing.T) {
	f, err := codeOf(t, "48 89 d1 f3 a4 c3").flow() // mov %rdx,%rcx; rep movsb; ret
	if err != nil {
		t.Fatal(err)
	}
	l, err := f.during(testEntry + 3)
	if err != nil {
		t.Fatal(err)
	}
	for place, want := range map[string]string{"rdi": "?", "rsi": "?", "rcx": "?", "rdx": "rdx"} {
		if got := describe(location(t, l, place)); got != want {
			t.Errorf("%s is %s, want %s", place, got, want)
		}
	}
}

// TestFixup goes on behind a fault that the kernel expects.
func TestFixup(t *testing.T) {
	// push %rbx; mov %rdi,%rbx; mov (%rsi),%rax; ret; 1: mov %rsi,%rbx; call f
	c := codeOf(t, "53 48 89 fb 48 8b 06 c3 48 89 f3 e8 00 10 00 00 90 c3")
	c.fixups = map[uint64]fixup{testEntry + 4: {testEntry + 8, []gpr{rax, rsi}}}
	f, err := c.flow()
	if err != nil {
		t.Fatal(err)
	}
	l, _, _, err := f.after(testEntry + 16)
	if err != nil {
		t.Fatal(err)
	}
	if got := describe(location(t, l, "rbx")); got != "?" {
		t.Errorf("rbx is %s, a register that the fault handler set", got)
	}
	if got := describe(location(t, l, "-0x10")); got != "rbx*" {
		t.Errorf("-0x10 is %s", got)
	}
}

// FuzzFlow follows arbitrary code.
func FuzzFlow(f *testing.F) {
	f.Add([]byte("\x55\x48\x89\xe5\x48\x83\xe4\xf0\x90\xc3"), uint16(8), uint16(0), uint16(4))
	f.Add([]byte("\x53\x5b\x75\xfc\x90\xc3"), uint16(4), uint16(1), uint16(2))
	f.Add([]byte("\x53\x48\x89\xfb\xe8\x00\x00\x10\x00\x48\x83\xc3\x08\x85\xc0\x75\xf4\x5b\xc3"), uint16(9), uint16(3), uint16(1))
	f.Add([]byte("\x48\x83\xec\x28\x48\x89\x14\x24\x48\x8d\x7c\x24\x08\xf3\x48\xab\xc3"), uint16(13), uint16(8), uint16(2))
	f.Fuzz(func(t *testing.T, b []byte, at, fault, fix uint16) {
		if len(b) == 0 || len(b) > maxFunction {
			return
		}
		c := newCode(nil, "f", part{testEntry, b})
		c.fixups = map[uint64]fixup{testEntry + uint64(fault): {testEntry + uint64(fix), []gpr{rax, rcx}}}
		start := time.Now()
		flow, err := c.flow()
		if took := time.Since(start); took > 10*time.Second {
			t.Fatalf("took %v", took)
		}
		if err != nil {
			return
		}
		if flow.kept > maxKept+16+128 {
			t.Errorf("keeps %d values", flow.kept)
		}
		for i := range flow.nodes {
			pc := flow.nodes[i].Addr
			l, err := flow.at(pc)
			if err != nil {
				continue
			}
			for k := 1; k < len(l.slots); k++ {
				if a, b := l.slots[k-1], l.slots[k]; a.off+int64(a.size) > b.off {
					t.Fatalf("slots overlap at %#x: %+v, %+v", pc, a, b)
				}
			}
		}
		flow.after(testEntry + uint64(at))
		if l, err := flow.during(testEntry + uint64(at)); err == nil {
			if e, err := l.frame(); err == nil && e.spOffset <= 0 {
				t.Errorf("a frame that cannot be left: %+v", e)
			}
		}
	})
}

// FuzzRun runs one arbitrary instruction.
func FuzzRun(f *testing.F) {
	f.Add([]byte("\x48\x89\xfb"), int64(-0x20))
	f.Add([]byte("\xf3\x48\xab"), int64(8))
	f.Add([]byte("\x48\x0f\xab\x74\x24\x08"), int64(-8))
	f.Add([]byte("\x0f\x00\x1f"), int64(8)) // ltr (%rdi), which only reads
	f.Fuzz(func(t *testing.T, b []byte, sp int64) {
		c := newCode(nil, "f", part{testEntry, b})
		insn, err := c.decode(testEntry)
		if len(b) == 0 || err != nil {
			return
		}
		fl := &flow{graph: &graph{code: c}, loads: map[root]load{}}
		l := entryLocations()
		l.regs[rsp], l.regs[rdi], l.regs[rcx] = onStack(sp), onStack(sp+8), constant(sp)
		l.store(slot{off: -16, size: 8, val: entryValue(rbx), saved: true})
		before := l.clone()
		fl.run(l, insn)
		// What an instruction is said to leave alone must not be among what it writes.
		for _, a := range insn.Accesses() {
			if !a.Write || insn.MemBytes == 0 {
				continue
			}
			at := fl.address(before, insn, a.Mem)
			if at.root.kind != rootCFA {
				continue
			}
			for _, s := range l.slots {
				o, ok := before.slot(s.off)
				if ok && o == s && s.off < at.off+int64(insn.MemBytes) && at.off < s.off+int64(s.size) && insn.Op != x86asm.XCHG {
					t.Errorf("% x: the slot at %#x is still %+v", insn.Code, s.off, s)
				}
			}
		}
	})
}
