package kernel

import (
	"testing"

	"github.com/cilium/ebpf/btf"

	"inquest/internal/kerneltest"
)

// benchMachine has as many symbols, types and tasks as a distribution's kernel.
func benchMachine() *kerneltest.Machine {
	m := kerneltest.Linux(kerneltest.Options{ExtraThreads: 200})
	m.Kallsyms.FillTo = 100000
	prev := btf.Type(kerneltest.Int)
	for i := range 30000 {
		s := kerneltest.Struct(string(rune('a'+i%26))+"_struct_"+string(rune('a'+i/26%26))+string(rune('a'+i/676)),
			field{Name: "first", Type: kerneltest.Ptr(prev)}, field{Name: "second", Type: kerneltest.Long})
		if i%50 == 0 {
			prev = kerneltest.Int
		} else {
			prev = s
		}
		m.Types(s)
	}
	return m.Machine
}

func BenchmarkLoad(b *testing.B) {
	d := benchMachine().Dump()
	for name, load := range map[string]func(k *Kernel) error{
		"symbols": func(k *Kernel) error { _, err := k.Symbols(); return err },
		"BTF":     func(k *Kernel) error { _, err := k.loadTypes(); return err },
		"tables":  func(k *Kernel) error { _, err := k.findTables(); return err },
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				k, err := Open(d)
				if err != nil {
					b.Fatal(err)
				}
				if err := load(k); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkUse(b *testing.B) {
	k := open(b, benchMachine())
	syms, err := k.Symbols()
	if err != nil {
		b.Fatal(err)
	}
	types, err := k.Types()
	if err != nil {
		b.Fatal(err)
	}
	task, err := k.FindTask(4)
	if err != nil {
		b.Fatal(err)
	}
	last := syms.At(syms.Len() - 2)
	buf := make([]byte, 4096)
	for _, bm := range []struct {
		name string
		f    func() error
	}{
		{"lookup by name", func() error { syms.Lookup(last.Name); return nil }},
		{"lookup of nothing", func() error { syms.Lookup("no_such_symbol"); return nil }},
		{"lookup by address", func() error { syms.Find(last.Addr); return nil }},
		{"type by name", func() error { types.byName.Clear(); _, err := types.Named("struct task_struct"); return err }},
		{"member", func() error { _, err := task.Uint("thread_info.cpu"); return err }},
		{"member over a pointer", func() error { _, err := task.Uint("real_parent->tgid"); return err }},
		{"U64", func() error { _, err := k.U64(task.Addr); return err }},
		{"Read 4 KiB", func() error { return k.Read(buf, task.Stack+8) }},
		{"Translate", func() error { _, err := k.Translate(task.Addr); return err }},
		{"Tasks", func() error { _, err := k.Tasks(); return err }},
		{"Log", func() error { _, err := collect(k.Log()); return err }},
	} {
		b.Run(bm.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if err := bm.f(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
