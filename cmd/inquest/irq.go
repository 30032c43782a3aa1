package main

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/pflag"

	"inquest/kernel"
)

var irqCommand = &command{
	name:  "irq",
	args:  "[NUMBER]...",
	max:   -1,
	short: "show the interrupts, their handlers, counts and CPUs",
	long: `Show each interrupt that has a descriptor: the addresses of struct irq_desc and
irqaction, and the name and function of each handler. With -u, those that nobody
handles are left out. A number in the column DEPTH says that the interrupt is
disabled, and how often.

With -s: how often each came on each CPU, as /proc/interrupts has it. With -a: the
CPUs that may take it.`,
	example: `inquest irq vmcore -u
inquest irq vmcore -s
inquest irq vmcore -a 24 25
inquest irq vmcore --json | jq '.irqs[] | select(.depth > 0)'`,
	setup: func(f *pflag.FlagSet) runFunc {
		counts := f.BoolP("stats", "s", false, "show how often each came on each CPU")
		affinity := f.BoolP("affinity", "a", false, "show which CPUs may take each")
		used := f.BoolP("used", "u", false, "only those that have a handler")
		return func(s *session, args []string) error {
			wanted := map[int]bool{}
			for _, a := range args {
				n, err := strconv.Atoi(a)
				if err != nil {
					return s.usagef("%q is no number of an interrupt", a)
				}
				wanted[n] = true
			}
			k, err := s.typedKernel()
			if err != nil {
				return err
			}
			irqs, err := k.IRQs()
			if err != nil && len(irqs) == 0 {
				return err
			}
			s.miss(err)
			var picked []*kernel.IRQ
			for _, q := range irqs {
				s.miss(q.Err)
				if (len(wanted) == 0 || wanted[q.Number]) && (len(q.Actions) > 0 || !*used && !*counts && !*affinity) {
					picked = append(picked, q)
				}
			}
			if len(picked) == 0 && len(args) > 0 {
				return fmt.Errorf("no interrupt %s is in use", strings.Join(args, " or "))
			}
			switch {
			case s.json:
				return irqJSON(s, k, picked)
			case *counts:
				irqCounts(s, k, picked)
			case *affinity:
				irqAffinity(s, picked)
			default:
				irqText(s, k, picked)
			}
			s.missing()
			return nil
		}
	},
}

func irqText(s *session, k *kernel.Kernel, irqs []*kernel.IRQ) {
	s.printf("%s\n", s.term.paint(bold, " IRQ   IRQ_DESC/_DATA      IRQACTION      DEPTH  NAME"))
	for _, q := range irqs {
		if len(q.Actions) == 0 {
			s.printf("%3d   %016x      (unused)      %5d\n", q.Number, uint64(q.Addr), q.Depth)
		}
		for i, a := range q.Actions {
			number, desc := strconv.Itoa(q.Number), fmt.Sprintf("%016x", uint64(q.Addr))
			if i > 0 {
				number, desc = "", ""
			}
			s.printf("%3s   %16s  %016x  %5d  %q  %s\n", number, desc, uint64(a.Addr), q.Depth, clean(a.Name), clean(k.Name(a.Handler)))
		}
	}
}

func irqCounts(s *session, k *kernel.Kernel, irqs []*kernel.IRQ) {
	cpus, err := k.PresentCPUs()
	s.miss(err)
	s.printf("     ")
	for _, cpu := range cpus {
		s.printf(" %10s", fmt.Sprintf("CPU%d", cpu))
	}
	s.printf("\n")
	for _, q := range irqs {
		s.printf("%4d:", q.Number)
		for _, cpu := range cpus {
			if cpu < len(q.Counts) {
				s.printf(" %10d", q.Counts[cpu])
			} else {
				s.printf(" %10s", "?")
			}
		}
		s.printf("  %-16s %s\n", clean(q.Chip+"-"+q.Handler), clean(irqNames(q)))
	}
}

// irqNames lists the devices of an interrupt.
func irqNames(q *kernel.IRQ) string {
	var names []string
	for _, a := range q.Actions {
		names = append(names, a.Name)
	}
	return strings.Join(names, ",")
}

func irqAffinity(s *session, irqs []*kernel.IRQ) {
	s.printf("%s\n", s.term.paint(bold, "IRQ NAME                 AFFINITY"))
	for _, q := range irqs {
		s.printf("%3d %-20s %s\n", q.Number, clean(irqNames(q)), cpuList(q.Affinity))
	}
}

// cpuList writes numbers of CPUs as 0-3,8.
func cpuList(cpus []int) string {
	var list []string
	for i := 0; i < len(cpus); {
		j := i
		for j+1 < len(cpus) && cpus[j+1] == cpus[j]+1 {
			j++
		}
		if j == i {
			list = append(list, strconv.Itoa(cpus[i]))
		} else {
			list = append(list, fmt.Sprintf("%d-%d", cpus[i], cpus[j]))
		}
		i = j + 1
	}
	return strings.Join(list, ",")
}

func irqJSON(s *session, k *kernel.Kernel, irqs []*kernel.IRQ) error {
	type actionJSON struct {
		Action  hex    `json:"irqaction"`
		Name    string `json:"name"`
		Handler string `json:"handler"`
		Thread  *hex   `json:"thread,omitempty"` // task_struct
	}
	type irqDescJSON struct {
		IRQ      int          `json:"irq"`
		Desc     hex          `json:"irq_desc"`
		Chip     string       `json:"chip"`
		Flow     string       `json:"flow"`
		Depth    int          `json:"depth"`
		Actions  []actionJSON `json:"actions"`
		Affinity []int        `json:"affinity"`
		Counts   []uint64     `json:"counts"` // by CPU number
	}
	list := []irqDescJSON{}
	for _, q := range irqs {
		j := irqDescJSON{q.Number, hex(q.Addr), q.Chip, q.Handler, q.Depth, []actionJSON{}, append([]int{}, q.Affinity...), append([]uint64{}, q.Counts...)}
		for _, a := range q.Actions {
			action := actionJSON{hex(a.Addr), a.Name, k.Name(a.Handler), nil}
			if a.Thread != 0 {
				action.Thread = (*hex)(&a.Thread)
			}
			j.Actions = append(j.Actions, action)
		}
		list = append(list, j)
	}
	return s.writeJSON(struct {
		IRQs    []irqDescJSON `json:"irqs"`
		Missing []string      `json:"missing,omitempty"`
	}{list, s.missing()})
}
