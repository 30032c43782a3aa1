package heap

import (
	"errors"
	"fmt"
	"strings"

	"inquest/kernel"
	"inquest/kernel/x86"
	"inquest/vmcore"
)

// identifyDirect describes an address in the direct map of physical memory.
func (h *Heap) identifyDirect(m *Memory) {
	phys := vmcore.PhysAddr(m.Addr - h.spaces().direct.start)
	pfn := uint64(phys) >> pageShift
	if pfn >= h.k.Dump.MaxPFN {
		m.Kind, m.Desc = Hole, fmt.Sprintf("in the direct map, behind the machine's memory: physical %#x", uint64(phys))
		return
	}
	if h.inPerCPU(m) {
		h.addPage(m, pfn)
		return
	}
	l, err := h.pages()
	if err != nil {
		m.Kind, m.Desc = Page, fmt.Sprintf("physical %#x", uint64(phys))
		m.miss(err)
		return
	}
	p, err := h.readPage(l, pfn)
	switch {
	case errors.Is(err, x86.ErrNotMapped):
		m.Kind, m.Desc = Hole, fmt.Sprintf("in the direct map, where the machine has no memory: physical %#x", uint64(phys))
		return
	case err != nil:
		m.Kind, m.Desc = Page, fmt.Sprintf("physical %#x; its struct page is not in the dump", uint64(phys))
		m.miss(err)
		return
	}
	head, hp, err := h.headPage(l, pfn, p)
	if err != nil {
		m.miss(err)
	} else if l.isSlab(hp) && !h.inKfence(m) {
		m.Page, err = h.describePage(l, pfn, p)
		m.miss(err)
		h.identifySlab(m, head, hp)
		return
	}
	m.Page, err = h.describePage(l, pfn, p)
	m.miss(err)
	if at, ok := h.imageAddr(phys); ok && m.Page.hasFlag("reserved") {
		h.inImage(m, at)
		m.Desc = fmt.Sprintf("the direct map's view of %v: %s", at, m.Desc)
		return
	}
	h.identifyPage(m, l, pfn, p)
}

// inKfence reports whether an address is in KFENCE's pool, whose pages are marked as
// slabs but are none (mm/kfence/core.c).
func (h *Heap) inKfence(m *Memory) bool {
	pool, ok := h.kfence()
	return ok && pool.holds(m.Addr)
}

// kfence returns KFENCE's pool.
func (h *Heap) kfence() (span, bool) {
	at, err := h.k.Symbol("__kfence_pool")
	if err != nil {
		return span{}, false
	}
	start, err := h.k.Pointer(at)
	if err != nil || start == 0 {
		return span{}, false
	}
	// CONFIG_KFENCE_NUM_OBJECTS is at most 65535; the metadata tells how many there are.
	const most = 65535
	n := uint64(255)
	for _, name := range []string{"kfence_metadata", "kfence_metadata_init"} {
		sym, err := h.k.Lookup(name)
		size, err2 := h.k.SizeOf("kfence_metadata")
		if err == nil && err2 == nil && size > 0 && sym.Size/size > n {
			n = min(sym.Size/size, most)
		}
	}
	return spanOf(start, kernel.Addr(2*pageSize*(1+n))), true
}

// addPage adds what struct page says, where it can be read.
func (h *Heap) addPage(m *Memory, pfn uint64) {
	l, err := h.pages()
	if err != nil {
		return
	}
	if p, err := h.readPage(l, pfn); err == nil {
		m.Page, _ = h.describePage(l, pfn, p)
	}
}

func (p *PageInfo) hasFlag(name string) bool {
	for _, f := range p.Flags {
		if f == name {
			return true
		}
	}
	return false
}

// identifyPage describes a page that is no slab's by what its struct page says.
func (h *Heap) identifyPage(m *Memory, l *pageLayout, pfn uint64, p rawPage) {
	m.Kind = Page
	page := m.Page
	if page.Type == "buddy" || page.RefCount == 0 && page.Type == "" {
		if head, order, ok := h.freeBlock(l, pfn); ok {
			m.Kind = FreePage
			page.Head, page.Order = h.pageAt(l, head), order
			m.Desc = fmt.Sprintf("in a free page, of a free block of order %d (%d KiB) at %v", order, 4<<order, h.virt(head))
			return
		}
	}
	if page.Type == "large_kmalloc" {
		m.Kind = LargeKmalloc
		head, _ := h.pfnOf(l, page.Head)
		m.Desc = fmt.Sprintf("%s memory of kmalloc() in whole pages, %d KiB at %v", into(uint64(m.Addr-h.virt(head))), 4<<page.Order, h.virt(head))
		return
	}
	if !h.k.HasMember("task_struct", "stack_vm_area") && h.inTaskStack(m) { // without CONFIG_VMAP_STACK
		return
	}
	if h.inKfence(m) {
		m.Desc = "in KFENCE's pool of guarded objects"
		return
	}
	m.Desc = page.describe(h)
}

// freeBlock finds the free block of the page allocator that a page is in. Only the
// first page of a block is marked (PageBuddy); it is aligned to the block's size.
func (h *Heap) freeBlock(l *pageLayout, pfn uint64) (head uint64, order int, ok bool) {
	const maxBuddy = 10 // MAX_PAGE_ORDER
	for o := range maxBuddy + 1 {
		head := pfn &^ (1<<o - 1)
		if o > 0 && head == pfn&^(1<<(o-1)-1) {
			continue // looked at already
		}
		p, err := h.readPage(l, head)
		if err != nil || l.kindOf(p) != "buddy" {
			continue
		}
		size := le.Uint64(p[l.private:])
		if size > maxBuddy || pfn-head >= 1<<size {
			return 0, 0, false
		}
		return head, int(size), true
	}
	return 0, 0, false
}

// describe says in one line what a page is used for.
func (p *PageInfo) describe(h *Heap) string {
	what := "a page"
	switch {
	case p.Type == "table":
		what = "a page of page tables"
	case p.Type != "":
		what = "a page marked " + p.Type
	case p.Anon:
		what = fmt.Sprintf("a page of anonymous user memory (page %#x of anon_vma %v)", p.Index, p.Mapping)
	case p.Inode != 0:
		what = fmt.Sprintf("page %#x of the cache of file %s, inode %v", p.Index, p.File, p.Inode)
	case p.hasFlag("reserved"):
		what = "a reserved page"
	case p.RefCount > 0 && p.MapCount == 0 && p.Mapping == 0:
		what = "a page that the kernel has for itself"
	case p.RefCount == 0:
		what = "a page that nobody uses, but that is not on a free list (perhaps a CPU's)"
	}
	if p.Order > 0 && p.Head != 0 {
		what += fmt.Sprintf(", part of a compound page of order %d", p.Order)
	}
	flags := ""
	if len(p.Flags) > 0 {
		flags = ", flags " + strings.Join(p.Flags, "|")
	}
	return fmt.Sprintf("in %s; %s%s", what, counted(p.RefCount, "reference"), flags)
}

func counted(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
