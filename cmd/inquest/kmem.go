package main

import (
	"cmp"
	"fmt"

	"github.com/spf13/pflag"

	"inquest/heap"
	"inquest/kernel"
)

var kmemCommand = &command{
	name:  "kmem",
	short: "show how the memory is used",
	long: `Show how the machine's memory was used, one of:

  -i  a summary: total, free, used, page cache, slabs, huge pages, swap, commitments
  -s  the slab caches, as slab has them
  -v  the areas of the vmalloc space, and who asked for each
  -z  the zones: sizes, watermarks and counters
  -V  the counters of the memory management

Counters are those of the whole machine, to which each CPU adds from time to time.`,
	example: `inquest kmem vmcore -i
inquest kmem vmcore -z
inquest kmem vmcore -v --json | jq '[.areas[].size] | add'`,
	setup: func(f *pflag.FlagSet) runFunc {
		shows := []struct {
			on  *bool
			run func(*session, *kernel.Kernel) error
		}{
			{f.BoolP("info", "i", false, "a summary (the default)"), kmemInfo},
			{f.BoolP("slab", "s", false, "the slab caches"), func(s *session, k *kernel.Kernel) error { return slabList(s, heap.New(k), nil, "kernel") }},
			{f.BoolP("vmalloc", "v", false, "the areas of the vmalloc space"), kmemVmalloc},
			{f.BoolP("zones", "z", false, "the zones"), kmemZones},
			{f.BoolP("vmstat", "V", false, "the counters of the memory management"), kmemStats},
		}
		return func(s *session, _ []string) error {
			run := kmemInfo
			chosen := 0
			for _, show := range shows {
				if *show.on {
					run = show.run
					chosen++
				}
			}
			if chosen > 1 {
				return s.usagef("one at a time")
			}
			k, err := s.typedKernel()
			if err != nil {
				return err
			}
			return run(s, k)
		}
	},
}

func kmemInfo(s *session, k *kernel.Kernel) error {
	m := k.Meminfo()
	if m.Total == nil && m.Free == nil {
		_, err := k.VMStats()
		return fmt.Errorf("read the memory's counters: %w", cmp.Or(err, m.Err))
	}
	s.miss(m.Err)
	if s.json {
		return kmemInfoJSON(s, m)
	}
	minus := func(a, b *uint64) *uint64 {
		if a == nil || b == nil {
			return nil
		}
		n := *a - min(*a, *b)
		return &n
	}
	s.printf("%s\n", s.term.paint(bold, fmt.Sprintf("%14s %12s  %12s   %s", "", "PAGES", "TOTAL", "PERCENTAGE")))
	line := func(name string, n, of *uint64, what string) {
		switch {
		case n == nil:
			s.printf("%14s %12s  %12s\n", name, "?", "?")
		case of == nil:
			s.printf("%14s %12d  %12s         ----\n", name, *n, formatBytes(*n*4096))
		default:
			s.printf("%14s %12d  %12s  %3d%% of %s\n", name, *n, formatBytes(*n*4096), *n*100/max(*of, 1), what)
		}
	}
	const mem, huge, swap = "TOTAL MEM", "TOTAL HUGE", "TOTAL SWAP"
	line(mem, m.Total, nil, "")
	line("FREE", m.Free, m.Total, mem)
	line("USED", minus(m.Total, m.Free), m.Total, mem)
	line("BUFFERS", m.Buffers, m.Total, mem)
	line("CACHED", m.Cached, m.Total, mem)
	line("SHMEM", m.Shmem, m.Total, mem)
	line("ANON", m.Anon, m.Total, mem)
	line("SLAB", m.Slab, m.Total, mem)
	line("PAGE TABLES", m.PageTables, m.Total, mem)
	line("STACKS", m.Stacks, m.Total, mem)
	s.printf("\n")
	line(huge, m.HugeTotal, nil, "")
	line("HUGE FREE", m.HugeFree, m.HugeTotal, huge)
	s.printf("\n")
	line(swap, m.SwapTotal, nil, "")
	line("SWAP USED", minus(m.SwapTotal, m.SwapFree), m.SwapTotal, swap)
	line("SWAP FREE", m.SwapFree, m.SwapTotal, swap)
	s.printf("\n")
	line("COMMIT LIMIT", m.CommitLimit, nil, "")
	line("COMMITTED", m.Committed, m.CommitLimit, "TOTAL LIMIT")
	s.missing()
	return nil
}

func kmemInfoJSON(s *session, m *kernel.Meminfo) error {
	return s.writeJSON(struct {
		Pages       int      `json:"page_bytes"`
		Total       *uint64  `json:"total_pages"` // null, as the others, when the dump does not tell
		Free        *uint64  `json:"free_pages"`
		Buffers     *uint64  `json:"buffers_pages"`
		Cached      *uint64  `json:"cached_pages"`
		Shmem       *uint64  `json:"shmem_pages"`
		Anon        *uint64  `json:"anon_pages"`
		Slab        *uint64  `json:"slab_pages"`
		Reclaimable *uint64  `json:"slab_reclaimable_pages"`
		PageTables  *uint64  `json:"page_table_pages"`
		Stacks      *uint64  `json:"stack_pages"`
		HugeTotal   *uint64  `json:"huge_total_pages"`
		HugeFree    *uint64  `json:"huge_free_pages"`
		SwapTotal   *uint64  `json:"swap_total_pages"`
		SwapFree    *uint64  `json:"swap_free_pages"`
		Limit       *uint64  `json:"commit_limit_pages"`
		Committed   *uint64  `json:"committed_pages"`
		Missing     []string `json:"missing,omitempty"`
	}{4096, m.Total, m.Free, m.Buffers, m.Cached, m.Shmem, m.Anon, m.Slab, m.Reclaimable, m.PageTables, m.Stacks, m.HugeTotal, m.HugeFree,
		m.SwapTotal, m.SwapFree, m.CommitLimit, m.Committed, s.missing()})
}

type statJSON map[string]int64

func statMap(stats []kernel.Stat) statJSON {
	m := statJSON{}
	for _, st := range stats {
		m[st.Name] = st.Value
	}
	return m
}

func kmemZones(s *session, k *kernel.Kernel) error {
	zones, err := k.Zones()
	if err != nil && len(zones) == 0 {
		return fmt.Errorf("list the zones: %w", err)
	}
	s.miss(err)
	type zoneJSON struct {
		Node    int      `json:"node"`
		Zone    int      `json:"zone"`
		Address hex      `json:"address"`
		Name    string   `json:"name"`
		Spanned uint64   `json:"spanned_pages"`
		Present uint64   `json:"present_pages"`
		Managed uint64   `json:"managed_pages"`
		Min     uint64   `json:"min_pages"`
		Low     uint64   `json:"low_pages"`
		High    uint64   `json:"high_pages"`
		Stats   statJSON `json:"vm_stat"`
	}
	list := []zoneJSON{}
	for i, z := range zones {
		s.miss(z.Err)
		if s.json {
			w := z.Watermarks
			list = append(list, zoneJSON{z.Node, z.Index, hex(z.Addr), z.Name, z.Spanned, z.Present, z.Managed, w[0], w[1], w[2], statMap(z.Stats)})
			continue
		}
		if i > 0 {
			s.printf("\n")
		}
		s.printf("%s\n", s.term.paint(bold, fmt.Sprintf("NODE: %d  ZONE: %d  ADDR: %016x  NAME: %q", z.Node, z.Index, uint64(z.Addr), clean(z.Name))))
		switch {
		case z.Err != nil && z.Spanned == 0:
			s.printf("  [not in the dump]\n")
			continue
		case z.Spanned == 0:
			s.printf("  [unpopulated]\n")
			continue
		}
		s.printf("  SIZE: %d  PRESENT: %d  MANAGED: %d  MIN/LOW/HIGH: %d/%d/%d\n", z.Spanned, z.Present, z.Managed, z.Watermarks[0], z.Watermarks[1], z.Watermarks[2])
		s.printf("  VM_STAT:\n")
		for _, st := range z.Stats {
			s.printf("%25s: %d\n", clean(st.Name), st.Value)
		}
	}
	if s.json {
		return s.writeJSON(struct {
			Zones   []zoneJSON `json:"zones"`
			Missing []string   `json:"missing,omitempty"`
		}{list, s.missing()})
	}
	s.missing()
	return nil
}

func kmemStats(s *session, k *kernel.Kernel) error {
	stats, err := k.VMStats()
	if err != nil && len(stats) == 0 {
		return err
	}
	s.miss(err)
	if s.json {
		return s.writeJSON(struct {
			Stats   statJSON `json:"vm_stat"`
			Missing []string `json:"missing,omitempty"`
		}{statMap(stats), s.missing()})
	}
	for _, st := range stats {
		s.printf("%30s: %d\n", clean(st.Name), st.Value)
	}
	s.missing()
	return nil
}

func kmemVmalloc(s *session, k *kernel.Kernel) error {
	areas, err := k.VmapAreas()
	if err != nil && len(areas) == 0 {
		return err
	}
	s.miss(err)
	type vmapJSON struct {
		Area   hex    `json:"vmap_area"`
		VM     hex    `json:"vm_struct"`
		Start  hex    `json:"start"`
		End    hex    `json:"end"`
		Size   uint64 `json:"size"`
		Pages  uint64 `json:"pages"`
		Caller string `json:"caller"`
	}
	list := []vmapJSON{}
	for _, a := range areas {
		j := vmapJSON{hex(a.Addr), hex(a.VM), hex(a.Start), hex(a.End), uint64(a.End - a.Start), a.Pages, ""}
		if a.Caller != 0 {
			j.Caller = k.Name(a.Caller)
		}
		list = append(list, j)
	}
	if s.json {
		return s.writeJSON(struct {
			Areas   []vmapJSON `json:"areas"`
			Missing []string   `json:"missing,omitempty"`
		}{list, s.missing()})
	}
	s.printf("%s\n", s.term.paint(bold, "   VMAP_AREA         VM_STRUCT                 ADDRESS RANGE                SIZE  CALLER"))
	for _, j := range list {
		s.printf("%016x  %016x  %016x - %016x  %8d  %s\n", uint64(j.Area), uint64(j.VM), uint64(j.Start), uint64(j.End), j.Size, clean(j.Caller))
	}
	s.missing()
	return nil
}
