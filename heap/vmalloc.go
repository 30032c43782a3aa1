package heap

import (
	"errors"
	"fmt"
	"strings"

	"inquest/kernel"
)

// Area is a vmalloc area: struct vmap_area, and the struct vm_struct that says what
// it is for.
type Area struct {
	Start, End kernel.Addr // guard page included
	VM         kernel.Addr // struct vm_struct; 0 for memory of vm_map_ram()
	Size       uint64      // bytes that are mapped, the guard page left out
	Flags      []string    // "ioremap", "alloc", "map", "usermap" …
	Caller     kernel.Addr // who asked for it
	Symbol     string      // Caller as symbol+0xoffset
	Pages      uint64      // pages that are its own
	Phys       uint64      // of ioremap()ped memory
}

// vmFlags are the bits of vm_struct.flags (include/linux/vmalloc.h).
var vmFlags = []string{"ioremap", "alloc", "map", "usermap", "dma-coherent", "uninitialized", "no-guard", "kasan", "flush-reset-perms", "map-put-pages", "allow-huge"}

const (
	vmNoGuard     = 1 << 6
	maxVmapNodes  = 1 << 10
	maxTreeDepth  = 128
	vmapNodesName = "vmap_nodes"
)

// vmapLayout is where the areas are kept.
type vmapLayout struct {
	roots      []kernel.Addr // red-black trees by va_start
	node       uint64        // vmap_area.rb_node
	start, end uint64
}

// findVmapLayout finds the trees of areas in use: vmap_area_root until 6.8, several
// vmap_nodes since (commit d093602919ad).
func (h *Heap) findVmapLayout() (*vmapLayout, error) {
	l := &vmapLayout{}
	o, err := h.k.Object("vmap_area", 0)
	if err != nil {
		return nil, err
	}
	for _, f := range []struct {
		to   *uint64
		name string
	}{{&l.node, "rb_node"}, {&l.start, "va_start"}, {&l.end, "va_end"}} {
		m, err := o.Member(f.name)
		if err != nil {
			return nil, err
		}
		*f.to = uint64(m.Addr)
	}
	if root, err := h.k.Symbol("vmap_area_root"); err == nil {
		l.roots = []kernel.Addr{root}
		return l, nil
	}
	at, err := h.k.Symbol(vmapNodesName)
	if err != nil {
		return nil, err
	}
	first, err := h.k.Pointer(at)
	if err != nil {
		return nil, err
	}
	count, err := h.k.Symbol("nr_vmap_nodes")
	if err != nil {
		return nil, err
	}
	n, err := h.k.U32(count)
	if err != nil {
		return nil, err
	}
	if n > maxVmapNodes {
		return nil, fmt.Errorf("%d vmap_nodes: %w", n, kernel.ErrCorrupt)
	}
	size, err1 := h.k.SizeOf("vmap_node")
	busy, err2 := h.k.OffsetOf("vmap_node", "busy.root")
	if err := errors.Join(err1, err2); err != nil {
		return nil, err
	}
	for i := range uint64(n) {
		l.roots = append(l.roots, first+kernel.Addr(i*size+busy))
	}
	return l, nil
}

// findArea returns the vmap_area that holds an address, 0 when none does. What was
// missing on the way comes with it.
func (h *Heap) findArea(addr kernel.Addr) (kernel.Addr, error) {
	const right, left = 8, 16 // struct rb_node
	l, err := h.areas()
	if err != nil {
		return 0, err
	}
	var first error
	for _, root := range l.roots {
		node, err := h.k.Pointer(root)
		for depth := 0; err == nil && node != 0; depth++ {
			if depth == maxTreeDepth {
				err = fmt.Errorf("tree of vmap_area at %v is too deep: %w", root, kernel.ErrCorrupt)
				break
			}
			va := node - kernel.Addr(l.node)
			var start, end kernel.Addr
			if start, err = h.k.Pointer(va + kernel.Addr(l.start)); err != nil {
				break
			}
			if end, err = h.k.Pointer(va + kernel.Addr(l.end)); err != nil {
				break
			}
			switch {
			case addr < start:
				node, err = h.k.Pointer(node + left)
			case addr >= end:
				node, err = h.k.Pointer(node + right)
			default:
				return va, nil
			}
		}
		if err != nil && first == nil {
			first = fmt.Errorf("search the vmalloc areas: %w", err)
		}
	}
	return 0, first
}

// readArea reads a vmap_area and what it is for.
func (h *Heap) readArea(va kernel.Addr) (*Area, error) {
	o, err := h.k.Object("vmap_area", va)
	if err != nil {
		return nil, err
	}
	a := &Area{}
	if a.Start, err = o.Pointer("va_start"); err != nil {
		return nil, err
	}
	if a.End, err = o.Pointer("va_end"); err != nil {
		return nil, err
	}
	a.Size = uint64(a.End - a.Start)
	if a.VM, err = o.Pointer("vm"); err != nil || a.VM == 0 {
		return a, err
	}
	vm, err := h.k.Object("vm_struct", a.VM)
	if err != nil {
		return a, err
	}
	if at, err := vm.Pointer("addr"); err != nil || at != a.Start {
		// vm shares its place with what free areas have there.
		a.VM = 0
		return a, err
	}
	flags, err := vm.Uint("flags")
	if err != nil {
		return a, err
	}
	for bit, name := range vmFlags {
		if flags>>bit&1 == 1 {
			a.Flags = append(a.Flags, name)
		}
	}
	if flags&vmNoGuard == 0 && a.Size > pageSize {
		a.Size -= pageSize
	}
	if a.Caller, err = vm.Pointer("caller"); err != nil {
		return a, err
	}
	a.Symbol = h.k.Name(a.Caller)
	if a.Pages, err = vm.Uint("nr_pages"); err != nil {
		return a, err
	}
	a.Phys, err = vm.Uint("phys_addr")
	return a, err
}

// identifyVmalloc describes an address in a vmalloc area; false when it is in none.
func (h *Heap) identifyVmalloc(m *Memory) bool {
	va, err := h.findArea(m.Addr)
	m.miss(err)
	if va == 0 {
		return h.inTaskStack(m)
	}
	if m.Area, err = h.readArea(va); m.Area == nil {
		m.miss(err)
		return false
	}
	m.miss(err)
	m.Kind = Vmalloc
	a := m.Area
	if phys, err := h.k.Translate(m.Addr); err == nil && uint64(phys)>>pageShift < h.k.Dump.MaxPFN {
		h.addPage(m, uint64(phys)>>pageShift)
	}
	if h.inTaskStack(m) || h.inIRQStack(m) || h.inChunk(m) {
		return true
	}
	offset := uint64(m.Addr - a.Start)
	if offset >= a.Size {
		m.Desc = fmt.Sprintf("in the guard page behind %s", a.describe())
	} else {
		m.Desc = into(offset) + " " + a.describe()
	}
	return true
}

func (a *Area) describe() string {
	what := "vmalloc area"
	for _, f := range a.Flags {
		switch f {
		case "ioremap":
			what = fmt.Sprintf("mapping of device memory at physical %#x", a.Phys)
		case "map":
			what = "vmap area"
		}
	}
	if a.VM == 0 {
		what = "area of vm_map_ram()"
	}
	s := fmt.Sprintf("a %s of %d bytes at %v", what, a.Size, a.Start)
	if a.Symbol != "" {
		s += ", made by " + a.Symbol
	} else if a.Caller != 0 {
		s += ", made by " + a.Caller.String()
	}
	return strings.Replace(s, "a area", "an area", 1)
}
