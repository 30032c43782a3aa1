package heap

import (
	"fmt"
	"strings"

	"inquest/kernel"
)

// Track says who allocated or freed an object (struct track, with slub_debug=U).
type Track struct {
	Caller  kernel.Addr   // return address of the call
	CPU     int           // that it ran on
	PID     int           // of the task
	Jiffies uint64        // when
	Stack   []kernel.Addr // return addresses, innermost first; empty when the kernel kept none
}

// What debugging fills memory with (include/linux/poison.h).
const (
	redInactive = 0xbb // SLUB_RED_INACTIVE: red zone of a free object
	redActive   = 0xcc // SLUB_RED_ACTIVE: of an allocated one
	poisonFree  = 0x6b // POISON_FREE
	poisonEnd   = 0xa5 // POISON_END: the last byte
)

const (
	maxPoison = 1 << 16 // bytes of an object that are looked at
	maxStack  = 64      // CONFIG_STACKDEPOT_MAX_FRAMES
)

// infoEnd is where what debugging adds begins in an object: get_info_end() of
// mm/slub.c. The free pointer is behind the object when it must not be in it.
func (c *Cache) infoEnd() uint64 {
	if c.Offset >= c.Inuse {
		return c.Inuse + 8
	}
	return c.Inuse
}

// tracks reads who allocated an object and who freed it, nil where nobody did or the
// dump lacks it.
func (h *Heap) tracks(c *Cache, start kernel.Addr) (alloc, free *Track) {
	size, err := h.k.SizeOf("track")
	if err != nil || c.infoEnd()+2*size > c.Size {
		return nil, nil
	}
	at := start + kernel.Addr(c.infoEnd())
	return h.track(at), h.track(at + kernel.Addr(size))
}

func (h *Heap) track(at kernel.Addr) *Track {
	o, err := h.k.Object("track", at)
	if err != nil {
		return nil
	}
	t := &Track{}
	if t.Caller, err = o.Pointer("addr"); err != nil || t.Caller == 0 {
		return nil
	}
	cpu, _ := o.Int("cpu")
	pid, _ := o.Int("pid")
	t.Jiffies, _ = o.Uint("when")
	t.CPU, t.PID = int(cpu), int(pid)
	switch {
	case o.Has("handle"): // a handle of the stack depot, since 5.19 (commit 5cf909c553e9)
		handle, err := o.Uint("handle")
		if err == nil && handle != 0 {
			t.Stack = h.depotStack(uint32(handle))
		}
	case o.Has("addrs[0]"):
		m, _ := o.Member("addrs")
		n, _ := m.Size()
		if b, err := h.k.Slice(m.Addr, int(min(n, 8*maxStack))); err == nil {
			t.Stack = stackOf(b)
		}
	}
	return t
}

// stackOf reads return addresses up to the first that is none.
func stackOf(b []byte) []kernel.Addr {
	var stack []kernel.Addr
	for ; len(b) >= 8; b = b[8:] {
		a := kernel.Addr(le.Uint64(b))
		if a < startKernelMap {
			break
		}
		stack = append(stack, a)
	}
	return stack
}

// stackDepot is lib/stackdepot.c's store of stack traces: pools of records.
type stackDepot struct {
	pools         kernel.Addr // array of pointers to pools
	index, offset bitField    // of a handle
	plusOne       bool        // index counts from 1
	size, entries uint64      // offsets in struct stack_record
}

func (h *Heap) findStackDepot() (*stackDepot, error) {
	d := &stackDepot{}
	pools, err := h.k.Lookup("stack_pools")
	if err != nil { // its name until 6.2
		pools, err = h.k.Lookup("stack_slabs")
	}
	if err != nil {
		return nil, err
	}
	d.pools = pools.Addr
	// An array at first, it is a pointer to one where its size is chosen at boot.
	const smallestArray = 64
	if pools.Size < smallestArray {
		if d.pools, err = h.k.Pointer(pools.Addr); err != nil {
			return nil, err
		}
	}
	parts, err := h.k.Object("handle_parts", 0)
	if err != nil {
		return nil, err
	}
	for _, name := range []string{"pool_index_plus_1", "pool_index", "slabindex"} {
		var m kernel.Object
		if m, err = parts.Member(name); err == nil {
			d.index = bitField{uint64(m.Addr), m.Bits.Offset, 1<<m.Bits.Size - 1}
			d.plusOne = name == "pool_index_plus_1"
			break
		}
	}
	if err != nil {
		return nil, err
	}
	m, err := parts.Member("offset")
	if err != nil {
		return nil, err
	}
	d.offset = bitField{uint64(m.Addr), m.Bits.Offset, 1<<m.Bits.Size - 1}
	if d.size, err = h.k.OffsetOf("stack_record", "size"); err != nil {
		return nil, err
	}
	d.entries, err = h.k.OffsetOf("stack_record", "entries")
	return d, err
}

// depotStack returns the stack of a handle, nil when the dump lacks it.
func (h *Heap) depotStack(handle uint32) []kernel.Addr {
	const align = 4 // DEPOT_STACK_ALIGN
	d, err := h.depot()
	if err != nil {
		return nil
	}
	parts := le.AppendUint64(nil, uint64(handle))
	index, offset := d.index.of(parts), d.offset.of(parts)
	if d.plusOne {
		if index == 0 {
			return nil
		}
		index--
	}
	pool, err := h.k.Pointer(d.pools + kernel.Addr(8*index))
	if err != nil {
		return nil
	}
	record := pool + kernel.Addr(offset<<align)
	n, err := h.k.U32(record + kernel.Addr(d.size))
	if err != nil || n > maxStack {
		return nil
	}
	b, err := h.k.Slice(record+kernel.Addr(d.entries), 8*int(n))
	if err != nil {
		return nil
	}
	return stackOf(b)
}

// poison says what became of an object's red zones and poison, "" when the cache has
// neither or the memory is missing.
func (h *Heap) poison(o *SlabObject) string {
	c := o.Cache
	if !c.HasRedZone && !c.HasPoison || o.State == Unknown {
		return ""
	}
	from := o.Start - kernel.Addr(c.RedLeftPad)
	b, err := h.k.Slice(from, int(min(c.RedLeftPad+c.Inuse, maxPoison)))
	if err != nil {
		return ""
	}
	return judgePoison(b, c, o.State)
}

const overwritten = "overwritten"

// judgePoison looks at an object with the red zones around it.
func judgePoison(b []byte, c *Cache, state ObjectState) string {
	var wrong, right []string
	check := func(what string, from, to uint64, fill byte) {
		if to > uint64(len(b)) || from >= to {
			return
		}
		zone := b[from:to]
		for i, v := range zone {
			if v != fill {
				wrong = append(wrong, fmt.Sprintf("%s "+overwritten+": %s instead of %#02x at offset %d",
					what, hexBytes(trimFill(zone[i:], fill)), fill, int64(from)+int64(i)-int64(c.RedLeftPad)))
				return
			}
		}
		right = append(right, what)
	}
	start, end := c.RedLeftPad, c.RedLeftPad+c.ObjectSize
	if c.HasRedZone {
		fill := byte(redActive)
		if state == Free {
			fill = redInactive
		}
		check("left red zone", 0, start, fill)
		check("right red zone", end, c.RedLeftPad+c.Inuse, fill)
	}
	if c.HasPoison && state == Free && end <= uint64(len(b)) {
		check("poison", start, end-1, poisonFree)
		check("end of poison", end-1, end, poisonEnd)
	}
	switch {
	case len(wrong) > 0:
		return strings.Join(wrong, "; ")
	case len(right) > 0:
		return strings.Join(right, ", ") + " intact"
	}
	return ""
}

// trimFill cuts the fill byte off the end.
func trimFill(b []byte, fill byte) []byte {
	for len(b) > 0 && b[len(b)-1] == fill {
		b = b[:len(b)-1]
	}
	return b
}

// hexBytes writes the first bytes of b.
func hexBytes(b []byte) string {
	const most = 8
	if len(b) > most {
		return fmt.Sprintf("% x …", b[:most])
	}
	return fmt.Sprintf("% x", b)
}
