package kernel

import (
	"fmt"
	"sync"
)

// BugEntry is what the kernel notes of a BUG() or WARN() in its code
// (include/asm-generic/bug.h, struct bug_entry).
type BugEntry struct {
	Addr Addr   // of the trapping instruction
	File string // of the source; empty without DEBUG_BUGVERBOSE
	Line int
	Warn bool // WARN(), which goes on; else BUG()
}

const (
	maxBugs     = 1 << 20
	bugWarning  = 1 << 0 // BUGFLAG_WARNING
	bugRelative = 4      // bytes of an address that is stored relative to its place
	maxBugEntry = 256    // bytes; it has 12
)

// bugTable is a table of bug entries and the addresses in it.
type bugTable struct {
	entries map[Addr]Addr // trap -> its entry
}

// bugs reads the kernel's own table.
func (k *Kernel) bugs() bugTable {
	k.bugOnce.Do(func() {
		k.bugTable = bugTable{map[Addr]Addr{}}
		start, err1 := k.Symbol("__start___bug_table")
		stop, err2 := k.Symbol("__stop___bug_table")
		if err1 != nil || err2 != nil || stop < start {
			return
		}
		k.readBugs(k.bugTable, start, uint64(stop-start))
	})
	return k.bugTable
}

// readBugs adds the entries of a table of n bytes. An entry begins with the
// distance of its trap from itself.
func (k *Kernel) readBugs(t bugTable, start Addr, n uint64) {
	size, err := k.SizeOf("bug_entry")
	if err != nil || size < bugRelative || size > maxBugEntry || n/size > maxBugs {
		return
	}
	raw := make([]byte, n/size*size)
	if k.readSome(&raw, start, 0) != nil {
		return
	}
	for at := uint64(0); at+size <= uint64(len(raw)); at += size {
		entry := start + Addr(at)
		t.entries[entry+Addr(int64(int32(le.Uint32(raw[at:]))))] = entry
	}
}

// BugAt returns what the kernel notes of the trap at an address. The error wraps
// ErrNoSymbol when it is none.
func (k *Kernel) BugAt(addr Addr) (BugEntry, error) {
	entry, ok := k.bugs().entries[addr]
	if !ok {
		if m := k.ModuleAt(addr); m != nil {
			entry, ok = m.bugs().entries[addr]
		}
	}
	if !ok {
		return BugEntry{}, fmt.Errorf("%v is no BUG() or WARN(): %w", addr, ErrNoSymbol)
	}
	o, err := k.Object("bug_entry", entry)
	if err != nil {
		return BugEntry{}, err
	}
	b := BugEntry{Addr: addr}
	flags, err := o.Uint("flags")
	if err != nil {
		return b, err
	}
	b.Warn = flags&bugWarning != 0
	if line, err := o.Uint("line"); err == nil {
		b.Line = int(line)
	}
	if m, err := o.Member("file_disp"); err == nil {
		if rel, err := m.Int(""); err == nil {
			// Relative to its own place since 5.19, to the entry before: the one
			// that is text is right.
			for _, from := range []Addr{m.Addr, entry} {
				if s, err := k.CString(from+Addr(rel), pageSize); err == nil && isPath(s) {
					b.File = s
					break
				}
			}
		}
	}
	return b, nil
}

func isPath(s string) bool {
	for i := range len(s) {
		if s[i] < 0x20 || s[i] > 0x7e {
			return false
		}
	}
	return s != ""
}

// Warns reports whether the trap at an address is a WARN(), behind which the code
// goes on.
func (k *Kernel) Warns(addr Addr) bool {
	b, err := k.BugAt(addr)
	return err == nil && b.Warn
}

// bugs reads the module's table.
func (m *Module) bugs() bugTable {
	m.bugOnce.Do(func() {
		m.bugTable = bugTable{map[Addr]Addr{}}
		start, err1 := m.Pointer("bug_table")
		n, err2 := m.Uint("num_bugs")
		if err1 == nil && err2 == nil && n <= maxBugs {
			if size, err := m.k.SizeOf("bug_entry"); err == nil {
				m.k.readBugs(m.bugTable, start, n*size)
			}
		}
	})
	return m.bugTable
}

// bugState is embedded where a bug table belongs.
type bugState struct {
	bugOnce  sync.Once
	bugTable bugTable
}
