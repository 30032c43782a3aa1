package vmcore

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/klauspost/compress/s2"
	"github.com/klauspost/compress/zlib"
	"github.com/klauspost/compress/zstd"
)

// This file writes small dumps of every format for the tests.

const pg = 4096

// testPage is a page that every codec, even the tests' own simple LZO, makes
// smaller: 64 random bytes, over and over.
func testPage(pfn uint64) []byte {
	r := rand.New(rand.NewPCG(pfn, 1))
	unit := make([]byte, 64)
	for i := range unit {
		unit[i] = byte(r.Uint32())
	}
	return bytes.Repeat(unit, pg/64)
}

// noisePage is a page that no codec makes smaller.
func noisePage(pfn uint64) []byte {
	r := rand.New(rand.NewPCG(pfn, 2))
	p := make([]byte, pg)
	for i := range p {
		p[i] = byte(r.Uint32())
	}
	return p
}

// lzoPage compresses a testPage: its first 64 bytes as literals, then one match
// of distance 64 for the rest.
func lzoPage(page []byte) []byte {
	out := append([]byte{17 + 64}, page[:64]...)
	n := len(page) - 64 - 2 - 31
	out = append(out, 0x20)
	for ; n > 255; n -= 255 {
		out = append(out, 0)
	}
	out = append(out, byte(n))
	out = binary.LittleEndian.AppendUint16(out, (64-1)<<2)
	return append(out, 0x11, 0, 0)
}

func compressPage(page []byte, codec uint32) []byte {
	switch codec {
	case flagZlib:
		var b bytes.Buffer
		w := zlib.NewWriter(&b)
		w.Write(page)
		w.Close()
		return b.Bytes()
	case flagLZO:
		return lzoPage(page)
	case flagSnappy:
		return s2.EncodeSnappy(nil, page)
	case flagZstd:
		e, err := zstd.NewWriter(nil)
		if err != nil {
			panic(err)
		}
		return e.EncodeAll(page, nil)
	}
	return page
}

// kdumpSpec describes a kdump-compressed dump.
type kdumpSpec struct {
	signature  string // "KDUMP   " if empty
	version    int    // 6 if 0
	codec      uint32
	status     uint32 // beside the codec
	release    string
	machine    string // "x86_64" if empty
	time       int64
	maxPFN     uint64
	pages      map[uint64][]byte
	excluded   []uint64
	split      bool
	start, end uint64 // of a split part
	info       string // VMCOREINFO, by the sub header's offset
	notes      []byte
	dumpLevel  uint32
	physBase   uint64
	oneBitmap  bool
	cutDescs   int // page descriptors left zero at the end
}

func (s kdumpSpec) build() []byte {
	le := binary.LittleEndian
	version := s.version
	if version == 0 {
		version = 6
	}
	head := make([]byte, pg)
	copy(head, "KDUMP   ")
	if s.signature != "" {
		copy(head, s.signature)
	}
	le.PutUint32(head[8:], uint32(version))
	copy(head[12+2*65:], s.release)
	machine := s.machine
	if machine == "" {
		machine = "x86_64"
	}
	copy(head[12+4*65:], machine)
	le.PutUint64(head[408:], uint64(s.time))
	le.PutUint32(head[424:], s.codec|s.status)
	le.PutUint32(head[428:], pg)
	le.PutUint32(head[440:], uint32(s.maxPFN))

	sub := make([]byte, 104)
	le.PutUint64(sub[0:], s.physBase)
	le.PutUint32(sub[8:], s.dumpLevel)
	if s.split {
		le.PutUint32(sub[12:], 1)
		le.PutUint64(sub[16:], s.start)
		le.PutUint64(sub[24:], s.end)
		if version >= 6 {
			le.PutUint64(sub[16:], 0xbad)
			le.PutUint64(sub[24:], 0xbad)
			le.PutUint64(sub[80:], s.start)
			le.PutUint64(sub[88:], s.end)
		}
	}
	if version >= 6 {
		le.PutUint64(sub[96:], s.maxPFN)
	}
	if s.info != "" {
		le.PutUint64(sub[32:], uint64(pg+len(sub)))
		le.PutUint64(sub[40:], uint64(len(s.info)))
		sub = append(sub, s.info...)
	}
	if len(s.notes) > 0 {
		le.PutUint64(sub[48:], uint64(pg+len(sub)))
		le.PutUint64(sub[56:], uint64(len(s.notes)))
		sub = append(sub, s.notes...)
	}
	sub = append(sub, make([]byte, (pg-len(sub)%pg)%pg)...)
	le.PutUint32(head[432:], uint32(len(sub)/pg))

	mapSize := int((s.maxPFN+8*pg-1)/(8*pg)) * pg
	existed, dumped := make([]byte, mapSize), make([]byte, mapSize)
	for pfn := range s.pages {
		existed[pfn/8] |= 1 << (pfn % 8)
		dumped[pfn/8] |= 1 << (pfn % 8)
	}
	for _, pfn := range s.excluded {
		existed[pfn/8] |= 1 << (pfn % 8)
	}
	maps := slices.Concat(existed, dumped)
	if s.oneBitmap {
		maps = dumped
	}
	le.PutUint32(head[436:], uint32(len(maps)/pg))

	var pfns []uint64
	for _, pfn := range s.pfns() {
		if !s.split || pfn >= s.start && pfn < s.end {
			pfns = append(pfns, pfn)
		}
	}
	out := slices.Concat(head, sub, maps)
	base := len(out) + len(pfns)*descSize
	var descs, data []byte
	for i, pfn := range pfns {
		page, flags := s.pages[pfn], s.codec
		if z := compressPage(page, s.codec); len(z) < pg {
			page = z
		} else {
			flags = 0
		}
		var desc [descSize]byte
		if i < len(pfns)-s.cutDescs {
			le.PutUint64(desc[0:], uint64(base+len(data)))
			le.PutUint32(desc[8:], uint32(len(page)))
			le.PutUint32(desc[12:], flags)
			data = append(data, page...)
		}
		descs = append(descs, desc[:]...)
	}
	return slices.Concat(out, descs, data)
}

func (s kdumpSpec) pfns() []uint64 { return slices.Sorted(maps.Keys(s.pages)) }

// somePages is memory with runs, gaps and both ends of the machine; with
// noise, one of the pages is incompressible.
func somePages(noise bool) map[uint64][]byte {
	m := make(map[uint64][]byte)
	for _, pfn := range []uint64{0, 1, 2, 7, 8, 63, 64, 65, 4095, 4096, 9000, 32767, 32768, 39999} {
		m[pfn] = testPage(pfn)
	}
	if noise {
		m[8] = noisePage(8)
	}
	return m
}

const someMaxPFN = 40000

// note encodes an ELF note.
func note(name string, typ uint32, desc []byte) []byte {
	le := binary.LittleEndian
	p := le.AppendUint32(nil, uint32(len(name)+1))
	p = le.AppendUint32(p, uint32(len(desc)))
	p = le.AppendUint32(p, typ)
	p = append(p, name...)
	p = append(p, make([]byte, 4-len(name)%4)...)
	p = append(p, desc...)
	return append(p, make([]byte, (4-len(desc)%4)%4)...)
}

// prstatus encodes an NT_PRSTATUS of which register i is base+i.
func prstatus(pid uint32, base uint64) []byte {
	p := make([]byte, 336)
	binary.LittleEndian.PutUint32(p[32:], pid)
	for i := range uint64(27) {
		binary.LittleEndian.PutUint64(p[112+8*i:], base+i)
	}
	return note("CORE", ntPRStatus, p)
}

// qemuState encodes QEMU's note: general register i is base+i, segment i has
// selector base+32+i and base address base+64+i, CRi is base+96+i, and
// kernel_gs_base base+128.
func qemuState(base uint64, kernelGS bool) []byte {
	le := binary.LittleEndian
	p := le.AppendUint32(nil, 1)
	p = le.AppendUint32(p, 440)
	for i := range uint64(18) {
		p = le.AppendUint64(p, base+i)
	}
	for i := range uint64(10) {
		p = le.AppendUint32(p, uint32(base+32+i))
		p = append(p, make([]byte, 12)...)
		p = le.AppendUint64(p, base+64+i)
	}
	for i := range uint64(5) {
		p = le.AppendUint64(p, base+96+i)
	}
	if kernelGS {
		p = le.AppendUint64(p, base+128)
	} else {
		le.PutUint32(p[4:], uint32(len(p)))
	}
	return note("QEMU", 0, p)
}

// someInfo is a VMCOREINFO text.
func someInfo(release string) string {
	return "OSRELEASE=" + release + "\nPAGESIZE=4096\nSYMBOL(init_uts_ns)=ffffffff80005000\n" +
		"OFFSET(uts_namespace.name)=4\nNUMBER(phys_base)=16777216\nSIZE(page)=64\nCRASHTIME=1700000000\n"
}

// elfSpec describes an ELF core.
type elfSpec struct {
	class, data byte   // ELFCLASS64 and ELFDATA2LSB if 0
	typ         uint16 // ET_CORE if 0
	machine     uint16 // EM_X86_64 if 0
	ehsize      uint16 // 64 if 0
	xnum        bool   // count the program headers as PN_XNUM
	noteAlign   int
	notes       []byte
	segs        []elfSeg
}

type elfSeg struct {
	virt, phys uint64
	data       []byte
	mem        uint64 // len(data) if 0
	shares     int    // if > 0, data is that of segment shares-1
}

func (s elfSpec) build() []byte {
	le := binary.LittleEndian
	or := func(v, def uint16) uint16 {
		if v == 0 {
			return def
		}
		return v
	}
	count := len(s.segs)
	if len(s.notes) > 0 {
		count++
	}
	out := make([]byte, 64)
	copy(out, "\x7fELF")
	out[4], out[5], out[6] = byte(or(uint16(s.class), 2)), byte(or(uint16(s.data), 1)), 1
	le.PutUint16(out[16:], or(s.typ, 4))
	le.PutUint16(out[18:], or(s.machine, 62))
	le.PutUint32(out[20:], 1)
	le.PutUint64(out[32:], 64)
	le.PutUint16(out[52:], or(s.ehsize, 64))
	le.PutUint16(out[54:], 56)
	le.PutUint16(out[56:], uint16(count))
	pos := 64 + 56*count
	if s.xnum {
		le.PutUint16(out[56:], 0xffff)
		le.PutUint64(out[40:], uint64(pos))
		le.PutUint16(out[58:], 64)
		le.PutUint16(out[60:], 1)
		pos += 64
	}
	var body []byte
	phdr := func(typ uint32, off int, virt, phys, filesz, memsz uint64) {
		out = le.AppendUint32(out, typ)
		out = le.AppendUint32(out, 0)
		for _, v := range []uint64{uint64(off), virt, phys, filesz, memsz, 0} {
			out = le.AppendUint64(out, v)
		}
	}
	if len(s.notes) > 0 {
		if s.noteAlign > 0 {
			body = append(body, make([]byte, (s.noteAlign-pos%s.noteAlign)%s.noteAlign)...)
		}
		phdr(4, pos+len(body), 0, 0, uint64(len(s.notes)), uint64(len(s.notes)))
		body = append(body, s.notes...)
	}
	offs := make([]int, len(s.segs))
	for i, seg := range s.segs {
		data := seg.data
		if offs[i] = pos + len(body); seg.shares > 0 {
			offs[i], data = offs[seg.shares-1], s.segs[seg.shares-1].data
		}
		phdr(1, offs[i], seg.virt, seg.phys, uint64(len(data)), max(seg.mem, uint64(len(data))))
		body = append(body, seg.data...)
	}
	if s.xnum {
		shdr := make([]byte, 64)
		le.PutUint32(shdr[44:], uint32(count))
		out = append(out, shdr...)
	}
	return append(out, body...)
}

// openBytes opens a dump in memory.
func openBytes(files ...[]byte) (*Dump, error) {
	var parts []Part
	for i, f := range files {
		parts = append(parts, Part{R: bytes.NewReader(f), Size: int64(len(f)), Name: fmt.Sprintf("part %d", i)})
	}
	return NewReader(parts...)
}

func mustOpen(t testing.TB, files ...[]byte) *Dump {
	t.Helper()
	d, err := openBytes(files...)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// checkPages compares the dump with the pages that it should have.
func checkPages(t testing.TB, d *Dump, want map[uint64][]byte) {
	t.Helper()
	got := 0
	for addr, size := range d.PhysRanges() {
		for ; size > 0; addr, size = addr+pg, size-pg {
			got++
			if _, ok := want[uint64(addr)/pg]; !ok {
				t.Errorf("PhysRanges has page %#x, which is not in the dump", uint64(addr))
			}
		}
	}
	if got != len(want) {
		t.Errorf("PhysRanges has %d pages, want %d", got, len(want))
	}
	for pfn, data := range want {
		addr := PhysAddr(pfn * pg)
		if !d.Present(addr) {
			t.Errorf("Present(%#x) = false", uint64(addr))
		}
		page, err := d.Page(addr + 17)
		if err != nil {
			t.Errorf("Page: %v", err)
		} else if !bytes.Equal(page, data) {
			t.Errorf("Page(%#x) differs from what was written", uint64(addr))
		}
		buf := make([]byte, pg)
		if err := d.ReadPhys(buf, addr); err != nil || !bytes.Equal(buf, data) {
			t.Errorf("ReadPhys(%#x) differs from what was written (error %v)", uint64(addr), err)
		}
	}
	if present, _, _ := d.PageCounts(); present != uint64(len(want)) {
		t.Errorf("PageCounts says %d present, want %d", present, len(want))
	}
}
