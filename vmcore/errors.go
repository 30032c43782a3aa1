package vmcore

import (
	"errors"
	"fmt"
)

// Sentinels, matched with [errors.Is].
var (
	// ErrNotDump means that the file is no crash dump this package reads.
	// The concrete error is a [*NotDumpError].
	ErrNotDump = errors.New("not a crash dump")
	// ErrExcluded means that the page existed in the machine and whoever
	// wrote the dump left it out (makedumpfile -d).
	ErrExcluded = errors.New("page excluded from the dump")
	// ErrAbsent means that the dump knows of no memory at the address.
	ErrAbsent = errors.New("no memory at this address in the dump")
	// ErrCorrupt means that the file is truncated, or what it holds for the
	// page is broken.
	ErrCorrupt = errors.New("dump is damaged")
	// ErrMissingPart means that a split dump was opened without all its parts.
	ErrMissingPart = errors.New("part of a split dump is missing")
	// ErrNoVMCoreInfo means that neither the notes nor memory hold VMCOREINFO.
	ErrNoVMCoreInfo = errors.New("no VMCOREINFO in the dump")
)

// NotDumpError says what a file that is not a readable dump seems to be.
// It matches [ErrNotDump].
type NotDumpError struct {
	Path string // as given to Open, or Part.Name
	Is   string // what it seems to be: "a gzip-compressed file"
	Hint string // what to do about it; may be empty
}

func (e *NotDumpError) Error() string {
	s := fmt.Sprintf("%s is %s; expected the crash dump of a 64-bit Linux (kdump-compressed, ELF vmcore or /proc/kcore)", e.Path, e.Is)
	if e.Hint != "" {
		s += ": " + e.Hint
	}
	return s
}

// Unwrap makes errors.Is(err, ErrNotDump) true.
func (e *NotDumpError) Unwrap() error { return ErrNotDump }

// PageError is the error of a read: where it failed and why. Err wraps one of
// [ErrExcluded], [ErrAbsent] and [ErrCorrupt].
type PageError struct {
	Addr PhysAddr
	Err  error
}

func (e *PageError) Error() string {
	return fmt.Sprintf("read physical %#x: %v", uint64(e.Addr), e.Err)
}

func (e *PageError) Unwrap() error { return e.Err }

// corrupt builds an error that wraps ErrCorrupt and says what is broken.
func corrupt(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrCorrupt, fmt.Sprintf(format, args...))
}
