package kernel

import (
	"errors"
	"fmt"
	"iter"
	"maps"
	"slices"
	"testing"

	"inquest/internal/kerneltest"
	"inquest/vmcore"
)

// collect returns what an iterator yields up to its error.
func collect[T any](seq iter.Seq2[T, error]) (all []T, err error) {
	for v, e := range seq {
		if e != nil {
			return all, e
		}
		all = append(all, v)
	}
	return all, nil
}

func nodes(m *kerneltest.Machine, n int) (addrs []uint64) {
	for range n {
		addrs = append(addrs, m.Alloc(64, 8))
	}
	return addrs
}

func addrs(list []uint64) (out []Addr) {
	for _, a := range list {
		out = append(out, Addr(a))
	}
	return out
}

func TestLists(t *testing.T) {
	m := kerneltest.New()
	empty, head, hhead, nulls := m.Alloc(16, 8), m.Alloc(16, 8), m.Alloc(8, 8), m.Alloc(8, 8)
	l, h, hn := nodes(m, 5), nodes(m, 3), nodes(m, 3)
	m.List(empty)
	m.List(head, l...)
	m.Chain(hhead, 0, h...)
	m.Chain(nulls, 7, hn...)
	// A list that runs into a ring which its head is not part of.
	lost := m.Alloc(16, 8)
	ring := nodes(m, 100)
	m.Chain(lost, ring[20], ring...)
	// One that leads nowhere, and one into a page the dump lacks.
	wild, cut := m.Alloc(16, 8), m.Alloc(16, 8)
	m.Write64(wild, 0xdead000000000100)
	gone := m.Alloc(4096, 4096)
	m.Chain(cut, gone, nodes(m, 2)...)
	m.Lose(gone)
	k := open(t, m)
	for _, tt := range []struct {
		name string
		seq  iter.Seq2[Addr, error]
		want []uint64
		err  error
	}{
		{"empty", k.List(Addr(empty)), nil, nil},
		{"list", k.List(Addr(head)), l, nil},
		{"hlist", k.HList(Addr(hhead)), h, nil},
		{"llist", k.LList(Addr(hhead)), h, nil},
		{"hlist_nulls", k.HListNulls(Addr(nulls)), hn, nil},
		{"ring", k.List(Addr(lost)), nil, ErrCorrupt},
		{"not ended", k.HList(Addr(head)), nil, ErrCorrupt},
		{"wild", k.List(Addr(wild)), nil, nil},
		{"cut", k.HList(Addr(cut)), nil, vmcore.ErrAbsent},
	} {
		got, err := collect(tt.seq)
		switch {
		case tt.name == "wild":
			if err == nil {
				t.Errorf("%s: no error", tt.name)
			}
		case !errors.Is(err, tt.err):
			t.Errorf("%s: %v, want %v", tt.name, err, tt.err)
		case tt.err == nil && !slices.Equal(got, addrs(tt.want)):
			t.Errorf("%s: %v, want %v", tt.name, got, addrs(tt.want))
		}
	}
	for range k.List(Addr(head)) {
		break // must not be called again
	}
}

func TestRBTree(t *testing.T) {
	for _, n := range []int{0, 1, 2, 3, 10, 1000} {
		m := kerneltest.New()
		root := m.Alloc(16, 8)
		want := nodes(m, n)
		m.RBTree(root, want...)
		k := open(t, m)
		if got, err := collect(k.RBTree(Addr(root))); err != nil || !slices.Equal(got, addrs(want)) {
			t.Errorf("%d nodes: %d, %v", n, len(got), err)
		}
	}
	const left, right = 16, 8
	for _, tt := range []struct {
		name   string
		damage func(m *kerneltest.Machine, root uint64, n []uint64)
	}{
		{"a ring", func(m *kerneltest.Machine, root uint64, n []uint64) { m.Write64(n[0]+left, n[3]) }},
		{"a child of itself", func(m *kerneltest.Machine, root uint64, n []uint64) { m.Write64(n[0]+right, n[0]) }},
		{"another's child", func(m *kerneltest.Machine, root uint64, n []uint64) { m.Write64(n[0]+right, n[6]) }},
		{"wild", func(m *kerneltest.Machine, root uint64, n []uint64) { m.Write64(n[6]+left, 0xdead000000000100) }},
		{"wild root", func(m *kerneltest.Machine, root uint64, n []uint64) { m.Write64(root, 0xdead000000000100) }},
		{"a stick", func(m *kerneltest.Machine, root uint64, n []uint64) {
			stick := nodes(m, 200)
			m.Write64(root, stick[0])
			for i, s := range stick[1:] {
				m.Write64(stick[i]+left, s)
				m.Write64(s, stick[i])
			}
		}},
	} {
		m := kerneltest.New()
		root := m.Alloc(16, 8)
		n := nodes(m, 7)
		m.RBTree(root, n...)
		tt.damage(m, root, n)
		if got, err := collect(open(t, m).RBTree(Addr(root))); err == nil {
			t.Errorf("%s: %v", tt.name, got)
		}
	}
}

func TestXArray(t *testing.T) {
	for _, radix := range []bool{false, true} {
		value := uint64(1)
		if radix {
			value = 2
		}
		for name, entries := range map[string]map[uint64]uint64{
			"empty":  {},
			"single": {0: 0xffff888000000100},
			"small":  {0: 0xffff888000000100, 1: 0xffff888000000200, 63: 5<<2 | value},
			"sparse": {3: 0xffff888000000100, 70: 0xffff888000000200, 4095: 0xffff888000000300, 1 << 40: 0xffff888000000400},
			"top":    {^uint64(0): 0xffff888000000100, 1: 77<<2 | value},
		} {
			t.Run(fmt.Sprintf("%s, radix %v", name, radix), func(t *testing.T) {
				m := kerneltest.New()
				if radix {
					m.Types(kerneltest.RadixRoot, kerneltest.RadixNode)
				} else {
					m.Types(kerneltest.XArray, kerneltest.XANode)
				}
				root := m.SlotTree(radix, entries)
				got, err := collect(open(t, m).XArray(Addr(root)))
				if err != nil {
					t.Fatal(err)
				}
				indexes := slices.Sorted(maps.Keys(entries))
				if len(got) != len(indexes) {
					t.Fatalf("%d entries, want %d", len(got), len(indexes))
				}
				for i, e := range got {
					if e.Index != indexes[i] || e.Value != entries[e.Index] {
						t.Errorf("entry %d: %#x", e.Index, e.Value)
					}
					if _, isPtr := e.Pointer(); isPtr == (e.Value&value != 0) {
						t.Errorf("entry %d: %#x is a pointer: %v", e.Index, e.Value, isPtr)
					}
				}
			})
		}
	}
}

// Entries that fill several slots, and those that say "look again", are no entries
// of their own.
func TestXArraySpecialEntries(t *testing.T) {
	m := kerneltest.New()
	m.Types(kerneltest.XArray, kerneltest.XANode)
	root := m.SlotTree(false, map[uint64]uint64{4: 0xffff888000000100, 63: 0xffff888000000200})
	head := readWord(m, root+8) &^ 3
	slots, _ := kerneltest.Offset(kerneltest.XANode, "slots")
	for slot, v := range map[uint64]uint64{5: 4<<2 | 2, 6: 4<<2 | 2, 8: 256<<2 | 2, 9: 257<<2 | 2} {
		m.Write64(head+slots+8*slot, v)
	}
	got, err := collect(open(t, m).XArray(Addr(root)))
	if err != nil || len(got) != 2 || got[0].Index != 4 || got[1].Index != 63 {
		t.Errorf("%v, %v", got, err)
	}
}

// readWord reads a word of a machine that is being built.
func readWord(m *kerneltest.Machine, addr uint64) uint64 {
	phys, _ := m.Phys(addr)
	var b [8]byte
	m.ReadPhys(b[:], vmcore.PhysAddr(phys))
	return le.Uint64(b[:])
}

func TestXArrayDamage(t *testing.T) {
	for _, tt := range []struct {
		name   string
		damage func(m *kerneltest.Machine, head, slots uint64)
	}{
		{"a node of itself", func(m *kerneltest.Machine, head, slots uint64) { m.Write64(head+slots, head|2) }},
		{"no shift at all", func(m *kerneltest.Machine, head, slots uint64) { m.Write(head, []byte{5}) }},
		{"a shift of 66", func(m *kerneltest.Machine, head, slots uint64) { m.Write(head, []byte{66}) }},
		{"wild", func(m *kerneltest.Machine, head, slots uint64) { m.Write64(head+slots+8, 0xdead000000000002) }},
		{"all the same", func(m *kerneltest.Machine, head, slots uint64) {
			// A tree of 64^10 leaves, in eleven nodes.
			shift := byte(60)
			for m.Write(head, []byte{shift}); shift > 0; shift -= 6 {
				next := m.New(kerneltest.XANode)
				m.Write(next, []byte{shift - 6})
				for i := range uint64(64) {
					m.Write64(head+slots+8*i, next|2)
				}
				head = next
			}
		}},
	} {
		m := kerneltest.New()
		m.Types(kerneltest.XArray, kerneltest.XANode)
		root := m.SlotTree(false, map[uint64]uint64{1: 0xffff888000000100, 64: 0xffff888000000200})
		slots, _ := kerneltest.Offset(kerneltest.XANode, "slots")
		tt.damage(m, readWord(m, root+8)&^3, slots)
		if got, err := collect(open(t, m).XArray(Addr(root))); err == nil {
			t.Errorf("%s: %v", tt.name, got)
		}
	}
}
