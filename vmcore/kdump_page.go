package vmcore

import (
	"encoding/binary"
	"fmt"
	"sync"
)

// pageScratch holds a page descriptor and compressed data on their way.
type pageScratch struct {
	desc [descSize]byte
	data []byte
}

var pageScratches = sync.Pool{New: func() any { return &pageScratch{data: make([]byte, maxPageSize)} }}

// part returns the part in charge of the page, or nil.
func (k *kdump) part(pfn uint64) *kdumpPart {
	for _, p := range k.parts {
		if pfn >= p.start && pfn < p.end {
			return p
		}
	}
	return nil
}

func (k *kdump) present(pfn uint64) bool {
	p := k.part(pfn)
	return p != nil && p.dumped.has(pfn)
}

func (k *kdump) readPage(pfn uint64, dst []byte) error {
	p := k.part(pfn)
	if p == nil {
		return ErrAbsent
	}
	s := pageScratches.Get().(*pageScratch)
	defer pageScratches.Put(s)
	off, err := p.descriptor(pfn, s)
	if err != nil {
		return err
	}
	size := binary.LittleEndian.Uint32(s.desc[8:])
	flags := binary.LittleEndian.Uint32(s.desc[12:])
	if size == 0 || int(size) > p.pageSize {
		return corrupt("page descriptor claims %d bytes", size)
	}
	if flags&flagCodecs == 0 && int(size) == len(dst) {
		return readAt(p.im, dst, off)
	}
	src := s.data[:size]
	if err := readAt(p.im, src, off); err != nil {
		return err
	}
	return decompress(dst, src, flags)
}

// descriptor reads the page's descriptor into s and returns the file offset
// of its data. The n-th page of the file has the n-th descriptor.
func (p *kdumpPart) descriptor(pfn uint64, s *pageScratch) (uint64, error) {
	rank, set, err := p.dumped.find(pfn)
	if err != nil {
		return 0, err
	}
	if !set {
		if p.existed == nil || p.existed.has(pfn) {
			return 0, ErrExcluded
		}
		return 0, ErrAbsent
	}
	first, err := p.first()
	if err != nil {
		return 0, err
	}
	if err := readAt(p.im, s.desc[:], p.descs+(rank-first)*descSize); err != nil {
		return 0, fmt.Errorf("page descriptor: %w", err)
	}
	off := binary.LittleEndian.Uint64(s.desc[:])
	if off == 0 {
		// makedumpfile reserves the descriptors first: a zero one was never
		// filled in.
		return 0, corrupt("the dump was cut short before this page was written")
	}
	return off, nil
}

func (k *kdump) counts() (present, excluded uint64) {
	for _, p := range k.parts {
		n, m := p.dumped.overlap(p.existed, p.start, p.end)
		present, excluded = present+n, excluded+m
	}
	return present, excluded
}

func (k *kdump) runs(yield func(pfn, n uint64) bool) {
	for _, p := range k.parts {
		if !p.dumped.runs(p.start, p.end, yield) {
			return
		}
	}
}

func (k *kdump) existed(yield func(pfn, n uint64) bool) {
	for _, p := range k.parts {
		b := p.existed
		if b == nil {
			b = p.dumped
		}
		if !b.runs(p.start, p.end, yield) {
			return
		}
	}
}
