package main

import (
	"time"

	"inquest/kernel"
)

// clock is what the kernel's clocks said when the machine stopped.
type clock struct {
	now    time.Time     // wall clock
	uptime time.Duration // since boot
}

// boot is when the machine booted.
func (c clock) boot() time.Time { return c.now.Add(-c.uptime) }

// readClock reads the kernel's timekeeper.
func readClock(k *kernel.Kernel) (clock, bool) {
	tk, err := k.Timekeeper()
	if err != nil {
		return clock{}, false
	}
	wall, err1 := tk.Int("xtime_sec")
	up, err2 := tk.Int("ktime_sec")
	if err1 != nil || err2 != nil {
		return clock{}, false
	}
	return clock{time.Unix(wall, 0).UTC(), time.Duration(up) * time.Second}, true
}
