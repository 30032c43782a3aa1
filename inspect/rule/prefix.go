package rule

import (
	"cmp"
	"encoding/binary"
	"net/netip"
	"slices"
	"sort"
)

// bits128 is an address as a number; an IPv4 address is in the upper 32 bits.
type bits128 struct{ hi, lo uint64 }

func addrBits(a netip.Addr) bits128 {
	if a.Is4() {
		b := a.As4()
		return bits128{hi: uint64(binary.BigEndian.Uint32(b[:])) << 32}
	}
	b := a.As16()
	return bits128{binary.BigEndian.Uint64(b[:8]), binary.BigEndian.Uint64(b[8:])}
}

func (a bits128) compare(b bits128) int {
	return cmp.Or(cmp.Compare(a.hi, b.hi), cmp.Compare(a.lo, b.lo))
}

func (a bits128) masked(bits int) bits128 {
	if bits <= 64 {
		return bits128{hi: a.hi &^ (^uint64(0) >> bits)}
	}
	return bits128{a.hi, a.lo &^ (^uint64(0) >> (bits - 64))}
}

// prefixTable finds the prefixes that hold an address. Prefixes are sorted; each
// knows the next shorter one around it. The longest match of an address is the last
// prefix that does not sort behind it, or one around that. It is read only.
type prefixTable[T any] struct {
	v4, v6 []prefixEntry[T]
}

type prefixEntry[T any] struct {
	first  bits128
	bits   int32
	around int32 // the next shorter prefix that holds this one, -1: none
	value  T
}

// newPrefixTable makes a table of values by prefix.
func newPrefixTable[T any](values map[netip.Prefix]T) *prefixTable[T] {
	t := &prefixTable[T]{}
	for p, v := range values {
		p = unmapped(p)
		e := prefixEntry[T]{first: addrBits(p.Addr()), bits: int32(p.Bits()), around: -1, value: v}
		if p.Addr().Is4() {
			t.v4 = append(t.v4, e)
		} else {
			t.v6 = append(t.v6, e)
		}
	}
	for _, list := range [][]prefixEntry[T]{t.v4, t.v6} {
		slices.SortFunc(list, func(a, b prefixEntry[T]) int {
			return cmp.Or(a.first.compare(b.first), cmp.Compare(a.bits, b.bits))
		})
		for i := range list {
			for j := int32(i) - 1; j >= 0; j = list[j].around {
				if list[j].holds(list[i].first) && list[j].bits < list[i].bits {
					list[i].around = j
					break
				}
			}
		}
	}
	return t
}

func (e *prefixEntry[T]) holds(a bits128) bool { return a.masked(int(e.bits)) == e.first }

// find returns the entries for a's version, and the index of the longest prefix that
// holds a, -1 when there is none.
func (t *prefixTable[T]) find(a netip.Addr) ([]prefixEntry[T], int32) {
	list := t.v6
	if a.Is4() {
		list = t.v4
	}
	if len(list) == 0 {
		return nil, -1
	}
	n := addrBits(a)
	low, high := 0, len(list)
	for low < high {
		if mid := int(uint(low+high) >> 1); list[mid].first.compare(n) <= 0 {
			low = mid + 1
		} else {
			high = mid
		}
	}
	i := int32(low) - 1
	for i >= 0 && !list[i].holds(n) {
		i = list[i].around
	}
	return list, i
}

// unmapped turns a prefix of IPv4-mapped IPv6 addresses into the IPv4 one, and clears
// the bits behind the prefix.
func unmapped(p netip.Prefix) netip.Prefix {
	if a := p.Addr(); a.Is4In6() && p.Bits() >= 96 {
		p = netip.PrefixFrom(a.Unmap(), p.Bits()-96)
	}
	return p.Masked()
}

// suffixTable finds the suffixes that a string ends with, in the same way: sorted by
// the reversed string.
type suffixTable[T any] struct {
	list []suffixEntry[T]
}

type suffixEntry[T any] struct {
	suffix string
	within int32 // the longest other suffix that this one ends with, -1: none
	value  T
}

func newSuffixTable[T any](values map[string]T) *suffixTable[T] {
	t := &suffixTable[T]{list: make([]suffixEntry[T], 0, len(values))}
	for s, v := range values {
		t.list = append(t.list, suffixEntry[T]{suffix: s, within: -1, value: v})
	}
	slices.SortFunc(t.list, func(a, b suffixEntry[T]) int { return compareReversed(a.suffix, b.suffix) })
	for i := range t.list {
		for j := int32(i) - 1; j >= 0; j = t.list[j].within {
			if endsWith(t.list[i].suffix, t.list[j].suffix) {
				t.list[i].within = j
				break
			}
		}
	}
	return t
}

// find returns the index of the longest suffix of s, -1 when there is none.
func (t *suffixTable[T]) find(s string) int32 {
	i := int32(sort.Search(len(t.list), func(i int) bool { return compareReversed(t.list[i].suffix, s) > 0 })) - 1
	for i >= 0 && !endsWith(s, t.list[i].suffix) {
		i = t.list[i].within
	}
	return i
}

func endsWith(s, suffix string) bool {
	return len(s) >= len(suffix) && s[len(s)-len(suffix):] == suffix
}

// compareReversed compares strings from their ends.
func compareReversed(a, b string) int {
	i, j := len(a)-1, len(b)-1
	for ; i >= 0 && j >= 0; i, j = i-1, j-1 {
		if a[i] != b[j] {
			return int(a[i]) - int(b[j])
		}
	}
	return i - j
}
