package explain

import (
	"crypto/sha256"
	"fmt"
)

// Signature is an id that two dumps of one bug share: what went wrong, as a family, and
// the function that is to blame; where no function is, the title. Neither addresses nor lines, tasks, CPUs, modules that
// may also be built in, nor what memory happened to hold are part of it. Dumps of a
// known bug have the signature of that bug.
func Signature(f *Finding) string {
	switch {
	case f.Advisory != nil:
		return digest("known", f.Advisory.ID)
	case f.Blame != nil:
		return digest(family(f.Class), f.Blame.Function, f.via)
	}
	return digest(family(f.Class), f.Title)
}

// family joins the classes in which one bug may show itself: damaged memory by whatever
// is read from it first, a lock by which watchdog is the first to bark.
func family(c Class) string {
	switch c {
	case UseAfterFree, DoubleFree, OutOfBounds, WildPointer, ListCorruption:
		return "memory"
	case SoftLockup, HardLockup, RCUStall:
		return "stuck"
	case HungTask, Deadlock:
		return "blocked"
	}
	return string(c)
}

func digest(parts ...string) string {
	h := sha256.New()
	for _, p := range parts {
		fmt.Fprintf(h, "%d:%s", len(p), p)
	}
	return fmt.Sprintf("%x", h.Sum(nil)[:6])
}
