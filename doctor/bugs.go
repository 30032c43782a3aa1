package doctor

import (
	"fmt"

	"inquest/advisory"
	"inquest/doctor/exposure"
	"inquest/guard"
)

// requestSockBug is the id of the bug for which there is a guard.
const requestSockBug = guard.Advisory

// KnownBugs compares the kernel's code with that of known bugs.
var KnownBugs = &Check{
	Name: "known-bugs",
	Doc: `compares the code of the kernel, as it lies in memory or in the file that was booted, with
what known bugs look like before and after their fix; the version only counts where no code can be read`,
	Run: knownBugs,
}

func knownBugs(s *Subject) []Finding {
	if s.Kernel == nil {
		return []Finding{unread("The kernel", s.kernelErr, "/proc/version")}
	}
	all, err := s.known()
	if err != nil {
		return []Finding{unread("The list of known bugs", err)}
	}
	var found []Finding
	for _, a := range all {
		if len(a.Code) > 0 {
			found = append(found, s.knownBug(a))
		}
	}
	if problems := s.Kernel.Problems(); len(problems) > 0 && s.surest(all) < exposure.File {
		found = append(found, Finding{
			State: Unknown, Sure: Certain, Title: "The kernel's code could not be read",
			Looked: []string{"/proc/kcore", "/boot/vmlinuz-" + s.Release()}, Found: problems,
			Advice: []string{"Run it as root, or name the kernel's file: inquest doctor vmlinuz."},
		})
	}
	return found
}

// surest is what the best of the answers rests on.
func (s *Subject) surest(all []*advisory.Advisory) exposure.Sure {
	best := exposure.Nothing
	for _, a := range all {
		best = max(best, s.Kernel.Check(a).Sure)
	}
	return best
}

func (s *Subject) knownBug(a *advisory.Advisory) Finding {
	answer := s.Kernel.Check(a)
	f := Finding{Advisory: a.ID, Sure: sureOf(answer.Sure), Found: []string{answer.Words()}}
	if answer.Source != "" {
		f.Looked = []string{answer.Source}
	}
	switch answer.State {
	case advisory.Fixed:
		f.Title = fmt.Sprintf("%s: this kernel is not affected", a.ID)
		f.State = Fine
	case advisory.Exposed:
		f.Title = fmt.Sprintf("%s: %s", a.ID, a.Title)
		f.State = Exposed
		f.Advice = a.Advice()
		if a.ID == requestSockBug {
			s.shielded(&f)
		}
	default:
		f.Title = fmt.Sprintf("%s: not known whether this kernel is affected", a.ID)
		f.State = Unknown
	}
	return f
}

// shielded says what stands between the bug and the machine.
func (s *Subject) shielded(f *Finding) {
	if s.Files != nil {
		if s.hooked() {
			f.State, f.Advice = Weak, nil
			f.Found = append(f.Found, "the guard's hook is loaded: it gives the references back the right way")
			return
		}
		if set, err := s.rules(); err == nil && len(set.rules) > 0 && !set.open() {
			f.State = Weak
			f.Found = append(f.Found, "no rule queues SYN/ACKs made here, so nothing sets it off")
			return
		} else if err == nil && len(set.rules) == 0 {
			f.Found = append(f.Found, "no rule queues packets now; one that queues SYN/ACKs sets it off")
		}
	}
	f.Advice = append([]string{"Shield it until then: inquest guard apply."}, f.Advice...)
}

// hooked reports whether the guard's module is loaded.
func (s *Subject) hooked() bool { return s.exists("sys/module/" + guard.ModuleName) }

func sureOf(s exposure.Sure) Sure {
	switch s {
	case exposure.Code:
		return Certain
	case exposure.File:
		return Likely
	}
	return Guess
}
