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

// readClock reads the kernel's struct timekeeper. It is part of tk_core, and since
// 6.17 of timekeeper_data[0], behind a sequence counter whose size depends on the
// configuration (kernel/time/timekeeping.c); the struct around them had no name
// up to 6.12. The timekeeper is where its seconds of the wall clock and since boot
// agree with the difference that it also holds.
func readClock(k *kernel.Kernel) (clock, bool) {
	const year = 365 * 24 * 3600
	core, err := k.Symbol("tk_core")
	if err != nil {
		if core, err = k.Symbol("timekeeper_data"); err != nil {
			return clock{}, false
		}
	}
	for off := kernel.Addr(0); off <= 128; off += 8 {
		tk, err := k.Object("timekeeper", core+off)
		if err != nil {
			return clock{}, false
		}
		wall, err1 := tk.Int("xtime_sec")
		up, err2 := tk.Int("ktime_sec")
		toMono, err3 := tk.Int("wall_to_monotonic.tv_sec")
		if err1 != nil || err2 != nil || err3 != nil {
			return clock{}, false
		}
		drift := wall + toMono - up
		if wall > 0 && wall < 300*year && up >= 0 && up < 100*year && toMono != 0 && drift >= -1 && drift <= 1 {
			return clock{time.Unix(wall, 0).UTC(), time.Duration(up) * time.Second}, true
		}
	}
	return clock{}, false
}
