package heap

import (
	"strings"
	"testing"

	kt "inquest/internal/kerneltest"
	"inquest/kernel"
)

// expect identifies an address and compares.
func expect(t *testing.T, h *Heap, at uint64, kind Kind, text string) *Memory {
	t.Helper()
	m := mustIdentify(t, h, at)
	if m.Kind != kind || !strings.Contains(m.Desc, text) {
		t.Errorf("%#x: %v: %s\nwant %v: %s", at, m.Kind, m.Desc, kind, text)
	}
	return m
}

func TestSpaces(t *testing.T) {
	w := newWorld(t, variant{mix: "swab"})
	w.Symbol("_etext", 'T', w.Text()+1<<20)
	w.Symbol("some_function", 'T', w.Text()+0x100)
	w.Symbol("__start_rodata", 'R', w.Text()+1<<20)
	w.Symbol("__end_rodata", 'R', w.Text()+2<<20)
	w.Symbol("_sdata", 'D', w.Text()+2<<20)
	w.Symbol("_edata", 'D', w.Text()+3<<20)
	w.Symbol("__init_begin", 'D', w.Text()+3<<20)
	w.Symbol("__init_end", 'D', w.Text()+3<<20+0x1000)
	w.Symbol("__bss_start", 'B', w.Text()+3<<20+0x1000)
	w.Symbol("__bss_stop", 'B', w.Text()+4<<20)
	h := w.open()
	expect(t, h, 0x18, NullPage, "NULL page")
	expect(t, h, 0x7f0000001000, User, "user memory")
	expect(t, h, 0x8000000000000000, NonCanonical, "not a canonical address")
	expect(t, h, ^uint64(21), Unmapped, "-22 as a pointer")
	m := expect(t, h, w.Text()+0x108, KernelText, "kernel text: some_function+0x8")
	if m.Symbol != "some_function+0x8" {
		t.Errorf("symbol %q", m.Symbol)
	}
	expect(t, h, w.Text()+1<<20+8, KernelRodata, "read-only data")
	expect(t, h, w.Text()+2<<20+8, KernelData, "data of the kernel")
	expect(t, h, w.Text()+3<<20+8, Init, "init memory")
	expect(t, h, w.Text()+3<<20+0x1008, KernelBSS, "bss of the kernel")
	m = expect(t, h, kt.ModulesBase+0x110, ModuleText, "text of module widget: widget_open+0x10 [widget]")
	if m.Module != "widget" {
		t.Errorf("module %q", m.Module)
	}
	expect(t, h, kt.ModulesBase+pageSize+0x10, ModuleData, "data of module widget: widget_state")
	expect(t, h, 0xffffffffff600000, Unmapped, "the fixmap; nothing is mapped there")
	expect(t, h, 0xffffff0000001000, Unmapped, "the ESPFIX stacks")
	expect(t, h, 0xffff800000001000, Unmapped, "no known area")
	expect(t, h, 0xffffc90000001000, Unmapped, "the vmalloc area; nothing is mapped there")
	m = expect(t, h, w.pageOf(directAt)+64+5, Vmemmap, "5 bytes into the struct page of page frame")
	if m.Page == nil || m.Page.PFN != w.first+1 {
		t.Errorf("page %+v", m.Page)
	}
	expect(t, h, w.base+0x40, Hole, "where the machine has no memory")
	expect(t, h, w.base+1<<40, Hole, "behind the machine's memory")
}

func TestPages(t *testing.T) {
	for _, types := range []bool{false, true} {
		v := variant{mix: "swab", types: types}
		w := newWorld(t, v)
		inode := kt.Struct("inode", field{Name: "i_sb", Type: kt.Ptr(kt.Struct("super_block", field{Name: "s_type", Type: kt.Ptr(kt.Struct("file_system_type", field{Name: "name", Type: kt.Ptr(kt.Char)}))}))},
			field{Name: "i_dentry", Type: kt.Struct("hlist_head", field{Name: "first", Type: kt.Ptr(kt.Void)})})
		dentry := kt.Struct("dentry", field{Name: "d_name", Type: kt.Struct("qstr", field{Name: "hash", Type: kt.Ulong}, field{Name: "name", Type: kt.Ptr(kt.Char)})}, field{Name: "d_alias", Type: kt.Ulong})
		space := kt.Struct("address_space", field{Name: "host", Type: kt.Ptr(inode)})
		w.Types(inode, dentry, space)
		buddy, table := uint64(0xffffffff&^0x80), uint64(0xffffffff&^0x200)
		if types {
			buddy, table = 240<<24, 242<<24
		}
		set := func(at uint64, member string, v uint64) { w.Set(w.pageOf(at), w.page, member, v) }

		w.next = 8
		free := w.newPages(8) // a free block of order 3
		for i := range uint64(8) {
			set(free+i*pageSize, "_refcount", 0)
		}
		set(free, "page_type", buddy)
		set(free, "private", 3)

		anon := w.newPages(1)
		set(anon, "mapping", 0xffff888000001001)
		set(anon, "index", 0x7f0)
		set(anon, "_mapcount", 0)
		set(anon, "flags", 1<<2|1<<4)

		file := w.newPages(1)
		sb, fs, in, de, as := w.Alloc(8, 8), w.Alloc(8, 8), w.Alloc(16, 8), w.Alloc(24, 8), w.Alloc(8, 8)
		w.Write64(fs, w.PutString("ext4"))
		w.Write64(sb, fs)
		w.Write64(in, sb)
		w.Write64(in+8, de+16)
		w.Write64(de+8, w.PutString("libc.so.6"))
		w.Write64(as, in)
		set(file, "mapping", as)
		set(file, "index", 5)

		tables := w.newPages(1)
		set(tables, "page_type", table)

		w.next = 24
		compound := w.newPages(4)
		set(compound, "flags", 1<<16)
		set(compound+pageSize, "compound_order", 2)
		set(compound+pageSize, "compound_head", w.pageOf(compound)+1)
		set(compound+2*pageSize, "compound_head", ^uint64(4*64-1)|1) // the mask of 7.1; the head is at a multiple of 4 pages
		unused := w.newPages(1)
		set(unused, "_refcount", 0)
		h := w.open()

		m := expect(t, h, free+5*pageSize+1, FreePage, "a free block of order 3 (32 KiB)")
		if m.Page.Order != 3 || m.Page.Head != kernel.Addr(w.pageOf(free)) {
			t.Errorf("%+v", m.Page)
		}
		m = expect(t, h, anon, Page, "anonymous user memory (page 0x7f0 of anon_vma 0xffff888000001000)")
		if p := m.Page; !p.Anon || p.MapCount != 1 || p.RefCount != 1 || strings.Join(p.Flags, "|") != "uptodate|dirty" {
			t.Errorf("%+v", p)
		}
		m = expect(t, h, file+8, Page, "page 0x5 of the cache of file libc.so.6 (ext4)")
		if m.Page.Inode != kernel.Addr(in) || m.Page.Mapping != kernel.Addr(as) {
			t.Errorf("%+v", m.Page)
		}
		expect(t, h, tables, Page, "page tables")
		expect(t, h, unused, Page, "nobody uses")
		for i := range uint64(3) {
			m = expect(t, h, compound+i*pageSize, Page, "compound page of order 2")
			if m.Page.Head != kernel.Addr(w.pageOf(compound)) {
				t.Errorf("head of page %d: %+v", i, m.Page)
			}
		}
		if types {
			set(anon, "page_type", 248<<24)
			expect(t, w.open(), anon+100, LargeKmalloc, "100 bytes into memory of kmalloc()")
		}
	}
}

// vmalloc makes the areas of a kernel: by one tree, or by several nodes.
func (w *world) vmalloc(nodes bool) (areas []uint64) {
	rb := kt.Struct("rb_node", field{Name: "__rb_parent_color", Type: kt.Ulong}, field{Name: "rb_right", Type: kt.Ptr(kt.Void)}, field{Name: "rb_left", Type: kt.Ptr(kt.Void)})
	vm := kt.Struct("vm_struct", field{Name: "next", Type: kt.Ptr(kt.Void)}, field{Name: "addr", Type: kt.Ptr(kt.Void)}, field{Name: "size", Type: kt.Ulong}, field{Name: "flags", Type: kt.Ulong},
		field{Name: "pages", Type: kt.Ptr(kt.Void)}, field{Name: "nr_pages", Type: kt.U32}, field{Name: "phys_addr", Type: kt.Ulong}, field{Name: "caller", Type: kt.Ptr(kt.Void)})
	va := kt.Struct("vmap_area", field{Name: "va_start", Type: kt.Ulong}, field{Name: "va_end", Type: kt.Ulong}, field{Name: "rb_node", Type: rb},
		field{Type: kt.Union("", field{Name: "subtree_max_size", Type: kt.Ulong}, field{Name: "vm", Type: kt.Ptr(vm)})})
	root := kt.Struct("rb_root", field{Name: "rb_node", Type: kt.Ptr(rb)})
	list := kt.Struct("rb_list", field{Name: "root", Type: root}, field{Name: "lock", Type: kt.U32})
	node := kt.Struct("vmap_node", field{Name: "lock", Type: kt.U32}, field{Name: "busy", Type: list})
	w.Types(va, node)
	w.Symbol("make_area", 'T', w.Text()+0x400)
	var links []uint64
	for i := range uint64(7) {
		a, s := w.New(va), w.New(vm)
		start := 0xffffc90000000000 + i*0x10000
		w.Set(a, va, "va_start", start)
		w.Set(a, va, "va_end", start+0x5000)
		w.Set(a, va, "vm", s)
		w.Set(s, vm, "addr", start)
		w.Set(s, vm, "size", 0x5000)
		w.Set(s, vm, "flags", 2)
		w.Set(s, vm, "nr_pages", 4)
		w.Set(s, vm, "caller", w.Text()+0x410)
		if i == 3 {
			w.Set(s, vm, "flags", 1)
			w.Set(s, vm, "phys_addr", 0xfee00000)
		}
		off, _ := kt.Offset(va, "rb_node")
		links = append(links, a+off)
		areas = append(areas, start)
	}
	if !nodes {
		r := w.Alloc(8, 8)
		w.RBTree(r, links...)
		w.Symbol("vmap_area_root", 'b', r)
		return areas
	}
	size := uint64(mustSize(node))
	off, _ := kt.Offset(node, "busy.root")
	all := w.Alloc(2*int(size), 8)
	w.RBTree(all+off, links[:3]...)
	w.RBTree(all+size+off, links[3:]...)
	w.variable("vmap_nodes", all)
	w.variable("nr_vmap_nodes", 2)
	return areas
}

func TestVmalloc(t *testing.T) {
	for _, nodes := range []bool{false, true} {
		w := newWorld(t, variant{mix: "swab"})
		areas := w.vmalloc(nodes)
		h := w.open()
		for i, start := range areas {
			text := "256 bytes into a vmalloc area of 16384 bytes"
			if i == 3 {
				text = "256 bytes into a mapping of device memory at physical 0xfee00000"
			}
			m := expect(t, h, start+0x100, Vmalloc, text)
			if a := m.Area; a == nil || a.Start != kernel.Addr(start) || a.Size != 0x4000 || a.Symbol != "make_area+0x10" || a.Pages != 4 {
				t.Errorf("%+v", a)
			}
			expect(t, h, start+0x4800, Vmalloc, "guard page")
			expect(t, h, start+0x6000, Unmapped, "vmalloc area")
		}
	}
}

func TestStacks(t *testing.T) {
	w := newWorld(t, variant{mix: "swab"})
	stackType := kt.Struct("irq_stack", field{Name: "stack", Type: kt.Array(kt.Char, 0x200)})
	w.Types(stackType)
	w.Symbol("hardirq_stack_ptr", 'd', 0x300)
	w.Symbol("irq_stack_backing_store", 'd', 0x1000)
	w.Symbol("counter", 'd', 0x310)
	w.Symbol("__per_cpu_end", 'd', 0x1800)
	irq := w.Alloc(0x400, 0x200)
	for cpu := range 2 {
		w.Write64(w.PerCPUVar(0x300, cpu), irq+0x200*uint64(cpu)+0x200)
	}
	w.variable("page_offset_base", 0) // so that the per-CPU areas are in the direct map
	areas := w.vmalloc(true)
	for i := range uint64(4) {
		w.Map(areas[2]+i*pageSize, pageSize)
	}
	w.Set(w.Tasks[2], w.Task, "stack", areas[2])
	w.Symbol("init_stack", 'D', w.read(w.Idle[0], w.Task, "stack"))
	h := w.open()
	for at, pid := range map[uint64]int{areas[2] + 0x3f00: 2, w.read(w.Idle[0], w.Task, "stack") + 8: 0} {
		m := expect(t, h, at, TaskStack, "on the kernel stack of ")
		if m.Task == nil || m.Task.PID != pid {
			t.Errorf("%+v", m.Task)
		}
	}
	expect(t, h, areas[2]+0x4100, Vmalloc, "guard page")
	if m := expect(t, h, 0x1004, PerCPU, "the per-CPU variable irq_stack_backing_store+0x4, of which every CPU"); m.CPU != -1 || m.Task != nil {
		t.Errorf("%+v", m)
	}
	a := h.cpus()
	if len(a.first) != 2 || len(a.stacks) != 4 {
		t.Fatalf("%+v", a)
	}
	for cpu := range 2 {
		m := &Memory{Addr: kernel.Addr(w.PerCPUVar(0x310+4, cpu)), CPU: -1}
		if !h.inPerCPU(m) || m.Kind != PerCPU || m.CPU != cpu || m.Symbol != "counter+0x4" {
			t.Errorf("per-CPU variable: %+v", m)
		}
		m = &Memory{Addr: kernel.Addr(w.PerCPUVar(0x1010, cpu)), CPU: -1}
		if !h.inPerCPU(m) || m.Kind != IRQStack || m.CPU != cpu {
			t.Errorf("interrupt stack in per-CPU data: %+v", m)
		}
		m = &Memory{Addr: kernel.Addr(irq + 0x200*uint64(cpu) + 8), CPU: -1}
		if !h.inIRQStack(m) || m.CPU != cpu || !strings.Contains(m.Desc, "interrupt stack of CPU") {
			t.Errorf("interrupt stack: %+v", m)
		}
	}
}

func TestEntryArea(t *testing.T) {
	for _, random := range []bool{false, true} {
		w := newWorld(t, variant{mix: "swab"})
		stacks := kt.Struct("cea_exception_stacks", field{Name: "DF_stack_guard", Type: kt.Array(kt.Char, 4096)}, field{Name: "DF_stack", Type: kt.Array(kt.Char, 8192)})
		w.Types(kt.Struct("cpu_entry_area", field{Name: "gdt", Type: kt.Array(kt.Char, 4096)}, field{Name: "entry_stack_page", Type: kt.Array(kt.Char, 4096)}, field{Name: "estacks", Type: stacks}))
		const size = 5 * 4096
		at := uint64(entryAreaStart + pageSize + size) // of CPU 1
		if random {
			w.Symbol("_cea_offset", 'd', 0x300)
			w.Write32(w.PerCPUVar(0x300, 0), 9)
			w.Write32(w.PerCPUVar(0x300, 1), 4)
			at = entryAreaStart + pageSize + 4*size
		}
		h := w.open()
		for _, tt := range []struct {
			off  uint64
			kind Kind
			text string
		}{
			{8, FixedArea, "in the entry area of CPU 1: gdt"},
			{4096, ExceptionStack, "on the entry stack of CPU 1"},
			{8192, FixedArea, "in the guard page below the double fault stack of CPU 1"},
			{3*4096 + 5, ExceptionStack, "on the double fault stack of CPU 1"},
		} {
			if m := expect(t, h, at+tt.off, tt.kind, tt.text); m.CPU != 1 {
				t.Errorf("%+v", m)
			}
		}
		expect(t, h, entryAreaStart+1<<30, Unmapped, "the CPU entry areas")
	}
}

// TestUser looks addresses up in a maple tree, as since 6.1, and in a red-black tree.
func TestUser(t *testing.T) {
	for _, maple := range []bool{true, false} {
		w := newWorld(t, variant{mix: "swab"})
		rb := kt.Struct("rb_node", field{Name: "__rb_parent_color", Type: kt.Ulong}, field{Name: "rb_right", Type: kt.Ptr(kt.Void)}, field{Name: "rb_left", Type: kt.Ptr(kt.Void)})
		name := kt.Struct("qstr", field{Name: "hash", Type: kt.Ulong}, field{Name: "name", Type: kt.Ptr(kt.Char)})
		dentry := kt.Struct("dentry", field{Name: "d_name", Type: name})
		file := kt.Struct("file", field{Name: "f_path", Type: kt.Struct("path", field{Name: "mnt", Type: kt.Ptr(kt.Void)}, field{Name: "dentry", Type: kt.Ptr(dentry)})})
		vma := kt.Struct("vm_area_struct", field{Name: "vm_start", Type: kt.Ulong}, field{Name: "vm_end", Type: kt.Ulong}, field{Name: "vm_rb", Type: rb},
			field{Name: "vm_flags", Type: kt.Ulong}, field{Name: "vm_pgoff", Type: kt.Ulong}, field{Name: "vm_file", Type: kt.Ptr(file)})
		members := []field{{Name: "start_brk", Type: kt.Ulong}, {Name: "brk", Type: kt.Ulong}, {Name: "start_stack", Type: kt.Ulong}}
		if maple {
			members = append(members, field{Name: "mm_mt", Type: kt.Struct("maple_tree", field{Name: "ma_flags", Type: kt.Ulong}, field{Name: "ma_root", Type: kt.Ptr(kt.Void)})})
		} else {
			members = append(members, field{Name: "mm_rb", Type: kt.Struct("rb_root", field{Name: "rb_node", Type: kt.Ptr(rb)})})
		}
		mm := kt.Struct("mm_struct", members...)
		w.Types(mm, vma, kt.Struct("maple_range_64", field{Name: "parent", Type: kt.Ulong}, field{Name: "pivot", Type: kt.Array(kt.Ulong, 15)}, field{Name: "slot", Type: kt.Array(kt.Ulong, 16)}),
			kt.Struct("maple_arange_64", field{Name: "parent", Type: kt.Ulong}, field{Name: "pivot", Type: kt.Array(kt.Ulong, 9)}, field{Name: "slot", Type: kt.Array(kt.Ulong, 10)}))
		m := w.New(mm)
		var vmas, links []uint64
		for i := range uint64(4) {
			v := w.New(vma)
			w.Set(v, vma, "vm_start", 0x400000+i*0x10000)
			w.Set(v, vma, "vm_end", 0x400000+i*0x10000+0x3000)
			w.Set(v, vma, "vm_flags", 5)
			vmas = append(vmas, v)
			links = append(links, v+16)
		}
		f, d := w.New(file), w.New(dentry)
		w.Set(d, dentry, "d_name.name", w.PutString("daemon"))
		w.Set(f, file, "f_path.dentry", d)
		w.Set(vmas[0], vma, "vm_file", f)
		w.Set(vmas[0], vma, "vm_pgoff", 2)
		w.Set(m, mm, "start_brk", 0x410000)
		w.Set(m, mm, "brk", 0x413000)
		w.Set(m, mm, "start_stack", 0x420800)
		w.Set(w.Tasks[1], w.Task, "mm", m)
		if maple {
			leaf := func(entries ...uint64) uint64 { // pairs of the last index and what is there
				n := w.Alloc(256, 256)
				for i := 0; i+1 < len(entries); i += 2 {
					w.Write64(n+8+uint64(i/2)*8, entries[i])
					w.Write64(n+128+uint64(i/2)*8, entries[i+1])
				}
				return n | 1<<3 | 4
			}
			a := leaf(0x3fffff, 0, 0x402fff, vmas[0], 0x40ffff, 0, 0x412fff, vmas[1], 0x41ffff, 0)
			b := leaf(0x422fff, vmas[2], 0x42ffff, 0, 0x432fff, vmas[3])
			top := w.Alloc(256, 256)
			w.Write64(top+8, 0x41ffff)
			w.Write64(top+80, a)
			w.Write64(top+88, b)
			w.Set(m, mm, "mm_mt.ma_root", top|3<<3|2)
		} else {
			off, _ := kt.Offset(mm, "mm_rb")
			w.RBTree(m+off, links...)
		}
		h := w.open()
		for _, tt := range []struct {
			at   uint64
			text string
		}{
			{0x401234, "0x1234 bytes into 0x400000-0x403000 r-xp daemon, user memory of init (pid 1)"},
			{0x412fff, "[heap]"}, {0x420000, "[stack]"}, {0x430010, "[anon]"},
			{0x403000, "not mapped in the user memory of init"}, {0x3ff000, "not mapped"}, {0x433000, "not mapped"},
		} {
			mem := expect(t, h, tt.at, User, tt.text)
			if mem.Task == nil || len(mem.Missing) > 0 {
				t.Errorf("%+v", mem)
			}
			if mem.VMA != nil && (mem.VMA.Start > kernel.Addr(tt.at) || mem.VMA.End <= kernel.Addr(tt.at)) {
				t.Errorf("%+v", mem.VMA)
			}
		}
		kthread, _ := h.Kernel().FindTask(3)
		if mem, err := h.IdentifyUser(kthread, 0x401234); err != nil || !strings.Contains(mem.Desc, "has none") {
			t.Errorf("%+v, %v", mem, err)
		}
	}
}

// TestTracks reads who allocated and freed an object, with stacks in the object itself
// and in the stack depot.
func TestTracks(t *testing.T) {
	for _, words := range []int{0, 16} {
		for _, pointer := range []bool{false, true} {
			w := newWorld(t, variant{mix: "swab", flags: 0x10000, tracks: words})
			w.Symbol("alloc_widget", 'T', w.Text()+0x100)
			w.Symbol("caller_of_it", 'T', w.Text()+0x200)
			c := w.addCache("widget", 512, 200)
			w.Set(c, w.cache, "offset", 200) // behind the object
			slab := w.addSlab(c, 7, 1)
			at := slab + 208 // of the track: behind the free pointer
			w.Write64(at, w.Text()+0x110)
			if words > 0 {
				w.Write64(at+8, w.Text()+0x110)
				w.Write64(at+16, w.Text()+0x220)
				w.Write32(at+8+8*uint64(words), 1)
				w.Write32(at+12+8*uint64(words), 55)
				w.Write64(at+16+8*uint64(words), 4294892296)
			} else {
				parts := kt.Union("handle_parts", field{Name: "handle", Type: kt.U32}, field{Type: kt.Struct("",
					field{Name: "pool_index_plus_1", Type: kt.U32, Bits: 17}, field{Name: "offset", Type: kt.U32, Bits: 10}, field{Name: "extra", Type: kt.U32, Bits: 5})})
				record := kt.Struct("stack_record", field{Name: "hash", Type: kt.U32}, field{Name: "size", Type: kt.U32}, field{Name: "entries", Type: kt.Array(kt.Ulong, 0)})
				w.Types(parts, record)
				pool := w.Alloc(256, 16)
				w.Write32(pool+0x20+4, 2)
				w.Write64(pool+0x28, w.Text()+0x110)
				w.Write64(pool+0x30, w.Text()+0x220)
				array := w.Alloc(16*8, 8)
				w.Write64(array+3*8, pool)
				if pointer {
					w.variable("stack_pools", array)
					w.variable("behind_it", 0)
				} else {
					w.Symbol("stack_pools", 'b', array)
				}
				w.Write32(at+8, 4|2<<17)
				w.Write32(at+12, 1)
				w.Write32(at+16, 55)
				w.Write64(at+24, 4294892296)
			}
			h := w.open()
			o := mustIdentify(t, h, slab).Slab
			if o == nil || o.Alloc == nil || o.FreeTrack != nil {
				t.Fatalf("%+v", o)
			}
			k := h.Kernel()
			if tr := o.Alloc; k.Name(tr.Caller) != "alloc_widget+0x10" || tr.CPU != 1 || tr.PID != 55 || tr.Jiffies != 4294892296 || len(tr.Stack) != 2 || k.Name(tr.Stack[1]) != "caller_of_it+0x20" {
				t.Errorf("%d words: %+v", words, tr)
			}
		}
	}
}

func TestJudgePoison(t *testing.T) {
	c := &Cache{ObjectSize: 12, Inuse: 16, Size: 32, RedLeftPad: 8, HasRedZone: true, HasPoison: true}
	free := []byte(strings.Repeat("\xbb", 8) + strings.Repeat("\x6b", 11) + "\xa5" + strings.Repeat("\xbb", 4))
	used := []byte(strings.Repeat("\xcc", 8) + strings.Repeat("\x00", 12) + strings.Repeat("\xcc", 4))
	change := func(b []byte, at int, v byte) []byte {
		b = append([]byte{}, b...)
		b[at] = v
		return b
	}
	for _, tt := range []struct {
		b     []byte
		state ObjectState
		want  string
	}{
		{free, Free, "left red zone, right red zone, poison, end of poison intact"},
		{used, Allocated, "left red zone, right red zone intact"},
		{change(free, 10, 0x42), Free, "poison overwritten: 42 instead of 0x6b at offset 2"},
		{change(change(free, 10, 0x42), 12, 0x43), Free, "poison overwritten: 42 6b 43 instead of 0x6b at offset 2"},
		{change(used, 20, 0), Allocated, "right red zone overwritten: 00 instead of 0xcc at offset 12"},
		{change(used, 7, 1), Allocated, "left red zone overwritten: 01 instead of 0xcc at offset -1"},
		{change(free, 19, 0x6b), Free, "end of poison overwritten: 6b instead of 0xa5 at offset 11"},
		{free[:10], Free, "left red zone intact"},
		{nil, Free, ""},
	} {
		if got := judgePoison(tt.b, c, tt.state); got != tt.want {
			t.Errorf("%x: %q, want %q", tt.b, got, tt.want)
		}
	}
}
