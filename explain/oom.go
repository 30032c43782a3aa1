package explain

import (
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"inquest/heap"
)

// NoMemory explains why there was no memory left: who asked last, and who has it.
var NoMemory = &Analyzer{
	Name: "oom",
	Doc:  "out of memory: what the memory was used for, and by whom",
	Run: func(c *Case) []Finding {
		cr := c.Crash
		if cr == nil || cr.Panic == nil || !outOfMemory(cr.Panic.Trigger) {
			return nil
		}
		f := Finding{Class: OutOfMemory, Title: "the machine ran out of memory", Confidence: Certain, Weight: 1,
			Evidence: []Evidence{{Text: cr.Panic.Message, Check: "log"}}}
		if m := c.memoryReport(); m != nil {
			c.spent(&f, m)
		}
		return []Finding{f}
	},
}

func outOfMemory(reason string) bool {
	return strings.Contains(reason, "ut of memory") || strings.Contains(reason, "deadlocked on memory")
}

// memoryReport is what the kernel said when it found no memory (mm/show_mem.c,
// mm/oom_kill.c): numbers are pages.
type memoryReport struct {
	asked  string            // who invoked the killer, for what
	counts map[string]uint64 // "active_anon", "slab_unreclaimable" …
	ram    uint64
	cgroup string // that was at its limit; "" for the whole machine
	tasks  []memoryUser
}

type memoryUser struct {
	name string
	pid  int
	rss  uint64
}

var (
	invokedKiller = regexp.MustCompile(`^(.{1,15}) invoked oom-killer: gfp_mask=(\S+), order=(-?\d+)`)
	memoryCount   = regexp.MustCompile(`\b([a-z_]+):(\d+)\b`)
	pagesOfRAM    = regexp.MustCompile(`^(\d+) pages (RAM|reserved)$`)
	memoryTask    = regexp.MustCompile(`^\[ *(\d+)\] +\d+ +\d+ +\d+ +(\d+) +.* (\S.*)$`)
	limitReached  = regexp.MustCompile(`constraint=CONSTRAINT_MEMCG.*oom_memcg=([^,]*)`)
)

// memoryReport reads the last report in the log; nil when there is none.
func (c *Case) memoryReport() *memoryReport {
	const longest = 20_000 // records of one report: a line for each task
	end := c.Crash.Panic.Record
	start := -1
	for i := min(end, len(c.Log)-1); i >= max(0, end-longest) && start < 0; i-- {
		if invokedKiller.MatchString(c.Log[i].Text) {
			start = i
		}
	}
	if start < 0 {
		return nil
	}
	m := &memoryReport{counts: map[string]uint64{}}
	table, reserved := false, uint64(0)
	for _, rec := range c.Log[start:end] {
		for line := range strings.Lines(rec.Text) {
			line = strings.TrimSpace(line)
			number := func(s string) uint64 { n, _ := strconv.ParseUint(s, 10, 64); return n }
			switch {
			case m.asked == "":
				w := invokedKiller.FindStringSubmatch(line)
				m.asked = fmt.Sprintf("%s asked for 2^%s pages (%s) and there were none", w[1], w[3], w[2])
			case strings.HasPrefix(line, "Node "):
			case pagesOfRAM.MatchString(line):
				w := pagesOfRAM.FindStringSubmatch(line)
				if w[2] == "reserved" {
					reserved = number(w[1])
				} else {
					m.ram = number(w[1])
				}
			case strings.Contains(line, "total_vm") && strings.Contains(line, "rss"):
				table = true
			case table && memoryTask.MatchString(line):
				w := memoryTask.FindStringSubmatch(line)
				m.tasks = append(m.tasks, memoryUser{w[3], int(number(w[1])), number(w[2])})
			case limitReached.MatchString(line):
				m.cgroup = limitReached.FindStringSubmatch(line)[1]
			case m.ram == 0 && !strings.Contains(line, "kB"):
				for _, w := range memoryCount.FindAllStringSubmatch(line, -1) {
					m.counts[w[1]] = number(w[2])
				}
			}
		}
	}
	m.ram -= min(reserved, m.ram)
	return m
}

// spent says what the memory went into, the most first.
func (c *Case) spent(f *Finding, m *memoryReport) {
	f.Evidence = append(f.Evidence, Evidence{Text: m.asked, Check: "log"})
	n := m.counts
	type use struct {
		what, short string
		pages       uint64
	}
	uses := []use{
		{"anonymous memory of processes", "processes", n["active_anon"] + n["inactive_anon"] - min(n["shmem"], n["active_anon"]+n["inactive_anon"])},
		{"shared memory and tmpfs", "tmpfs and shared memory", n["shmem"]},
		{"the page cache of files", "the page cache", n["active_file"] + n["inactive_file"]},
		{"slab caches", "slab caches", n["slab_reclaimable"] + n["slab_unreclaimable"]},
		{"page tables", "page tables", n["pagetables"]},
		{"pages that cannot be evicted", "locked pages", n["unevictable"]},
		{"free, though not where or in the size that was asked for", "free memory", n["free"] + n["free_pcp"]},
	}
	if m.ram > 0 {
		known := uint64(0)
		for _, u := range uses {
			known += u.pages
		}
		uses = append(uses, use{"pages that no counter has: taken from the page allocator directly, by drivers or vmalloc()", "pages that no counter has", m.ram - min(known, m.ram)})
		slices.SortStableFunc(uses, func(a, b use) int { return cmp.Compare(b.pages, a.pages) })
		var parts []string
		for i, u := range uses {
			if share := 100 * u.pages / m.ram; i < 4 && share > 0 {
				parts = append(parts, fmt.Sprintf("%s %s (%d %%)", mebibytes(u.pages), u.what, share))
			}
		}
		f.Evidence = append(f.Evidence, Evidence{Text: fmt.Sprintf("of %s: %s", mebibytes(m.ram), strings.Join(parts, ", ")), Check: "kmem -i"})
		if 2*uses[0].pages > m.ram {
			f.Title += ": most of it is in " + uses[0].short
		}
	}
	if m.cgroup != "" {
		f.Title = "a memory cgroup ran out of memory"
		f.Evidence = append(f.Evidence, Evidence{Text: "the limit was that of memory cgroup " + m.cgroup, Check: "log"})
	}
	slices.SortStableFunc(m.tasks, func(a, b memoryUser) int { return cmp.Compare(b.rss, a.rss) })
	var tasks []string
	for i, t := range m.tasks {
		if i < 3 && t.rss > 0 {
			tasks = append(tasks, fmt.Sprintf("%s (pid %d) %s", t.name, t.pid, mebibytes(t.rss)))
		}
	}
	if len(tasks) > 0 {
		f.Evidence = append(f.Evidence, Evidence{Text: "the largest processes: " + strings.Join(tasks, ", "), Check: "ps"})
	}
	if slab := n["slab_reclaimable"] + n["slab_unreclaimable"]; m.ram > 0 && 5*slab > m.ram {
		c.largestCaches(f, n["slab_unreclaimable"])
	}
}

// largestCaches names the slab caches that have the most memory: a cache of which nobody
// knows why it is so large is where a leak is.
func (c *Case) largestCaches(f *Finding, unreclaimable uint64) {
	usages, _ := c.heap().Usages() // of what the dump has
	slices.SortFunc(usages, func(a, b heap.Usage) int { return cmp.Compare(b.Bytes, a.Bytes) })
	var parts []string
	for i, u := range usages {
		if i < 3 && u.Bytes > 0 {
			parts = append(parts, fmt.Sprintf("%s %s in %d objects", u.Cache.Name, mebibytes(u.Bytes/pageSize), u.Allocated))
		}
	}
	if len(parts) == 0 {
		return
	}
	f.Evidence = append(f.Evidence, Evidence{Text: "the largest slab caches: " + strings.Join(parts, ", "), Check: "slab"})
	if u := usages[0]; 2*u.Bytes/pageSize > unreclaimable && unreclaimable > 0 {
		f.Advice = append(f.Advice, fmt.Sprintf("More than half of the slab memory that cannot be reclaimed is in %s: if its objects grow in number while "+
			"the load does not, they leak. slub_debug=U,%s records who allocates them.", u.Cache.Name, u.Cache.Name))
	}
}

const pageSize = 4096 // of x86-64

func mebibytes(pages uint64) string {
	return strconv.FormatFloat(float64(pages)*pageSize/(1<<20), 'f', 0, 64) + " MiB"
}
