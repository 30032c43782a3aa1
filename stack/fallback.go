package stack

import (
	"errors"

	"inquest/kernel"
	"inquest/kernel/x86"
)

// dynamicText reports whether pc may be code that the kernel made at run time, such
// as a BPF program or an ftrace trampoline: it has no symbol, but the page tables
// let it run.
func (u *Unwinder) dynamicText(pc kernel.Addr) bool {
	const lowest = 0xff00000000000000
	if pc < lowest {
		return false
	}
	m, err := u.k.PageTable().Walk(uint64(pc))
	return err == nil && m.Flags&x86.PageNoExecute == 0
}

// stepWildCall goes back from a call to where no code is, such as one through a NULL
// pointer: all that it did was to push the return address.
func (u *Unwinder) stepWildCall(s state) (state, bool) {
	if !s.exact || u.k.Text(s.pc) || u.dynamicText(s.pc) {
		return s, false
	}
	pc, err := u.k.Pointer(s.sp)
	if err != nil || !u.returnAddress(pc) {
		return s, false
	}
	next := state{pc: pc, sp: s.sp + 8, bp: s.bp}
	next.regs.Set(x86.RBP, uint64(s.bp))
	return next, true
}

// stepFramePointer goes one frame outwards by the chain that rbp begins, which code
// without ORC data (BPF programs, trampolines) keeps. Code that has ORC data does not.
func (u *Unwinder) stepFramePointer(s state, why error) (state, bool) {
	const furthest = 32 << 10
	if !errors.Is(why, errNoORC) {
		return s, false
	}
	if s.bp < s.sp || s.bp-s.sp > furthest || s.bp%8 != 0 {
		return s, false
	}
	pc, err := u.k.Pointer(s.bp + 8)
	if err != nil || !u.returnAddress(pc) {
		return s, false
	}
	bp, err := u.k.Pointer(s.bp)
	if err != nil {
		return s, false
	}
	next := state{pc: pc, sp: s.bp + 16, bp: bp}
	next.regs.Set(x86.RBP, uint64(bp))
	return next, true
}

// stepScan looks up the stack for the next word that can be a return address.
func (u *Unwinder) stepScan(s state, t *kernel.Task) (state, bool) {
	end := u.stackEnd(s.sp, t)
	for at := (s.sp + 7) &^ 7; at < end; at += 8 {
		pc, err := u.k.Pointer(at)
		if err != nil {
			return s, false
		}
		if u.returnAddress(pc) {
			return state{pc: pc, sp: at + 8, bp: s.bp}, true
		}
	}
	return s, false
}

// stackEnd returns the end of the stack that sp is on. Stacks are aligned to their
// size; one that is not the task's own is taken to be an interrupt stack.
func (u *Unwinder) stackEnd(sp kernel.Addr, t *kernel.Task) kernel.Addr {
	if t != nil && sp >= t.Stack && sp < t.Stack+u.stackSize {
		return t.Stack + u.stackSize
	}
	return (sp | (4096 - 1)) + 1
}

// returnAddress reports whether pc is behind a call instruction in kernel text.
func (u *Unwinder) returnAddress(pc kernel.Addr) bool {
	if !u.k.Text(pc - 1) {
		return false
	}
	var b [7]byte
	if err := u.k.Read(b[:], pc-kernel.Addr(len(b))); err != nil {
		return false
	}
	if b[2] == 0xe8 { // call rel32
		return true
	}
	// call *r/m: ff /2, of 2 to 7 bytes.
	for n := 2; n <= len(b); n++ {
		op := b[len(b)-n:]
		if op[0] == 0xff && op[1]>>3&7 == 2 {
			if i, err := x86.Decode(op, 0); err == nil && i.Len == n {
				return true
			}
		}
	}
	return false
}
