package stack

import (
	"fmt"
	"runtime"
	"sync"

	"inquest/kernel"
	"inquest/kernel/x86"
)

// Task unwinds the stack of one task.
func (u *Unwinder) Task(task *kernel.Task) *Trace {
	t := &Trace{Task: task, CPU: task.CPU}
	if cpu, ok := u.cpus[task.CPU]; ok && u.runs(task) {
		t.Running, t.Source = true, cpu.Source
		u.unwind(t, registerState(cpu.Regs))
		return t
	}
	if u.runs(task) {
		t.Running = true
		t.Problem = fmt.Sprintf("the dump has no registers of CPU %d, on which the task was running", task.CPU)
		return t
	}
	s, err := u.switchFrame(task)
	if err != nil {
		t.Problem = err.Error()
		return t
	}
	t.Source = "task_struct.thread.sp"
	u.unwind(t, s)
	return t
}

// All unwinds every task, in parallel, in the order given.
func (u *Unwinder) All(tasks []*kernel.Task) []*Trace {
	traces := make([]*Trace, len(tasks))
	var wg sync.WaitGroup
	workers := runtime.GOMAXPROCS(0)
	for w := range workers {
		wg.Go(func() {
			for i := w; i < len(tasks); i += workers {
				traces[i] = u.Task(tasks[i])
			}
		})
	}
	wg.Wait()
	return traces
}

// runs reports whether the task is the one that its CPU was running.
func (u *Unwinder) runs(task *kernel.Task) bool {
	if !task.OnCPU {
		return false
	}
	cur, err := u.k.Current(task.CPU)
	return err == nil && cur.Addr == task.Addr
}

// registerState starts at a CPU's registers.
func registerState(regs x86.Regs) state {
	bp, _ := regs.Get(x86.RBP)
	return state{pc: kernel.Addr(regs.PC()), sp: kernel.Addr(regs.SP()), bp: kernel.Addr(bp), exact: true, regs: regs}
}

// switchFrame starts where a task that is not running was switched out:
// __switch_to_asm() left a struct inactive_task_frame (asm/switch_to.h) at thread.sp.
func (u *Unwinder) switchFrame(task *kernel.Task) (state, error) {
	sp, err := task.Pointer("thread.sp")
	if err != nil {
		return state{}, fmt.Errorf("read thread.sp of pid %d: %w", task.PID, err)
	}
	if sp < task.Stack || sp >= task.Stack+u.stackSize {
		return state{}, fmt.Errorf("thread.sp %v of pid %d is not on its stack %v", sp, task.PID, task.Stack)
	}
	s := state{}
	at := sp
	for _, r := range []x86.Reg{x86.R15, x86.R14, x86.R13, x86.R12, x86.RBX, x86.RBP} {
		v, err := u.k.U64(at)
		if err != nil {
			return state{}, fmt.Errorf("read inactive_task_frame: %w", err)
		}
		s.regs.Set(r, v)
		at += 8
	}
	if s.pc, err = u.k.Pointer(at); err != nil {
		return state{}, fmt.Errorf("read inactive_task_frame: %w", err)
	}
	bp, _ := s.regs.Get(x86.RBP)
	s.sp, s.bp = at+8, kernel.Addr(bp)
	// A task that never ran starts at an instruction, not behind a call.
	s.exact = s.pc == u.forkFrom
	return s, nil
}
