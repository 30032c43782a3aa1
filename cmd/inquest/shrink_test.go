package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"inquest/kernel"
	"inquest/vmcore"
)

// shrinkFile shrinks a dump as a user does.
func shrinkFile(t *testing.T, dump string) string {
	t.Helper()
	small := filepath.Join(t.TempDir(), "small.kdump")
	var out, errOut bytes.Buffer
	if code := run([]string{"shrink", dump, "-o", small}, stdio{&out, &errOut}); code != exitDone {
		t.Fatalf("exit code %d: %s", code, errOut.String())
	}
	return small
}

// shrinkable are the dumps that hold what crash reads: those made with this shrink.
var shrinkable = []string{"example", "list-add"}

// TestShrinkReports runs the commands that a small dump must serve on the small dump
// and on the one it was made from.
func TestShrinkReports(t *testing.T) {
	for _, name := range shrinkable {
		t.Run(name, func(t *testing.T) {
			dump := filepath.Join("../../testdata", name+".kdump")
			small := shrinkFile(t, dump)
			for _, c := range shrunken {
				if c.command == infoCommand { // it describes the file
					continue
				}
				report := func(path string) []byte {
					args := append([]string{c.command.name, path}, c.args...)
					var out, errOut bytes.Buffer
					if code := run(args, stdio{&out, &errOut}); code != exitDone {
						t.Fatalf("%v: exit code %d: %s", args, code, errOut.String())
					}
					return bytes.ReplaceAll(out.Bytes(), []byte(path), []byte("DUMP"))
				}
				if want, got := report(dump), report(small); !bytes.Equal(want, got) {
					t.Errorf("%s %v differs on the small dump", c.command.name, c.args)
				}
			}
		})
	}
}

// TestShrinkForCrash looks in a small dump for what crash reads with FAULT_ON_ERROR, or
// cannot show a stack without, as crash -d8 lists it.
func TestShrinkForCrash(t *testing.T) {
	for _, name := range shrinkable {
		t.Run(name, func(t *testing.T) {
			d, err := vmcore.Open(shrinkFile(t, filepath.Join("../../testdata", name+".kdump")))
			if err != nil {
				t.Fatal(err)
			}
			defer d.Close()
			k, err := kernel.Open(d)
			if err != nil {
				t.Fatal(err)
			}
			w := &wanted{T: t, k: k}
			w.symbols()
			w.perCPU()
			w.memory()
			w.tasks()
			w.modules()
		})
	}
}

// wanted fails a test for memory that a dump lacks.
type wanted struct {
	*testing.T
	k *kernel.Kernel
}

func (w *wanted) bytes(what string, at kernel.Addr, size uint64) {
	w.Helper()
	if err := w.k.Read(make([]byte, size), at); err != nil {
		w.Errorf("%s, %d bytes at %v: %v", what, size, at, err)
	}
}

func (w *wanted) must(err error) {
	w.Helper()
	if err != nil {
		w.Fatal(err)
	}
}

func (w *wanted) symbols() {
	found := 0
	for _, name := range []string{
		"linux_banner", "init_uts_ns", "__per_cpu_offset", "__cpu_possible_mask", "__cpu_active_mask", "page_offset_base",
		"vmalloc_base", "vmemmap_base", "idt_table", "high_memory", "mem_section", "_totalram_pages", "nr_swapfiles",
		"node_data", "init_task", "nr_threads", "crashing_cpu", "jiffies_64", "avenrun", "taint_flags",
		"task_state_array", "pageflag_names", "lookup_num_blocks", "schedule", "__schedule",
	} {
		sym, err := w.k.Lookup(name)
		if err != nil {
			continue // as nr_swapfiles without CONFIG_SWAP: crash asks first
		}
		found++
		w.bytes(name, sym.Addr, max(8, min(sym.Size, 64<<10)))
	}
	if found < 20 {
		w.Errorf("only %d of the symbols", found)
	}
	ring, err := w.k.Symbol("prb")
	w.must(err)
	at, err := w.k.Pointer(ring)
	w.must(err)
	prb, err := w.k.Object("printk_ringbuffer", at)
	w.must(err)
	count, err := prb.Uint("desc_ring.count_bits")
	w.must(err)
	infos, err := prb.Pointer("desc_ring.infos")
	w.must(err)
	size, err := w.k.SizeOf("printk_info")
	w.must(err)
	w.bytes("printk_info ring", infos, size<<count)
}

func (w *wanted) perCPU() {
	cpus, err := w.k.PossibleCPUs()
	w.must(err)
	for _, cpu := range cpus {
		rq, err := w.k.PerCPUVar("runqueues", "rq", cpu)
		w.must(err)
		size, err := rq.Size()
		w.must(err)
		w.bytes("runqueues", rq.Addr, size)
		tss, err := w.k.PerCPUVar("cpu_tss_rw", "tss_struct", cpu)
		w.must(err)
		const nmi = 1 // IST_INDEX_NMI
		top, err := tss.Uint(fmt.Sprintf("x86_tss.ist[%d]", nmi))
		w.must(err)
		w.bytes("NMI stack", kernel.Addr(top-8192), 8192)
	}
}

func (w *wanted) memory() {
	roots, ok := w.k.VMCoreInfo().Length("mem_section")
	sym, err := w.k.Lookup("mem_section")
	w.must(err)
	table, err := w.k.Pointer(sym.Addr)
	w.must(err)
	if !ok || roots == 0 {
		w.Fatal("VMCOREINFO has no LENGTH(mem_section)")
	}
	w.bytes("section roots", table, roots*8)
	root, err := w.k.Pointer(table)
	w.must(err)
	w.bytes("sections", root, 4096)
	at, err := w.k.Symbol("contig_page_data")
	if err != nil { // CONFIG_NUMA
		at, err = w.k.Symbol("node_data")
		w.must(err)
		at, err = w.k.Pointer(at)
		w.must(err)
	}
	node, err := w.k.Object("pglist_data", at)
	w.must(err)
	for _, name := range []string{"node_zones", "node_start_pfn", "node_spanned_pages", "node_id"} {
		m, err := node.Member(name)
		w.must(err)
		size, err := m.Size()
		w.must(err)
		w.bytes(name, m.Addr, size)
	}
}

func (w *wanted) tasks() {
	ns, err := w.k.Var("init_pid_ns", "pid_namespace")
	w.must(err)
	idr, err := ns.AddrOf("idr")
	w.must(err)
	pids := 0
	for e, err := range w.k.IDR(idr) {
		w.must(err)
		if at, ok := e.Pointer(); ok {
			size, err := w.k.SizeOf("pid")
			w.must(err)
			w.bytes("pid", at, size)
			pids++
		}
	}
	tasks, err := w.k.Tasks()
	w.must(err)
	if pids == 0 || len(tasks) < pids/2 {
		w.Errorf("%d pids, %d tasks", pids, len(tasks))
	}
	for _, task := range tasks {
		size, err := task.Size()
		w.must(err)
		w.bytes("task_struct", task.Addr, size)
		w.bytes("stack", task.Stack, w.k.StackSize())
	}
}

func (w *wanted) modules() {
	mods, err := w.k.Modules()
	w.must(err)
	for _, m := range mods {
		size, err := m.Object.Size()
		w.must(err)
		w.bytes("struct module of "+m.Name, m.Addr, size)
		for _, r := range m.Ranges {
			if !r.Init {
				w.bytes("module "+m.Name, r.Base, r.Size)
			}
		}
		notes, err := m.Pointer("notes_attrs")
		w.must(err)
		if notes != 0 {
			w.bytes("notes of "+m.Name, notes, 16)
		}
	}
}

// TestShrinkNothing: a dump that is cut before its first page makes no small dump.
func TestShrinkNothing(t *testing.T) {
	text, err := os.ReadFile("../../testdata/list-add.kdump")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	cut, small := filepath.Join(dir, "cut"), filepath.Join(dir, "small")
	if err := os.WriteFile(cut, text[:len(text)/16], 0o600); err != nil {
		t.Fatal(err)
	}
	var out, errOut bytes.Buffer
	if code := run([]string{"shrink", cut, "-o", small}, stdio{&out, &errOut}); code == exitDone {
		t.Errorf("%s", out.String())
	}
	if _, err := os.Stat(small); err == nil {
		t.Error("a file was written")
	}
}
