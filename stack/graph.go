package stack

import (
	"fmt"

	"golang.org/x/arch/x86/x86asm"

	"inquest/kernel/x86"
)

// graph is the control flow graph of one function: every instruction that can be
// reached from its entry.
type graph struct {
	code  *code
	nodes []node    // the entry first
	at    [][]int32 // by part and offset: 1 + the index of the node there
	falls bool      // the end of the function can be reached
}

// node is an instruction and where control goes from it.
type node struct {
	x86.Insn
	next    int32   // the instruction behind it, or none
	targets []int32 // of its jumps within the function
	fault   int32   // where the kernel goes on after a fault, or none
	block   int32   // the leader of its basic block
	leads   bool    // it begins a basic block: paths meet here
	leaves  bool    // it jumps out of the function
}

const none int32 = -1 // no successor

const maxInsns = 20_000

// discover decodes what can be reached.
func discover(c *code) (*graph, error) {
	const usual = 4 // bytes of an instruction
	g := &graph{code: c, nodes: make([]node, 0, len(c.parts[0].bytes)/usual)}
	work := []uint64{c.entry}
	for len(work) > 0 {
		at := work[len(work)-1]
		work = work[:len(work)-1]
		for g.find(at) == none {
			n, err := g.decode(at)
			if err != nil {
				return nil, err
			}
			more, targets, err := c.successors(n.Insn)
			if err != nil {
				return nil, err
			}
			if fix, ok := c.fixups[at]; ok {
				targets = append(targets, fix.to)
			}
			work = append(work, targets...)
			if !more {
				break
			}
			if at += uint64(n.Len); c.within(at) == nil {
				g.falls = true // behind a call that never returns, or into the next function
				break
			}
		}
	}
	return g, g.connect()
}

// decode adds the node at an address, and the function's cold part when it jumps there.
func (g *graph) decode(at uint64) (*node, error) {
	if len(g.nodes) >= maxInsns {
		return nil, fmt.Errorf("more than %d instructions: %w", maxInsns, errFlow)
	}
	insn, err := g.code.decode(at)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errFlow, err)
	}
	if target, ok := insn.Target(); ok && insn.Op != x86asm.CALL && g.code.within(target) == nil {
		if err := g.code.addCold(target); err != nil {
			return nil, err
		}
	}
	g.nodes = append(g.nodes, node{Insn: insn, next: none, fault: none, leaves: g.code.leaves(insn)})
	*g.place(at) = int32(len(g.nodes))
	return &g.nodes[len(g.nodes)-1], nil
}

// connect links the nodes and divides them into basic blocks.
func (g *graph) connect() error {
	if len(g.nodes) == 0 {
		return fmt.Errorf("%s: no code: %w", g.code.name, errFlow)
	}
	g.nodes[0].leads = true
	came := make([]bool, len(g.nodes)) // from the instruction in front
	for i := range g.nodes {
		n := &g.nodes[i]
		more, targets, err := g.code.successors(n.Insn)
		if err != nil {
			return err
		}
		if more {
			if n.next = g.find(n.Addr + uint64(n.Len)); n.next != none {
				g.nodes[n.next].leads = g.nodes[n.next].leads || came[n.next]
				came[n.next] = true
			}
		}
		if fix, ok := g.code.fixups[n.Addr]; ok {
			if n.fault = g.find(fix.to); n.fault != none {
				g.nodes[n.fault].leads = true
			}
		}
		for _, t := range targets {
			if to := g.find(t); to != none {
				g.nodes[to].leads = true
				n.targets = append(n.targets, to)
			}
		}
	}
	for leader := range g.nodes {
		for i := int32(leader); g.nodes[leader].leads; {
			g.nodes[i].block = int32(leader)
			if i = g.nodes[i].next; i == none || g.nodes[i].leads {
				break
			}
		}
	}
	return nil
}

// place returns where the node at an address is noted; the address must be within
// the function.
func (g *graph) place(at uint64) *int32 {
	for i, p := range g.code.parts {
		if at < p.start || at-p.start >= uint64(len(p.bytes)) {
			continue
		}
		for len(g.at) <= i {
			g.at = append(g.at, nil)
		}
		if g.at[i] == nil {
			g.at[i] = make([]int32, len(p.bytes))
		}
		return &g.at[i][at-p.start]
	}
	return nil
}

// find returns the node at an address, or none.
func (g *graph) find(at uint64) int32 {
	for i, p := range g.code.parts {
		if at >= p.start && at-p.start < uint64(len(p.bytes)) {
			if i >= len(g.at) || g.at[i] == nil {
				return none
			}
			return g.at[i][at-p.start] - 1
		}
	}
	return none
}

// callBefore returns the call instruction that returns to pc.
func (g *graph) callBefore(pc uint64) (x86.Insn, bool) {
	for n := uint64(2); n <= 8; n++ {
		if i := g.find(pc - n); i != none && uint64(g.nodes[i].Len) == n && g.nodes[i].Op == x86asm.CALL {
			return g.nodes[i].Insn, true
		}
	}
	return x86.Insn{}, false
}
