package rule

import (
	"maps"
	"net/netip"
	"slices"

	"inquest/inspect/app"
)

// index finds the few rules that can match a packet. Each rule is in it under the keys
// of one dimension, the one in which fewest others share its keys, or under always.
type index struct {
	header headerIndex
	facts  []factIndex
}

// headerIndex finds rules by what every packet shows.
type headerIndex struct {
	always             []int32
	protos             [][]int32 // by protocol, nil when there are none
	srcPorts, dstPorts map[uint32][]int32
	src, dst           *prefixTable[[]int32]
}

// factIndex finds rules by the end of one fact, or, until it is known, by the header.
type factIndex struct {
	field    *app.Field
	suffixes *suffixTable[[]int32]
	unknown  headerIndex
}

// found is one rule's place in an index: the dimension, and how many rules share the
// most shared of its keys.
type found struct {
	dim    dimension
	shared int
}

// newIndex places rules, which are numbers in order, by their constraints. It writes
// each rule's place to places.
func newIndex(rules []int32, of []constraints, places []found) *index {
	x := &index{}
	choose(rules, of, places, true)
	byDim := map[dimension][]int32{}
	for _, r := range rules {
		byDim[places[r].dim] = append(byDim[places[r].dim], r)
	}
	for _, d := range slices.Sorted(maps.Keys(byDim)) {
		if !d.isFact() {
			continue
		}
		members := byDim[d]
		delete(byDim, d)
		suffixes := map[string][]int32{}
		for _, r := range members {
			for _, s := range of[r][d].suffixes {
				suffixes[s] = appendOnce(suffixes[s], r)
			}
		}
		f := factIndex{field: &app.Fields[d.field()], suffixes: newSuffixTable(suffixes)}
		inHeader := make([]found, len(places))
		choose(members, of, inHeader, false)
		f.unknown = newHeaderIndex(members, of, inHeader)
		x.facts = append(x.facts, f)
	}
	x.header = newHeaderIndex(slices.Sorted(slices.Values(slices.Concat(slices.Collect(maps.Values(byDim))...))), of, places)
	return x
}

// keyID is one key of one dimension.
type keyID struct {
	dim    dimension
	number uint32
	prefix netip.Prefix
	suffix string
}

func (k keys) each(d dimension, f func(keyID)) {
	for _, n := range k.numbers {
		f(keyID{dim: d, number: n})
	}
	for _, p := range k.prefixes {
		f(keyID{dim: d, prefix: p})
	}
	for _, s := range k.suffixes {
		f(keyID{dim: d, suffix: s})
	}
}

// preference orders dimensions that are equally good, best first: what is cheap to look
// up and tells most.
var preference = []dimension{dimDstPort, dimSrc, dimDst, dimSrcPort, dimProto}

// choose picks for each rule the dimension in which its keys are shared least.
func choose(rules []int32, of []constraints, places []found, facts bool) {
	shared := map[keyID]int{}
	for _, r := range rules {
		for d, k := range of[r] {
			k.each(d, func(id keyID) { shared[id]++ })
		}
	}
	for _, r := range rules {
		best := found{dim: dimNone, shared: len(rules) + 1}
		consider := func(d dimension) {
			k, ok := of[r][d]
			if !ok {
				return
			}
			most := 0
			k.each(d, func(id keyID) { most = max(most, shared[id]) })
			if most < best.shared {
				best = found{d, most}
			}
		}
		for _, d := range preference {
			consider(d)
		}
		if facts {
			for _, d := range slices.Sorted(maps.Keys(of[r])) {
				if d.isFact() {
					consider(d)
				}
			}
		}
		places[r] = best
	}
}

func newHeaderIndex(rules []int32, of []constraints, places []found) headerIndex {
	h := headerIndex{srcPorts: map[uint32][]int32{}, dstPorts: map[uint32][]int32{}}
	src, dst := map[netip.Prefix][]int32{}, map[netip.Prefix][]int32{}
	for _, r := range rules {
		k := of[r][places[r].dim]
		switch places[r].dim {
		case dimSrc, dimDst:
			in := src
			if places[r].dim == dimDst {
				in = dst
			}
			for _, p := range k.prefixes {
				in[p] = appendOnce(in[p], r)
			}
		case dimSrcPort, dimDstPort:
			in := h.srcPorts
			if places[r].dim == dimDstPort {
				in = h.dstPorts
			}
			for _, n := range k.numbers {
				in[n] = appendOnce(in[n], r)
			}
		case dimProto:
			if h.protos == nil {
				h.protos = make([][]int32, 256)
			}
			for _, n := range k.numbers {
				h.protos[n] = appendOnce(h.protos[n], r)
			}
		default:
			h.always = append(h.always, r)
		}
	}
	h.src, h.dst = newPrefixTable(src), newPrefixTable(dst)
	return h
}

// appendOnce adds a rule to a list that is in order.
func appendOnce(list []int32, r int32) []int32 {
	if n := len(list); n > 0 && list[n-1] == r {
		return list
	}
	return append(list, r)
}

// find adds to lists those with the rules that can match what the machine looks at:
// each list is in order, and a rule may be in several.
func (x *index) find(m *machine, lists [][]int32) [][]int32 {
	lists = x.header.find(m, lists)
	for i := range x.facts {
		f := &x.facts[i]
		if m.hide&fromField(f.field.ID) != 0 {
			lists = f.unknown.find(m, lists)
			continue
		}
		if f.field.String != nil {
			lists = f.find(f.field.String(m.facts), lists)
			continue
		}
		for _, s := range f.field.Strings(m.facts) {
			lists = f.find(s, lists)
		}
	}
	return lists
}

func (f *factIndex) find(s string, lists [][]int32) [][]int32 {
	if s == "" {
		return lists
	}
	for i := f.suffixes.find(s); i >= 0; i = f.suffixes.list[i].within {
		lists = append(lists, f.suffixes.list[i].value)
	}
	return lists
}

func (h *headerIndex) find(m *machine, lists [][]int32) [][]int32 {
	if len(h.always) > 0 {
		lists = append(lists, h.always)
	}
	if h.protos != nil {
		if l := h.protos[m.tuple.Proto]; l != nil {
			lists = append(lists, l)
		}
	}
	if m.ports {
		if len(h.dstPorts) > 0 {
			if l := h.dstPorts[portKey(m.tuple.Proto, m.tuple.DstPort)]; l != nil {
				lists = append(lists, l)
			}
		}
		if len(h.srcPorts) > 0 {
			if l := h.srcPorts[portKey(m.tuple.Proto, m.tuple.SrcPort)]; l != nil {
				lists = append(lists, l)
			}
		}
	}
	if entries, i := h.src.find(m.tuple.Src); i >= 0 {
		for ; i >= 0; i = entries[i].around {
			lists = append(lists, entries[i].value)
		}
	}
	if entries, i := h.dst.find(m.tuple.Dst); i >= 0 {
		for ; i >= 0; i = entries[i].around {
			lists = append(lists, entries[i].value)
		}
	}
	return lists
}

// merge walks several ordered lists as one, each rule once.
type merge struct {
	lists [][]int32
}

// next returns the lowest rule that is left, -1 when there is none.
func (m *merge) next() int32 {
	lists := m.lists
	switch len(lists) {
	case 0:
		return -1
	case 1:
		r := lists[0][0]
		if lists[0] = lists[0][1:]; len(lists[0]) == 0 {
			m.lists = lists[:0]
		}
		return r
	}
	lowest := lists[0][0]
	for _, l := range lists[1:] {
		lowest = min(lowest, l[0])
	}
	for i := 0; i < len(lists); {
		if lists[i][0] == lowest {
			if lists[i] = lists[i][1:]; len(lists[i]) == 0 {
				lists[i] = lists[len(lists)-1]
				lists = lists[:len(lists)-1]
				continue
			}
		}
		i++
	}
	m.lists = lists
	return lowest
}
