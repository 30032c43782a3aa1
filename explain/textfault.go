package explain

import (
	"fmt"
	"strings"

	"golang.org/x/arch/x86/x86asm"

	"inquest/console"
	"inquest/kernel/x86"
)

// TextFault explains an access to memory that the hardware refused.
var TextFault = &TextAnalyzer{
	Name: "fault",
	Doc:  "page faults, general protection faults and their like on other machines",
	Run: func(r *console.Report) (Finding, bool) {
		if r.Kind != console.PageFault && r.Kind != console.Protection && !(r.Kind == console.Trap && badAccess(r)) {
			return Finding{}, false
		}
		if f, ok := fetchText(r); ok {
			return f, true
		}
		f := Finding{Class: WildPointer, Confidence: Certain}
		at := in(function(r))
		verb := map[string]string{"read": "read from", "write": "write to"}[accessOf(r)]
		if verb == "" {
			verb = "access to"
		}
		insn, addr, how, known := trappedAccess(r)
		if how != "" {
			verb = how
		}
		if insn != "" {
			f.Evidence = append(f.Evidence, Evidence{Text: "the trapped instruction is " + insn})
		}
		if !known && r.HasAddress {
			addr, known = r.Address, true
		}
		addr, shadow := unshadow(r, addr)
		switch what, class := judgeText(addr); {
		case strings.Contains(r.What, "NULL pointer"), nullByDetail(r):
			f.Class, f.Title = NullDereference, "NULL pointer dereference"+at
			if known && class != "" {
				f.Evidence = append(f.Evidence, Evidence{Text: what})
			}
		case !known:
			f.Title, f.Confidence = verb+" a wild address"+at, Likely
		case class == NullDereference:
			f.Class, f.Title = class, "NULL pointer dereference"+at
			f.Evidence = append(f.Evidence, Evidence{Text: what})
			if shadow {
				f.Confidence = Likely
			}
		default:
			f.Title = verb + " a wild address" + at
			if what != "" {
				f.Evidence = append(f.Evidence, Evidence{Text: what})
			}
		}
		for _, d := range r.Details {
			if len(f.Evidence) < 8 {
				f.Evidence = append(f.Evidence, Evidence{Text: d})
			}
		}
		return f, true
	},
}

// badAccess reports whether a trap that has no better name was for a bad access (arm:
// arch/arm/mm/fsr-2level.c; ppc64: arch/powerpc/mm/fault.c; s390: addressing exceptions).
func badAccess(r *console.Report) bool {
	for _, s := range [...]string{"Oops: ", "Oops", "page domain fault", "alignment", "Alignment", "translation fault", "permission fault", "addressing exception", "access of bad area", "stack segment",
		"user-space access", "Accessing user space", "unaligned", "level "} {
		if strings.Contains(r.What+r.Message, s) {
			return !strings.Contains(r.What+r.Message, "Oops - undefined") && !strings.Contains(r.What, "Oops - BUG") && !strings.Contains(r.What, "illegal instruction") &&
				!strings.Contains(r.What, "Exception in kernel mode") && !strings.Contains(r.What, "Bad") && !strings.Contains(r.What, "external abort")
		}
	}
	return false
}

// fetchText is a fault on fetching the instruction itself.
func fetchText(r *console.Report) (Finding, bool) {
	m := r.Main()
	if m == nil || m.PC == nil {
		return Finding{}, false
	}
	pc := m.PC
	exec := r.Access == "execute" || x86Code(r) && r.ErrorCode&pfFetch != 0
	for _, d := range r.Details {
		exec = exec || strings.Contains(d, "tried to execute") || strings.Contains(d, "unable to execute") || strings.Contains(d, "xecute from non-executable")
	}
	jumped := pc.Symbol == "" && (r.NoCode || r.HasAddress && pc.Addr == r.Address || r.Kind != console.Protection && r.Code == nil && len(m.Frames) > 0)
	if !exec && !jumped {
		return Finding{}, false
	}
	frames := sectionFrames(m, console.Frame{})
	caller := culprit(frames[min(1, len(frames)):], nil)
	if m.LR != nil && m.LR.Symbol != "" { // the jump left its trace there
		caller = culprit(append([]console.Frame{*m.LR}, frames[min(1, len(frames)):]...), nil)
	}
	f := Finding{Class: WildPointer, Title: "jump to a wild address", Confidence: Certain}
	from := ""
	if caller != "" {
		from = " from " + caller
	}
	addr := pc.Addr
	if addr == 0 && r.HasAddress {
		addr = r.Address
	}
	switch {
	case pc.Symbol == "" && addr < nullZone:
		f.Class, f.Title = NullDereference, "call through a NULL function pointer"+from
	case pc.Symbol != "":
		f.Class, f.Title = BadInstruction, fmt.Sprintf("jump to %s, which is not to be executed,%s", pc.Name(), from)
	default:
		f.Title += from
	}
	f.Evidence = append(f.Evidence, Evidence{Text: fmt.Sprintf("the CPU was told to execute at %#x", addr)})
	return f, true
}

// x86Code reports whether a report has x86's error code of a page fault: on other machines
// that number is another one.
func x86Code(r *console.Report) bool {
	return r.Kind == console.PageFault && r.HasCode && (strings.HasPrefix(r.Message, "BUG: kernel") || strings.HasPrefix(r.Message, "BUG: unable"))
}

// accessOf is how memory was accessed: as said, or by x86's error code.
func accessOf(r *console.Report) string {
	switch {
	case r.Access != "":
		return r.Access
	case !x86Code(r):
		return ""
	case r.ErrorCode&pfWrite != 0:
		return "write"
	}
	return "read"
}

// trappedInsn decodes the trapped instruction of x86-64 by the bytes around it.
func trappedInsn(r *console.Report) (insn x86.Insn, regs x86.Regs, ok bool) {
	m := r.Main()
	if m == nil || r.CodeAt < 0 || r.CodeAt >= len(r.Code) {
		return insn, regs, false
	}
	if _, is := m.Get("rsp"); !is {
		return insn, regs, false
	}
	insn, err := x86.Decode(r.Code[r.CodeAt:], 0)
	return insn, textRegs(m), err == nil && insn.Known()
}

// trappedAccess returns the trapped instruction with the first address of its own that
// cannot be right, and how it accessed that.
func trappedAccess(r *console.Report) (text string, addr uint64, how string, ok bool) {
	insn, regs, known := trappedInsn(r)
	if !known {
		return "", 0, "", false
	}
	for _, a := range insn.Accesses() {
		at, known := a.Address(&regs)
		if !known {
			continue
		}
		if _, class := judgeText(at); class != "" || r.HasAddress && r.Address-at < 64 {
			how = "read from"
			switch {
			case a.Write && a.Read:
				how = "update of"
			case a.Write:
				how = "write to"
			}
			return strings.TrimSpace(insn.Text(nil)), at, how, true
		}
	}
	return strings.TrimSpace(insn.Text(nil)), 0, "", false
}

// dividedByZero reports whether the trapped instruction divided by a register that is 0.
func dividedByZero(r *console.Report) (string, bool) {
	insn, regs, ok := trappedInsn(r)
	if !ok || insn.Op != x86asm.DIV && insn.Op != x86asm.IDIV {
		return "", false
	}
	operand, isReg := insn.Args[0].(x86asm.Reg)
	if !isReg {
		return "", false
	}
	reg, mask, known := x86.General(operand)
	if !known {
		return "", false
	}
	v, known := regs.Get(reg)
	return strings.TrimSpace(insn.Text(nil)), known && v&mask == 0
}

// textRegs are the registers of a section as the decoder wants them.
func textRegs(m *console.Section) x86.Regs {
	var regs x86.Regs
	for n := x86.Reg(0); n < x86.NumRegs; n++ {
		name := n.String()
		if name == "r8" || name == "r9" {
			name = "r0" + name[1:] // as the kernel writes them
		}
		if name == "fs" || name == "gs" || name == "cs" || name == "ds" || name == "es" || name == "ss" {
			continue
		}
		if v, ok := m.Get(name); ok {
			regs.Set(n, v)
		}
	}
	return regs
}

// shadows are where KASAN's shadow of address 0 lies (CONFIG_KASAN_SHADOW_OFFSET): x86-64,
// and arm64 by the size of its address space.
var shadows = [...]uint64{0xdffffc0000000000, 0xdfff800000000000, 0xdfffa00000000000, 0xdfff200000000000}

// unshadow returns the address whose shadow an address is; that is what the code wanted.
func unshadow(r *console.Report, addr uint64) (uint64, bool) {
	for _, s := range shadows {
		if addr >= s && addr-s < nullZone>>3 {
			return (addr - s) << 3, true
		}
	}
	return addr, false
}

func nullByDetail(r *console.Report) bool {
	for _, d := range r.Details {
		if strings.Contains(d, "null-ptr-deref in range") {
			return true
		}
	}
	return false
}

// judgeText says what is wrong with an address as far as its value tells; class is ""
// where that is nothing.
func judgeText(addr uint64) (what string, class Class) {
	for _, p := range poisons {
		if addr >= p.low && addr <= p.high {
			return fmt.Sprintf("%#x is like %s", addr, p.what), WildPointer
		}
	}
	switch {
	case addr < nullZone:
		return fmt.Sprintf("%#x is NULL plus an offset", addr), NullDereference
	case addr > ^uint64(0)-maxErrno:
		return fmt.Sprintf("%#x is an error code, %s, used as a pointer", addr, errnoName(-addr)), WildPointer
	case addr > ^uint64(0)-nullZone:
		return fmt.Sprintf("%#x is NULL minus %#x, or an error code with an offset", addr, -addr), NullDereference
	case addr>>47 != 0 && addr>>47 != 1<<17-1 && addr>>56 != 0xff:
		return fmt.Sprintf("%#x is not a canonical address%s", addr, asText(addr)), WildPointer
	case addr < userTop:
		return fmt.Sprintf("%#x is in user space%s", addr, asText(addr)), WildPointer
	}
	return "", ""
}
