package vmcore

import (
	"cmp"
	"container/heap"
	"slices"
	"sort"
)

// An extent says that size bytes from start on are in a file at off.
type extent struct{ start, size, off uint64 }

func (e extent) end() uint64 { return e.start + e.size }

// disjoint resolves overlaps: it returns ascending extents that cover the same
// bytes, each of them by the latest extent in the list that has it. Extents
// must not be empty and must end below 1<<64. Time is O(n log n), whatever the
// overlaps, and the result has fewer than 2n extents.
func disjoint(list []extent) []extent {
	if ascending(list) {
		return list
	}
	byStart := make([]int, len(list))
	for i := range byStart {
		byStart[i] = i
	}
	slices.SortFunc(byStart, func(a, b int) int { return cmp.Compare(list[a].start, list[b].start) })

	var (
		out    []extent
		active latestFirst // extents that began at or before pos
		pos    uint64
	)
	for {
		for len(active) > 0 && list[active[0]].end() <= pos {
			heap.Pop(&active)
		}
		if len(active) == 0 {
			if len(byStart) == 0 {
				return out
			}
			pos = list[byStart[0]].start
		}
		for len(byStart) > 0 && list[byStart[0]].start <= pos {
			heap.Push(&active, byStart[0])
			byStart = byStart[1:]
		}
		top := list[active[0]]
		end := top.end()
		if len(byStart) > 0 {
			end = min(end, list[byStart[0]].start)
		}
		next := extent{start: pos, size: end - pos, off: top.off + (pos - top.start)}
		if n := len(out); n > 0 && out[n-1].end() == pos && out[n-1].off+out[n-1].size == next.off {
			out[n-1].size += next.size
		} else {
			out = append(out, next)
		}
		pos = end
	}
}

func ascending(list []extent) bool {
	for i := 1; i < len(list); i++ {
		if list[i].start < list[i-1].end() {
			return false
		}
	}
	return true
}

// from returns the extents of a disjoint list from the first one that ends
// above pos on.
func from(list []extent, pos uint64) []extent {
	return list[sort.Search(len(list), func(i int) bool { return list[i].end() > pos }):]
}

// latestFirst is a heap of list positions, the highest on top.
type latestFirst []int

func (h latestFirst) Len() int           { return len(h) }
func (h latestFirst) Less(i, j int) bool { return h[i] > h[j] }
func (h latestFirst) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *latestFirst) Push(x any)        { *h = append(*h, x.(int)) }
func (h *latestFirst) Pop() any {
	old := *h
	x := old[len(old)-1]
	*h = old[:len(old)-1]
	return x
}
