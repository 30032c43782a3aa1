package verdict

import (
	"inquest/doctor/exposure"
	"inquest/guard"
)

// CarveOutNow decides whether SYN/ACKs that this machine makes are kept out of the queues
// on the kernel that runs, and says why.
func (c *Config) CarveOutNow() (carveOut bool, why string) { return c.CarveOut.decide(guard.Exposed) }

// decide asks what the guard asks, unless the configuration leaves no choice.
func (c CarveOut) decide(check func() (exposure.Answer, error)) (carveOut bool, why string) {
	switch c {
	case CarveOutAlways:
		return true, "carve_out is always"
	case CarveOutNever:
		return false, "carve_out is never"
	}
	return guard.Needed(check())
}
