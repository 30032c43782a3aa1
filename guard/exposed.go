package guard

import (
	"inquest/advisory"
	"inquest/doctor/exposure"
)

// Advisory is the id of the advisory for the bug that this package shields from.
const Advisory = "nf-queue-request-sock"

// Exposed says whether the running kernel has the bug, and how sure that is.
func Exposed() (exposure.Answer, error) { return exposure.Running(Advisory) }

// Needed reports whether a kernel of which this is known takes a shield, and why: each
// does whose code is not known to be fixed. A version is no proof.
func Needed(a exposure.Answer, err error) (needed bool, why string) {
	switch {
	case err != nil:
		return true, "not known whether the kernel is safe: " + err.Error()
	case a.State == advisory.Fixed && a.Sure > exposure.Version:
		return false, a.Words()
	case a.State == advisory.Exposed:
		return true, a.Words()
	}
	return true, "not known whether the kernel is safe: " + a.Words()
}
