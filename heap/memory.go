package heap

import (
	"inquest/kernel"
	"inquest/stack"
)

// Kind says what sort of memory an address is.
type Kind int

// The kinds of memory.
const (
	Unmapped       Kind = iota // nothing is there
	Slab                       // a page of a slab cache; Memory.Slab says which object
	LargeKmalloc               // pages that kmalloc() took from the page allocator, where they are marked
	Page                       // a page of the direct map that is none of the others
	FreePage                   // a page that the page allocator has to give
	Vmalloc                    // a vmalloc, vmap or ioremap area
	TaskStack                  // the kernel stack of a task
	IRQStack                   // the interrupt stack of a CPU
	ExceptionStack             // a stack of a CPU for NMI, #DF, #MC, #DB, #VC, or for entry
	PerCPU                     // a per-CPU variable, or dynamic per-CPU memory
	KernelText
	KernelRodata
	KernelData
	KernelBSS
	Init // of the kernel, given back after boot
	ModuleText
	ModuleData
	User         // the user half of the address space
	Vmemmap      // the array of struct page
	FixedArea    // fixmap, vsyscall page, CPU entry area, ESPFIX and EFI regions
	Hole         // of the direct map, where the machine has no memory
	NonCanonical // an address that no x86-64 access can have
	NullPage     // the first page: NULL plus an offset
)

var kindNames = [...]string{
	"unmapped", "slab", "large-kmalloc", "page", "free-page", "vmalloc", "task-stack", "irq-stack", "exception-stack",
	"per-cpu", "kernel-text", "kernel-rodata", "kernel-data", "kernel-bss", "init", "module-text", "module-data",
	"user", "vmemmap", "fixed-area", "hole", "non-canonical", "null-page",
}

func (k Kind) String() string {
	if k < 0 || int(k) >= len(kindNames) {
		return "unknown"
	}
	return kindNames[k]
}

// MarshalText writes the kind as a word.
func (k Kind) MarshalText() ([]byte, error) { return []byte(k.String()), nil }

// Memory is what is known of an address.
type Memory struct {
	Addr kernel.Addr
	Kind Kind
	Desc string // one line for people

	Slab   *SlabObject // of Kind Slab; nil when only the page is known
	Page   *PageInfo   // the struct page behind the address, when it has one
	Area   *Area       // the vmalloc area that it lies in
	VMA    *VMA        // of user memory
	Symbol string      // symbol+0xoffset
	Module string
	Task   *kernel.Task // whose stack, or whose user memory
	CPU    int          // whose per-CPU memory or stack; -1 when none
	Frame  *stack.Frame // the frame of the stack that the address is in

	// Missing is what could not be read, and so is not known.
	Missing []error
}

// miss notes what could not be read.
func (m *Memory) miss(err error) {
	if err != nil {
		m.Missing = append(m.Missing, err)
	}
}
