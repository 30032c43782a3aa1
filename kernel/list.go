package kernel

import (
	"fmt"
	"iter"
)

// maxWalk bounds every list and tree: a dump may claim cycles and endless chains.
const maxWalk = 4 << 20

// List iterates over the nodes of a circular doubly linked list (struct
// list_head), the head left out. The last value is an error when the list does
// not come back to its head.
func (k *Kernel) List(head Addr) iter.Seq2[Addr, error] {
	return k.chain(head, func(node Addr) bool { return node == head })
}

// HList iterates over the nodes of a struct hlist_head.
func (k *Kernel) HList(head Addr) iter.Seq2[Addr, error] {
	return k.chain(head, func(node Addr) bool { return node == 0 })
}

// HListNulls iterates over the nodes of a struct hlist_nulls_head, which ends at
// an odd pointer (include/linux/list_nulls.h).
func (k *Kernel) HListNulls(head Addr) iter.Seq2[Addr, error] {
	return k.chain(head, func(node Addr) bool { return node&1 == 1 })
}

// LList iterates over a NULL-terminated chain whose next pointer is the first
// word of each node (struct llist_node, single linked lists).
func (k *Kernel) LList(head Addr) iter.Seq2[Addr, error] { return k.HList(head) }

// chain follows the pointer that each node begins with. Brent's algorithm finds
// cycles that do not pass the head.
func (k *Kernel) chain(head Addr, end func(Addr) bool) iter.Seq2[Addr, error] {
	return func(yield func(Addr, error) bool) {
		tortoise, steps, limit := head, 0, 64
		node := head
		for n := 0; ; n++ {
			next, err := k.Pointer(node)
			if err != nil {
				yield(0, fmt.Errorf("follow list %v from %v: %w", head, node, err))
				return
			}
			if end(next) {
				return
			}
			if next == tortoise || n > maxWalk {
				yield(0, fmt.Errorf("list %v does not end: at %v after %d nodes: %w", head, next, n, ErrCorrupt))
				return
			}
			if !yield(next, nil) {
				return
			}
			if steps++; steps == limit {
				tortoise, steps, limit = next, 0, 2*limit
			}
			node = next
		}
	}
}

// Structs iterates over the structs of type typ that are linked through member
// on the list at head: list_for_each_entry().
func (k *Kernel) Structs(typ, member string, head Addr) (iter.Seq2[Object, error], error) {
	o, err := k.Object(typ, 0)
	if err != nil {
		return nil, err
	}
	m, err := o.Member(member)
	if err != nil {
		return nil, err
	}
	return func(yield func(Object, error) bool) {
		for node, err := range k.List(head) {
			if err != nil {
				yield(Object{}, err)
				return
			}
			if !yield(Object{k: k, Addr: node - m.Addr, Type: o.Type}, nil) {
				return
			}
		}
	}, nil
}
