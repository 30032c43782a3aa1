package heap

import (
	"encoding/binary"
	"fmt"
	"strings"

	"inquest/kernel"
	"inquest/vmcore"
)

var le = binary.LittleEndian

// PageInfo is what the struct page of some memory says.
type PageInfo struct {
	Addr     kernel.Addr // of the struct page
	PFN      uint64
	Phys     vmcore.PhysAddr
	Flags    []string // PG_* that are set, without the prefix
	Type     string   // "slab", "buddy", "table" …: what the page is marked as; "" when not marked
	RefCount int
	MapCount int         // page table entries that map it; 0 when Type is set
	Mapping  kernel.Addr // struct address_space or anon_vma, 0 for none
	Anon     bool        // Mapping is a struct anon_vma
	Inode    kernel.Addr // of a page of a file
	File     string      // a name of that file
	Index    uint64      // page number within the mapping
	Head     kernel.Addr // struct page of the compound page that it is part of; Addr when it is none
	Order    int         // the compound or free page that it is part of has 1<<Order pages
}

// pageLayout is where struct page keeps what this package reads.
type pageLayout struct {
	size                           uint64 // of struct page
	flags                          uint64 // offsets
	typ                            uint64 // page_type and _mapcount, one union
	ref                            uint64
	head                           uint64 // compound_head, or compound_info since 7.1
	mapping, index, private, order uint64
	orderBytes                     uint64   // how large the field at order is; 0 when there is none
	orderPage                      uint64   // which page of the compound page has it
	names                          []string // of flags, by bit
	headFlag                       uint64   // mask of PG_head

	slabFlag uint64            // mask of PG_slab, 0 when it is a page type
	types    map[uint8]string  // by the top byte of page_type (since 6.12)
	exact    map[uint32]string // by all of page_type (until 6.11)
}

// findPageLayout asks the BTF for struct page and how page types are told.
func (h *Heap) findPageLayout() (*pageLayout, error) {
	l := &pageLayout{}
	var err error
	if l.size, err = h.k.SizeOf("page"); err != nil {
		return nil, err
	}
	const largest = 512
	if l.size < 32 || l.size > largest {
		return nil, fmt.Errorf("struct page of %d bytes: %w", l.size, kernel.ErrCorrupt)
	}
	page, err := h.k.Object("page", 0)
	if err != nil {
		return nil, err
	}
	for _, f := range []struct {
		to    *uint64
		names []string
	}{
		{&l.flags, []string{"flags"}},
		{&l.typ, []string{"page_type", "_mapcount"}},
		{&l.ref, []string{"_refcount"}},
		{&l.head, []string{"compound_head", "compound_info"}}, // the latter since 7.1
		{&l.mapping, []string{"mapping"}},
		{&l.index, []string{"index", "__folio_index"}}, // the latter since 6.16
		{&l.private, []string{"private"}},
	} {
		for _, name := range f.names {
			var m kernel.Object
			if m, err = page.Member(name); err == nil {
				*f.to = uint64(m.Addr)
				break
			}
		}
		if err != nil {
			return nil, fmt.Errorf("struct page: %w", err)
		}
		if *f.to+8 > l.size && *f.to+4 != l.size {
			return nil, fmt.Errorf("struct page: %s at %d: %w", f.names[0], *f.to, kernel.ErrCorrupt)
		}
	}
	h.findOrder(l)
	h.findPageFlags(l)
	h.findPageTypes(l)
	return l, nil
}

// findOrder finds where a compound page keeps its order: in its second page, as
// page.compound_order, then as folio._folio_order, and since 6.6 in the low byte of
// folio._flags_1.
func (h *Heap) findOrder(l *pageLayout) {
	if off, err := h.k.OffsetOf("page", "compound_order"); err == nil {
		l.order, l.orderBytes, l.orderPage = off, 1, 1
		return
	}
	for _, name := range []string{"_folio_order", "_flags_1"} {
		if off, err := h.k.OffsetOf("folio", name); err == nil {
			l.order, l.orderBytes, l.orderPage = off%l.size, 1, off/l.size
			return
		}
	}
}

func (h *Heap) findPageFlags(l *pageLayout) {
	// Several flags share a bit; the first name is the general one.
	for _, e := range h.enum("enum pageflags") {
		name, isFlag := strings.CutPrefix(e.Name, "PG_")
		if !isFlag || e.Value >= 64 {
			continue
		}
		for uint64(len(l.names)) <= e.Value {
			l.names = append(l.names, "")
		}
		if l.names[e.Value] == "" {
			l.names[e.Value] = name
		}
		switch name {
		case "head":
			l.headFlag = 1 << e.Value
		case "slab":
			l.slabFlag = 1 << e.Value
		}
	}
}

// findPageTypes learns how a page is marked as free, slab and so on: by the top byte
// of page_type since 6.12 (enum pagetype, PGTY_*); by a bit of it that is cleared
// before, whose value VMCOREINFO has for makedumpfile's sake.
func (h *Heap) findPageTypes(l *pageLayout) {
	for _, e := range h.enum("enum pagetype") {
		// The last value is what a count below zero looks like.
		if name, ok := strings.CutPrefix(e.Name, "PGTY_"); ok && e.Value < 255 {
			if l.types == nil {
				l.types = map[uint8]string{}
			}
			l.types[uint8(e.Value)] = name
		}
	}
	if l.types != nil {
		l.slabFlag = 0
		return
	}
	l.exact = map[uint32]string{}
	const bitsOff = 0xffffffff
	if l.slabFlag != 0 {
		// In 5.11 memcg_data took the place of PG_kmemcg, and PG_table and PG_guard
		// moved down by its bit (commit 18b2db3b0385).
		l.exact[bitsOff&^0x80] = "buddy"
		if h.k.HasMember("page", "memcg_data") {
			l.exact[bitsOff&^0x100], l.exact[bitsOff&^0x200], l.exact[bitsOff&^0x400] = "offline", "table", "guard"
		} else {
			l.exact[bitsOff&^0x400] = "table"
		}
	}
	info := h.k.VMCoreInfo()
	if info == nil {
		return
	}
	for _, n := range []struct{ number, name string }{
		{"PAGE_BUDDY_MAPCOUNT_VALUE", "buddy"}, {"PAGE_OFFLINE_MAPCOUNT_VALUE", "offline"},
		{"PAGE_HUGETLB_MAPCOUNT_VALUE", "hugetlb"}, {"PAGE_SLAB_MAPCOUNT_VALUE", "slab"},
	} {
		if v, ok := info.Number(n.number); ok {
			l.exact[uint32(v)] = n.name
			if n.name == "slab" {
				l.slabFlag = 0
			}
		}
	}
}

// rawPage is the memory of a struct page.
type rawPage []byte

func (l *pageLayout) flagsOf(p rawPage) uint64 { return le.Uint64(p[l.flags:]) }
func (l *pageLayout) typeOf(p rawPage) uint32  { return le.Uint32(p[l.typ:]) }
func (l *pageLayout) headOf(p rawPage) uint64  { return le.Uint64(p[l.head:]) }
func (l *pageLayout) isTail(p rawPage) bool    { return l.headOf(p)&1 == 1 }
func (l *pageLayout) isHead(p rawPage) bool    { return l.flagsOf(p)&l.headFlag != 0 }
func (l *pageLayout) refCount(p rawPage) int   { return int(int32(le.Uint32(p[l.ref:]))) }

// isSlab reports whether a head page is that of a slab.
func (l *pageLayout) isSlab(p rawPage) bool {
	if l.isTail(p) {
		return false
	}
	flags := l.flagsOf(p)
	if flags == ^uint64(0) { // not initialised: PAGE_POISON_PATTERN
		return false
	}
	if l.slabFlag != 0 {
		return flags&l.slabFlag != 0
	}
	return l.kindOf(p) == "slab"
}

// kindOf returns what the page is marked as by its type, "" when it has none.
func (l *pageLayout) kindOf(p rawPage) string {
	t := l.typeOf(p)
	if l.types != nil {
		// PGTY_* are 0xf0 and up; below is a count of mappings.
		return l.types[uint8(t>>24)]
	}
	return l.exact[t]
}

// pageAt returns the address of the struct page of a page frame.
func (h *Heap) pageAt(l *pageLayout, pfn uint64) kernel.Addr {
	return h.spaces().vmemmap.start + kernel.Addr(pfn*l.size)
}

// pfnOf is the reverse of pageAt; false when addr is no struct page's.
func (h *Heap) pfnOf(l *pageLayout, addr kernel.Addr) (pfn uint64, ok bool) {
	s := h.spaces().vmemmap
	if !s.holds(addr) {
		return 0, false
	}
	off := uint64(addr - s.start)
	return off / l.size, off%l.size == 0
}

// virt returns the direct map's address of a page frame.
func (h *Heap) virt(pfn uint64) kernel.Addr {
	return h.spaces().direct.start + kernel.Addr(pfn<<pageShift)
}

func (h *Heap) readPage(l *pageLayout, pfn uint64) (rawPage, error) {
	b, err := h.k.Slice(h.pageAt(l, pfn), int(l.size))
	if err != nil {
		return nil, fmt.Errorf("read struct page of page frame %#x: %w", pfn, err)
	}
	return b, nil
}

// headPage returns the first page of the compound page that a page is part of.
func (h *Heap) headPage(l *pageLayout, pfn uint64, p rawPage) (uint64, rawPage, error) {
	if !l.isTail(p) {
		return pfn, p, nil
	}
	info := l.headOf(p)
	at := kernel.Addr(info - 1)
	// Since 7.1 (commit 8c846c879e22) it may be a mask that makes the address of the
	// tail that of the head: ones above the size of the compound page's struct pages, then bit 0.
	if mask := info &^ 1; -mask&(-mask-1) == 0 && mask >= 1<<63 && !h.spaces().vmemmap.holds(at) {
		at = h.pageAt(l, pfn) & kernel.Addr(mask)
	}
	head, ok := h.pfnOf(l, at)
	if !ok || head > pfn {
		return pfn, p, fmt.Errorf("head of the compound page of page frame %#x is %v: %w", pfn, at, kernel.ErrCorrupt)
	}
	p, err := h.readPage(l, head)
	if err == nil && l.isTail(p) {
		err = fmt.Errorf("head of the compound page of page frame %#x, %#x, is a tail: %w", pfn, head, kernel.ErrCorrupt)
	}
	return head, p, err
}

// maxOrder is MAX_PAGE_ORDER at its largest, and more than hugetlb's 1 GiB.
const maxOrder = 18

// orderOf returns the order of the compound page of that head, 0 when it is none.
func (h *Heap) orderOf(l *pageLayout, pfn uint64, head rawPage) int {
	if l.headFlag != 0 && !l.isHead(head) || l.orderBytes == 0 {
		return 0
	}
	p, err := h.readPage(l, pfn+l.orderPage)
	if err != nil || p[l.order] > maxOrder {
		return 0
	}
	return int(p[l.order])
}

// describePage reads all that a PageInfo says.
func (h *Heap) describePage(l *pageLayout, pfn uint64, p rawPage) (*PageInfo, error) {
	info := &PageInfo{
		Addr: h.pageAt(l, pfn), PFN: pfn, Phys: vmcore.PhysAddr(pfn << pageShift),
		Type: l.kindOf(p), RefCount: l.refCount(p),
	}
	head, hp, err := h.headPage(l, pfn, p)
	info.Head = h.pageAt(l, head)
	info.Order = h.orderOf(l, head, hp)
	flags := l.flagsOf(hp)
	for bit, name := range l.names {
		if name != "" && flags>>bit&1 == 1 {
			info.Flags = append(info.Flags, name)
		}
	}
	if head != pfn {
		info.RefCount = l.refCount(hp)
		if info.Type == "" {
			info.Type = l.kindOf(hp)
		}
	}
	if l.slabFlag != 0 && flags&l.slabFlag != 0 {
		info.Type = "slab"
	}
	if info.Type != "" {
		return info, err
	}
	if count := int32(l.typeOf(p)) + 1; count > 0 {
		info.MapCount = int(count)
	}
	h.describeMapping(l, info, hp)
	return info, err
}

// describeMapping says whose a page of user memory or of the page cache is. The low
// bits of the pointer tell (PAGE_MAPPING_FLAGS, include/linux/page-flags.h).
func (h *Heap) describeMapping(l *pageLayout, info *PageInfo, p rawPage) {
	const anon, movable = 1, 2
	mapping := le.Uint64(p[l.mapping:])
	if mapping < 1<<63 {
		return
	}
	info.Index = le.Uint64(p[l.index:])
	info.Mapping = kernel.Addr(mapping &^ (anon | movable))
	info.Anon = mapping&anon != 0
	if mapping&(anon|movable) != 0 {
		return
	}
	space, err := h.k.Object("address_space", info.Mapping)
	if err != nil {
		return
	}
	if info.Inode, err = space.Pointer("host"); err != nil || info.Inode == 0 {
		return
	}
	info.File = h.inodeName(info.Inode)
}

// inodeName returns a name of a file: "libc.so.6 (ext4)".
func (h *Heap) inodeName(inode kernel.Addr) string {
	o, err := h.k.Object("inode", inode)
	if err != nil {
		return ""
	}
	var name string
	if alias, err := o.Pointer("i_dentry.first"); err == nil && alias != 0 {
		member := "d_u.d_alias"
		if !h.k.HasMember("dentry", member) { // as in 7.3
			member = "d_alias"
		}
		if d, err := h.k.ContainerOf(alias, "dentry", member); err == nil {
			name, _ = d.String("d_name.name")
		}
	}
	if fs, err := o.String("i_sb->s_type->name"); err == nil {
		name = strings.TrimSpace(name + " (" + fs + ")")
	}
	return name
}

// identifyVmemmap describes an address in the array of struct page.
func (h *Heap) identifyVmemmap(m *Memory) {
	m.Kind = Vmemmap
	l, err := h.pages()
	if err != nil {
		m.Desc = "in the array of struct page"
		m.miss(err)
		return
	}
	off := uint64(m.Addr - h.spaces().vmemmap.start)
	pfn := off / l.size
	m.Desc = fmt.Sprintf("%s the struct page of page frame %#x (physical %#x, direct map %v)", into(off%l.size), pfn, pfn<<pageShift, h.virt(pfn))
	if p, err := h.readPage(l, pfn); err != nil {
		m.miss(err)
	} else {
		m.Page, err = h.describePage(l, pfn, p)
		m.miss(err)
	}
}

// into begins the description of a place in something.
func into(offset uint64) string {
	if offset == 0 {
		return "the start of"
	}
	return fmt.Sprintf("%d bytes into", offset)
}
