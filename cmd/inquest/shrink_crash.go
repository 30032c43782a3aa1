package main

import (
	"errors"
	"fmt"
	"math/bits"

	"inquest/heap"
	"inquest/kernel"
	"inquest/stack"
)

// crashReader reads what crash(8) reads when it opens a dump, and for bt, log, ps, mod,
// sys, kmem -s and foreach bt, which is more than Inquest needs. Much of it crash cannot
// do without: a page that is missing there ends it. What it reads is listed by crash -d8;
// the list here is that of version 9 on kernels from 5.10 to 6.12, by the names of what
// lies in those pages. Nothing here is an error: what a kernel does not have, crash does
// not ask it for.
type crashReader struct {
	k    *kernel.Kernel
	cpus []int
	room int // pages that may still be read
}

// maxCrashPages bounds what a corrupt dump can make of the sizes and numbers it claims:
// 4 GiB.
const maxCrashPages = 1 << 20

// readForCrash reads all of it.
func readForCrash(k *kernel.Kernel) {
	r := &crashReader{k: k, room: maxCrashPages}
	r.cpus, _ = k.PossibleCPUs()
	r.variables()
	r.perCPU()
	r.memoryModel()
	r.pids()
	r.caches()
	r.log()
	traces := r.tasks()
	r.modules(traces)
}

// crashVariables are read whole, and their pages must be there.
var crashVariables = []string{
	"linux_banner", "init_uts_ns", "xen_start_info", "boot_cpu_data", "cpu_khz", "nr_irqs",
	"__cpu_possible_mask", "__cpu_present_mask", "__cpu_online_mask", "__cpu_active_mask",
	"nr_cpu_ids", "__per_cpu_offset", "page_offset_base", "vmalloc_base", "vmemmap_base",
	"shadow_timekeeper", "jiffies_64", "avenrun", "crashing_cpu", "crash_notes",
	"taint_flags", "tainted_mask", "klp_transition_patch",
	"idt_table", "mt_slots", "mt_pivots", "lookup_num_blocks", "orc_fp_entry",
	"high_memory", "_totalram_pages", "zero_pfn", "huge_zero_pfn", "nr_swapfiles",
	"node_states", "node_data", "mem_section", "kmem_cache", "slab_caches",
	"init_task", "arch_task_struct_size", "nr_threads", "modules",
}

// crashTables are variables with pointers to names, which are read as well.
var crashTables = []string{"pv_info", "pageflag_names", "task_state_array", "e820_table"}

// crashFunctions are those whose first instructions tell whether the kernel was built
// with frame pointers.
var crashFunctions = []string{
	"sys_open", "sys_fork", "sys_read", "sys_write", "__x64_sys_open", "__x64_sys_fork",
	"__x64_sys_read", "do_futex", "do_fork", "_do_fork", "vfs_read", "__schedule",
}

// crashDisassembled are those in which crash looks for the call of __switch_to. It has
// gdb print as many instructions as the function has bytes, most of them behind its end.
var crashDisassembled = []string{"schedule", "__schedule"}

const instruction = 6 // bytes, more than the mean

func (r *crashReader) variables() {
	// The size of a symbol is the distance to the next, which may lie far away.
	const maxVariable, maxTable = 64 << 10, 1 << 10
	for _, name := range crashVariables {
		if sym, err := r.k.Lookup(name); err == nil {
			r.touch(sym.Addr, min(max(sym.Size, 8), maxVariable))
		}
	}
	for _, name := range crashTables {
		if sym, err := r.k.Lookup(name); err == nil {
			r.touchPointees(sym.Addr, min(max(sym.Size, 8), maxTable))
		}
	}
	for _, name := range crashFunctions {
		if sym, err := r.k.Lookup(name); err == nil {
			r.touch(sym.Addr, 16)
		}
	}
	for _, name := range crashDisassembled {
		if sym, err := r.k.Lookup(name); err == nil {
			r.touch(sym.Addr, min(sym.Size*instruction, maxVariable))
		}
	}
}

// crashPerCPU are the per-CPU variables, by symbol and type; without one it is a word.
var crashPerCPU = [][2]string{
	{"cpu_number", ""},
	{"current_task", ""},
	{"pcpu_hot", "pcpu_hot"}, // 6.2 to 6.14, of these two and others
	{"runqueues", "rq"},
	{"nmi_print_seq", "printk_safe_seq_buf"}, // until 5.14
	{"safe_print_seq", "printk_safe_seq_buf"},
}

// crashIRQStacks are the per-CPU variables that hold the top of the stack for interrupts,
// and the member that does.
var crashIRQStacks = [][2]string{
	{"hardirq_stack_ptr", ""},
	{"irq_stack_ptr", ""}, // until 5.1
	{"pcpu_hot", "hardirq_stack_ptr"},
}

// perCPU reads what each CPU has: its variables, and its stacks for interrupts and for
// exceptions. The latter lie in the CPU entry area, whose page tables nobody else needs.
func (r *crashReader) perCPU() {
	notes, _ := r.k.Symbol("crash_notes")
	if notes != 0 {
		notes, _ = r.k.Pointer(notes) // note_buf_t __percpu *
	}
	for _, cpu := range r.cpus {
		for _, v := range crashPerCPU {
			size := uint64(8)
			if v[1] != "" {
				size, _ = r.k.SizeOf(v[1])
			}
			if at, ok := r.perCPUAddr(v[0], cpu); ok {
				r.touch(at, size)
			}
		}
		if at, err := r.k.PerCPU(notes, cpu); err == nil && notes != 0 {
			r.touch(at, 512)
		}
		for _, v := range crashIRQStacks {
			at, ok := r.perCPUAddr(v[0], cpu)
			if ok && v[1] != "" {
				off, err := r.k.OffsetOf(v[0], v[1])
				at, ok = at+kernel.Addr(off), err == nil
			}
			if !ok {
				continue
			}
			if top, err := r.k.Pointer(at); err == nil {
				base := top - kernel.Addr(r.k.StackSize())
				r.touch(base, r.k.StackSize()+8)
				r.returns(base, r.k.StackSize())
			}
		}
		if tss, err := r.k.PerCPUVar("cpu_tss_rw", "tss_struct", cpu); err == nil {
			r.exceptionStacks(tss)
		}
	}
}

func (r *crashReader) perCPUAddr(symbol string, cpu int) (kernel.Addr, bool) {
	at, err := r.k.Symbol(symbol)
	if err != nil {
		return 0, false
	}
	at, err = r.k.PerCPU(at, cpu)
	return at, err == nil
}

// exceptionStacks reads the stacks that a CPU's TSS names.
func (r *crashReader) exceptionStacks(tss kernel.Object) {
	ist, err := tss.Member("x86_tss.ist")
	if err != nil {
		return
	}
	r.touchObject(ist)
	size := uint64(8 << 10) // EXCEPTION_STKSZ
	if o, err := r.k.Object("cea_exception_stacks", 0); err == nil {
		if m, err := o.Member("NMI_stack"); err == nil {
			size, _ = m.Size()
		}
	}
	const stacks = 7
	for i := range stacks {
		o, err := ist.Index(i)
		if err != nil {
			return
		}
		if top, err := o.Uint(""); err == nil && top > size {
			r.touch(kernel.Addr(top-size), size+8)
			r.returns(kernel.Addr(top-size), size)
		}
	}
}

// returns reads the code of whatever looks like a return address on a stack. crash shows
// how the kernel panicked, and how other CPUs were stopped by an NMI; Inquest shows what
// they did before.
func (r *crashReader) returns(from kernel.Addr, size uint64) {
	for at := from; at < from+kernel.Addr(size); at += 8 {
		if pc, err := r.k.Pointer(at); err == nil && r.k.Text(pc) {
			r.code(pc)
		}
	}
}

// memoryModel reads the nodes, their zones, and the sections of the memory map.
func (r *crashReader) memoryModel() {
	if nodes, err := r.k.Lookup("node_data"); err == nil {
		const maxNodes = 1024
		for i := range min(nodes.Size/8, maxNodes) {
			if at, err := r.k.Pointer(nodes.Addr + kernel.Addr(i*8)); err == nil && at != 0 {
				r.node(at)
			}
		}
	} else if at, err := r.k.Symbol("contig_page_data"); err == nil { // without CONFIG_NUMA
		r.node(at)
	}
	// With SPARSEMEM_EXTREME mem_section points to pointers to pages of sections. How
	// many those are VMCOREINFO tells; its SYMBOL(mem_section) is the pointer's value.
	info := r.k.VMCoreInfo()
	if info == nil {
		return
	}
	const maxRoots = 1 << 20
	roots, ok := info.Length("mem_section")
	table, err := r.k.Lookup("mem_section")
	if !ok || err != nil {
		return
	}
	if at, err := r.k.Pointer(table.Addr); err == nil {
		r.touchPointees(at, min(roots, maxRoots)*8)
	}
}

// node reads a memory node: the members that say what it has, not the lists of zones to
// allocate from, which are much longer.
func (r *crashReader) node(at kernel.Addr) {
	node, err := r.k.Object("pglist_data", at)
	if err != nil {
		return
	}
	for _, name := range []string{"node_zones", "nr_zones", "node_start_pfn", "node_present_pages", "node_spanned_pages", "node_id"} {
		if m, err := node.Member(name); err == nil {
			r.touchObject(m)
		}
	}
	const maxZones = 8
	for i := range maxZones {
		zones, err := node.Member("node_zones")
		if err != nil {
			return
		}
		if zone, err := zones.Index(i); err == nil {
			zone.String("name")
		}
	}
}

// pids walks the tree of process ids, by which crash finds the tasks.
func (r *crashReader) pids() {
	ns, err := r.k.Var("init_pid_ns", "pid_namespace")
	if err != nil {
		return
	}
	r.touchObject(ns)
	idr, err := ns.AddrOf("idr")
	if err != nil {
		return
	}
	for e, err := range r.k.IDR(idr) {
		if err != nil {
			return
		}
		if p, ok := e.Pointer(); ok {
			r.touchStruct("pid", p)
		}
	}
}

// caches reads what kmem -s adds up: of each slab cache the nodes, and the free objects
// of the CPUs' slabs.
func (r *crashReader) caches() {
	const maxNodes = 1024
	caches, _ := heap.New(r.k).Caches()
	for _, c := range caches {
		o, err := r.k.Object("kmem_cache", c.Addr)
		if err != nil {
			return
		}
		for i := range maxNodes {
			node, err := o.Pointer(fmt.Sprintf("node[%d]", i))
			if err != nil || node == 0 {
				break
			}
			r.touchStruct("kmem_cache_node", node)
			r.partial(node)
		}
		slabs, err := o.Pointer("cpu_slab")
		if err != nil {
			continue
		}
		for _, cpu := range r.cpus {
			at, err1 := r.k.PerCPU(slabs, cpu)
			slab, err2 := r.k.Object("kmem_cache_cpu", at)
			if err := errors.Join(err1, err2); err != nil {
				break
			}
			if first, err := slab.Pointer("freelist"); err == nil {
				r.freeList(c, first)
			}
			r.cpuPartial(slab)
		}
	}
}

// maxPartial bounds the slabs that are read of a partial list.
const maxPartial = 4096

// partial reads the slabs on a node's partial list.
func (r *crashReader) partial(node kernel.Addr) {
	o, err := r.k.Object("kmem_cache_node", node)
	if err != nil {
		return
	}
	head, err := o.AddrOf("partial")
	if err != nil {
		return
	}
	n := 0
	for slab, err := range r.k.List(head) {
		if n++; err != nil || n > maxPartial {
			return
		}
		r.touch(slab, 8)
	}
}

// cpuPartial reads a CPU's slab and those on its partial list.
func (r *crashReader) cpuPartial(cpu kernel.Object) {
	typ, member := "slab", "slab"
	if !cpu.Has(member) { // before 5.17, commit bb192ed9aa71
		typ, member = "page", "page"
	}
	if at, err := cpu.Pointer(member); err == nil && at != 0 {
		r.touchStruct(typ, at)
	}
	next, err1 := r.k.OffsetOf(typ, "next")
	at, err2 := cpu.Pointer("partial")
	for n := 0; errors.Join(err1, err2) == nil && at != 0 && n < maxPartial; n++ {
		at, err2 = r.k.Pointer(at + kernel.Addr(next))
	}
}

// freeList follows a list of free objects as crash does: where the next pointer points to
// must be there, else it is taken for one of the kernels that encode it otherwise.
func (r *crashReader) freeList(c *heap.Cache, object kernel.Addr) {
	for range c.ObjPerSlab {
		if _, err := r.k.U8(object); err != nil || r.room == 0 {
			return
		}
		r.room--
		at := object + kernel.Addr(c.Offset)
		next, err := r.k.U64(at)
		if err != nil {
			return
		}
		if c.Hardened { // since 5.7 the address is byte-swapped, commit 1ad53d9fa3f6
			next ^= c.Random ^ bits.ReverseBytes64(uint64(at))
		}
		object = kernel.Addr(next)
	}
}

// log reads all of the ring buffer, also what was never used.
func (r *crashReader) log() {
	at, err := r.k.Symbol("prb")
	if err != nil {
		return
	}
	if at, err = r.k.Pointer(at); err != nil {
		return
	}
	prb, err := r.k.Object("printk_ringbuffer", at)
	if err != nil {
		return
	}
	r.touchObject(prb)
	for _, ring := range []struct{ bits, data, elem string }{
		{"desc_ring.count_bits", "desc_ring.descs", "prb_desc"},
		{"desc_ring.count_bits", "desc_ring.infos", "printk_info"},
		{"text_data_ring.size_bits", "text_data_ring.data", "char"},
	} {
		bits, err1 := prb.Uint(ring.bits)
		data, err2 := prb.Pointer(ring.data)
		elem, err3 := r.k.SizeOf(ring.elem)
		if err1 == nil && err2 == nil && err3 == nil && bits < 32 {
			r.touch(data, elem<<bits)
		}
	}
}

// maxWholeStacks bounds the tasks whose stacks are read down to their unused ends, as
// crash does: with thousands of tasks those that were running have to do.
const maxWholeStacks = 1024

// tasks reads all of each task, its stack, and what it takes to unwind that.
func (r *crashReader) tasks() []*stack.Trace {
	tasks, _ := r.k.Tasks()
	for _, t := range tasks {
		r.touchObject(t.Object)
		if t.MM != 0 {
			r.touchStruct("mm_struct", t.MM)
		}
		if t.Stack != 0 && (len(tasks) <= maxWholeStacks || t.OnCPU) {
			r.touch(t.Stack, r.k.StackSize())
		}
		if t.Stack != 0 && t.OnCPU {
			r.returns(t.Stack, r.k.StackSize())
		}
	}
	traces := stack.NewUnwinder(r.k).All(tasks)
	for _, t := range traces {
		for i := range t.Frames {
			r.code(t.Frames[i].PC)
		}
	}
	return traces
}

// code reads what crash unwinds a frame with: the function up to the call, and the ORC
// entries for the 256 bytes that the call lies in, to which orc_lookup leads
// (arch/x86/kernel/unwind_orc.c).
func (r *crashReader) code(pc kernel.Addr) {
	const maxFunction = 64 << 10
	sym, off, ok := r.k.SymbolAt(pc)
	if !ok || !sym.IsCode() {
		return
	}
	r.touch(sym.Addr, min(off, maxFunction)+16)
	at := func(name string) kernel.Addr {
		a, _ := r.k.Symbol(name)
		return a
	}
	lookup, text := at("orc_lookup"), at("_stext")
	if lookup == 0 || sym.Module != "" || pc < text {
		return
	}
	const block, ipSize, entrySize = 256, 4, 6
	slot := lookup + (pc-text)/block*4
	first, err1 := r.k.U32(slot)
	last, err2 := r.k.U32(slot + 4)
	if err1 != nil || err2 != nil || last < first || last-first > block {
		return
	}
	n := uint64(last-first) + 1
	r.touch(at("__start_orc_unwind_ip")+kernel.Addr(first)*ipSize, n*ipSize)
	r.touch(at("__start_orc_unwind")+kernel.Addr(first)*entrySize, n*entrySize)
}

// maxWholeModules bounds the memory of modules that is kept whole, in bytes.
const maxWholeModules = 4 << 20

// modules reads the symbols that modules export, without which crash does not start, and
// as far as there is room all of what holds the other symbols: the modules on the stacks
// first.
func (r *crashReader) modules(traces []*stack.Trace) {
	onStack := map[string]bool{}
	for _, t := range traces {
		for _, f := range t.Frames {
			onStack[f.Symbol.Module] = true
		}
	}
	mods, _ := r.k.Modules()
	for _, m := range mods {
		r.touchObject(m.Object)
		r.exports(m, "syms", "num_syms")
		r.exports(m, "gpl_syms", "num_gpl_syms")
		r.attributes(m, "sect_attrs", "nsections")
		r.attributes(m, "notes_attrs", "notes")
	}
	room := uint64(maxWholeModules)
	for _, first := range []bool{true, false} {
		for _, m := range mods {
			if onStack[m.Name] != first {
				continue
			}
			ranges := symbolRanges(m)
			var size uint64
			for _, p := range ranges {
				size += p.Size
			}
			if size > room {
				continue
			}
			room -= size
			for _, p := range ranges {
				r.touch(p.Base, p.Size)
			}
		}
	}
}

// symbolRanges is the part of a module that crash reads for its symbols: the data since
// 6.4, where the parts lie apart, and all of it before.
func symbolRanges(m *kernel.Module) []kernel.ModuleRange {
	if m.Has("mem[1].base") { // MOD_DATA of enum mod_mem_type
		base, err1 := m.Pointer("mem[1].base")
		size, err2 := m.Uint("mem[1].size")
		if err1 != nil || err2 != nil {
			return nil
		}
		return []kernel.ModuleRange{{Base: base, Size: size}}
	}
	var ranges []kernel.ModuleRange
	for _, p := range m.Ranges {
		if !p.Init {
			ranges = append(ranges, p)
		}
	}
	return ranges
}

// exports reads a table of exported symbols, and their names.
func (r *crashReader) exports(m *kernel.Module, table, number string) {
	at, err1 := m.Pointer(table)
	n, err2 := m.Uint(number)
	size, err3 := r.k.SizeOf("kernel_symbol")
	if err1 != nil || err2 != nil || err3 != nil || at == 0 {
		return
	}
	const maxExports = 1 << 16
	r.touch(at, min(n, maxExports)*size)
	relative, err := r.k.OffsetOf("kernel_symbol", "name_offset") // HAVE_ARCH_PREL32_RELOCATIONS
	if err != nil {
		r.touchPointees(at, min(n, maxExports)*size)
		return
	}
	for i := uint64(0); i < min(n, maxExports) && r.room > 0; i++ {
		r.room--
		field := at + kernel.Addr(i*size+relative)
		if off, err := r.k.U32(field); err == nil {
			r.k.CString(field+kernel.Addr(int64(int32(off))), 512)
		}
	}
}

// attributes reads the sections or the notes of a module as sysfs has them
// (kernel/module/sysfs.c): drgn takes from there where the module lies and its build ID.
func (r *crashReader) attributes(m *kernel.Module, member, number string) {
	field, err1 := m.Member(member)
	all, err2 := field.Deref()
	if errors.Join(err1, err2) != nil || all.Addr == 0 {
		return
	}
	r.touchObject(all)
	const maxAttributes = 1 << 10
	n, err := all.Uint(number)
	if err != nil { // since 6.14 a list that ends with NULL, commit 4b2c11e4aaf7
		for n < maxAttributes {
			p, err := all.Pointer(fmt.Sprintf("grp.bin_attrs[%d]", n))
			if err != nil || p == 0 {
				break
			}
			n++
		}
	}
	for i := range min(n, maxAttributes) {
		attr, err := all.Member(fmt.Sprintf("attrs[%d]", i))
		if err != nil {
			return
		}
		r.touchObject(attr)
		if attr.Has("battr") { // struct module_sect_attr
			attr, _ = attr.Member("battr")
		}
		attr.String("attr.name")
		if member == "notes_attrs" {
			at, _ := attr.Pointer("private")
			size, _ := attr.Uint("size")
			r.touch(at, min(size, 4096))
		}
	}
}

// touch reads the pages of a range.
func (r *crashReader) touch(from kernel.Addr, size uint64) {
	const page = 4096
	for at := from &^ (page - 1); at < from+kernel.Addr(size) && r.room > 0; at += page {
		r.room--
		r.k.U8(at)
	}
}

// touchPointees reads the words of a range, and the pages that those point to which are
// addresses of the kernel's.
func (r *crashReader) touchPointees(from kernel.Addr, size uint64) {
	const userEnd = 1 << 63
	for at := from; at < from+kernel.Addr(size) && r.room > 0; at += 8 {
		to, err := r.k.Pointer(at)
		if err != nil {
			r.room--
		} else if to >= userEnd {
			r.touch(to, 1)
		}
	}
}

func (r *crashReader) touchObject(o kernel.Object) {
	if size, err := o.Size(); err == nil {
		r.touch(o.Addr, size)
	}
}

func (r *crashReader) touchStruct(typ string, at kernel.Addr) {
	if size, err := r.k.SizeOf(typ); err == nil {
		r.touch(at, size)
	}
}
