package lab

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// elfSection is a section of a file that buildELF makes.
type elfSection struct {
	name string
	typ  elf.SectionType
	link uint32 // index of another section, the first being 1
	data []byte
}

// buildELF makes a 64-bit ELF file: sections, and PT_INTERP if there is an interpreter.
func buildELF(interpreter string, sections ...elfSection) []byte {
	const headerSize, progSize, sectionSize = 64, 56, 64
	le := binary.LittleEndian
	var names bytes.Buffer
	names.WriteByte(0)
	sections = append(sections, elfSection{name: ".shstrtab", typ: elf.SHT_STRTAB})
	headers := []elf.Section64{{}}
	body := new(bytes.Buffer)
	start := uint64(headerSize + progSize)
	if interpreter != "" {
		body.WriteString(interpreter + "\x00")
	}
	for _, s := range sections {
		h := elf.Section64{Name: uint32(names.Len()), Type: uint32(s.typ), Link: s.link}
		names.WriteString(s.name + "\x00")
		if s.name == ".shstrtab" {
			s.data = names.Bytes()
		}
		h.Off, h.Size = start+uint64(body.Len()), uint64(len(s.data))
		body.Write(s.data)
		headers = append(headers, h)
	}
	file := elf.Header64{
		Ident: [16]byte{0x7f, 'E', 'L', 'F', 2, 1, 1}, Type: uint16(elf.ET_DYN), Machine: uint16(elf.EM_X86_64),
		Version: 1, Ehsize: headerSize, Phentsize: progSize, Shentsize: sectionSize, Phoff: headerSize,
		Shoff: start + uint64(body.Len()), Shnum: uint16(len(headers)), Shstrndx: uint16(len(headers) - 1),
	}
	if interpreter != "" {
		file.Phnum = 1
	}
	var out bytes.Buffer
	binary.Write(&out, le, file)
	binary.Write(&out, le, elf.Prog64{Type: uint32(elf.PT_INTERP), Off: start, Filesz: uint64(len(interpreter) + 1)})
	out.Write(body.Bytes())
	binary.Write(&out, le, headers)
	return out.Bytes()
}

// moduleELF is a module with the given dependencies.
func moduleELF(depends ...string) []byte {
	info := "license=GPL\x00depends=" + strings.Join(depends, ",") + "\x00name=x\x00"
	return buildELF("", elfSection{name: ".modinfo", typ: elf.SHT_PROGBITS, data: []byte(info)})
}

// linkedELF is a program or library that needs the given libraries.
func linkedELF(interpreter string, needed ...string) []byte {
	text, dynamic := []byte{0}, []byte{}
	for _, name := range needed {
		dynamic = binary.LittleEndian.AppendUint64(dynamic, uint64(elf.DT_NEEDED))
		dynamic = binary.LittleEndian.AppendUint64(dynamic, uint64(len(text)))
		text = append(text, name+"\x00"...)
	}
	dynamic = append(dynamic, make([]byte, 16)...) // DT_NULL
	return buildELF(interpreter,
		elfSection{name: ".dynstr", typ: elf.SHT_STRTAB, data: text},
		elfSection{name: ".dynamic", typ: elf.SHT_DYNAMIC, link: 1, data: dynamic})
}

// writeFiles writes files below a directory.
func writeFiles(t *testing.T, root string, files map[string][]byte) {
	t.Helper()
	for name, data := range files {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, data, 0o755); err != nil {
			t.Fatal(err)
		}
	}
}
