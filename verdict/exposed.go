package verdict

import (
	"inquest/advisory"
	"inquest/doctor/exposure"
)

// requestSockBug is the advisory for kernels that release a request socket, which a
// queued SYN/ACK holds, as a full socket.
const requestSockBug = "nf-queue-request-sock"

// CarveOutNow decides whether SYN/ACKs that this machine makes are kept out of the queues
// on the kernel that runs, and says why.
func (c *Config) CarveOutNow() (carveOut bool, why string) {
	return c.CarveOut.decide(func() (exposure.Answer, error) { return exposure.Running(requestSockBug) })
}

// decide keeps them out unless the code is known to be fixed: a version is no proof.
func (c CarveOut) decide(check func() (exposure.Answer, error)) (carveOut bool, why string) {
	switch c {
	case CarveOutAlways:
		return true, "carve_out is always"
	case CarveOutNever:
		return false, "carve_out is never"
	}
	a, err := check()
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
