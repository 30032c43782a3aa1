package explain

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"inquest/console"
)

// TextTrap explains exceptions that no memory access raises.
var TextTrap = &TextAnalyzer{
	Name: "trap",
	Doc:  "divide errors, invalid instructions, double faults, machine checks",
	Run: func(r *console.Report) (Finding, bool) {
		f := Finding{Confidence: Certain}
		at := in(function(r))
		switch r.Kind {
		case console.DivideError:
			f.Class, f.Title = DivideError, "division by zero, or an overflowing quotient,"+at
			if insn, zero := dividedByZero(r); zero {
				f.Title = "division by zero" + at
				f.Evidence = append(f.Evidence, Evidence{Text: "the trapped instruction is " + insn + ", and that register is 0"})
			}
		case console.InvalidOpcode:
			f.Class, f.Title = BadInstruction, "invalid instruction"+at
			if bugText(r) {
				f.Class, f.Title = Bug, "BUG"+at
			}
		case console.DoubleFault:
			f.Class, f.Title = DoubleFault, "double fault"+at
		case console.MachineCheck:
			f.Class, f.Title = MachineCheck, "machine check: the hardware reported an error it could not correct"
			if !uncorrected(r) {
				f.Title = "machine check: the hardware corrected an error"
			}
			for _, d := range r.Details {
				if len(f.Evidence) < 6 {
					f.Evidence = append(f.Evidence, Evidence{Text: d})
				}
			}
		case console.Trap:
			f.Class, f.Title = trapText(r)
			f.Title += at
		default:
			return f, false
		}
		return f, true
	},
}

// bankStatus is the status of a bank in "CPU 2: Machine Check: 0 Bank 5: 8c00004000010092".
var bankStatus = regexp.MustCompile(`Bank \d+: ([0-9a-f]{16})`)

// uncorrected reports whether the hardware could not correct what it reports: it raised an
// exception, or its status says so (MCI_STATUS_UC, arch/x86/include/asm/mce.h).
func uncorrected(r *console.Report) bool {
	const uc = 1 << 61
	if r.Fatal || !strings.Contains(r.Message, "Machine Check: ") {
		return true
	}
	m := bankStatus.FindStringSubmatch(r.Message)
	if m == nil {
		return false
	}
	status, err := strconv.ParseUint(m[1], 16, 64)
	return err == nil && status&uc != 0
}

// bugText reports whether an invalid instruction is that of BUG(), whose line the text
// lacks: ud2 on x86.
func bugText(r *console.Report) bool {
	return r.CodeAt >= 0 && r.CodeAt+1 < len(r.Code) && r.Code[r.CodeAt] == 0x0f && r.Code[r.CodeAt+1] == 0x0b || strings.Contains(r.Message, "BRK")
}

func trapText(r *console.Report) (Class, string) {
	text := r.What
	if text == "" {
		text = r.Message
	}
	has := func(s string) bool { return strings.Contains(text, s) }
	switch {
	case has("int3"):
		return BadInstruction, "int3 breakpoint that nothing handled,"
	case has("undefined instruction"), has("illegal instruction"), has("CFI"), has("ENDBR"), has("control protection"):
		return BadInstruction, "invalid instruction or jump"
	case has("Oops - BUG"), has("Exception in kernel mode"), has("BRK handler"):
		return Bug, "BUG"
	case has("external abort"), has("SError"):
		return MachineCheck, "the hardware refused an access"
	case has("stack segment"), has("segment not present"), has("invalid TSS"):
		return WildPointer, "access to a wild address"
	}
	return Unknown, "unexpected exception"
}

// TextBug explains BUG() and what else says BUG.
var TextBug = &TextAnalyzer{
	Name: "bug",
	Doc:  "BUG() and BUG_ON(), and other complaints that begin with BUG",
	Run: func(r *console.Report) (Finding, bool) {
		at := function(r)
		f := Finding{Class: Bug, Confidence: Certain}
		switch r.Kind {
		case console.BUG:
			f.Title = "BUG" + in(at)
			switch {
			case r.What != "" && r.Place == "" && r.What != "Dentry":
				f.Title = "BUG: " + short(r.What)
				if at != "" {
					f.Title += in(at)
				}
			case r.What == "Dentry":
				f.Title = "a file system was unmounted that is still in use" + in(at)
			}
			bugPlace(r, &f, at)
		case console.Atomic:
			at = culprit(textFrames(r), idling)
			f.Title = "sleep in atomic context" + in(at)
			if strings.Contains(r.What, "scheduling") {
				f.Title = "scheduling while atomic" + in(at)
			}
			f.Evidence = append(f.Evidence, accessEvidence(r)...)
		case console.Preemptible:
			f.Title = "per-CPU data used where the task can be moved" + in(at)
		case console.Rust:
			f.Title = "Rust code panicked" + in(at)
		default:
			return f, false
		}
		if r.Place != "" {
			f.Evidence = append(f.Evidence, Evidence{Text: "in the source, that is " + r.Place})
		}
		return f, true
	},
}

// bugPlace says more of a BUG() whose place is known to check one thing only.
func bugPlace(r *console.Report, f *Finding, at string) {
	m := r.Main()
	if m == nil || m.PC == nil {
		return
	}
	switch m.PC.Name() {
	case "set_freepointer", "__slab_free", "kfree", "kmem_cache_free", "do_slab_free", "slab_free":
		if strings.Contains(r.Place, "slub.c") {
			// CONFIG_SLAB_FREELIST_HARDENED: BUG_ON(object == fp) in set_freepointer().
			f.Class, f.Title, f.Confidence = DoubleFree, "double free"+in(at), Likely
		}
	case "__list_add_valid", "__list_del_entry_valid", "__list_add_valid_or_report", "__list_del_entry_valid_or_report":
		f.Class, f.Title = ListCorruption, "corrupted list, found"+in(at)
	case "usercopy_abort":
		f.Class, f.Title = OutOfBounds, "copy to or from user space beyond the object"+in(at)
	case "fortify_panic", "__fortify_panic":
		f.Class, f.Title = OutOfBounds, "buffer overflow in a string or memory function, called"+in(at)
	}
}

// short is a message without what differs from machine to machine.
func short(text string) string {
	words := strings.Fields(text)
	var out []string
	for _, w := range words {
		if len(out) == 10 {
			break
		}
		if strings.ContainsAny(w, "0123456789") {
			continue
		}
		out = append(out, strings.Trim(w, ":,"))
	}
	return strings.Join(out, " ")
}

// TextWarning explains WARN() and other warnings.
var TextWarning = &TextAnalyzer{
	Name: "warning",
	Doc:  "WARN()",
	Run: func(r *console.Report) (Finding, bool) {
		f := Finding{Class: Warning, Confidence: Certain}
		switch r.Kind {
		case console.Warning:
		case console.NMI:
			f.Class, f.Title = Unknown, "a non-maskable interrupt for which nobody had a reason"
			return f, true
		case console.OutOfMemory:
			f.Class, f.Title = OutOfMemory, "the machine ran out of memory"
			if strings.HasPrefix(r.What, "Memory cgroup") {
				f.Title = "a memory cgroup ran out of memory"
			}
			if r.Comm != "" {
				f.Evidence = append(f.Evidence, Evidence{Text: fmt.Sprintf("the kernel killed %s (pid %d) for its memory", r.Comm, r.PID)})
			}
			return f, true
		default:
			return f, false
		}
		f.Title = "warning" + in(function(r))
		if r.What != "" && r.Place == "" {
			f.Title = "warning: " + short(r.What)
		}
		if strings.Contains(r.Panic, "panic_on_warn") {
			f.Title += ", which panic_on_warn made fatal"
			f.Advice = append(f.Advice, "Without kernel.panic_on_warn=1 the machine would have gone on after this warning.")
		}
		if r.Place != "" {
			f.Evidence = append(f.Evidence, Evidence{Text: "in the source, that is " + r.Place})
		}
		f.Evidence = append(f.Evidence, accessEvidence(r)...)
		return f, true
	},
}
