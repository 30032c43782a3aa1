package kernel

import "fmt"

// VMA is an area of user memory: struct vm_area_struct.
type VMA struct {
	Object
	Start, End Addr
	Flags      uint64 // VM_*, include/linux/mm.h
	Offset     uint64 // of Start in the file, in bytes
	File       Addr   // struct file, 0 for anonymous memory
	Path       string // of the file
}

// VMAs returns the areas of the struct mm_struct at an address, in order. What could be
// read comes with the error.
func (k *Kernel) VMAs(mm Addr) ([]VMA, error) {
	o, err := k.Object("mm_struct", mm)
	if err != nil {
		return nil, err
	}
	var list []VMA
	var first error
	keep := func(err error) {
		if err != nil && first == nil {
			first = fmt.Errorf("areas of mm_struct %v: %w", mm, err)
		}
	}
	paths := map[Addr]string{}
	add := func(at Addr) bool {
		v, err := k.vma(at, paths)
		keep(err)
		// Areas come in order and do not overlap, which also ends a list with a cycle.
		if n := len(list); v.End <= v.Start || n > 0 && v.Start < list[n-1].End {
			keep(fmt.Errorf("vm_area_struct %v from %v to %v is out of order: %w", at, v.Start, v.End, ErrCorrupt))
			return false
		}
		list = append(list, v)
		return len(list) < maxWalk/16
	}
	if !o.Has("mm_mt") {
		at, err := o.Pointer("mmap") // until 6.0
		keep(err)
		next, err := k.OffsetOf("vm_area_struct", "vm_next")
		keep(err)
		for first == nil && at != 0 && add(at) {
			at, err = k.Pointer(at + Addr(next))
			keep(err)
		}
		return list, first
	}
	tree, err := o.AddrOf("mm_mt")
	if err != nil {
		return nil, err
	}
	for e, err := range k.MapleTree(tree) {
		if err != nil {
			keep(err)
			break
		}
		if at, ok := e.Pointer(); ok && !add(at) {
			break
		}
	}
	return list, first
}

func (k *Kernel) vma(at Addr, paths map[Addr]string) (VMA, error) {
	o, err := k.Object("vm_area_struct", at)
	if err != nil {
		return VMA{}, err
	}
	v := VMA{Object: o}
	if v.Start, err = o.Pointer("vm_start"); err != nil {
		return v, err
	}
	if v.End, err = o.Pointer("vm_end"); err != nil {
		return v, err
	}
	if v.Flags, err = o.Uint("vm_flags"); err != nil {
		return v, err
	}
	if v.File, err = o.Pointer("vm_file"); err != nil || v.File == 0 {
		return v, err
	}
	pages, err := o.Uint("vm_pgoff")
	if err != nil {
		return v, err
	}
	v.Offset = pages * pageSize
	if path, ok := paths[v.File]; ok {
		v.Path = path
		return v, nil
	}
	file, err := k.Object("file", v.File)
	if err != nil {
		return v, err
	}
	path, err := file.Member("f_path")
	if err != nil {
		return v, err
	}
	v.Path, err = k.PathAt(path)
	paths[v.File] = v.Path
	return v, err
}
