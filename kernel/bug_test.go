package kernel

import (
	"errors"
	"testing"

	"inquest/internal/kerneltest"
)

// bugMachine has a BUG() and a WARN() at places in its text.
func bugMachine(entrySize uint32, tableSize uint64) (m *kerneltest.Machine, bug, warn uint64) {
	m = kerneltest.New()
	entry := kerneltest.Struct("bug_entry",
		field{Name: "bug_addr_disp", Type: kerneltest.Int}, field{Name: "file_disp", Type: kerneltest.Int},
		field{Name: "line", Type: kerneltest.U16}, field{Name: "flags", Type: kerneltest.U16})
	size := uint64(entry.Size)
	if entrySize != 0 {
		entry.Size = entrySize
	}
	m.Types(entry)
	bug, warn = m.Text()+0x100, m.Text()+0x200
	file := m.PutString("lib/list_debug.c")
	table := m.Alloc(int(2*size), 4)
	for i, e := range []struct{ trap, flags uint64 }{{bug, 0}, {warn, 1}} {
		at := table + uint64(i)*size
		m.Set(at, entry, "bug_addr_disp", e.trap-at)
		m.Set(at, entry, "file_disp", file-(at+4))
		m.Set(at, entry, "line", 30+uint64(i))
		m.Set(at, entry, "flags", e.flags)
	}
	m.Symbol("__start___bug_table", 'D', table)
	m.Symbol("__stop___bug_table", 'D', table+max(2*size, tableSize))
	return m, bug, warn
}

func TestBugAt(t *testing.T) {
	m, bug, warn := bugMachine(0, 0)
	k := open(t, m)
	for _, want := range []BugEntry{
		{Addr: Addr(bug), File: "lib/list_debug.c", Line: 30},
		{Addr: Addr(warn), File: "lib/list_debug.c", Line: 31, Warn: true},
	} {
		if got, err := k.BugAt(want.Addr); got != want || err != nil {
			t.Errorf("%+v, %v; want %+v", got, err, want)
		}
		if k.Warns(want.Addr) != want.Warn {
			t.Errorf("%v warns: %v", want.Addr, !want.Warn)
		}
	}
	if _, err := k.BugAt(Addr(bug) + 1); !errors.Is(err, ErrNoSymbol) {
		t.Errorf("no trap: %v", err)
	}
}

// A forged size of the entries takes no memory.
func TestBugTableForged(t *testing.T) {
	m, bug, _ := bugMachine(0xfffffff0, 1<<30)
	k := open(t, m)
	if _, err := k.BugAt(Addr(bug)); !errors.Is(err, ErrNoSymbol) {
		t.Errorf("%v", err)
	}
	k.readBugs(bugTable{}, Addr(m.Text()), 1<<52)
}
