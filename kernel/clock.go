package kernel

import "fmt"

// Timekeeper returns the kernel's struct timekeeper. It is part of tk_core, and since
// 6.17 of timekeeper_data[0], behind a sequence counter whose size depends on the
// configuration (kernel/time/timekeeping.c); the struct around them had no name up to
// 6.12. The timekeeper is where its seconds of the wall clock and since boot agree with
// the difference that it also holds. The error wraps ErrCorrupt when nothing there does.
func (k *Kernel) Timekeeper() (Object, error) {
	const year = 365 * 24 * 3600
	core, err := k.Symbol("tk_core")
	if err != nil {
		if core, err = k.Symbol("timekeeper_data"); err != nil {
			return Object{}, err
		}
	}
	for off := Addr(0); off <= 128; off += 8 {
		tk, err := k.Object("timekeeper", core+off)
		if err != nil {
			return Object{}, err
		}
		wall, err1 := tk.Int("xtime_sec")
		up, err2 := tk.Int("ktime_sec")
		toMono, err3 := tk.Int("wall_to_monotonic.tv_sec")
		for _, err := range []error{err1, err2, err3} {
			if err != nil {
				return Object{}, err
			}
		}
		drift := wall + toMono - up
		if wall > 0 && wall < 300*year && up >= 0 && up < 100*year && toMono != 0 && drift >= -1 && drift <= 1 {
			return tk, nil
		}
	}
	return Object{}, fmt.Errorf("no timekeeper at %v: %w", core, ErrCorrupt)
}

// Monotonic returns CLOCK_MONOTONIC, in ns, when the kernel last kept its time: at the
// last tick, or a little later.
func (k *Kernel) Monotonic() (uint64, error) {
	tk, err := k.Timekeeper()
	if err != nil {
		return 0, err
	}
	base, err := tk.Uint("tkr_mono.base")
	if err != nil {
		return 0, err
	}
	shifted, err := tk.Uint("tkr_mono.xtime_nsec")
	if err != nil {
		return 0, err
	}
	shift, err := tk.Uint("tkr_mono.shift")
	if err != nil {
		return 0, err
	}
	return base + shifted>>(shift&63), nil
}
