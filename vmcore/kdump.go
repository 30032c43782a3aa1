package vmcore

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"
)

// Places in struct disk_dump_header of a 64-bit machine (makedumpfile
// diskdump_mod.h, QEMU include/sysemu/dump.h). utsname has six strings of 65
// bytes from 12 on.
const (
	hdrVersion      = 8
	hdrSysname      = 12
	hdrNodename     = 12 + 65
	hdrRelease      = 12 + 2*65
	hdrUTSVersion   = 12 + 3*65
	hdrMachine      = 12 + 4*65
	hdrTime         = 408 // struct timeval
	hdrStatus       = 424
	hdrBlockSize    = 428
	hdrSubSize      = 432 // of the sub header, in blocks
	hdrBitmapBlocks = 436
	hdrMaxMapNr     = 440
	hdrNrCPUs       = 460
	hdrSize         = 464

	hdrBlockSize32 = 416 // where a 32-bit machine's header has it
)

// Places in struct kdump_sub_header, and the header version that added them.
const (
	subPhysBase   = 0
	subDumpLevel  = 8  // 1
	subSplit      = 12 // 2
	subStartPFN   = 16 // 2
	subEndPFN     = 24 // 2
	subInfoOffset = 32 // 3: VMCOREINFO
	subInfoSize   = 40
	subNoteOffset = 48 // 4
	subNoteSize   = 56
	subEraseInfo  = 64 // 5
	subEraseSize  = 72
	subStartPFN64 = 80 // 6: the three that had 32 bits on some machines
	subEndPFN64   = 88
	subMaxMapNr64 = 96
	subSize       = 104
)

// descSize is the size of a page descriptor: u64 file offset, u32 size,
// u32 flags, u64 page flags.
const descSize = 24

const (
	minPageSize = 4 << 10
	maxPageSize = 64 << 10
	// maxPFN bounds page numbers so that addresses cannot overflow: no
	// machine that Linux runs on has over 52 bits of physical address.
	maxPFN = 1 << 40
)

// kdumpPart is one kdump-compressed file: a whole dump or a part of a split one.
type kdumpPart struct {
	im         image
	name       string
	start, end uint64  // pages it is in charge of
	existed    *bitmap // pages the machine had; nil if the file does not say
	dumped     *bitmap // pages the file has
	descs      uint64  // file offset of the page descriptors
	pageSize   int

	// first is the rank of start: the descriptors begin with its page.
	first func() (uint64, error)
}

// kdump is the memory of a kdump-compressed dump.
type kdump struct {
	parts []*kdumpPart // in order of start
}

// isKdump reports whether a file that starts with p is kdump-compressed.
// "DISKDUMP" is the older format that it grew from; crash still knows it.
func isKdump(p []byte) bool {
	return bytes.HasPrefix(p, []byte("KDUMP   ")) || bytes.HasPrefix(p, []byte("DISKDUMP"))
}

// openKdump opens the parts of one kdump-compressed dump.
func (d *Dump) openKdump(files []dumpFile) error {
	k := new(kdump)
	var split []bool
	for i, f := range files {
		h, err := readKdumpHeader(f)
		if err != nil {
			return err
		}
		part, err := h.part(f)
		if err != nil {
			return fmt.Errorf("%s: %w", f.name, err)
		}
		if i == 0 {
			d.describeKdump(h, part)
		} else if h.maxPFN() != d.MaxPFN || h.pageSize() != d.PageSize ||
			!bytes.Equal(h.main[12:hdrTime], files[0].head[12:hdrTime]) {
			return fmt.Errorf("%w: %s and %s are not parts of the same dump", ErrMissingPart, files[0].name, f.name)
		}
		d.Incomplete = d.Incomplete || h.status()&flagIncomplete != 0 || part.cut()
		k.parts = append(k.parts, part)
		split = append(split, h.isSplit())
	}
	slices.SortFunc(k.parts, func(a, b *kdumpPart) int { return cmp.Compare(a.start, b.start) })
	if err := k.checkParts(split, d.MaxPFN); err != nil {
		return err
	}
	d.store = k
	return nil
}

// checkParts makes sure that the parts cover the machine, each page once.
func (k *kdump) checkParts(split []bool, maxPFN uint64) error {
	if !slices.Contains(split, true) {
		if len(k.parts) > 1 {
			return fmt.Errorf("%w: %s is a whole dump, not a part of one; open one dump at a time", ErrMissingPart, k.parts[0].name)
		}
		return nil
	}
	var next uint64
	for _, p := range k.parts {
		if p.start < next {
			return fmt.Errorf("%w: %s holds pages %#x-%#x, which another of the given files holds too; give each part once",
				ErrMissingPart, p.name, p.start, p.end)
		}
		if p.start > next {
			return fmt.Errorf("%w: none of the %d given files holds the pages %#x-%#x; give all parts",
				ErrMissingPart, len(k.parts), next, p.start)
		}
		next = p.end
	}
	if next < maxPFN {
		return fmt.Errorf("%w: none of the %d given files holds the pages %#x-%#x; give all parts",
			ErrMissingPart, len(k.parts), next, maxPFN)
	}
	return nil
}

// kdumpHeader is the header and sub header of one file.
type kdumpHeader struct {
	main    [hdrSize]byte
	sub     [subSize]byte // zero from where the version or the file ends
	version int
}

func readKdumpHeader(f dumpFile) (*kdumpHeader, error) {
	h := new(kdumpHeader)
	if err := readAt(f.image, h.main[:], 0); err != nil {
		return nil, fmt.Errorf("%s: read kdump header: %w", f.name, err)
	}
	h.version = int(int32(h.u32(hdrVersion)))
	if size := h.pageSize(); size < minPageSize || size > maxPageSize || size&(size-1) != 0 {
		if s := binary.LittleEndian.Uint32(h.main[hdrBlockSize32:]); s == minPageSize {
			return nil, &NotDumpError{Path: f.name, Is: "a kdump of a 32-bit machine"}
		}
		if s := binary.BigEndian.Uint32(h.main[hdrBlockSize:]); s >= minPageSize && s <= maxPageSize {
			return nil, &NotDumpError{Path: f.name, Is: "a kdump of a big-endian machine"}
		}
		return nil, fmt.Errorf("%s: %w", f.name, corrupt("kdump header has block size %d", size))
	}
	if string(h.main[:8]) == "DISKDUMP" {
		// Its sub header is something else, and its version counts differently.
		return h, nil
	}
	// sub header fields by the version that introduced them
	end := 0
	switch {
	case h.version >= 6:
		end = subSize
	case h.version == 5:
		end = subStartPFN64
	case h.version == 4:
		end = subEraseInfo
	case h.version == 3:
		end = subNoteOffset
	case h.version == 2:
		end = subInfoOffset
	case h.version == 1:
		end = subSplit
	}
	if h.subBlocks() > 0 && end > 0 {
		if err := readAt(f.image, h.sub[:end], uint64(h.pageSize())); err != nil {
			return nil, fmt.Errorf("%s: read kdump sub header: %w", f.name, err)
		}
	}
	return h, nil
}

func (h *kdumpHeader) u32(off int) uint32   { return binary.LittleEndian.Uint32(h.main[off:]) }
func (h *kdumpHeader) sub32(off int) uint32 { return binary.LittleEndian.Uint32(h.sub[off:]) }
func (h *kdumpHeader) sub64(off int) uint64 { return binary.LittleEndian.Uint64(h.sub[off:]) }
func (h *kdumpHeader) pageSize() int        { return int(int32(h.u32(hdrBlockSize))) }
func (h *kdumpHeader) status() uint32       { return h.u32(hdrStatus) }
func (h *kdumpHeader) subBlocks() uint64    { return uint64(h.u32(hdrSubSize)) }
func (h *kdumpHeader) bitmapOffset() uint64 { return (1 + h.subBlocks()) * uint64(h.pageSize()) }
func (h *kdumpHeader) bitmapsSize() uint64 {
	return uint64(h.u32(hdrBitmapBlocks)) * uint64(h.pageSize())
}
func (h *kdumpHeader) isSplit() bool       { return h.sub32(subSplit) != 0 }
func (h *kdumpHeader) text(off int) string { return cString(h.main[off : off+65]) }
func (h *kdumpHeader) hasField(v int) bool { return h.version >= v && string(h.main[:8]) == "KDUMP   " }

// maxMapNr is the number of pages as the header has it. Since version 6 the
// 32-bit field is only there for old readers.
func (h *kdumpHeader) maxMapNr() uint64 {
	if n := h.sub64(subMaxMapNr64); h.hasField(6) && n != 0 {
		return n
	}
	return uint64(h.u32(hdrMaxMapNr))
}

// bitmapSize is the bytes of one bitmap. There are two, unless there is only
// room for one.
func (h *kdumpHeader) bitmapSize() (size uint64, both bool) {
	perBlock := uint64(8 * h.pageSize())
	blocks := (min(h.maxMapNr(), maxPFN) + perBlock - 1) / perBlock
	if uint64(h.u32(hdrBitmapBlocks)) >= 2*blocks {
		return h.bitmapsSize() / 2, true
	}
	return h.bitmapsSize(), false
}

// maxPFN is the number of pages the bitmaps can speak of.
func (h *kdumpHeader) maxPFN() uint64 {
	size, _ := h.bitmapSize()
	return min(h.maxMapNr(), size*8, maxPFN)
}

// pfnRange is the pages that this file is in charge of.
func (h *kdumpHeader) pfnRange() (start, end uint64) {
	switch {
	case !h.isSplit():
		return 0, h.maxPFN()
	case h.hasField(6):
		start, end = h.sub64(subStartPFN64), h.sub64(subEndPFN64)
	default:
		start, end = h.sub64(subStartPFN), h.sub64(subEndPFN)
	}
	return start, min(end, h.maxPFN())
}

func (h *kdumpHeader) part(f dumpFile) (*kdumpPart, error) {
	p := &kdumpPart{im: f.image, name: f.name, pageSize: h.pageSize()}
	p.start, p.end = h.pfnRange()
	if p.start > p.end {
		return nil, corrupt("split dump holds the pages %#x-%#x", p.start, p.end)
	}
	off := h.bitmapOffset()
	size, both := h.bitmapSize()
	if both {
		p.existed = newBitmap(f.image, off, size)
		off += size
	}
	p.dumped = newBitmap(f.image, off, size)
	p.descs = off + size
	p.first = sync.OnceValues(func() (uint64, error) {
		if p.start == 0 {
			return 0, nil
		}
		rank, _, err := p.dumped.find(p.start)
		return rank, err
	})
	return p, nil
}

// cutCheckLimit is the largest bitmap, in bytes, that is counted through at
// open to find the last page: that of 128 GiB of memory, half a millisecond's
// work. Of a larger one the count waits until it is needed.
const cutCheckLimit = 4 << 20

// cut reports whether the file ends before its last pages, as far as that can be
// told without reading much.
func (p *kdumpPart) cut() bool {
	size := uint64(p.im.Size())
	if size < p.descs {
		return true
	}
	if p.dumped.size > cutCheckLimit || p.end == 0 {
		return size == p.descs
	}
	rank, set, err := p.dumped.find(p.end - 1)
	first, err2 := p.first()
	if err != nil || err2 != nil {
		return true
	}
	if set {
		rank++
	}
	// Pages of zeros share one place in the file, so the very last page's data
	// need not be what comes last.
	const last = 64
	n := rank - first
	descs := p.descs + n*descSize
	var buf [last * descSize]byte
	tail := buf[:min(n, last)*descSize]
	if readAt(p.im, tail, descs-uint64(len(tail))) != nil {
		return true
	}
	for ; len(tail) > 0; tail = tail[descSize:] {
		off, n := binary.LittleEndian.Uint64(tail), uint64(binary.LittleEndian.Uint32(tail[8:]))
		if off == 0 || off > size || n > size-off {
			return true
		}
	}
	return false
}

// newBitmap is a bitmap of size bytes at off, or as much of it as there is.
func newBitmap(im image, off, size uint64) *bitmap {
	file := uint64(im.Size())
	return &bitmap{im: im, off: off, size: min(size, file-min(off, file))}
}

// describeKdump copies the facts of the first file into d.
func (d *Dump) describeKdump(h *kdumpHeader, p *kdumpPart) {
	d.Format = "kdump-compressed"
	d.HeaderVersion = h.version
	d.PageSize = h.pageSize()
	d.MaxPFN = h.maxPFN()
	d.NodeName = h.text(hdrNodename)
	d.Release = h.text(hdrRelease)
	d.Version = h.text(hdrUTSVersion)
	d.Machine = h.text(hdrMachine)
	d.PhysBase = h.sub64(subPhysBase)
	if h.hasField(1) {
		d.DumpLevel = int(int32(h.sub32(subDumpLevel)))
	}
	if sec := int64(binary.LittleEndian.Uint64(h.main[hdrTime:])); sec > 0 && sec < 1<<40 {
		usec := int64(binary.LittleEndian.Uint64(h.main[hdrTime+8:]))
		d.CrashTime = time.Unix(sec, usec%1e6*1e3).UTC()
	}
	d.Compression = p.compression(h.status())
	if h.hasField(3) {
		if p, err := readUpTo(p.im, h.sub64(subInfoOffset), min(h.sub64(subInfoSize), maxVMCoreInfo)); err == nil && isVMCoreInfo(p) {
			d.noteInfo = p
		}
	}
	if h.hasField(4) {
		if p, err := readUpTo(p.im, h.sub64(subNoteOffset), min(h.sub64(subNoteSize), maxNotes)); err == nil {
			d.setNotes(p)
		}
	}
	if d.Writer == "" && d.Release != "" {
		// QEMU leaves utsname empty but for the machine.
		d.Writer = "makedumpfile"
	}
}

// compression says how pages are compressed: as the status word has it, or
// else the first page that is.
func (p *kdumpPart) compression(status uint32) string {
	if status&flagCodecs != 0 {
		return codecName(status)
	}
	var buf [64 * descSize]byte
	n, _ := p.im.ReadAt(buf[:], int64(p.descs))
	for b := buf[:n]; len(b) >= descSize; b = b[descSize:] {
		// Past the last descriptor comes data, which seldom looks like one.
		size, flags := binary.LittleEndian.Uint32(b[8:]), binary.LittleEndian.Uint32(b[12:])
		switch flags {
		case flagZlib, flagLZO, flagSnappy, flagZstd:
			if size > 0 && int(size) < p.pageSize {
				return codecName(flags)
			}
		}
	}
	return "none"
}

// readUpTo reads n bytes at off, or as many of them as the file has.
func readUpTo(im image, off, n uint64) ([]byte, error) {
	size := uint64(im.Size())
	return readNew(im, off, min(n, size-min(off, size)))
}

// cString is the text before the first NUL.
func cString(p []byte) string {
	if i := bytes.IndexByte(p, 0); i >= 0 {
		p = p[:i]
	}
	return strings.TrimSpace(string(p))
}
