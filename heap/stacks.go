package heap

import (
	"fmt"
	"strings"

	"inquest/kernel"
	"inquest/stack"
)

// taskStacks maps the lowest address of each task's stack to the task.
func (h *Heap) taskStacks() map[kernel.Addr]*kernel.Task {
	tasks, _ := h.k.Tasks()
	stacks := make(map[kernel.Addr]*kernel.Task, len(tasks))
	for _, t := range tasks {
		if t.Stack != 0 {
			stacks[t.Stack] = t
		}
	}
	return stacks
}

// inTaskStack describes an address on the kernel stack of a task; false when it is on
// none. Those that were running are tried before the list of all is read.
func (h *Heap) inTaskStack(m *Memory) bool {
	size := kernel.Addr(h.k.StackSize())
	on := func(t *kernel.Task) bool {
		return t != nil && t.Stack != 0 && m.Addr >= t.Stack && m.Addr-t.Stack < size
	}
	if m.Area != nil && m.Area.Size != uint64(size) {
		return false
	}
	var task *kernel.Task
	if crashed, _ := h.k.Crashed(); on(crashed) {
		task = crashed
	} else if t := h.stacks()[m.Addr&^(size-1)]; on(t) { // stacks are aligned to their size
		task = t
	}
	if task == nil {
		return false
	}
	m.Kind, m.Task = TaskStack, task
	m.Desc = fmt.Sprintf("on the kernel stack of %s (pid %d)", task.Comm, task.PID)
	h.findFrame(m)
	return true
}

// findFrame says which frame of the task's stack the address is in.
func (h *Heap) findFrame(m *Memory) {
	t := h.traceOf(m.Task)
	if len(t.Frames) == 0 {
		return
	}
	low, high := h.stackAround(m)
	var inner *stack.Frame
	for i := range t.Frames {
		f := &t.Frames[i]
		if f.SP < low || f.SP > high { // of another stack: an interrupt's, or the task's below it
			continue
		}
		if f.SP > m.Addr {
			break
		}
		inner = f
	}
	if inner == nil {
		m.Desc += ", below the stack pointer"
		return
	}
	m.Frame = inner
	if regs := inner.RegsAt; regs != 0 && m.Addr >= regs && m.Addr < regs+ptRegsSize {
		m.Desc += fmt.Sprintf(", in the registers saved when %s was interrupted", inner.Name())
		return
	}
	m.Desc += ", in the frame of " + inner.Name()
}

const ptRegsSize = 21 * 8 // struct pt_regs

// stackAround returns the bounds of the stack that the address is on.
func (h *Heap) stackAround(m *Memory) (low, high kernel.Addr) {
	if m.Kind == TaskStack {
		return m.Task.Stack, m.Task.Stack + kernel.Addr(h.k.StackSize())
	}
	for _, s := range h.cpus().stacks {
		if s.holds(m.Addr) {
			return s.start, s.end
		}
	}
	return m.Addr &^ (pageSize - 1), m.Addr | (pageSize - 1)
}

// traceOf unwinds a task, once.
func (h *Heap) traceOf(t *kernel.Task) *stack.Trace {
	if tr, ok := h.traces.Load(t.Addr); ok {
		return tr.(*stack.Trace)
	}
	tr, _ := h.traces.LoadOrStore(t.Addr, h.unwind().Task(t))
	return tr.(*stack.Trace)
}

// cpuStack is a stack that belongs to a CPU.
type cpuStack struct {
	span
	cpu  int
	kind Kind
	name string
}

// irqStacks finds each CPU's interrupt stack. It is per-CPU data
// (irq_stack_backing_store; irq_stack_union until 5.1), and with CONFIG_VMAP_STACK
// mapped a second time, where it is used.
func (h *Heap) irqStacks(cpus []int) []cpuStack {
	size, err := h.k.SizeOf("struct irq_stack")
	if err != nil || size == 0 || size > 64<<10 {
		size = 16 << 10
	}
	pointer := h.irqStackPointer()
	var all []cpuStack
	for _, cpu := range cpus {
		if pointer != nil {
			if top, err := pointer(cpu); err == nil && top > startOfKernel {
				// It points to the top, or to the last word.
				end := (top + 15) &^ 15
				all = append(all, cpuStack{span{end - kernel.Addr(size), end}, cpu, IRQStack, "interrupt stack"})
			}
		}
		for _, name := range []string{"irq_stack_backing_store", "irq_stack_union"} {
			sym, err := h.k.Symbol(name)
			if err != nil {
				continue
			}
			if at, err := h.k.PerCPU(sym, cpu); err == nil {
				all = append(all, cpuStack{span{at, at + kernel.Addr(size)}, cpu, IRQStack, "interrupt stack"})
			}
		}
	}
	return all
}

const startOfKernel = 1 << 63

// irqStackPointer returns how to read where a CPU's interrupt stack ends.
func (h *Heap) irqStackPointer() func(cpu int) (kernel.Addr, error) {
	if off, err := h.k.OffsetOf("pcpu_hot", "hardirq_stack_ptr"); err == nil { // 6.2 to 6.14
		if sym, err := h.k.Symbol("pcpu_hot"); err == nil {
			return h.perCPUPointer(sym + kernel.Addr(off))
		}
	}
	for _, name := range []string{"hardirq_stack_ptr", "irq_stack_ptr"} { // the latter until 5.1
		if sym, err := h.k.Symbol(name); err == nil {
			return h.perCPUPointer(sym)
		}
	}
	return nil
}

func (h *Heap) perCPUPointer(sym kernel.Addr) func(int) (kernel.Addr, error) {
	return func(cpu int) (kernel.Addr, error) {
		at, err := h.k.PerCPU(sym, cpu)
		if err != nil {
			return 0, err
		}
		return h.k.Pointer(at)
	}
}

// inIRQStack describes an address on a CPU's interrupt stack; false when it is on none.
func (h *Heap) inIRQStack(m *Memory) bool {
	for _, s := range h.cpus().stacks {
		if s.kind == IRQStack && s.holds(m.Addr) {
			h.onCPUStack(m, s)
			return true
		}
	}
	return false
}

// onCPUStack describes an address on a stack of a CPU, and the frame that it is in.
func (h *Heap) onCPUStack(m *Memory, s cpuStack) {
	m.Kind, m.CPU = s.kind, s.cpu
	m.Desc = fmt.Sprintf("on the %s of CPU %d", s.name, s.cpu)
	task, err := h.k.Current(s.cpu)
	if err != nil || task == nil {
		return
	}
	m.Task = task
	h.findFrame(m)
}

// identifyEntryArea describes an address in the CPU entry areas (struct
// cpu_entry_area, arch/x86/include/asm/cpu_entry_area.h).
func (h *Heap) identifyEntryArea(m *Memory) {
	m.Kind = FixedArea
	for _, s := range h.cpus().stacks {
		if s.kind == ExceptionStack && s.holds(m.Addr) {
			if strings.HasSuffix(s.name, "guard") {
				m.CPU = s.cpu
				m.Desc = fmt.Sprintf("in the guard page below the %s of CPU %d", strings.TrimSuffix(s.name, " guard"), s.cpu)
				return
			}
			h.onCPUStack(m, s)
			return
		}
	}
	for _, a := range h.cpus().entry {
		if a.holds(m.Addr) {
			m.CPU = a.cpu
			m.Desc = fmt.Sprintf("in the entry area of CPU %d", a.cpu)
			if a.name != "" {
				m.Desc += ": " + a.name
			}
			return
		}
	}
	h.identifyUnknown(m)
}
