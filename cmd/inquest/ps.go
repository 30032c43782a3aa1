package main

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/pflag"

	"inquest/kernel"
)

var psCommand = &command{
	name:  "ps",
	args:  "[PID | TASK | NAME]...",
	max:   -1,
	short: "list the tasks",
	long: `List every thread, or those with the given PIDs, addresses of task_struct or names,
by PID; the idle tasks of the CPUs are PID 0.
'>' marks those that were running on a CPU. VSZ and RSS are in KiB, ? where the dump
does not tell. Names of kernel threads stand in brackets.

ST is the letter of ps(1): R running, S sleeping, D waiting uninterruptibly,
I idle kernel thread, T stopped, t traced, Z zombie, X dead, P parked.`,
	example: `inquest ps vmcore
inquest ps vmcore -S
inquest ps vmcore --state D
inquest ps vmcore --json | jq '.tasks[] | select(.on_cpu)'`,
	complete: completeTask,
	setup: func(f *pflag.FlagSet) runFunc {
		var pick taskFilter
		f.BoolVarP(&pick.user, "user", "u", false, "only tasks with user memory")
		f.BoolVarP(&pick.kernel, "kernel", "k", false, "only kernel threads")
		f.BoolVarP(&pick.leaders, "leaders", "G", false, "only one line a process: its first thread")
		f.BoolVarP(&pick.active, "active", "A", false, "only tasks that were running on a CPU")
		f.StringVar(&pick.states, "state", "", "only tasks in one of these states: `LETTERS`")
		summary := f.BoolP("summary", "S", false, "only count the tasks in each state")
		return func(s *session, args []string) error {
			k, err := s.typedKernel()
			if err != nil {
				return err
			}
			tasks, err := k.Tasks()
			if err != nil && len(tasks) == 0 {
				return fmt.Errorf("list the tasks: %w", err)
			}
			s.miss(err)
			memory := newTaskMemory(k, tasks)
			tasks = slices.DeleteFunc(tasks, func(t *kernel.Task) bool { return !pick.takes(t, args) })
			slices.SortStableFunc(tasks, func(a, b *kernel.Task) int { return cmp.Compare(a.PID, b.PID) })
			if len(tasks) == 0 && len(args) > 0 {
				return fmt.Errorf("no task is %s", strings.Join(args, " or "))
			}
			switch {
			case *summary:
				return psSummary(s, tasks)
			case s.json:
				return psJSON(s, tasks, memory)
			}
			psText(s, tasks, memory)
			s.missing()
			return nil
		}
	},
}

// taskFilter says which tasks to list.
type taskFilter struct {
	user, kernel, leaders, active bool
	states                        string
}

// takes reports whether to list a task; args are PIDs, addresses and names.
func (f *taskFilter) takes(t *kernel.Task, args []string) bool {
	switch {
	case f.user && t.Kernel(), f.kernel && !t.Kernel(), f.leaders && t.PID != t.TGID:
		return false
	case f.active && !t.OnCPU, f.states != "" && !strings.Contains(f.states, t.State):
		return false
	}
	if len(args) == 0 {
		return true
	}
	return slices.ContainsFunc(args, func(arg string) bool {
		if arg == t.Comm {
			return true
		}
		if pid, err := strconv.Atoi(arg); err == nil && len(arg) < 12 {
			return pid == t.PID
		}
		addr, err := strconv.ParseUint(trim0x(arg), 16, 64)
		return err == nil && kernel.Addr(addr) == t.Addr
	})
}

// taskMemory reads how much memory tasks have.
type taskMemory struct {
	k      *kernel.Kernel
	total  uint64 // pages of the machine
	cached map[kernel.Addr]int64
	known  map[kernel.Addr]memorySize
}

// memorySize is how much memory a task has, in pages.
type memorySize struct {
	size, resident uint64
	unknown        bool // it is not in the dump
}

// kib formats a number of pages.
func (m memorySize) kib(pages uint64) string {
	if m.unknown {
		return "?"
	}
	return strconv.FormatUint(pages*kibPerPage, 10)
}

func newTaskMemory(k *kernel.Kernel, tasks []*kernel.Task) *taskMemory {
	m := &taskMemory{k: k, cached: map[kernel.Addr]int64{}, known: map[kernel.Addr]memorySize{}}
	for _, name := range []string{"_totalram_pages", "totalram_pages"} { // an atomic_long_t since 5.0
		if at, err := k.Symbol(name); err == nil {
			m.total, _ = k.U64(at)
			break
		}
	}
	// Before 6.2 (commit f1a7941243c1) each thread counts some pages for itself.
	for _, t := range tasks {
		for _, i := range residentCounters {
			if n, err := t.Int(fmt.Sprintf("rss_stat.count[%d]", i)); err == nil {
				m.cached[t.MM] += n
			}
		}
	}
	return m
}

// residentCounters are MM_FILEPAGES, MM_ANONPAGES and MM_SHMEMPAGES
// (include/linux/mm_types_task.h).
var residentCounters = []int{0, 1, 3}

// of returns how much memory a task has.
func (m *taskMemory) of(t *kernel.Task) memorySize {
	if t.MM == 0 {
		return memorySize{unknown: t.State == "?"}
	}
	if v, ok := m.known[t.MM]; ok {
		return v
	}
	var v memorySize
	mm, err := m.k.Object("mm_struct", t.MM)
	if err == nil {
		v.size, err = mm.Uint("total_vm")
	}
	v.unknown = err != nil
	rss := m.cached[t.MM]
	for _, i := range residentCounters {
		rss += m.counter(mm, i)
	}
	v.resident = uint64(max(rss, 0))
	m.known[t.MM] = v
	return v
}

// counter reads a resident set counter: a percpu_counter since 6.2, whose parts
// are with the CPUs, or an atomic.
func (m *taskMemory) counter(mm kernel.Object, i int) int64 {
	if n, err := mm.Int(fmt.Sprintf("rss_stat.count[%d].counter", i)); err == nil {
		return n
	}
	at := fmt.Sprintf("rss_stat[%d].", i)
	n, err := mm.Int(at + "count")
	if err != nil {
		return 0
	}
	parts, err := mm.Pointer(at + "counters")
	if err != nil || parts == 0 {
		return n
	}
	cpus, _ := m.k.PossibleCPUs()
	for _, cpu := range cpus {
		if p, err := m.k.PerCPU(parts, cpu); err == nil {
			v, _ := m.k.U32(p)
			n += int64(int32(v))
		}
	}
	return n
}

const kibPerPage = 4

// parentOf returns the pid of a task's parent. An idle task has none, though init,
// which started the other CPUs, stands as such in theirs.
func parentOf(t *kernel.Task) int {
	if t.Idle {
		return 0
	}
	return t.PPID
}

func psText(s *session, tasks []*kernel.Task, memory *taskMemory) {
	s.printf("%s\n", s.term.paint(bold, "      PID    PPID  CPU       TASK        ST  %MEM       VSZ       RSS  COMM"))
	for _, t := range tasks {
		mem := memory.of(t)
		percent := 0.0
		if memory.total > 0 {
			percent = 100 * float64(mem.resident) / float64(memory.total)
		}
		mark, comm := " ", clean(t.Comm)
		if t.Kernel() {
			comm = "[" + comm + "]"
		}
		if t.OnCPU {
			mark = ">"
		}
		line := fmt.Sprintf("%s %7d %7d %4d  %016x  %-2s %5.1f %9s %9s  %s", mark, t.PID, parentOf(t), t.CPU, uint64(t.Addr), t.State,
			percent, mem.kib(mem.size), mem.kib(mem.resident), comm)
		switch {
		case t.OnCPU && !t.Idle:
			line = s.term.paint(bold, line)
		case t.State == "D":
			line = s.term.paint(yellow, line)
		}
		s.printf("%s\n", line)
	}
}

type taskJSON struct {
	PID    int    `json:"pid"`
	TGID   int    `json:"tgid"`
	PPID   int    `json:"ppid"`
	CPU    int    `json:"cpu"`
	Task   hex    `json:"task"`
	State  string `json:"state"`
	Comm   string `json:"comm"`
	OnCPU  bool   `json:"on_cpu"`
	Kernel bool   `json:"kernel_thread"`
	VSZ    uint64 `json:"vsz_kib"`
	RSS    uint64 `json:"rss_kib"`
}

func psJSON(s *session, tasks []*kernel.Task, memory *taskMemory) error {
	list := []taskJSON{}
	for _, t := range tasks {
		mem := memory.of(t)
		list = append(list, taskJSON{t.PID, t.TGID, parentOf(t), t.CPU, hex(t.Addr), t.State, t.Comm, t.OnCPU, t.Kernel(), mem.size * kibPerPage, mem.resident * kibPerPage})
	}
	return s.writeJSON(struct {
		Tasks   []taskJSON `json:"tasks"`
		Missing []string   `json:"missing,omitempty"`
	}{list, s.missing()})
}

func psSummary(s *session, tasks []*kernel.Task) error {
	count := map[string]int{}
	for _, t := range tasks {
		count[t.State]++
	}
	if s.json {
		return s.writeJSON(struct {
			Total   int            `json:"total"`
			States  map[string]int `json:"states"`
			Missing []string       `json:"missing,omitempty"`
		}{len(tasks), count, s.missing()})
	}
	var states []string
	for state := range count {
		states = append(states, state)
	}
	slices.SortFunc(states, func(a, b string) int { return cmp.Or(cmp.Compare(count[b], count[a]), cmp.Compare(a, b)) })
	s.printf("%7d tasks\n", len(tasks))
	for _, state := range states {
		s.printf("%7d %s\n", count[state], state)
	}
	s.missing()
	return nil
}
