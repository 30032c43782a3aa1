package kerneltest

import (
	"cmp"
	"fmt"
	"slices"
)

// Symbol is an entry of the symbol table.
type Symbol struct {
	Name string
	Type byte // nm's letter
	Addr uint64
}

// Kallsyms says how the symbol tables are laid out. The zero value is that of 6.1
// with SMP.
type Kallsyms struct {
	Markers64      bool // before 4.20
	Seqs           bool // kallsyms_seqs_of_names, since 6.2
	NamesFirst     bool // the order since 6.4
	PlaceRelative  bool // since 7.0; implies NamesFirst
	PlainPerCPU    bool // no KALLSYMS_ABSOLUTE_PERCPU
	NotInInfo      bool // VMCOREINFO does not name the tables
	FillTo         int  // add symbols until there are so many; 700 when 0
	CorruptNames   bool // a name of no length
	CorruptOffsets bool // addresses in no order
}

// Symbol adds to the symbol table. Addresses below 4 GiB are those of per-CPU
// variables.
func (m *Machine) Symbol(name string, typ byte, addr uint64) {
	m.symbols = append(m.symbols, Symbol{name, typ, addr})
}

// Symbols returns the symbol table, by address.
func (m *Machine) Symbols() []Symbol {
	m.build()
	return m.symbols
}

// tokens stand for common parts of names, as scripts/kallsyms.c would find them.
var tokens = map[byte]string{1: "tsys_", 2: "Tfunc_", 3: "filler", 4: "task", 5: "kallsyms", 6: "init_"}

func compress(s string) []byte {
	var out []byte
	for len(s) > 0 {
		best := s[0]
		for code, token := range tokens {
			if len(token) <= len(s) && s[:len(token)] == token && len(token) > len(tokens[best]) {
				best = code
			}
		}
		if t := tokens[best]; t != "" {
			out, s = append(out, best), s[len(t):]
		} else {
			out, s = append(out, s[0]), s[1:]
		}
	}
	return out
}

func (m *Machine) writeKallsyms() {
	l := m.Kallsyms
	l.NamesFirst = l.NamesFirst || l.PlaceRelative
	if l.FillTo == 0 {
		l.FillTo = 700
	}
	for i := len(m.symbols); i < l.FillTo; i++ {
		m.Symbol(fmt.Sprintf("filler%d", i), 't', m.Text()+0x1000+uint64(i)*16)
	}
	// _end is the last; the tables are in front of it.
	m.Symbol("_end", 'B', m.next+16<<20)
	slices.SortStableFunc(m.symbols, func(a, b Symbol) int { return cmp.Compare(a.Addr, b.Addr) })

	var names, table, index, seqs []byte
	var markers []uint32
	for i, s := range m.symbols {
		if i%256 == 0 {
			markers = append(markers, uint32(len(names)))
		}
		c := compress(string(s.Type) + s.Name)
		if l.CorruptNames && i == len(m.symbols)/2 {
			c = nil
		}
		if len(c) > 0x7f {
			names = append(names, byte(len(c))|0x80, byte(len(c)>>7))
		} else {
			names = append(names, byte(len(c)))
		}
		names = append(names, c...)
	}
	for i := range 256 {
		index = le.AppendUint16(index, uint16(len(table)))
		if t := tokens[byte(i)]; t != "" {
			table = append(table, t...)
		} else if i >= ' ' && i < 0x7f {
			table = append(table, byte(i))
		}
		table = append(table, 0)
	}
	for i := range m.symbols {
		seqs = append(seqs, byte(i>>16), byte(i>>8), byte(i))
	}
	align := 8
	if l.PlaceRelative {
		align = 4
	}
	put := func(b []byte) uint64 {
		a := m.Alloc(len(b), align)
		m.Write(a, b)
		return a
	}
	putMarkers := func() {
		var b []byte
		for _, v := range markers {
			b = le.AppendUint32(b, v)
			if l.Markers64 {
				b = le.AppendUint32(b, 0)
			}
		}
		put(b)
	}
	at := map[string]uint64{}
	putNames := func() {
		count := le.AppendUint32(nil, uint32(len(m.symbols)))
		if l.Markers64 {
			count = le.AppendUint32(count, 0)
		}
		at["kallsyms_num_syms"] = put(count)
		at["kallsyms_names"] = put(names)
		putMarkers()
		if l.Seqs && !l.NamesFirst {
			put(seqs)
		}
		at["kallsyms_token_table"] = put(table)
		at["kallsyms_token_index"] = put(index)
	}
	putOffsets := func() {
		a := m.Alloc(4*len(m.symbols), align)
		at["kallsyms_offsets"] = a
		for i, s := range m.symbols {
			var off uint64
			switch {
			case l.PlaceRelative:
				off = s.Addr - (a + uint64(4*i))
			case l.PlainPerCPU:
				off = s.Addr - m.Text()
			case s.Addr < 1<<32:
				off = s.Addr
			default:
				off = m.Text() - 1 - s.Addr
			}
			if l.CorruptOffsets && i%2 == 1 {
				off += 0x100
			}
			m.Write32(a+uint64(4*i), uint32(off))
		}
		if !l.PlaceRelative {
			at["kallsyms_relative_base"] = put(le.AppendUint64(nil, m.Text()))
		}
	}
	if l.NamesFirst {
		putNames()
		putOffsets()
		put(seqs)
	} else {
		putOffsets()
		putNames()
	}
	if !l.NotInInfo {
		for name, a := range at {
			m.Info("SYMBOL(%s)=%x", name, a)
		}
	}
}
