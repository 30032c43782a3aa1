package kernel

import (
	"bytes"
	"hash/maphash"
	"math/bits"

	"github.com/cilium/ebpf/btf"
)

// functions finds functions by name: a hash table of the type ids of one BTF
// section, with linear probing. Functions are half of all types, and whoever looks
// for one looks for many.
type functions struct {
	seed maphash.Seed
	ids  []uint32 // 0 is an empty place
}

func (x *btfIndex) indexFunctions() *functions {
	n := 0
	for _, kind := range x.kinds {
		if kind == btfFunc {
			n++
		}
	}
	t := &functions{maphash.MakeSeed(), make([]uint32, 1<<bits.Len(uint(2*n)))}
	for i, kind := range x.kinds {
		if kind != btfFunc {
			continue
		}
		if name, ok := x.stringAt(x.names[i]); ok {
			at := t.place(name)
			for t.ids[at] != 0 {
				at = (at + 1) % len(t.ids)
			}
			t.ids[at] = uint32(x.firstID + i)
		}
	}
	return t
}

func (t *functions) place(name []byte) int {
	return int(maphash.Bytes(t.seed, name) % uint64(len(t.ids)))
}

// function returns the type ids of the functions of a name.
func (x *btfIndex) function(name string) []btf.TypeID {
	x.functionsOnce.Do(func() { x.functions = x.indexFunctions() })
	t, key := x.functions, []byte(name)
	var found []btf.TypeID
	for at := t.place(key); t.ids[at] != 0; at = (at + 1) % len(t.ids) {
		id := int(t.ids[at])
		if have, ok := x.stringAt(x.names[id-x.firstID]); ok && bytes.Equal(have, key) {
			found = append(found, btf.TypeID(id))
		}
	}
	return found
}
