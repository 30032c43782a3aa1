package kernel

import (
	"bytes"
	"errors"
	"fmt"
	"runtime"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"inquest/kernel/x86"
	"inquest/vmcore"
)

const pageSize = 4096

// memory reads kernel addresses through the kernel's page table.
type memory struct {
	dump   *vmcore.Dump
	pt     x86.PageTable
	layout Layout
	tlb    [1024]atomic.Pointer[tlbEntry]
}

// tlbEntry remembers where the page at virt is.
type tlbEntry struct {
	virt uint64 // page number
	phys vmcore.PhysAddr
}

func newMemory(d *vmcore.Dump, l Layout) *memory {
	return &memory{
		dump:   d,
		layout: l,
		pt:     x86.PageTable{Mem: d, Root: l.PageTable, FiveLevel: l.FiveLevel, EncryptMask: l.EncryptMask},
	}
}

// page returns the page that holds addr, pageSize bytes.
func (m *memory) page(addr Addr) ([]byte, error) {
	vpn := uint64(addr) / pageSize
	slot := &m.tlb[(vpn^vpn>>10)%uint64(len(m.tlb))]
	e := slot.Load()
	if e == nil || e.virt != vpn {
		phys, err := m.translate(addr &^ (pageSize - 1))
		if err != nil {
			return nil, err
		}
		e = &tlbEntry{vpn, phys}
		slot.Store(e)
	}
	p, err := m.dump.Page(e.phys)
	if err != nil {
		return nil, fmt.Errorf("%v: %w", addr, err)
	}
	// A header may claim pages larger than the machine's.
	at := int(uint64(e.phys)%uint64(len(p))) &^ (pageSize - 1)
	if len(p) < at+pageSize {
		return nil, fmt.Errorf("%v: page of %d bytes: %w", addr, len(p), ErrCorrupt)
	}
	return p[at : at+pageSize], nil
}

func (m *memory) translate(addr Addr) (vmcore.PhysAddr, error) {
	mapping, err := m.pt.Walk(uint64(addr))
	if err == nil {
		return mapping.Phys, nil
	}
	// Where the page tables themselves are missing, the image is where its
	// layout says.
	missing := !errors.Is(err, x86.ErrNotMapped) && !errors.Is(err, x86.ErrNonCanonical)
	if missing && addr >= m.layout.Text && addr < m.layout.Text+maxText {
		return vmcore.PhysAddr(uint64(addr) - startKernelMap + m.layout.PhysBase), nil
	}
	return 0, err
}

// Translate returns the physical address behind a kernel address.
func (k *Kernel) Translate(addr Addr) (vmcore.PhysAddr, error) {
	return k.mem.translate(addr)
}

// Read fills p with the memory at addr. It fails when any byte is missing, with an
// error that names the address and wraps what vmcore or x86 said of it; what p then
// holds is undefined.
func (k *Kernel) Read(p []byte, addr Addr) error {
	if err := inSpace(addr, len(p)); err != nil {
		return err
	}
	for len(p) > 0 {
		page, err := k.mem.page(addr)
		if err != nil {
			return err
		}
		n := copy(p, page[addr%pageSize:])
		p = p[n:]
		addr += Addr(n)
	}
	return nil
}

// inSpace reports whether n bytes at addr end within the address space.
func inSpace(addr Addr, n int) error {
	if n < 0 || n > 0 && addr > ^Addr(0)-Addr(n-1) {
		return fmt.Errorf("%d bytes at %v: %w", n, addr, x86.ErrNonCanonical)
	}
	return nil
}

// readParallel is Read for megabytes: decompressing is what takes the time.
func (k *Kernel) readParallel(p []byte, addr Addr) error {
	const chunk = 64 << 10
	if err := inSpace(addr, len(p)); err != nil {
		return err
	}
	var g errgroup.Group
	g.SetLimit(runtime.GOMAXPROCS(0))
	for len(p) > 0 {
		n := min(len(p), chunk-int(addr%chunk))
		part, at := p[:n], addr
		g.Go(func() error { return k.Read(part, at) })
		p, addr = p[n:], addr+Addr(n)
	}
	return g.Wait()
}

// maxSlice bounds Slice, whose size often comes from the dump itself.
const maxSlice = 64 << 20

// Slice returns n bytes at addr, read-only: without a copy when they lie in one
// page. More than 64 MiB are an error that wraps ErrCorrupt.
func (k *Kernel) Slice(addr Addr, n int) ([]byte, error) {
	if n < 0 || n > maxSlice {
		return nil, fmt.Errorf("read %d bytes at %v: %w", n, addr, ErrCorrupt)
	}
	if off := int(addr % pageSize); off+n <= pageSize {
		page, err := k.mem.page(addr)
		if err != nil {
			return nil, err
		}
		return page[off : off+n], nil
	}
	p := make([]byte, n)
	return p, k.Read(p, addr)
}

// U8 reads one byte.
func (k *Kernel) U8(addr Addr) (uint8, error) {
	page, err := k.mem.page(addr)
	if err != nil {
		return 0, err
	}
	return page[addr%pageSize], nil
}

// U16 reads a little-endian 16-bit word.
func (k *Kernel) U16(addr Addr) (uint16, error) {
	v, err := k.word(addr, 2)
	return uint16(v), err
}

// U32 reads a little-endian 32-bit word.
func (k *Kernel) U32(addr Addr) (uint32, error) {
	v, err := k.word(addr, 4)
	return uint32(v), err
}

// U64 reads a little-endian 64-bit word.
func (k *Kernel) U64(addr Addr) (uint64, error) { return k.word(addr, 8) }

// Pointer reads a pointer.
func (k *Kernel) Pointer(addr Addr) (Addr, error) {
	v, err := k.word(addr, 8)
	return Addr(v), err
}

func (k *Kernel) word(addr Addr, n int) (uint64, error) {
	if off := int(addr % pageSize); off+8 <= pageSize {
		page, err := k.mem.page(addr)
		if err != nil {
			return 0, err
		}
		v := le.Uint64(page[off:])
		return v & (1<<(8*n-1)<<1 - 1), nil
	}
	var b [8]byte
	if err := k.Read(b[:n], addr); err != nil {
		return 0, err
	}
	return le.Uint64(b[:]), nil
}

// CString reads a NUL-terminated string of at most limit bytes. A string that
// runs into missing memory, or past the limit, is returned as far as it goes.
func (k *Kernel) CString(addr Addr, limit int) (string, error) {
	var out []byte
	for limit > 0 {
		page, err := k.mem.page(addr)
		if err != nil {
			if len(out) > 0 {
				return string(out), nil
			}
			return "", err
		}
		part := page[addr%pageSize:]
		part = part[:min(len(part), limit)]
		if i := bytes.IndexByte(part, 0); i >= 0 {
			return string(append(out, part[:i]...)), nil
		}
		out = append(out, part...)
		limit -= len(part)
		addr += Addr(len(part))
	}
	return string(out), nil
}
