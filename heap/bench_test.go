package heap

import (
	"context"
	"testing"

	"inquest/kernel"
)

// benchWorld has 480 slabs with 30 objects each, of which every fifth is free.
func benchWorld(b *testing.B) (*Heap, *Cache, []uint64) {
	w := newWorld(b, variant{mix: "swab"})
	c := w.addCache("widget", 136, 136)
	var slabs []uint64
	for range 480 {
		slabs = append(slabs, w.addSlab(c, 24, 0, 5, 10, 15, 20, 25))
	}
	h := w.open()
	cache, err := h.CacheOf("widget")
	if err != nil {
		b.Fatal(err)
	}
	return h, cache, slabs
}

func BenchmarkIdentify(b *testing.B) {
	h, _, slabs := benchWorld(b)
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		if _, err := h.Identify(kernel.Addr(slabs[i%len(slabs)] + 136*uint64(i%30) + 8)); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkObjects(b *testing.B) {
	h, c, _ := benchWorld(b)
	n := 0
	b.ReportAllocs()
	for b.Loop() {
		for _, err := range h.Objects(c) {
			if err != nil {
				b.Fatal(err)
			}
			n++
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(n), "ns/object")
}

// BenchmarkCheck includes the search for slabs.
func BenchmarkCheck(b *testing.B) {
	h, _, _ := benchWorld(b)
	b.ReportAllocs()
	for b.Loop() {
		wrong, stats, err := New(h.Kernel()).Check(context.Background())
		if err != nil || len(wrong) > 0 || stats.Slabs != 480 {
			b.Fatal(wrong, stats, err)
		}
	}
}
