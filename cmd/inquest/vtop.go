package main

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/pflag"

	"inquest/kernel"
	"inquest/kernel/x86"
	"inquest/vmcore"
)

var vtopCommand = &command{
	name:  "vtop",
	args:  "ADDRESS...",
	min:   1,
	max:   -1,
	short: "translate virtual addresses to physical ones, level by level",
	long: `Walk the page tables for an address: the entry at each level, where that lies and
its flags; the physical address; and whether the dump holds that page. With --pid the
address is one of the task's user memory; with --physical it is physical, and the
kernel's own addresses of that memory are printed.`,
	example: `inquest vtop vmcore ffffc90000a4b000
inquest vtop vmcore init_task
inquest vtop vmcore -p 1 7f3a5c000000
inquest vtop vmcore --physical 1f3a000`,
	complete: completeSymbol,
	setup: func(f *pflag.FlagSet) runFunc {
		pid := f.IntP("pid", "p", 0, "walk the page tables of the task `PID`")
		physical := f.Bool("physical", false, "the address is physical: print its virtual ones")
		return func(s *session, args []string) error {
			k, err := s.Kernel()
			if err != nil {
				return err
			}
			pt := k.PageTable()
			if *pid != 0 {
				if pt, err = userPageTable(k, *pid); err != nil {
					return err
				}
			}
			walks := []*walkJSON{}
			mapped := 0
			for _, arg := range args {
				var w *walkJSON
				if *physical {
					w, err = fromPhysical(s, k, arg)
				} else {
					w, err = walk(k, pt, arg)
				}
				if err != nil {
					return err
				}
				if w.Physical != nil {
					mapped++
				}
				walks = append(walks, w)
			}
			if s.json {
				err = s.writeJSON(struct {
					Walks []*walkJSON `json:"walks"`
				}{walks})
			} else {
				for i, w := range walks {
					if i > 0 {
						s.printf("\n")
					}
					w.print(s, k)
				}
			}
			if err == nil && mapped == 0 {
				err = walks[0].err
			}
			return err
		}
	},
}

// userPageTable returns the page table of a task's user memory.
func userPageTable(k *kernel.Kernel, pid int) (*x86.PageTable, error) {
	t, err := k.FindTask(pid)
	if err != nil {
		return nil, err
	}
	if t.MM == 0 {
		return nil, fmt.Errorf("pid %d (%s) has no user memory", pid, t.Comm)
	}
	pgd, err := t.Pointer("mm->pgd")
	if err != nil {
		return nil, fmt.Errorf("find the page table of pid %d: %w", pid, err)
	}
	root, err := k.Translate(pgd)
	if err != nil {
		return nil, fmt.Errorf("find the page table of pid %d: %w", pid, err)
	}
	pt := *k.PageTable()
	pt.Root = root
	return &pt, nil
}

type walkJSON struct {
	Virtual  hex        `json:"virtual"`
	Physical *hex       `json:"physical"` // null when nothing is mapped
	PageSize uint64     `json:"page_size,omitempty"`
	Flags    []string   `json:"flags,omitempty"`
	InDump   bool       `json:"in_dump"`
	Missing  string     `json:"missing,omitempty"` // why the page is not in the dump
	Page     *hex       `json:"page,omitempty"`    // its struct page
	Symbol   string     `json:"symbol,omitempty"`
	Levels   []stepJSON `json:"levels,omitempty"`
	Aliases  []hex      `json:"aliases,omitempty"` // of a physical address: the kernel's addresses
	Error    string     `json:"error,omitempty"`

	err error
}

type stepJSON struct {
	Level string   `json:"level"`
	Entry hex      `json:"entry"`
	Value hex      `json:"value"`
	Flags []string `json:"flags"`
}

func walk(k *kernel.Kernel, pt *x86.PageTable, arg string) (*walkJSON, error) {
	at, err := parseAddr(k, arg)
	if err != nil {
		return nil, err
	}
	w := &walkJSON{Virtual: hex(at), Symbol: k.Name(at)}
	m, steps, err := pt.Trace(uint64(at))
	for _, step := range steps {
		w.Levels = append(w.Levels, stepJSON{step.Level, hex(step.Entry), hex(step.Value), pageFlags(step.Value)})
	}
	if len(w.Levels) > 0 {
		w.Levels[0].Level = "PGD" // which stands for the P4D where there are four levels
	}
	if err != nil {
		w.err, w.Error = err, err.Error()
		return w, nil
	}
	w.PageSize, w.Flags = m.Size, pageFlags(m.Flags)
	w.setPhysical(k, m.Phys)
	return w, nil
}

// setPhysical fills in what is known of a physical address.
func (w *walkJSON) setPhysical(k *kernel.Kernel, phys vmcore.PhysAddr) {
	h := hex(phys)
	w.Physical = &h
	if w.InDump = k.Dump.Present(phys); !w.InDump {
		_, err := k.Dump.Page(phys)
		w.Missing = gapReason(err)
	}
	// vmemmap_base and page_offset_base move with KASLR since 4.9.
	if base, err := k.Symbol("vmemmap_base"); err == nil {
		start, err1 := k.U64(base)
		size, err2 := k.SizeOf("page")
		if err1 == nil && err2 == nil {
			page := hex(start + uint64(phys)/4096*size)
			w.Page = &page
		}
	}
}

// fromPhysical finds the kernel's addresses of physical memory.
func fromPhysical(s *session, k *kernel.Kernel, arg string) (*walkJSON, error) {
	n, err := strconv.ParseUint(trim0x(arg), 16, 52)
	if err != nil {
		return nil, s.usagef("%q is no physical address", arg)
	}
	w := &walkJSON{}
	w.setPhysical(k, vmcore.PhysAddr(n))
	candidates := []uint64{0xffffffff80000000 + n - k.Layout.PhysBase} // the image
	if base, err := k.Symbol("page_offset_base"); err == nil {
		if start, err := k.U64(base); err == nil {
			candidates = append(candidates, start+n) // the direct map
		}
	} else {
		candidates = append(candidates, 0xffff888000000000+n)
	}
	for _, va := range candidates {
		if got, err := k.Translate(kernel.Addr(va)); err == nil && uint64(got) == n {
			w.Aliases = append(w.Aliases, hex(va))
		}
	}
	if len(w.Aliases) == 0 {
		w.err = fmt.Errorf("the kernel maps no memory at physical %#x", n)
		w.Error = w.err.Error()
		return w, nil
	}
	w.Virtual = w.Aliases[len(w.Aliases)-1]
	w.Symbol = k.Name(kernel.Addr(w.Aliases[0]))
	return w, nil
}

// pageFlagNames are the bits of a page table entry as crash(8) calls them.
var pageFlagNames = []struct {
	bit  uint
	name string
}{{0, "PRESENT"}, {1, "RW"}, {2, "USER"}, {3, "PWT"}, {4, "PCD"}, {5, "ACCESSED"}, {6, "DIRTY"}, {7, "PSE"}, {8, "GLOBAL"}, {63, "NX"}}

func pageFlags(v uint64) []string {
	names := []string{}
	for _, f := range pageFlagNames {
		if v>>f.bit&1 == 1 {
			names = append(names, f.name)
		}
	}
	return names
}

func (w *walkJSON) print(s *session, k *kernel.Kernel) {
	for i, alias := range w.Aliases {
		name := "direct map"
		if len(w.Aliases) > 1 && i == 0 {
			name = "kernel image"
		}
		s.printf("%8s  %016x  (%s)\n", "VIRTUAL", uint64(alias), name)
	}
	if len(w.Aliases) == 0 && w.Virtual != 0 {
		s.printf("%8s  %016x", "VIRTUAL", uint64(w.Virtual))
		if w.Symbol != "" {
			s.printf("  %s", clean(w.Symbol))
		}
		s.printf("\n")
	}
	for _, l := range w.Levels {
		s.printf("%8s  %016x => %016x  %s\n", l.Level, uint64(l.Entry), uint64(l.Value), flagText(l.Flags))
	}
	if w.Physical == nil {
		s.printf("%8s  (%s)\n", "", s.term.paint(yellow, notMapped(w.err)))
		return
	}
	s.printf("%8s  %016x", "PHYSICAL", uint64(*w.Physical))
	if w.PageSize > 0 {
		s.printf("  in a page of %s, %s", formatBytes(w.PageSize), flagText(w.Flags))
	}
	s.printf("\n")
	if w.Page != nil {
		s.printf("%8s  %016x  struct page\n", "PAGE", uint64(*w.Page))
	}
	if w.InDump {
		s.printf("%8s  holds the page\n", "DUMP")
	} else {
		s.printf("%8s  %s\n", "DUMP", s.term.paint(yellow, w.Missing))
	}
}

func flagText(flags []string) string {
	if len(flags) == 0 {
		return "()"
	}
	return "(" + strings.Join(flags, "|") + ")"
}

// notMapped says in short why a walk ended.
func notMapped(err error) string {
	for _, known := range []error{x86.ErrNotMapped, x86.ErrNonCanonical} {
		if errors.Is(err, known) {
			return strings.TrimPrefix(known.Error(), "address is ")
		}
	}
	return err.Error()
}
