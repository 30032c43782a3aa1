package kernel

import (
	"fmt"
	"strings"
)

// Symbol is a name in the kernel or in one of its modules.
type Symbol struct {
	Name   string
	Addr   Addr
	Size   uint64 // from the symbol table, or the distance to the next symbol; 0 when unknown
	Type   byte   // nm(1)'s letter: t, T, d, b, r …
	Module string // empty for the kernel itself
}

// IsCode reports whether the symbol is in a text section.
func (s Symbol) IsCode() bool { return strings.ContainsRune("tTwW", rune(s.Type)) }

// Symbols returns the kernel's own symbol table, without its modules'.
func (k *Kernel) Symbols() (*Symbols, error) { return k.symbols() }

// Lookup returns the first symbol of that name, in the kernel and then in its
// modules. The error wraps ErrNoSymbol.
func (k *Kernel) Lookup(name string) (Symbol, error) {
	all, err := k.LookupAll(name)
	if err != nil {
		return Symbol{}, err
	}
	return all[0], nil
}

// LookupAll returns every symbol of that name.
func (k *Kernel) LookupAll(name string) ([]Symbol, error) {
	s, err := k.symbols()
	if err != nil {
		return nil, err
	}
	all := s.Lookup(name)
	if len(all) == 0 {
		mods, _ := k.modules()
		for _, m := range mods {
			all = append(all, m.lookup(name)...)
		}
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("%s: %w", name, ErrNoSymbol)
	}
	return all, nil
}

// Symbol returns the address of a symbol of the kernel itself.
func (k *Kernel) Symbol(name string) (Addr, error) {
	if k.info != nil {
		if a, ok := k.info.Symbol(name); ok {
			return Addr(a), nil
		}
	}
	s, err := k.symbols()
	if err != nil {
		return 0, err
	}
	if all := s.Lookup(name); len(all) > 0 {
		return all[0].Addr, nil
	}
	return 0, fmt.Errorf("%s: %w", name, ErrNoSymbol)
}

// SymbolAt returns the symbol that an address lies in, and how far in.
func (k *Kernel) SymbolAt(addr Addr) (sym Symbol, offset uint64, ok bool) {
	if m := k.ModuleAt(addr); m != nil {
		sym, ok = m.symbolAt(addr)
		return sym, uint64(addr - sym.Addr), ok
	}
	if addr < startKernelMap {
		return Symbol{}, 0, false
	}
	s, err := k.symbols()
	if err != nil {
		return Symbol{}, 0, false
	}
	sym, ok = s.Find(addr)
	return sym, uint64(addr - sym.Addr), ok
}

// Name formats an address as symbol+0xoffset, with the module where there is one.
// It returns "" when no symbol covers it.
func (k *Kernel) Name(addr Addr) string {
	sym, off, ok := k.SymbolAt(addr)
	if !ok {
		return ""
	}
	name := sym.Name
	if off != 0 {
		name = fmt.Sprintf("%s+%#x", name, off)
	}
	if sym.Module != "" {
		name += " [" + sym.Module + "]"
	}
	return name
}

// Text reports whether addr is in the kernel's or a module's code.
func (k *Kernel) Text(addr Addr) bool {
	if m := k.ModuleAt(addr); m != nil {
		return m.isText(addr)
	}
	if addr < startKernelMap {
		return false
	}
	sym, _, ok := k.SymbolAt(addr)
	return ok && sym.IsCode()
}

// LookupIn returns the symbols of that name in one module, or in the kernel itself
// when module is "".
func (k *Kernel) LookupIn(module, name string) []Symbol {
	if module == "" {
		s, err := k.symbols()
		if err != nil {
			return nil
		}
		return s.Lookup(name)
	}
	mods, _ := k.modules()
	for _, m := range mods {
		if m.Name == module {
			return m.lookup(name)
		}
	}
	return nil
}
