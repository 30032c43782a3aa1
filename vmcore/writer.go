package vmcore

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"fmt"
	"io"
	"iter"
	"math"
	"runtime"
	"sync"

	"github.com/klauspost/compress/zstd"
)

// shrinkBatch is the pages compressed together, in parallel.
const shrinkBatch = 512

// Shrink writes a dump that holds the given pages of src, in the
// kdump-compressed format, version 6, zstd: what makedumpfile -z writes, which
// crash, drgn and [Open] read. pages yields page numbers (address / PageSize) in
// ascending order; those that src cannot supply are left out.
//
// Registers, notes and VMCOREINFO are kept; VMCOREINFO is written even if src
// has it only in its memory. Which pages the machine had is kept as well, so
// that a page left out here is still told from one that never was.
//
// w must be empty, and what is skipped by seeking must read as zeros, as it
// does in a new file: the page bitmaps of a large machine are mostly holes.
// The output depends on src and pages alone.
func Shrink(w io.WriteSeeker, src *Dump, pages iter.Seq[uint64]) error {
	chosen, err := choose(src, pages)
	if err != nil {
		return err
	}
	s := &shrinker{w: w, src: src, chosen: chosen}
	s.layOut()
	if err := s.writePages(); err != nil {
		return fmt.Errorf("write pages: %w", err)
	}
	if err := s.writeBitmap(s.dumpedOff, s.written.each); err != nil {
		return fmt.Errorf("write bitmap of dumped pages: %w", err)
	}
	if err := s.writeBitmap(s.existedOff, src.store.existed); err != nil {
		return fmt.Errorf("write bitmap of existing pages: %w", err)
	}
	if err := s.writeHeader(); err != nil {
		return fmt.Errorf("write header: %w", err)
	}
	return nil
}

// pageList is page numbers in ascending order, as runs.
type pageList struct {
	runs  [][2]uint64 // first page and number
	total uint64
}

func (l *pageList) add(pfn uint64) {
	l.total++
	if n := len(l.runs); n > 0 && l.runs[n-1][0]+l.runs[n-1][1] == pfn {
		l.runs[n-1][1]++
		return
	}
	l.runs = append(l.runs, [2]uint64{pfn, 1})
}

func (l *pageList) each(yield func(pfn, n uint64) bool) {
	for _, r := range l.runs {
		if !yield(r[0], r[1]) {
			return
		}
	}
}

// choose lists the wanted pages that src has.
func choose(src *Dump, pages iter.Seq[uint64]) (*pageList, error) {
	list := new(pageList)
	var next uint64
	for pfn := range pages {
		if pfn < next {
			return nil, fmt.Errorf("page %#x follows page %#x: page numbers must ascend", pfn, next-1)
		}
		next = pfn + 1
		if pfn < src.MaxPFN && src.store.present(pfn) {
			list.add(pfn)
		}
	}
	return list, nil
}

// shrinker writes one dump.
type shrinker struct {
	w       io.WriteSeeker
	src     *Dump
	chosen  *pageList // the pages wanted
	written pageList  // the pages that could be read

	sub        []byte // sub header with notes behind it
	existedOff uint64 // file offsets of the bitmaps,
	dumpedOff  uint64
	descs      uint64 // of the page descriptors,
	zeroPage   uint64 // of the page of zeros that all such pages share,
	data       uint64 // and of the end of page data so far
}

// layOut decides where everything goes.
func (s *shrinker) layOut() {
	block := uint64(s.src.PageSize)
	s.sub = s.subHeader()
	s.existedOff = block + uint64(len(s.sub))
	s.dumpedOff = s.existedOff + s.bitmapBlocks()/2*block
	s.descs = s.dumpedOff + s.bitmapBlocks()/2*block
	s.zeroPage = s.descs + s.chosen.total*descSize
	s.data = s.zeroPage + block
}

// bitmapBlocks is the size of both bitmaps, in blocks.
func (s *shrinker) bitmapBlocks() uint64 {
	perBlock := uint64(s.src.PageSize) * 8
	return (s.src.MaxPFN + perBlock - 1) / perBlock * 2
}

// subHeader is the sub header, VMCOREINFO and the notes, padded to whole blocks.
func (s *shrinker) subHeader() []byte {
	block := s.src.PageSize
	sub := make([]byte, subSize)
	put := func(off int, v uint64) { binary.LittleEndian.PutUint64(sub[off:], v) }

	put(subPhysBase, s.src.PhysBase)
	// Everything but zero pages is left out at will; whether those are is
	// up to src: crash reads a page left out as zeros if this bit is set.
	level := uint32(30)
	if s.src.DumpLevel > 0 {
		level |= uint32(s.src.DumpLevel) & 1
	}
	binary.LittleEndian.PutUint32(sub[subDumpLevel:], level)
	put(subMaxMapNr64, s.src.MaxPFN)

	notes, info, infoSize := s.notes()
	if infoSize > 0 {
		put(subInfoOffset, uint64(block+subSize+info))
		put(subInfoSize, uint64(infoSize))
	}
	if len(notes) > 0 {
		put(subNoteOffset, uint64(block+subSize))
		put(subNoteSize, uint64(len(notes)))
	}
	sub = append(sub, notes...)
	return append(sub, make([]byte, (block-len(sub)%block)%block)...)
}

// notes encodes the notes, among them VMCOREINFO, and says where in them its
// text is.
func (s *shrinker) notes() (p []byte, info, infoSize int) {
	add := func(n Note) {
		p = binary.LittleEndian.AppendUint32(p, uint32(len(n.Name)+1))
		p = binary.LittleEndian.AppendUint32(p, uint32(len(n.Desc)))
		p = binary.LittleEndian.AppendUint32(p, n.Type)
		p = append(p, n.Name...)
		p = append(p, make([]byte, 4-len(n.Name)%4)...)
		if n.Name == "VMCOREINFO" && infoSize == 0 {
			info, infoSize = len(p), len(n.Desc)
		}
		p = append(p, n.Desc...)
		p = append(p, make([]byte, (4-len(n.Desc)%4)%4)...)
	}
	for _, n := range s.src.Notes {
		// The process that /proc/kcore pretends to be has no place in a dump.
		if n.Name != "VMCOREINFO" && s.src.Format != "kcore" {
			add(n)
		}
	}
	if v, err := s.src.VMCoreInfo(); err == nil {
		add(Note{Name: "VMCOREINFO", Desc: []byte(v.Raw)})
	}
	return p, info, infoSize
}

// writePages writes the page data, and the descriptors that lead to it.
func (s *shrinker) writePages() error {
	if err := s.writeAt(make([]byte, s.src.PageSize), s.zeroPage); err != nil {
		return err
	}
	batch := make([]shrunkPage, 0, shrinkBatch)
	var err error
	flush := func() bool {
		err = s.writeBatch(batch)
		batch = batch[:0]
		return err == nil
	}
	s.chosen.each(func(pfn, n uint64) bool {
		for ; n > 0; pfn, n = pfn+1, n-1 {
			batch = append(batch, shrunkPage{pfn: pfn})
			if len(batch) == cap(batch) && !flush() {
				return false
			}
		}
		return true
	})
	if err == nil && len(batch) > 0 {
		flush()
	}
	return err
}

// shrunkPage is a page on its way to the file.
type shrunkPage struct {
	pfn   uint64
	data  []byte // as it is to be written; nil if src could not supply it
	flags uint32
	zero  bool // all zeros
}

// writeBatch compresses the pages in parallel and writes them in order.
func (s *shrinker) writeBatch(batch []shrunkPage) error {
	workers := min(runtime.GOMAXPROCS(0), len(batch))
	var wg sync.WaitGroup
	for k := range workers {
		wg.Go(func() {
			page := make([]byte, s.src.PageSize)
			for i := k; i < len(batch); i += workers {
				if s.src.store.readPage(batch[i].pfn, page) == nil {
					batch[i].compress(page)
				}
			}
		})
	}
	wg.Wait()

	descs := make([]byte, 0, len(batch)*descSize)
	var data []byte
	first := s.written.total
	for _, p := range batch {
		if p.data == nil && !p.zero {
			continue
		}
		off, size := s.data+uint64(len(data)), len(p.data)
		if p.zero {
			off, size = s.zeroPage, s.src.PageSize
		}
		data = append(data, p.data...)
		descs = binary.LittleEndian.AppendUint64(descs, off)
		descs = binary.LittleEndian.AppendUint32(descs, uint32(size))
		descs = binary.LittleEndian.AppendUint32(descs, p.flags)
		descs = binary.LittleEndian.AppendUint64(descs, 0)
		s.written.add(p.pfn)
	}
	if err := s.writeAt(data, s.data); err != nil {
		return err
	}
	s.data += uint64(len(data))
	if s.src.OnProgress != nil {
		s.src.OnProgress("write pages", int64(s.written.total), int64(s.chosen.total))
	}
	return s.writeAt(descs, s.descs+first*descSize)
}

// zstdEncoders compress a page at a time; which one does makes no difference
// to the result.
var zstdEncoders = sync.Pool{New: func() any {
	e, err := zstd.NewWriter(nil,
		zstd.WithEncoderLevel(zstd.SpeedBestCompression),
		zstd.WithEncoderConcurrency(1),
		zstd.WithWindowSize(maxPageSize),
		zstd.WithEncoderCRC(true),
		zstd.WithLowerEncoderMem(true))
	if err != nil {
		panic(err) // the options are constants
	}
	return e
}}

func (p *shrunkPage) compress(page []byte) {
	if isZero(page) {
		p.zero = true
		return
	}
	e := zstdEncoders.Get().(*zstd.Encoder)
	defer zstdEncoders.Put(e)
	p.data, p.flags = e.EncodeAll(page, make([]byte, 0, len(page))), flagZstd
	if len(p.data) >= len(page) {
		p.data, p.flags = bytes.Clone(page), 0
	}
}

func isZero(p []byte) bool {
	for ; len(p) >= 8; p = p[8:] {
		if binary.LittleEndian.Uint64(p) != 0 {
			return false
		}
	}
	return true
}

// writeBitmap writes a bitmap at off that has the bits of the runs set. Pieces
// without any are left as holes.
func (s *shrinker) writeBitmap(off uint64, runs func(yield func(pfn, n uint64) bool)) error {
	const piece = 64 << 10
	var (
		buf [piece]byte
		pos uint64 // of buf in the bitmap
		set bool   // buf has bits
		err error
	)
	flush := func() {
		if set && err == nil {
			err = s.writeAt(buf[:min(piece, s.bitmapBlocks()/2*uint64(s.src.PageSize)-pos)], off+pos)
		}
		buf, set = [piece]byte{}, false
	}
	runs(func(pfn, n uint64) bool {
		n = min(n, s.src.MaxPFN-min(pfn, s.src.MaxPFN))
		for n > 0 && err == nil {
			if at := pfn / 8 / piece * piece; at != pos {
				flush()
				pos = at
			}
			bit := pfn - pos*8
			if bit%8 == 0 && n >= 8 {
				whole := min(n/8, piece-bit/8)
				for i := range whole {
					buf[bit/8+i] = 0xff
				}
				pfn, n = pfn+whole*8, n-whole*8
			} else {
				buf[bit/8] |= 1 << (bit % 8)
				pfn, n = pfn+1, n-1
			}
			set = true
		}
		return err == nil
	})
	flush()
	return err
}

// writeHeader comes last: a file that a full disk cut short is no dump.
func (s *shrinker) writeHeader() error {
	h := make([]byte, s.src.PageSize)
	put := func(off int, v uint64) { binary.LittleEndian.PutUint32(h[off:], uint32(v)) }
	text := func(off int, v string) { copy(h[off:off+64], v) }

	copy(h, "KDUMP   ")
	put(hdrVersion, 6)
	text(hdrSysname, "Linux")
	uts := s.utsName()
	text(hdrNodename, uts.nodename)
	text(hdrRelease, uts.release)
	text(hdrUTSVersion, uts.version)
	text(hdrMachine, uts.machine)
	if t := s.src.CrashTime; !t.IsZero() {
		binary.LittleEndian.PutUint64(h[hdrTime:], uint64(t.Unix()))
		binary.LittleEndian.PutUint64(h[hdrTime+8:], uint64(t.Nanosecond()/1000))
	}
	status := uint64(flagZstd)
	if s.src.Incomplete {
		status |= flagIncomplete
	}
	put(hdrStatus, status)
	put(hdrBlockSize, uint64(s.src.PageSize))
	put(hdrSubSize, uint64(len(s.sub)/s.src.PageSize))
	put(hdrBitmapBlocks, s.bitmapBlocks())
	put(hdrMaxMapNr, min(s.src.MaxPFN, math.MaxUint32))
	put(hdrNrCPUs, uint64(len(s.src.CPUs)))
	if err := s.writeAt(s.sub, uint64(len(h))); err != nil {
		return err
	}
	return s.writeAt(h, 0)
}

// utsName is what src says of itself, completed from its VMCOREINFO and
// memory: QEMU leaves the header empty, and libkdumpfile, which drgn uses,
// ignores it all unless every field has something.
func (s *shrinker) utsName() utsName {
	uts := utsName{s.src.NodeName, s.src.Release, s.src.Version, s.src.Machine}
	if v, err := s.src.VMCoreInfo(); err == nil {
		mem, _ := s.src.readUTSName(v)
		release, _ := v.Get("OSRELEASE")
		uts.nodename = cmp.Or(uts.nodename, mem.nodename)
		uts.release = cmp.Or(uts.release, release)
		uts.version = cmp.Or(uts.version, mem.version)
	}
	uts.nodename = cmp.Or(uts.nodename, "(none)")
	uts.release = cmp.Or(uts.release, "unknown")
	uts.version = cmp.Or(uts.version, "unknown")
	return uts
}

func (s *shrinker) writeAt(p []byte, off uint64) error {
	if _, err := s.w.Seek(int64(off), io.SeekStart); err != nil {
		return err
	}
	_, err := s.w.Write(p)
	return err
}
