package verdict

import (
	"fmt"

	"inquest/advisory"
	"inquest/kernel"
	"inquest/vmcore"
)

// requestSockBug is the advisory for kernels that release a request socket, which a
// queued SYN/ACK holds, as a full socket.
const requestSockBug = "nf-queue-request-sock"

// Exposed reports whether the running kernel has the bug that makes SYN/ACKs of this
// machine dangerous in a queue, and why it thinks so. It reads the code of the kernel
// from /proc/kcore, which takes CAP_SYS_RAWIO and root's rights; advisory.Undecided with
// an error is what is known without them.
func Exposed() (advisory.Verdict, error) { return exposed("/proc/kcore") }

func exposed(kcore string) (advisory.Verdict, error) {
	all, err := advisory.All()
	if err != nil {
		return advisory.Verdict{}, err
	}
	for _, a := range all {
		if a.ID != requestSockBug {
			continue
		}
		dump, err := vmcore.Open(kcore)
		if err != nil {
			return advisory.Verdict{}, fmt.Errorf("read the running kernel: %w", err)
		}
		defer dump.Close()
		k, err := kernel.Open(dump)
		if err != nil {
			return advisory.Verdict{}, fmt.Errorf("read the running kernel: %w", err)
		}
		return a.CheckCode(k), nil
	}
	return advisory.Verdict{}, fmt.Errorf("there is no advisory %s", requestSockBug)
}

// CarveOutNow decides whether SYN/ACKs that this machine makes are kept out of the queues
// on the kernel that runs, and says why.
func (c *Config) CarveOutNow() (carveOut bool, why string) { return c.CarveOut.decide(Exposed) }

func (c CarveOut) decide(check func() (advisory.Verdict, error)) (carveOut bool, why string) {
	switch c {
	case CarveOutAlways:
		return true, "carve_out is always"
	case CarveOutNever:
		return false, "carve_out is never"
	}
	v, err := check()
	switch {
	case err != nil:
		return true, "not known whether the kernel is safe: " + err.Error()
	case v.State == advisory.Fixed:
		return false, v.Reason
	case v.State == advisory.Exposed:
		return true, v.Reason
	}
	return true, "not known whether the kernel is safe: its code is like neither the faulty nor the fixed one"
}
