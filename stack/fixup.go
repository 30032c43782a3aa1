package stack

import (
	"sort"

	"inquest/kernel"
)

// fixup is where the kernel goes on after a fault that it expects, and the registers
// that it sets on the way (arch/x86/mm/extable.c).
type fixup struct {
	to   uint64
	regs []gpr
}

const (
	// struct exception_table_entry: the faulting instruction and its fixup, both relative
	// to their own places, and what to do.
	fixupSize    = 12
	maxFixups    = 1 << 20
	maxFixupCode = 64
)

// addFixups reads the fixups of a part's instructions. Until 5.17 (commit
// e52fc2cf3f66) many are pieces of code elsewhere, which jump back: they become parts.
func (c *code) addFixups(p part) {
	table, n := fixupTable(c.k, kernel.Addr(p.start))
	first := sort.Search(n, func(i int) bool {
		at, _, ok := readFixup(c.k, table, i)
		return !ok || at >= p.start
	})
	for i := first; i < n; i++ {
		at, f, ok := readFixup(c.k, table, i)
		if !ok || at-p.start >= uint64(len(p.bytes)) || len(c.parts) > maxParts {
			break
		}
		if c.fixups == nil {
			c.fixups = map[uint64]fixup{}
		}
		c.fixups[at] = f
		if c.within(f.to) == nil {
			b := make([]byte, maxFixupCode)
			if c.k.Read(b, kernel.Addr(f.to)) == nil {
				c.parts = append(c.parts, part{f.to, b})
			}
		}
	}
}

// fixupTable returns the exception table of the kernel, or of the module that an
// address is in. It is sorted.
func fixupTable(k *kernel.Kernel, at kernel.Addr) (kernel.Addr, int) {
	m := k.ModuleAt(at)
	if m == nil {
		start, err1 := k.Symbol("__start___ex_table")
		stop, err2 := k.Symbol("__stop___ex_table")
		if err1 != nil || err2 != nil || stop < start || (stop-start)/fixupSize > maxFixups {
			return 0, 0
		}
		return start, int(stop-start) / fixupSize
	}
	start, err1 := m.Pointer("extable")
	n, err2 := m.Uint("num_exentries")
	if err1 != nil || err2 != nil || n > maxFixups {
		return 0, 0
	}
	return start, int(n)
}

func readFixup(k *kernel.Kernel, table kernel.Addr, i int) (at uint64, f fixup, ok bool) {
	entry := table + kernel.Addr(fixupSize*i)
	var b [fixupSize]byte
	if k.Read(b[:], entry) != nil {
		return 0, f, false
	}
	place := func(off int) uint64 { return uint64(entry) + uint64(off) + uint64(int64(int32(le.Uint32(b[off:])))) }
	// Handlers set rax, rcx or rdx, and since 5.17 (commit 4b5305decc84) the register
	// that bits 8 to 11 number. Before, these bits are of an address, and do no harm.
	return place(0), fixup{place(4), []gpr{rax, rcx, rdx, gpr(le.Uint32(b[8:]) >> 8 & 15)}}, true
}
