package kernel

import (
	"fmt"
	"hash/maphash"
	"slices"
	"sort"
)

// Limits on the symbol tables: an allyesconfig kernel has about a million symbols.
const (
	maxSymbols   = 4 << 20
	maxNameLen   = 1024 // KSYM_NAME_LEN is 512 since 6.1
	markerStride = 256
)

// Symbols is the kernel's own symbol table (kernel/kallsyms.c), held as it lies
// in memory: names are compressed with a table of 256 tokens, addresses are 32-bit
// offsets. Nothing is expanded until asked for.
type Symbols struct {
	names   []byte      // length-prefixed lists of token numbers
	starts  []uint32    // where every 256th name begins, in names
	tokens  [256][]byte // what each token number stands for
	addrs   []Addr      // by index, ascending but for per-CPU symbols in front
	hashes  []uint32    // of the names, by index
	seed    maphash.Seed
	firstUp int // index from which addrs is ascending
	Source  string
}

// symbolTables is where the tables are.
type symbolTables struct {
	names, count, tokenTable, tokenIndex Addr
	offsets, relativeBase                Addr
	source                               string
}

func (k *Kernel) loadSymbols() (*Symbols, error) {
	t, ok := k.tablesFromInfo()
	if ok {
		s, err := k.readSymbols(t)
		if err == nil {
			return s, nil
		}
	}
	t, err := k.findTables()
	if err != nil {
		return nil, err
	}
	return k.readSymbols(t)
}

// tablesFromInfo takes the tables from VMCOREINFO, which names them since 6.0
// (commit 5fd8fea935a1).
func (k *Kernel) tablesFromInfo() (symbolTables, bool) {
	t := symbolTables{source: "VMCOREINFO"}
	if k.info == nil {
		return t, false
	}
	for _, want := range []struct {
		name string
		to   *Addr
	}{
		{"kallsyms_names", &t.names},
		{"kallsyms_num_syms", &t.count},
		{"kallsyms_token_table", &t.tokenTable},
		{"kallsyms_token_index", &t.tokenIndex},
		{"kallsyms_offsets", &t.offsets},
		{"kallsyms_relative_base", &t.relativeBase},
	} {
		a, ok := k.info.Symbol(want.name)
		if !ok {
			return t, false
		}
		*want.to = Addr(a)
	}
	return t, true
}

// readSymbols copies the tables out of the dump and indexes them.
func (k *Kernel) readSymbols(t symbolTables) (*Symbols, error) {
	s := &Symbols{Source: t.source, seed: maphash.MakeSeed()}
	count, err := k.U32(t.count)
	if err != nil {
		return nil, fmt.Errorf("read kallsyms_num_syms: %w", err)
	}
	if count == 0 || count > maxSymbols {
		return nil, fmt.Errorf("kallsyms_num_syms is %d: %w", count, ErrCorrupt)
	}
	if err := k.readTokens(s, t); err != nil {
		return nil, err
	}
	if err := k.readNames(s, t, int(count)); err != nil {
		return nil, err
	}
	if err := k.readAddrs(s, t, int(count)); err != nil {
		return nil, err
	}
	return s, nil
}

func (k *Kernel) readTokens(s *Symbols, t symbolTables) error {
	var index [512]byte
	if err := k.Read(index[:], t.tokenIndex); err != nil {
		return fmt.Errorf("read kallsyms_token_index: %w", err)
	}
	last := le.Uint16(index[510:])
	table := make([]byte, int(last)+maxNameLen)
	if err := k.readSome(&table, t.tokenTable, int(last)+1); err != nil {
		return fmt.Errorf("read kallsyms_token_table: %w", err)
	}
	for i := range s.tokens {
		at := int(le.Uint16(index[2*i:]))
		if at >= len(table) {
			return fmt.Errorf("kallsyms token %d at %d of %d: %w", i, at, len(table), ErrCorrupt)
		}
		s.tokens[i] = cut0(table[at:])
	}
	return nil
}

// readSome reads up to len(*p) bytes and shortens *p at the first missing page;
// it fails when fewer than least can be had.
func (k *Kernel) readSome(p *[]byte, addr Addr, least int) error {
	for done := 0; done < len(*p); {
		n := min(pageSize-int((addr+Addr(done))%pageSize), len(*p)-done)
		if err := k.Read((*p)[done:done+n], addr+Addr(done)); err != nil {
			if done < least {
				return err
			}
			*p = (*p)[:done]
			break
		}
		done += n
	}
	return nil
}

func cut0(b []byte) []byte {
	for i, c := range b {
		if c == 0 {
			return b[:i]
		}
	}
	return b
}

// readNames copies the names and hashes each, which is all that a look-up by
// name needs in any layout: kallsyms_markers and kallsyms_seqs_of_names are not used.
func (k *Kernel) readNames(s *Symbols, t symbolTables, count int) error {
	s.hashes = make([]uint32, 0, count)
	s.starts = make([]uint32, 0, count/markerStride+1)
	s.names = make([]byte, 0, count*14)
	var name []byte
	pos := 0
	for i := range count {
		if i%markerStride == 0 {
			s.starts = append(s.starts, uint32(pos))
		}
		// A length byte or two (6.1, commit 73bbb94466fd) and up to 2^15 tokens.
		for len(s.names) < pos+2 {
			if err := k.appendPage(s, t.names); err != nil {
				return err
			}
		}
		n, w := nameLen(s.names[pos:])
		if n == 0 || n > maxNameLen {
			return fmt.Errorf("kallsyms name %d is %d tokens long: %w", i, n, ErrCorrupt)
		}
		for len(s.names) < pos+w+n {
			if err := k.appendPage(s, t.names); err != nil {
				return err
			}
		}
		name = s.expand(name[:0], s.names[pos+w:pos+w+n])
		if len(name) < 2 {
			return fmt.Errorf("kallsyms name %d is empty: %w", i, ErrCorrupt)
		}
		s.hashes = append(s.hashes, s.hash(name[1:]))
		pos += w + n
	}
	s.names = s.names[:pos]
	return nil
}

// appendPage extends s.names by what its next page holds.
func (k *Kernel) appendPage(s *Symbols, names Addr) error {
	at := names + Addr(len(s.names))
	page, err := k.mem.page(at)
	if err != nil {
		return fmt.Errorf("read kallsyms_names: %w", err)
	}
	s.names = append(s.names, page[at%pageSize:]...)
	return nil
}

func nameLen(b []byte) (n, width int) {
	if b[0]&0x80 != 0 {
		return int(b[0]&0x7f) | int(b[1])<<7, 2
	}
	return int(b[0]), 1
}

// expand appends the symbol's type letter and name.
func (s *Symbols) expand(to, tokens []byte) []byte {
	for _, t := range tokens {
		to = append(to, s.tokens[t]...)
	}
	return to
}

func (s *Symbols) hash(name []byte) uint32 { return uint32(maphash.Bytes(s.seed, name)) }

// readAddrs turns the address table into addresses. An offset is unsigned from
// relative_base, or, with KALLSYMS_ABSOLUTE_PERCPU (SMP before 6.15), an absolute
// value when positive and relative_base-1-offset when negative.
func (k *Kernel) readAddrs(s *Symbols, t symbolTables, count int) error {
	s.addrs = make([]Addr, count)
	raw := make([]byte, 4*count)
	if err := k.Read(raw, t.offsets); err != nil {
		return fmt.Errorf("read kallsyms_offsets: %w", err)
	}
	base, err := k.Pointer(t.relativeBase)
	if err != nil {
		return fmt.Errorf("read kallsyms_relative_base: %w", err)
	}
	negative := 0
	for i := range s.addrs {
		if int32(le.Uint32(raw[4*i:])) < 0 {
			negative++
		}
	}
	absolutePerCPU := negative > count/2
	for i := range s.addrs {
		off := int32(le.Uint32(raw[4*i:]))
		switch {
		case !absolutePerCPU:
			s.addrs[i] = base + Addr(uint32(off))
		case off >= 0:
			s.addrs[i] = Addr(off)
		default:
			s.addrs[i] = base - 1 - Addr(int64(off))
		}
	}
	return s.order()
}

// order checks that the addresses can be searched: kallsyms is sorted, but the
// absolute per-CPU symbols may stand anywhere in front of the rest.
func (s *Symbols) order() error {
	for i := len(s.addrs) - 1; i > 0; i-- {
		if s.addrs[i-1] > s.addrs[i] {
			s.firstUp = i
			break
		}
	}
	if s.firstUp > len(s.addrs)/2 {
		return fmt.Errorf("kallsyms addresses are not sorted: %w", ErrCorrupt)
	}
	return nil
}

// Len returns the number of symbols.
func (s *Symbols) Len() int { return len(s.addrs) }

// At returns symbol i, in address order.
func (s *Symbols) At(i int) Symbol {
	pos := int(s.starts[i/markerStride])
	for range i % markerStride {
		n, w := nameLen(s.names[pos:])
		pos += n + w
	}
	n, w := nameLen(s.names[pos:])
	name := s.expand(nil, s.names[pos+w:pos+w+n])
	return Symbol{Name: string(name[1:]), Addr: s.addrs[i], Type: name[0], Size: s.size(i)}
}

// size is the distance to the next symbol, 0 for the last one.
func (s *Symbols) size(i int) uint64 {
	for j := i + 1; j < len(s.addrs); j++ {
		if s.addrs[j] > s.addrs[i] {
			return uint64(s.addrs[j] - s.addrs[i])
		}
	}
	return 0
}

// Lookup returns all symbols of that name; static functions may share one.
func (s *Symbols) Lookup(name string) []Symbol {
	var found []Symbol
	h := s.hash([]byte(name))
	for i := 0; i < len(s.hashes); i++ {
		j := slices.Index(s.hashes[i:], h)
		if j < 0 {
			break
		}
		i += j
		if sym := s.At(i); sym.Name == name {
			found = append(found, sym)
		}
	}
	return found
}

// Find returns the symbol that addr lies in. Of several at one address it is the
// first, as in the kernel's own look-up.
func (s *Symbols) Find(addr Addr) (Symbol, bool) {
	up := s.addrs[s.firstUp:]
	i := sort.Search(len(up), func(i int) bool { return up[i] > addr })
	if i == 0 || addr-up[i-1] > maxText || i == len(up) && addr != up[i-1] {
		return Symbol{}, false // the last symbol is _end
	}
	i--
	for i > 0 && up[i-1] == up[i] {
		i--
	}
	return s.At(s.firstUp + i), true
}
