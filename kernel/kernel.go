package kernel

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"inquest/kernel/x86"
	"inquest/vmcore"
)

// Addr is a virtual address of the kernel, or of a task's user memory where said.
type Addr uint64

func (a Addr) String() string { return fmt.Sprintf("%#x", uint64(a)) }

// Errors that callers tell apart. An unreadable address wraps one of vmcore's or x86's.
var (
	ErrNoSymbol   = errors.New("no such symbol")
	ErrNoType     = errors.New("no such type")
	ErrNoMember   = errors.New("no such member")
	ErrNoBTF      = errors.New("the kernel has no BTF")
	ErrCorrupt    = errors.New("corrupt structure")
	ErrNoTask     = errors.New("no such task")
	ErrNotKernel  = errors.New("no Linux kernel found in the dump")
	ErrNotMachine = errors.New("machine is not supported")
)

// Kernel is the kernel inside a dump. It is safe for concurrent use; everything
// that costs is found when it is first asked for.
type Kernel struct {
	Dump    *vmcore.Dump
	Release string // uname -r
	BuildID string // of vmlinux, in hex; empty when unknown
	Layout  Layout

	info *vmcore.VMCoreInfo // nil when the dump has none
	mem  *memory

	symbols func() (*Symbols, error)
	types   func() (*Types, error)
	modules func() ([]*Module, error)
	placed  func() []placedRange // by address
	symRoom atomic.Int64         // what is left of maxModuleSymBytes
	percpu  func() ([]uint64, error)
	paths   sync.Map // pathKey -> *path
	bugState
}

// Open finds the kernel in a dump: where it was loaded and which page tables it
// ran on. The error wraps ErrNotKernel or ErrNotMachine when there is none to find.
func Open(d *vmcore.Dump) (*Kernel, error) {
	if d.Machine != "" && d.Machine != "Unknown" && d.Machine != "x86_64" {
		return nil, fmt.Errorf("%s: %w: only x86_64 is", d.Machine, ErrNotMachine)
	}
	k := &Kernel{Dump: d, Release: d.Release}
	info, infoErr := d.VMCoreInfo()
	if infoErr == nil {
		k.info = info
		if r, ok := info.Get("OSRELEASE"); ok {
			k.Release = r
		}
		k.BuildID, _ = info.Get("BUILD-ID")
	}
	layout, err := findLayout(d, k.info)
	if err != nil {
		if infoErr != nil {
			return nil, fmt.Errorf("%w; no VMCOREINFO either: %w", err, infoErr)
		}
		return nil, err
	}
	k.Layout = layout
	k.mem = newMemory(d, layout)
	k.symbols = sync.OnceValues(k.loadSymbols)
	k.types = sync.OnceValues(k.loadTypes)
	k.modules = sync.OnceValues(k.loadModules)
	k.placed = sync.OnceValue(k.placeModules)
	k.symRoom.Store(maxModuleSymBytes)
	k.percpu = sync.OnceValues(k.loadPerCPU)
	return k, nil
}

// Preload starts, in the background, what nearly every question needs: the
// symbol index and the type index. It only saves time.
func (k *Kernel) Preload() {
	go k.types()
	go k.symbols()
}

// VMCoreInfo returns the kernel's VMCOREINFO, nil when the dump has none.
func (k *Kernel) VMCoreInfo() *vmcore.VMCoreInfo { return k.info }

// PageTable returns the kernel's own page table.
func (k *Kernel) PageTable() *x86.PageTable { return &k.mem.pt }
