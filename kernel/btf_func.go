package kernel

import (
	"bytes"
	"hash/maphash"
	"math/bits"

	"github.com/cilium/ebpf/btf"
)

// functions finds functions by name: a hash table of those of one BTF section.
// Functions are half of all types, and whoever looks for one looks for many.
type functions struct {
	seed maphash.Seed
	// Chains of one more than the index of a type, 0 at the end. All of them may
	// have one name, so a chain must be no dearer to add to than to follow.
	heads, next []uint32
}

func (x *btfIndex) indexFunctions() *functions {
	t := &functions{maphash.MakeSeed(), make([]uint32, 1<<bits.Len(uint(len(x.kinds)))), make([]uint32, len(x.kinds))}
	for i := len(x.kinds) - 1; i >= 0; i-- { // so that chains are in order
		if x.kinds[i] != btfFunc {
			continue
		}
		if name, ok := x.stringAt(x.names[i]); ok {
			head := t.head(name)
			t.next[i], *head = *head, uint32(i+1)
		}
	}
	return t
}

func (t *functions) head(name []byte) *uint32 {
	return &t.heads[maphash.Bytes(t.seed, name)&uint64(len(t.heads)-1)]
}

// function returns the type ids of the functions of a name, in order.
func (x *btfIndex) function(name string) []btf.TypeID {
	x.functionsOnce.Do(func() { x.functions = x.indexFunctions() })
	t, key := x.functions, []byte(name)
	var found []btf.TypeID
	for at := *t.head(key); at != 0; at = t.next[at-1] {
		if have, ok := x.stringAt(x.names[at-1]); ok && bytes.Equal(have, key) {
			found = append(found, btf.TypeID(x.firstID+int(at-1)))
		}
	}
	return found
}
