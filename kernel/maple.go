package kernel

import (
	"fmt"
	"iter"
)

// MapleTree iterates over the entries of the struct maple_tree at an address, by index
// (lib/maple_tree.c, since 6.1). Index is where an entry's range begins. An error is the
// last value; it wraps ErrCorrupt where an index would come twice, so that no cycle is
// followed.
func (k *Kernel) MapleTree(tree Addr) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		w := mapleWalk{k: k, yield: yield}
		root, err := k.OffsetOf("maple_tree", "ma_root")
		if err == nil {
			err = w.layout()
		}
		var entry uint64
		if err == nil {
			entry, err = k.U64(tree + Addr(root))
		}
		if err == nil {
			// Bit 1 tells a node from a single entry for index 0.
			if entry&3 == 2 && entry > mapleReserved {
				err = w.node(entry, 0, ^uint64(0), 0)
			} else if entry != 0 && entry&3 == 0 {
				yield(Entry{0, entry, &xarraySlots}, nil)
			}
		}
		if err != nil {
			yield(Entry{}, fmt.Errorf("walk maple tree at %v: %w", tree, err))
		}
	}
}

const (
	mapleReserved = 4096 // below are values, XA_ZERO_ENTRY and the like
	mapleNodeSize = 256
	mapleDepth    = 31 // MAPLE_HEIGHT_MAX
)

// mapleWalk is a walk under way.
type mapleWalk struct {
	k       *Kernel
	yield   func(Entry, error) bool
	nodes   int // read
	stopped bool
	leaf    mapleNode // maple_range_64, which inner nodes may be, too
	inner   mapleNode // maple_arange_64
}

// mapleNode is where a node has its pivots and slots.
type mapleNode struct{ pivots, slots, n uint64 }

func (w *mapleWalk) layout() error {
	for _, t := range []struct {
		name string
		to   *mapleNode
	}{{"maple_range_64", &w.leaf}, {"maple_arange_64", &w.inner}} {
		pivots, err := w.k.OffsetOf(t.name, "pivot")
		if err != nil {
			return err
		}
		slots, err := w.k.OffsetOf(t.name, "slot")
		if err != nil {
			return err
		}
		n := (slots - pivots) / 8
		if slots < pivots || n == 0 || slots+8*(n+1) > mapleNodeSize {
			return fmt.Errorf("%s: %w", t.name, ErrCorrupt)
		}
		*t.to = mapleNode{pivots, slots, n}
	}
	return nil
}

// node visits a node that covers the indices from low to high. Its type is in bits 3 to 6
// of its address. Slot i goes up to pivot i, the last one in use to the end of the node.
func (w *mapleWalk) node(entry, low, high uint64, depth int) error {
	const leaf64, range64, arange64 = 1, 2, 3 // enum maple_type
	at, typ := Addr(entry&^(mapleNodeSize-1)), entry>>3&15
	layout := w.leaf
	switch {
	case typ == arange64:
		layout = w.inner
	case typ != leaf64 && typ != range64:
		return fmt.Errorf("node %v of type %d: %w", at, typ, ErrCorrupt)
	}
	if depth == mapleDepth {
		return fmt.Errorf("more than %d deep: %w", mapleDepth, ErrCorrupt)
	}
	if w.nodes++; w.nodes > maxWalk/16 {
		return fmt.Errorf("more than %d nodes: %w", maxWalk/16, ErrCorrupt)
	}
	b, err := w.k.Slice(at, mapleNodeSize)
	if err != nil {
		return fmt.Errorf("read node: %w", err)
	}
	for i := uint64(0); i <= layout.n && low <= high && !w.stopped; i++ {
		last := high
		if i < layout.n {
			// A pivot of 0 is not in use.
			if p := le.Uint64(b[layout.pivots+8*i:]); p != 0 || i == 0 {
				last = min(p, high)
			}
		}
		if last < low {
			return fmt.Errorf("node %v: pivot %#x is before %#x: %w", at, last, low, ErrCorrupt)
		}
		slot := le.Uint64(b[layout.slots+8*i:])
		switch {
		case slot < mapleReserved:
		case typ == leaf64:
			if slot&3 == 0 {
				w.stopped = !w.yield(Entry{low, slot, &xarraySlots}, nil)
			}
		default:
			if err := w.node(slot, low, last, depth+1); err != nil {
				return err
			}
		}
		if last >= high {
			break
		}
		low = last + 1
	}
	return nil
}
