package kernel

import (
	"fmt"

	"inquest/kernel/x86"
)

// CPUState is what a dump says of one CPU at the time it was written.
type CPUState struct {
	CPU    int
	Regs   x86.Regs
	Source string // where the registers come from
}

// CPUStates returns the registers of every CPU for which the dump has some, by
// the kernel's CPU number.
//
// A kdump's notes are what each CPU saved in crash_save_cpu() on its way down; the
// kernel's own copy of them (crash_notes) tells which CPU each belongs to.
// QEMU's notes are the virtual CPUs as they were; GS tells whose per-CPU area each
// used.
func (k *Kernel) CPUStates() []CPUState {
	var states []CPUState
	taken := map[int]bool{}
	offsets, _ := k.percpu()
	for _, c := range k.Dump.CPUs {
		if !c.HasRegs || !c.HasControl {
			continue
		}
		cpu := c.Index
		for i, off := range offsets {
			if off != 0 && (off == c.Regs[x86.GSBase] || off == c.KernelGSBase) {
				cpu = i
				break
			}
		}
		if !taken[cpu] {
			taken[cpu] = true
			states = append(states, CPUState{cpu, x86.FromUserRegs(c.Regs), "QEMU's CPU note"})
		}
	}
	if len(states) > 0 {
		return states
	}
	if states = k.crashNotes(); len(states) > 0 {
		return states
	}
	online, _ := k.OnlineCPUs()
	for i, c := range k.Dump.CPUs {
		if c.HasRegs && i < len(online) {
			states = append(states, CPUState{online[i], x86.FromUserRegs(c.Regs), "NT_PRSTATUS note"})
		}
	}
	return states
}

// crashNotes reads the NT_PRSTATUS that each CPU left in its crash_notes
// (kernel/crash_core.c, before 6.9 kernel/kexec_core.c).
func (k *Kernel) crashNotes() []CPUState {
	at, err := k.Symbol("crash_notes")
	if err != nil {
		return nil
	}
	notes, err := k.Pointer(at)
	if err != nil || notes == 0 {
		return nil
	}
	cpus, _ := k.PossibleCPUs()
	var states []CPUState
	for _, cpu := range cpus {
		note, err := k.PerCPU(notes, cpu)
		if err != nil {
			continue
		}
		const header, ntPrstatus = 20, 1 // Elf64_Nhdr and "CORE", padded to 8
		var b [header + x86.PrstatusSize]byte
		if err := k.Read(b[:], note); err != nil {
			continue
		}
		if le.Uint32(b[:]) != 5 || le.Uint32(b[4:]) != x86.PrstatusSize || le.Uint32(b[8:]) != ntPrstatus || string(b[12:16]) != "CORE" {
			continue
		}
		regs, err := x86.FromPrstatus(b[header:])
		if err != nil {
			continue
		}
		states = append(states, CPUState{cpu, regs, fmt.Sprintf("crash_notes of CPU %d", cpu)})
	}
	return states
}

// PanicCPU returns the CPU that panicked, from panic_cpu or, with kexec,
// crashing_cpu; ok is false when none did.
func (k *Kernel) PanicCPU() (cpu int, ok bool) {
	for _, name := range []string{"panic_cpu", "crashing_cpu"} {
		at, err := k.Symbol(name)
		if err != nil {
			continue
		}
		v, err := k.U32(at)
		if err == nil && int32(v) >= 0 && int32(v) < maxCPUs {
			return int(v), true
		}
	}
	return 0, false
}

// Crashed returns the task that was running on the CPU that panicked, nil when
// the machine did not panic.
func (k *Kernel) Crashed() (*Task, error) {
	cpu, ok := k.PanicCPU()
	if !ok {
		return nil, nil
	}
	return k.Current(cpu)
}
