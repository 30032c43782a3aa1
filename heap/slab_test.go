package heap

import (
	"context"
	"slices"
	"strings"
	"testing"

	"inquest/kernel"
	"inquest/vmcore"
)

// furnish makes a cache "widget" with three slabs: one that is partly free, one with
// objects that CPU 1 keeps, one that is full. It returns the slabs and which objects
// are free, by address.
func (w *world) furnish() (slabs []uint64, free map[uint64]string) {
	c := w.addCache("widget", 256, 200)
	w.addCache("empty", 64, 64)
	slabs = []uint64{w.addSlab(c, 13, 3, 0, 7), w.addSlab(c, 15, 5), w.addSlab(c, 16)}
	free = map[uint64]string{}
	for _, i := range []int{3, 0, 7} {
		free[w.object(c, slabs[0], i)] = "the slab's freelist"
	}
	if w.v.sheaves {
		free[w.object(c, slabs[1], 5)] = "the slab's freelist"
		main := []uint64{w.object(c, slabs[1], 2), w.object(c, slabs[2], 15)}
		w.addSheaf(c, 1, "main", main...)
		w.addSheaf(c, 0, "rcu_free", w.object(c, slabs[2], 1))
		for _, o := range main {
			free[o] = "CPU 1's sheaf"
		}
		free[w.object(c, slabs[2], 1)] = "CPU 0's sheaf of objects to be freed by RCU"
		return slabs, free
	}
	free[w.object(c, slabs[1], 5)] = "the slab's freelist (CPU 1's slab)"
	w.cpuSlab(c, slabs[1], 1, 2, 15)
	for _, i := range []int{2, 15} {
		free[w.object(c, slabs[1], i)] = "CPU 1's freelist"
	}
	return slabs, free
}

func TestObjects(t *testing.T) {
	for _, v := range variants {
		t.Run(v.name, func(t *testing.T) {
			w := newWorld(t, v)
			slabs, free := w.furnish()
			h := w.open()
			c, err := h.CacheOf("widget")
			if err != nil {
				t.Fatal(err)
			}
			if c.Size != 256 || c.ObjectSize != 200 || c.ObjPerSlab != 16 || c.Hardened != (v.mix != "") {
				t.Errorf("cache %+v", c)
			}
			n := 0
			for o, err := range h.Objects(c) {
				if err != nil {
					t.Fatal(err)
				}
				n++
				want := Allocated
				if free[uint64(o.Addr)] != "" {
					want = Free
				}
				if o.State != want {
					t.Errorf("%v is %v, want %v", o.Addr, o.State, want)
				}
				m := mustIdentify(t, h, uint64(o.Addr)+17)
				if m.Kind != Slab || m.Slab == nil {
					t.Fatalf("%v: %+v", o.Addr, m)
				}
				if s := m.Slab; s.State != want || s.FreeIn != free[uint64(o.Addr)] || s.Start != o.Addr || s.Offset != 17 || s.Cache != c || s.Stride != 256 || s.Size != 200 {
					t.Errorf("%v: %+v\nwant free in %q", o.Addr, s, free[uint64(o.Addr)])
				}
			}
			if n != 48 {
				t.Errorf("%d objects", n)
			}
			usages, err := h.Usages()
			if err != nil || len(usages) != 2 {
				t.Fatal(usages, err)
			}
			for _, u := range usages {
				want := Usage{Cache: u.Cache}
				if u.Cache == c {
					want = Usage{c, 3, 48, 48 - len(free), 3 * pageSize}
				}
				if u != want {
					t.Errorf("usage %+v, want %+v", u, want)
				}
			}
			wrong, stats, err := h.Check(context.Background())
			if err != nil || len(wrong) > 0 || stats.Slabs != 3 || stats.Objects != 48 || stats.Free != len(free) || stats.Allocated != 48-len(free) || stats.Unknown != 0 {
				t.Errorf("check: %v, %+v, %v", wrong, stats, err)
			}
			prev, next := h.Neighbours(mustIdentify(t, h, slabs[0]+256).Slab)
			if prev == nil || prev.Index != 0 || prev.State != Free || next == nil || next.Index != 2 || next.State != Allocated {
				t.Errorf("neighbours %+v, %+v", prev, next)
			}
			if prev, _ := h.Neighbours(prev); prev != nil {
				t.Errorf("in front of the first object: %+v", prev)
			}
		})
	}
}

func TestSlabPlaces(t *testing.T) {
	w := newWorld(t, variant{mix: "swab", flags: 0x400 | 0x800})
	c := w.addCache("widget", 600, 200)
	w.Set(c, w.cache, "red_left_pad", 64)
	w.Set(c, w.cache, "inuse", 208)
	w.Set(c, w.cache, "offset", 208)
	slab := w.addSlab(c, 6)
	h := w.open()
	for _, tt := range []struct {
		off     uint64
		index   int
		red     bool
		padding bool
		text    string
	}{
		{64, 0, false, false, "the start of object 0 (allocated) of slab cache widget"},
		{664 + 199, 1, false, false, "199 bytes into object 1"},
		{600 + 60, 1, true, false, "in the red zone 4 bytes before object 1"},
		{64 + 200, 0, true, false, "in the red zone 0 bytes past the end of object 0"},
		{64 + 210, 0, false, true, "in the padding, 10 bytes past the end of object 0"},
		{3600 + 8, -1, false, true, "in the unused end of a slab of cache widget"},
	} {
		m := mustIdentify(t, h, slab+tt.off)
		if s := m.Slab; s.Index != tt.index || s.InRedzone != tt.red || s.InPadding != tt.padding || !strings.HasPrefix(m.Desc, tt.text) {
			t.Errorf("at %d: %q, %+v", tt.off, m.Desc, s)
		}
	}
}

// TestCheck damages slabs in the ways that bugs do.
func TestCheck(t *testing.T) {
	v := variant{mix: "swab"}
	for _, tt := range []struct {
		name   string
		damage func(w *world, c uint64, slabs []uint64)
		want   string
	}{
		{"free pointer overwritten", func(w *world, c uint64, slabs []uint64) {
			w.Write64(w.object(c, slabs[0], 0)+96, 0x4141414141414141)
		}, "is no object of the slab"},
		{"list goes in a circle", func(w *world, c uint64, slabs []uint64) {
			at := w.object(c, slabs[0], 7) + 96
			w.Write64(at, w.encode(at, w.object(c, slabs[0], 3)))
		}, "on the free list twice"},
		{"count", func(w *world, c uint64, slabs []uint64) {
			w.Set(w.pageOf(slabs[0]), w.slab, "counters", 12|16<<16)
		}, "3 objects are on the free list, but 12 of 16 are in use"},
		{"freed twice, to the CPU and to the slab", func(w *world, c uint64, slabs []uint64) {
			w.cpuSlab(c, slabs[1], 1, 5)
		}, "freed twice: it is on the slab's free list and on CPU 1's freelist"},
		{"into the middle of an object", func(w *world, c uint64, slabs []uint64) {
			w.Set(w.pageOf(slabs[0]), w.slab, "freelist", slabs[0]+24)
		}, "is no object of the slab"},
		{"slab of no cache", func(w *world, c uint64, slabs []uint64) {
			w.Set(w.pageOf(slabs[0]), w.slab, "slab_cache", directAt)
		}, "is none of slab_caches"},
		{"more in use than there are", func(w *world, c uint64, slabs []uint64) {
			w.Set(w.pageOf(slabs[0]), w.slab, "counters", 17|16<<16)
		}, "17 of 16 objects are in use"},
		{"reaches into the next slab", func(w *world, c uint64, slabs []uint64) {
			w.Set(w.pageOf(slabs[0]), w.slab, "counters", 17|20<<16)
		}, "20 objects of 256 bytes do not fit in front of the next slab"},
		{"CPU's slab of another cache", func(w *world, c uint64, slabs []uint64) {
			w.Set(w.pageOf(slabs[1]), w.slab, "slab_cache", w.kmem["empty"])
		}, "is one of cache empty"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t, v)
			slabs, _ := w.furnish()
			tt.damage(w, w.kmem["widget"], slabs)
			wrong, stats, err := w.open().Check(context.Background())
			if err != nil {
				t.Fatal(err)
			}
			if !slices.ContainsFunc(wrong, func(c Corruption) bool { return strings.Contains(c.String(), tt.want) }) {
				t.Errorf("found %v, want %q", wrong, tt.want)
			}
			if stats.Caches != 2 {
				t.Errorf("%+v", stats)
			}
		})
	}
}

func TestCheckSheaves(t *testing.T) {
	w := newWorld(t, variants[len(variants)-1])
	slabs, _ := w.furnish()
	c := w.kmem["widget"]
	twice := w.object(c, slabs[2], 4)
	w.addSheaf(c, 0, "main", twice, twice+8, slabs[0]-0x10000)
	w.addSheaf(c, 0, "spare", twice)
	wrong, _, err := w.open().Check(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"freed twice: it is in CPU 0's sheaf and in CPU 0's spare sheaf", "not the start of an object, but in CPU 0's sheaf", "not an address of memory"} {
		if !slices.ContainsFunc(wrong, func(c Corruption) bool { return strings.Contains(c.What, want) }) {
			t.Errorf("%q is not in %v", want, wrong)
		}
	}
}

// TestNodes checks the list of partly free slabs of a node.
func TestNodes(t *testing.T) {
	for _, v := range variants {
		for _, tt := range []struct {
			name   string
			count  uint64
			broken bool
			want   string
		}{{"right", 1, false, ""}, {"wrong count", 2, false, "1 slabs, but nr_partial is 2"}, {"wrong prev", 1, true, "its prev is"}} {
			t.Run(v.name+", "+tt.name, func(t *testing.T) {
				w := newWorld(t, v)
				slabs, _ := w.furnish()
				node := w.Alloc(64, 16)
				w.Write64(node+8, tt.count)
				member := "node[0]"
				if v.sheaves {
					member = "per_node[0].node"
				}
				w.Set(w.kmem["widget"], w.cache, member, node)
				off := uint64(8)
				if !v.oldPage {
					off = 16
				}
				w.List(node+16, w.pageOf(slabs[0])+off)
				if tt.broken {
					w.Write64(w.pageOf(slabs[0])+off+8, node)
				}
				wrong, _, err := w.open().Check(context.Background())
				if err != nil {
					t.Fatal(err)
				}
				if tt.want == "" && len(wrong) > 0 || tt.want != "" && (len(wrong) != 1 || !strings.Contains(wrong[0].What, tt.want)) {
					t.Errorf("found %v, want %q", wrong, tt.want)
				}
			})
		}
	}
}

// TestMissing leaves parts out of the dump.
func TestMissing(t *testing.T) {
	t.Run("memory of a slab", func(t *testing.T) {
		w := newWorld(t, variant{mix: "swab"})
		slabs, _ := w.furnish()
		w.Missing[slabs[0]-w.base] = true
		h := w.open()
		m := mustIdentify(t, h, slabs[0]+256)
		if m.Slab == nil || m.Slab.State != Unknown || m.Slab.Index != 1 || len(m.Missing) == 0 {
			t.Errorf("%+v %+v", m, m.Slab)
		}
		// The head of the list is known without following it.
		if m := mustIdentify(t, h, slabs[0]+3*256); m.Slab.State != Free {
			t.Errorf("%+v", m.Slab)
		}
		wrong, stats, err := h.Check(context.Background())
		if len(wrong) > 0 || err != nil || stats.Missing != 1 || stats.Unknown != 15 || stats.FirstMiss == nil {
			t.Errorf("%v, %+v, %v", wrong, stats, err)
		}
	})
	t.Run("list of caches", func(t *testing.T) {
		w := newWorld(t, variant{mix: "swab"})
		slabs, free := w.furnish()
		w.Write64(w.head, 0xffff800000000000)
		h := w.open()
		if all, err := h.Caches(); len(all) != 0 || err == nil {
			t.Errorf("%v, %v", all, err)
		}
		usages, err := h.Usages()
		if len(usages) != 1 || err == nil || usages[0].Allocated != 48-len(free) {
			t.Errorf("%v, %v", usages, err)
		}
		if m := mustIdentify(t, h, slabs[1]); m.Slab == nil || m.Slab.Cache.Name != "widget" {
			t.Errorf("%+v", m)
		}
	})
	t.Run("struct page", func(t *testing.T) {
		w := newWorld(t, variant{mix: "swab"})
		slabs, _ := w.furnish()
		w.Lose(w.pageOf(slabs[0]))
		h := w.open()
		m := mustIdentify(t, h, slabs[0])
		if m.Kind != Page || len(m.Missing) == 0 {
			t.Errorf("%+v", m)
		}
		if _, err := h.Usages(); err == nil || !strings.Contains(err.Error(), "lacks 1 pages of the array of struct page") {
			t.Errorf("usages: %v", err)
		}
	})
	t.Run("sheaf", func(t *testing.T) {
		w := newWorld(t, variants[len(variants)-1])
		slabs, _ := w.furnish()
		w.Set(w.PerCPUVar(w.read(w.kmem["widget"], w.cache, "cpu_sheaves"), 0), w.cpuType, "spare", directAt+1<<20)
		m := mustIdentify(t, w.open(), slabs[2]+8*256)
		if m.Slab == nil || m.Slab.State != Unknown || len(m.Missing) == 0 {
			t.Errorf("%+v %+v", m, m.Slab)
		}
	})
}

func TestAliases(t *testing.T) {
	w := newWorld(t, variant{mix: "swab"})
	w.furnish()
	c := w.kmem["widget"]
	dir, target, links := w.Alloc(160, 8), w.Alloc(160, 8), []uint64{}
	w.addKernfs()
	for _, name := range []string{"gadget", "widget", "gizmo"} {
		kn := w.Alloc(160, 8)
		w.Write64(kn+16, w.PutString(name))
		w.Write(kn+60, []byte{4}) // KERNFS_LINK
		w.Write64(kn+64, target)
		links = append(links, kn+24)
	}
	w.RBTree(dir+72, links...)
	kset := w.Alloc(64, 8)
	w.Write64(kset+8, dir)
	w.variable("slab_kset", kset)
	w.Set(c, w.cache, "kobj.sd", target)
	w.Set(c, w.cache, "refcount", 3)
	h := w.open()
	cache, err := h.CacheOf("gizmo")
	if err != nil || cache.Name != "widget" {
		t.Fatal(cache, err)
	}
	if got := cache.Aliases(); !slices.Equal(got, []string{"gadget", "gizmo"}) {
		t.Errorf("aliases %v", got)
	}
	if _, err := h.CacheOf("gimmick"); err == nil {
		t.Error("a cache that does not exist was found")
	}
}

// TestEncoding sees that the first free pointer tells how all are encoded.
func TestEncoding(t *testing.T) {
	for _, v := range variants {
		w := newWorld(t, v)
		slabs, _ := w.furnish()
		h := w.open()
		mustIdentify(t, h, slabs[0])
		want := map[string]int32{"swab": encodingSwab, "xor": encodingPlain}[v.mix]
		if got := h.plain.Load(); got != want {
			t.Errorf("%s: encoding %d, want %d", v.name, got, want)
		}
	}
}

func TestSlabOrder(t *testing.T) {
	w := newWorld(t, variant{types: true, mix: "swab"})
	c := w.addCache("big", 2048, 2048)
	at := w.newPages(4)
	w.makeSlab(c, at, 8, 7, 5)
	for i := uint64(1); i < 4; i++ {
		w.Set(w.pageOf(at+i*pageSize), w.page, "compound_head", w.pageOf(at)+1)
	}
	w.Set(w.pageOf(at), w.page, "flags", 1<<16)
	w.Set(w.pageOf(at+pageSize), w.page, "compound_order", 2)
	h := w.open()
	m := mustIdentify(t, h, at+5*2048+100)
	if m.Slab == nil || m.Slab.Index != 5 || m.Slab.State != Free || m.Slab.Offset != 100 || m.Page.Order != 2 || m.Page.Head != kernel.Addr(w.pageOf(at)) {
		t.Errorf("%+v %+v %+v", m, m.Slab, m.Page)
	}
	if m.Page.Phys != vmcore.PhysAddr(at-w.base+2*pageSize) {
		t.Errorf("page %+v", m.Page)
	}
}
