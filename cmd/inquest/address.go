package main

import (
	"errors"
	"fmt"
	"iter"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/cilium/ebpf/btf"

	"inquest/internal/spelling"
	"inquest/kernel"
)

// parseAddr reads an address as crash(8) does: hexadecimal with or without 0x,
// or SYMBOL, SYMBOL+OFFSET, SYMBOL-OFFSET; with :CPU that CPU's copy of per-CPU
// data. A word that could be both, such as "add", is a symbol if there is one.
func parseAddr(k *kernel.Kernel, text string) (kernel.Addr, error) {
	base, cpuText, perCPU := strings.Cut(text, ":")
	at, err := parseExpr(k, base)
	if err != nil || !perCPU {
		return at, err
	}
	cpu, err := strconv.Atoi(cpuText)
	if err != nil {
		return 0, fmt.Errorf("%s: %q is no CPU number", text, cpuText)
	}
	cpus, err := k.PossibleCPUs()
	if err == nil && (cpu < 0 || cpu >= len(cpus)) {
		return 0, fmt.Errorf("%s: there is no CPU %d, the last is %d", text, cpu, len(cpus)-1)
	}
	return k.PerCPU(at, cpu)
}

func parseExpr(k *kernel.Kernel, text string) (kernel.Addr, error) {
	name, offset := text, uint64(0)
	if i := strings.LastIndexAny(text, "+-"); i > 0 {
		n, err := parseNumber(text[i+1:])
		if err != nil {
			return 0, fmt.Errorf("%s: %q is no offset", text, text[i+1:])
		}
		if name, offset = text[:i], n; text[i] == '-' {
			offset = -n
		}
	}
	// A symbol may look like a number only if it has letters and no 0x.
	if n, err := strconv.ParseUint(trim0x(name), 16, 64); err == nil && (name[0] <= '9' || len(name) > 8) {
		return kernel.Addr(n + offset), nil
	}
	sym, err := k.Lookup(name)
	if err == nil {
		return sym.Addr + kernel.Addr(offset), nil
	}
	if n, numErr := strconv.ParseUint(trim0x(name), 16, 64); numErr == nil {
		return kernel.Addr(n + offset), nil
	}
	return 0, symbolError(k, name, err)
}

// parseNumber reads a count or an offset: decimal, or hexadecimal with 0x.
func parseNumber(text string) (uint64, error) { return strconv.ParseUint(text, 0, 64) }

// parseCount reads how many things to show.
func parseCount(text string) (int, error) {
	n, err := strconv.ParseUint(text, 0, 31)
	if err != nil || n == 0 {
		return 0, fmt.Errorf("%q is no count", text)
	}
	return int(n), nil
}

func trim0x(s string) string { return strings.TrimPrefix(strings.TrimPrefix(s, "0x"), "0X") }

// symbolError adds what may have been meant.
func symbolError(k *kernel.Kernel, name string, err error) error {
	if !errors.Is(err, kernel.ErrNoSymbol) {
		return err
	}
	return fmt.Errorf("%w%s", err, spelling.DidYouMean(spelling.ClosestOf(name, symbolNames(k))))
}

// symbolNames yields the name of every symbol, the modules' too.
func symbolNames(k *kernel.Kernel) iter.Seq[string] {
	return func(yield func(string) bool) {
		for sym := range allSymbols(k) {
			if !yield(sym.Name) {
				return
			}
		}
	}
}

// allSymbols yields every symbol, the kernel's by address and then the modules'.
func allSymbols(k *kernel.Kernel) iter.Seq[kernel.Symbol] {
	return func(yield func(kernel.Symbol) bool) {
		if syms, err := k.Symbols(); err == nil {
			for i := range syms.Len() {
				if !yield(syms.At(i)) {
					return
				}
			}
		}
		mods, _ := k.Modules()
		for _, m := range mods {
			for _, sym := range m.Symbols() {
				if !yield(sym) {
					return
				}
			}
		}
	}
}

// typeError adds what may have been meant.
func typeError(k *kernel.Kernel, name string, err error) error {
	types, typesErr := k.Types()
	if typesErr != nil || !errors.Is(err, kernel.ErrNoType) {
		return err
	}
	_, bare, tagged := strings.Cut(name, " ")
	if !tagged {
		bare = name
	}
	names := func(yield func(string) bool) {
		for typ, err := range types.Spec("").All() {
			if err != nil {
				return
			}
			if isNamed(typ) && !yield(typ.TypeName()) {
				return
			}
		}
	}
	return fmt.Errorf("%w%s", err, spelling.DidYouMean(spelling.ClosestOf(bare, names)))
}

// memberError adds the members that may have been meant: of the type, or of the
// structs in it.
func memberError(typ btf.Type, member string, err error) error {
	if !errors.Is(err, kernel.ErrNoMember) || strings.Contains(member, "->") {
		return err
	}
	const depth = 3
	paths := map[string]string{} // from the last name, the shortest path
	var walk func(prefix string, list []kernel.Field, depth int)
	walk = func(prefix string, list []kernel.Field, depth int) {
		for _, f := range list {
			if f.Name == "" {
				walk(prefix, f.Fields, depth)
				continue
			}
			if old, ok := paths[f.Name]; !ok || strings.Count(old, ".") > strings.Count(prefix, ".") {
				paths[f.Name] = prefix + f.Name
			}
			if depth > 1 {
				walk(prefix+f.Name+".", kernel.Fields(f.Type), depth-1)
			}
		}
	}
	walk("", kernel.Fields(typ), depth)
	last := member[strings.LastIndexByte(member, '.')+1:]
	var found []string
	for _, name := range spelling.Closest(last, slices.Sorted(maps.Keys(paths))) {
		found = append(found, paths[name])
	}
	return fmt.Errorf("%w%s", err, spelling.DidYouMean(found))
}
