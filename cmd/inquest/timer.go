package main

import (
	"fmt"

	"github.com/spf13/pflag"

	"inquest/kernel"
)

var timerCommand = &command{
	name:  "timer",
	short: "show the timers of each CPU",
	long: `Show the timers that each CPU's timer wheels hold, by when they expire: in jiffies,
TTE (time to expiry) of them from now, negative for those that are overdue; the
address of struct timer_list, and the function. Behind it stands what the timer is
for, where the function tells: the work of a delayed_work, the task that it wakes.

With -r: the high-resolution timers instead, by clock, in nanoseconds. Their CURRENT
is what the clock said when the kernel last kept its time.`,
	example: `inquest timer vmcore
inquest timer vmcore -r -c 1
inquest timer vmcore --json | jq '.cpus[].bases[].timers[] | select(.tte < 0)'`,
	setup: func(f *pflag.FlagSet) runFunc {
		high := f.BoolP("hrtimer", "r", false, "show the high-resolution timers")
		list := f.StringP("cpu", "c", "", "only these `CPUS`: 0,2-4")
		return func(s *session, _ []string) error {
			k, err := s.typedKernel()
			if err != nil {
				return err
			}
			cpus, err := parseCPUs(s, k, *list)
			if err != nil {
				return err
			}
			if *high {
				return hrtimers(s, k, cpus)
			}
			return timers(s, k, cpus)
		}
	},
}

type timerCPU struct {
	CPU   int         `json:"cpu"`
	Bases []timerBase `json:"bases"`
}

type timerBase struct {
	Base    hex         `json:"base"`
	Name    string      `json:"name"`
	Current *int64      `json:"current"` // jiffies, or ns of the clock; null when unknown
	Timers  []timerJSON `json:"timers"`  // null when the dump does not tell
}

// none says why a base is shown without timers.
func (b timerBase) none() string {
	if b.Timers == nil {
		return "(the dump does not tell)"
	}
	return "(empty)"
}

type timerJSON struct {
	Timer    hex      `json:"timer"`
	Expires  int64    `json:"expires"`
	Soft     *int64   `json:"soft_expires,omitempty"`
	TTE      *int64   `json:"tte"`
	Function hex      `json:"function"`
	Symbol   string   `json:"symbol"`
	Work     string   `json:"work,omitempty"`
	Task     *taskRef `json:"task,omitempty"`
}

func newTimerJSON(k *kernel.Kernel, t kernel.Timer, now *int64) timerJSON {
	j := timerJSON{Timer: hex(t.Addr), Expires: t.Expires, Function: hex(t.Function), Symbol: k.Name(t.Function), Task: refTo(t.Task)}
	if now != nil {
		tte := t.Expires - *now
		j.TTE = &tte
	}
	if t.Work != 0 {
		j.Work = k.Name(t.Work)
	}
	return j
}

// line writes a timer's function, and what it is for.
func (j timerJSON) line() string {
	text := fmt.Sprintf("%016x  <%s>", uint64(j.Function), clean(j.Symbol))
	switch {
	case j.Work != "":
		text += "  work " + clean(j.Work)
	case j.Task != nil:
		text += fmt.Sprintf("  wakes %s (pid %d)", clean(j.Task.Comm), j.Task.PID)
	}
	return text
}

func timers(s *session, k *kernel.Kernel, cpus []int) error {
	var now *int64
	if j, err := k.Jiffies(); err == nil {
		n := int64(j)
		now = &n
	} else {
		s.miss(fmt.Errorf("read jiffies: %w", err))
	}
	list := []timerCPU{}
	for _, cpu := range cpus {
		bases, err := k.TimerBases(cpu)
		if err != nil {
			return err
		}
		c := timerCPU{CPU: cpu}
		for _, b := range bases {
			s.miss(b.Err)
			base := timerBase{Base: hex(b.Addr), Name: b.Name, Current: now}
			if b.Err == nil {
				base.Timers = []timerJSON{}
			}
			for _, t := range b.Timers {
				base.Timers = append(base.Timers, newTimerJSON(k, t, now))
			}
			c.Bases = append(c.Bases, base)
		}
		list = append(list, c)
	}
	if s.json {
		return timerDocument(s, list)
	}
	if now != nil {
		s.printf("JIFFIES\n%d\n", *now)
	}
	for _, c := range list {
		s.printf("\n")
		for _, b := range c.Bases {
			s.printf("%s\n", s.term.paint(bold, fmt.Sprintf("TIMER_BASES[%d][%s]: %016x", c.CPU, b.Name, uint64(b.Base))))
			if len(b.Timers) == 0 {
				s.printf("  %s\n", b.none())
				continue
			}
			s.printf("  %-12s %12s  %-16s  FUNCTION\n", "EXPIRES", "TTE", "TIMER_LIST")
			for _, t := range b.Timers {
				s.printf("  %-12d %12s  %016x  %s\n", t.Expires, orUnknown(t.TTE), uint64(t.Timer), t.line())
			}
		}
	}
	s.missing()
	return nil
}

func orUnknown(n *int64) string {
	if n == nil {
		return "?"
	}
	return fmt.Sprint(*n)
}

func hrtimers(s *session, k *kernel.Kernel, cpus []int) error {
	list := []timerCPU{}
	var heads []kernel.Addr
	for _, cpu := range cpus {
		o, bases, err := k.HRTimerBases(cpu)
		if err != nil {
			return err
		}
		heads = append(heads, o.Addr)
		c := timerCPU{CPU: cpu}
		for _, b := range bases {
			s.miss(b.Err)
			base := timerBase{Base: hex(b.Addr), Name: b.Clock}
			if b.Err == nil {
				base.Timers = []timerJSON{}
			}
			if b.Soft {
				base.Name += ", soft"
			}
			if b.Now != 0 {
				base.Current = &b.Now
			}
			for _, t := range b.Timers {
				j := newTimerJSON(k, t, base.Current)
				soft := t.Soft
				j.Soft = &soft
				base.Timers = append(base.Timers, j)
			}
			c.Bases = append(c.Bases, base)
		}
		list = append(list, c)
	}
	if s.json {
		return timerDocument(s, list)
	}
	for i, c := range list {
		s.printf("%s\n", s.term.paint(bold, fmt.Sprintf("CPU: %d  HRTIMER_CPU_BASE: %016x", c.CPU, uint64(heads[i]))))
		for n, b := range c.Bases {
			s.printf("  CLOCK: %d  HRTIMER_CLOCK_BASE: %016x  [%s]\n", n, uint64(b.Base), b.Name)
			if len(b.Timers) == 0 {
				s.printf("     %s\n\n", b.none())
				continue
			}
			s.printf("     CURRENT\n     %s\n", orUnknown(b.Current))
			s.printf("     %-19s %-19s %19s  %-16s  FUNCTION\n", "SOFTEXPIRES", "EXPIRES", "TTE", "HRTIMER")
			for _, t := range b.Timers {
				s.printf("     %-19d %-19d %19s  %016x  %s\n", *t.Soft, t.Expires, orUnknown(t.TTE), uint64(t.Timer), t.line())
			}
			s.printf("\n")
		}
	}
	s.missing()
	return nil
}

func timerDocument(s *session, list []timerCPU) error {
	return s.writeJSON(struct {
		CPUs    []timerCPU `json:"cpus"`
		Missing []string   `json:"missing,omitempty"`
	}{list, s.missing()})
}
