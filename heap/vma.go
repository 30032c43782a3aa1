package heap

import (
	"fmt"
	"strings"

	"inquest/kernel"
)

// VMA is a piece of a task's user memory: struct vm_area_struct.
type VMA struct {
	Addr       kernel.Addr
	Start, End kernel.Addr
	Flags      string // as /proc/PID/maps has them: "rw-p"
	Offset     uint64 // of Start in the file, in bytes
	File       string // name of the mapped file; "" when there is none
	Name       string // "[heap]", "[stack]" …; "" for others
}

// IdentifyUser says what is at an address of a task's user memory.
func (h *Heap) IdentifyUser(task *kernel.Task, addr kernel.Addr) (*Memory, error) {
	m := &Memory{Addr: addr, Kind: User, CPU: -1, Task: task}
	whose := fmt.Sprintf("user memory of %s (pid %d)", task.Comm, task.PID)
	if task.MM == 0 {
		m.Desc = fmt.Sprintf("user memory, of which %s (pid %d) has none", task.Comm, task.PID)
		return m, nil
	}
	at, err := h.findVMA(task.MM, addr)
	if err != nil {
		m.Desc = whose
		m.miss(err)
		return m, nil
	}
	if at == 0 {
		m.Desc = "not mapped in the " + whose
		return m, nil
	}
	v, err := h.readVMA(task.MM, at)
	m.miss(err)
	if v == nil {
		m.Desc = whose
		return m, nil
	}
	m.VMA = v
	name := v.File
	if name == "" {
		name = v.Name
	}
	m.Desc = fmt.Sprintf("%#x bytes into %v-%v %s%s, %s", uint64(addr-v.Start), v.Start, v.End, v.Flags, prefixed(" ", name), whose)
	return m, nil
}

// findVMA returns the vm_area_struct that holds an address, 0 when none does: from
// the maple tree mm_mt since 6.1, from the red-black tree mm_rb before.
func (h *Heap) findVMA(mm, addr kernel.Addr) (kernel.Addr, error) {
	o, err := h.k.Object("mm_struct", mm)
	if err != nil {
		return 0, err
	}
	var vma kernel.Addr
	if o.Has("mm_mt.ma_root") {
		root, err := o.Uint("mm_mt.ma_root")
		if err != nil {
			return 0, fmt.Errorf("read mm_struct at %v: %w", mm, err)
		}
		if vma, err = h.mapleLoad(root, addr); err != nil || vma == 0 {
			return 0, err
		}
	} else if vma, err = h.rbVMA(o, addr); err != nil || vma == 0 {
		return 0, err
	}
	v, err := h.k.Object("vm_area_struct", vma)
	if err != nil {
		return 0, err
	}
	start, err := v.Pointer("vm_start")
	if err != nil {
		return 0, fmt.Errorf("read vm_area_struct at %v: %w", vma, err)
	}
	end, err := v.Pointer("vm_end")
	if err != nil {
		return 0, fmt.Errorf("read vm_area_struct at %v: %w", vma, err)
	}
	if addr < start || addr >= end {
		return 0, nil
	}
	return vma, nil
}

// rbVMA searches mm_rb.
func (h *Heap) rbVMA(mm kernel.Object, addr kernel.Addr) (kernel.Addr, error) {
	const right, left = 8, 16 // struct rb_node
	node, err := mm.Pointer("mm_rb.rb_node")
	for depth := 0; err == nil && node != 0; depth++ {
		if depth == maxTreeDepth {
			return 0, fmt.Errorf("tree of vm_area_struct of %v is too deep: %w", mm.Addr, kernel.ErrCorrupt)
		}
		var v kernel.Object
		if v, err = h.k.ContainerOf(node, "vm_area_struct", "vm_rb"); err != nil {
			break
		}
		var start, end kernel.Addr
		if start, err = v.Pointer("vm_start"); err != nil {
			break
		}
		if end, err = v.Pointer("vm_end"); err != nil {
			break
		}
		switch {
		case addr < start:
			node, err = h.k.Pointer(node + left)
		case addr >= end:
			node, err = h.k.Pointer(node + right)
		default:
			return v.Addr, nil
		}
	}
	return 0, err
}

// mapleLoad looks an index up in a maple tree (lib/maple_tree.c). A node's type is
// in bits 3 to 6 of its address, and bit 1 in the root tells it from a single entry;
// slot i of a node goes up to pivot i, the last one to the end of the node. All that
// inner nodes hold are nodes.
func (h *Heap) mapleLoad(root uint64, index kernel.Addr) (kernel.Addr, error) {
	const (
		leaf64, arange64 = 1, 3 // enum maple_type; 2 is range64
		nodeSize         = 256
		maxDepth         = 16
		reserved         = 4096 // below are values, XA_ZERO_ENTRY and the like
	)
	entry := root
	inner := root&3 == 2
	for depth := 0; inner && entry > reserved; depth++ {
		if depth == maxDepth {
			return 0, fmt.Errorf("maple tree is more than %d deep: %w", maxDepth, kernel.ErrCorrupt)
		}
		node, typ := kernel.Addr(entry&^(nodeSize-1)), entry>>3&15
		if typ < leaf64 || typ > arange64 {
			return 0, fmt.Errorf("maple node %v of type %d: %w", node, typ, kernel.ErrCorrupt)
		}
		name := "maple_range_64"
		if typ == arange64 {
			name = "maple_arange_64"
		}
		pivotAt, err := h.k.OffsetOf(name, "pivot")
		if err != nil {
			return 0, err
		}
		slotAt, err := h.k.OffsetOf(name, "slot")
		if err != nil {
			return 0, err
		}
		b, err := h.k.Slice(node, nodeSize)
		if err != nil {
			return 0, fmt.Errorf("read maple node: %w", err)
		}
		pivots := (slotAt - pivotAt) / 8
		if pivotAt > nodeSize || slotAt < pivotAt || slotAt+8*(pivots+1) > nodeSize {
			return 0, fmt.Errorf("%s: %w", name, kernel.ErrCorrupt)
		}
		i := uint64(0)
		for ; i < pivots; i++ {
			p := le.Uint64(b[pivotAt+8*i:])
			if uint64(index) <= p || p == 0 && i > 0 { // a pivot of 0 is not in use
				break
			}
		}
		entry = le.Uint64(b[slotAt+8*i:])
		inner = typ != leaf64
	}
	if entry < reserved || entry&3 != 0 {
		return 0, nil
	}
	return kernel.Addr(entry), nil
}

// readVMA reads a vm_area_struct.
func (h *Heap) readVMA(mm, at kernel.Addr) (*VMA, error) {
	o, err := h.k.Object("vm_area_struct", at)
	if err != nil {
		return nil, err
	}
	v := &VMA{Addr: at}
	if v.Start, err = o.Pointer("vm_start"); err != nil {
		return nil, err
	}
	if v.End, err = o.Pointer("vm_end"); err != nil {
		return nil, err
	}
	flags, err := o.Uint("vm_flags")
	if err != nil {
		return v, err
	}
	v.Flags = mapFlags(flags)
	pgoff, err := o.Uint("vm_pgoff")
	if err != nil {
		return v, err
	}
	file, err := o.Pointer("vm_file")
	if err != nil {
		return v, err
	}
	if file != 0 {
		v.Offset = pgoff << pageShift
		f, err := h.k.Object("file", file)
		if err != nil {
			return v, err
		}
		v.File, err = f.String("f_path.dentry->d_name.name")
		return v, err
	}
	v.Name = h.specialVMA(mm, v)
	return v, nil
}

// mapFlags writes VM_READ, VM_WRITE, VM_EXEC and VM_SHARED as /proc/PID/maps does.
func mapFlags(flags uint64) string {
	var s strings.Builder
	for bit, c := range "rwx" {
		if flags>>bit&1 == 1 {
			s.WriteRune(c)
		} else {
			s.WriteByte('-')
		}
	}
	if flags>>3&1 == 1 {
		return s.String() + "s"
	}
	return s.String() + "p"
}

// specialVMA names the parts of user memory that have no file.
func (h *Heap) specialVMA(mm kernel.Addr, v *VMA) string {
	o, err := h.k.Object("mm_struct", mm)
	if err != nil {
		return ""
	}
	at := func(member string) kernel.Addr { a, _ := o.Pointer(member); return a }
	switch {
	case v.Start <= at("brk") && v.End >= at("start_brk") && at("brk") != 0:
		return "[heap]"
	case v.Start <= at("start_stack") && v.End > at("start_stack"):
		return "[stack]"
	case at("context.vdso") != 0 && v.Start <= at("context.vdso") && v.End > at("context.vdso"):
		return "[vdso]"
	}
	return "[anon]"
}
