package x86

import (
	"encoding/binary"
	"errors"
	"fmt"

	"inquest/vmcore"
)

// ErrNotMapped reports that the page tables map nothing at an address.
var ErrNotMapped = errors.New("address is not mapped")

// ErrNonCanonical reports an address whose upper bits are not a copy of the
// highest implemented one; any access to it raises #GP, not a page fault.
var ErrNonCanonical = errors.New("address is not canonical")

// Bits of a page table entry (Intel SDM vol. 3, 4.5).
const (
	PagePresent   = 1 << 0
	PageWrite     = 1 << 1
	PageUser      = 1 << 2
	PageAccessed  = 1 << 5
	PageDirty     = 1 << 6
	PageLarge     = 1 << 7
	PageGlobal    = 1 << 8
	PageNoExecute = 1 << 63

	pagePhysMask = 0x000f_ffff_ffff_f000
)

// PhysReader is the memory that page tables live in. One that also has a method
// Page, as [vmcore.Dump] does, is asked for whole pages, which saves the copies.
type PhysReader interface {
	ReadPhys(p []byte, addr vmcore.PhysAddr) error
}

type pager interface {
	Page(addr vmcore.PhysAddr) ([]byte, error)
}

// PageTable is one address space: the tables below one CR3.
type PageTable struct {
	Mem       PhysReader
	Root      vmcore.PhysAddr // of the top table, CR3 without its low flag bits
	FiveLevel bool            // CR4.LA57
	// EncryptMask is the bit that memory encryption (AMD SME and SEV) keeps in
	// entries; it is not part of the physical address.
	EncryptMask uint64
}

// Step is one entry that a walk went through.
type Step struct {
	Level string // "PGD", "P4D", "PUD", "PMD", "PTE"
	Entry vmcore.PhysAddr
	Value uint64
}

// Mapping is what the tables say of one address.
type Mapping struct {
	Phys  vmcore.PhysAddr
	Size  uint64 // of the page that maps it: 4 KiB, 2 MiB or 1 GiB
	Flags uint64 // of the last entry; PageWrite and PageNoExecute are combined over all levels
}

var levels = [...]struct {
	name  string
	shift uint
}{{"PGD", 48}, {"P4D", 39}, {"PUD", 30}, {"PMD", 21}, {"PTE", 12}}

// Canonical reports whether va is a valid linear address.
func (t *PageTable) Canonical(va uint64) bool {
	bits := uint(47)
	if t.FiveLevel {
		bits = 56
	}
	top := int64(va) >> bits
	return top == 0 || top == -1
}

// Walk translates va. On failure the error wraps ErrNotMapped, ErrNonCanonical
// or what reading a table returned.
func (t *PageTable) Walk(va uint64) (Mapping, error) {
	return t.walk(va, nil)
}

// Trace is Walk that also returns every entry it went through, the last one
// being where it ended, well or not.
func (t *PageTable) Trace(va uint64) (Mapping, []Step, error) {
	var steps []Step
	m, err := t.walk(va, func(s Step) { steps = append(steps, s) })
	return m, steps, err
}

func (t *PageTable) walk(va uint64, visit func(Step)) (Mapping, error) {
	if !t.Canonical(va) {
		return Mapping{}, fmt.Errorf("%#x: %w", va, ErrNonCanonical)
	}
	first := 1
	if t.FiveLevel {
		first = 0
	}
	table := uint64(t.Root) &^ 0xfff
	writable, noExec := uint64(PageWrite), uint64(0)
	for i := first; i < len(levels); i++ {
		l := levels[i]
		entry := table + (va>>l.shift&511)*8
		v, err := t.read(vmcore.PhysAddr(entry))
		if err != nil {
			return Mapping{}, fmt.Errorf("read %s entry of %#x: %w", l.name, va, err)
		}
		v &^= t.EncryptMask
		if visit != nil {
			visit(Step{l.name, vmcore.PhysAddr(entry), v})
		}
		if v&PagePresent == 0 {
			return Mapping{}, fmt.Errorf("%#x: %w: no %s", va, ErrNotMapped, l.name)
		}
		writable &= v
		noExec |= v & PageNoExecute
		large := v&PageLarge != 0 && (l.name == "PUD" || l.name == "PMD")
		if large || l.name == "PTE" {
			size := uint64(1) << l.shift
			// Bit 12 of a large page's entry is PAT, not address.
			base := v & pagePhysMask &^ (size - 1)
			return Mapping{
				Phys:  vmcore.PhysAddr(base | va&(size-1)),
				Size:  size,
				Flags: v&^(pagePhysMask|PageWrite|PageNoExecute) | writable | noExec,
			}, nil
		}
		table = v & pagePhysMask
	}
	return Mapping{}, fmt.Errorf("%#x: %w", va, ErrNotMapped)
}

// read reads an entry, which lies within one page.
func (t *PageTable) read(at vmcore.PhysAddr) (uint64, error) {
	if p, ok := t.Mem.(pager); ok {
		page, err := p.Page(at)
		if err != nil {
			return 0, err
		}
		return binary.LittleEndian.Uint64(page[int(at)&(len(page)-1):]), nil
	}
	var b [8]byte
	if err := t.Mem.ReadPhys(b[:], at); err != nil {
		return 0, err
	}
	return binary.LittleEndian.Uint64(b[:]), nil
}
