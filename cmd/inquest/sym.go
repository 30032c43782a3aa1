package main

import (
	"fmt"
	"strings"

	"github.com/spf13/pflag"

	"inquest/kernel"
)

var symCommand = &command{
	name:  "sym",
	args:  "SYMBOL | ADDRESS...",
	max:   -1,
	short: "translate a symbol to its address, or an address to symbol+offset",
	long: `Translate symbols to addresses and addresses to symbols. The letter is that of
nm(1): t or T is code, d or D data, b or B zeroed data, r or R read-only data; in
upper case it is global. A static function may have several addresses: all are listed.`,
	example: `inquest sym vmcore tcp_v4_rcv
inquest sym vmcore ffffffffb036fcd3
inquest sym vmcore -q reqsk
inquest sym vmcore -l | grep ' (T) '`,
	complete: completeSymbol,
	setup: func(f *pflag.FlagSet) runFunc {
		query := f.StringP("query", "q", "", "list the symbols whose names contain `STRING`")
		list := f.BoolP("list", "l", false, "list all symbols")
		module := f.StringP("module", "m", "", "list the symbols of a module, or search only there: `NAME`")
		return func(s *session, args []string) error {
			k, err := s.Kernel()
			if err != nil {
				return err
			}
			if *list || *query != "" || *module != "" {
				return listSymbols(s, k, *query, *module)
			}
			if len(args) == 0 {
				return s.usagef("which symbol or address?")
			}
			var found []foundSymbol
			for _, arg := range args {
				hits, err := findSymbols(k, arg)
				if err != nil && len(args) == 1 {
					return err
				}
				s.miss(err)
				found = append(found, hits...)
			}
			if err := s.symbols(found); err != nil {
				return err
			}
			if len(s.failed) > 0 {
				return fmt.Errorf("%d of %d were not found", len(s.failed), len(args))
			}
			return nil
		}
	},
}

// foundSymbol is a symbol and the address that it was found by.
type foundSymbol struct {
	kernel.Symbol
	at kernel.Addr
}

// findSymbols returns what a name or an address means.
func findSymbols(k *kernel.Kernel, arg string) ([]foundSymbol, error) {
	if all, err := k.LookupAll(arg); err == nil {
		var found []foundSymbol
		for _, sym := range all {
			found = append(found, foundSymbol{sym, sym.Addr})
		}
		return found, nil
	}
	at, err := parseAddr(k, arg)
	if err != nil {
		return nil, err
	}
	sym, off, ok := k.SymbolAt(at)
	if !ok {
		return nil, fmt.Errorf("%v lies in no symbol of the kernel or a module", at)
	}
	return []foundSymbol{{sym, sym.Addr + kernel.Addr(off)}}, nil
}

func listSymbols(s *session, k *kernel.Kernel, query, module string) error {
	var found []foundSymbol
	add := func(sym kernel.Symbol) {
		if strings.Contains(sym.Name, query) {
			found = append(found, foundSymbol{sym, sym.Addr})
		}
	}
	if module != "" {
		mods, err := k.Modules()
		if err != nil && len(mods) == 0 {
			return fmt.Errorf("list the modules: %w", err)
		}
		if mods, err = pickModules(mods, []string{module}); err != nil {
			return err
		}
		for _, sym := range mods[0].Symbols() {
			add(sym)
		}
	} else {
		if _, err := k.Symbols(); err != nil {
			return fmt.Errorf("read the symbols: %w", err)
		}
		for sym := range allSymbols(k) {
			add(sym)
		}
	}
	if len(found) == 0 {
		return fmt.Errorf("no symbol contains %q", query)
	}
	return s.symbols(found)
}

type symbolJSON struct {
	Address hex    `json:"address"`
	Type    string `json:"type"`
	Name    string `json:"name"`
	Offset  uint64 `json:"offset"`
	Size    uint64 `json:"size"`
	Module  string `json:"module"`
}

// symbols prints symbols: address, type letter, name+offset, module.
func (s *session) symbols(found []foundSymbol) error {
	if s.json {
		list := []symbolJSON{}
		for _, f := range found {
			list = append(list, symbolJSON{hex(f.at), string(f.Type), f.Name, uint64(f.at - f.Addr), f.Size, f.Module})
		}
		return s.writeJSON(struct {
			Symbols []symbolJSON `json:"symbols"`
			Missing []string     `json:"missing,omitempty"`
		}{list, s.missing()})
	}
	for _, f := range found {
		name := clean(f.Name)
		if off := f.at - f.Addr; off != 0 {
			name += fmt.Sprintf("+%#x", uint64(off))
		}
		if f.Size > 0 && f.at != f.Addr {
			name += fmt.Sprintf("/%#x", f.Size)
		}
		if f.Module != "" {
			name += " [" + clean(f.Module) + "]"
		}
		s.printf("%016x (%c) %s\n", uint64(f.at), letter(f.Type), name)
	}
	s.missing()
	return nil
}

func letter(b byte) rune {
	if b < '!' || b > '~' {
		return '?'
	}
	return rune(b)
}
