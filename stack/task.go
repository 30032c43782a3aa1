package stack

import (
	"fmt"
	"runtime"
	"sync"

	"golang.org/x/arch/x86/x86asm"

	"inquest/kernel"
	"inquest/kernel/x86"
)

// Task unwinds the stack of one task.
func (u *Unwinder) Task(task *kernel.Task) *Trace {
	t := &Trace{Task: task, CPU: task.CPU}
	if cpu, ok := u.current[task.Addr]; ok && (task.OnCPU || task.State == "?") {
		t.CPU, t.Running = cpu, true
		state, ok := u.cpus[cpu]
		if !ok {
			t.Problem = fmt.Sprintf("the dump has no registers of CPU %d, on which the task was running", cpu)
			return t
		}
		t.Source = state.Source
		u.unwind(t, registerState(state.Regs))
		return t
	}
	s, err := u.switchFrame(task)
	if err == nil {
		t.Source = "task_struct.thread.sp"
		u.unwind(t, s)
		return t
	}
	t.Problem = err.Error()
	if s, ok := u.findSwitch(task); ok {
		t.Source = "a switch frame found on the stack"
		problem := t.Problem + "; the stack was searched for where it was switched out"
		u.unwind(t, s)
		t.Reliable, t.Problem = false, problem
	}
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
		return state{}, fmt.Errorf("pid %d: %w", task.PID, err)
	}
	switch {
	case task.Stack == 0 && task.State == "Z" || task.State == "X":
		return state{}, fmt.Errorf("pid %d is dead, and its stack was given back", task.PID)
	case task.Stack != 0 && (sp < task.Stack || sp >= task.Stack+u.stackSize):
		return state{}, fmt.Errorf("thread.sp %v of pid %d is not on its stack %v", sp, task.PID, task.Stack)
	}
	return u.switchedAt(sp)
}

// switchedAt reads the struct inactive_task_frame at an address.
func (u *Unwinder) switchedAt(sp kernel.Addr) (state, error) {
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
	var err error
	if s.pc, err = u.k.Pointer(at); err != nil {
		return state{}, fmt.Errorf("read inactive_task_frame: %w", err)
	}
	if !u.k.Text(s.pc) {
		return state{}, fmt.Errorf("there is no switch frame at %v", sp)
	}
	bp, _ := s.regs.Get(x86.RBP)
	s.sp, s.bp = at+8, kernel.Addr(bp)
	// A task that never ran starts at an instruction, not behind a call.
	s.exact = s.pc == u.forkFrom
	return s, nil
}

// findSwitch looks on a task's stack for where it was switched out, when thread.sp is
// not in the dump: makedumpfile leaves out pages that it takes for free ones on
// kernels newer than itself. Old switch frames lie below the last one, and may look as
// good: the highest from which the stack unwinds to its end is the likeliest.
func (u *Unwinder) findSwitch(task *kernel.Task) (state, bool) {
	resume, ok := u.resumePoint()
	if task.Stack == 0 || !ok {
		return state{}, false
	}
	const frame = 6 * 8 // inactive_task_frame up to the return address
	for at := task.Stack + u.stackSize - 8; at >= task.Stack+frame; at -= 8 {
		if pc, err := u.k.Pointer(at); err != nil || pc != resume {
			continue
		}
		s, err := u.switchedAt(at - frame)
		if err != nil {
			continue
		}
		t := &Trace{Task: task}
		if u.unwind(t, s); t.Reliable {
			return s, true
		}
	}
	return state{}, false
}

// resumePoint is where every task that was switched out goes on: behind the call of
// __switch_to_asm() in __schedule().
func (u *Unwinder) resumePoint() (kernel.Addr, bool) {
	sym, err1 := u.k.Lookup("__schedule")
	to, err2 := u.k.Symbol("__switch_to_asm")
	if err1 != nil || err2 != nil {
		return 0, false
	}
	c, err := u.codeAt(sym.Addr)
	if err != nil {
		return 0, false
	}
	g, err := c.graph()
	if err != nil {
		return 0, false
	}
	for i := range g.nodes {
		insn := g.nodes[i].Insn
		if t, ok := insn.Target(); ok && insn.Op == x86asm.CALL && t == uint64(to) {
			return kernel.Addr(insn.Addr) + kernel.Addr(insn.Len), true
		}
	}
	return 0, false
}
