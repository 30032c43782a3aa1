// Package spelling finds the names that a misspelt one may stand for.
package spelling

import (
	"cmp"
	"iter"
	"slices"
	"strings"
)

// DidYouMean words a suggestion, "" when there is none.
func DidYouMean(names []string) string {
	if len(names) == 0 {
		return ""
	}
	return "; did you mean " + strings.Join(names, ", ") + "?"
}

// Closest returns up to three of the names that are spelt much like name, the
// best first.
func Closest(name string, names []string) []string { return ClosestOf(name, slices.Values(names)) }

// ClosestOf is Closest of a sequence.
func ClosestOf(name string, names iter.Seq[string]) []string {
	type match struct {
		name     string
		distance int
	}
	var best []match
	if name == "" {
		return nil
	}
	limit := 1 + len(name)/5
	for n := range names {
		if d := distance(name, n, limit); d <= limit && !slices.ContainsFunc(best, func(m match) bool { return m.name == n }) {
			best = append(best, match{n, d})
		}
	}
	slices.SortStableFunc(best, func(a, b match) int { return cmp.Compare(a.distance, b.distance) })
	var out []string
	for _, m := range best[:min(len(best), 3)] {
		out = append(out, m.name)
	}
	return out
}

// distance is the number of letters to insert, delete, change or swap with their
// neighbour to turn a into b; anything over limit is only known to be over it.
func distance(a, b string, limit int) int {
	if len(a)-len(b) > limit || len(b)-len(a) > limit {
		return limit + 1
	}
	var rows [3][130]int
	if len(b) >= len(rows[0]) {
		return limit + 1
	}
	before, prev, cur := rows[0][:len(b)+1], rows[1][:len(b)+1], rows[2][:len(b)+1]
	for j := range prev {
		prev[j] = j
	}
	for i := 1; i <= len(a); i++ {
		cur[0] = i
		least := i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			cur[j] = min(prev[j]+1, cur[j-1]+1, prev[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				cur[j] = min(cur[j], before[j-2]+1)
			}
			least = min(least, cur[j])
		}
		if least > limit {
			return limit + 1
		}
		before, prev, cur = prev, cur, before
	}
	return prev[len(b)]
}
