package kernel

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"io"
)

// btfELF presents BTF as an ELF file with that one section. The library reads a
// section into memory of its size; bare BTF it reads into memory that grows, which
// takes three times as much and, for a kernel's, half of the time.
func btfELF(raw []byte) io.ReaderAt {
	const names = "\x00.BTF\x00.symtab\x00.strtab\x00"
	const (
		sections = 64 // behind the header
		symtab   = sections + 4*64
		strtab   = symtab + elf.Sym64Size
		section  = strtab + len(names)
	)
	var head bytes.Buffer
	header := elf.Header64{
		Type: uint16(elf.ET_REL), Machine: uint16(elf.EM_X86_64), Version: uint32(elf.EV_CURRENT),
		Shoff: sections, Ehsize: 64, Shentsize: 64, Shnum: 4, Shstrndx: 3,
	}
	copy(header.Ident[:], elf.ELFMAG+"\x02\x01\x01") // 64 bits, little-endian
	for _, part := range []any{
		header,
		elf.Section64{},
		elf.Section64{Name: 1, Type: uint32(elf.SHT_PROGBITS), Off: uint64(section), Size: uint64(len(raw))},
		elf.Section64{Name: 6, Type: uint32(elf.SHT_SYMTAB), Off: symtab, Size: elf.Sym64Size, Link: 3, Entsize: elf.Sym64Size},
		elf.Section64{Name: 14, Type: uint32(elf.SHT_STRTAB), Off: uint64(strtab), Size: uint64(len(names))},
		elf.Sym64{},
		[]byte(names),
	} {
		binary.Write(&head, le, part) // to memory: cannot fail
	}
	return &concat{head.Bytes(), raw}
}

// concat is two pieces of memory, one behind the other.
type concat struct{ head, body []byte }

func (c *concat) ReadAt(p []byte, off int64) (n int, err error) {
	if off < 0 {
		return 0, io.EOF
	}
	for _, part := range [][]byte{c.head, c.body} {
		if size := int64(len(part)); off >= size {
			off -= size
		} else {
			n += copy(p[n:], part[off:])
			off = 0
		}
	}
	if n < len(p) {
		err = io.EOF
	}
	return n, err
}
