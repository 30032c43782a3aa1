package nfqueue

import (
	"iter"
	"math/bits"
	"sync/atomic"
	"time"
)

// A histogram has 8 buckets for every power of two nanoseconds, so that a
// quantile is at most 12.5 % too high, from 256 ns up to 2^38 ns (275 s).
const (
	subBits   = 3
	firstBits = 8
	lastBits  = 38
	buckets   = (lastBits-firstBits)<<subBits + 1
)

// histogram counts durations without locks or allocation.
type histogram struct {
	sum    atomic.Int64
	counts [buckets]atomic.Uint64
}

func (h *histogram) add(ns int64, n uint64) {
	ns = max(ns, 0)
	h.sum.Add(ns * int64(n))
	h.counts[bucket(uint64(ns))].Add(n)
}

// bucket is the first whose limit is not below ns.
func bucket(ns uint64) int {
	if ns <= 1<<firstBits {
		return 0
	}
	ns--
	power := bits.Len64(ns) - 1
	sub := ns >> (power - subBits) & (1<<subBits - 1)
	return min((power-firstBits)<<subBits+int(sub)+1, buckets-1)
}

// limit is the longest duration in bucket i, in nanoseconds.
func limit(i int) int64 {
	if i == 0 {
		return 1 << firstBits
	}
	i--
	power, sub := i>>subBits+firstBits, int64(i&(1<<subBits-1))
	return (sub + 1 + 1<<subBits) << (power - subBits)
}

// Latency is how long packets waited for their verdicts: from when this
// program received them (or, with Config.Timestamps, from when they came in)
// until the kernel had the verdict and had done what it said.
type Latency struct {
	Count  uint64
	Sum    time.Duration
	counts [buckets]uint64
}

func (h *histogram) read(l *Latency) {
	l.Sum += time.Duration(h.sum.Load())
	for i := range h.counts {
		n := h.counts[i].Load()
		l.counts[i] += n
		l.Count += n
	}
}

// Quantile is a time that the part q, from 0 to 1, of the packets did not wait
// longer than; it is at most 12.5 % too high. 0 if there were no packets.
func (l *Latency) Quantile(q float64) time.Duration {
	want := uint64(min(max(q, 0), 1) * float64(l.Count))
	var sum uint64
	for i, n := range l.counts {
		sum += n
		if sum > 0 && sum >= want {
			return time.Duration(limit(i))
		}
	}
	return 0
}

// Buckets yields the limits of all buckets in rising order, each with how
// many packets waited no longer than that.
func (l *Latency) Buckets() iter.Seq2[time.Duration, uint64] {
	return func(yield func(time.Duration, uint64) bool) {
		var sum uint64
		for i, n := range l.counts {
			sum += n
			if !yield(time.Duration(limit(i)), sum) {
				return
			}
		}
	}
}

// Add adds the counts of o.
func (l *Latency) Add(o *Latency) {
	l.Count += o.Count
	l.Sum += o.Sum
	for i, n := range o.counts {
		l.counts[i] += n
	}
}

// Sub takes away the counts of o, an earlier Latency of the same queue: what
// is left is that of the time between.
func (l *Latency) Sub(o *Latency) {
	l.Count -= o.Count
	l.Sum -= o.Sum
	for i, n := range o.counts {
		l.counts[i] -= n
	}
}
