package main

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"log"
	"os"
	"path/filepath"

	"inquest/vmcore"
)

// flat times explain on the dump of the same crash on ever larger machines: all
// memory above the real one's end is present in the dump, as a machine in full use
// has it, and none of it matters.
func (b *bench) flat(dump string) {
	fmt.Printf("\n| memory of the machine | dump (sparse) | `inquest explain` | peak memory |\n| ---: | ---: | ---: | ---: |\n")
	for _, size := range []int64{0, 16 << 30, 128 << 30, 1 << 40} {
		path := filepath.Join(b.dir, fmt.Sprintf("flat-%d.kdump", size))
		if err := writeLarge(path, dump, size); err != nil {
			log.Fatal(err)
		}
		st, err := os.Stat(path)
		if err != nil {
			log.Fatal(err)
		}
		m, err := b.measure(b.inquest, "explain", path)
		if err != nil {
			log.Fatal(err)
		}
		label := "as it was"
		if size > 0 {
			label = fmt.Sprintf("%d GiB", size>>30)
		}
		fmt.Printf("| %s | %d MiB | %.1f ms | %d MiB |\n", label, st.Size()>>20, float64(m.wall.Microseconds())/1000, m.rss>>10)
		os.Remove(path)
	}
}

// writeLarge writes the dump as an uncompressed kdump file (version 6) of a machine
// with the given memory, in which every page is present. Those that the dump does
// not hold have empty descriptors, which are holes in the file.
func writeLarge(path, dump string, memory int64) error {
	src, err := vmcore.Open(dump)
	if err != nil {
		return err
	}
	defer src.Close()
	info, err := src.VMCoreInfo()
	if err != nil {
		return err
	}
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close()
	const block, descSize = 4096, 24
	pages := max(uint64(memory)/block, src.MaxPFN+1)
	pages = (pages + 8*block - 1) &^ (8*block - 1)
	var (
		bitmap = pages / 8
		text   = uint64(2 * block) // VMCOREINFO
		notes  = text + 2*block
		maps   = notes + 16*block
		descs  = maps + 2*bitmap
		data   = descs + descSize*pages
	)
	raw := noteBytes(src)
	header, sub := make([]byte, block), make([]byte, block)
	copy(header, "KDUMP   ")
	put := func(b []byte, at int, v uint64) { binary.LittleEndian.PutUint64(b[at:], v) }
	binary.LittleEndian.PutUint32(header[8:], 6)
	copy(header[12+4*65:], "x86_64")
	binary.LittleEndian.PutUint32(header[428:], block)
	binary.LittleEndian.PutUint32(header[432:], (uint32(maps)-block)/block) // sub header, in blocks
	binary.LittleEndian.PutUint32(header[436:], uint32(2*bitmap/block))
	put(sub, 0, src.PhysBase)
	put(sub, 32, text)
	put(sub, 40, uint64(len(info.Raw)))
	put(sub, 48, notes)
	put(sub, 56, uint64(len(raw)))
	put(sub, 96, pages)
	w := &writer{f: f}
	w.at(0, header)
	w.at(block, sub)
	w.at(text, []byte(info.Raw))
	w.at(notes, raw)
	ones := bytes.Repeat([]byte{0xff}, 1<<20)
	for off := uint64(0); off < 2*bitmap; off += uint64(len(ones)) {
		w.at(maps+off, ones[:min(uint64(len(ones)), 2*bitmap-off)])
	}
	page := make([]byte, block)
	for start, n := range src.PhysRanges() {
		for a := start; a < start+vmcore.PhysAddr(n); a += block {
			if err := src.ReadPhys(page, a); err != nil {
				return err
			}
			var desc [descSize]byte
			put(desc[:], 0, data)
			binary.LittleEndian.PutUint32(desc[8:], block)
			w.at(descs+descSize*uint64(a)/block, desc[:])
			w.at(data, page)
			data += block
		}
	}
	return w.err
}

// noteBytes encodes the dump's notes again.
func noteBytes(d *vmcore.Dump) []byte {
	var b []byte
	pad := func(s string) []byte { return append([]byte(s), make([]byte, -len(s)&3)...) }
	for _, n := range d.Notes {
		b = binary.LittleEndian.AppendUint32(b, uint32(len(n.Name)+1))
		b = binary.LittleEndian.AppendUint32(b, uint32(len(n.Desc)))
		b = binary.LittleEndian.AppendUint32(b, n.Type)
		b = append(append(b, pad(n.Name+"\x00")...), pad(string(n.Desc))...)
	}
	return b
}

// writer writes at offsets and keeps the first error.
type writer struct {
	f   *os.File
	err error
}

func (w *writer) at(off uint64, p []byte) {
	if w.err == nil {
		_, w.err = w.f.WriteAt(p, int64(off))
	}
}
