package nfqueue

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

func TestBuckets(t *testing.T) {
	for i := 1; i < buckets; i++ {
		if limit(i) <= limit(i-1) {
			t.Fatalf("limit(%d) = %d, limit(%d) = %d", i-1, limit(i-1), i, limit(i))
		}
		if limit(i) > limit(i-1)*9/8+1 {
			t.Errorf("bucket %d, from %d to %d, is wider than an eighth", i, limit(i-1), limit(i))
		}
		for ns, want := range map[int64]int{limit(i-1) + 1: i, limit(i): i, limit(i) - 1: bucket(uint64(limit(i) - 1))} {
			if got := bucket(uint64(ns)); got != want {
				t.Errorf("bucket(%d) = %d, want %d", ns, got, want)
			}
		}
	}
	for ns, want := range map[uint64]int{0: 0, 1: 0, 256: 0, 257: 1, 1 << 38: buckets - 1, 1<<64 - 1: buckets - 1} {
		if got := bucket(ns); got != want {
			t.Errorf("bucket(%d) = %d, want %d", ns, got, want)
		}
	}
}

func TestQuantile(t *testing.T) {
	var h histogram
	var all []time.Duration
	r := rand.New(rand.NewPCG(1, 2))
	for range 100_000 {
		ns := int64(1000 * r.ExpFloat64() * 50)
		all = append(all, time.Duration(max(ns, 256)))
		h.add(ns, 1)
	}
	slices.Sort(all)
	var l Latency
	h.read(&l)
	for _, q := range []float64{0, 0.5, 0.9, 0.99, 0.999, 1} {
		exact := all[max(0, int(q*float64(len(all)))-1)]
		if got := l.Quantile(q); got < exact || got > exact*9/8+1 {
			t.Errorf("quantile %v = %v, want from %v up to an eighth more", q, got, exact)
		}
	}
	if got := (&Latency{}).Quantile(0.5); got != 0 {
		t.Errorf("quantile of nothing = %v", got)
	}
	h.add(int64(time.Hour), 3)
	h.add(-5, 2)
	later := Latency{}
	h.read(&later)
	later.Sub(&l)
	if later.Count != 5 || later.Sum != 3*time.Hour {
		t.Errorf("since then: %d in %v", later.Count, later.Sum)
	}
	l.Add(&later)
	var last uint64
	for _, last = range l.Buckets() {
	}
	if last != l.Count || l.Count != 100_005 {
		t.Errorf("%d in buckets, %d counted", last, l.Count)
	}
}

func TestKernelStats(t *testing.T) {
	got, err := parseKernelStats([]byte("    0  25133   17 2 65531     3     4       99  1\n65535 4294967295 1 1 0 4294967295 0 4294967295 1\n"))
	if err != nil {
		t.Fatal(err)
	}
	want := []KernelStats{
		{Queue: 0, PortID: 25133, Waiting: 17, Mode: 2, CopyRange: 65531, Dropped: 3, UserDropped: 4, LastID: 99},
		{Queue: 65535, PortID: 1<<32 - 1, Waiting: 1, Mode: 1, Dropped: 1<<32 - 1, LastID: 1<<32 - 1},
	}
	if !slices.Equal(got, want) {
		t.Errorf("%+v", got)
	}
	if _, err := parseKernelStats([]byte("what is this\n")); err == nil {
		t.Error("no error for a line that is none")
	}
}
