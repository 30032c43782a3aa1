package report

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"inquest/explain"
)

// meaning says in plain language what a class of failure is.
var meaning = map[explain.Class]string{
	explain.TypeConfusion:   "The code worked on an object as if it were one of another type.",
	explain.UseAfterFree:    "The code used memory that had been given back before: what it found there belongs to nobody, or to somebody else.",
	explain.DoubleFree:      "The same memory was given back twice. Between the two, somebody else may have got it.",
	explain.OutOfBounds:     "The code used memory outside of the object that it had.",
	explain.NullDereference: "The code used a pointer that was NULL: it was never set, or not tested after something had failed.",
	explain.WildPointer:     "The code used an address that cannot be right: the pointer was overwritten, or it was read from something that is no pointer.",
	explain.ListCorruption:  "Two neighbours in a linked list no longer point to each other. The damage was done earlier; here it was noticed.",
	explain.RefCount:        "A count of an object's users went wrong: somebody gave back a reference that was not theirs, or forgot one.",
	explain.StackOverflow:   "Something wrote beyond the end of a kernel stack, or of a variable on it.",
	explain.Bug:             "The kernel tested its own state, found what must never be, and stopped on purpose.",
	explain.Warning:         "The kernel noticed something wrong that it would have survived, but it is set to panic on warnings.",
	explain.HungTask:        "A task waited too long for something that did not come, and the kernel is set to panic then.",
	explain.SoftLockup:      "Something kept a CPU inside the kernel for so long that no other task could run there.",
	explain.HardLockup:      "A CPU stayed in the kernel with its interrupts off for so long that not even its clock came through.",
	explain.Deadlock:        "Tasks wait for each other, and none of them can go on.",
	explain.RCUStall:        "A CPU or a task did not let RCU finish a grace period in time.",
	explain.OutOfMemory:     "There was no memory left to give, and nothing that could be killed to get some.",
	explain.DoubleFault:     "The CPU could not even begin to handle an exception, mostly because the stack was no longer usable.",
	explain.MachineCheck:    "The hardware reported an error. Software is rarely to blame for that.",
	explain.DivideError:     "The code divided by zero, or the result did not fit.",
	explain.BadInstruction:  "The CPU was given something to execute that is not an instruction, or not one for here.",
	explain.UserPanic:       "Nothing failed: the crash was asked for.",
}

// blame says where to look first, and by what the bug is known again.
func blame(f explain.Finding) string {
	if f.Signature == "" {
		return ""
	}
	text := ""
	if b := f.Blame; b != nil {
		text = "blame " + clean(b.Function)
		switch {
		case b.Module != "" && b.Subsystem != "" && b.Subsystem != b.Module:
			text += fmt.Sprintf(" (module %s, %s)", clean(b.Module), b.Subsystem)
		case b.Module != "":
			text += fmt.Sprintf(" (module %s)", clean(b.Module))
		case b.Subsystem != "":
			text += fmt.Sprintf(" (%s)", b.Subsystem)
		}
		text += ", "
	}
	return text + "signature " + f.Signature
}

// lead says what happened in a sentence or two.
func lead(f explain.Finding, d *drawing) string {
	text := meaning[f.Class]
	if d != nil && f.Class == explain.TypeConfusion {
		text = d.sentence()
	}
	if adv := f.Advisory; adv != nil {
		text += " This is a known bug"
		if len(adv.Fixed) > 0 && adv.Fixed[0].Version != "" {
			text += ", fixed in Linux " + adv.Fixed[0].Version
		}
		text += "."
	}
	return strings.TrimSpace(text)
}

// capital begins a sentence, unless it begins with a name.
func capital(text string) string {
	first, _, _ := strings.Cut(text, " ")
	if first == "" || strings.ContainsFunc(first, func(r rune) bool { return !unicode.IsLower(r) && r != ':' && r != ',' && r != ';' }) {
		return text
	}
	r, n := utf8.DecodeRuneInString(text)
	return string(unicode.ToUpper(r)) + text[n:]
}

// brief leaves out the long story in brackets at the end of a piece of evidence: where
// a value was found, hop by hop.
func brief(text string) string {
	const long = 50
	if !strings.HasSuffix(text, ")") {
		return text
	}
	if i := strings.LastIndex(text, " ("); i >= 0 && len(text)-i > long {
		return text[:i]
	}
	return text
}

// taintWords says what taint letters mean (Documentation/admin-guide/tainted-kernels.rst).
func taintWords(letters string) []string {
	words := map[rune]string{
		'P': "proprietary", 'F': "force loaded", 'S': "on hardware out of specification", 'R': "force unloaded",
		'M': "machine check seen", 'B': "bad page seen", 'U': "tainted by user request", 'D': "oopsed before",
		'A': "ACPI table overridden", 'W': "warned before", 'C': "staging driver", 'I': "firmware workaround",
		'O': "out of tree", 'E': "unsigned", 'L': "soft lockup seen", 'K': "live patched", 'X': "auxiliary taint",
		'T': "struct layout randomised", 'N': "in-kernel test run", 'J': "fwctl used",
	}
	var out []string
	for _, l := range letters {
		if w, ok := words[l]; ok {
			out = append(out, w)
		}
	}
	return out
}

// and lists words: "a, b and c".
func and(words []string) string {
	if n := len(words) - 1; n > 0 {
		return fmt.Sprintf("%s and %s", strings.Join(words[:n], ", "), words[n])
	}
	return strings.Join(words, "")
}
