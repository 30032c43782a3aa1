package main

import (
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"

	"inquest/kernel"
)

// taskRef names a task in JSON.
type taskRef struct {
	PID  int    `json:"pid"`
	Comm string `json:"comm"`
	Task hex    `json:"task"`
	CPU  int    `json:"cpu"`
}

func refTo(t *kernel.Task) *taskRef {
	if t == nil {
		return nil
	}
	return &taskRef{t.PID, t.Comm, hex(t.Addr), t.CPU}
}

// taskLine names a task as crash(8) does.
func taskLine(t *kernel.Task) string {
	return fmt.Sprintf("PID: %-5d  TASK: %016x  COMMAND: %q", t.PID, uint64(t.Addr), clean(t.Comm))
}

// taskHeader is the line over what a command says of one task.
func (s *session) taskHeader(t *kernel.Task) {
	line := fmt.Sprintf("PID: %-7d  TASK: %016x  CPU: %-3d  COMMAND: %q", t.PID, uint64(t.Addr), t.CPU, clean(t.Comm))
	s.printf("%s\n", s.term.paint(bold, line))
}

// stateNames are crash(8)'s names of task states, and ps(1)'s letters for them.
var stateNames = map[string]string{
	"RU": "R", "IN": "S", "UN": "D", "ST": "T", "TR": "t", "DE": "X", "ZO": "Z", "PA": "P", "ID": "I",
}

// taskChoice is which tasks a command is for: those in one of the states, of one of
// the kinds and with one of the names, pids or addresses, each where any is given.
type taskChoice struct {
	states                        string // ps(1)'s letters
	user, kernel, active, leaders bool
	names                         []string
	pids                          []int
	addrs                         []kernel.Addr
}

// word takes a word as foreach and bt have them, and says whether it is one.
func (c *taskChoice) word(text string) bool {
	switch text {
	case "user":
		c.user = true
	case "kernel":
		c.kernel = true
	case "active":
		c.active = true
	case "gleader":
		c.leaders = true
	default:
		if letter, ok := stateNames[text]; ok {
			c.states += letter
			return true
		}
		if pid, err := strconv.Atoi(text); err == nil && len(text) < 12 {
			c.pids = append(c.pids, pid)
			return true
		}
		if addr, err := strconv.ParseUint(trim0x(text), 16, 64); err == nil && len(text) >= 16 {
			c.addrs = append(c.addrs, kernel.Addr(addr))
			return true
		}
		return false
	}
	return true
}

// onlyNumbers reports whether nothing but pids and addresses was chosen.
func (c *taskChoice) onlyNumbers() bool {
	return c.states == "" && !c.user && !c.kernel && !c.active && !c.leaders && len(c.names) == 0
}

func (c *taskChoice) byName() bool { return len(c.names)+len(c.pids)+len(c.addrs) > 0 }

func (c *taskChoice) takes(t *kernel.Task) bool {
	switch {
	case c.user && t.Kernel(), c.kernel && !t.Kernel(), c.active && !t.OnCPU, c.leaders && t.PID != t.TGID:
		return false
	case c.states != "" && !strings.Contains(c.states, t.State):
		return false
	case !c.byName():
		return true
	}
	return slices.Contains(c.pids, t.PID) || slices.Contains(c.addrs, t.Addr) ||
		slices.ContainsFunc(c.names, func(pattern string) bool { return matches(pattern, t.Comm) })
}

// matches reports whether a name is the one given, or fits its * and ?.
func matches(pattern, name string) bool {
	if pattern == name {
		return true
	}
	ok, err := path.Match(pattern, name)
	return ok && err == nil
}

// chosenTasks returns the tasks that are chosen, in the order of the kernel's list. A
// task that is on no list is found by its address.
func chosenTasks(s *session, k *kernel.Kernel, c *taskChoice) ([]*kernel.Task, error) {
	all, err := k.Tasks()
	if err != nil && len(all) == 0 && len(c.addrs) == 0 {
		return nil, fmt.Errorf("list the tasks: %w", err)
	}
	s.miss(err)
	tasks := slices.DeleteFunc(all, func(t *kernel.Task) bool { return !c.takes(t) })
	for _, addr := range c.addrs {
		if slices.ContainsFunc(tasks, func(t *kernel.Task) bool { return t.Addr == addr }) {
			continue
		}
		t, err := k.TaskAt(addr)
		if t == nil {
			return nil, err
		}
		if c.takes(t) {
			tasks = append(tasks, t)
		}
	}
	return tasks, nil
}

// contextTasks are the tasks that bt, files and their like are for: those named by pid
// or address, or else the one that crashed, which crash(8) calls the context.
func contextTasks(s *session, k *kernel.Kernel, args []string) ([]*kernel.Task, error) {
	if len(args) == 0 {
		t, err := k.Crashed()
		if t == nil {
			if err != nil {
				return nil, err
			}
			return nil, s.usagef("no CPU panicked: name a task, or use foreach")
		}
		s.miss(err)
		return []*kernel.Task{t}, nil
	}
	var tasks []*kernel.Task
	for _, a := range args {
		found, err := findTasks(k, a)
		if err != nil {
			return nil, err
		}
		tasks = append(tasks, found...)
	}
	return tasks, nil
}

// parseCPUs reads a list of CPUs as crash(8) has them: "0,2-4", or "a" for all. The empty
// list are all that the machine had.
func parseCPUs(s *session, k *kernel.Kernel, list string) ([]int, error) {
	present, err := k.PresentCPUs()
	if list == "" || list == "a" || list == "all" {
		if err != nil && len(present) == 0 {
			return nil, fmt.Errorf("list the CPUs: %w", err)
		}
		s.miss(err)
		return present, nil
	}
	possible, err := k.PossibleCPUs()
	if err != nil && len(possible) == 0 {
		return nil, fmt.Errorf("list the CPUs: %w", err)
	}
	var cpus []int
	for part := range strings.SplitSeq(list, ",") {
		low, high, isRange := strings.Cut(part, "-")
		if !isRange {
			high = low
		}
		first, err1 := strconv.Atoi(low)
		last, err2 := strconv.Atoi(high)
		if err1 != nil || err2 != nil || last < first {
			return nil, s.usagef("%q is no list of CPUs", list)
		}
		if !slices.Contains(possible, first) || !slices.Contains(possible, last) {
			return nil, fmt.Errorf("the machine has no CPU %s, the last is %d", part, possible[len(possible)-1])
		}
		for cpu := first; cpu <= last; cpu++ {
			cpus = append(cpus, cpu)
		}
	}
	return cpus, nil
}
