package stack

import (
	"errors"
	"fmt"
	"sync"

	"inquest/kernel"
	"inquest/kernel/x86"
)

const (
	maxFrames = 4096
	// iretOffset is where the part of pt_regs that the CPU pushes begins.
	iretOffset = int64(x86.RIP) * 8
)

// errEnd reports a proper end of a stack.
var errEnd = errors.New("end of stack")

// Unwinder unwinds the stacks of one kernel. It is safe for concurrent use.
type Unwinder struct {
	k         *kernel.Kernel
	orc       *orc
	stackSize kernel.Addr
	cpus      map[int]kernel.CPUState
	current   map[kernel.Addr]int // task_struct -> the CPU that was running it
	forkFrom  kernel.Addr         // ret_from_fork: where a new task first runs
	codes     sync.Map            // entry kernel.Addr -> *code
	thunks    func() map[uint64]gpr
	jumped    sync.Map // entry uint64 -> jumps
}

// NewUnwinder prepares to unwind the stacks of a kernel.
func NewUnwinder(k *kernel.Kernel) *Unwinder {
	u := &Unwinder{k: k, orc: newORC(k), stackSize: kernel.Addr(k.StackSize()), cpus: map[int]kernel.CPUState{}, current: map[kernel.Addr]int{}}
	u.thunks = sync.OnceValue(func() map[uint64]gpr { return findThunks(k) })
	for _, s := range k.CPUStates() {
		u.cpus[s.CPU] = s
	}
	cpus, _ := k.PresentCPUs()
	for _, cpu := range cpus {
		if task, err := k.CurrentAddr(cpu); err == nil && task != 0 {
			u.current[task] = cpu
		}
	}
	for _, name := range []string{"ret_from_fork_asm", "ret_from_fork"} { // _asm since 6.6
		if a, err := k.Symbol(name); err == nil {
			u.forkFrom = a
			break
		}
	}
	return u
}

// state is where an unwind has got to.
type state struct {
	pc, sp, bp kernel.Addr
	exact      bool // pc is an instruction, not a return address
	regs       x86.Regs
	regsAt     kernel.Addr
}

// unwind walks from s outwards and fills in t. Where the ORC tables do not know,
// the function's code may tell; failing that, frame pointers and a scan of the
// stack give frames that are not to be relied on.
func (u *Unwinder) unwind(t *Trace, s state) {
	t.Reliable = true
	distrust := func(why string) {
		if t.Reliable {
			t.Reliable, t.Problem = false, why
		}
	}
	guess := false
	seen := map[[2]kernel.Addr]bool{}
	for len(t.Frames) < maxFrames {
		if s.regs.User() {
			regs := s.regs
			t.User = &regs
			return
		}
		if key := [2]kernel.Addr{s.pc, s.sp}; seen[key] {
			distrust(fmt.Sprintf("the stack leads back to %v", s.pc))
			return
		} else {
			seen[key] = true
		}
		t.Frames = append(t.Frames, u.frame(s, guess))
		guess = false
		next, err := u.step(s)
		if err == nil {
			s = next
			continue
		}
		if errors.Is(err, errEnd) {
			return
		}
		if next, err := u.stepCode(s); err == nil {
			s = next
			continue
		}
		distrust(err.Error())
		if next, ok := u.stepFramePointer(s, err); ok {
			s = next
			continue
		}
		next, ok := u.stepScan(s, t.Task)
		if !ok {
			return
		}
		s, guess = next, true
	}
	distrust(fmt.Sprintf("more than %d frames", maxFrames))
}

func (u *Unwinder) frame(s state, guess bool) Frame {
	f := Frame{PC: s.pc, SP: s.sp, Exact: s.exact, Guess: guess, Regs: s.regs, RegsAt: s.regsAt}
	f.Regs.Set(x86.RIP, uint64(s.pc))
	f.Regs.Set(x86.RSP, uint64(s.sp))
	if sym, _, ok := u.k.SymbolAt(lookupPC(s)); ok {
		f.Symbol, f.Offset = sym, uint64(s.pc-sym.Addr)
	}
	return f
}

// lookupPC is the address whose function a frame is in. A return address may
// belong to the next function, when the call was the last instruction.
func lookupPC(s state) kernel.Addr {
	if s.exact {
		return s.pc
	}
	return s.pc - 1
}

// step goes one frame outwards by the ORC tables, as unwind_next_frame() of
// arch/x86/kernel/unwind_orc.c does.
func (u *Unwinder) step(s state) (state, error) {
	e, err := u.orc.find(lookupPC(s))
	if err != nil {
		if next, ok := u.stepWildCall(s); ok {
			return next, nil
		}
		return s, err
	}
	switch e.typ {
	case typeEnd:
		return s, errEnd
	case typeUndefined:
		return s, fmt.Errorf("%v: the ORC data leaves this instruction undefined", s.pc)
	}
	return u.pop(s, e)
}

// pop leaves the frame that an entry describes.
func (u *Unwinder) pop(s state, e orcEntry) (state, error) {
	cfas, err := u.cfa(s, e)
	if err != nil {
		return s, err
	}
	for i, cfa := range cfas {
		var next state
		switch e.typ {
		case typeCall:
			next, err = u.popCall(s, e, cfa)
		case typeRegs:
			next, err = u.popRegs(s, cfa)
		case typeRegsPartial:
			next, err = u.popPartialRegs(s, cfa)
		}
		if err == nil && (len(cfas) == 1 || u.plausible(next)) {
			return next, nil
		}
		if i == len(cfas)-1 && err == nil {
			err = fmt.Errorf("%v: no return address at %v", s.pc, cfa-8)
		}
	}
	return s, err
}

// cfa computes the canonical frame address; for an indirect one there are two
// readings, the likelier first.
func (u *Unwinder) cfa(s state, e orcEntry) ([]kernel.Addr, error) {
	off := kernel.Addr(e.spOffset)
	reg := func(r x86.Reg) ([]kernel.Addr, error) {
		v, ok := s.regs.Get(r)
		if !ok {
			return nil, fmt.Errorf("%v: the frame hangs on %v, which is not known", s.pc, r)
		}
		return []kernel.Addr{kernel.Addr(v) + off}, nil
	}
	switch e.spReg {
	case orcSP:
		return []kernel.Addr{s.sp + off}, nil
	case orcBP:
		return []kernel.Addr{s.bp + off}, nil
	case orcBPIndirect:
		p, err := u.k.Pointer(s.bp + off)
		return []kernel.Addr{p}, err
	case orcSPIndirect:
		// The old stack pointer is at the top of an interrupt stack: at (%rsp), the
		// offset to be added to it, since 5.12 (commit aafeb14e9da2); at
		// offset(%rsp) before.
		var both []kernel.Addr
		p, err := u.k.Pointer(s.sp)
		if err == nil {
			both = append(both, p+off)
		}
		if q, err2 := u.k.Pointer(s.sp + off); err2 == nil && off != 0 {
			both = append(both, q)
		}
		if len(both) == 0 {
			return nil, err
		}
		return both, nil
	case orcAX:
		return reg(x86.RAX)
	case orcDX:
		return reg(x86.RDX)
	case orcDI:
		return reg(x86.RDI)
	case orcR10:
		return reg(x86.R10)
	case orcR13:
		return reg(x86.R13)
	}
	return nil, fmt.Errorf("%v: ORC entry with stack register %d: %w", s.pc, e.spReg, kernel.ErrCorrupt)
}

// popCall leaves a called function: the return address is below the CFA.
func (u *Unwinder) popCall(s state, e orcEntry, cfa kernel.Addr) (state, error) {
	pc, err := u.k.Pointer(cfa - 8)
	if err != nil {
		return s, fmt.Errorf("read return address: %w", err)
	}
	// Another base than rsp may lead to another stack, which can be anywhere: 5.10
	// keeps the interrupted one's address in rbp.
	if cfa <= s.sp && e.spReg == orcSP {
		return s, fmt.Errorf("%v: the stack goes the wrong way, from %v to %v", s.pc, s.sp, cfa)
	}
	if !u.k.Text(pc) && !u.dynamicText(pc) {
		return s, fmt.Errorf("%v at %v is no return address", pc, cfa-8)
	}
	next := state{pc: pc, sp: cfa, bp: s.bp}
	switch e.bpReg {
	case orcPrevSP:
		next.bp, err = u.k.Pointer(cfa + kernel.Addr(e.bpOffset))
	case orcBP:
		next.bp, err = u.k.Pointer(s.bp + kernel.Addr(e.bpOffset))
	}
	if err != nil {
		return s, fmt.Errorf("read saved rbp: %w", err)
	}
	next.regs.Set(x86.RBP, uint64(next.bp))
	return next, nil
}

// popRegs leaves an exception or interrupt: pt_regs is at the CFA.
func (u *Unwinder) popRegs(s state, at kernel.Addr) (state, error) {
	var b [x86.PtRegsSize]byte
	if err := u.k.Read(b[:], at); err != nil {
		return s, fmt.Errorf("read pt_regs: %w", err)
	}
	regs, err := x86.FromPtRegs(b[:])
	if err != nil {
		return s, err
	}
	return u.interrupted(regs, at)
}

// popPartialRegs leaves an exception whose entry code has only the hardware's
// frame so far: the other registers are still as they were.
func (u *Unwinder) popPartialRegs(s state, at kernel.Addr) (state, error) {
	regs := s.regs
	for i, r := range []x86.Reg{x86.RIP, x86.CS, x86.EFlags, x86.RSP, x86.SS} {
		v, err := u.k.U64(at + kernel.Addr(8*i))
		if err != nil {
			return s, fmt.Errorf("read exception frame: %w", err)
		}
		if r == x86.CS || r == x86.SS {
			v &= 0xffff
		}
		regs.Set(r, v)
	}
	regs.Set(x86.RBP, uint64(s.bp))
	return u.interrupted(regs, at-kernel.Addr(iretOffset))
}

func (u *Unwinder) interrupted(regs x86.Regs, at kernel.Addr) (state, error) {
	bp, _ := regs.Get(x86.RBP)
	next := state{
		pc: kernel.Addr(regs.PC()), sp: kernel.Addr(regs.SP()), bp: kernel.Addr(bp),
		exact: true, regs: regs, regsAt: at,
	}
	const kernelCS = 0x10
	if cs, _ := regs.Get(x86.CS); cs != kernelCS && !regs.User() {
		return next, fmt.Errorf("pt_regs at %v has cs %#x: %w", at, cs, kernel.ErrCorrupt)
	}
	return next, nil
}

// plausible reports whether a state is one that code can be in.
func (u *Unwinder) plausible(s state) bool {
	return s.regs.User() || u.k.Text(s.pc) || u.dynamicText(s.pc)
}
