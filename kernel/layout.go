package kernel

import (
	"errors"
	"fmt"

	"inquest/kernel/x86"
	"inquest/vmcore"
)

// Fixed corners of the x86-64 address space (Documentation/arch/x86/x86_64/mm.rst).
const (
	startKernelMap = 0xffffffff80000000 // __START_KERNEL_map
	imageSize      = 1 << 30            // KERNEL_IMAGE_SIZE with RANDOMIZE_BASE
	maxText        = 256 << 20          // no kernel image is larger
	maxCR3         = 64                 // CPUs whose page tables are tried
)

// Layout says where the kernel was put.
type Layout struct {
	KASLROffset uint64 // how far the image moved from its link address; 0 also when unknown
	PhysBase    uint64 // physical = virtual - __START_KERNEL_map + PhysBase, in the image
	Text        Addr   // _stext, or the first mapped byte of the image
	PageTable   vmcore.PhysAddr
	FiveLevel   bool   // 5-level page tables
	EncryptMask uint64 // SME/SEV bit in page table entries
	Source      string // what told so: "VMCOREINFO" or "CR3 of CPU n"
}

// findLayout takes the layout from VMCOREINFO, else from the page table that a
// CPU ran on. VMCOREINFO may be another kernel's, if it was found in memory: then
// what it says is the page table maps nothing.
func findLayout(d *vmcore.Dump, info *vmcore.VMCoreInfo) (Layout, error) {
	var l Layout
	var infoErr error = ErrNotKernel
	if info != nil {
		if l, infoErr = layoutFromInfo(info); infoErr == nil {
			pt := x86.PageTable{Mem: d, Root: l.PageTable, FiveLevel: l.FiveLevel, EncryptMask: l.EncryptMask}
			if _, err := pt.Walk(uint64(l.Text)); !errors.Is(err, x86.ErrNotMapped) {
				return l, nil
			}
		}
	}
	for _, cpu := range d.CPUs[:min(len(d.CPUs), maxCR3)] {
		if !cpu.HasControl {
			continue
		}
		if l, ok := layoutFromCR3(d, cpu); ok {
			return l, nil
		}
	}
	return l, infoErr
}

// layoutFromInfo uses what arch_crash_save_vmcoreinfo() writes
// (arch/x86/kernel/vmcore_info_64.c, before 6.9 machine_kexec_64.c).
func layoutFromInfo(info *vmcore.VMCoreInfo) (Layout, error) {
	l := Layout{Source: "VMCOREINFO"}
	phys, ok := info.Number("phys_base")
	if !ok {
		return l, fmt.Errorf("VMCOREINFO has no phys_base: %w", ErrNotKernel)
	}
	l.PhysBase = uint64(phys)
	if s, ok := info.Get("KERNELOFFSET"); ok {
		if _, err := fmt.Sscanf(s, "%x", &l.KASLROffset); err != nil {
			return l, fmt.Errorf("VMCOREINFO KERNELOFFSET=%q: %w", s, ErrCorrupt)
		}
	}
	text, _ := info.Symbol("_stext")
	l.Text = Addr(text)
	pgd, ok := info.Symbol("swapper_pg_dir")
	if !ok {
		pgd, ok = info.Symbol("init_top_pgt")
	}
	if !ok || pgd < startKernelMap {
		return l, fmt.Errorf("VMCOREINFO names no page table: %w", ErrNotKernel)
	}
	l.PageTable = vmcore.PhysAddr(pgd - startKernelMap + l.PhysBase)
	five, _ := info.Number("pgtable_l5_enabled")
	l.FiveLevel = five == 1
	mask, _ := info.Number("sme_mask")
	l.EncryptMask = uint64(mask)
	return l, nil
}

// layoutFromCR3 looks for the kernel image in the address space of one CPU. The
// image starts at a multiple of 2 MiB.
func layoutFromCR3(d *vmcore.Dump, cpu vmcore.CPU) (Layout, bool) {
	const (
		cr3Flags  = 0xfff | 1<<63
		ptiUser   = 1 << 12 // with page table isolation, the user half of the pair
		cr4LA57   = 1 << 12
		alignment = 2 << 20
	)
	cr3 := cpu.Control[3] &^ cr3Flags
	for _, root := range []uint64{cr3, cr3 &^ ptiUser} {
		pt := x86.PageTable{Mem: d, Root: vmcore.PhysAddr(root), FiveLevel: cpu.Control[4]&cr4LA57 != 0}
		for va := uint64(startKernelMap); va < startKernelMap+imageSize; va += alignment {
			m, err := pt.Walk(va)
			if err != nil {
				continue
			}
			// PTI's user half maps the entry code only; the image proper goes on.
			if _, err := pt.Walk(va + 2*alignment); err != nil {
				break
			}
			return Layout{
				PhysBase:  uint64(m.Phys) - (va - startKernelMap),
				Text:      Addr(va),
				PageTable: pt.Root,
				FiveLevel: pt.FiveLevel,
				Source:    fmt.Sprintf("CR3 of CPU %d", cpu.Index),
			}, true
		}
	}
	return Layout{}, false
}
