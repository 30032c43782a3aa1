package main

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/pflag"

	"inquest/kernel"
	"inquest/report"
	"inquest/stack"
)

var btCommand = &command{
	name:  "bt",
	args:  "[PID | TASK | NAME | STATE]...",
	max:   -1,
	short: "show kernel stacks",
	long: `Shows the stack of the task that crashed, of the tasks given by pid, by the address
of their task_struct or by name, of those in a state (RU, IN, UN, ID, ZO …, see
foreach), of all tasks, or of what each CPU was running. Pid 0 stands for the idle
tasks. With -R only the stacks are shown that a function is on; of all tasks, if
none are named.

A frame is "#n [address on the stack] function+offset at pc". The registers of
an exception stand below its handler. A stack that the kernel's unwind tables do
not explain to its end is said to be not reliable; frames that only a scan found
have a question mark.

With --args each function's parameters are recovered from its code and the stack:
what they were at the call, and how that is known. Functions that a tail call
removed from the stack stand in brackets.`,
	example: `inquest bt vmcore
inquest bt vmcore 1234
inquest bt vmcore 0xffff9c0f81234100
inquest bt vmcore --all --json
inquest bt vmcore --active
inquest bt vmcore UN
inquest bt vmcore -R '*mutex_lock*'
inquest bt vmcore --args`,
	complete: completeTask,
	setup: func(flags *pflag.FlagSet) runFunc {
		var which selection
		flags.BoolVarP(&which.all, "all", "A", false, "every task")
		flags.BoolVarP(&which.active, "active", "a", false, "what each CPU was running")
		flags.IntVarP(&which.cpu, "cpu", "c", -1, "what CPU `N` was running")
		flags.StringVar(&which.states, "state", "", "tasks in one of these states: `LETTERS` as ps has them")
		flags.StringVarP(&which.on, "ref", "R", "", "only stacks with `FUNCTION`, with * and ? as in a shell, or an address in it")
		args := flags.Bool("args", false, "also the parameters of each function, as far as they can be recovered")
		return func(s *session, named []string) error {
			k, err := s.typedKernel()
			if err != nil {
				return err
			}
			crashed, crashErr := k.Crashed()
			s.miss(crashErr)
			tasks, err := which.tasks(s, k, crashed, named)
			if err != nil {
				return err
			}
			unwinder := stack.NewUnwinder(k)
			traces := unwinder.All(tasks)
			if which.on != "" {
				traces = slices.DeleteFunc(traces, func(t *stack.Trace) bool { return !onStack(t, which.on) })
				if len(traces) == 0 {
					return fmt.Errorf("%s is on no stack of %s", which.on, plural(len(tasks), "task"))
				}
			}
			if *args {
				for _, t := range traces {
					unwinder.Arguments(t)
				}
			}
			if s.json {
				return s.writeJSON(report.StacksJSON(k.Release, crashed, traces))
			}
			for i, t := range traces {
				if i > 0 {
					s.printf("\n")
				}
				report.Stack(s.out, t, s.style(true))
			}
			s.missing()
			return nil
		}
	},
}

// selection is which tasks bt shows.
type selection struct {
	all, active bool
	cpu         int
	states      string // ps(1)'s letters
	on          string // a function
}

func (w selection) tasks(s *session, k *kernel.Kernel, crashed *kernel.Task, args []string) ([]*kernel.Task, error) {
	switch {
	case w.all:
		tasks, err := k.Tasks()
		s.miss(err)
		return tasks, nil
	case w.active || w.cpu >= 0:
		return w.running(s, k)
	case len(args) > 0 || w.states != "":
		return w.chosen(s, k, args)
	case w.on != "":
		tasks, err := k.Tasks()
		s.miss(err)
		return tasks, nil
	case crashed == nil:
		return nil, errors.New("no CPU panicked: name a task, or see --active and --all")
	}
	return []*kernel.Task{crashed}, nil
}

// chosen returns the tasks that the arguments name, in their order; where those are
// states or names, in the order of the kernel's list.
func (w selection) chosen(s *session, k *kernel.Kernel, args []string) ([]*kernel.Task, error) {
	pick := taskChoice{states: w.states}
	for _, a := range args {
		if !pick.word(a) {
			pick.names = append(pick.names, a)
		}
	}
	if pick.onlyNumbers() {
		return contextTasks(s, k, args)
	}
	tasks, err := chosenTasks(s, k, &pick)
	if err == nil && len(tasks) == 0 {
		err = fmt.Errorf("no task is %s", strings.TrimSpace(strings.Join(args, " or ")+" "+w.states))
	}
	return tasks, err
}

// onStack reports whether a function is on a stack: by its name, or by an address in it.
func onStack(t *stack.Trace, function string) bool {
	return slices.ContainsFunc(t.Frames, func(f stack.Frame) bool {
		return matches(function, f.Symbol.Name) || fmt.Sprintf("%x", uint64(f.PC)) == trim0x(function)
	})
}

// running returns the current task of every CPU, or of one.
func (w selection) running(s *session, k *kernel.Kernel) ([]*kernel.Task, error) {
	cpus, err := k.PresentCPUs()
	if err != nil {
		return nil, err
	}
	if w.cpu >= 0 {
		cpus = []int{w.cpu}
	}
	var tasks []*kernel.Task
	for _, cpu := range cpus {
		t, err := k.Current(cpu)
		if err != nil {
			s.miss(fmt.Errorf("CPU %d: %w", cpu, err))
			continue
		}
		tasks = append(tasks, t)
	}
	if len(tasks) == 0 {
		return nil, fmt.Errorf("no CPU's task can be read: %w", err)
	}
	return tasks, nil
}

// findTasks returns the tasks that an argument names: a pid, in decimal, or the
// address of a task_struct. All idle tasks have pid 0.
func findTasks(k *kernel.Kernel, arg string) ([]*kernel.Task, error) {
	pid, err := strconv.Atoi(arg)
	if err != nil {
		addr, err := strconv.ParseUint(strings.TrimPrefix(arg, "0x"), 16, 64)
		if err != nil {
			return nil, fmt.Errorf("%q is neither a pid nor the address of a task_struct", arg)
		}
		t, err := k.TaskAt(kernel.Addr(addr))
		if err != nil {
			return nil, err
		}
		return []*kernel.Task{t}, nil
	}
	tasks, err := k.Tasks()
	tasks = slices.DeleteFunc(tasks, func(t *kernel.Task) bool { return t.PID != pid })
	if len(tasks) == 0 {
		if err != nil {
			return nil, fmt.Errorf("pid %d: %w", pid, err)
		}
		return nil, fmt.Errorf("pid %d: %w", pid, kernel.ErrNoTask)
	}
	return tasks, nil
}
