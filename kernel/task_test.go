package kernel

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"inquest/internal/kerneltest"
	"inquest/vmcore"
)

// kernels are a small Linux of several ages.
var kernels = map[string]kerneltest.Options{
	"4.18": {OldModules: true, OldSymbols: true, OldTasks: true, RadixTree: true},
	"5.10": {OldModules: true, OldTasks: true},
	"6.1":  {OldModules: true, ModuleTypes: true},
	"6.12": {ModuleTypes: true},
	"6.15": {NewPerCPU: true, ModuleTypes: true},
}

func TestTasks(t *testing.T) {
	for name, o := range kernels {
		t.Run(name, func(t *testing.T) {
			m := kerneltest.Linux(o)
			k := open(t, m.Machine)
			tasks, err := k.Tasks()
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, task := range tasks {
				got = append(got, strings.TrimSpace(fmt.Sprintln(task.PID, task.TGID, task.PPID, task.Comm, task.State, task.CPU, task.OnCPU, task.Kernel(), task.Idle, task.MM != 0)))
				if task.Stack == 0 {
					t.Errorf("%s has no stack", task.Comm)
				}
			}
			worker := "2 1 0 worker D 0 false false false true"
			want := []string{
				"1 1 0 init R 1 true false false true", worker,
				"3 3 0 kthreadd I 0 false true false false",
				"4 4 1 gone Z 0 false false false true",
				"0 0 0 swapper/0 R 0 false true true false", "0 0 0 swapper/1 R 1 false true true false",
			}
			if !slices.Equal(got, want) {
				t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
			}
			crashed, err := k.Crashed()
			if err != nil || crashed.PID != 1 {
				t.Errorf("crashed: %v, %v", crashed, err)
			}
			if task, err := k.FindTask(2); err != nil || task.Comm != "worker" {
				t.Errorf("pid 2: %v, %v", task, err)
			}
			if _, err := k.FindTask(99); !errors.Is(err, ErrNoTask) {
				t.Errorf("pid 99: %v", err)
			}
			// The pids lead to the same tasks.
			var byPID []Addr
			if err := k.pids(func(a Addr) error { byPID = append(byPID, a); return nil }); err != nil {
				t.Fatal(err)
			}
			for _, task := range tasks {
				if !task.Idle && !slices.Contains(byPID, task.Addr) {
					t.Errorf("pid %d does not lead to %v", task.PID, task.Addr)
				}
			}
			if len(byPID) != 4 {
				t.Errorf("%d pids", len(byPID))
			}
		})
	}
}

func TestTasksDamaged(t *testing.T) {
	for _, tt := range []struct {
		name   string
		damage func(m *kerneltest.Kernel)
		want   error
		tasks  int
	}{
		{"list broken", func(m *kerneltest.Kernel) {
			off, _ := kerneltest.Offset(m.Task, "tasks")
			m.Write64(m.Tasks[1]+off, 0xdead000000000100)
		}, nil, 6},
		{"list in a ring", func(m *kerneltest.Kernel) {
			off, _ := kerneltest.Offset(m.Task, "tasks")
			m.Write64(m.Tasks[3]+off, m.Tasks[1]+off)
		}, ErrCorrupt, 6},
		{"no signal_struct", func(m *kerneltest.Kernel) { m.Set(m.Tasks[1], m.Task, "signal", 8) }, nil, 6},
		{"no run queue", func(m *kerneltest.Kernel) { m.Lose(m.PerCPUVar(0x40, 1)) }, vmcore.ErrAbsent, 5},
	} {
		m := kerneltest.Linux(kerneltest.Options{})
		tt.damage(m)
		tasks, err := open(t, m.Machine).Tasks()
		if err == nil || tt.want != nil && !errors.Is(err, tt.want) {
			t.Errorf("%s: error %v, want %v", tt.name, err, tt.want)
		}
		if len(tasks) != tt.tasks {
			t.Errorf("%s: %d tasks, want %d", tt.name, len(tasks), tt.tasks)
		}
	}
}

// A task_struct of which the dump lacks a page is still a task.
func TestPartOfTask(t *testing.T) {
	m := kerneltest.Linux(kerneltest.Options{})
	off, _ := kerneltest.Offset(m.Task, "comm")
	end := m.Alloc(8192, 4096) + 4096
	task := end - off
	m.Set(task, m.Task, "pid", 4711)
	m.Lose(end)
	k := open(t, m.Machine)
	got, err := k.TaskAt(Addr(task))
	if !errors.Is(err, vmcore.ErrAbsent) || got == nil || got.PID != 4711 || got.Comm != "" {
		t.Errorf("%+v, %v", got, err)
	}
	if got, err := k.TaskAt(Addr(end)); got != nil || err == nil {
		t.Errorf("all of it missing: %+v, %v", got, err)
	}
}

func TestStackSize(t *testing.T) {
	for _, tt := range []struct {
		start, end string
		size, want uint64
	}{
		{"__start_init_stack", "__end_init_stack", 32 << 10, 32 << 10},
		{"__start_init_task", "__end_init_task", 16 << 10, 16 << 10},
		{"__start_init_task", "__end_init_task", 1 << 30, 16 << 10},
		{"some", "thing", 32 << 10, 16 << 10},
	} {
		m := kerneltest.New()
		m.Symbol(tt.start, 'D', m.Text()+1<<20)
		m.Symbol(tt.end, 'D', m.Text()+1<<20+tt.size)
		if got := open(t, m).StackSize(); got != tt.want {
			t.Errorf("%s: %d, want %d", tt.start, got, tt.want)
		}
	}
}

func TestTaskState(t *testing.T) {
	m := kerneltest.Linux(kerneltest.Options{})
	task := m.Tasks[1]
	for _, tt := range []struct {
		state, exit uint64
		want        string
	}{
		{0, 0, "R"}, {1, 0, "S"}, {2, 0, "D"}, {4, 0, "T"}, {8, 0, "t"}, {0x80, 0x10, "X"}, {0x80, 0x20, "Z"}, {0x40, 0, "P"},
		{0x402, 0, "I"}, {0x2402, 0, "I"}, {0x2001, 0, "S"}, {0x1000, 0, "D"}, {0x8000, 0, "D"}, {0x102, 0, "D"}, {0x800, 0, "R"},
	} {
		m.Set(task, m.Task, "__state", tt.state)
		m.Set(task, m.Task, "exit_state", tt.exit)
		got, err := open(t, m.Machine).TaskAt(Addr(task))
		if err != nil || got.State != tt.want {
			t.Errorf("state %#x, exit %#x: %s, %v; want %s", tt.state, tt.exit, got.State, err, tt.want)
		}
	}
}

func TestCPUs(t *testing.T) {
	m := kerneltest.Linux(kerneltest.Options{CPUs: 3, NoPanic: true})
	m.CPU(m.Text()+0x2000, 0xffff888000000010, m.Offsets[2])
	k := open(t, m.Machine)
	if cpus, err := k.PossibleCPUs(); err != nil || !slices.Equal(cpus, []int{0, 1, 2}) {
		t.Errorf("possible: %v, %v", cpus, err)
	}
	if cpus, err := k.OnlineCPUs(); err != nil || !slices.Equal(cpus, []int{0, 1, 2}) {
		t.Errorf("online: %v, %v", cpus, err)
	}
	if task, err := k.Crashed(); task != nil || err != nil {
		t.Errorf("crashed: %v, %v", task, err)
	}
	states := k.CPUStates()
	if len(states) != 1 || states[0].CPU != 2 || states[0].Regs.PC() != m.Text()+0x2000 {
		t.Errorf("states: %+v", states)
	}
	for _, cpu := range []int{-1, 3, 1 << 30} {
		if _, err := k.PerCPU(0, cpu); !errors.Is(err, ErrCorrupt) {
			t.Errorf("CPU %d: %v", cpu, err)
		}
	}
	if a, err := k.PerCPU(0x40, 1); uint64(a) != m.Offsets[1]+0x40 || err != nil {
		t.Errorf("CPU 1: %v, %v", a, err)
	}
	q, err := k.PerCPUVar("runqueues", "rq", 1)
	if cur, _ := q.Pointer("curr"); uint64(cur) != m.Tasks[1] || err != nil {
		t.Errorf("CPU 1 runs %v, %v", cur, err)
	}
}

func TestCrashNotes(t *testing.T) {
	m := kerneltest.Linux(kerneltest.Options{CPUs: 4})
	states := open(t, m.Machine).CPUStates()
	if len(states) != 2 || states[0].CPU != 0 || states[1].CPU != 2 || states[1].Regs.PC() != m.Text()+0x1000 ||
		states[1].Source != "crash_notes of CPU 2" {
		t.Errorf("%+v", states)
	}
}

// Everything at once, for the race detector.
func TestConcurrentUse(t *testing.T) {
	m := kerneltest.Linux(kerneltest.Options{ModuleTypes: true, ExtraThreads: 20})
	k := open(t, m.Machine)
	k.Preload()
	var wg sync.WaitGroup
	for range 4 {
		for _, f := range []func(){
			func() { k.Tasks() },
			func() { k.Modules() },
			func() { k.SizeOf("struct widget") },
			func() { k.HasMember("struct widget", "knob") },
			func() { k.HasMember("no such", "thing") },
			func() { k.Name(0xffffffffc0000110) },
			func() { collect(k.Log()) },
			func() {
				if types, err := k.Types(); err == nil {
					for range types.All("widget") {
					}
					types.Func("none", "widget")
				}
			},
			func() { k.CPUStates() },
		} {
			wg.Go(f)
		}
	}
	wg.Wait()
}
