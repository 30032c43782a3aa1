package app

// automaton is a set of literals as a deterministic automaton (Aho and Corasick,
// 1975): one table look-up a byte, whatever the number of literals. Bytes that no
// literal tells apart share a column.
//
// Most bytes begin nothing. Where at most one byte of a literal has been seen, pairs
// says for two bytes at a time whether a literal begins with them, which needs no
// look-up to wait for the one before.
type automaton struct {
	class   [256]uint8
	next    []uint32 // by state + class; a state is the offset of its row
	outputs [][]int  // by row number: what ends there, itself and as an ending
	rows    uint32   // the length of a row: how many classes there are
	shallow uint32   // states up to here have seen one byte or none
	pairs   [1 << 10]uint64
}

// hitBit marks a transition to a state at which a literal ends.
const hitBit = 1 << 31

// maxAutomaton bounds the table: 64 Mi entries of four bytes.
const maxAutomaton = 64 << 20

// search continues from state and notes what it finds. IDs below zero are triggers of
// regular expressions: -1-group.
func (a *automaton) search(state *uint32, data []byte, s *Scan, of int, triggered *uint64) (found bool) {
	at := *state
	next, class := a.next, &a.class
	for i := 0; i < len(data); i++ {
		if at <= a.shallow && i > 0 {
			from := i
			prev := uint(data[i-1])
			for i < len(data) {
				c := uint(data[i])
				pair := prev<<8 | c
				if a.pairs[pair>>6&(1<<10-1)]>>(pair&63)&1 != 0 {
					break
				}
				prev = c
				i++
			}
			if i > from {
				at = next[class[data[i-1]]] &^ hitBit
			}
			if i == len(data) {
				break
			}
		}
		at = next[at+uint32(class[data[i]])]
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
	}
	*state = at
	return found
}

// builder collects literals.
type builder struct {
	fold  bool
	total int
	nodes []node // the root is the first
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
	b.pair(a)
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

// pair marks the pairs of bytes that a literal begins with, and those whose second
// byte is a literal of its own.
func (b *builder) pair(a *automaton) {
	mark := func(first, second byte) {
		for _, x := range b.cases(first) {
			for _, y := range b.cases(second) {
				pair := uint(x)<<8 | uint(y)
				a.pairs[pair>>6] |= 1 << (pair & 63)
			}
		}
	}
	for _, e := range b.nodes[0].edges {
		for _, f := range b.nodes[e.to].edges {
			mark(e.c, f.c)
		}
		if len(b.nodes[e.to].outputs) > 0 {
			for c := range 256 {
				mark(byte(c), e.c)
			}
		}
	}
}

// cases are the bytes that count as c.
func (b *builder) cases(c byte) []byte {
	if b.fold && 'a' <= c && c <= 'z' {
		return []byte{c, c - ('a' - 'A')}
	}
	return []byte{c}
}
