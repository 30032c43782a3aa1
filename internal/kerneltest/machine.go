package kerneltest

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"maps"
	"slices"

	"github.com/cilium/ebpf/btf"

	"inquest/vmcore"
)

// Where things are.
const (
	StartKernelMap = 0xffffffff80000000
	LinkText       = 0xffffffff81000000 // _text without KASLR
	ModulesBase    = 0xffffffffc0000000
	imagePhys      = 0x2000000
	textSize       = 4 << 20
	pageSize       = 4096
)

// Page table entry bits.
const (
	present = 1 << 0
	write   = 1 << 1
	large   = 1 << 7
	noExec  = 1 << 63
)

var le = binary.LittleEndian

// Machine is a machine to be dumped. Set its fields before anything else.
type Machine struct {
	FiveLevel   bool
	EncryptMask uint64 // of SME
	KASLR       uint64 // how far the image moved
	Kallsyms    Kallsyms
	Release     string
	Missing     map[uint64]bool // pages, by physical address, that the dump lacks
	NoInfo      bool            // leave VMCOREINFO out
	NoSymbols   bool            // leave the symbol tables out
	OtherInfo   bool            // VMCOREINFO speaks of page tables that are none

	pages   map[uint64]*[pageSize]byte // by page number
	areas   []area
	root    uint64 // physical address of the top page table
	next    uint64 // next free address of the image's data
	nextPFN uint64 // next free page of other memory
	info    []string
	notes   []byte
	symbols []Symbol
	types   []btf.Type
	split   func(base []byte) // to be called with the kernel's BTF
	built   bool
}

// area is a mapping.
type area struct{ virt, phys, size uint64 }

// New returns a machine with 4-level page tables and an image that has nothing in it.
func New() *Machine {
	return &Machine{
		KASLR:   0x12000000,
		Release: "6.1.0-test",
		Missing: map[uint64]bool{},
		pages:   map[uint64]*[pageSize]byte{},
		nextPFN: 0x10000,
	}
}

// Text returns the address of _text: 4 MiB of code, in pages of 2 MiB, of which the
// dump holds what is written to.
func (m *Machine) Text() uint64 { return LinkText + m.KASLR }

// PhysBase returns the kernel's phys_base.
func (m *Machine) PhysBase() uint64 { return imagePhys - (m.Text() - StartKernelMap) }

// Root returns the physical address of the top page table.
func (m *Machine) Root() uint64 {
	m.start()
	return m.root
}

// start maps the text, when the fields are set.
func (m *Machine) start() {
	if m.root != 0 {
		return
	}
	m.root = m.newPage()
	m.next = m.Text() + textSize
	for off := uint64(0); off < textSize; off += 2 << 20 {
		m.mapAt(m.Text()+off, imagePhys+off, 2<<20, 0)
	}
	m.Symbol("_text", 'T', m.Text())
	m.Symbol("_stext", 'T', m.Text())
}

func (m *Machine) newPage() uint64 {
	m.nextPFN++
	m.pages[m.nextPFN] = new([pageSize]byte)
	return m.nextPFN * pageSize
}

// Alloc returns zeroed memory among the image's data.
func (m *Machine) Alloc(size, align int) uint64 {
	m.start()
	a := (m.next + uint64(align) - 1) &^ (uint64(align) - 1)
	m.next = a + uint64(size)
	for p := a &^ (pageSize - 1); p < m.next; p += pageSize {
		if _, ok := m.Phys(p); !ok {
			m.mapAt(p, imagePhys+p-m.Text(), pageSize, noExec)
		}
	}
	return a
}

// Put allocates memory that holds data, at a multiple of 8.
func (m *Machine) Put(data []byte) uint64 {
	a := m.Alloc(len(data), 8)
	m.Write(a, data)
	return a
}

// PutString allocates a NUL-terminated string.
func (m *Machine) PutString(s string) uint64 { return m.Put(append([]byte(s), 0)) }

// Map maps one page of 4 KiB, 2 MiB or 1 GiB at virt, and returns its physical address.
func (m *Machine) Map(virt, size uint64) uint64 {
	m.start()
	n := size / pageSize
	pfn := (m.nextPFN + n) &^ (n - 1)
	m.nextPFN = pfn + n
	m.mapAt(virt, pfn*pageSize, size, noExec)
	return pfn * pageSize
}

func (m *Machine) mapAt(virt, phys, size, flags uint64) {
	table := m.root
	shifts := []uint{48, 39, 30, 21, 12}
	if !m.FiveLevel {
		shifts = shifts[1:]
	}
	for _, shift := range shifts {
		entry := table + (virt>>shift&511)*8
		if size == 1<<shift {
			v := phys | present | write | flags | m.EncryptMask
			if shift > 12 {
				v |= large
			} else {
				m.WritePhys(phys, nil)
			}
			m.WritePhys(entry, le.AppendUint64(nil, v))
			m.areas = append(m.areas, area{virt, phys, size})
			return
		}
		var b [8]byte
		m.ReadPhys(b[:], vmcore.PhysAddr(entry))
		next := le.Uint64(b[:]) &^ m.EncryptMask & 0x000f_ffff_ffff_f000
		if next == 0 {
			next = m.newPage()
			m.WritePhys(entry, le.AppendUint64(nil, next|present|write|m.EncryptMask))
		}
		table = next
	}
	panic(fmt.Sprintf("no page has %#x bytes", size))
}

// Phys returns the physical address behind an address.
func (m *Machine) Phys(virt uint64) (uint64, bool) {
	for _, a := range m.areas {
		if virt-a.virt < a.size {
			return a.phys + virt - a.virt, true
		}
	}
	return 0, false
}

// Write stores data at an address, which must be mapped.
func (m *Machine) Write(virt uint64, data []byte) {
	for len(data) > 0 {
		phys, ok := m.Phys(virt)
		if !ok {
			panic(fmt.Sprintf("%#x is not mapped", virt))
		}
		n := min(len(data), int(pageSize-virt%pageSize))
		m.WritePhys(phys, data[:n])
		virt, data = virt+uint64(n), data[n:]
	}
}

// Write64 stores a 64-bit word.
func (m *Machine) Write64(virt, v uint64) { m.Write(virt, le.AppendUint64(nil, v)) }

// Write32 stores a 32-bit word.
func (m *Machine) Write32(virt uint64, v uint32) { m.Write(virt, le.AppendUint32(nil, v)) }

// WritePhys stores data at a physical address, within one page.
func (m *Machine) WritePhys(phys uint64, data []byte) {
	p := m.pages[phys/pageSize]
	if p == nil {
		p = new([pageSize]byte)
		m.pages[phys/pageSize] = p
	}
	copy(p[phys%pageSize:], data)
}

// ReadPhys reads what was stored, within one page.
func (m *Machine) ReadPhys(b []byte, phys vmcore.PhysAddr) error {
	if p := m.pages[uint64(phys)/pageSize]; p != nil {
		copy(b, p[phys%pageSize:])
	}
	return nil
}

// Lose leaves the page at an address out of the dump.
func (m *Machine) Lose(virt uint64) {
	phys, ok := m.Phys(virt)
	if !ok {
		panic(fmt.Sprintf("%#x is not mapped", virt))
	}
	m.Missing[phys&^(pageSize-1)] = true
}

// Info adds a line to VMCOREINFO.
func (m *Machine) Info(format string, args ...any) {
	m.info = append(m.info, fmt.Sprintf(format, args...))
}

// Note adds an ELF note.
func (m *Machine) Note(name string, typ uint32, desc []byte) {
	n := le.AppendUint32(nil, uint32(len(name)+1))
	n = le.AppendUint32(n, uint32(len(desc)))
	n = le.AppendUint32(n, typ)
	n = pad(append(append(n, name...), 0), 4)
	m.notes = append(m.notes, pad(append(n, desc...), 4)...)
}

// CPU adds the note that QEMU writes of a CPU: its registers' places are those of
// struct QEMUCPUState. It runs on the kernel's page table.
func (m *Machine) CPU(rip, rsp, gsBase uint64) {
	const gprs, gsSegment, controls = 8, 8 + 18*8 + 4*24, 8 + 18*8 + 10*24
	m.start()
	desc := make([]byte, controls+6*8)
	le.PutUint32(desc, 1)
	le.PutUint32(desc[4:], uint32(len(desc)))
	le.PutUint64(desc[gprs+6*8:], rsp)
	le.PutUint64(desc[gprs+16*8:], rip)
	le.PutUint64(desc[gsSegment+16:], gsBase)
	le.PutUint64(desc[controls+3*8:], m.root)
	if m.FiveLevel {
		le.PutUint64(desc[controls+4*8:], 1<<12)
	}
	m.Note("QEMU", 0, desc)
}

func pad(b []byte, to int) []byte {
	for len(b)%to != 0 {
		b = append(b, 0)
	}
	return b
}

// ELF returns the dump as a file.
func (m *Machine) ELF() []byte {
	m.build()
	notes := slices.Clone(m.notes)
	if !m.NoInfo {
		m.notes = nil
		var text []byte
		for _, line := range m.info {
			text = append(append(text, line...), '\n')
		}
		m.Note("VMCOREINFO", 0, text)
		notes, m.notes = append(notes, m.notes...), notes
	}
	type run struct{ first, n uint64 }
	var runs []run
	for _, pfn := range slices.Sorted(maps.Keys(m.pages)) {
		if m.Missing[pfn*pageSize] {
			continue
		}
		if n := len(runs); n > 0 && runs[n-1].first+runs[n-1].n == pfn {
			runs[n-1].n++
		} else {
			runs = append(runs, run{pfn, 1})
		}
	}
	const ehdr, phdr = 64, 56
	notesAt := uint64(ehdr + phdr*(1+len(runs)))
	at := (notesAt + uint64(len(notes)) + pageSize - 1) &^ (pageSize - 1)

	f := []byte("\x7fELF\x02\x01\x01")
	f = append(f, make([]byte, 9)...)
	f = le.AppendUint16(f, 4)  // ET_CORE
	f = le.AppendUint16(f, 62) // EM_X86_64
	f = le.AppendUint32(f, 1)
	f = le.AppendUint64(f, 0)
	f = le.AppendUint64(f, ehdr)
	f = le.AppendUint64(f, 0)
	f = le.AppendUint32(f, 0)
	for _, v := range []int{ehdr, phdr, 1 + len(runs), 0, 0, 0} {
		f = le.AppendUint16(f, uint16(v))
	}
	segment := func(typ uint32, off, phys, size uint64) {
		f = le.AppendUint32(f, typ)
		f = le.AppendUint32(f, 7)
		for _, v := range []uint64{off, 0, phys, size, size, 0} {
			f = le.AppendUint64(f, v)
		}
	}
	segment(4, notesAt, 0, uint64(len(notes)))
	off := at
	for _, r := range runs {
		segment(1, off, r.first*pageSize, r.n*pageSize)
		off += r.n * pageSize
	}
	f = pad(append(f, notes...), pageSize)
	for _, r := range runs {
		for pfn := r.first; pfn < r.first+r.n; pfn++ {
			f = append(f, m.pages[pfn][:]...)
		}
	}
	return f
}

// build writes what the fields ask for, once.
func (m *Machine) build() {
	m.start()
	if m.built {
		return
	}
	m.built = true
	m.writeTypes()
	if !m.NoSymbols {
		m.writeKallsyms()
	}
	root := m.root
	if m.OtherInfo {
		root = imagePhys // text
		m.WritePhys(root, nil)
	}
	five := 0
	if m.FiveLevel {
		five = 1
	}
	m.info = append([]string{
		"OSRELEASE=" + m.Release,
		"BUILD-ID=00112233445566778899aabbccddeeff00112233",
		"PAGESIZE=4096",
		fmt.Sprintf("SYMBOL(_stext)=%x", m.Text()),
		fmt.Sprintf("SYMBOL(swapper_pg_dir)=%x", root-m.PhysBase()+StartKernelMap),
		fmt.Sprintf("NUMBER(phys_base)=%d", int64(m.PhysBase())),
		fmt.Sprintf("NUMBER(pgtable_l5_enabled)=%d", five),
		fmt.Sprintf("KERNELOFFSET=%x", m.KASLR),
		fmt.Sprintf("NUMBER(sme_mask)=%d", int64(m.EncryptMask)),
	}, m.info...)
}

// Dump returns the open dump. It panics when vmcore does not take it.
func (m *Machine) Dump() *vmcore.Dump {
	f := m.ELF()
	d, err := vmcore.NewReader(vmcore.Part{R: bytes.NewReader(f), Size: int64(len(f)), Name: "kerneltest"})
	if err != nil {
		panic(err)
	}
	return d
}
