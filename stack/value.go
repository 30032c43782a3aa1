package stack

import (
	"slices"

	"inquest/kernel/x86"
)

// value is what a location holds, as far as it is known: the low bits of root+off.
type value struct {
	root   root
	off    int64
	bits   uint8 // 64, or fewer: the rest is zero, or with signed a copy of the top bit
	signed bool
}

// root is where a value comes from. Two values of one root differ by a constant.
type root struct {
	kind rootKind
	addr uint64 // the instruction that made it, or the place where paths meet; of an entry value the number of the register or stack word
	loc  int64  // the location it was made in
}

type rootKind uint8

const (
	rootNone  rootKind = iota
	rootEntry          // a register at the function's entry
	rootStack          // a word of the caller's stack at the entry: arguments beyond the sixth
	rootCFA            // the canonical frame address
	rootConst          // zero: the value is its offset
	rootDef            // made by an instruction in a way that is not followed
	rootPhi            // differs by the path taken
)

func entryValue(r gpr) value { return value{root: root{kind: rootEntry, addr: uint64(r)}, bits: 64} }
func constant(n int64) value { return value{root: root{kind: rootConst}, off: n, bits: 64} }
func onStack(off int64) value {
	return value{root: root{kind: rootCFA}, off: off, bits: 64}
}
func phiValue(at uint64, loc int64) value {
	return value{root: root{rootPhi, at, loc}, bits: 64}
}

// add returns v+n.
func (v value) add(n int64) value {
	v.off += n
	return v
}

// low returns the low bits of v, the rest zero or, if signed, copied.
func (v value) low(bits uint8, signed bool) (value, bool) {
	if v.root.kind == rootConst && bits < 64 {
		n := uint64(v.off) << (64 - bits)
		if signed {
			return constant(int64(n) >> (64 - bits)), true
		}
		return constant(int64(n >> (64 - bits))), true
	}
	if v.bits < bits {
		if v.signed {
			return value{}, false
		}
		return v, true // its upper bits are zero already
	}
	if v.bits > bits {
		v.signed = signed
	} else if v.signed != signed && bits < 64 {
		v.signed = signed
	}
	v.bits = bits
	return v, true
}

// gpr numbers the general registers as x86 encodes them.
type gpr uint8

const (
	rax gpr = iota
	rcx
	rdx
	rbx
	rsp
	rbp
	rsi
	rdi
	r8
	r9
	r10
	r11
	r12
	r13
	r14
	r15
)

var gprRegs = [16]x86.Reg{x86.RAX, x86.RCX, x86.RDX, x86.RBX, x86.RSP, x86.RBP, x86.RSI, x86.RDI,
	x86.R8, x86.R9, x86.R10, x86.R11, x86.R12, x86.R13, x86.R14, x86.R15}

func (r gpr) String() string { return gprRegs[r].String() }

// The System V ABI for AMD64: who passes arguments, who survives a call.
var (
	argRegs   = [6]gpr{rdi, rsi, rdx, rcx, r8, r9}
	savedRegs = [6]gpr{rbx, rbp, r12, r13, r14, r15}
)

func isSaved(r gpr) bool { return slices.Contains(savedRegs[:], r) }

// locations are all registers and the known words of the stack.
type locations struct {
	regs  [16]value
	slots []slot // by offset
}

// slot is a piece of the stack, by its offset from the CFA.
type slot struct {
	off   int64
	size  int
	val   value
	saved bool // a register of the caller was saved here: nothing else ever writes it
}

// slotLoc numbers a slot apart from all registers. Offsets are small.
func slotLoc(off int64) int64 { return (off<<8 | 0xff) & (staleBit - 1) }

// stackArgs is how many words of the caller's outgoing arguments are followed.
const stackArgs = 6

func entryLocations() *locations {
	l := &locations{}
	for r := range l.regs {
		l.regs[r] = entryValue(gpr(r))
	}
	l.regs[rsp] = onStack(-8)
	for i := range int64(stackArgs) {
		l.slots = append(l.slots, slot{off: 8 * i, size: 8, val: value{root: root{kind: rootStack, addr: uint64(i)}, bits: 64}})
	}
	return l
}

func (l *locations) clone() *locations {
	c := *l
	c.slots = slices.Clone(l.slots)
	return &c
}

func (l *locations) slot(off int64) (slot, bool) {
	i, ok := slices.BinarySearchFunc(l.slots, off, func(s slot, off int64) int { return int(s.off - off) })
	if !ok {
		return slot{}, false
	}
	return l.slots[i], true
}

// store puts a value into the stack and forgets what it overlaps.
func (l *locations) store(s slot) {
	l.drop(func(o slot) bool { return o.off < s.off+int64(s.size) && s.off < o.off+int64(o.size) })
	i, _ := slices.BinarySearchFunc(l.slots, s.off, func(o slot, off int64) int { return int(o.off - off) })
	const most, furthest = 128, 1 << 24
	if len(l.slots) < most && s.off > -furthest && s.off < furthest {
		l.slots = slices.Insert(l.slots, i, s)
	}
}

func (l *locations) drop(which func(slot) bool) { l.slots = slices.DeleteFunc(l.slots, which) }

// forget makes a root stale everywhere: the instruction that made it runs again.
// What is left over from earlier turns of a loop is known to be equal to nothing.
func (l *locations) forget(r root) {
	stale := func(v *value, loc int64) {
		if v.root.kind == r.kind && v.root.addr == r.addr && (v.root.loc == r.loc || v.root.loc&staleBit != 0) {
			*v = value{root: root{rootDef, r.addr, loc | staleBit}, bits: 64}
		}
	}
	for i := range l.regs {
		stale(&l.regs[i], int64(i))
	}
	for i := range l.slots {
		stale(&l.slots[i].val, slotLoc(l.slots[i].off))
	}
}

// staleBit tells what an earlier turn left in a location from what this one made.
const staleBit = 1 << 40
