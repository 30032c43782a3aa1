package kernel

import (
	"errors"
	"fmt"
	"iter"

	"github.com/cilium/ebpf/btf"
)

// Meminfo is how the machine's memory is used, in pages of 4 KiB: as /proc/meminfo has
// it, but for what CPUs have not yet added to the counters. A pointer is nil where the
// dump does not tell.
type Meminfo struct {
	Total, Free        *uint64
	Buffers, Cached    *uint64 // of block devices and of files; both are page cache
	Slab, Reclaimable  *uint64 // the latter is part of the former
	Anon, Shmem        *uint64 // Shmem is part of Cached
	PageTables, Stacks *uint64
	HugeTotal          *uint64
	HugeFree           *uint64
	SwapTotal          *uint64
	SwapFree           *uint64
	CommitLimit        *uint64
	Committed          *uint64
	Err                error // why something is nil
}

// Meminfo reads the counters.
func (k *Kernel) Meminfo() *Meminfo {
	m := &Meminfo{}
	var errs []error
	read := func(to **uint64, v uint64, err error) {
		if err != nil {
			errs = append(errs, err)
			return
		}
		*to = &v
	}
	total, err := k.firstWord("_totalram_pages", "totalram_pages") // an atomic_long_t since 5.0
	read(&m.Total, total, err)
	stat := func(to **uint64, names ...string) {
		v, err := k.VMStat(names...)
		read(to, v, err)
	}
	stat(&m.Free, "NR_FREE_PAGES")
	stat(&m.Reclaimable, "NR_SLAB_RECLAIMABLE_B", "NR_SLAB_RECLAIMABLE") // in bytes only by name, since 5.9
	stat(&m.Slab, "NR_SLAB_UNRECLAIMABLE_B", "NR_SLAB_UNRECLAIMABLE")
	if m.Slab != nil && m.Reclaimable != nil {
		*m.Slab += *m.Reclaimable
	} else {
		m.Slab = nil
	}
	stat(&m.Anon, "NR_ANON_MAPPED")
	stat(&m.Shmem, "NR_SHMEM")
	stat(&m.PageTables, "NR_PAGETABLE")
	stat(&m.Stacks, "NR_KERNEL_STACK_KB")
	if m.Stacks != nil {
		*m.Stacks /= pageSize / 1024
	}
	buffers, err := k.blockPages()
	read(&m.Buffers, buffers, err)
	stat(&m.Cached, "NR_FILE_PAGES")
	if m.Cached != nil {
		swapped, _ := k.VMStat("NR_SWAPCACHE") // since 5.12
		*m.Cached = sub(*m.Cached, swapped+buffers)
	}
	hugeTotal, hugeFree, err := k.hugePages()
	read(&m.HugeTotal, hugeTotal, err)
	read(&m.HugeFree, hugeFree, err)
	swapTotal, err := k.firstWord("total_swap_pages")
	read(&m.SwapTotal, swapTotal, err)
	swapFree, err := k.firstWord("nr_swap_pages")
	read(&m.SwapFree, swapFree, err)
	committed, err := k.committed()
	read(&m.Committed, committed, err)
	if m.Total != nil && m.HugeTotal != nil && m.SwapTotal != nil {
		limit, err := k.commitLimit(total, hugeTotal, swapTotal)
		read(&m.CommitLimit, limit, err)
	}
	m.Err = errors.Join(errs...)
	return m
}

// sub is a - b, 0 when that is less.
func sub(a, b uint64) uint64 { return a - min(a, b) }

// firstWord reads the 64-bit variable of the first of these names that exists.
func (k *Kernel) firstWord(names ...string) (uint64, error) {
	var first error
	for _, name := range names {
		at, err := k.Symbol(name)
		if err == nil {
			v, err := k.U64(at)
			if err != nil {
				err = fmt.Errorf("read %s: %w", name, err)
			}
			return v, err
		}
		if first == nil {
			first = err
		}
	}
	return 0, first
}

// Stat is a counter of the memory management.
type Stat struct {
	Name  string
	Value int64
}

// enumValues returns the values of an enum in order.
func (k *Kernel) enumValues(name string) ([]btf.EnumValue, error) {
	t, err := k.types()
	if err != nil {
		return nil, err
	}
	typ, err := t.Named("enum " + name)
	if err != nil {
		return nil, err
	}
	e, ok := btf.UnderlyingType(typ).(*btf.Enum)
	if !ok {
		return nil, fmt.Errorf("enum %s: %w", name, ErrNoType)
	}
	return e.Values, nil
}

// VMStats returns the counters of vm_zone_stat and vm_node_stat, by the enums that name
// them (include/linux/mmzone.h).
func (k *Kernel) VMStats() ([]Stat, error) {
	var list []Stat
	var first error
	for _, of := range [...]struct{ table, enum string }{{"vm_zone_stat", "zone_stat_item"}, {"vm_node_stat", "node_stat_item"}} {
		at, err := k.Symbol(of.table)
		if err == nil {
			var some []Stat
			some, err = k.statsAt(at, of.enum)
			list = append(list, some...)
		}
		if err != nil && first == nil {
			first = fmt.Errorf("read %s: %w", of.table, err)
		}
	}
	return list, first
}

// maxStats bounds the counters of an enum.
const maxStats = 512

// statsAt reads an array of atomic_long_t that an enum names. The last of its values is
// how many there are.
func (k *Kernel) statsAt(at Addr, enum string) ([]Stat, error) {
	values, err := k.enumValues(enum)
	if err != nil {
		return nil, err
	}
	n := 0
	for _, v := range values {
		if len(v.Name) > 3 && v.Name[:3] == "NR_" && v.Name[len(v.Name)-5:] == "ITEMS" {
			n = int(v.Value)
		}
	}
	if n <= 0 || n > maxStats {
		return nil, fmt.Errorf("enum %s has %d values: %w", enum, n, ErrCorrupt)
	}
	list := make([]Stat, 0, n)
	last := ^uint64(0)
	raw, err := k.Slice(at, 8*n)
	if err != nil {
		return nil, err
	}
	for _, v := range values {
		if v.Value >= uint64(n) {
			continue
		}
		st := Stat{v.Name, int64(le.Uint64(raw[8*v.Value:]))}
		if v.Value == last && len(list) > 0 {
			list[len(list)-1] = st // NR_ZONE_LRU_BASE is only another name of the next
			continue
		}
		list, last = append(list, st), v.Value
	}
	return list, nil
}

// VMStat returns the counter of the first of these names that the kernel has.
func (k *Kernel) VMStat(names ...string) (uint64, error) {
	stats, err := k.VMStats()
	for _, name := range names {
		for _, s := range stats {
			if s.Name == name {
				return uint64(max(s.Value, 0)), nil
			}
		}
	}
	if err == nil {
		err = fmt.Errorf("%s: %w", names[0], ErrNoMember)
	}
	return 0, err
}

// blockPages is nr_blockdev_pages(): the page cache of all block devices.
func (k *Kernel) blockPages() (uint64, error) {
	inodes, err := k.blockInodes()
	if errors.Is(err, ErrNoSymbol) {
		return 0, nil // without CONFIG_BLOCK
	}
	if err != nil {
		return 0, err
	}
	var sum uint64
	for inode, err := range inodes {
		if err != nil {
			return 0, fmt.Errorf("list the block devices: %w", err)
		}
		n, err := inode.Uint("i_mapping->nrpages")
		if err != nil {
			return 0, err
		}
		sum += n
	}
	return sum, nil
}

// blockInodes iterates over the inodes of the block devices.
func (k *Kernel) blockInodes() (iter.Seq2[Object, error], error) {
	sb, err := k.firstWord("blockdev_superblock")
	if err != nil {
		return nil, err
	}
	o, err := k.Object("super_block", Addr(sb))
	if err != nil {
		return nil, err
	}
	head, err := o.AddrOf("s_inodes")
	if err != nil {
		return nil, err
	}
	return k.Structs("inode", "i_sb_list", head)
}

// hugePages sums the pools of all sizes, in pages of 4 KiB.
func (k *Kernel) hugePages() (total, free uint64, err error) {
	const maxPools = 8 // HUGE_MAX_HSTATE is 2 on x86
	at, err := k.Symbol("hstates")
	if err != nil {
		return 0, 0, nil // without CONFIG_HUGETLB_PAGE
	}
	n := 0
	if counter, err := k.Symbol("hugetlb_max_hstate"); err == nil {
		v, err := k.U32(counter)
		if err != nil {
			return 0, 0, err
		}
		n = int(min(v, maxPools))
	}
	size, err := k.SizeOf("hstate")
	if err != nil {
		return 0, 0, err
	}
	for i := range n {
		h, err := k.Object("hstate", at+Addr(uint64(i)*size))
		if err != nil {
			return 0, 0, err
		}
		order, err := h.Uint("order")
		if err != nil {
			return 0, 0, err
		}
		nr, err := h.Uint("nr_huge_pages")
		if err != nil {
			return 0, 0, err
		}
		nrFree, err := h.Uint("free_huge_pages")
		if err != nil {
			return 0, 0, err
		}
		total += nr << (order & 63)
		free += nrFree << (order & 63)
	}
	return total, free, nil
}

// committed reads vm_committed_as, a percpu_counter.
func (k *Kernel) committed() (uint64, error) {
	o, err := k.Var("vm_committed_as", "percpu_counter")
	if err != nil {
		return 0, err
	}
	n, err := o.Int("count")
	if err != nil {
		return 0, err
	}
	parts, err := o.Pointer("counters")
	if err != nil || parts == 0 {
		return uint64(max(n, 0)), err
	}
	// What a CPU that was taken offline had was added to the sum, but a panic does not do so.
	cpus, _ := k.PresentCPUs()
	for _, cpu := range cpus {
		if p, err := k.PerCPU(parts, cpu); err == nil {
			v, _ := k.U32(p)
			n += int64(int32(v))
		}
	}
	return uint64(max(n, 0)), nil
}

// commitLimit is vm_commit_limit().
func (k *Kernel) commitLimit(total, huge, swap uint64) (uint64, error) {
	kbytes, err := k.firstWord("sysctl_overcommit_kbytes")
	if err != nil {
		return 0, err
	}
	if kbytes != 0 {
		return kbytes/(pageSize/1024) + swap, nil
	}
	at, err := k.Symbol("sysctl_overcommit_ratio")
	if err != nil {
		return 0, err
	}
	ratio, err := k.U32(at)
	if err != nil {
		return 0, err
	}
	return sub(total, huge)*uint64(ratio)/100 + swap, nil
}
