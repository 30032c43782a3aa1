package kernel

import (
	"cmp"
	"fmt"
	"slices"
	"sort"
	"strconv"
	"sync"
)

const (
	maxModules    = 1 << 16
	modulesVAddr  = 0xffffffffa0000000 // MODULES_VADDR without RANDOMIZE_BASE, the lowest it can be
	elfSymSize    = 24                 // Elf64_Sym
	maxModuleSyms = 1 << 20
	// maxModuleSymBytes bounds the symbols of all modules together, names and all.
	maxModuleSymBytes = 256 << 20
)

// Module is a loaded kernel module.
type Module struct {
	Object        // struct module
	Name   string // as lsmod(8) prints it
	Size   uint64 // of the parts that stay after initialisation, in bytes
	State  string // "Live", "Loading", "Unloading" or "Unformed"
	Taints string // letters of Documentation/admin-guide/tainted-kernels.rst, "" when none
	Ranges []ModuleRange

	symbols func() []Symbol // by address
	bugState
}

// ModuleRange is one piece of a module's memory.
type ModuleRange struct {
	Base Addr
	Size uint64
	Text bool
	Init bool // freed after initialisation
}

// Modules returns the loaded modules, the last loaded first.
func (k *Kernel) Modules() ([]*Module, error) { return k.modules() }

// ModuleAt returns the module whose memory holds addr, or nil.
func (k *Kernel) ModuleAt(addr Addr) *Module {
	if addr < modulesVAddr {
		return nil
	}
	placed := k.placed()
	i := sort.Search(len(placed), func(i int) bool { return placed[i].Base > addr })
	if i == 0 || uint64(addr-placed[i-1].Base) >= placed[i-1].Size {
		return nil
	}
	return placed[i-1].module
}

// placedRange is a piece of some module's memory.
type placedRange struct {
	ModuleRange
	module *Module
}

func (k *Kernel) placeModules() []placedRange {
	var placed []placedRange
	mods, _ := k.modules()
	for _, m := range mods {
		for _, r := range m.Ranges {
			placed = append(placed, placedRange{r, m})
		}
	}
	slices.SortStableFunc(placed, func(a, b placedRange) int { return cmp.Compare(a.Base, b.Base) })
	return placed
}

// loadModules walks the list `modules`. What could be read comes with the error.
func (k *Kernel) loadModules() ([]*Module, error) {
	head, err := k.Symbol("modules")
	if err != nil {
		return nil, err
	}
	list, err := k.Structs("module", "list", head)
	if err != nil {
		return nil, err
	}
	var mods []*Module
	for o, err := range list {
		if err != nil {
			return mods, err
		}
		if len(mods) == maxModules {
			return mods, fmt.Errorf("more than %d modules: %w", maxModules, ErrCorrupt)
		}
		m := &Module{Object: o}
		if m.Name, err = o.String("name"); err != nil {
			return mods, fmt.Errorf("read module at %v: %w", o.Addr, err)
		}
		m.State = m.state()
		m.Taints = m.taints()
		if err := m.readRanges(); err != nil {
			return mods, fmt.Errorf("read module %s: %w", m.Name, err)
		}
		m.symbols = sync.OnceValue(m.loadSymbols)
		mods = append(mods, m)
	}
	return mods, nil
}

func (m *Module) state() string {
	names := []string{"Live", "Loading", "Unloading", "Unformed"} // enum module_state
	v, err := m.Uint("state")
	if err != nil || v >= uint64(len(names)) {
		return "?"
	}
	return names[v]
}

// readRanges reads where the module lies: mem[MOD_TEXT …] since 6.4 (commit
// ac3b43283923), core_layout and init_layout before.
func (m *Module) readRanges() error {
	add := func(base Addr, size uint64, text, init bool) {
		if base != 0 && size != 0 && size < maxText {
			m.Ranges = append(m.Ranges, ModuleRange{base, size, text, init})
			if !init {
				m.Size += size
			}
		}
	}
	if m.Has("mem[0].base") {
		const modText, modInitText, memTypes = 0, 4, 7 // enum mod_mem_type
		for i := range memTypes {
			at := "mem[" + strconv.Itoa(i) + "]."
			base, err := m.Pointer(at + "base")
			if err != nil {
				return err
			}
			size, err := m.Uint(at + "size")
			if err != nil {
				return err
			}
			add(base, size, i == modText || i == modInitText, i >= modInitText)
		}
		return nil
	}
	for _, part := range []string{"core_layout", "init_layout"} {
		base, err := m.Pointer(part + ".base")
		if err != nil {
			return err
		}
		size, err := m.Uint(part + ".size")
		if err != nil {
			return err
		}
		text, err := m.Uint(part + ".text_size")
		if err != nil {
			return err
		}
		text = min(text, size)
		add(base, text, true, part == "init_layout")
		add(base+Addr(text), size-text, false, part == "init_layout")
	}
	return nil
}

func (m *Module) isText(addr Addr) bool {
	r := m.rangeOf(addr)
	return r != nil && r.Text
}

// rangeOf returns the piece of the module's memory that addr is in, or nil.
func (m *Module) rangeOf(addr Addr) *ModuleRange {
	for i := range m.Ranges {
		if r := &m.Ranges[i]; addr >= r.Base && uint64(addr-r.Base) < r.Size {
			return r
		}
	}
	return nil
}

// loadSymbols reads the module's symbol table (struct mod_kallsyms), by address.
func (m *Module) loadSymbols() []Symbol {
	num, err := m.Uint("kallsyms->num_symtab")
	if err != nil || num > maxModuleSyms {
		return nil
	}
	table, err1 := m.Pointer("kallsyms->symtab")
	names, err2 := m.Pointer("kallsyms->strtab")
	if err1 != nil || err2 != nil {
		return nil
	}
	types, _ := m.Pointer("kallsyms->typetab") // since 5.2 (commit 1c7651f43777)
	raw := make([]byte, num*elfSymSize)
	if m.k.readSome(&raw, table, 0) != nil {
		return nil
	}
	var syms []Symbol
	for i := 0; len(raw) >= elfSymSize; i, raw = i+1, raw[elfSymSize:] {
		value, size := Addr(le.Uint64(raw[8:])), le.Uint64(raw[16:])
		if le.Uint16(raw[6:]) == 0 || m.rangeOf(value) == nil {
			continue
		}
		name, err := m.k.CString(names+Addr(le.Uint32(raw)), maxNameLen)
		if err != nil || name == "" || name[0] == '$' {
			continue
		}
		if m.k.symRoom.Add(-int64(elfSymSize+len(name))) < 0 {
			break
		}
		s := Symbol{Name: name, Addr: value, Size: size, Type: raw[4], Module: m.Name}
		switch {
		case types != 0:
			s.Type, _ = m.k.U8(types + Addr(i))
		case s.Type < 'A':
			// In 5.0 and 5.1 st_size holds nm's letter; before, st_info does.
			s.Type, s.Size = byte(size), 0
		}
		syms = append(syms, s)
	}
	slices.SortStableFunc(syms, func(a, b Symbol) int { return cmp.Compare(a.Addr, b.Addr) })
	return syms
}

// Symbols returns the module's symbols in address order.
func (m *Module) Symbols() []Symbol { return m.symbols() }

func (m *Module) lookup(name string) []Symbol {
	var found []Symbol
	for _, s := range m.symbols() {
		if s.Name == name {
			found = append(found, s)
		}
	}
	return found
}

func (m *Module) symbolAt(addr Addr) (Symbol, bool) {
	syms := m.symbols()
	i := sort.Search(len(syms), func(i int) bool { return syms[i].Addr > addr })
	// The symbol before it may be in another piece of the module.
	if i == 0 || m.rangeOf(syms[i-1].Addr) != m.rangeOf(addr) {
		return Symbol{}, false
	}
	return syms[i-1], true
}

// taintLetters are the flags of struct module.taints and of tainted_mask, by bit
// (kernel/panic.c, taint_flags).
const taintLetters = "PFSRMBUDAWCIOELKXTNJ"

// TaintLetters returns the letters of a taint mask.
func TaintLetters(mask uint64) string {
	var s []byte
	for i := range len(taintLetters) {
		if mask>>i&1 == 1 {
			s = append(s, taintLetters[i])
		}
	}
	return string(s)
}

func (m *Module) taints() string {
	v, err := m.Uint("taints")
	if err != nil {
		return ""
	}
	return TaintLetters(v)
}

// Taint returns the kernel's taint letters, "" when it is not tainted.
func (k *Kernel) Taint() string {
	at, err := k.Symbol("tainted_mask")
	if err != nil {
		return ""
	}
	v, err := k.U64(at)
	if err != nil {
		return ""
	}
	return TaintLetters(v)
}
