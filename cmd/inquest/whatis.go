package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/pflag"

	"inquest/heap"
	"inquest/kernel"
)

var whatisCommand = &command{
	name:  "whatis",
	args:  "ADDRESS...",
	min:   1,
	max:   -1,
	short: "say whose memory an address is",
	long: `Say what lies at an address: the object of a slab cache, whether it is allocated, on
whose free list it is, and, where slub_debug was on, who allocated and freed it; a
vmalloc area and who made it; a page and what it is used for; a task's or an
interrupt's stack and the frame on it; a per-CPU variable; code and data of the kernel
or of a module; user memory of the task that crashed, or of the one that --pid names.

One address is described in detail, several in a line each, unless --verbose asks for
more. An address is a number, or SYMBOL+OFFSET as for rd.`,
	example: `inquest whatis vmcore ffff8881043d2ac0
inquest whatis vmcore init_task+0x20 ffffc90000a4be38
inquest whatis vmcore -p 1 7f3a5c000000`,
	complete: completeSymbol,
	setup: func(f *pflag.FlagSet) runFunc {
		pid := f.IntP("pid", "p", 0, "user addresses are those of the task `PID`")
		verbose := f.BoolP("verbose", "v", false, "describe every address in detail")
		return func(s *session, args []string) error {
			k, err := s.typedKernel()
			if err != nil {
				return err
			}
			h := heap.New(k)
			var task *kernel.Task
			if *pid != 0 {
				if task, err = k.FindTask(*pid); err != nil {
					return err
				}
			}
			detail := *verbose || len(args) == 1
			all := []whatisJSON{}
			for _, arg := range args {
				at, err := parseAddr(k, arg)
				if err != nil {
					return err
				}
				m, err := identify(h, task, at)
				if err != nil {
					return fmt.Errorf("%s: %w", arg, err)
				}
				switch {
				case s.json:
					all = append(all, memoryJSON(h, m))
				default:
					s.printf("%016x: %s\n", uint64(m.Addr), clean(m.Desc))
					if detail {
						memoryText(s, h, m)
					}
					for _, err := range m.Missing {
						s.miss(fmt.Errorf("%v: %w", m.Addr, err))
					}
				}
			}
			if s.json {
				return s.writeJSON(struct {
					Memory []whatisJSON `json:"memory"`
				}{all})
			}
			s.missing()
			return nil
		}
	},
}

// identify is Identify, with the user memory of a chosen task.
func identify(h *heap.Heap, task *kernel.Task, at kernel.Addr) (*heap.Memory, error) {
	if task != nil && at < 1<<56 {
		return h.IdentifyUser(task, at)
	}
	return h.Identify(at)
}

// memoryText prints what is known beyond the one line.
func memoryText(s *session, h *heap.Heap, m *heap.Memory) {
	line := func(label, format string, args ...any) {
		s.printf("%12s  %s\n", label, clean(fmt.Sprintf(format, args...)))
	}
	if o := m.Slab; o != nil {
		c := o.Cache
		line("CACHE", "%s  kmem_cache %v, objects of %d bytes, one every %d", c.Name, c.Addr, c.ObjectSize, c.Size)
		if names := c.Aliases(); len(names) > 0 {
			line("MERGED", "%s", strings.Join(names, ", "))
		}
		line("SLAB", "%v  %s", o.Slab, strings.Join(c.FlagNames(), "|"))
		prev, next := h.Neighbours(o)
		for _, n := range []struct {
			label  string
			object *heap.SlabObject
		}{{"BEFORE", prev}, {"BEHIND", next}} {
			if n.object != nil {
				line(n.label, "%v  object %d (%v)", n.object.Start, n.object.Index, n.object.State)
			}
		}
		trackText(line, h.Kernel(), "ALLOCATED", o.Alloc)
		trackText(line, h.Kernel(), "FREED", o.FreeTrack)
		if o.Poison != "" {
			line("DEBUG", "%s", o.Poison)
		}
	}
	if a := m.Area; a != nil {
		line("AREA", "%v-%v  %s, %d pages, vm_struct %v", a.Start, a.End, strings.Join(a.Flags, "|"), a.Pages, a.VM)
	}
	if v := m.VMA; v != nil {
		line("VMA", "%v  %v-%v %s %#x %s%s", v.Addr, v.Start, v.End, v.Flags, v.Offset, v.File, v.Name)
	}
	if t := m.Task; t != nil {
		line("TASK", "%v  pid %d, %s", t.Addr, t.PID, t.Comm)
	}
	if p := m.Page; p != nil {
		line("PAGE", "%v  page frame %#x, %s", p.Addr, p.PFN, pageText(p))
	}
}

func pageText(p *heap.PageInfo) string {
	parts := []string{fmt.Sprintf("refcount %d", p.RefCount)}
	if p.MapCount != 0 {
		parts = append(parts, fmt.Sprintf("mapcount %d", p.MapCount))
	}
	if p.Type != "" {
		parts = append(parts, p.Type)
	}
	if p.Order != 0 {
		parts = append(parts, fmt.Sprintf("order %d of %v", p.Order, p.Head))
	}
	if p.Mapping != 0 {
		parts = append(parts, fmt.Sprintf("mapping %v", p.Mapping))
	}
	if p.File != "" {
		parts = append(parts, p.File)
	}
	if flags := slices.DeleteFunc(slices.Clone(p.Flags), func(f string) bool { return f == p.Type }); len(flags) > 0 {
		parts = append(parts, strings.Join(flags, "|"))
	}
	return strings.Join(parts, ", ")
}

func trackText(line func(label, format string, args ...any), k *kernel.Kernel, label string, t *heap.Track) {
	if t == nil {
		return
	}
	line(label, "by pid %d on CPU %d at jiffies %d, in %s", t.PID, t.CPU, t.Jiffies, nameOr(k, t.Caller))
	for _, a := range t.Stack {
		line("", "  %s", nameOr(k, a))
	}
}

func nameOr(k *kernel.Kernel, a kernel.Addr) string {
	if name := k.Name(a); name != "" {
		return name
	}
	return a.String()
}

type whatisJSON struct {
	Address hex            `json:"address"`
	Kind    heap.Kind      `json:"kind"`
	Text    string         `json:"text"`
	Slab    *slabPlaceJSON `json:"slab,omitempty"`
	Area    *areaJSON      `json:"vmalloc,omitempty"`
	VMA     *vmaJSON       `json:"vma,omitempty"`
	Page    *pageJSON      `json:"page,omitempty"`
	Symbol  string         `json:"symbol,omitempty"`
	Module  string         `json:"module,omitempty"`
	PID     *int           `json:"pid,omitempty"`
	CPU     *int           `json:"cpu,omitempty"`
	Frame   string         `json:"frame,omitempty"`
	Missing []string       `json:"missing,omitempty"`
}

type slabPlaceJSON struct {
	Cache      string           `json:"cache"`
	Merged     []string         `json:"merged,omitempty"`
	KmemCache  hex              `json:"kmem_cache"`
	Slab       hex              `json:"slab"`
	Object     hex              `json:"object"`
	Index      int              `json:"index"`
	Offset     int64            `json:"offset"`
	State      heap.ObjectState `json:"state"`
	FreeIn     string           `json:"free_in,omitempty"`
	Size       uint64           `json:"size"`
	Stride     uint64           `json:"stride"`
	RedZone    bool             `json:"red_zone,omitempty"`
	Padding    bool             `json:"padding,omitempty"`
	Allocation *trackJSON       `json:"allocated_by,omitempty"`
	Free       *trackJSON       `json:"freed_by,omitempty"`
	Debug      string           `json:"debug,omitempty"`
}

type trackJSON struct {
	Caller  string   `json:"caller"`
	CPU     int      `json:"cpu"`
	PID     int      `json:"pid"`
	Jiffies uint64   `json:"jiffies"`
	Stack   []string `json:"stack,omitempty"`
}

type areaJSON struct {
	Start  hex      `json:"start"`
	End    hex      `json:"end"`
	Flags  []string `json:"flags,omitempty"`
	Caller string   `json:"caller,omitempty"`
	Pages  uint64   `json:"pages"`
}

type vmaJSON struct {
	Start  hex    `json:"start"`
	End    hex    `json:"end"`
	Flags  string `json:"flags"`
	Offset hex    `json:"offset"`
	File   string `json:"file,omitempty"`
	Name   string `json:"name,omitempty"`
}

type pageJSON struct {
	Page     hex      `json:"page"`
	PFN      uint64   `json:"pfn"`
	Type     string   `json:"type,omitempty"`
	Flags    []string `json:"flags"`
	RefCount int      `json:"refcount"`
	MapCount int      `json:"mapcount"`
	Mapping  hex      `json:"mapping"`
	Anon     bool     `json:"anon,omitempty"`
	Index    uint64   `json:"index"`
	File     string   `json:"file,omitempty"`
	Head     hex      `json:"head"`
	Order    int      `json:"order"`
}

func memoryJSON(h *heap.Heap, m *heap.Memory) whatisJSON {
	j := whatisJSON{Address: hex(m.Addr), Kind: m.Kind, Text: m.Desc, Symbol: m.Symbol, Module: m.Module}
	if o := m.Slab; o != nil {
		j.Slab = &slabPlaceJSON{
			o.Cache.Name, o.Cache.Aliases(), hex(o.Cache.Addr), hex(o.Slab), hex(o.Start), o.Index, int64(o.Offset), o.State, o.FreeIn,
			o.Size, o.Stride, o.InRedzone, o.InPadding, newTrackJSON(h.Kernel(), o.Alloc), newTrackJSON(h.Kernel(), o.FreeTrack), o.Poison,
		}
	}
	if a := m.Area; a != nil {
		j.Area = &areaJSON{hex(a.Start), hex(a.End), a.Flags, a.Symbol, a.Pages}
	}
	if v := m.VMA; v != nil {
		j.VMA = &vmaJSON{hex(v.Start), hex(v.End), v.Flags, hex(v.Offset), v.File, v.Name}
	}
	if p := m.Page; p != nil {
		flags := p.Flags
		if flags == nil {
			flags = []string{}
		}
		j.Page = &pageJSON{hex(p.Addr), p.PFN, p.Type, flags, p.RefCount, p.MapCount, hex(p.Mapping), p.Anon, p.Index, p.File, hex(p.Head), p.Order}
	}
	if m.Task != nil {
		j.PID = &m.Task.PID
	}
	if m.CPU >= 0 {
		j.CPU = &m.CPU
	}
	if m.Frame != nil {
		j.Frame = m.Frame.Name()
	}
	for _, err := range m.Missing {
		j.Missing = append(j.Missing, err.Error())
	}
	return j
}

func newTrackJSON(k *kernel.Kernel, t *heap.Track) *trackJSON {
	if t == nil {
		return nil
	}
	j := &trackJSON{Caller: nameOr(k, t.Caller), CPU: t.CPU, PID: t.PID, Jiffies: t.Jiffies}
	for _, a := range t.Stack {
		j.Stack = append(j.Stack, nameOr(k, a))
	}
	return j
}
