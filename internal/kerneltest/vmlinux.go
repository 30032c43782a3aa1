package kerneltest

import (
	"bytes"
	"debug/elf"

	"github.com/klauspost/compress/gzip"

	"inquest/vmcore"
)

// Vmlinux returns the kernel's image as the file that is linked: an ELF file with a
// segment for it, and one, at 0, as that of per-CPU data is. The machine must have no KASLR.
func (m *Machine) Vmlinux() []byte {
	const ehdr, phdr = 64, 56
	m.build()
	var memory []byte
	for {
		phys, ok := m.Phys(m.Text() + uint64(len(memory)))
		if !ok {
			break
		}
		page := make([]byte, pageSize)
		m.ReadPhys(page, vmcore.PhysAddr(phys))
		memory = append(memory, page...)
	}
	f := make([]byte, pageSize)
	copy(f, "\x7fELF\x02\x01\x01")
	le.PutUint16(f[16:], 2)  // ET_EXEC
	le.PutUint16(f[18:], 62) // EM_X86_64
	le.PutUint32(f[20:], 1)
	le.PutUint64(f[32:], ehdr)
	for i, v := range []uint16{ehdr, phdr, 2, 64} {
		le.PutUint16(f[52+2*i:], v)
	}
	for i, virt := range []uint64{m.Text(), 0} {
		p := f[ehdr+i*phdr:]
		le.PutUint32(p, 1) // PT_LOAD
		for j, v := range []uint64{pageSize, virt, virt - StartKernelMap, uint64(len(memory)), uint64(len(memory))} {
			le.PutUint64(p[8+8*j:], v)
		}
	}
	return append(f, memory...)
}

// Call writes a call of one function at an address in another.
func (m *Machine) Call(at, target uint64) {
	m.Write(at, le.AppendUint32([]byte{0xe8}, uint32(target-at-5)))
}

// BzImage returns a payload as a boot loader wants it, compressed.
func BzImage(payload []byte) []byte {
	const sects, offset = 3, 0x80
	f := make([]byte, (sects+1)*512+offset)
	f[0x1f1] = sects
	copy(f[0x202:], "HdrS\x0f\x02")
	le.PutUint32(f[0x248:], offset)
	packed := Gzip(payload)
	le.PutUint32(f[0x24c:], uint32(len(packed)+4))
	f = append(f, packed...)
	return append(f, 1, 2, 3, 4) // the payload's size, and what comes after it
}

// Gzip compresses.
func Gzip(data []byte) []byte {
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	w.Write(data)
	w.Close()
	return b.Bytes()
}

// Relocation is one of a module's code.
type Relocation struct {
	Offset uint64
	Kind   elf.R_X86_64
	Symbol string // the module's own, or another's
	Addend int64
}

// Function is one of a module's, at an offset in its code.
type Function struct {
	Name         string
	Offset, Size uint64
}

// ModuleFile returns a module file with code, its functions, and relocations.
func ModuleFile(code []byte, functions []Function, relocations []Relocation) []byte {
	names := []byte{0}
	symtab := make([]byte, 24)
	number := map[string]uint64{}
	symbol := func(name string, info byte, section uint16, value, size uint64) {
		number[name] = uint64(len(symtab) / 24)
		symtab = le.AppendUint32(symtab, uint32(len(names)))
		symtab = append(symtab, info, 0)
		symtab = le.AppendUint16(symtab, section)
		symtab = le.AppendUint64(le.AppendUint64(symtab, value), size)
		names = append(append(names, name...), 0)
	}
	for _, f := range functions {
		symbol(f.Name, byte(elf.STT_FUNC), 1, f.Offset, f.Size)
	}
	var rela []byte
	for _, r := range relocations {
		if _, ok := number[r.Symbol]; !ok {
			symbol(r.Symbol, 0x10, 0, 0, 0)
		}
		rela = le.AppendUint64(rela, r.Offset)
		rela = le.AppendUint64(rela, number[r.Symbol]<<32|uint64(r.Kind))
		rela = le.AppendUint64(rela, uint64(r.Addend))
	}
	sections := []struct {
		typ        elf.SectionType
		flags      elf.SectionFlag
		link, info uint32
		data       []byte
		entry      uint64
	}{
		{},
		{elf.SHT_PROGBITS, elf.SHF_ALLOC | elf.SHF_EXECINSTR, 0, 0, code, 0},
		{elf.SHT_RELA, 0, 3, 1, rela, 24},
		{elf.SHT_SYMTAB, 0, 4, 1, symtab, 24},
		{elf.SHT_STRTAB, 0, 0, 0, names, 0},
	}
	const ehdr, shdr = 64, 64
	f := make([]byte, ehdr)
	var headers []byte
	for _, s := range sections {
		headers = le.AppendUint32(le.AppendUint32(headers, 0), uint32(s.typ))
		for _, v := range []uint64{uint64(s.flags), 0, uint64(len(f)), uint64(len(s.data))} {
			headers = le.AppendUint64(headers, v)
		}
		headers = le.AppendUint32(le.AppendUint32(headers, s.link), s.info)
		headers = le.AppendUint64(le.AppendUint64(headers, 1), s.entry)
		f = append(f, s.data...)
	}
	copy(f, "\x7fELF\x02\x01\x01")
	le.PutUint16(f[16:], uint16(elf.ET_REL))
	le.PutUint16(f[18:], uint16(elf.EM_X86_64))
	le.PutUint32(f[20:], 1)
	le.PutUint64(f[40:], uint64(len(f)))
	le.PutUint16(f[52:], ehdr)
	le.PutUint16(f[58:], shdr)
	le.PutUint16(f[60:], uint16(len(sections)))
	le.PutUint16(f[62:], 4)
	return append(f, headers...)
}

// Module returns a module file with one function, which calls another.
func Module(name, callee string) []byte {
	code := bytes.Repeat([]byte{0x90}, 32)
	code[8] = 0xe8
	return ModuleFile(code, []Function{{name, 0, 32}}, []Relocation{{9, elf.R_X86_64_PLT32, callee, -4}})
}
