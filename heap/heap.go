package heap

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"inquest/kernel"
	"inquest/kernel/x86"
	"inquest/stack"
)

// Errors that callers tell apart.
var (
	// ErrNoSLUB reports a kernel whose slab allocator is not SLUB, or whose BTF does
	// not describe it.
	ErrNoSLUB = errors.New("the kernel's slab allocator is not one that is known")
	// ErrNoCache reports a name that no slab cache has.
	ErrNoCache = errors.New("no such slab cache")
)

const (
	pageShift = 12
	pageSize  = 1 << pageShift
	nullPage  = pageSize
	maxErrno  = 4095
)

// Heap knows the memory of a kernel. It is safe for concurrent use; everything
// is read when it is first needed.
type Heap struct {
	k *kernel.Kernel

	spaces  func() spaces
	image   func() []section
	pages   func() (*pageLayout, error)
	slub    func() (*slubLayout, error)
	list    func() ([]*Cache, error)
	aliases func() map[kernel.Addr][]string
	index   func() (*slabIndex, error)
	areas   func() (*vmapLayout, error)
	cpus    func() *cpuAreas
	chunks  func() []chunk
	stacks  func() map[kernel.Addr]*kernel.Task
	depot   func() (*stackDepot, error)
	unwind  func() *stack.Unwinder

	caches sync.Map // kernel.Addr -> *Cache
	traces sync.Map // kernel.Addr of a task -> *stack.Trace
	plain  encoding // of free pointers, once it is known

	heldReads atomic.Int64 // CPUs whose lists of a cache were read
}

// New prepares to look at a kernel's memory. It reads nothing.
func New(k *kernel.Kernel) *Heap {
	h := &Heap{k: k}
	h.spaces = sync.OnceValue(h.findSpaces)
	h.image = sync.OnceValue(h.findSections)
	h.pages = sync.OnceValues(h.findPageLayout)
	h.slub = sync.OnceValues(h.findSlubLayout)
	h.list = sync.OnceValues(h.listCaches)
	h.aliases = sync.OnceValue(h.readAliases)
	h.index = sync.OnceValues(h.indexSlabs)
	h.areas = sync.OnceValues(h.findVmapLayout)
	h.cpus = sync.OnceValue(h.findCPUAreas)
	h.chunks = sync.OnceValue(h.readChunks)
	h.stacks = sync.OnceValue(h.taskStacks)
	h.depot = sync.OnceValues(h.findStackDepot)
	h.unwind = sync.OnceValue(func() *stack.Unwinder { return stack.NewUnwinder(k) })
	return h
}

// Kernel returns the kernel that New was given.
func (h *Heap) Kernel() *kernel.Kernel { return h.k }

// Identify says whose memory an address is. What the dump does not hold is left
// out and noted in [Memory].Missing; an error means that nothing can be said.
//
// User addresses are those of the task that crashed, if one did; see
// [Heap.IdentifyUser] for another's.
func (h *Heap) Identify(addr kernel.Addr) (*Memory, error) {
	m := &Memory{Addr: addr, CPU: -1}
	s := h.spaces()
	pt := h.k.PageTable()
	switch {
	case !pt.Canonical(uint64(addr)):
		m.Kind, m.Desc = NonCanonical, "not a canonical address: any access to it is a general protection fault"
	case addr < nullPage:
		m.Kind, m.Desc = NullPage, "in the NULL page"
	case addr < s.userEnd:
		return h.identifyLow(addr)
	case addr > ^kernel.Addr(0)-maxErrno:
		m.Kind, m.Desc = Unmapped, fmt.Sprintf("%d as a pointer: an error code, perhaps", int64(addr))
	case addr >= startKernelMap:
		h.identifyImage(m)
	case s.vmemmap.holds(addr):
		h.identifyVmemmap(m)
	case s.direct.holds(addr):
		h.identifyDirect(m)
	case s.entry.holds(addr):
		h.identifyEntryArea(m)
	case s.vmalloc.holds(addr) && h.identifyVmalloc(m):
	default:
		h.identifyUnknown(m)
	}
	return m, nil
}

// identifyLow describes an address of the user half: memory of the task that crashed,
// or before 6.15 the name of a per-CPU variable, which are counted from zero.
func (h *Heap) identifyLow(addr kernel.Addr) (*Memory, error) {
	m := &Memory{Addr: addr, Kind: User, Desc: "user memory", CPU: -1}
	if task, _ := h.k.Crashed(); task != nil && task.MM != 0 {
		var err error
		if m, err = h.IdentifyUser(task, addr); err != nil || m.VMA != nil {
			return m, err
		}
	}
	h.inPerCPUTemplate(m)
	return m, nil
}

// identifyUnknown describes what no other method knows by what the page tables say.
func (h *Heap) identifyUnknown(m *Memory) {
	where := "no known area"
	if name := h.spaces().name(m.Addr); name != "" {
		where = name
	}
	mapping, err := h.k.PageTable().Walk(uint64(m.Addr))
	switch {
	case err == nil:
		m.Kind = FixedArea
		m.Desc = fmt.Sprintf("in %s, mapped to physical %#x", where, uint64(mapping.Phys))
	case errors.Is(err, x86.ErrNotMapped):
		m.Kind, m.Desc = Unmapped, "in "+where+"; nothing is mapped there"
	default:
		m.Kind, m.Desc = Unmapped, "in "+where
		m.miss(err)
	}
}
