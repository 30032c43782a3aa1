package heap

import (
	"bytes"
	"context"
	"encoding/binary"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	kt "inquest/internal/kerneltest"
	"inquest/kernel"
	"inquest/vmcore"
)

// rich is a kernel that has all that this package looks at.
func rich(t testing.TB, v variant) *world {
	w := newWorld(t, v)
	w.furnish()
	w.vmalloc(v.types)
	c := w.addCache("debugged", 512, 200)
	w.Set(c, w.cache, "offset", 200)
	w.Set(c, w.cache, "red_left_pad", 16)
	w.Set(c, w.cache, "flags", 0x10400|0x800)
	w.addSlab(c, 7, 1)
	w.Symbol("irq_stack_backing_store", 'd', 0x1000)
	w.Symbol("__per_cpu_end", 'd', 0x1800)
	return w
}

// examine runs everything on a dump, and fails when that takes too long or too much
// memory. What it says does not matter.
func examine(t testing.TB, file []byte, addrs []uint64) {
	t.Helper()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	start := time.Now()
	defer func() {
		runtime.ReadMemStats(&after)
		if took := time.Since(start); took > 20*time.Second {
			t.Errorf("took %v", took)
		}
		if grew := after.TotalAlloc - before.TotalAlloc; grew > 1<<30 {
			t.Errorf("allocated %d MiB", grew>>20)
		}
	}()
	d, err := vmcore.NewReader(vmcore.Part{R: bytes.NewReader(file), Size: int64(len(file)), Name: "test"})
	if err != nil {
		return
	}
	defer d.Close()
	k, err := kernel.Open(d)
	if err != nil {
		return
	}
	h := New(k)
	for _, at := range addrs {
		m, err := h.Identify(kernel.Addr(at))
		if err != nil {
			continue
		}
		if m.Desc == "" {
			t.Errorf("nothing is said of %#x: %+v", at, m)
		}
		if m.Slab != nil {
			h.Neighbours(m.Slab)
			m.Slab.Cache.Aliases()
			m.Slab.Cache.FlagNames()
		}
	}
	all, _ := h.Caches()
	for _, c := range all {
		for range h.Objects(c) {
		}
	}
	h.Usages()
	ctx := context.Background()
	h.AllObjects(ctx, func(*Cache, []Object, error) {})
	h.Check(ctx)
	h.CacheOf("no such cache")
	if tasks, _ := k.Tasks(); len(tasks) > 0 {
		h.IdentifyUser(tasks[0], 0x400000)
	}
}

// places are addresses of all kinds.
func (w *world) places() []uint64 {
	places := []uint64{0, w.Text() + 0x108, w.pageOf(directAt) + 64, 0xffffc90000000100, 0xffffc90000004800, 0xfffffe0000001000, 0xffff888000000310, 0xffff888000101010, 0x401234}
	for off := uint64(0); off < w.next*pageSize; off += 0x178 {
		places = append(places, directAt+off)
	}
	return places
}

// damage changes a file's bytes at random, but for its headers: single bits, words
// that become others, or words that point into slabs.
func damage(file []byte, r *rand.Rand) []byte {
	file = bytes.Clone(file)
	const headers = 4096
	at := func() int { return headers + r.IntN((len(file)-headers)/8)*8 }
	switch r.IntN(4) {
	case 0:
		for range 1 + r.IntN(2000) {
			file[at()+r.IntN(8)] ^= 1 << r.IntN(8)
		}
	case 1:
		for range 1 + r.IntN(2000) {
			copy(file[at():][:8], file[at():])
		}
	case 2:
		for range 1 + r.IntN(20) {
			p := at() &^ 4095
			for i := range min(4096, len(file)-p) {
				file[p+i] = byte(r.Uint32())
			}
		}
	case 3:
		for range 1 + r.IntN(200) {
			binary.LittleEndian.PutUint64(file[at():], directAt+uint64(r.IntN(1<<15))*8)
		}
	}
	return file
}

func TestDamagedMemory(t *testing.T) {
	runs := 30
	if testing.Short() {
		runs = 10
	}
	for _, v := range []variant{variants[1], variants[3], variants[5]} {
		w := rich(t, v)
		file, places := w.ELF(), w.places()
		for seed := range uint64(runs) {
			examine(t, damage(file, rand.New(rand.NewPCG(seed, 1))), places)
			if t.Failed() {
				t.Fatalf("%s, seed %d", v.name, seed)
			}
		}
	}
}

// TestDamagedSlabs damages only what SLUB keeps, so that the rest of the kernel leads
// to it.
func TestDamagedSlabs(t *testing.T) {
	runs := 60
	if testing.Short() {
		runs = 10
	}
	for _, v := range variants {
		w := rich(t, v)
		w.ELF() // with which the kernel is complete
		for seed := range uint64(runs) {
			r := rand.New(rand.NewPCG(seed, 2))
			var undo []func()
			for range 1 + r.IntN(40) {
				undo = append(undo, w.smash(r))
			}
			examine(t, w.ELF(), w.places())
			if t.Failed() {
				t.Fatalf("%s, seed %d", v.name, seed)
			}
			for _, f := range slices.Backward(undo) {
				f()
			}
		}
	}
}

// smash changes a word of a struct page, of a slab or of a cache, and returns what
// puts it right.
func (w *world) smash(r *rand.Rand) (undo func()) {
	someObject := func() uint64 { return directAt + uint64(r.IntN(int(w.next)*pageSize/8))*8 }
	somePage := func() uint64 { return w.pageOf(directAt + uint64(r.IntN(int(w.next)))*pageSize) }
	var at uint64
	switch r.IntN(3) {
	case 0:
		at = somePage() + uint64(r.IntN(8))*8
	case 1:
		at = someObject()
	case 2:
		at = w.kmem["widget"] + uint64(r.IntN(mustSize(w.cache)/8))*8
	}
	old := w.read(at, kt.Ulong, "")
	now := map[int]uint64{0: old ^ 1<<r.IntN(64), 1: r.Uint64(), 2: somePage(), 3: someObject()}[r.IntN(4)]
	w.Write64(at, now)
	return func() { w.Write64(at, old) }
}

func FuzzMemory(f *testing.F) {
	type prepared struct {
		file   []byte
		places []uint64
	}
	kernels := sync.OnceValue(func() []prepared {
		var all []prepared
		for _, v := range variants {
			w := rich(f, v)
			all = append(all, prepared{w.ELF(), w.places()})
		}
		return all
	})
	f.Add(uint8(1), uint64(1), uint64(2))
	f.Add(uint8(5), uint64(3), uint64(4))
	f.Fuzz(func(t *testing.T, which uint8, a, b uint64) {
		k := kernels()[int(which)%len(variants)]
		examine(t, damage(k.file, rand.New(rand.NewPCG(a, b))), k.places)
	})
}

// FuzzFreeList gives a slab any content and any first free object.
func FuzzFreeList(f *testing.F) {
	w := newWorld(f, variant{mix: "swab"})
	slabs, _ := w.furnish()
	h := w.open()
	c, err := h.CacheOf("widget")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(uint64(96), uint64(256), uint64(16), slabs[0], slabs[0]+768)
	f.Add(uint64(0), uint64(8), uint64(512), slabs[0], slabs[0]+8)
	f.Add(uint64(4000), uint64(4096), uint64(1), slabs[0], slabs[0])
	f.Fuzz(func(t *testing.T, offset, size, objects, base, first uint64) {
		if size == 0 || objects == 0 || objects > maxObjects {
			return
		}
		cache := *c
		cache.Size, cache.Offset = size, offset
		s := slab{base: kernel.Addr(base), cache: &cache, objects: int(objects)}
		n := 0
		err := h.walkFree(&s, kernel.Addr(first), func(i int) {
			if i < 0 || i >= s.objects {
				t.Fatalf("object %d of %d", i, s.objects)
			}
			n++
		})
		if n > s.objects {
			t.Errorf("%d objects of %d, %v", n, s.objects, err)
		}
	})
}

// FuzzPoison gives judgePoison any memory of any shape.
func FuzzPoison(f *testing.F) {
	f.Add([]byte("\xbb\xbbkkk\xa5\xbb\xbb"), uint64(2), uint64(4), uint64(6), true)
	f.Fuzz(func(t *testing.T, b []byte, pad, size, inuse uint64, free bool) {
		c := &Cache{RedLeftPad: pad % maxStride, ObjectSize: size % maxStride, Inuse: inuse % maxStride, HasRedZone: true, HasPoison: true}
		state := Allocated
		if free {
			state = Free
		}
		judgePoison(b, c, state)
	})
}
