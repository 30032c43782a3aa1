package doctor

import (
	"fmt"
	"regexp"
	"strings"

	"inquest/advisory"
	"inquest/doctor/exposure"
)

// KernelLog looks for the traces that a bug leaves before it kills the machine.
var KernelLog = &Check{
	Name: "kernel-log",
	Doc: `looks in the kernel's log for warnings of reference counts, and compares the stack of each
warning with those of known bugs`,
	Run:     kernelLog,
	Applies: func(s *Subject) bool { return s.log != nil },
}

// warning is a report in the log, with the functions of its stack, innermost first.
type warning struct {
	text      string
	functions []string
	refcount  bool
}

var (
	// lib/refcount.c; the last is that of kernels that print no message.
	refcountText = regexp.MustCompile(`refcount_t: (underflow|addition on 0|saturated|decrement hit 0|hit zero)|refcount_error_report|at lib/refcount\.c:`)
	warningText  = regexp.MustCompile(`WARNING: (CPU: \d+ PID: \d+ )?at |BUG: |general protection fault|Oops: |kernel BUG at |refcount_t: `)
	// A function on a stack: "? " in front marks what may be left over from before.
	frameText = regexp.MustCompile(`^(?:\[<[0-9a-f]+>\] ?)?(?:RIP: [0-9a-f]{4}:)?([A-Za-z_][\w.]*)\+0x[0-9a-f]+/0x[0-9a-f]+`)
	// "<4>[    1.000000][   T55] ", with what each kernel has of it.
	prefix = regexp.MustCompile(`^(?:<\d+>)?\s*(?:\[[^\]<]*\]\s*)*`)
)

// maxStack is how many lines a report in the log is believed to have.
const maxStack = 100

// warnings finds the reports in a log. What follows within one report is part of it.
func warnings(log []string) []warning {
	var all []warning
	for i := 0; i < len(log); i++ {
		if !warningText.MatchString(log[i]) {
			continue
		}
		w := warning{text: plain(log[i])}
		end := min(i+maxStack, len(log))
		for ; i < end; i++ {
			line := log[i]
			if refcountText.MatchString(line) {
				w.refcount = true
				if _, what, ok := strings.Cut(line, "refcount_t: "); ok {
					w.text = "refcount_t: " + strings.TrimSpace(what)
				}
			}
			if m := frameText.FindStringSubmatch(plain(line)); m != nil {
				name, _, _ := strings.Cut(m[1], ".")
				w.functions = append(w.functions, name)
			}
			if strings.Contains(line, "---[ end trace") {
				break
			}
		}
		all = append(all, w)
	}
	return all
}

// plain is a line without what stands in front of its text.
func plain(line string) string {
	return strings.TrimSpace(line[len(prefix.FindString(line)):])
}

func kernelLog(s *Subject) []Finding {
	log, looked, err := s.log()
	if err != nil && len(log) == 0 {
		return []Finding{unread("The kernel's log", err, looked)}
	}
	known, err := s.notFixed()
	if err != nil {
		return []Finding{unread("The list of known bugs", err)}
	}
	var found []Finding
	counted := map[string]int{} // reports of what a finding is about already
	for _, w := range warnings(log) {
		f, ok := w.finding(known)
		if !ok {
			continue
		}
		if counted[f.Title]++; counted[f.Title] > 1 {
			continue
		}
		f.Looked = []string{looked}
		found = append(found, f)
	}
	for i := range found {
		if n := counted[found[i].Title]; n > 1 {
			found[i].Found = append(found[i].Found, fmt.Sprintf("%d such reports", n))
		}
	}
	if len(found) == 0 {
		found = append(found, Finding{
			Title: "The kernel's log has no warning of a reference count, and no stack of a known bug",
			Sure:  Certain, Looked: []string{looked}, Found: []string{fmt.Sprintf("%d lines", len(log))},
		})
	}
	return found
}

// notFixed are the known bugs that the kernel may have.
func (s *Subject) notFixed() ([]*advisory.Advisory, error) {
	all, err := s.known()
	var list []*advisory.Advisory
	for _, a := range all {
		if s.Kernel != nil {
			if answer := s.Kernel.Check(a); answer.State == advisory.Fixed && answer.Sure > exposure.Version {
				continue
			}
		}
		list = append(list, a)
	}
	return list, err
}

// finding is what a report in the log means, if anything here.
func (w *warning) finding(known []*advisory.Advisory) (Finding, bool) {
	stack := list(w.functions, 8)
	for _, a := range known {
		if matched := a.MatchStack(w.functions); matched != nil {
			return Finding{
				State: Exposed, Sure: Likely, Advisory: a.ID,
				Title:  fmt.Sprintf("%s is being hit: %s", a.ID, a.Title),
				Found:  []string{w.text, "with " + list(matched, 8) + " on the stack"},
				Advice: []string{"See the finding of known-bugs. Reboot soon: the machine runs on damaged."},
			}, true
		}
	}
	if !w.refcount {
		return Finding{}, false
	}
	return Finding{
		State: Weak, Sure: Certain,
		Title:  "A reference count went wrong: memory was freed too early, or never will be",
		Found:  []string{w.text, "stack: " + stack},
		Advice: []string{"Reboot soon: the machine runs on with what is left of the object. Take a dump, if kdump is armed: echo c > /proc/sysrq-trigger."},
	}, true
}
