package stack

import (
	"golang.org/x/arch/x86/x86asm"

	"inquest/kernel/x86"
)

// run applies one instruction to what is known.
func (f *flow) run(l *locations, insn x86.Insn) {
	if !insn.Known() {
		for _, r := range implicitByName[insn.Text(nil)] {
			f.set(l, r, f.def(l, insn, int64(r)))
		}
		return
	}
	dst, src := insn.Args[0], insn.Args[1]
	switch insn.Op {
	case x86asm.MOV:
		f.move(l, insn, dst, f.read(l, insn, src))
	case x86asm.MOVZX:
		f.move(l, insn, dst, f.extend(l, insn, src, false))
	case x86asm.MOVSX, x86asm.MOVSXD:
		f.move(l, insn, dst, f.extend(l, insn, src, true))
	case x86asm.LEA:
		f.lea(l, insn)
	case x86asm.ADD, x86asm.SUB, x86asm.INC, x86asm.DEC:
		f.addSub(l, insn)
	case x86asm.XOR:
		if dst == src {
			f.move(l, insn, dst, constant(0))
			return
		}
		f.unknown(l, insn, dst)
	case x86asm.OR:
		if imm, ok := src.(x86asm.Imm); ok && imm == -1 {
			f.move(l, insn, dst, constant(-1))
			return
		}
		f.unknown(l, insn, dst)
	case x86asm.PUSH, x86asm.PUSHFQ:
		v := f.def(l, insn, pushLoc)
		if insn.Op == x86asm.PUSH {
			v = f.read(l, insn, dst)
		}
		f.adjust(l, -8)
		f.store(l, l.regs[rsp], 8, v)
	case x86asm.POP, x86asm.POPFQ:
		v := f.loadAt(l, insn, l.regs[rsp], 8, popLoc)
		f.adjust(l, 8)
		if insn.Op == x86asm.POP {
			f.move(l, insn, dst, v)
		}
	case x86asm.LEAVE:
		f.set(l, rsp, l.regs[rbp])
		v := f.loadAt(l, insn, l.regs[rsp], 8, popLoc)
		f.adjust(l, 8)
		f.set(l, rbp, v)
	case x86asm.ENTER:
		f.set(l, rsp, f.def(l, insn, int64(rsp)))
		f.set(l, rbp, f.def(l, insn, int64(rbp)))
	case x86asm.XCHG:
		a, b := f.read(l, insn, dst), f.read(l, insn, src)
		f.move(l, insn, dst, b)
		f.move(l, insn, src, a)
	case x86asm.XADD:
		f.unknown(l, insn, dst)
		f.unknown(l, insn, src)
	case x86asm.CMOVA, x86asm.CMOVAE, x86asm.CMOVB, x86asm.CMOVBE, x86asm.CMOVE, x86asm.CMOVG, x86asm.CMOVGE, x86asm.CMOVL,
		x86asm.CMOVLE, x86asm.CMOVNE, x86asm.CMOVNO, x86asm.CMOVNP, x86asm.CMOVNS, x86asm.CMOVO, x86asm.CMOVP, x86asm.CMOVS:
		v := f.read(l, insn, src)
		if r, ok := general(dst); !ok || v != l.regs[r] || insn.DataSize != 64 {
			f.unknown(l, insn, dst)
		}
	case x86asm.CALL:
		f.call(l, insn)
	default:
		if unit := stringWrites[insn.Op]; unit > 0 {
			f.stringWrite(l, insn, unit)
		} else if !writesNothing[insn.Op] {
			f.unknown(l, insn, dst)
		}
		if insn.Op == x86asm.IMUL && src != nil {
			return // the form that names all its operands
		}
		for _, r := range implicit[insn.Op] {
			f.set(l, r, f.def(l, insn, int64(r)))
		}
	}
}

// Locations of values that an instruction makes beside its registers.
const (
	pushLoc int64 = 64 + iota
	popLoc
	memLoc
	fixupLoc
)

// def makes a value that only this instruction knows.
func (f *flow) def(l *locations, insn x86.Insn, loc int64) value {
	r := root{rootDef, insn.Addr, loc}
	l.forget(r)
	return value{root: r, bits: 64}
}

// set gives a register a new value.
func (f *flow) set(l *locations, r gpr, v value) {
	l.regs[r] = v
	switch {
	case r == rsp:
		f.popped(l)
	case r == rbp && v == onStack(-16): // the frame pointer
	case r == r10 && v == onStack(0): // where the arguments are, before the stack is realigned
	default:
		f.escape(v)
	}
}

// escape notes that the address of a local variable, or of an argument on the stack,
// is where it may be passed on. Whoever has it may reach all around it: callees go
// from a member to the struct that it is in.
func (f *flow) escape(v value) {
	if v.root.kind == rootCFA {
		f.escapes.locals = f.escapes.locals || v.off < 0
		f.escapes.args = f.escapes.args || v.off >= 0
	}
}

// unknown forgets what an instruction writes.
func (f *flow) unknown(l *locations, insn x86.Insn, dst x86asm.Arg) {
	switch a := dst.(type) {
	case x86asm.Reg:
		if r, ok := general(a); ok {
			f.set(l, r, f.def(l, insn, int64(r)))
		}
	case x86asm.Mem:
		f.write(l, insn, a, f.def(l, insn, memLoc))
	}
}

// write writes a memory operand.
func (f *flow) write(l *locations, insn x86.Insn, m x86asm.Mem, v value) {
	at := f.address(l, insn, m)
	if at.root.kind == rootNone {
		f.escapeIn(l, m) // somewhere in an array of the function's own
	}
	switch insn.Op {
	case x86asm.BTS, x86asm.BTR, x86asm.BTC: // the bit may lie outside of the operand
		f.escape(at)
		f.wildStore(l)
	}
	f.store(l, at, insn.MemBytes, v)
}

// stringWrite writes units upwards from rdi, with a prefix as many as rcx says.
func (f *flow) stringWrite(l *locations, insn x86.Insn, unit int64) {
	size := unit
	if repeats(insn) {
		size = 0
		const most = 1 << 16
		if n := l.regs[rcx]; n.root.kind == rootConst && n.bits == 64 && n.off > 0 && n.off < most {
			size = n.off * unit
		}
	}
	f.store(l, l.regs[rdi], int(size), f.def(l, insn, memLoc))
}

// repeats reports whether an instruction has one of the prefixes rep and repne.
func repeats(insn x86.Insn) bool {
	for _, p := range insn.Prefix {
		if p = p &^ (x86asm.PrefixImplicit | x86asm.PrefixIgnored | x86asm.PrefixInvalid); p == x86asm.PrefixREP || p == x86asm.PrefixREPN {
			return true
		}
	}
	return false
}

// escapeIn notes that an address is made of that of a local variable.
func (f *flow) escapeIn(l *locations, m x86asm.Mem) {
	for _, part := range []x86asm.Reg{m.Base, m.Index} {
		if _, r, ok := width(part); ok {
			f.escape(l.regs[r])
		}
	}
}

// address is the value of a memory operand's address.
func (f *flow) address(l *locations, insn x86.Insn, m x86asm.Mem) value {
	if m.Segment == x86asm.GS || m.Segment == x86asm.FS {
		return value{}
	}
	v := constant(0)
	if m.Base == x86asm.RIP {
		v = constant(int64(insn.Addr) + int64(insn.Len))
	} else if m.Base != 0 {
		bits, r, ok := width(m.Base)
		if !ok || bits != 64 || l.regs[r].bits != 64 {
			return value{}
		}
		v = l.regs[r]
	}
	if m.Index != 0 {
		bits, r, ok := width(m.Index)
		if !ok || bits != 64 {
			return value{}
		}
		switch i := l.regs[r]; {
		case i.root.kind == rootConst && i.bits == 64:
			v = v.add(i.off * int64(m.Scale))
		case v.root.kind == rootConst && m.Scale == 1 && i.bits == 64:
			v = i.add(v.off)
		default:
			return value{}
		}
	}
	return v.add(m.Disp)
}

// read returns an operand's value.
func (f *flow) read(l *locations, insn x86.Insn, arg x86asm.Arg) value {
	switch a := arg.(type) {
	case x86asm.Imm:
		return constant(int64(a))
	case x86asm.Reg:
		bits, r, ok := width(a)
		if !ok || bits == 0 {
			break
		}
		if v, ok := l.regs[r].low(bits, false); ok {
			return v
		}
	case x86asm.Mem:
		return f.loadAt(l, insn, f.address(l, insn, a), insn.MemBytes, memLoc)
	}
	return f.def(l, insn, memLoc)
}

// loadAt reads memory: the stack, where its contents are known.
func (f *flow) loadAt(l *locations, insn x86.Insn, at value, size int, loc int64) value {
	if at.root.kind == rootCFA && at.bits == 64 {
		if s, ok := l.slot(at.off); ok && size > 0 && size <= s.size {
			if v, ok := s.val.low(uint8(8*size), false); ok {
				return v
			}
		}
	}
	v := f.def(l, insn, loc)
	delete(f.loads, v.root)
	if at.root.kind != rootNone && at.root != v.root && size > 0 && size <= 8 {
		f.loads[v.root] = load{at, size}
	}
	if size > 0 && size < 8 {
		v.bits = uint8(8 * size)
	}
	return v
}

func (f *flow) extend(l *locations, insn x86.Insn, src x86asm.Arg, signed bool) value {
	bits := uint8(8 * insn.MemBytes)
	if r, ok := src.(x86asm.Reg); ok {
		if bits, _, ok = width(r); !ok || bits == 0 {
			return f.def(l, insn, memLoc)
		}
	}
	v, ok := f.read(l, insn, src).low(bits, signed)
	if !ok {
		return f.def(l, insn, memLoc)
	}
	return v
}

// move writes a value to an operand.
func (f *flow) move(l *locations, insn x86.Insn, dst x86asm.Arg, v value) {
	switch a := dst.(type) {
	case x86asm.Reg:
		bits, r, ok := width(a)
		switch {
		case !ok:
			return
		case bits == 32: // clears the upper half
			if v, ok = v.low(32, false); !ok {
				v = f.def(l, insn, int64(r))
			}
		case bits < 32: // keeps the rest of the register
			v = f.def(l, insn, int64(r))
		}
		f.set(l, r, v)
	case x86asm.Mem:
		f.write(l, insn, a, v)
	}
}

// store writes memory; size is 0 where it is not known.
func (f *flow) store(l *locations, at value, size int, v value) {
	f.escape(v)
	switch at.root.kind {
	case rootCFA:
		switch {
		case at.bits != 64:
			f.wildStore(l)
		case size <= 0:
			l.drop(func(s slot) bool { return !s.saved && s.off+int64(s.size) > at.off })
		case size > 8:
			l.drop(func(s slot) bool { return s.off < at.off+int64(size) && at.off < s.off+int64(s.size) })
		default:
			saved := v.root.kind == rootEntry && v == entryValue(gpr(v.root.addr)) && isSaved(gpr(v.root.addr))
			l.store(slot{off: at.off, size: size, val: v, saved: saved})
		}
		f.incoming = max(f.incoming, at.off+int64(max(size, 8)))
	case rootEntry, rootConst:
		// What the function was given, or a global, is not its own stack.
	default:
		f.wildStore(l)
	}
}

// wildStore is a write through a pointer that may be one to a local variable.
func (f *flow) wildStore(l *locations) {
	l.drop(func(s slot) bool {
		if s.off >= 0 {
			return f.escapes.args
		}
		return f.escapes.locals && !s.saved
	})
}

// adjust moves the stack pointer.
func (f *flow) adjust(l *locations, by int64) { f.set(l, rsp, l.regs[rsp].add(by)) }

// popped forgets what has fallen off the stack.
func (f *flow) popped(l *locations) {
	if sp := l.regs[rsp]; sp.root.kind == rootCFA {
		l.drop(func(s slot) bool { return s.off < sp.off })
	}
}

func (f *flow) addSub(l *locations, insn x86.Insn) {
	dst := insn.Args[0]
	by := value{root: root{kind: rootConst}, off: 1, bits: 64}
	if insn.Op == x86asm.ADD || insn.Op == x86asm.SUB {
		by = f.read(l, insn, insn.Args[1])
	}
	r, isReg := dst.(x86asm.Reg)
	if !isReg || by.root.kind != rootConst || by.bits != 64 {
		f.unknown(l, insn, dst)
		return
	}
	bits, num, ok := width(r)
	if !ok || bits < 32 || l.regs[num].signed || l.regs[num].bits < bits {
		f.unknown(l, insn, dst)
		return
	}
	n := by.off
	if insn.Op == x86asm.SUB || insn.Op == x86asm.DEC {
		n = -n
	}
	f.move(l, insn, dst, l.regs[num].add(n))
}

func (f *flow) lea(l *locations, insn x86.Insn) {
	m, ok := insn.Args[1].(x86asm.Mem)
	if !ok {
		f.unknown(l, insn, insn.Args[0])
		return
	}
	v := f.address(l, insn, m)
	if v.root.kind == rootNone {
		f.escapeIn(l, m)
		f.unknown(l, insn, insn.Args[0])
		return
	}
	f.move(l, insn, insn.Args[0], v)
}

// call forgets what a callee may change.
func (f *flow) call(l *locations, insn x86.Insn) {
	if f.code.transparent(insn) {
		return
	}
	for _, r := range []gpr{rax, rcx, rdx, rsi, rdi, r8, r9, r10, r11} {
		f.set(l, r, f.def(l, insn, int64(r)))
	}
	f.wildStore(l)
}
