package kernel

import (
	"hash/maphash"
	"math/bits"
	"slices"

	"github.com/cilium/ebpf/btf"
)

// nameTable is a hash table of the types of one BTF section that have a name. The
// library has one too, but resolves all types of a name to look at one.
type nameTable struct {
	seed maphash.Seed
	// Chains of one more than the index of a type, 0 at the end. All types may
	// have one name, so a chain must be no dearer to add to than to follow.
	heads, next []uint32
}

func (x *btfIndex) indexNames() {
	n := len(x.kinds)
	x.byName = nameTable{maphash.MakeSeed(), make([]uint32, 1<<bits.Len(uint(n))), make([]uint32, n)}
	for i := n - 1; i >= 0; i-- { // so that chains are in order
		if x.names[i] == 0 {
			continue
		}
		if name, ok := x.stringAt(x.names[i]); ok {
			head := x.byName.head(name)
			x.byName.next[i], *head = *head, uint32(i+1)
		}
	}
}

func (t *nameTable) head(name []byte) *uint32 {
	return &t.heads[maphash.Bytes(t.seed, name)&uint64(len(t.heads)-1)]
}

// find returns the types of a name whose kind is among the given ones, by kind in
// the order given, then by id.
func (x *btfIndex) find(name string, kinds ...uint8) []btf.TypeID {
	x.byNameOnce.Do(x.indexNames)
	var found []btf.TypeID
	for at := *x.byName.head([]byte(name)); at != 0; at = x.byName.next[at-1] {
		i := at - 1
		if have, _ := x.stringAt(x.names[i]); string(have) == name && slices.Contains(kinds, x.kinds[i]) {
			found = append(found, btf.TypeID(x.firstID+int(i)))
		}
	}
	slices.SortStableFunc(found, func(a, b btf.TypeID) int {
		rank := func(id btf.TypeID) int { return slices.Index(kinds, x.kinds[int(id)-x.firstID]) }
		return rank(a) - rank(b)
	})
	return found
}
