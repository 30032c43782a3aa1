package app

import "encoding/binary"

// automaton is a set of literals as a deterministic automaton (Aho and Corasick,
// 1975): one table look-up a byte, whatever the number of literals. Bytes that no
// literal tells apart share a column.
//
// Most bytes belong to none. Where no literal is under way, only every stride-th
// position is looked at: a literal that begins between two of them has a block of
// bytes at the second that is known to a filter. These look-ups need not wait for
// each other, as those of the automaton must.
type automaton struct {
	class   [256]uint8
	next    []uint32 // by state + class; a state is the offset of its row
	outputs [][]int  // by row number: what ends there, itself and as an ending
	rows    uint32   // the length of a row: how many classes there are
	shallow uint32   // states up to here have seen one byte or none

	stride int      // 0: no filter, for there are literals shorter than a block
	filter []uint64 // bits, by hash of a block
	shift  uint8    // of the hash
	mask   uint32   // cuts a block out of four bytes
	cases  uint32   // bits set in a block: letters of either case are one
}

const (
	// hitBit marks a transition to a state at which a literal ends.
	hitBit = 1 << 31
	// maxAutomaton bounds the table, in entries of four bytes.
	maxAutomaton = 64 << 20
	maxStride    = 8
)

// search continues from state and notes what it finds. IDs below zero are triggers of
// regular expressions: -1-group.
func (a *automaton) search(state *uint32, data []byte, s *Scan, of int, triggered *uint64) (found bool) {
	at := *state
	next, class := a.next, &a.class
	start := -1 // where what is under way began, at least
	if at == 0 && a.stride > 0 {
		start = a.skip(data, 0)
	}
	for i := max(start, 0); i < len(data); {
		at = next[at+uint32(class[data[i]])]
		i++
		if at&hitBit != 0 {
			at &^= hitBit
			for _, id := range a.outputs[at/a.rows] {
				if id < 0 {
					*triggered |= 1 << (-1 - id)
				} else if s.set(id, of) {
					found = true
				}
			}
		}
		if at > a.shallow || a.stride == 0 {
			continue
		}
		under := i
		if at != 0 {
			under--
		}
		if under > start {
			start = a.skip(data, under)
			i, at = start, 0
		}
	}
	*state = at
	return found
}

// skip returns the first place from which on a literal may begin, as far as data can
// tell.
func (a *automaton) skip(data []byte, from int) int {
	filter, shift, mask, cases, stride := a.filter, a.shift&31, a.mask, a.cases, a.stride
	at := from + stride - 1
	for ; at+4 <= len(data); at += stride {
		hash := ((binary.LittleEndian.Uint32(data[at:])&mask | cases) * hashFactor) >> shift
		if filter[hash>>6]>>(hash&63)&1 != 0 {
			break
		}
	}
	return min(at-stride+1, len(data))
}

// hashFactor spreads a block over a word (Knuth's multiplicative hashing).
const hashFactor = 2654435761

// builder collects literals.
type builder struct {
	fold     bool
	total    int
	nodes    []node // the root is the first
	literals [][]byte
	shortest int
}

type node struct {
	edges   []edge
	outputs []int
	fail    int
	depth   int
}

type edge struct {
	c  byte
	to int
}

func newBuilder(fold bool) *builder {
	return &builder{fold: fold, nodes: make([]node, 1)}
}

func (b *builder) add(literal []byte, id int) error {
	switch {
	case len(literal) == 0:
		return ErrEmptyPattern
	case len(literal) > maxPattern:
		return ErrPatternSize
	}
	if b.total += len(literal); b.total > maxAutomaton/256 {
		return ErrPatternsSize
	}
	at := 0
	for _, c := range literal {
		if b.fold {
			c = lowerByte(c)
		}
		to := b.child(at, c)
		if to == 0 {
			to = len(b.nodes)
			b.nodes = append(b.nodes, node{depth: b.nodes[at].depth + 1})
			b.nodes[at].edges = append(b.nodes[at].edges, edge{c, to})
		}
		at = to
	}
	b.nodes[at].outputs = append(b.nodes[at].outputs, id)
	b.literals = append(b.literals, literal)
	if b.shortest == 0 || len(literal) < b.shortest {
		b.shortest = len(literal)
	}
	return nil
}

// child is the node behind c, 0 when there is none.
func (b *builder) child(at int, c byte) int {
	for _, e := range b.nodes[at].edges {
		if e.c == c {
			return e.to
		}
	}
	return 0
}

// build makes the automaton, nil of no literals.
func (b *builder) build() *automaton {
	if len(b.nodes) == 1 {
		return nil
	}
	a := new(automaton)
	classes := b.classify(a)
	a.rows = uint32(classes)
	a.next = make([]uint32, len(b.nodes)*classes)
	a.outputs = make([][]int, len(b.nodes))

	// Rows in the order of depth: the transitions of a node's failure are there before
	// its own, and shallow states have the lowest numbers.
	row := make([]int, len(b.nodes))
	order := []int{0}
	for i := 0; i < len(order); i++ {
		at := order[i]
		row[at] = i
		for _, e := range b.nodes[at].edges {
			order = append(order, e.to)
		}
		if b.nodes[at].depth <= 1 {
			a.shallow = uint32(i * classes)
		}
	}
	for _, at := range order {
		n := &b.nodes[at]
		mine := a.next[row[at]*classes:][:classes]
		if at != 0 {
			copy(mine, a.next[row[n.fail]*classes:][:classes])
			n.outputs = append(n.outputs, b.nodes[n.fail].outputs...)
		}
		a.outputs[row[at]] = n.outputs
		for _, e := range n.edges {
			entry := &mine[a.class[e.c]]
			if at != 0 {
				b.nodes[e.to].fail = order[*entry/a.rows]
			}
			*entry = uint32(row[e.to] * classes)
		}
	}
	for i, to := range a.next {
		if len(a.outputs[to/a.rows]) > 0 {
			a.next[i] |= hitBit
		}
	}
	b.filter(a)
	return a
}

// classify gives every byte that occurs a class, the rest class 0, and returns how
// many classes there are.
func (b *builder) classify(a *automaton) int {
	var occurs [256]bool
	for i := range b.nodes {
		for _, e := range b.nodes[i].edges {
			occurs[e.c] = true
		}
	}
	classes := 1
	for c := range occurs {
		if occurs[c] {
			a.class[c] = uint8(classes & 0xff) // 256 of them need no class for the rest
			classes++
		}
	}
	if classes > 256 {
		for c := range a.class {
			a.class[c] = uint8(c)
		}
		classes = 256
	}
	if b.fold {
		for c := 'A'; c <= 'Z'; c++ {
			a.class[c] = a.class[lowerByte(byte(c))]
		}
	}
	return classes
}

// filter fills the filter with the blocks at the first stride places of each literal.
func (b *builder) filter(a *automaton) {
	block := 4
	a.mask = 1<<32 - 1
	if b.shortest < 6 {
		block = 3
		a.mask = 1<<24 - 1
	}
	if b.shortest < block {
		return
	}
	a.stride = min(b.shortest-block+1, maxStride)
	size := 12
	for size < 21 && 1<<size < 16*len(b.literals)*a.stride {
		size++
	}
	a.shift = uint8(32 - size)
	if b.fold {
		a.cases = 0x20202020 & a.mask
	}
	a.filter = make([]uint64, 1<<size/64)
	for _, literal := range b.literals {
		for at := range a.stride {
			var v uint32
			for i, c := range literal[at:][:block] {
				v |= uint32(c) << (8 * i)
			}
			hash := ((v | a.cases) * hashFactor) >> a.shift
			a.filter[hash>>6] |= 1 << (hash & 63)
		}
	}
}
