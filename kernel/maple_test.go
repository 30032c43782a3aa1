package kernel

import (
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"

	"inquest/internal/kerneltest"
)

// The structs of a maple tree, as on 64-bit machines.
var (
	mapleTree = kerneltest.Struct("maple_tree", kerneltest.Field{Name: "ma_lock", Type: kerneltest.U32}, kerneltest.Field{Name: "ma_flags", Type: kerneltest.U32},
		kerneltest.Field{Name: "ma_root", Type: kerneltest.Ptr(kerneltest.Void)})
	mapleRange = kerneltest.Struct("maple_range_64", kerneltest.Field{Name: "parent", Type: kerneltest.Ptr(kerneltest.Void)},
		kerneltest.Field{Name: "pivot", Type: kerneltest.Array(kerneltest.Long, 15)}, kerneltest.Field{Name: "slot", Type: kerneltest.Array(kerneltest.Ptr(kerneltest.Void), 16)})
	mapleArange = kerneltest.Struct("maple_arange_64", kerneltest.Field{Name: "parent", Type: kerneltest.Ptr(kerneltest.Void)},
		kerneltest.Field{Name: "pivot", Type: kerneltest.Array(kerneltest.Long, 9)}, kerneltest.Field{Name: "slot", Type: kerneltest.Array(kerneltest.Ptr(kerneltest.Void), 10)})
)

// pivot is a slot of a maple node and the last index that it is for; 0 for the last.
type pivot struct{ last, slot uint64 }

// mapleNodeAt writes a node: of 15 pivots where it is a leaf, of 9 where it is not. It
// returns the entry that leads to it.
func mapleNodeAt(m *kerneltest.Machine, at uint64, leaf bool, slots ...pivot) uint64 {
	first, typ := uint64(8+8*9), uint64(3)
	if leaf {
		first, typ = 8+8*15, 1
	}
	for i, p := range slots {
		m.Write64(at+8+8*uint64(i), p.last)
		m.Write64(at+first+8*uint64(i), p.slot)
	}
	return at | typ<<3 | 2
}

func TestMapleTree(t *testing.T) {
	const a, b, c = 0xffff888000100000, 0xffff888000200000, 0xffff888000300000
	for _, tt := range []struct {
		name string
		root func(m *kerneltest.Machine, node func() uint64) uint64
		want []Entry // without kind
		bad  bool
	}{
		{"empty", func(*kerneltest.Machine, func() uint64) uint64 { return 0 }, nil, false},
		{"one entry at 0", func(*kerneltest.Machine, func() uint64) uint64 { return a }, []Entry{{Index: 0, Value: a}}, false},
		{"a leaf with a gap", func(m *kerneltest.Machine, node func() uint64) uint64 {
			return mapleNodeAt(m, node(), true, pivot{9, a}, pivot{99, 0}, pivot{199, b}, pivot{0, 0})
		}, []Entry{{Index: 0, Value: a}, {Index: 100, Value: b}}, false},
		{"two levels", func(m *kerneltest.Machine, node func() uint64) uint64 {
			left := mapleNodeAt(m, node(), true, pivot{9, a}, pivot{0, b})
			right := mapleNodeAt(m, node(), true, pivot{1999, 0}, pivot{0, c})
			return mapleNodeAt(m, node(), false, pivot{999, left}, pivot{0, right})
		}, []Entry{{Index: 0, Value: a}, {Index: 10, Value: b}, {Index: 2000, Value: c}}, false},
		{"values and reserved entries are none", func(m *kerneltest.Machine, node func() uint64) uint64 {
			return mapleNodeAt(m, node(), true, pivot{9, 0x406}, pivot{19, a | 1}, pivot{0, b})
		}, []Entry{{Index: 20, Value: b}}, false},
		{"a node in itself", func(m *kerneltest.Machine, node func() uint64) uint64 {
			at := node()
			return mapleNodeAt(m, at, false, pivot{0, at | 3<<3 | 2})
		}, nil, true},
		{"pivots that go back", func(m *kerneltest.Machine, node func() uint64) uint64 {
			return mapleNodeAt(m, node(), true, pivot{99, a}, pivot{50, b})
		}, []Entry{{Index: 0, Value: a}}, true},
		{"a node of no known type", func(m *kerneltest.Machine, node func() uint64) uint64 { return node() | 9<<3 | 2 }, nil, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := kerneltest.New()
			m.Types(mapleTree, mapleRange, mapleArange)
			tree := m.New(mapleTree)
			m.Set(tree, mapleTree, "ma_root", tt.root(m, func() uint64 { return m.Alloc(mapleNodeSize, mapleNodeSize) }))
			got, err := collect(open(t, m).MapleTree(Addr(tree)))
			for i := range got {
				got[i].kind = nil
			}
			if diff := cmp.Diff(tt.want, got, cmp.AllowUnexported(Entry{})); diff != "" {
				t.Error(diff)
			}
			if errors.Is(err, ErrCorrupt) != tt.bad || err != nil && !tt.bad {
				t.Errorf("error: %v", err)
			}
		})
	}
}

// FuzzMapleTree walks a tree of two levels whose nodes are the input.
func FuzzMapleTree(f *testing.F) {
	f.Add(make([]byte, 3*mapleNodeSize))
	f.Fuzz(func(t *testing.T, nodes []byte) {
		m := kerneltest.New()
		m.Types(mapleTree, mapleRange, mapleArange)
		tree := m.New(mapleTree)
		room := m.Alloc(4*mapleNodeSize, mapleNodeSize)
		m.Write(room, nodes[:min(len(nodes), 4*mapleNodeSize)])
		// Whatever the slots are, some lead to the nodes.
		for i := range uint64(4) {
			m.Write64(room+i*mapleNodeSize+80, room+(i+1)%4*mapleNodeSize|(1+i)<<3|2)
		}
		m.Set(tree, mapleTree, "ma_root", room|3<<3|2)
		last, n := Entry{}, 0
		for e, err := range open(t, m).MapleTree(Addr(tree)) {
			if err != nil {
				break
			}
			if n++; n > 1 && e.Index <= last.Index {
				t.Fatalf("index %#x after %#x", e.Index, last.Index)
			}
			last = e
		}
	})
}
