package kerneltest

import (
	"fmt"

	"github.com/cilium/ebpf/btf"

	"inquest/vmcore"
)

// Options chooses between what kernels of different ages have.
type Options struct {
	OldModules   bool // core_layout and init_layout, before 6.4
	OldSymbols   bool // st_info holds nm's letter: no typetab, before 5.0
	OldTasks     bool // state and pids[], before 5.14 and 4.19
	RadixTree    bool // before 4.20
	NewPerCPU    bool // per-CPU symbols have the kernel's addresses, since 6.15
	NoBTF        bool
	NoPanic      bool
	ModuleTypes  bool // the module has BTF of its own
	CPUs         int  // 2 when 0
	ExtraThreads int
}

// Kernel is a small Linux.
type Kernel struct {
	*Machine
	Tasks  map[int]uint64 // struct task_struct by pid, but for the idle tasks
	Idle   []uint64       // by CPU
	Module uint64         // struct module
	// ModuleKallsyms is its struct mod_kallsyms.
	ModuleKallsyms uint64
	Offsets        []uint64    // __per_cpu_offset
	Task           *btf.Struct // task_struct
}

// Linux returns a machine that has init (1) with a thread (2), kthreadd (3), which is
// a kernel thread, and a zombie (4); one module, "widget"; a log; and, unless told
// otherwise, a panic on CPU 1, which was running task 1. Fields of the Machine may
// still be set.
func Linux(o Options) *Kernel {
	if o.CPUs == 0 {
		o.CPUs = 2
	}
	k := &Kernel{Machine: New(), Tasks: map[int]uint64{}}
	k.Kallsyms.PlainPerCPU = o.NewPerCPU
	k.perCPU(o)
	k.tasks(o)
	k.module(o)
	k.PrintkRing(4, 10,
		Message{NSec: 0, Level: 5, Text: "Linux version 6.1.0-test"},
		Message{NSec: 1_500_000_000, Level: 6, Caller: 1, Text: "widget: loading"},
		Message{NSec: 2_000_000_000, Level: 0, Caller: 1 << 31, Text: "Kernel panic - not syncing: test"})
	k.variable("tainted_mask", 1<<12|1<<7)
	if o.NoPanic {
		k.variable("panic_cpu", 0xffffffff)
	} else {
		k.variable("panic_cpu", 1)
	}
	k.crashNotes(o)
	if o.NoBTF {
		k.types = nil
	}
	return k
}

// variable allocates a variable of 8 bytes.
func (m *Machine) variable(name string, v uint64) uint64 {
	a := m.Put(le.AppendUint64(nil, v))
	m.Symbol(name, 'D', a)
	return a
}

// PerCPUVar is a per-CPU variable: where a CPU has its own.
func (k *Kernel) PerCPUVar(sym uint64, cpu int) uint64 { return sym + k.Offsets[cpu] }

// perCPUSize is the size of a CPU's area.
const perCPUSize = 2 * pageSize

// perCPUBase is the address of the first per-CPU symbol.
func (k *Kernel) perCPUBase(o Options) uint64 {
	if o.NewPerCPU {
		return k.Alloc(perCPUSize, pageSize)
	}
	return 0
}

func (k *Kernel) perCPU(o Options) {
	base := k.perCPUBase(o)
	k.Symbol("__per_cpu_start", 'D', base)
	var table []byte
	mask := uint64(0)
	for cpu := range o.CPUs {
		area := uint64(0xffff888000000000) + uint64(cpu)*0x100000
		k.Map(area, pageSize)
		k.Map(area+pageSize, pageSize)
		k.Offsets = append(k.Offsets, area-base)
		table = le.AppendUint64(table, area-base)
		mask |= 1 << cpu
	}
	k.Symbol("__per_cpu_offset", 'D', k.Put(table))
	k.variable("nr_cpu_ids", uint64(o.CPUs))
	k.variable("__cpu_possible_mask", mask)
	k.variable("__cpu_online_mask", mask)
	k.Symbol("runqueues", 'd', base+0x40)
	k.Symbol("current_note", 'd', base+0x200)
}

// perCPUSymbol returns the address of a per-CPU symbol.
func (k *Kernel) perCPUSymbol(name string) uint64 {
	for _, s := range k.symbols {
		if s.Name == name {
			return s.Addr
		}
	}
	panic("no symbol " + name)
}

func (k *Kernel) tasks(o Options) {
	hlistNode := Struct("hlist_node", Field{Name: "next", Type: Ptr(Void)}, Field{Name: "pprev", Type: Ptr(Void)})
	hlistHead := Struct("hlist_head", Field{Name: "first", Type: Ptr(hlistNode)})
	signal := Struct("signal_struct", Field{Name: "sigcnt", Type: Int}, Field{Name: "thread_head", Type: ListHead})
	info := Struct("thread_info", Field{Name: "flags", Type: Ulong}, Field{Name: "cpu", Type: U32})
	task := &btf.Struct{Name: "task_struct"}
	state, links, linkType := "__state", "pid_links", btf.Type(hlistNode)
	if o.OldTasks {
		state, links = "state", "pids"
		linkType = Struct("pid_link", Field{Name: "node", Type: hlistNode}, Field{Name: "pid", Type: Ptr(Void)})
	}
	Complete(task,
		Field{Name: "thread_info", Type: info}, Field{Name: state, Type: U32},
		Field{Name: "stack", Type: Ptr(Void)}, Field{Name: "flags", Type: U32}, Field{Name: "on_cpu", Type: Int},
		Field{Name: "tasks", Type: ListHead}, Field{Name: "mm", Type: Ptr(Void)}, Field{Name: "exit_state", Type: Int},
		Field{Name: "sched_lock", Type: U32, Bits: 3}, Field{Name: "in_iowait", Type: U32, Bits: 1},
		Field{Type: Union("", Field{Name: "pid", Type: Int}, Field{Name: "pid_alias", Type: Int})}, Field{Name: "tgid", Type: Int},
		Field{Name: "real_parent", Type: Ptr(task)}, Field{Name: links, Type: Array(linkType, 4)},
		Field{Name: "thread_node", Type: ListHead}, Field{Name: "comm", Type: Array(Char, 16)}, Field{Name: "signal", Type: Ptr(signal)})
	k.Task = task
	pid := Struct("pid", Field{Name: "count", Type: Int}, Field{Name: "level", Type: U32}, Field{Name: "tasks", Type: Array(hlistHead, 4)})
	root := btf.Type(XArray)
	if o.RadixTree {
		root = RadixRoot
		k.Types(RadixNode)
	} else {
		k.Types(XANode)
	}
	idr := Struct("idr", Field{Name: "idr_rt", Type: root}, Field{Name: "idr_base", Type: U32}, Field{Name: "idr_next", Type: U32})
	ns := Struct("pid_namespace", Field{Name: "kref", Type: Int}, Field{Name: "idr", Type: idr})
	rq := Struct("rq", Field{Name: "nr_running", Type: U32}, Field{Name: "curr", Type: Ptr(task)}, Field{Name: "idle", Type: Ptr(task)})
	k.Types(task, pid, ns, rq)

	at := func(obj uint64, path string) uint64 { off, _ := Offset(task, path); return obj + off }
	link := "pid_links[0]"
	if o.OldTasks {
		link = "pids[0].node"
	}
	pids := map[uint64]uint64{}
	var leaders []uint64
	threads := map[int][]uint64{}
	signals := map[int]uint64{}
	add := func(id, tgid, parent, cpu int, comm string, stateBits, exit, flags uint64) uint64 {
		t := k.New(task)
		k.Set(t, task, "thread_info.cpu", uint64(cpu))
		k.Set(t, task, state, stateBits)
		k.Set(t, task, "exit_state", exit)
		k.Set(t, task, "stack", k.Alloc(16<<10, 16<<10))
		k.Set(t, task, "flags", flags)
		k.Set(t, task, "pid", uint64(id))
		k.Set(t, task, "tgid", uint64(tgid))
		k.SetString(t, task, "comm", comm)
		if parent > 0 {
			k.Set(t, task, "real_parent", k.Tasks[parent])
		}
		if flags == 0 {
			k.Set(t, task, "mm", 0xffff888000001000)
		}
		if id == 0 {
			return t
		}
		if id == tgid {
			leaders = append(leaders, at(t, "tasks"))
			signals[id] = k.New(signal)
		}
		k.Set(t, task, "signal", signals[tgid])
		threads[tgid] = append(threads[tgid], at(t, "thread_node"))
		p := k.New(pid)
		k.Set(p, pid, "tasks[0].first", at(t, link))
		pids[uint64(id)] = p
		k.Tasks[id] = t
		return t
	}
	const kthread = 0x00200000
	for cpu := range o.CPUs {
		k.Idle = append(k.Idle, add(0, 0, 0, cpu, fmt.Sprintf("swapper/%d", cpu), 0, 0, kthread))
	}
	k.Symbol("init_task", 'D', k.Idle[0])
	add(1, 1, 0, 1, "init", 0, 0, 0)
	add(2, 1, 0, 0, "worker", 2, 0, 0)
	add(3, 3, 0, 0, "kthreadd", 0x402|0x2000, 0, kthread)
	add(4, 4, 1, 0, "gone", 0x80, 0x20, 0)
	for i := range o.ExtraThreads {
		add(100+i, 100+i, 1, 0, fmt.Sprintf("extra%d", i), 1, 0, 0)
	}
	k.Set(k.Tasks[1], task, "on_cpu", 1)
	k.List(at(k.Idle[0], "tasks"), leaders...)
	for tgid, s := range signals {
		off, _ := Offset(signal, "thread_head")
		k.List(s+off, threads[tgid]...)
	}
	n := k.New(ns)
	tree := k.SlotTree(o.RadixTree, pids)
	off, _ := Offset(ns, "idr.idr_rt")
	head, name := btf.Type(XArray), "xa_head"
	if o.RadixTree {
		head, name = RadixRoot, "rnode"
	}
	headAt, _ := Offset(head, name)
	var b [8]byte
	phys, _ := k.Phys(tree + headAt)
	k.ReadPhys(b[:], vmcore.PhysAddr(phys))
	k.Write(n+off+headAt, b[:])
	k.Symbol("init_pid_ns", 'D', n)

	runqueues := k.perCPUSymbol("runqueues")
	for cpu := range o.CPUs {
		q := k.PerCPUVar(runqueues, cpu)
		k.Set(q, rq, "idle", k.Idle[cpu])
		k.Set(q, rq, "curr", k.Idle[cpu])
		if cpu == 1 {
			k.Set(q, rq, "curr", k.Tasks[1])
		}
	}
}

func (k *Kernel) module(o Options) {
	fields := []Field{{Name: "state", Type: U32}, {Name: "list", Type: ListHead}, {Name: "name", Type: Array(Char, 56)}}
	kallsyms := Struct("mod_kallsyms", Field{Name: "symtab", Type: Ptr(Void)}, Field{Name: "num_symtab", Type: U32},
		Field{Name: "strtab", Type: Ptr(Char)}, Field{Name: "typetab", Type: Ptr(Char)})
	if o.OldSymbols {
		kallsyms = Struct("mod_kallsyms", Field{Name: "symtab", Type: Ptr(Void)}, Field{Name: "num_symtab", Type: U32}, Field{Name: "strtab", Type: Ptr(Char)})
	}
	if o.OldModules {
		layout := Struct("module_layout", Field{Name: "base", Type: Ptr(Void)}, Field{Name: "size", Type: U32}, Field{Name: "text_size", Type: U32})
		fields = append(fields, Field{Name: "core_layout", Type: layout}, Field{Name: "init_layout", Type: layout})
	} else {
		memory := Struct("module_memory", Field{Name: "base", Type: Ptr(Void)}, Field{Name: "size", Type: U32})
		fields = append(fields, Field{Name: "mem", Type: Array(memory, 7)})
	}
	fields = append(fields, Field{Name: "taints", Type: Ulong}, Field{Name: "kallsyms", Type: Ptr(kallsyms)})
	module := Struct("module", fields...)
	k.Types(module)

	text, data := uint64(ModulesBase), uint64(ModulesBase+pageSize)
	k.Map(text, pageSize)
	k.Map(data, pageSize)
	mod := k.New(module)
	k.Module = mod
	k.SetString(mod, module, "name", "widget")
	k.Set(mod, module, "taints", 1<<12)
	if o.OldModules {
		k.Set(mod, module, "core_layout.base", text)
		k.Set(mod, module, "core_layout.size", 2*pageSize)
		k.Set(mod, module, "core_layout.text_size", pageSize)
	} else {
		k.Set(mod, module, "mem[0].base", text)
		k.Set(mod, module, "mem[0].size", pageSize)
		k.Set(mod, module, "mem[1].base", data)
		k.Set(mod, module, "mem[1].size", 0x800)
	}
	var symtab, strtab, typetab []byte
	strtab = append(strtab, 0)
	for _, s := range []struct {
		name  string
		typ   byte
		shndx uint16
		addr  uint64
		size  uint64
	}{
		{"", 0, 0, 0, 0},
		{"printk", 'U', 0, 0, 0}, // undefined
		{"widget_open", 't', 1, text + 0x100, 0x40},
		{"widget_init", 't', 1, text + 0x20, 0x30},
		{"widget_state", 'd', 2, data + 0x10, 8},
		{"$x", 't', 1, text, 0},
	} {
		symtab = le.AppendUint32(symtab, uint32(len(strtab)))
		info := byte(2)
		if o.OldSymbols {
			info = s.typ
		}
		symtab = append(symtab, info, 0)
		symtab = le.AppendUint16(symtab, s.shndx)
		symtab = le.AppendUint64(symtab, s.addr)
		symtab = le.AppendUint64(symtab, s.size)
		strtab = append(append(strtab, s.name...), 0)
		typetab = append(typetab, s.typ)
	}
	ks := k.New(kallsyms)
	k.ModuleKallsyms = ks
	k.Set(ks, kallsyms, "symtab", k.Put(symtab))
	k.Set(ks, kallsyms, "num_symtab", uint64(len(symtab)/24))
	k.Set(ks, kallsyms, "strtab", k.Put(strtab))
	if !o.OldSymbols {
		k.Set(ks, kallsyms, "typetab", k.Put(typetab))
	}
	k.Set(mod, module, "kallsyms", ks)
	head := k.Alloc(16, 8)
	k.Symbol("modules", 'D', head)
	off, _ := Offset(module, "list")
	k.List(head, mod+off)

	section := Struct("btf", Field{Name: "data", Type: Ptr(Void)}, Field{Name: "data_size", Type: U32})
	node := Struct("btf_module", Field{Name: "list", Type: ListHead}, Field{Name: "module", Type: Ptr(module)}, Field{Name: "btf", Type: Ptr(section)})
	k.Types(node)
	list := k.Alloc(16, 8)
	k.Symbol("btf_modules", 'D', list)
	k.List(list)
	if o.ModuleTypes {
		n, b := k.New(node), k.New(section)
		k.Set(n, node, "module", mod)
		k.Set(n, node, "btf", b)
		k.split = func(base []byte) { k.Set(b, section, "data", k.Put(SplitBTF(base, "widget", "knob"))) }
		k.List(list, n)
	}
}

// crashNotes writes what crash_save_cpu() leaves, for the CPUs of even number.
func (k *Kernel) crashNotes(o Options) {
	sym := k.perCPUSymbol("current_note")
	k.variable("crash_notes", sym)
	for cpu := 0; cpu < o.CPUs; cpu += 2 {
		note := make([]byte, 20+336)
		le.PutUint32(note, 5)
		le.PutUint32(note[4:], 336)
		le.PutUint32(note[8:], 1)
		copy(note[12:], "CORE")
		le.PutUint64(note[20+112+16*8:], k.Text()+0x1000) // rip
		k.Write(k.PerCPUVar(sym, cpu), note)
	}
}
