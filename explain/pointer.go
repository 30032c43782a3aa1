package explain

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"inquest/kernel/x86"
)

// badness is what is wrong with an address.
type badness struct {
	class Class
	what  string // "NULL plus 0x18", "freed memory's poison (0x6b…)", …
	sure  bool   // the value itself proves it
}

// poisons are the values that the kernel fills memory with, so that a pointer read
// from there gives itself away (include/linux/poison.h, mm/slab.h).
var poisons = []struct {
	low, high uint64 // range of values, since members are accessed at an offset
	class     Class
	what      string
}{
	{0xdead000000000100, 0xdead000000000121, UseAfterFree, "LIST_POISON1: the next pointer of a list entry that was deleted already"},
	{0xdead000000000122, 0xdead0000000003ff, UseAfterFree, "LIST_POISON2: the prev pointer of a list entry that was deleted already"},
	{0xdead000000000000, 0xdead00000000ffff, UseAfterFree, "a poison pointer (0xdead000000000000 and up)"},
	{0x6b6b6b6b6b6b0000, 0x6b6b6b6b6b6bffff, UseAfterFree, "POISON_FREE: read from a freed slab object"},
	{0x5a5a5a5a5a5a0000, 0x5a5a5a5a5a5affff, WildPointer, "POISON_INUSE: read from a slab object that was never initialised"},
	{0xaaaaaaaaaaaa0000, 0xaaaaaaaaaaaaffff, UseAfterFree, "PAGE_POISON: read from a freed page"},
	{0xcccccccccccc0000, 0xccccccccccccffff, UseAfterFree, "POISON_FREE_INITMEM: read from freed init memory"},
	{0xbbbbbbbbbbbb0000, 0xbbbbbbbbbbbbffff, OutOfBounds, "SLUB_RED_INACTIVE: read from the red zone of a slab object"},
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
			return badness{p.class, fmt.Sprintf("%#x is %s", addr, p.what), true}, true
		}
	}
	switch {
	case addr == 0:
		return badness{NullDereference, "the address is NULL", true}, true
	case addr < nullZone:
		return badness{NullDereference, fmt.Sprintf("%#x is NULL plus an offset", addr), true}, true
	case addr > ^uint64(0)-maxErrno:
		return badness{WildPointer, fmt.Sprintf("%#x is an error code, %s, used as a pointer", addr, errnoName(-addr)), true}, true
	case addr > ^uint64(0)-nullZone:
		return badness{NullDereference, fmt.Sprintf("%#x is NULL minus %#x, or an error code with an offset", addr, -addr), false}, true
	}
	pt := c.Kernel.PageTable()
	if !pt.Canonical(addr) {
		return badness{WildPointer, fmt.Sprintf("%#x is not a canonical address%s", addr, asText(addr)), true}, true
	}
	if addr < userTop {
		return badness{WildPointer, fmt.Sprintf("%#x is in user space%s", addr, asText(addr)), false}, true
	}
	m, err := pt.Walk(addr)
	switch {
	case errors.Is(err, x86.ErrNotMapped):
		return badness{WildPointer, fmt.Sprintf("nothing is mapped at %#x", addr), true}, true
	case err != nil:
		return badness{}, false
	case write && m.Flags&x86.PageWrite == 0:
		return badness{WildPointer, fmt.Sprintf("%#x is mapped read-only", addr), true}, true
	case exec && m.Flags&x86.PageNoExecute != 0:
		return badness{BadInstruction, fmt.Sprintf("%#x is not executable", addr), true}, true
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
