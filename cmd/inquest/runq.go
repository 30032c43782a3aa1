package main

import (
	"errors"
	"fmt"
	"time"

	"github.com/spf13/pflag"

	"inquest/kernel"
)

var runqCommand = &command{
	name:  "runq",
	short: "show what each CPU ran, and what waited for it",
	long: `Show the run queue of each CPU: the task that ran, and those that waited: the
real-time tasks by priority, the others in the order of their tree, tasks in groups
(cgroups) among them. In brackets stands the priority, 120 for nice 0.

A task marked "delayed" sleeps, but has been left in the tree until it has paid for
the time that it had too much (EEVDF, Linux 6.12).

With -t: the CPU's clock, since when the current task has been running, and since
when each waiting one has been queued, all in nanoseconds of that clock, with the
difference behind.`,
	example: `inquest runq vmcore
inquest runq vmcore -t
inquest runq vmcore -c 0,2-3
inquest runq vmcore --json | jq '.cpus[] | {cpu, waiting: (.fair | length)}'`,
	setup: func(f *pflag.FlagSet) runFunc {
		times := f.BoolP("timestamps", "t", false, "show since when tasks run and wait")
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
			var queues []*kernel.RunQueue
			for _, cpu := range cpus {
				rq, err := k.RunQueue(cpu)
				s.miss(err)
				if rq != nil {
					queues = append(queues, rq)
				} else if errors.Is(err, kernel.ErrNoSymbol) || errors.Is(err, kernel.ErrNoBTF) || errors.Is(err, kernel.ErrNoType) {
					return err
				}
			}
			if len(queues) == 0 {
				return errors.New("no run queue can be read")
			}
			if s.json {
				return runqJSON(s, queues)
			}
			for i, rq := range queues {
				if i > 0 {
					s.printf("\n")
				}
				runqText(s, rq, *times)
			}
			s.missing()
			return nil
		}
	},
}

func runqText(s *session, rq *kernel.RunQueue, times bool) {
	head := fmt.Sprintf("CPU %d RUNQUEUE: %016x", rq.CPU, uint64(rq.Addr))
	if times {
		head += fmt.Sprintf("  CLOCK: %d", rq.Clock)
	}
	s.printf("%s\n", s.term.paint(bold, head))
	since := func(t *kernel.Task, member string) string {
		if !times {
			return ""
		}
		at, err := t.Uint("sched_info." + member)
		if err != nil || at == 0 {
			return "  -"
		}
		return fmt.Sprintf("  %d (%v)", at, ago(rq.Clock, at))
	}
	if rq.Current == nil {
		s.printf("  CURRENT: not in the dump\n")
	} else {
		s.printf("  CURRENT: %s%s\n", taskLine(rq.Current), since(rq.Current, "last_arrival"))
	}
	queue := func(title string, queue kernel.Queue, always bool) {
		if len(queue.Tasks) == 0 && !always && queue.Err == nil {
			return
		}
		s.printf("  %s\n", title)
		for _, q := range queue.Tasks {
			note := ""
			if q.Delayed {
				note = "  delayed"
			}
			s.printf("     [%3d] %s%s%s\n", q.Prio, taskLine(q.Task), since(q.Task, "last_queued"), note)
		}
		switch {
		case queue.Err != nil:
			s.printf("     [the dump does not tell who else]\n")
		case len(queue.Tasks) == 0:
			s.printf("     [no tasks queued]\n")
		}
	}
	queue("DL RB_ROOT:", rq.DL, false)
	queue(fmt.Sprintf("RT PRIO_ARRAY: %016x", uint64(rq.RTArray)), rq.RT, true)
	queue(fmt.Sprintf("CFS RB_ROOT: %016x", uint64(rq.CFS)), rq.Fair, true)
	queue("SCX RUNNABLE_LIST:", rq.Ext, false)
}

// ago is the time from one moment to another, in nanoseconds.
func ago(now, then uint64) time.Duration { return time.Duration(now - then).Round(time.Microsecond) }

type runqCPU struct {
	CPU      int        `json:"cpu"`
	RQ       hex        `json:"rq"`
	Clock    uint64     `json:"clock_ns"`
	Current  *runqTask  `json:"current"`  // null when the dump does not have it
	Deadline []runqTask `json:"deadline"` // null, as the others, when the dump does not tell
	RealTime []runqTask `json:"realtime"`
	Fair     []runqTask `json:"fair"`
	Ext      []runqTask `json:"ext"`
}

type runqTask struct {
	taskRef
	Prio        int    `json:"prio"`
	Delayed     bool   `json:"delayed,omitempty"`
	LastArrival uint64 `json:"last_arrival_ns"`
	LastQueued  uint64 `json:"last_queued_ns"`
}

func newRunqTask(q kernel.Queued) runqTask {
	arrival, _ := q.Task.Uint("sched_info.last_arrival")
	queued, _ := q.Task.Uint("sched_info.last_queued")
	return runqTask{*refTo(q.Task), q.Prio, q.Delayed, arrival, queued}
}

func runqJSON(s *session, queues []*kernel.RunQueue) error {
	cpus := []runqCPU{}
	for _, rq := range queues {
		tasks := func(queue kernel.Queue) []runqTask {
			if len(queue.Tasks) == 0 && queue.Err != nil {
				return nil
			}
			out := []runqTask{}
			for _, q := range queue.Tasks {
				out = append(out, newRunqTask(q))
			}
			return out
		}
		j := runqCPU{rq.CPU, hex(rq.Addr), rq.Clock, nil, tasks(rq.DL), tasks(rq.RT), tasks(rq.Fair), tasks(rq.Ext)}
		if t := rq.Current; t != nil {
			prio, _ := t.Int("prio")
			now := newRunqTask(kernel.Queued{Task: t, Prio: int(prio)})
			j.Current = &now
		}
		cpus = append(cpus, j)
	}
	return s.writeJSON(struct {
		CPUs    []runqCPU `json:"cpus"`
		Missing []string  `json:"missing,omitempty"`
	}{cpus, s.missing()})
}
