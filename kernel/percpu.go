package kernel

import (
	"fmt"
	"math/bits"

	"github.com/cilium/ebpf/btf"
)

const maxCPUs = 8192 // NR_CPUS with MAXSMP

// loadPerCPU reads __per_cpu_offset. A kernel without SMP has none: one CPU, offset 0.
func (k *Kernel) loadPerCPU() ([]uint64, error) {
	table, err := k.Symbol("__per_cpu_offset")
	if err != nil {
		return []uint64{0}, nil
	}
	n := maxCPUs
	if at, err := k.Symbol("nr_cpu_ids"); err == nil {
		if v, err := k.U32(at); err == nil && v > 0 {
			n = min(int(v), maxCPUs)
		}
	}
	raw := make([]byte, 8*n)
	if err := k.readSome(&raw, table, 8); err != nil {
		return nil, fmt.Errorf("read __per_cpu_offset: %w", err)
	}
	offsets := make([]uint64, 0, n)
	for ; len(raw) >= 8; raw = raw[8:] {
		offsets = append(offsets, le.Uint64(raw))
	}
	return offsets, nil
}

// PerCPU returns the address of a CPU's copy of the per-CPU variable at addr, as
// per_cpu_ptr() does. It serves both kinds of per-CPU addresses: counted from zero
// (before 6.15) and the kernel's own (since).
func (k *Kernel) PerCPU(addr Addr, cpu int) (Addr, error) {
	offsets, err := k.percpu()
	if err != nil {
		return 0, err
	}
	if cpu < 0 || cpu >= len(offsets) {
		return 0, fmt.Errorf("cpu %d of %d: %w", cpu, len(offsets), ErrCorrupt)
	}
	return addr + Addr(offsets[cpu]), nil
}

// PerCPUVar returns a CPU's copy of the per-CPU variable that a symbol names.
func (k *Kernel) PerCPUVar(symbol, typ string, cpu int) (Object, error) {
	at, err := k.Symbol(symbol)
	if err != nil {
		return Object{}, err
	}
	if at, err = k.PerCPU(at, cpu); err != nil {
		return Object{}, err
	}
	return k.Object(typ, at)
}

// PossibleCPUs returns the numbers of all CPUs the kernel has per-CPU memory for.
func (k *Kernel) PossibleCPUs() ([]int, error) { return k.cpuMask("__cpu_possible_mask") }

// OnlineCPUs returns the numbers of the CPUs that were up.
func (k *Kernel) OnlineCPUs() ([]int, error) { return k.cpuMask("__cpu_online_mask") }

// PresentCPUs returns the numbers of the CPUs that the machine had. A panic takes
// all CPUs but one offline, so after one these are the CPUs that were running.
func (k *Kernel) PresentCPUs() ([]int, error) { return k.cpuMask("__cpu_present_mask") }

func (k *Kernel) cpuMask(symbol string) ([]int, error) {
	offsets, err := k.percpu()
	if err != nil {
		return nil, err
	}
	at, err := k.Symbol(symbol)
	if err != nil {
		cpus := make([]int, len(offsets))
		for i := range cpus {
			cpus[i] = i
		}
		return cpus, nil
	}
	cpus, err := k.maskAt(at, len(offsets))
	if err != nil {
		return cpus, fmt.Errorf("read %s: %w", symbol, err)
	}
	return cpus, nil
}

// cpumask reads a cpumask_var_t or struct cpumask: the CPUs that are in it.
func (k *Kernel) cpumask(mask Object) ([]int, error) {
	offsets, err := k.percpu()
	if err != nil {
		return nil, err
	}
	at := mask.Addr
	if _, ok := btf.UnderlyingType(mask.Type).(*btf.Pointer); ok {
		if at, err = k.Pointer(at); err != nil || at == 0 {
			return nil, err
		}
	}
	return k.maskAt(at, len(offsets))
}

// maskAt reads the numbers, below n, of the bits that are set in a bitmap.
func (k *Kernel) maskAt(at Addr, n int) ([]int, error) {
	var cpus []int
	for i := 0; i < n; i += 64 {
		w, err := k.U64(at + Addr(i/8))
		if err != nil {
			return cpus, err
		}
		for ; w != 0; w &= w - 1 {
			if cpu := i + bits.TrailingZeros64(w); cpu < n {
				cpus = append(cpus, cpu)
			}
		}
	}
	return cpus, nil
}
