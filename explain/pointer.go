package explain

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"inquest/kernel/x86"
)

// badness is what is wrong with an address.
type badness struct {
	class  Class
	what   string // "NULL plus 0x18", "POISON_FREE, which …", …
	sure   bool   // the value itself proves it
	poison poison
}

// poison is what the kernel fills memory with, so that a pointer read from there gives
// itself away.
type poison int

const (
	notPoison poison = iota
	listPoison
	freePoison // of slab objects
	usePoison
	pagePoison
	initPoison
	redPoison
)

// poisons are the values (include/linux/poison.h). That a number looks like one of them is
// no evidence of what happened; where it was read from may be.
var poisons = []struct {
	low, high uint64 // range of values, since members are accessed at an offset
	poison    poison
	what      string
}{
	{0xdead000000000100, 0xdead000000000121, listPoison, "LIST_POISON1, which list_del() leaves in the next pointer of an entry"},
	{0xdead000000000122, 0xdead0000000003ff, listPoison, "LIST_POISON2, which list_del() leaves in the prev pointer of an entry"},
	{0xdead000000000000, 0xdead00000000ffff, listPoison, "a poison pointer (0xdead000000000000 and up)"},
	{0x6b6b6b6b6b6b0000, 0x6b6b6b6b6b6bffff, freePoison, "POISON_FREE, which free slab objects are filled with if that is on"},
	{0x5a5a5a5a5a5a0000, 0x5a5a5a5a5a5affff, usePoison, "POISON_INUSE, which new slab objects are filled with if that is on"},
	{0xaaaaaaaaaaaa0000, 0xaaaaaaaaaaaaffff, pagePoison, "PAGE_POISON, which free pages are filled with if that is on"},
	{0xcccccccccccc0000, 0xccccccccccccffff, initPoison, "POISON_FREE_INITMEM, which the kernel's init memory is filled with when it is freed"},
	{0xbbbbbbbbbbbb0000, 0xbbbbbbbbbbbbffff, redPoison, "SLUB_RED_INACTIVE, which the red zones of free slab objects consist of if they are on"},
}

const (
	userTop  = 1 << 47
	maxErrno = 4095
	nullZone = 64 << 10 // offsets within one object
)

// judge says what is wrong with an address that an instruction accessed; ok is
// false when nothing is.
func (c *Case) judge(addr uint64, write, exec bool) (b badness, ok bool) {
	for _, p := range poisons {
		if addr >= p.low && addr <= p.high {
			return badness{class: WildPointer, what: fmt.Sprintf("%#x is like %s", addr, p.what), sure: true, poison: p.poison}, true
		}
	}
	switch {
	case addr == 0:
		return badness{class: NullDereference, what: "the address is NULL", sure: true}, true
	case addr < nullZone:
		return badness{class: NullDereference, what: fmt.Sprintf("%#x is NULL plus an offset", addr), sure: true}, true
	case addr > ^uint64(0)-maxErrno:
		return badness{class: WildPointer, what: fmt.Sprintf("%#x is an error code, %s, used as a pointer", addr, errnoName(-addr)), sure: true}, true
	case addr > ^uint64(0)-nullZone:
		return badness{class: NullDereference, what: fmt.Sprintf("%#x is NULL minus %#x, or an error code with an offset", addr, -addr), sure: false}, true
	}
	pt := c.Kernel.PageTable()
	if !pt.Canonical(addr) {
		return badness{class: WildPointer, what: fmt.Sprintf("%#x is not a canonical address%s", addr, asText(addr)), sure: true}, true
	}
	if addr < userTop {
		return badness{class: WildPointer, what: fmt.Sprintf("%#x is in user space%s", addr, asText(addr)), sure: false}, true
	}
	m, err := pt.Walk(addr)
	switch {
	case errors.Is(err, x86.ErrNotMapped):
		return badness{class: WildPointer, what: fmt.Sprintf("nothing is mapped at %#x", addr), sure: true}, true
	case err != nil:
		return badness{}, false
	case write && m.Flags&x86.PageWrite == 0:
		return badness{class: WildPointer, what: fmt.Sprintf("%#x is mapped read-only", addr), sure: true}, true
	case exec && m.Flags&x86.PageNoExecute != 0:
		return badness{class: BadInstruction, what: fmt.Sprintf("%#x is not executable", addr), sure: true}, true
	}
	return badness{}, false
}

// asText shows a value that consists of printable characters, as overwritten
// pointers often do.
func asText(v uint64) string {
	var s []byte
	for ; v != 0; v >>= 8 {
		ch := byte(v)
		if ch < 0x20 || ch > 0x7e {
			return ""
		}
		s = append(s, ch)
	}
	if len(s) < 4 {
		return ""
	}
	return fmt.Sprintf(", but the text %q", s)
}

func errnoName(n uint64) string {
	if name := unix.ErrnoName(unix.Errno(n)); name != "" {
		return "-" + name
	}
	return fmt.Sprintf("-%d", n)
}
