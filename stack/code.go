package stack

import (
	"fmt"
	"strings"
	"sync"

	"github.com/cilium/ebpf/btf"
	"golang.org/x/arch/x86/x86asm"

	"inquest/kernel"
	"inquest/kernel/x86"
)

const (
	maxFunction = 64 << 10
	maxParts    = 1000
)

// code is the machine code of one function as it lies in memory, patched as it was:
// its body, the cold part that the compiler split off, and code that mends faults.
type code struct {
	k      *kernel.Kernel
	name   string // without the suffix of a cold part
	entry  uint64
	parts  []part
	fixups map[uint64]fixup // by the instruction that may fault
	graph  func() (*graph, error)
	flow   func() (*flow, error)
	proto  func() (*btf.FuncProto, error)
}

type part struct {
	start uint64
	bytes []byte
}

// newCode makes code of parts, the first of which begins with the entry.
func newCode(k *kernel.Kernel, name string, parts ...part) *code {
	c := &code{k: k, name: name, entry: parts[0].start, parts: parts}
	c.graph = sync.OnceValues(func() (*graph, error) { return discover(c) })
	c.flow = sync.OnceValues(func() (*flow, error) { return follow(c) })
	c.proto = sync.OnceValues(func() (*btf.FuncProto, error) { return prototype(k, name, kernel.Addr(c.entry)) })
	return c
}

// codeAt returns the function that pc is in.
func (u *Unwinder) codeAt(pc kernel.Addr) (*code, error) {
	sym, _, ok := u.k.SymbolAt(pc)
	if !ok || !sym.IsCode() {
		return nil, fmt.Errorf("%v is in no function: %w", pc, errFlow)
	}
	name, cold := cutCold(sym.Name)
	if !cold {
		return u.function(sym)
	}
	// Of several static functions of a name, the one that jumps here.
	for _, hot := range u.k.LookupIn(sym.Module, name) {
		if c, err := u.function(hot); err == nil {
			if _, err := c.flow(); err == nil && c.within(uint64(sym.Addr)) != nil {
				return c, nil
			}
		}
	}
	return nil, fmt.Errorf("%s: its hot part cannot be told: %w", sym.Name, errFlow)
}

// function returns the code of a function.
func (u *Unwinder) function(sym kernel.Symbol) (*code, error) {
	if c, ok := u.codes.Load(sym.Addr); ok {
		return c.(*code), nil
	}
	p, err := readPart(u.k, sym)
	if err != nil {
		return nil, err
	}
	c := newCode(u.k, sym.Name, p)
	c.addFixups(p)
	have, _ := u.codes.LoadOrStore(sym.Addr, c)
	return have.(*code), nil
}

func readPart(k *kernel.Kernel, sym kernel.Symbol) (part, error) {
	if sym.Size == 0 || sym.Size > maxFunction {
		return part{}, fmt.Errorf("%s is %d bytes long: %w", sym.Name, sym.Size, errFlow)
	}
	p := part{uint64(sym.Addr), make([]byte, sym.Size)}
	if err := k.Read(p.bytes, sym.Addr); err != nil {
		return part{}, fmt.Errorf("read %s: %w", sym.Name, err)
	}
	return p, nil
}

// addCold makes the function's cold part a part of it, once a jump leads there.
func (c *code) addCold(target uint64) error {
	if c.k == nil || len(c.parts) > maxParts {
		return nil
	}
	sym, off, ok := c.k.SymbolAt(kernel.Addr(target))
	if !ok {
		return nil
	}
	if name, cold := cutCold(sym.Name); !cold || name != c.name || off > 0 && c.within(uint64(sym.Addr)) != nil {
		return nil
	}
	p, err := readPart(c.k, sym)
	if err != nil {
		return err
	}
	c.parts = append(c.parts, p)
	c.addFixups(p)
	return nil
}

// cutCold takes "name" from "name.cold" and "name.cold.7" (GCC 8 and older).
func cutCold(symbol string) (name string, cold bool) {
	name, _, cold = strings.Cut(symbol, ".cold")
	return name, cold
}

// within returns the bytes from an address to the end of its part; nil outside.
func (c *code) within(at uint64) []byte {
	for _, p := range c.parts {
		if at >= p.start && at-p.start < uint64(len(p.bytes)) {
			return p.bytes[at-p.start:]
		}
	}
	return nil
}

func (c *code) decode(at uint64) (x86.Insn, error) {
	b := c.within(at)
	if b == nil {
		return x86.Insn{}, fmt.Errorf("%#x is outside of %s", at, c.name)
	}
	return x86.Decode(b, at)
}

// leaves reports whether an instruction leaves the function by a jump: a tail call,
// before which the stack must be as it was at the entry.
func (c *code) leaves(insn x86.Insn) bool {
	if !insn.Known() || insn.Op == x86asm.CALL {
		return false
	}
	if target, direct := insn.Target(); direct {
		return c.within(target) == nil
	}
	mem, _ := insn.Args[0].(x86asm.Mem)
	return insn.Op == x86asm.JMP && mem.Index == 0
}

// successors returns where control goes from an instruction: to the next one, and
// to targets within the function.
func (c *code) successors(insn x86.Insn) (next bool, targets []uint64, err error) {
	if !insn.Known() {
		switch insn.Text(nil) {
		case "ud1", "udb":
			return c.warns(insn), nil, nil
		}
		return true, nil, nil
	}
	target, direct := insn.Target()
	switch insn.Op {
	case x86asm.RET, x86asm.LRET, x86asm.IRET, x86asm.IRETD, x86asm.IRETQ, x86asm.SYSRET, x86asm.SYSEXIT, x86asm.HLT:
		return insn.Op == x86asm.HLT, nil, nil
	case x86asm.UD2, x86asm.UD1:
		return c.warns(insn), nil, nil
	case x86asm.INT:
		return insn.Args[0] != x86asm.Imm(3), nil, nil
	case x86asm.CALL:
		if direct && target != c.entry && c.within(target) != nil {
			return false, nil, fmt.Errorf("call at %#x within the function: %w", insn.Addr, errFlow)
		}
		return !(direct && c.noreturn(target)), nil, nil
	case x86asm.JMP:
		if direct {
			if c.within(target) == nil {
				return false, nil, nil // a tail call
			}
			return false, []uint64{target}, nil
		}
		if _, table := insn.Args[0].(x86asm.Mem); table && insn.Args[0].(x86asm.Mem).Index != 0 {
			targets, err := c.jumpTable(insn)
			return false, targets, err
		}
		return false, nil, nil // a tail call through a pointer
	}
	if direct { // a conditional jump
		if c.within(target) != nil {
			return true, []uint64{target}, nil
		}
	}
	return true, nil, nil
}

// warns reports whether a trap is a WARN(), behind which the code goes on; behind a
// BUG() it does not.
func (c *code) warns(insn x86.Insn) bool { return c.k != nil && c.k.Warns(kernel.Addr(insn.Addr)) }

// jumpTable reads the targets of `jmp *table(,%reg,8)`: the kernel has such tables
// where it is built without retpolines. How long one is, is not said; it ends with
// the first entry that does not point into the function.
func (c *code) jumpTable(insn x86.Insn) ([]uint64, error) {
	m := insn.Args[0].(x86asm.Mem)
	if c.k == nil || m.Scale != 8 || m.Base != 0 {
		return nil, fmt.Errorf("indirect jump at %#x: %w", insn.Addr, errFlow)
	}
	var targets []uint64
	const most = 1024
	for i := range uint64(most) {
		t, err := c.k.U64(kernel.Addr(uint64(m.Disp) + 8*i))
		if err != nil || c.within(t) == nil {
			break
		}
		targets = append(targets, t)
	}
	if len(targets) == 0 {
		return nil, fmt.Errorf("jump table at %#x: %w", uint64(m.Disp), errFlow)
	}
	return targets, nil
}

// noReturn are functions that never come back (objtool's noreturns.h has the list).
var noReturn = map[string]bool{
	"__stack_chk_fail": true, "panic": true, "vpanic": true, "do_exit": true, "do_group_exit": true, "make_task_dead": true,
	"__fortify_panic": true, "fortify_panic": true, "usercopy_abort": true, "rewind_stack_and_make_dead": true,
	"rewind_stack_do_exit": true, "__module_put_and_kthread_exit": true, "kthread_exit": true, "kthread_complete_and_exit": true,
	"__module_put_and_exit": true, "complete_and_exit": true, "stop_this_cpu": true, "machine_real_restart": true,
	"nmi_panic_self_stop": true, "panic_smp_self_stop": true, "cpu_startup_entry": true, "__ubsan_handle_builtin_unreachable": true,
	"ex_handler_msr_mce": true, "hlt_play_dead": true, "arch_cpu_idle_dead": true, "sev_es_terminate": true, "snp_abort": true,
	"mce_panic": true, "x86_64_start_reservations": true, "start_kernel": true,
}

func (c *code) noreturn(target uint64) bool { return noReturn[c.symbol(target)] }

// transparent reports whether a call leaves all registers as they are: ftrace's at
// the entry, and the preemption thunks.
func (c *code) transparent(insn x86.Insn) bool {
	target, ok := insn.Target()
	if !ok {
		return false
	}
	switch c.symbol(target) {
	case "": // perhaps a trampoline that ftrace made
		return insn.Addr-c.entry <= 4
	case "__fentry__", "ftrace_caller", "ftrace_regs_caller",
		"preempt_schedule_thunk", "preempt_schedule_notrace_thunk", "___preempt_schedule", "___preempt_schedule_notrace":
		return true
	}
	return false
}

// symbol names the function that begins at an address, "" when none does.
func (c *code) symbol(at uint64) string {
	if c.k == nil {
		return ""
	}
	sym, off, ok := c.k.SymbolAt(kernel.Addr(at))
	if !ok || off != 0 {
		return ""
	}
	return sym.Name
}

// after returns what is known at pc, where a call has returned or will: the state
// behind the call, and the one in front of it.
func (f *flow) after(pc uint64) (behind, before *locations, call x86.Insn, err error) {
	call, ok := f.callBefore(pc)
	if !ok {
		return nil, nil, call, fmt.Errorf("no call before %#x: %w", pc, errFlow)
	}
	if before, err = f.at(call.Addr); err != nil {
		return nil, nil, call, err
	}
	behind = before.clone()
	f.run(behind, call)
	return behind, before, call, nil
}

// stepCode goes one frame outwards by the function's own code, for functions that
// the kernel excludes from its ORC tables (STACK_FRAME_NON_STANDARD), such as
// __crash_kexec, in which every panic with kdump ends.
func (u *Unwinder) stepCode(s state) (state, error) {
	c, err := u.codeAt(lookupPC(s))
	if err != nil {
		return s, err
	}
	f, err := c.flow()
	if err != nil {
		return s, err
	}
	var l *locations
	if s.exact {
		l, err = f.at(uint64(s.pc))
	} else {
		l, _, _, err = f.after(uint64(s.pc))
	}
	if err != nil {
		return s, err
	}
	e, err := l.frame()
	if err != nil {
		return s, fmt.Errorf("%s: %w", c.name, err)
	}
	next, err := u.pop(s, e)
	if err == nil && !u.returnAddress(next.pc) {
		err = fmt.Errorf("%v is behind no call: %w", next.pc, errFlow)
	}
	return next, err
}

// frame says where the frame is, as an ORC entry does.
func (l *locations) frame() (orcEntry, error) {
	e := orcEntry{typ: typeCall}
	switch sp, bp := l.regs[rsp], l.regs[rbp]; {
	case sp.root.kind == rootCFA && sp.bits == 64 && sp.off < 0:
		e.spReg, e.spOffset = orcSP, -sp.off
	case bp.root.kind == rootCFA && bp.bits == 64 && bp.off < 0:
		e.spReg, e.spOffset = orcBP, -bp.off
	default:
		return e, fmt.Errorf("the stack pointer is lost: %w", errFlow)
	}
	if l.regs[rbp] != entryValue(rbp) {
		for _, slot := range l.slots {
			if slot.val == entryValue(rbp) {
				e.bpReg, e.bpOffset = orcPrevSP, slot.off
			}
		}
	}
	return e, nil
}
