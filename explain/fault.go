package explain

import (
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/arch/x86/x86asm"

	"inquest/heap"
	"inquest/kernel"
	"inquest/kernel/x86"
)

// Fault explains a trap that one instruction's own memory access raised: which
// address it used, from which registers, and what is wrong with it.
var Fault = &Analyzer{
	Name: "fault",
	Doc:  "the faulting instruction, the address it used and what is wrong with that",
	Run:  runFault,
}

// Page fault error code bits (Intel SDM vol. 3, 4.7).
const (
	pfPresent = 1 << 0
	pfWrite   = 1 << 1
	pfFetch   = 1 << 4
)

func runFault(c *Case) []Finding {
	cr := c.Crash
	if cr == nil || cr.Fault == nil || !c.trapped() {
		return nil
	}
	site := cr.Fault
	name := cr.Trace.Frames[site.Frame].Name()
	if f, ok := c.fetchFault(); ok {
		bad, _ := c.judge(uint64(site.PC), false, true)
		c.origins(&f, bad)
		return []Finding{f}
	}
	if !site.Known {
		return nil
	}
	var best *Finding
	var worst badness
	for _, a := range site.Insn.Accesses() {
		addr, ok := a.Address(&site.Regs)
		if !ok {
			continue
		}
		bad, isBad := c.judge(addr, a.Write && !a.Read, false)
		agrees := c.logSays(addr)
		if !isBad && !agrees {
			continue
		}
		if !isBad {
			bad = badness{class: WildPointer, what: fmt.Sprintf("%#x could not be accessed", addr), sure: false}
		}
		f := c.accessFinding(name, a, addr, bad)
		if agrees || bad.sure && (cr.Event == nil || cr.Event.Address == "" || cr.Event.Kind == KindProtection) {
			f.Confidence = Certain
		}
		if best == nil || f.Confidence > best.Confidence {
			best, worst = &f, bad
		}
	}
	if best == nil {
		return nil
	}
	c.origins(best, worst)
	return []Finding{*best}
}

// trapped reports whether the crash was a trap for a bad access, as opposed to a
// trap that the code raises on purpose or a watchdog's interrupt.
func (c *Case) trapped() bool {
	cr := c.Crash
	if cr.Fault.Known {
		switch cr.Fault.Insn.Op {
		case x86asm.UD1, x86asm.UD2, x86asm.INT, x86asm.ICEBP, x86asm.DIV, x86asm.IDIV, x86asm.HLT:
			return false
		}
		if !cr.Fault.Insn.Known() {
			return false
		}
	}
	if cr.Event == nil {
		return true
	}
	switch cr.Event.Kind {
	case KindPageFault, KindProtection:
		return true
	case KindOtherTrap:
		return strings.HasPrefix(cr.Event.Trigger, "stack segment")
	}
	return false
}

// logSays reports whether the log names this faulting address. The CPU reports the
// byte that faulted, which may be a few past the operand's first.
func (c *Case) logSays(addr uint64) bool {
	e := c.Crash.Event
	if e == nil || e.Address == "" {
		return false
	}
	want, err := strconv.ParseUint(e.Address, 16, 64)
	return err == nil && want-addr < 64
}

func (c *Case) errorCode() (uint64, bool) {
	e := c.Crash.Event
	if e == nil || e.Kind != KindPageFault || e.Code == "" {
		return 0, false
	}
	v, err := strconv.ParseUint(e.Code, 16, 64)
	return v, err == nil
}

// fetchFault is a trap on fetching the instruction itself: the pc is bad.
func (c *Case) fetchFault() (Finding, bool) {
	site := c.Crash.Fault
	code, coded := c.errorCode()
	bad, isBad := c.judge(uint64(site.PC), false, true)
	if !(coded && code&pfFetch != 0) && !(isBad && bad.sure) {
		return Finding{}, false
	}
	if !isBad {
		bad = badness{class: BadInstruction, what: fmt.Sprintf("%v cannot be executed", site.PC), sure: false}
	}
	f := Finding{
		Class:      bad.class,
		Title:      "jump to a wild address",
		Confidence: Certain,
		Evidence:   []Evidence{{Text: "the CPU was told to execute at a bad address: " + bad.what, Addr: site.PC}},
	}
	target := c.place(site.PC)
	if target != "" {
		f.Title = "jump to " + target
	}
	if site.PC < nullZone {
		f.Title = "call through a NULL function pointer"
	} else if c.Kernel.PageTable().Canonical(uint64(site.PC)) {
		if sym, _, known := c.Kernel.SymbolAt(site.PC); known {
			f.Title = fmt.Sprintf("jump to %s, which is %s,", c.Kernel.Name(site.PC), codeOrData(sym))
		}
	}
	// The caller's return address is on top of the stack.
	sp := kernel.Addr(site.Regs.SP())
	if ret, err := c.Kernel.Pointer(sp); err == nil && c.Kernel.Text(ret) {
		f.culprit = functionOf(c.Kernel.Name(ret))
		f.via = target
		f.Title += " from " + f.culprit
		f.Evidence = append(f.Evidence, Evidence{
			Text:  fmt.Sprintf("the return address on the stack is %s: the call is in front of it", c.Kernel.Name(ret)),
			Addr:  ret,
			Check: fmt.Sprintf("dis -r %v", ret),
		})
	}
	return f, true
}

// place says in a word or two what memory an address is in; "" where that says nothing.
func (c *Case) place(at kernel.Addr) string {
	m, err := c.heap().Identify(at)
	if err != nil {
		return ""
	}
	switch m.Kind {
	case heap.Slab:
		if m.Slab != nil {
			return "an object of slab cache " + m.Slab.Cache.Name
		}
		return "slab memory"
	case heap.LargeKmalloc, heap.Page:
		return "a page of memory"
	case heap.FreePage:
		return "a free page"
	case heap.Vmalloc:
		return "vmalloc memory"
	case heap.TaskStack, heap.IRQStack, heap.ExceptionStack:
		return "a stack"
	case heap.PerCPU:
		return "per-CPU memory"
	case heap.KernelRodata:
		return "constants of the kernel"
	case heap.KernelData, heap.KernelBSS:
		return "data of the kernel"
	case heap.ModuleData:
		return "data of module " + m.Module
	case heap.Init:
		return "code of the boot, which was given back"
	case heap.User:
		return "user space"
	}
	return ""
}

func codeOrData(sym kernel.Symbol) string {
	if sym.IsCode() {
		return "not to be executed any more"
	}
	return "data"
}

func (c *Case) accessFinding(name string, a x86.Access, addr uint64, bad badness) Finding {
	site := c.Crash.Fault
	verb := "read from"
	if a.Write {
		verb = "write to"
	}
	if a.Write && a.Read {
		verb = "update of"
	}
	function := functionOf(name)
	f := Finding{Class: bad.class, Confidence: Likely}
	switch bad.class {
	case NullDereference:
		f.Title = fmt.Sprintf("NULL pointer dereference in %s", function)
	default:
		f.Title = fmt.Sprintf("%s a wild address in %s", verb, function)
	}
	if area := c.behindArea(kernel.Addr(addr)); bad.class == WildPointer && area != nil {
		f.Class = OutOfBounds
		f.Title = fmt.Sprintf("%s what lies behind the end of a vmalloc area, in %s", verb, BlameFor(c.places(c.Crash.Trace.Frames[c.Crash.Culprit:])).Function)
		bad.what += fmt.Sprintf(", the guard page behind the %d bytes that %s allocated at %v", area.Size, area.Symbol, area.Start)
	}
	f.Evidence = []Evidence{
		{Text: fmt.Sprintf("%s at %s", site.Insn.Text(c.symname), name), Addr: site.PC, Check: fmt.Sprintf("dis -r %v", site.PC)},
		{Text: fmt.Sprintf("%s %#x: %s", verb, addr, bad.what), Addr: kernel.Addr(addr)},
	}
	c.trace(&f, a)
	if c.logSays(addr) {
		f.Evidence = append(f.Evidence, Evidence{Text: "the log reports the same address: " + c.Crash.Event.Message})
	}
	if code, ok := c.errorCode(); ok && (code&pfWrite != 0) != a.Write {
		c.Crash.doubt("the error code %#x and the instruction disagree on read or write", code)
	}
	return f
}

// behindArea is the vmalloc area in whose guard page an address lies; nil where it is in
// none.
func (c *Case) behindArea(at kernel.Addr) *heap.Area {
	mem, err := c.heap().Identify(at)
	if err != nil || mem.Area == nil || mem.Area.Size == 0 || at < mem.Area.Start+kernel.Addr(mem.Area.Size) || at >= mem.Area.End {
		return nil
	}
	return mem.Area
}

// symname names addresses in disassembly.
func (c *Case) symname(addr uint64) (string, uint64) {
	sym, _, ok := c.Kernel.SymbolAt(kernel.Addr(addr))
	if !ok {
		return "", 0
	}
	return sym.Name, uint64(sym.Addr)
}

// functionOf takes the function from "symbol+0xoffset [module]".
func functionOf(name string) string {
	name, _, _ = strings.Cut(name, "+")
	name, _, _ = strings.Cut(name, " ")
	return base(name)
}

func shortAddr(v uint64) string {
	if v == 0 {
		return "NULL"
	}
	return fmt.Sprintf("%#x", v)
}
