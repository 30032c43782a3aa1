package image

import (
	"bytes"
	"cmp"
	"debug/elf"
	"encoding/binary"
	"fmt"
	"slices"
	"sort"

	"inquest/kernel"
)

// Where modules are put: in the part of the address space that is theirs, and above it
// the functions that are in none of the files.
const (
	modulesStart = 0xffffffffc0000000
	modulesEnd   = 0xffffffffff000000
	stubsStart   = modulesEnd
	stubSize     = 16
	maxStubs     = (0xfffffffffffff000 - stubsStart) / stubSize
)

// module is the code of a module file, linked.
type module struct {
	name     string
	sections []section
	symbols  []kernel.Symbol // by address
}

// section is an executable section.
type section struct {
	addr kernel.Addr
	code []byte
}

// stubs are symbols that modules refer to and no file has, such as those of modules
// that were not added.
type stubs struct {
	names []string
	addrs map[string]kernel.Addr
}

// AddModule links a module, given by the content of its file (.ko, compressed or not), to
// the kernel: its functions are found by LookupAll, and the calls in them have targets
// that SymbolAt names. Only code is linked, no data. The error wraps ErrCorrupt when the
// file is none.
func (m *Image) AddModule(name string, file []byte) error {
	file, err := Decompress(file)
	if err != nil {
		return fmt.Errorf("module %s: %w", name, err)
	}
	f, err := elf.NewFile(bytes.NewReader(file))
	if err != nil {
		return fmt.Errorf("module %s: %w: %w", name, ErrCorrupt, err)
	}
	if f.Machine != elf.EM_X86_64 || f.Type != elf.ET_REL {
		return fmt.Errorf("module %s: ELF file of type %v for %v: %w", name, f.Type, f.Machine, ErrCorrupt)
	}
	symbols, err := f.Symbols()
	if err != nil {
		return fmt.Errorf("module %s: %w: %w", name, ErrCorrupt, err)
	}
	mod := &module{name: name}
	placed := make(map[elf.SectionIndex]section)
	at := kernel.Addr(modulesStart)
	if n := len(m.modules); n > 0 {
		at = m.modules[n-1].end()
	}
	for i, s := range f.Sections {
		const code = elf.SHF_ALLOC | elf.SHF_EXECINSTR
		if s.Type != elf.SHT_PROGBITS || s.Flags&code != code || s.Size == 0 {
			continue
		}
		text, err := s.Data()
		if err != nil || uint64(at)+uint64(len(text)) > modulesEnd {
			return fmt.Errorf("module %s: section %s: %w", name, s.Name, ErrCorrupt)
		}
		sec := section{at, text}
		mod.sections = append(mod.sections, sec)
		placed[elf.SectionIndex(i)] = sec
		at = (at + kernel.Addr(len(text)) + 4095) &^ 4095
	}
	for _, s := range symbols {
		if sec, ok := placed[s.Section]; ok && s.Name != "" && s.Value < uint64(len(sec.code)) && elf.ST_TYPE(s.Info) == elf.STT_FUNC {
			mod.symbols = append(mod.symbols, kernel.Symbol{
				Name: s.Name, Addr: sec.addr + kernel.Addr(s.Value),
				Size: min(s.Size, uint64(len(sec.code))-s.Value), Type: 't', Module: name,
			})
		}
	}
	slices.SortStableFunc(mod.symbols, func(a, b kernel.Symbol) int { return cmp.Compare(a.Addr, b.Addr) })
	for _, s := range f.Sections {
		sec, ok := placed[elf.SectionIndex(s.Info)]
		if s.Type != elf.SHT_RELA || !ok {
			continue
		}
		table, err := s.Data()
		if err != nil {
			return fmt.Errorf("module %s: section %s: %w", name, s.Name, ErrCorrupt)
		}
		m.relocate(sec, table, symbols, placed)
	}
	m.modules = append(m.modules, mod)
	return nil
}

func (m *module) end() kernel.Addr {
	end := kernel.Addr(modulesStart)
	for _, s := range m.sections {
		end = max(end, (s.addr+kernel.Addr(len(s.code))+4095)&^4095)
	}
	return end
}

// relocate puts addresses into a section's code. What refers to data is left alone.
func (m *Image) relocate(sec section, table []byte, symbols []elf.Symbol, placed map[elf.SectionIndex]section) {
	const relaSize = 24
	le := binary.LittleEndian
	for ; len(table) >= relaSize; table = table[relaSize:] {
		off, info, addend := le.Uint64(table), le.Uint64(table[8:]), le.Uint64(table[16:])
		index := info >> 32 // the null symbol is not in symbols
		if index == 0 || index > uint64(len(symbols)) || off > uint64(len(sec.code)) || len(sec.code)-int(off) < 4 {
			continue
		}
		var target kernel.Addr
		sym := &symbols[index-1]
		if to, ok := placed[sym.Section]; ok {
			target = to.addr + kernel.Addr(sym.Value)
		} else if sym.Section == elf.SHN_UNDEF && sym.Name != "" {
			target = m.external(sym.Name)
		}
		if target == 0 {
			continue
		}
		value := uint64(target) + addend
		place := sec.code[off:]
		switch elf.R_X86_64(info & 0xffffffff) {
		case elf.R_X86_64_PC32, elf.R_X86_64_PLT32:
			le.PutUint32(place, uint32(value-uint64(sec.addr)-off))
		case elf.R_X86_64_32S, elf.R_X86_64_32:
			le.PutUint32(place, uint32(value))
		case elf.R_X86_64_64:
			if len(place) >= 8 {
				le.PutUint64(place, value)
			}
		}
	}
}

// external finds a symbol that a module wants from elsewhere.
func (m *Image) external(name string) kernel.Addr {
	if all, err := m.LookupAll(name); err == nil {
		return all[0].Addr
	}
	if a, ok := m.stubs.addrs[name]; ok {
		return a
	}
	if len(m.stubs.names) >= maxStubs {
		return 0
	}
	if m.stubs.addrs == nil {
		m.stubs.addrs = make(map[string]kernel.Addr)
	}
	a := stubsStart + kernel.Addr(stubSize*len(m.stubs.names))
	m.stubs.names = append(m.stubs.names, name)
	m.stubs.addrs[name] = a
	return a
}

// LookupAll returns every symbol of that name: the kernel's, else those of the modules.
// The error wraps kernel.ErrNoSymbol.
func (m *Image) LookupAll(name string) ([]kernel.Symbol, error) {
	all, err := m.Kernel.LookupAll(name)
	if err == nil {
		return all, nil
	}
	for _, mod := range m.modules {
		for _, s := range mod.symbols {
			if s.Name == name {
				all = append(all, s)
			}
		}
	}
	if len(all) == 0 {
		return nil, err
	}
	return all, nil
}

// SymbolAt returns the symbol that an address lies in, and how far in.
func (m *Image) SymbolAt(addr kernel.Addr) (sym kernel.Symbol, offset uint64, ok bool) {
	if i := (uint64(addr) - stubsStart) / stubSize; addr >= stubsStart && i < uint64(len(m.stubs.names)) {
		s := kernel.Symbol{Name: m.stubs.names[i], Addr: stubsStart + kernel.Addr(i*stubSize), Size: stubSize, Type: 'U'}
		return s, uint64(addr - s.Addr), true
	}
	if mod, sec := m.sectionOf(addr); sec != nil {
		i := sort.Search(len(mod.symbols), func(i int) bool { return mod.symbols[i].Addr > addr })
		if i == 0 || mod.symbols[i-1].Addr < sec.addr {
			return kernel.Symbol{}, 0, false
		}
		s := mod.symbols[i-1]
		return s, uint64(addr - s.Addr), true
	}
	return m.Kernel.SymbolAt(addr)
}

// Slice returns n bytes at addr, read-only.
func (m *Image) Slice(addr kernel.Addr, n int) ([]byte, error) {
	_, sec := m.sectionOf(addr)
	if sec == nil {
		return m.Kernel.Slice(addr, n)
	}
	at := int(addr - sec.addr)
	if n < 0 || n > len(sec.code)-at {
		return nil, fmt.Errorf("read %d bytes at %v: %w", n, addr, kernel.ErrCorrupt)
	}
	return sec.code[at : at+n], nil
}

func (m *Image) sectionOf(addr kernel.Addr) (*module, *section) {
	if addr < modulesStart {
		return nil, nil
	}
	for _, mod := range m.modules {
		for i := range mod.sections {
			if s := &mod.sections[i]; addr >= s.addr && addr-s.addr < kernel.Addr(len(s.code)) {
				return mod, s
			}
		}
	}
	return nil, nil
}
