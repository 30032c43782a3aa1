package heap

import (
	"errors"
	"fmt"
	"strings"

	"inquest/kernel"
)

// cpuAreas are the pieces of memory that each CPU has for itself.
type cpuAreas struct {
	first  []cpuStack // the first chunk: static variables, then dynamic memory; kind PerCPU
	static uint64     // bytes of it that are static variables
	start  kernel.Addr
	stacks []cpuStack
	entry  []cpuStack // parts of the CPU entry areas
}

// findCPUAreas finds what each CPU has.
func (h *Heap) findCPUAreas() *cpuAreas {
	a := &cpuAreas{}
	cpus, _ := h.k.PossibleCPUs()
	start, err1 := h.k.Symbol("__per_cpu_start")
	end, err2 := h.k.Symbol("__per_cpu_end")
	if err1 == nil && err2 == nil && end > start {
		a.start, a.static = start, uint64(end-start)
		size := max(h.firstChunk(), a.static)
		for _, cpu := range cpus {
			if at, err := h.k.PerCPU(start, cpu); err == nil && at > startOfKernel {
				a.first = append(a.first, cpuStack{span: spanOf(at, kernel.Addr(size)), cpu: cpu, kind: PerCPU})
			}
		}
	}
	a.stacks = h.irqStacks(cpus)
	h.findEntryAreas(a, cpus)
	return a
}

// firstChunk returns how many bytes a CPU has in the first chunk: pcpu_first_chunk
// describes the dynamic part, which ends it. What was set aside beyond that was given
// back to the page allocator (pcpu_embed_first_chunk() of mm/percpu.c).
func (h *Heap) firstChunk() uint64 {
	base, err1 := h.k.Symbol("pcpu_base_addr")
	at, err2 := h.k.Symbol("pcpu_first_chunk")
	if errors.Join(err1, err2) != nil {
		return 0
	}
	start, err1 := h.k.Pointer(base)
	first, err2 := h.k.Pointer(at)
	if errors.Join(err1, err2) != nil {
		return 0
	}
	o, err := h.k.Object("pcpu_chunk", first)
	if err != nil {
		return 0
	}
	dynamic, err1 := o.Pointer("base_addr")
	pages, err2 := o.Uint("nr_pages")
	const most = 1 << 30
	if errors.Join(err1, err2) != nil || dynamic < start || uint64(dynamic-start) > most || pages > most>>pageShift {
		return 0
	}
	return uint64(dynamic-start) + pages<<pageShift
}

// variable32 reads an int variable, or returns something else.
func (h *Heap) variable32(name string, otherwise uint64) uint64 {
	at, err := h.k.Symbol(name)
	if err != nil {
		return otherwise
	}
	v, err := h.k.U32(at)
	if err != nil || v > 1<<30 {
		return otherwise
	}
	return uint64(v)
}

// findEntryAreas finds the members of each CPU's struct cpu_entry_area. They follow
// each other by CPU number, or since 6.2 (commit 97e3d26b5e5f) in random order, which
// the per-CPU variable _cea_offset has.
func (h *Heap) findEntryAreas(a *cpuAreas, cpus []int) {
	const first = entryAreaStart + pageSize // CPU_ENTRY_AREA_PER_CPU
	o, err := h.k.Object("cpu_entry_area", 0)
	if err != nil {
		return
	}
	size, err := o.Size()
	if err != nil || size == 0 || size > 1<<24 {
		return
	}
	offset, offsetErr := h.k.Symbol("_cea_offset")
	for _, cpu := range cpus {
		place := uint64(cpu)
		if offsetErr == nil {
			at, err := h.k.PerCPU(offset, cpu)
			if err != nil {
				continue
			}
			v, err := h.k.U32(at)
			if err != nil {
				continue
			}
			place = uint64(v)
		}
		base := kernel.Addr(first + place*size)
		h.addEntryArea(a, o, base, cpu)
		a.entry = append(a.entry, cpuStack{span: spanOf(base, kernel.Addr(size)), cpu: cpu})
	}
}

// stackNames are the members of struct cea_exception_stacks, without _stack.
var stackNames = map[string]string{
	"DF": "double fault stack", "NMI": "NMI stack", "DB": "debug exception stack", "DB1": "debug exception stack",
	"MCE": "machine check stack", "VC": "#VC stack", "VC2": "second #VC stack",
}

func (h *Heap) addEntryArea(a *cpuAreas, o kernel.Object, base kernel.Addr, cpu int) {
	for _, f := range kernel.Fields(o.Type) {
		m, err := o.Member(f.Name)
		if err != nil || f.Name == "" {
			continue
		}
		size, err := m.Size()
		if err != nil {
			continue
		}
		at := base + m.Addr
		switch f.Name {
		case "estacks", "exception_stacks":
			for _, f := range kernel.Fields(m.Type) {
				part, err := m.Member(f.Name)
				if err != nil {
					continue
				}
				size, err := part.Size()
				if err != nil {
					continue
				}
				short, guard := strings.CutSuffix(f.Name, "_stack_guard")
				short = strings.TrimSuffix(short, "_stack")
				name := stackNames[short]
				if name == "" {
					name = strings.ReplaceAll(f.Name, "_", " ")
				}
				if guard {
					name += " guard"
				}
				a.stacks = append(a.stacks, cpuStack{spanOf(base+part.Addr, kernel.Addr(size)), cpu, ExceptionStack, name})
			}
		case "entry_stack_page":
			a.stacks = append(a.stacks, cpuStack{spanOf(at, kernel.Addr(size)), cpu, ExceptionStack, "entry stack"})
		default:
			a.entry = append(a.entry, cpuStack{span: spanOf(at, kernel.Addr(size)), cpu: cpu, name: f.Name})
		}
	}
}

// inPerCPUTemplate describes an address of a per-CPU symbol: what every CPU has its own
// copy of; false when it is none.
func (h *Heap) inPerCPUTemplate(m *Memory) bool {
	a := h.cpus()
	if m.Addr < a.start || uint64(m.Addr-a.start) >= a.static {
		return false
	}
	m.Kind, m.Desc, m.Task = PerCPU, "the template of per-CPU data", nil
	if m.Symbol = h.perCPUName(m.Addr); m.Symbol != "" {
		m.Desc = fmt.Sprintf("the per-CPU variable %s, of which every CPU has its own", m.Symbol)
	}
	return true
}

// perCPUName returns the symbol that a per-CPU address lies in.
func (h *Heap) perCPUName(a kernel.Addr) string {
	syms, err := h.k.Symbols()
	if err != nil {
		return ""
	}
	sym, ok := syms.Find(a)
	if !ok {
		return ""
	}
	return plus(sym.Name, uint64(a-sym.Addr))
}

// inPerCPU describes an address in the first chunk of per-CPU memory, which holds the
// static variables; false when it is not in there.
func (h *Heap) inPerCPU(m *Memory) bool {
	a := h.cpus()
	for _, unit := range a.first {
		if !unit.holds(m.Addr) {
			continue
		}
		if h.inIRQStack(m) {
			return true
		}
		m.Kind, m.CPU = PerCPU, unit.cpu
		off := uint64(m.Addr - unit.start)
		if off >= a.static {
			m.Desc = fmt.Sprintf("dynamic per-CPU memory of CPU %d, %v in CPU-independent terms", unit.cpu, a.start+kernel.Addr(off))
			return true
		}
		m.Desc = fmt.Sprintf("per-CPU data of CPU %d", unit.cpu)
		if m.Symbol = h.perCPUName(a.start + kernel.Addr(off)); m.Symbol != "" {
			m.Desc = fmt.Sprintf("per-CPU variable of CPU %d: %s", unit.cpu, m.Symbol)
		}
		return true
	}
	return false
}

// plus writes a place in something that has a name.
func plus(name string, offset uint64) string {
	if offset == 0 {
		return name
	}
	return fmt.Sprintf("%s+%#x", name, offset)
}

// chunk is a struct pcpu_chunk: per-CPU memory for all CPUs.
type chunk struct{ addr, base kernel.Addr }

// readChunks lists the chunks of dynamic per-CPU memory (mm/percpu-internal.h).
func (h *Heap) readChunks() []chunk {
	const maxSlots, maxChunks = 64, 1 << 14
	at, err := h.k.Symbol("pcpu_chunk_lists")
	if err != nil {
		if at, err = h.k.Symbol("pcpu_slot"); err != nil { // until 5.8
			return nil
		}
	}
	lists, err := h.k.Pointer(at)
	if err != nil {
		return nil
	}
	var all []chunk
	for slot := range min(h.variable32("pcpu_nr_slots", 0), maxSlots) {
		objects, err := h.k.Structs("pcpu_chunk", "list", lists+kernel.Addr(16*slot))
		if err != nil {
			return all
		}
		for o, err := range objects {
			if err != nil || len(all) == maxChunks {
				break
			}
			if base, err := o.Pointer("base_addr"); err == nil && base != 0 {
				all = append(all, chunk{o.Addr, base})
			}
		}
	}
	return all
}

// inChunk describes an address in a later chunk of per-CPU memory, which lies in the
// vmalloc area; false when it is in none.
func (h *Heap) inChunk(m *Memory) bool {
	if m.Area == nil || !strings.HasPrefix(m.Area.Symbol, "pcpu_get_vm_areas") {
		return false
	}
	m.Kind, m.Desc = PerCPU, "dynamic per-CPU memory"
	table, err := h.k.Symbol("pcpu_unit_offsets")
	if err != nil {
		return true
	}
	offsets, err := h.k.Pointer(table)
	if err != nil {
		return true
	}
	size := kernel.Addr(h.variable32("pcpu_unit_size", 0))
	cpus, _ := h.k.PossibleCPUs()
	for _, c := range h.chunks() {
		for _, cpu := range cpus {
			off, err := h.k.U64(offsets + kernel.Addr(8*cpu))
			if err != nil {
				break
			}
			if unit := c.base + kernel.Addr(off); m.Addr >= unit && m.Addr-unit < size {
				m.CPU = cpu
				m.Desc = fmt.Sprintf("dynamic per-CPU memory of CPU %d, in the chunk %v", cpu, c.addr)
				if base, err := h.k.Symbol("pcpu_base_addr"); err == nil {
					if first, err := h.k.Pointer(base); err == nil {
						m.Desc += fmt.Sprintf(", %v in CPU-independent terms", c.base-first+h.cpus().start+(m.Addr-unit))
					}
				}
				return true
			}
		}
	}
	return true
}
