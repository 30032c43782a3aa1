package heap

import (
	"fmt"

	"inquest/kernel"
)

// ObjectState says whether an object is in use.
type ObjectState int

// The states of an object.
const (
	Unknown ObjectState = iota // the dump lacks what would tell
	Allocated
	Free
)

func (s ObjectState) String() string { return [...]string{"unknown", "allocated", "free"}[s] }

// MarshalText writes the state as a word.
func (s ObjectState) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// SlabObject is a place in a slab, and the object it belongs to.
type SlabObject struct {
	Cache  *Cache
	Slab   kernel.Addr // struct slab, or struct page until 5.16
	Start  kernel.Addr // of the object; 0 behind the last one
	Index  int         // of the object in the slab; -1 behind the last one
	Offset uint64      // from Start; in the red zone in front of it, minus so many
	State  ObjectState
	FreeIn string // whose list a free object is on: "the slab's freelist", "CPU 1's freelist" …
	Size   uint64 // of the object for its user, in bytes
	Stride uint64 // from one object to the next

	InRedzone bool // in a red zone: before or behind the object (SLAB_RED_ZONE)
	InPadding bool // behind the object: alignment, free pointer, tracks; or behind the last object

	Alloc, FreeTrack *Track // who allocated it, and who freed it last (SLAB_STORE_USER)
	Poison           string // what became of red zones and poison; "" when they are not on

	// Missing says why the state is unknown.
	Missing error
}

// slab is the head of a slab.
type slab struct {
	page     kernel.Addr // struct slab or struct page
	pfn      uint64
	base     kernel.Addr // first byte of its memory
	cache    *Cache
	inuse    int
	objects  int
	frozen   bool
	freelist kernel.Addr
}

// parseSlab reads the struct slab of a page frame that isSlab says is one.
func (h *Heap) parseSlab(l *slubLayout, pfn uint64, p rawPage) (slab, error) {
	s := slab{
		page: h.pageAt(l.pages, pfn), pfn: pfn, base: h.virt(pfn),
		inuse: int(l.inuse.of(p)), objects: int(l.objects.of(p)), frozen: l.frozen.of(p) != 0,
		freelist: kernel.Addr(le.Uint64(p[l.freelist:])),
	}
	c, err := h.cacheAt(kernel.Addr(le.Uint64(p[l.cache:])))
	if err != nil {
		return s, fmt.Errorf("slab at %v: %w", s.page, err)
	}
	s.cache = c
	if s.objects == 0 || s.objects > maxObjects || s.inuse > s.objects {
		return s, fmt.Errorf("slab at %v: %d of %d objects in use: %w", s.page, s.inuse, s.objects, kernel.ErrCorrupt)
	}
	return s, nil
}

// slabAt reads the struct slab at an address.
func (h *Heap) slabAt(l *slubLayout, addr kernel.Addr) (slab, error) {
	pfn, ok := h.pfnOf(l.pages, addr)
	if !ok {
		return slab{}, fmt.Errorf("%v is no struct page: %w", addr, kernel.ErrCorrupt)
	}
	p, err := h.readPage(l.pages, pfn)
	if err != nil {
		return slab{}, err
	}
	if !l.pages.isSlab(p) {
		return slab{}, fmt.Errorf("%v is no slab: %w", addr, kernel.ErrCorrupt)
	}
	return h.parseSlab(l, pfn, p)
}

// object returns the address of an object.
func (s *slab) object(i int) kernel.Addr {
	return s.base + kernel.Addr(uint64(i)*s.cache.Size+s.cache.RedLeftPad)
}

// indexOf returns which object begins at an address; false when none does.
func (s *slab) indexOf(a kernel.Addr) (int, bool) {
	off := uint64(a - s.base)
	if off < s.cache.RedLeftPad {
		return 0, false
	}
	off -= s.cache.RedLeftPad
	i := off / s.cache.Size
	return int(i), i < uint64(s.objects) && off%s.cache.Size == 0
}

// identifySlab describes an address in a slab.
func (h *Heap) identifySlab(m *Memory, pfn uint64, p rawPage) {
	m.Kind = Slab
	l, err := h.slub()
	if err != nil {
		m.Desc = "in a slab"
		m.miss(err)
		return
	}
	s, err := h.parseSlab(l, pfn, p)
	if err != nil {
		m.Desc = "in a slab"
		if s.cache != nil {
			m.Desc = "in a slab of cache " + s.cache.Name
		}
		m.miss(err)
		return
	}
	if s.base > m.Addr {
		m.Desc = "in a slab of cache " + s.cache.Name
		m.miss(fmt.Errorf("slab at %v begins behind %v: %w", s.page, m.Addr, kernel.ErrCorrupt))
		return
	}
	m.Slab = h.locate(&s, m.Addr)
	m.Desc = m.Slab.describe()
	m.miss(m.Slab.Missing)
}

// locate finds the object that an address in a slab belongs to.
func (h *Heap) locate(s *slab, addr kernel.Addr) *SlabObject {
	c := s.cache
	o := &SlabObject{Cache: c, Slab: s.page, Index: -1, Size: c.ObjectSize, Stride: c.Size}
	off := uint64(addr - s.base)
	i := off / c.Size
	if i >= uint64(s.objects) {
		o.InPadding = true
		return o
	}
	h.fill(o, s, int(i))
	o.Offset = uint64(addr - o.Start)
	switch {
	case addr < o.Start:
		o.InRedzone = true
	case o.Offset >= c.ObjectSize && o.Offset < c.Inuse && c.HasRedZone:
		o.InRedzone = true
	case o.Offset >= c.ObjectSize:
		o.InPadding = true
	}
	return o
}

// fill sets what is known of object i.
func (h *Heap) fill(o *SlabObject, s *slab, i int) {
	c := s.cache
	o.Index, o.Start = i, s.object(i)
	o.State, o.FreeIn, o.Missing = h.stateOf(s, i)
	if c.HasUserTrack {
		o.Alloc, o.FreeTrack = h.tracks(c, o.Start)
	}
	o.Poison = h.poison(o)
}

// Neighbours returns the objects in front of one and behind it in its slab, nil where
// there is none.
func (h *Heap) Neighbours(o *SlabObject) (prev, next *SlabObject) {
	l, err := h.slub()
	if err != nil || o == nil || o.Index < 0 {
		return nil, nil
	}
	s, err := h.slabAt(l, o.Slab)
	if err != nil {
		return nil, nil
	}
	at := func(i int) *SlabObject {
		if i < 0 || i >= s.objects {
			return nil
		}
		n := &SlabObject{Cache: s.cache, Slab: s.page, Size: s.cache.ObjectSize, Stride: s.cache.Size}
		h.fill(n, &s, i)
		return n
	}
	return at(o.Index - 1), at(o.Index + 1)
}

// describe says in one line what the place is.
func (o *SlabObject) describe() string {
	c := o.Cache
	if o.Index < 0 {
		return fmt.Sprintf("in the unused end of a slab of cache %s", c.Name)
	}
	state := o.State.String()
	if o.State == Unknown {
		state = "allocated or free"
	}
	if o.FreeIn != "" {
		state += ", on " + o.FreeIn
	}
	at := ""
	if o.Offset != 0 {
		at = fmt.Sprintf(" at %v", o.Start)
	}
	object := fmt.Sprintf("object %d%s (%s) of slab cache %s, %d bytes", o.Index, at, state, c.Name, o.Size)
	switch {
	case int64(o.Offset) < 0:
		return fmt.Sprintf("in the red zone %d bytes before %s", -int64(o.Offset), object)
	case o.InRedzone:
		return fmt.Sprintf("in the red zone %d bytes past the end of %s", o.Offset-o.Size, object)
	case o.InPadding:
		return fmt.Sprintf("in the padding, %d bytes past the end of %s", o.Offset-o.Size, object)
	case o.Offset == 0:
		return "the start of " + object
	}
	return fmt.Sprintf("%d bytes into %s", o.Offset, object)
}
