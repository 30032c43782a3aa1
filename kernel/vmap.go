package kernel

import (
	"cmp"
	"fmt"
	"slices"
)

// VmapArea is an area of the vmalloc space that is in use: struct vmap_area.
type VmapArea struct {
	Addr       Addr
	VM         Addr // struct vm_struct, 0 for vm_map_ram()
	Start, End Addr
	Pages      uint64
	Caller     Addr // who asked for it
}

// VmapAreas returns the areas by address. What could be read comes with the error.
func (k *Kernel) VmapAreas() ([]VmapArea, error) {
	heads, err := k.vmapHeads()
	if err != nil {
		return nil, err
	}
	var list []VmapArea
	var first error
	keep := func(err error) {
		if err != nil && first == nil {
			first = fmt.Errorf("list the vmalloc areas: %w", err)
		}
	}
	for _, head := range heads {
		areas, err := k.Structs("vmap_area", "list", head)
		if err != nil {
			return nil, err
		}
		for o, err := range areas {
			if err == nil && len(list) == maxWalk/4 {
				err = fmt.Errorf("more than %d: %w", maxWalk/4, ErrCorrupt)
			}
			if err != nil {
				keep(err)
				break
			}
			a, err := k.vmapArea(o)
			keep(err)
			list = append(list, a)
		}
	}
	slices.SortStableFunc(list, func(a, b VmapArea) int { return cmp.Compare(a.Start, b.Start) })
	return list, first
}

// vmapHeads returns the lists of areas: one for each of vmap_nodes since 6.9 (commit
// d093602919ad), vmap_area_list before.
func (k *Kernel) vmapHeads() ([]Addr, error) {
	if at, err := k.Symbol("vmap_area_list"); err == nil {
		return []Addr{at}, nil
	}
	table, err := k.Symbol("vmap_nodes")
	if err != nil {
		return nil, err
	}
	if table, err = k.Pointer(table); err != nil {
		return nil, fmt.Errorf("read vmap_nodes: %w", err)
	}
	counter, err := k.Symbol("nr_vmap_nodes")
	if err != nil {
		return nil, err
	}
	n, err := k.U32(counter)
	if err != nil {
		return nil, fmt.Errorf("read nr_vmap_nodes: %w", err)
	}
	size, err := k.SizeOf("vmap_node")
	if err != nil {
		return nil, err
	}
	head, err := k.OffsetOf("vmap_node", "busy.head")
	if err != nil {
		return nil, err
	}
	var heads []Addr
	for i := range uint64(min(n, maxCPUs)) {
		heads = append(heads, table+Addr(i*size+head))
	}
	return heads, nil
}

func (k *Kernel) vmapArea(o Object) (VmapArea, error) {
	a := VmapArea{Addr: o.Addr}
	var err error
	if a.Start, err = o.Pointer("va_start"); err != nil {
		return a, err
	}
	if a.End, err = o.Pointer("va_end"); err != nil {
		return a, err
	}
	if a.VM, err = o.Pointer("vm"); err != nil || a.VM == 0 {
		return a, err
	}
	vm, err := k.Object("vm_struct", a.VM)
	if err != nil {
		return a, err
	}
	if a.Pages, err = vm.Uint("nr_pages"); err != nil {
		return a, err
	}
	a.Caller, err = vm.Pointer("caller")
	return a, err
}
