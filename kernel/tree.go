package kernel

import (
	"fmt"
	"iter"

	"github.com/cilium/ebpf/btf"
)

// maxRBDepth is more than twice the logarithm of any number of nodes, which is how
// deep a red-black tree can be.
const maxRBDepth = 128

// RBTree iterates over the nodes of the red-black tree whose struct rb_root, or
// rb_root_cached, is at an address, in order. An error is the last value; it wraps
// ErrCorrupt where a child does not name its parent, so that no cycle is followed.
func (k *Kernel) RBTree(root Addr) iter.Seq2[Addr, error] {
	// struct rb_node: parent and color, right, left (include/linux/rbtree_types.h)
	const right, left, colors = 8, 16, 3
	return func(yield func(Addr, error) bool) {
		fail := func(node Addr, err error) {
			yield(0, fmt.Errorf("walk rb_root at %v: node %v: %w", root, node, err))
		}
		var path []Addr // nodes whose left side is done, or being done
		descend := func(node, parent Addr) (Addr, error) {
			for node != 0 {
				if len(path) > maxRBDepth {
					return node, fmt.Errorf("more than %d deep: %w", maxRBDepth, ErrCorrupt)
				}
				up, err := k.Pointer(node)
				if err != nil {
					return node, err
				}
				if parent != 0 && up&^colors != parent {
					return node, fmt.Errorf("its parent is %v, not %v: %w", up&^colors, parent, ErrCorrupt)
				}
				path = append(path, node)
				next, err := k.Pointer(node + left)
				if err != nil {
					return node, err
				}
				node, parent = next, node
			}
			return 0, nil
		}
		top, err := k.Pointer(root)
		if err != nil {
			fail(root, err)
			return
		}
		if bad, err := descend(top, 0); err != nil {
			fail(bad, err)
			return
		}
		for n := 0; len(path) > 0; n++ {
			node := path[len(path)-1]
			path = path[:len(path)-1]
			if n == maxWalk {
				fail(node, fmt.Errorf("more than %d nodes: %w", maxWalk, ErrCorrupt))
				return
			}
			if !yield(node, nil) {
				return
			}
			next, err := k.Pointer(node + right)
			if err != nil {
				fail(node, err)
				return
			}
			if bad, err := descend(next, node); err != nil {
				fail(bad, err)
				return
			}
		}
	}
}

// Entry is one entry of an XArray or radix tree.
type Entry struct {
	Index uint64
	Value uint64 // the word that is stored, tag bits and all
	kind  *slotKind
}

// Pointer returns the pointer that is stored, false when the entry is a value
// (xa_mk_value(), radix tree exceptional entry).
func (e Entry) Pointer() (Addr, bool) {
	return Addr(e.Value), e.kind != nil && e.Value&e.kind.value == 0
}

// slotKind says how a slot tells what it holds.
type slotKind struct {
	node  uint64 // in the two low bits: a node, or another internal entry
	value uint64 // bit of a value entry
}

var (
	xarraySlots = slotKind{node: 2, value: 1} // include/linux/xarray.h, since 4.20
	radixSlots  = slotKind{node: 1, value: 2} // include/linux/radix-tree.h, until 4.19
)

// slotTree is the shape of an XArray or radix tree in this kernel.
type slotTree struct {
	kind               *slotKind
	head, shift, slots uint64 // offsets in the root and in its nodes
	bits               uint   // each node has 1<<bits slots
}

// slotTree asks the dump which of the two it has: struct xarray came with 4.20,
// and with it radix_tree_root became another name for it.
func (k *Kernel) slotTree() (slotTree, error) {
	t := slotTree{kind: &xarraySlots}
	root, head, node := "xarray", "xa_head", "xa_node"
	if !k.HasMember(root, head) {
		t.kind = &radixSlots
		root, head, node = "radix_tree_root", "rnode", "radix_tree_node"
	}
	var err error
	if t.head, err = k.OffsetOf(root, head); err != nil {
		return t, err
	}
	if t.shift, err = k.OffsetOf(node, "shift"); err != nil {
		return t, err
	}
	if t.slots, err = k.OffsetOf(node, "slots"); err != nil {
		return t, err
	}
	o, err := k.Object(node, 0)
	if err != nil {
		return t, err
	}
	slots, err := o.Member("slots")
	if err != nil {
		return t, err
	}
	array, ok := btf.UnderlyingType(slots.Type).(*btf.Array)
	if !ok || array.Nelems != 64 && array.Nelems != 16 { // XA_CHUNK_SIZE; 16 with BASE_SMALL
		return t, fmt.Errorf("%s.slots is %s: %w", node, TypeName(slots.Type), ErrCorrupt)
	}
	t.bits = 6
	if array.Nelems == 16 {
		t.bits = 4
	}
	return t, nil
}

// XArray iterates over the entries of the struct xarray, or struct
// radix_tree_root, at an address, by index. An entry that fills several slots comes
// once; reserved and retry entries do not come. An error is the last value.
func (k *Kernel) XArray(root Addr) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		t, err := k.slotTree()
		if err != nil {
			yield(Entry{}, err)
			return
		}
		head, err := k.U64(root + Addr(t.head))
		if err != nil {
			yield(Entry{}, fmt.Errorf("read xarray at %v: %w", root, err))
			return
		}
		if head&3 != t.kind.node {
			if head != 0 {
				yield(Entry{0, head, t.kind}, nil)
			}
			return
		}
		w := slotWalk{k: k, slotTree: t, yield: yield, left: maxWalk / 16}
		if err := w.node(Addr(head&^3), 0, 64); err != nil {
			yield(Entry{}, fmt.Errorf("walk xarray at %v: %w", root, err))
		}
	}
}

// slotWalk is a walk under way.
type slotWalk struct {
	slotTree
	k       *Kernel
	yield   func(Entry, error) bool
	left    int // nodes that may still be read
	stopped bool
}

// node visits what is below a node, which must have a smaller shift than the one
// above it.
func (w *slotWalk) node(addr Addr, index uint64, above uint) error {
	shift, err := w.k.U8(addr + Addr(w.shift))
	if err != nil {
		return fmt.Errorf("read node %v: %w", addr, err)
	}
	if uint(shift) >= above || uint(shift)%w.bits != 0 {
		return fmt.Errorf("node %v has shift %d below %d: %w", addr, shift, above, ErrCorrupt)
	}
	if w.left--; w.left < 0 {
		return fmt.Errorf("more than %d nodes: %w", maxWalk/16, ErrCorrupt)
	}
	first := addr + Addr(w.slots)
	slots, err := w.k.Slice(first, 8<<w.bits)
	if err != nil {
		return fmt.Errorf("read node %v: %w", addr, err)
	}
	for i := uint64(0); len(slots) > 0 && !w.stopped; i, slots = i+1, slots[8:] {
		v := le.Uint64(slots)
		at := index | i<<shift
		switch {
		case v == 0:
		case v&3 != w.kind.node:
			w.stopped = !w.yield(Entry{at, v, w.kind}, nil)
		case v <= 4096: // sibling, retry and zero entries
		case w.kind == &radixSlots && Addr(v&^3) >= first && Addr(v&^3) < first+8<<w.bits: // sibling entry
		default:
			if err := w.node(Addr(v&^3), at, uint(shift)); err != nil {
				return err
			}
		}
	}
	return nil
}

// IDR iterates over the entries of the struct idr at an address, by id.
func (k *Kernel) IDR(idr Addr) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		o, err := k.Object("idr", idr)
		if err != nil {
			yield(Entry{}, err)
			return
		}
		root, err := o.AddrOf("idr_rt")
		if err != nil {
			yield(Entry{}, err)
			return
		}
		base := uint64(0)
		if o.Has("idr_base") { // since 4.16
			if base, err = o.Uint("idr_base"); err != nil {
				yield(Entry{}, err)
				return
			}
		}
		for e, err := range k.XArray(root) {
			e.Index += base
			if !yield(e, err) {
				return
			}
		}
	}
}
