package heap

import (
	"errors"
	"fmt"
	"math/bits"
	"sync/atomic"

	"inquest/kernel"
)

// encoding is how hardened free pointers mix in the address that they are stored at.
// It is not to be seen in any struct, but in the first pointer that is decoded.
type encoding struct{ atomic.Int32 }

const (
	encodingUnknown = iota
	encodingSwab    // ptr ^ random ^ swab(address), since 5.7 and its stable kin (commit 1ad53d9fa3f6)
	encodingPlain   // ptr ^ random ^ address
)

// decode returns the free pointer that is stored at an address. When it is not known
// yet how they are encoded, valid tells which reading makes sense.
func (h *Heap) decode(c *Cache, at kernel.Addr, stored uint64, valid func(kernel.Addr) bool) kernel.Addr {
	if !c.Hardened {
		return kernel.Addr(stored)
	}
	mixed := stored ^ c.Random
	swab, plain := kernel.Addr(mixed^bits.ReverseBytes64(uint64(at))), kernel.Addr(mixed^uint64(at))
	switch h.plain.Load() {
	case encodingSwab:
		return swab
	case encodingPlain:
		return plain
	}
	switch a, b := valid(swab), valid(plain); {
	case a && !b:
		h.plain.Store(encodingSwab)
	case b && !a:
		h.plain.Store(encodingPlain)
		return plain
	}
	return swab
}

// listError is a free list that is corrupt.
type listError struct {
	at   kernel.Addr // the object whose free pointer is wrong, or the slab whose first one is
	text string
}

func (e *listError) Error() string { return fmt.Sprintf("%v: %s", e.at, e.text) }
func (e *listError) Unwrap() error { return kernel.ErrCorrupt }

// walkFree follows a free list of a slab from its first object and calls visit with
// the index of each. The error is a *listError where the list is corrupt.
func (h *Heap) walkFree(s *slab, first kernel.Addr, visit func(i int)) error {
	c := s.cache
	valid := func(a kernel.Addr) bool {
		_, ok := s.indexOf(a)
		return ok || a == 0
	}
	from := s.page
	p := first
	for n := 0; p != 0; n++ {
		i, ok := s.indexOf(p)
		if !ok {
			return &listError{from, fmt.Sprintf("its free pointer %v is no object of the slab", p)}
		}
		if n == s.objects {
			return &listError{from, "the free list does not end"}
		}
		visit(i)
		at := p + kernel.Addr(c.Offset)
		stored, err := h.k.U64(at)
		if err != nil {
			return fmt.Errorf("follow the free list of the slab at %v: %w", s.page, err)
		}
		from, p = p, h.decode(c, at, stored, valid)
	}
	return nil
}

// stateOf tells whether object i of a slab is free, and on whose list.
func (h *Heap) stateOf(s *slab, i int) (state ObjectState, freeIn string, missing error) {
	held := s.cache.held()
	if where, ok := held.objects[s.object(i)]; ok {
		return Free, where, nil
	}
	free := false
	err := h.walkFree(s, s.freelist, func(n int) { free = free || n == i })
	switch {
	case free:
		where := "the slab's freelist"
		if list := held.slabs[s.page]; list != "" {
			where += " (" + list + ")"
		}
		return Free, where, nil
	case err != nil:
		return Unknown, "", err
	case held.hides(s):
		return Unknown, "", held.err
	}
	return Allocated, "", nil
}

// corrupt reports whether an error is the dump's content, not that it is missing.
func corrupt(err error) bool { return errors.Is(err, kernel.ErrCorrupt) }
