package vmcore

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"fmt"
	"math"
	"slices"
)

// Sizes of the ELF64 structures.
const (
	ehdrSize = 64
	phdrSize = 56
	shdrSize = 64
)

// elfMachines names the machines as uname -m does.
var elfMachines = map[elf.Machine]string{
	elf.EM_X86_64:    "x86_64",
	elf.EM_AARCH64:   "aarch64",
	elf.EM_PPC64:     "ppc64le",
	elf.EM_RISCV:     "riscv64",
	elf.EM_LOONGARCH: "loongarch64",
}

// elfMemory is the memory of an ELF dump.
type elfMemory struct {
	im       image
	pageSize uint64
	file     []extent // memory in the file: physical address to file offset
	known    []extent // all memory that is spoken of, in the file or not
}

// openELF opens a core: /proc/vmcore, makedumpfile -E, dump-guest-memory,
// /proc/kcore. The header's own size is not looked at: QEMU writes 8 there.
func (d *Dump) openELF(f dumpFile) error {
	if err := checkELF(f); err != nil {
		return err
	}
	var ehdr [ehdrSize]byte
	if err := readAt(f.image, ehdr[:], 0); err != nil {
		return fmt.Errorf("%s: read ELF header: %w", f.name, err)
	}
	d.Format = "elf"
	d.Compression = "none"
	d.Machine = elfMachines[elf.Machine(binary.LittleEndian.Uint16(ehdr[18:]))]
	if d.Machine == "" {
		d.Machine = elf.Machine(binary.LittleEndian.Uint16(ehdr[18:])).String()
	}
	notes, err := d.readPhdrs(f.image, ehdr[:])
	if err != nil {
		return fmt.Errorf("%s: %w", f.name, err)
	}
	if len(d.Segments) == 0 {
		return fmt.Errorf("%s: %w", f.name, corrupt("no memory segment in its ELF program headers"))
	}
	var all []byte
	aligned := true // PT_NOTE at a page boundary, where the kernel puts it
	for _, n := range notes {
		p, err := readUpTo(f.image, n.Offset, min(n.FileSize, maxNotes-uint64(len(all))))
		if err != nil {
			d.Incomplete = true
			continue
		}
		d.Incomplete = d.Incomplete || uint64(len(p)) < n.FileSize
		all = append(all, p...)
		aligned = aligned && n.Offset%minPageSize == 0
	}
	d.setNotes(all)
	if is := d.otherCore(); is != "" {
		return &NotDumpError{Path: f.name, Is: is}
	}
	if d.isKcore() {
		d.Format, d.Writer = "kcore", "kernel"
		d.CPUs = nil // its one PRSTATUS is all zeros
		d.dropUnknownPhys()
	}
	d.PageSize = minPageSize
	if d.noteInfo != nil {
		n, ok := parseVMCoreInfo(d.noteInfo, "").number("PAGESIZE")
		if ok && n >= minPageSize && n <= maxPageSize && n&(n-1) == 0 {
			d.PageSize = int(n)
		}
	}
	m := &elfMemory{im: f.image, pageSize: uint64(d.PageSize)}
	if im, ok := f.image.(readerImage); ok && d.Format == "kcore" {
		// A live machine's memory: the size is not known, the content not
		// constant.
		im.size = math.MaxInt64
		m.im, d.FileSize, d.live = im, 0, true
	}
	m.addSegments(d.Segments)
	for _, s := range d.Segments {
		if s.FileSize < s.MemSize && d.Writer == "" {
			d.Writer = "makedumpfile"
		}
		size := uint64(m.im.Size())
		d.Incomplete = d.Incomplete || s.Offset > size && s.FileSize > 0 || s.FileSize > size-min(s.Offset, size)
	}
	switch {
	case d.Writer != "":
	case aligned && d.noteInfo != nil:
		d.Writer = "kernel"
	case d.noteInfo != nil:
		d.Writer = "makedumpfile"
	}
	if n := len(m.known); n > 0 {
		d.MaxPFN = (m.known[n-1].end() + m.pageSize - 1) / m.pageSize
	}
	d.store = m
	return nil
}

// checkELF refuses what cannot be a dump of a 64-bit little-endian machine.
func checkELF(f dumpFile) error {
	no := func(is, hint string) error { return &NotDumpError{Path: f.name, Is: is, Hint: hint} }
	if len(f.head) < 20 {
		return fmt.Errorf("%s: %w", f.name, corrupt("ELF header cut after %d bytes", len(f.head)))
	}
	order := binary.ByteOrder(binary.LittleEndian)
	if f.head[elf.EI_DATA] == byte(elf.ELFDATA2MSB) {
		order = binary.BigEndian
	}
	switch t := elf.Type(order.Uint16(f.head[16:])); t {
	case elf.ET_CORE:
	case elf.ET_EXEC, elf.ET_DYN:
		return no("an ELF executable or library (a vmlinux is one)", "name the dump; a vmlinux only adds debug information to it")
	case elf.ET_REL:
		return no("an ELF object file (a kernel module is one)", "")
	default:
		return no(fmt.Sprintf("an ELF file of type %d", t), "")
	}
	if order != binary.LittleEndian {
		return no("an ELF core of a big-endian machine", "only little-endian 64-bit machines are supported")
	}
	if f.head[elf.EI_CLASS] != byte(elf.ELFCLASS64) {
		return no("a 32-bit ELF core", "of a 32-bit machine makedumpfile and kexec --elf64-core-headers can write 64-bit cores, but only 64-bit kernels are supported")
	}
	return nil
}

// readPhdrs files the PT_LOADs in d.Segments and returns the PT_NOTEs.
func (d *Dump) readPhdrs(im image, ehdr []byte) (notes []Segment, err error) {
	phoff := binary.LittleEndian.Uint64(ehdr[32:])
	entry := uint64(binary.LittleEndian.Uint16(ehdr[54:]))
	count := uint64(binary.LittleEndian.Uint16(ehdr[56:]))
	if entry < phdrSize {
		return nil, corrupt("ELF program headers of %d bytes", entry)
	}
	if count == 0xffff { // PN_XNUM: too many for 16 bits
		var shdr [shdrSize]byte
		if err := readAt(im, shdr[:], binary.LittleEndian.Uint64(ehdr[40:])); err != nil {
			return nil, fmt.Errorf("read the ELF section header that counts the program headers: %w", err)
		}
		count = uint64(binary.LittleEndian.Uint32(shdr[44:]))
	}
	if size := uint64(im.Size()); phoff > size {
		return nil, corrupt("ELF program headers at %#x lie beyond the end of the file", phoff)
	} else if have := (size - phoff) / entry; have < count {
		count, d.Incomplete = have, true
	}
	// Bounded steps: memory grows with what the file has, not with what
	// it claims.
	buf := make([]byte, 1024*entry)
	for count > 0 {
		n := min(count, 1024)
		p := buf[:n*entry]
		if err := readAt(im, p, phoff); err != nil {
			return nil, fmt.Errorf("read ELF program headers: %w", err)
		}
		for ; len(p) > 0; p = p[entry:] {
			s := Segment{
				Offset:   binary.LittleEndian.Uint64(p[8:]),
				Virt:     binary.LittleEndian.Uint64(p[16:]),
				Phys:     binary.LittleEndian.Uint64(p[24:]),
				FileSize: binary.LittleEndian.Uint64(p[32:]),
				MemSize:  binary.LittleEndian.Uint64(p[40:]),
			}
			switch elf.ProgType(binary.LittleEndian.Uint32(p)) {
			case elf.PT_LOAD:
				d.Segments = append(d.Segments, s)
			case elf.PT_NOTE:
				notes = append(notes, s)
			}
		}
		phoff += n * entry
		count -= n
	}
	return notes, nil
}

// otherCore says whose core this is if it is not a Linux kernel's.
func (d *Dump) otherCore() string {
	const ntAuxv, ntFile = 6, 0x46494c45
	for _, n := range d.Notes {
		switch {
		case n.Name == "VBCORE":
			return "a VirtualBox core"
		case n.Name == "Xen" && d.noteInfo == nil:
			return "a Xen core"
		case n.Name == "CORE" && (n.Type == ntAuxv || n.Type == ntFile) && d.noteInfo == nil:
			return "the core of a user process"
		}
	}
	return ""
}

// isKcore recognises /proc/kcore by the process it pretends to be: its
// NT_PRPSINFO names "vmlinux" (fs/proc/kcore.c).
func (d *Dump) isKcore() bool {
	const fname = 40 // in struct elf_prpsinfo
	return slices.ContainsFunc(d.Notes, func(n Note) bool {
		return n.Name == "CORE" && n.Type == ntPRPSInfo && len(n.Desc) >= fname+16 &&
			bytes.HasPrefix(n.Desc[fname:], []byte("vmlinux\x00"))
	})
}

// dropUnknownPhys marks /proc/kcore's segments that have no physical address. Since Linux
// 4.11 (464920104bf7) that is p_paddr -1, except for RAM and the kernel's
// text; before, p_paddr is 0 in all of them.
func (d *Dump) dropUnknownPhys() {
	zero := 0
	for _, s := range d.Segments {
		if s.Phys == 0 {
			zero++
		}
	}
	for i := range d.Segments {
		if d.Segments[i].Phys == 0 && zero > 1 {
			d.Segments[i].Phys = NoPhys
		}
	}
}

// addSegments lays the segments out by physical address. QEMU with paging=on
// writes memory once for each virtual mapping of it; the first one is taken.
func (m *elfMemory) addSegments(segs []Segment) {
	const limit = maxPFN * minPageSize
	for _, s := range slices.Backward(segs) {
		if s.Phys >= limit {
			continue
		}
		mem := min(max(s.MemSize, s.FileSize), limit-s.Phys)
		file := min(s.FileSize, mem)
		if s.Offset > math.MaxInt64 || file > math.MaxInt64-s.Offset {
			file = 0
		}
		if mem > 0 {
			m.known = append(m.known, extent{start: s.Phys, size: mem})
		}
		if file > 0 {
			m.file = append(m.file, extent{start: s.Phys, size: file, off: s.Offset})
		}
	}
	m.known = disjoint(m.known)
	m.file = disjoint(m.file)
}

func (m *elfMemory) present(pfn uint64) bool { return overlaps(m.file, pfn, m.pageSize) }

func overlaps(list []extent, pfn, pageSize uint64) bool {
	if pfn >= maxPFN {
		return false
	}
	e := from(list, pfn*pageSize)
	return len(e) > 0 && e[0].start < (pfn+1)*pageSize
}

// readPage reads a page. Firmware may leave RAM that begins or ends within a
// page; the bytes of that page that the file lacks read as zeros.
func (m *elfMemory) readPage(pfn uint64, dst []byte) error {
	if !m.present(pfn) {
		if overlaps(m.known, pfn, m.pageSize) {
			return ErrExcluded
		}
		return ErrAbsent
	}
	start, end := pfn*m.pageSize, (pfn+1)*m.pageSize
	pos := start
	for _, e := range from(m.file, start) {
		if e.start >= end {
			break
		}
		if e.start > pos {
			clear(dst[pos-start : e.start-start])
			pos = e.start
		}
		to := min(e.end(), end)
		if err := readAt(m.im, dst[pos-start:to-start], e.off+(pos-e.start)); err != nil {
			return err
		}
		pos = to
	}
	clear(dst[pos-start:])
	return nil
}

func (m *elfMemory) counts() (present, excluded uint64) {
	pageRuns(m.file, m.pageSize, func(_, n uint64) bool { present += n; return true })
	pageRuns(m.known, m.pageSize, func(_, n uint64) bool { excluded += n; return true })
	return present, excluded - present
}

func (m *elfMemory) runs(yield func(pfn, n uint64) bool) { pageRuns(m.file, m.pageSize, yield) }

func (m *elfMemory) existed(yield func(pfn, n uint64) bool) { pageRuns(m.known, m.pageSize, yield) }

// pageRuns yields the runs of pages that the extents touch.
func pageRuns(list []extent, pageSize uint64, yield func(pfn, n uint64) bool) {
	var start, end uint64 // the run being gathered
	for _, e := range list {
		first, last := e.start/pageSize, (e.end()+pageSize-1)/pageSize
		if first > end {
			if end > start && !yield(start, end-start) {
				return
			}
			start = first
		} else if end == start {
			start = first
		}
		end = max(end, last)
	}
	if end > start {
		yield(start, end-start)
	}
}
