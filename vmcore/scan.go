package vmcore

import (
	"bytes"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
)

// scanChunk is the pages that a goroutine of Scan takes at a time.
const scanChunk = 256

// Scan calls f for every page of the dump, from several goroutines at once and
// at about the speed of decompression. Pages come roughly in ascending order. A
// page that cannot be read is passed over. f must not keep page. The
// scan ends when f returns false; a few more calls may be under way then.
// what tells OnProgress what is being done.
func (d *Dump) Scan(what string, f func(addr PhysAddr, page []byte) bool) {
	var (
		size    = uint64(d.PageSize)
		total   int64
		done    atomic.Int64
		stop    atomic.Bool
		wg      sync.WaitGroup
		workers = runtime.GOMAXPROCS(0)
		chunks  = make(chan [2]uint64, workers)
	)
	if d.OnProgress != nil {
		present, _ := d.store.counts()
		total = int64(present)
	}
	for range workers {
		wg.Go(func() {
			page := make([]byte, size)
			for c := range chunks {
				for pfn := c[0]; pfn < c[0]+c[1] && !stop.Load(); pfn++ {
					if d.store.readPage(pfn, page) == nil && !f(PhysAddr(pfn*size), page) {
						stop.Store(true)
					}
				}
				if n := done.Add(int64(c[1])); d.OnProgress != nil {
					d.OnProgress(what, n, total)
				}
			}
		})
	}
	d.store.runs(func(pfn, n uint64) bool {
		for n > 0 && !stop.Load() {
			m := min(n, scanChunk)
			chunks <- [2]uint64{pfn, m}
			pfn, n = pfn+m, n-m
		}
		return !stop.Load()
	})
	close(chunks)
	wg.Wait()
}

// infoCandidate is a text in memory that looks like VMCOREINFO.
type infoCandidate struct {
	info *VMCoreInfo
	addr PhysAddr
	// own: the text describes this machine's kernel, not that of a guest or
	// of an earlier boot that is still lying about.
	own bool
}

// scanVMCoreInfo searches memory for VMCOREINFO. Since Linux 4.13
// (203e9e41219b) the text has a page of its own; before, it is a static array.
// The same text is in the note prepared for the crash, away from a page boundary.
func (d *Dump) scanVMCoreInfo() (*VMCoreInfo, error) {
	var (
		mu   sync.Mutex
		best *infoCandidate
	)
	// A page full of such texts is not worth more than a few looks.
	const perPage = 4
	d.Scan("search memory for VMCOREINFO", func(addr PhysAddr, page []byte) bool {
		rest := page
		for range perPage {
			i := bytes.Index(rest, []byte("OSRELEASE="))
			if i < 0 {
				return true
			}
			at := addr + PhysAddr(len(page)-len(rest)+i)
			rest = rest[i+1:]
			c, ok := d.infoAt(at)
			if !ok {
				continue
			}
			mu.Lock()
			if best == nil || d.rankInfo(c) < d.rankInfo(*best) {
				best = &c
			}
			mu.Unlock()
			if c.own && at == addr {
				return false
			}
		}
		return true
	})
	if best == nil {
		return nil, fmt.Errorf("%w: not in its notes, nor in the memory it holds", ErrNoVMCoreInfo)
	}
	return best.info, nil
}

// rankInfo orders candidates, the best lowest.
func (d *Dump) rankInfo(c infoCandidate) uint64 {
	rank := uint64(c.addr) // below 1<<52
	if uint64(c.addr)%uint64(d.PageSize) != 0 {
		rank |= 1 << 60
	}
	if !c.own {
		rank |= 1 << 61
	}
	if s, _ := c.info.Get("OSRELEASE"); d.Release != "" && s != d.Release {
		rank |= 1 << 62
	}
	return rank
}

// infoAt reads the VMCOREINFO text at addr, if it is one.
func (d *Dump) infoAt(addr PhysAddr) (infoCandidate, bool) {
	text := make([]byte, 0, minPageSize)
	for len(text) < minPageSize {
		n := min(minPageSize-len(text), d.PageSize-int(uint64(addr)+uint64(len(text)))%d.PageSize)
		if d.ReadPhys(text[len(text):len(text)+n], addr+PhysAddr(len(text))) != nil {
			break
		}
		text = text[:len(text)+n]
	}
	if i := bytes.IndexByte(text, 0); i >= 0 {
		text = text[:i]
	}
	if i := bytes.LastIndexByte(text, '\n'); i >= 0 {
		text = text[:i+1]
	}
	if !bytes.Contains(text, []byte("\nPAGESIZE=")) || !isText(text) {
		return infoCandidate{}, false
	}
	c := infoCandidate{addr: addr, info: parseVMCoreInfo(text, fmt.Sprintf("memory scan at %#x", uint64(addr)))}
	c.own = d.ownInfo(c.info)
	return c, true
}

// ownInfo reports whether the kernel that the text describes is where it says:
// its init_uts_ns then has the same release.
func (d *Dump) ownInfo(v *VMCoreInfo) bool {
	release, _ := v.Get("OSRELEASE")
	uts, ok := d.readUTSName(v)
	return ok && uts.release == release
}

// utsName is the kernel's struct new_utsname, as far as dumps have it.
type utsName struct{ nodename, release, version, machine string }

// readUTSName reads init_uts_ns from memory. Only x86-64's VMCOREINFO says where
// the kernel is in physical memory.
func (d *Dump) readUTSName(v *VMCoreInfo) (uts utsName, ok bool) {
	const (
		startKernelMap = 0xffffffff80000000 // __START_KERNEL_map
		field          = 65                 // __NEW_UTS_LEN+1
		before         = 64                 // what may precede the names: a kref, before 5.11
	)
	sym, ok1 := v.Symbol("init_uts_ns")
	base, ok2 := v.Number("phys_base")
	if !ok1 || !ok2 || sym < startKernelMap {
		return uts, false
	}
	var buf [before + 6*field]byte
	if d.ReadPhys(buf[:], PhysAddr(sym-startKernelMap+uint64(base))) != nil {
		return uts, false
	}
	i := bytes.Index(buf[:before], []byte("Linux\x00"))
	if i < 0 {
		return uts, false
	}
	names := buf[i:]
	text := func(n int) string { return cString(names[n*field : (n+1)*field]) }
	return utsName{text(1), text(2), text(3), text(4)}, true
}
