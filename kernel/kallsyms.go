package kernel

import (
	"bytes"
	"fmt"
	"math/bits"
	"slices"
	"sort"
)

// Limits on the symbol tables: an allyesconfig kernel has about a million symbols.
const (
	maxSymbols   = 4 << 20
	maxNames     = 64 << 20 // bytes of compressed names
	maxNameLen   = 1024     // KSYM_NAME_LEN is 512 since 6.1 (commit b8a94bfb3395), 128 before
	maxSameName  = 1 << 16  // static symbols that share a name
	markerStride = 256
)

// Symbols is the kernel's own symbol table (kernel/kallsyms.c), held as it lies
// in memory: names are compressed with a table of 256 tokens. Nothing is expanded
// until asked for.
type Symbols struct {
	Source string // where the tables were found: "VMCOREINFO" or "found at 0x…"

	names   []byte      // length-prefixed lists of token numbers
	starts  []uint32    // where every 256th name begins, in names
	tokens  [256][]byte // what each token number stands for
	addrs   []Addr      // by index, ascending but for per-CPU symbols in front
	firstUp int         // index from which addrs is ascending

	// A hash table of the names: heads[h] and next[i] are one more than the
	// index of a symbol, 0 at the end.
	heads, next []uint32
	hashes      [256]tokenHash
}

// symbolTables is where the tables are.
type symbolTables struct {
	names, count, tokenTable, tokenIndex Addr
	offsets                              Addr
	relativeBase                         Addr // 0 when each offset counts from its own place
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
// (commit 5fd8fea935a1). kallsyms_relative_base is gone since 7.0 (commit
// a081b5789255).
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
	} {
		a, ok := k.info.Symbol(want.name)
		if !ok {
			return t, false
		}
		*want.to = Addr(a)
	}
	base, _ := k.info.Symbol("kallsyms_relative_base")
	t.relativeBase = Addr(base)
	return t, true
}

// readSymbols copies the tables out of the dump and indexes them.
func (k *Kernel) readSymbols(t symbolTables) (*Symbols, error) {
	s := &Symbols{Source: t.source}
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
		s.hashes[i] = hashToken(s.tokens[i])
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

// cut0 returns what stands before the first NUL.
func cut0(b []byte) []byte {
	if i := bytes.IndexByte(b, 0); i >= 0 {
		return b[:i]
	}
	return b
}

// readNames copies the names and hashes each, which is all that a look-up by
// name needs in any layout: kallsyms_markers and kallsyms_seqs_of_names are not used.
func (k *Kernel) readNames(s *Symbols, t symbolTables, count int) error {
	// In every layout the markers, the token table and, until 6.4, the
	// sequence numbers follow the names.
	size := t.tokenTable - t.names
	if t.tokenTable < t.names || size > maxNames {
		return fmt.Errorf("kallsyms_names at %v, kallsyms_token_table at %v: %w", t.names, t.tokenTable, ErrCorrupt)
	}
	s.names = make([]byte, size)
	if err := k.readParallel(s.names, t.names); err != nil {
		return fmt.Errorf("read kallsyms_names: %w", err)
	}
	s.starts = make([]uint32, 0, count/markerStride+1)
	s.heads = make([]uint32, 1<<bits.Len(uint(count)))
	s.next = make([]uint32, count)
	pos := 0
	for i := range count {
		if i%markerStride == 0 {
			s.starts = append(s.starts, uint32(pos))
		}
		tokens, end := s.entry(pos)
		h, chars := s.hashTokens(tokens)
		if chars < 2 || chars > maxNameLen {
			return fmt.Errorf("kallsyms name %d of %d is %d characters long: %w", i, count, chars, ErrCorrupt)
		}
		head := s.head(h)
		s.next[i], *head = *head, uint32(i+1)
		pos = end
	}
	return nil
}

// entry returns the tokens of the name at pos, and where the next one begins. Its
// length is a byte or, since 6.1 (commit 73bbb94466fd), two. Past the end of the
// names there are empty ones.
func (s *Symbols) entry(pos int) (tokens []byte, next int) {
	n, w := nameLen(s.names[min(pos, len(s.names)):])
	if end := pos + w + n; n > 0 && end <= len(s.names) {
		return s.names[pos+w : end], end
	}
	return nil, pos
}

// nameLen decodes the length of a name and the number of bytes it takes.
func nameLen(b []byte) (n, width int) {
	switch {
	case len(b) > 0 && b[0]&0x80 == 0:
		return int(b[0]), 1
	case len(b) > 1:
		return int(b[0]&0x7f) | int(b[1])<<7, 2
	}
	return 0, 0
}

// expand appends the symbol's type letter and name.
func (s *Symbols) expand(to, tokens []byte) []byte {
	for _, t := range tokens {
		to = append(to, s.tokens[t]...)
	}
	return to
}

// tokenHash lets the hash of a name be put together from those of its tokens,
// without writing it out: hash(ab) = hash(a)*power(b) + hash(b).
type tokenHash struct {
	hash, power uint64
	tail        uint64 // hash without the first character, the type letter
	len         int
}

const hashBase = 0x9e3779b97f4a7c15

func hashToken(token []byte) tokenHash {
	t := tokenHash{power: 1, len: len(token)}
	for _, c := range token {
		t.hash = t.hash*hashBase + uint64(c)
		t.power *= hashBase
	}
	if len(token) > 1 {
		t.tail = hashToken(token[1:]).hash
	}
	return t
}

// hashTokens returns the hash of a name without its type letter, and its length
// with it.
func (s *Symbols) hashTokens(tokens []byte) (h uint64, chars int) {
	for i, t := range tokens {
		th := &s.hashes[t]
		if i == 0 {
			h = th.tail
		} else {
			h = h*th.power + th.hash
		}
		chars += th.len
	}
	return h, chars
}

// head is where the chain of all names with a hash begins.
func (s *Symbols) head(hash uint64) *uint32 {
	return &s.heads[hash*hashBase>>32&uint64(len(s.heads)-1)]
}

// readAddrs turns the table of 32-bit offsets into addresses. What they count from
// has changed:
//
//   - from kallsyms_relative_base, but absolute when positive and relative_base-1-offset
//     when negative: KALLSYMS_ABSOLUTE_PERCPU, on SMP until 6.15 (commit 01157ddc58dc);
//   - from kallsyms_relative_base, unsigned: without SMP, and until 7.0;
//   - from the place of the offset itself, signed: since 7.0 (commit a081b5789255).
func (k *Kernel) readAddrs(s *Symbols, t symbolTables, count int) error {
	raw := make([]byte, 4*count)
	if err := k.readParallel(raw, t.offsets); err != nil {
		return fmt.Errorf("read kallsyms_offsets: %w", err)
	}
	s.addrs = make([]Addr, count)
	if t.relativeBase == 0 {
		for i := range s.addrs {
			s.addrs[i] = t.offsets + Addr(4*i) + Addr(int64(int32(le.Uint32(raw[4*i:]))))
		}
		return s.order()
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

// At returns symbol i, in address order. It panics unless 0 <= i < s.Len().
func (s *Symbols) At(i int) Symbol {
	name := s.expand(nil, s.tokensOf(i))
	return Symbol{Name: string(name[1:]), Addr: s.addrs[i], Type: name[0], Size: s.size(i)}
}

// tokensOf returns the compressed name of symbol i.
func (s *Symbols) tokensOf(i int) []byte {
	pos := int(s.starts[i/markerStride])
	for range i % markerStride {
		n, w := nameLen(s.names[pos:])
		pos += n + w
	}
	tokens, _ := s.entry(pos)
	return tokens
}

// size is the distance to the next symbol, 0 when there is none.
func (s *Symbols) size(i int) uint64 {
	from := max(i+1, s.firstUp)
	if i < s.firstUp && s.addrs[i+1] > s.addrs[i] {
		from = i + 1
	}
	up := s.addrs[from:]
	n := 0
	if len(up) > 0 && up[0] <= s.addrs[i] {
		n = sort.Search(len(up), func(j int) bool { return up[j] > s.addrs[i] })
	}
	if n == len(up) || up[n]-s.addrs[i] > maxText {
		return 0
	}
	return uint64(up[n] - s.addrs[i])
}

// Lookup returns all symbols of that name, by address; static ones may share it.
func (s *Symbols) Lookup(name string) []Symbol {
	var found []Symbol
	var buf [maxNameLen]byte
	at := *s.head(hashToken([]byte(name)).hash)
	for range maxSameName {
		if at == 0 {
			break
		}
		i := int(at - 1)
		if full := s.expand(buf[:0], s.tokensOf(i)); string(full[1:]) == name {
			found = append(found, s.At(i))
		}
		at = s.next[i]
	}
	slices.Reverse(found)
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
	i = sort.Search(i, func(j int) bool { return up[j] >= up[i-1] })
	return s.At(s.firstUp + i), true
}
