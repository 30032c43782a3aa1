package explain

import (
	"fmt"

	"inquest/heap"
	"inquest/kernel"
)

// Overflow finds a pointer that was overwritten from the object in front of it: a run
// of text, or of one byte, begins in there, crosses the end, and covers the pointer.
var Overflow = &Analyzer{
	Name: "out-of-bounds",
	Doc:  "an object that was overwritten from its neighbour in front",
	Run: func(c *Case) []Finding {
		for _, l := range c.leads() {
			if l.bad.class == NullDereference {
				continue
			}
			if f, ok := c.overflowFinding(l); ok {
				return []Finding{f}
			}
		}
		return nil
	},
}

// spill is a run of bytes that crosses into an object from the one in front.
type spill struct {
	start, end kernel.Addr // of the run
	text       bool        // printable characters, as opposed to one byte over and over
	bytes      []byte
	obj, front *heap.SlabObject
}

func (c *Case) overflowFinding(l lead) (Finding, bool) {
	s, ok := c.overrun(l.at)
	if !ok {
		return Finding{}, false
	}
	in := functionOf(c.Crash.Trace.Frames[l.frame].Name())
	f := Finding{
		Class:      OutOfBounds,
		Title:      fmt.Sprintf("an object of slab cache %s was overwritten from the one in front of it, then used in %s", s.obj.Cache.Name, in),
		Confidence: Likely,
		Weight:     8,
		Objects: []Object{
			c.object(s.obj, "was overwritten"),
			c.object(s.front, "in front of it: where the write came from"),
		},
	}
	typ, _ := c.structOf(s.obj.Cache)
	if typ != nil {
		f.Title = fmt.Sprintf("%s was overwritten from the object in front of it, then used in %s", article(typ.Name), in)
	}
	what := fmt.Sprintf("the byte %#02x over and over", s.bytes[0])
	if s.text {
		what = fmt.Sprintf("text, %q", clip(s.bytes))
	}
	f.Evidence = []Evidence{
		{
			Text: fmt.Sprintf("the pointer %#x was read from %v, %d bytes into object %d (%v) at %v: %s", l.value, l.at, s.obj.Offset, s.obj.Index, s.obj.State, s.obj.Start, l.bad.what),
			Addr: l.at, Check: fmt.Sprintf("whatis %v", l.at),
		},
		{
			Text: fmt.Sprintf("%d bytes of one kind cover it, from %v to %v: %s", uint64(s.end-s.start), s.start, s.end, what),
			Addr: s.start, Check: fmt.Sprintf("rd %v %d", s.start&^7, min(64, (s.end-s.start)/8+1)),
		},
		{
			Text: fmt.Sprintf("they begin in the object in front, at %v (%v), %d bytes before its end, and reach %d bytes into this one",
				s.front.Start, s.front.State, int64(s.front.Start)+int64(s.front.Size)-int64(s.start), uint64(s.end-s.obj.Start)),
			Addr: s.front.Start, Check: fmt.Sprintf("whatis %v", s.front.Start),
		},
	}
	if typ != nil {
		if place, ok := kernel.PlaceAt(typ.Struct, uint64(s.start-s.front.Start)); ok && place.Path != "" {
			f.Evidence = append(f.Evidence, Evidence{
				Text:  fmt.Sprintf("the run begins at its %s.%s: who wrote that member wrote too much", typ.Name, place.Path),
				Addr:  s.front.Start,
				Check: typ.check(s.front.Start),
			})
		}
	}
	if s.front.Poison != "" && s.front.Cache.HasRedZone {
		f.Confidence = Certain
		f.Evidence = append(f.Evidence, Evidence{Text: "its red zone says so too: " + s.front.Poison, Addr: s.front.Start, Check: fmt.Sprintf("whatis %v", s.front.Start)})
	}
	f.Evidence = append(f.Evidence, c.history(s.front)...)
	f.Advice = append(f.Advice, "Who wrote is not in the dump. Booting with slub_debug=FZU finds the write when the object in front is freed, KASAN when it happens.")
	return f, true
}

// Bounds on a run.
const (
	maxSpill   = 4096 // bytes looked at, to either side
	minCrossed = 8    // bytes of it in front of the object that was overwritten
)

// overrun looks for the run of bytes that covers an address in an object and begins in
// the object in front. Poison is no such run: SLUB itself fills memory with it.
func (c *Case) overrun(at kernel.Addr) (s spill, ok bool) {
	obj, ok := c.slabObject(at)
	if !ok || obj.State == heap.Free {
		return s, false
	}
	front, _ := c.heap().Neighbours(obj)
	if front == nil || at-front.Start > maxSpill {
		return s, false
	}
	n := uint64(at-front.Start) + 8
	if more := obj.Size - obj.Offset; more > 8 {
		n += min(more-8, maxSpill)
	}
	b, err := c.Kernel.Slice(front.Start, int(n))
	if err != nil {
		return s, false
	}
	i := int(at - front.Start)
	for _, text := range []bool{true, false} {
		from, to := run(b, i, text)
		if to-i < 8 {
			continue
		}
		s = spill{front.Start + kernel.Addr(from), front.Start + kernel.Addr(to), text, b[from:to], obj, front}
		// The run must leave nothing of the way into the object as it was, and must not
		// fill all there is.
		if from > 0 && s.start+minCrossed <= front.Start+kernel.Addr(front.Size) && to < len(b) {
			return s, true
		}
	}
	return s, false
}

// run extends a run of bytes of one kind from b[i:i+8] to both sides.
func run(b []byte, i int, text bool) (from, to int) {
	same := func(ch byte) bool { return ch == b[i] }
	if text {
		same = func(ch byte) bool { return ch >= 0x20 && ch <= 0x7e || ch == '\n' || ch == '\t' }
	}
	if !same(b[i]) || !text && fillers[b[i]] {
		return i, i
	}
	for from = i; from > 0 && same(b[from-1]); from-- {
	}
	for to = i; to < len(b) && same(b[to]); to++ {
	}
	return from, to
}

// fillers are the bytes that the kernel fills memory with, of its own accord.
var fillers = map[byte]bool{0: true, 0x5a: true, 0x6b: true, 0xa5: true, 0xaa: true, 0xbb: true, 0xcc: true, 0xff: true}

func clip(b []byte) string {
	const most = 24
	if len(b) > most {
		return string(b[:most]) + "…"
	}
	return string(b)
}
