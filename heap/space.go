package heap

import (
	"fmt"

	"inquest/kernel"
	"inquest/vmcore"
)

// Fixed corners of the x86-64 address space (Documentation/arch/x86/x86_64/mm.rst).
const (
	startKernelMap = 0xffffffff80000000 // __START_KERNEL_map
	modulesEnd     = 0xffffffffff000000 // the highest that MODULES_END can be
	fixmapStart    = 0xffffffffff000000 // below the fixmap, whatever its size
	entryAreaStart = 0xfffffe0000000000 // CPU_ENTRY_AREA_BASE
	pgdSize        = 1 << 39            // what one entry of a 4-level page table maps
	tib            = 1 << 40
)

// span is a range of addresses.
type span struct{ start, end kernel.Addr }

func (s span) holds(a kernel.Addr) bool { return a >= s.start && a < s.end }

// spaces are the large areas of the address space.
type spaces struct {
	userEnd kernel.Addr
	direct  span // the direct map of physical memory
	vmalloc span
	vmemmap span // array of struct page
	entry   span // CPU entry areas
}

// name names the corners that nothing else is known of.
func (s spaces) name(a kernel.Addr) string {
	for _, area := range []struct {
		span
		name string
	}{
		{s.vmalloc, "the vmalloc area"},
		{s.direct, "the direct map"},
		{s.vmemmap, "the array of struct page"},
		{s.entry, "the CPU entry areas"},
		{span{0xffffff0000000000, 0xffffff0000000000 + pgdSize}, "the ESPFIX stacks"},
		{span{0xffffffef00000000, 0xffffffff00000000}, "the EFI region"},
		{span{startKernelMap, startKernelMap + 1<<30}, "the area of the kernel image"},
		{span{startKernelMap + 1<<30, modulesEnd}, "the module area"},
		{span{fixmapStart, ^kernel.Addr(0)}, "the fixmap"},
	} {
		if area.holds(a) {
			return area.name
		}
	}
	return ""
}

// findSpaces reads where KASLR put the areas (arch/x86/mm/kaslr.c, since 4.8), or
// takes where they are without.
func (h *Heap) findSpaces() spaces {
	l := h.k.Layout
	s := spaces{userEnd: 1 << 47, entry: span{entryAreaStart, entryAreaStart + pgdSize}}
	size := struct{ direct, vmalloc, vmemmap kernel.Addr }{64 * tib, 32 * tib, tib}
	direct := []kernel.Addr{0xffff888000000000, 0xffff880000000000} // the second until 4.19
	vmalloc, vmemmap := kernel.Addr(0xffffc90000000000), kernel.Addr(0xffffea0000000000)
	if l.FiveLevel {
		s.userEnd = 1 << 56
		size.direct, size.vmalloc, size.vmemmap = 32<<50, 12800*tib, 512*tib
		direct = []kernel.Addr{0xff11000000000000, 0xff10000000000000}
		vmalloc, vmemmap = 0xffa0000000000000, 0xffd4000000000000
	}
	variable := func(name string, otherwise kernel.Addr) kernel.Addr {
		if at, err := h.k.Symbol(name); err == nil {
			if v, err := h.k.Pointer(at); err == nil && v > s.userEnd {
				return v
			}
		}
		return otherwise
	}
	start := variable("page_offset_base", 0)
	if start == 0 {
		start = h.likelyDirect(direct)
	}
	s.direct = spanOf(start, size.direct)
	s.vmalloc = spanOf(variable("vmalloc_base", vmalloc), size.vmalloc)
	s.vmemmap = spanOf(variable("vmemmap_base", vmemmap), size.vmemmap)
	// KASLR packs the areas closer than their full sizes.
	if s.direct.start < s.vmalloc.start {
		s.direct.end = min(s.direct.end, s.vmalloc.start)
	}
	if s.vmalloc.start < s.vmemmap.start {
		s.vmalloc.end = min(s.vmalloc.end, s.vmemmap.start)
	}
	return s
}

// spanOf is a span that ends where the address space does, at the latest.
func spanOf(start, size kernel.Addr) span {
	return span{start, start + min(size, ^kernel.Addr(0)-start)}
}

// likelyDirect returns the first of the places at which the memory of the kernel
// image is mapped as well.
func (h *Heap) likelyDirect(places []kernel.Addr) kernel.Addr {
	phys := uint64(h.k.Layout.Text) - startKernelMap + h.k.Layout.PhysBase
	for _, base := range places {
		if got, err := h.k.Translate(base + kernel.Addr(phys)); err == nil && uint64(got) == phys {
			return base
		}
	}
	return places[0]
}

// section is a part of the kernel image.
type section struct {
	span
	kind Kind
	name string
}

// findSections takes the parts of the image from the symbols that the linker script
// makes (arch/x86/kernel/vmlinux.lds.S). The first that holds an address counts.
func (h *Heap) findSections() []section {
	var all []section
	for _, s := range []struct {
		from, to string
		kind     Kind
		name     string
	}{
		{"_text", "_etext", KernelText, "kernel text"},
		{"__init_begin", "__init_end", Init, "init memory of the kernel, given back after boot"},
		{"__start_rodata", "__end_rodata", KernelRodata, "read-only data of the kernel"},
		{"__bss_start", "__bss_stop", KernelBSS, "bss of the kernel"},
		{"_sdata", "_edata", KernelData, "data of the kernel"},
		{"_text", "_end", KernelData, "kernel image"},
	} {
		from, err1 := h.k.Symbol(s.from)
		to, err2 := h.k.Symbol(s.to)
		if err1 == nil && err2 == nil && from < to && from >= startKernelMap {
			all = append(all, section{span{from, to}, s.kind, s.name})
		}
	}
	return all
}

// identifyImage describes an address of the kernel image, of a module, or above.
func (h *Heap) identifyImage(m *Memory) {
	if mod := h.k.ModuleAt(m.Addr); mod != nil {
		m.Module, m.Kind = mod.Name, ModuleData
		what := "data"
		for _, r := range mod.Ranges {
			if m.Addr < r.Base || uint64(m.Addr-r.Base) >= r.Size {
				continue
			}
			if r.Text {
				m.Kind, what = ModuleText, "text"
			}
			if r.Init {
				what = "init " + what
			}
		}
		m.Symbol = h.k.Name(m.Addr)
		m.Desc = fmt.Sprintf("%s of module %s%s", what, mod.Name, prefixed(": ", m.Symbol))
		return
	}
	if h.inPerCPUTemplate(m) || h.inInitStack(m.Addr) && h.inTaskStack(m) {
		return
	}
	if h.inImage(m, m.Addr) {
		return
	}
	if h.identifyVmalloc(m) {
		return
	}
	h.identifyUnknown(m)
}

// inInitStack reports whether an address is on the stack of the first task, which is
// part of the image.
func (h *Heap) inInitStack(a kernel.Addr) bool {
	for _, name := range []string{"init_stack", "init_thread_union"} { // the latter until 4.15
		if start, err := h.k.Symbol(name); err == nil {
			return a >= start && uint64(a-start) < h.k.StackSize()
		}
	}
	return false
}

// inImage describes an address of the kernel image; false when it is none. The
// address that m is about may be another one of the same memory.
func (h *Heap) inImage(m *Memory, at kernel.Addr) bool {
	for _, s := range h.image() {
		if !s.holds(at) {
			continue
		}
		m.Kind, m.Symbol = s.kind, h.k.Name(at)
		m.Desc = s.name + prefixed(": ", m.Symbol)
		return true
	}
	return false
}

// imageAddr returns the address in the kernel image of physical memory.
func (h *Heap) imageAddr(phys vmcore.PhysAddr) (kernel.Addr, bool) {
	at := kernel.Addr(uint64(phys) - h.k.Layout.PhysBase + startKernelMap)
	for _, s := range h.image() {
		if s.holds(at) {
			return at, true
		}
	}
	return 0, false
}

// prefixed returns text behind a separator, "" when there is none.
func prefixed(separator, text string) string {
	if text == "" {
		return ""
	}
	return separator + text
}
