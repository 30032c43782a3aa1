package kernel

import (
	"fmt"
	"iter"
)

// IRQ is an interrupt: struct irq_desc.
type IRQ struct {
	Object
	Number   int
	Chip     string // what brings it: "IO-APIC", "PCI-MSI"
	Handler  string // how it is handled: "edge", "fasteoi"; "" when nobody has set it up
	Actions  []IRQAction
	Affinity []int // CPUs that may take it
	// Depth counts how often it was disabled more than enabled, 0 when it is enabled.
	Depth  int
	Counts []uint64 // how often it came, by CPU number
	Err    error    // why some of it may be missing
}

// IRQAction is a handler of an interrupt: struct irqaction.
type IRQAction struct {
	Addr    Addr
	Name    string // of the device
	Handler Addr
	Thread  Addr // task_struct of its thread, 0 for none
}

// Bounds: of interrupts, and of the handlers of a shared one.
const (
	maxIRQs       = 1 << 20
	maxIRQActions = 4096
)

// IRQs returns every interrupt that has a descriptor, by number.
func (k *Kernel) IRQs() ([]*IRQ, error) {
	descs, err := k.irqDescs()
	if err != nil {
		return nil, err
	}
	cpus, _ := k.PossibleCPUs()
	var list []*IRQ
	for e, err := range descs {
		if err != nil {
			return list, fmt.Errorf("list the interrupts: %w", err)
		}
		at, ok := e.Pointer()
		if !ok {
			continue
		}
		if len(list) == maxIRQs {
			return list, fmt.Errorf("more than %d interrupts: %w", maxIRQs, ErrCorrupt)
		}
		o, err := k.Object("irq_desc", at)
		if err != nil {
			return list, err
		}
		irq := &IRQ{Object: o, Number: int(e.Index)}
		if err := irq.read(cpus); err != nil {
			irq.Err = fmt.Errorf("interrupt %d: %w", irq.Number, err)
		}
		list = append(list, irq)
	}
	return list, nil
}

// irqDescs iterates over the descriptors: a maple tree since 6.5 (commit 721255b9826b),
// a radix tree before, an array without CONFIG_SPARSE_IRQ.
func (k *Kernel) irqDescs() (iter.Seq2[Entry, error], error) {
	if at, err := k.Symbol("sparse_irqs"); err == nil {
		return k.MapleTree(at), nil
	}
	if at, err := k.Symbol("irq_desc_tree"); err == nil {
		return k.XArray(at), nil
	}
	table, err := k.Lookup("irq_desc")
	if err != nil {
		return nil, err
	}
	size, err := k.SizeOf("irq_desc")
	if err != nil {
		return nil, err
	}
	return func(yield func(Entry, error) bool) {
		for i := uint64(0); (i+1)*size <= min(table.Size, maxIRQs*size); i++ {
			if !yield(Entry{i, uint64(table.Addr) + i*size, &xarraySlots}, nil) {
				return
			}
		}
	}, nil
}

func (q *IRQ) read(cpus []int) error {
	var first error
	keep := func(err error) {
		if err != nil && first == nil {
			first = err
		}
	}
	k := q.k
	if chip, err := q.Pointer("irq_data.chip"); err != nil {
		keep(err)
	} else if chip != 0 {
		q.Chip, err = q.String("irq_data.chip->name")
		keep(err)
	}
	if name, err := q.Pointer("name"); err != nil {
		keep(err)
	} else if name != 0 {
		q.Handler, err = k.CString(name, 64)
		keep(err)
	}
	depth, err := q.Uint("depth")
	keep(err)
	q.Depth = int(depth)
	keep(q.readActions())
	keep(q.readAffinity())
	keep(q.readCounts(cpus))
	return first
}

func (q *IRQ) readActions() error {
	at, err := q.Pointer("action")
	if err != nil {
		return err
	}
	seen := map[Addr]bool{}
	for at != 0 {
		if seen[at] || len(q.Actions) == maxIRQActions {
			return fmt.Errorf("its handlers do not end: %w", ErrCorrupt)
		}
		seen[at] = true
		o, err := q.k.Object("irqaction", at)
		if err != nil {
			return err
		}
		a := IRQAction{Addr: at}
		if a.Handler, err = o.Pointer("handler"); err != nil {
			return err
		}
		if a.Thread, err = o.Pointer("thread"); err != nil {
			return err
		}
		if name, err := o.Pointer("name"); err != nil {
			return err
		} else if name != 0 {
			if a.Name, err = q.k.CString(name, 128); err != nil {
				return err
			}
		}
		q.Actions = append(q.Actions, a)
		if at, err = o.Pointer("next"); err != nil {
			return err
		}
	}
	return nil
}

// readAffinity reads irq_common_data.affinity, which is a pointer with
// CONFIG_CPUMASK_OFFSTACK.
func (q *IRQ) readAffinity() error {
	mask, err := q.Member("irq_common_data.affinity")
	if err != nil {
		return nil // no SMP
	}
	q.Affinity, err = q.k.cpumask(mask)
	return err
}

// readCounts reads kstat_irqs, of which each CPU has one: an unsigned int, the first
// member of struct irqstat since 6.10.
func (q *IRQ) readCounts(cpus []int) error {
	at, err := q.Pointer("kstat_irqs")
	if err != nil || at == 0 {
		return err
	}
	for _, cpu := range cpus {
		p, err := q.k.PerCPU(at, cpu)
		if err != nil {
			return err
		}
		n, err := q.k.U32(p)
		if err != nil {
			return err
		}
		for len(q.Counts) <= cpu {
			q.Counts = append(q.Counts, 0)
		}
		q.Counts[cpu] = uint64(n)
	}
	return nil
}
