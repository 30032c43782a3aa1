package vmcore

import (
	"bytes"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"iter"
	"math"
	"os"
	"sync"
	"time"
)

// PhysAddr is a physical address in the crashed machine.
type PhysAddr uint64

// Dump is an open crash dump. The exported fields are what the file says about
// itself; they are set by Open and not changed afterwards.
type Dump struct {
	Format        string    // "kdump-compressed", "elf" or "kcore"
	Writer        string    // "makedumpfile", "qemu", "kernel"; "" if it cannot be told
	Flattened     bool      // a stream of makedumpfile -F, or of QEMU
	Parts         int       // files that it is made of
	HeaderVersion int       // of a kdump-compressed header; 0 for ELF
	Compression   string    // "zlib", "lzo", "snappy", "zstd" or "none"
	Machine       string    // as uname -m has it: "x86_64"
	PageSize      int       // bytes
	Release       string    // as uname -r has it; "" if only a scan for VMCOREINFO can tell
	NodeName      string    // host name; "" if not in the header
	Version       string    // as uname -v has it
	CrashTime     time.Time // zero when unknown
	DumpLevel     int       // makedumpfile -d; -1 when unknown
	Incomplete    bool      // the writer ran out of space, or the file is shorter than it says
	MaxPFN        uint64    // one more than the highest page number
	PhysBase      uint64    // x86-64's phys_base, in two's complement; 0 if neither header nor notes have it
	FileSize      int64     // bytes on disk, all parts together
	CPUs          []CPU     // those that left registers
	Notes         []Note    // all ELF notes
	Segments      []Segment // PT_LOADs of an ELF dump

	// OnProgress, if set before the first call, hears about work that takes
	// noticeable time. It may be called from several goroutines.
	OnProgress func(what string, done, total int64)

	store    store
	cache    *pageCache // nil if live
	live     bool       // memory of a running machine, different at each read
	noteInfo []byte     // VMCOREINFO from the notes or header
	closers  []io.Closer

	infoOnce sync.Once
	info     *VMCoreInfo
	infoErr  error
}

// Segment is a PT_LOAD of an ELF dump.
type Segment struct {
	Virt     uint64 // virtual address, where the writer knows it
	Phys     uint64 // physical address; NoPhys if it has none (vmalloc in /proc/kcore)
	FileSize uint64 // bytes in the file
	MemSize  uint64 // bytes in memory; what exceeds FileSize was left out
	Offset   uint64 // in the file
}

// NoPhys is the Phys of a [Segment] whose physical address is unknown.
const NoPhys = ^uint64(0)

// store is the memory in a dump, page by page.
type store interface {
	// readPage fills dst, one page long. Its errors wrap ErrExcluded,
	// ErrAbsent or ErrCorrupt.
	readPage(pfn uint64, dst []byte) error
	present(pfn uint64) bool
	counts() (present, excluded uint64)
	// runs yields the present pages in order, as first page and number.
	runs(yield func(pfn, n uint64) bool)
	// existed yields the pages that the machine had, likewise.
	existed(yield func(pfn, n uint64) bool)
}

// Part is one file of a dump for [NewReader].
type Part struct {
	R    io.ReaderAt
	Size int64  // bytes
	Name string // for error messages
}

// dumpFile is one part on its way to a format.
type dumpFile struct {
	image
	name string
	head []byte // its first bytes, up to headSize
}

// headSize is how much of a file is looked at to tell what it is.
const headSize = 4 << 10

// Open opens a dump. Several paths are the parts of one split dump, in any
// order. What a file is, is told by its content. The error matches [ErrNotDump]
// if a file is no dump (a [*NotDumpError] then says what it seems to be),
// [ErrMissingPart] or [ErrCorrupt].
//
// Regular files are mapped, and must not be truncated while the dump is open;
// should it happen all the same, reads fail with ErrCorrupt.
func Open(paths ...string) (*Dump, error) {
	d := new(Dump)
	var files []dumpFile
	for _, path := range paths {
		im, err := d.openFile(path)
		if err != nil {
			d.Close()
			return nil, err
		}
		files = append(files, dumpFile{image: im, name: path})
	}
	if err := d.open(files); err != nil {
		d.Close()
		return nil, err
	}
	return d, nil
}

// NewReader opens a dump from readers: one, or the parts of a split dump in any
// order. The readers must be safe for concurrent use, as [io.ReaderAt] demands,
// and stay the caller's to close.
func NewReader(parts ...Part) (*Dump, error) {
	d := new(Dump)
	var files []dumpFile
	for _, p := range parts {
		files = append(files, dumpFile{image: readerImage{p.R, p.Size}, name: p.Name})
	}
	if err := d.open(files); err != nil {
		return nil, err
	}
	return d, nil
}

// openFile maps the file, or reads it if it cannot be mapped.
func (d *Dump) openFile(path string) (image, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	st, err := f.Stat()
	if err != nil {
		f.Close()
		return nil, err
	}
	if st.IsDir() {
		f.Close()
		return nil, &NotDumpError{Path: path, Is: "a directory", Hint: "name the dump file inside it"}
	}
	size := st.Size()
	if !st.Mode().IsRegular() {
		// A block device has no size of its own, but it has an end.
		if size, err = f.Seek(0, io.SeekEnd); err != nil {
			f.Close()
			return nil, fmt.Errorf("%s: a dump must be a seekable file: %w", path, err)
		}
	}
	if data, ok := mapFile(f, size); ok {
		d.closers = append(d.closers, mapping(data))
		return mappedImage{data}, f.Close()
	}
	if size == 0 {
		// Files of /proc may not know their size.
		size = math.MaxInt64
	}
	d.closers = append(d.closers, f)
	return readerImage{f, size}, nil
}

// mapping unmaps a mapped file.
type mapping []byte

func (m mapping) Close() error { return unmapFile(m) }

// Close releases the files. It must not run while another method does, and
// none may be called afterwards; pages already returned stay valid.
func (d *Dump) Close() error {
	var errs []error
	for _, c := range d.closers {
		errs = append(errs, c.Close())
	}
	d.closers = nil
	return errors.Join(errs...)
}

// open tells the format of the files and reads their headers.
func (d *Dump) open(files []dumpFile) error {
	if len(files) == 0 {
		return fmt.Errorf("%w: no file given", ErrNotDump)
	}
	d.Parts = len(files)
	d.DumpLevel = -1
	for i := range files {
		f := &files[i]
		d.FileSize += max(f.Size(), 0)
		if err := f.readHead(); err != nil {
			return err
		}
		if isFlattened(f.head) {
			flat, err := openFlattened(f.image)
			if err != nil {
				return fmt.Errorf("%s: %w", f.name, err)
			}
			f.image = flat
			d.Flattened, d.Incomplete = true, d.Incomplete || flat.cut
			if err := f.readHead(); err != nil {
				return err
			}
		}
		if i > 0 && !isKdump(f.head) {
			return notDump(f.name, f.head)
		}
	}
	var err error
	switch head := files[0].head; {
	case isKdump(head):
		err = d.openKdump(files)
	case bytes.HasPrefix(head, []byte(elf.ELFMAG)):
		if len(files) > 1 {
			return fmt.Errorf("%w: %s is an ELF core, which is never split; open one dump at a time", ErrMissingPart, files[0].name)
		}
		err = d.openELF(files[0])
	default:
		err = notDump(files[0].name, head)
	}
	if err != nil {
		return err
	}
	if d.noteInfo != nil {
		d.describe(parseVMCoreInfo(d.noteInfo, ""))
	}
	if !d.live {
		d.cache = newPageCache(defaultCacheBytes, d.PageSize)
	}
	return nil
}

// readHead reads as much of the first bytes as there is.
func (f *dumpFile) readHead() error {
	f.head = make([]byte, headSize)
	n, err := f.ReadAt(f.head, 0)
	f.head = f.head[:n]
	if err != nil && err != io.EOF && n == 0 {
		return fmt.Errorf("read %s: %w", f.name, err)
	}
	return nil
}

// describe completes the facts that VMCOREINFO knows.
func (d *Dump) describe(v *VMCoreInfo) {
	if s, ok := v.Get("OSRELEASE"); ok && d.Release == "" {
		d.Release = s
	}
	if base, ok := v.Number("phys_base"); ok {
		// The header's value is not to be trusted: QEMU reads this number,
		// which is decimal, as hexadecimal.
		d.PhysBase = uint64(base)
	}
	if sec, ok := v.number("CRASHTIME"); ok && sec > 0 && sec < 1<<40 {
		// The header has the time the dump was written.
		d.CrashTime = time.Unix(int64(sec), 0).UTC()
	}
}

// VMCoreInfo returns the kernel's description of itself: from the notes, or
// else from the memory of the dump, all of which may have to be searched for
// it. The result is kept. The error matches [ErrNoVMCoreInfo].
func (d *Dump) VMCoreInfo() (*VMCoreInfo, error) {
	d.infoOnce.Do(func() {
		if d.noteInfo != nil {
			source := "note"
			if d.Writer == "qemu" {
				source = "qemu note"
			}
			d.info = parseVMCoreInfo(d.noteInfo, source)
			return
		}
		d.info, d.infoErr = d.scanVMCoreInfo()
	})
	return d.info, d.infoErr
}

// Page returns the whole page that contains addr. It is shared and must not be
// modified; it stays valid, even after Close. Errors are as for
// [Dump.ReadPhys]. A page of /proc/kcore is read anew each time.
func (d *Dump) Page(addr PhysAddr) ([]byte, error) {
	pfn := uint64(addr) / uint64(d.PageSize)
	if d.cache != nil {
		if p := d.cache.get(pfn); p != nil {
			return p, nil
		}
	}
	p := make([]byte, d.PageSize)
	if err := d.store.readPage(pfn, p); err != nil {
		return nil, &PageError{Addr: addr, Err: err}
	}
	if d.cache != nil {
		d.cache.put(pfn, p)
	}
	return p, nil
}

// ReadPhys fills p with the memory at addr. A page that the dump lacks makes it
// fail with a [*PageError] that names the first address that could not be read
// and matches [ErrExcluded], [ErrAbsent] or [ErrCorrupt]; p is then filled up
// to there.
//
// Pages that p covers wholly are not put into the cache, so that a large read
// or a scan does not drive out what others use.
func (d *Dump) ReadPhys(p []byte, addr PhysAddr) error {
	size := uint64(d.PageSize)
	for len(p) > 0 {
		in := uint64(addr) % size
		n := int(min(size-in, uint64(len(p))))
		var page []byte
		if d.cache != nil {
			page = d.cache.get(uint64(addr) / size)
		}
		switch {
		case page != nil:
			copy(p[:n], page[in:])
		case n == int(size):
			if err := d.store.readPage(uint64(addr)/size, p[:n]); err != nil {
				return &PageError{Addr: addr, Err: err}
			}
		default:
			page, err := d.Page(addr)
			if err != nil {
				return err
			}
			copy(p[:n], page[in:])
		}
		p = p[n:]
		if addr += PhysAddr(n); addr == 0 && len(p) > 0 {
			return &PageError{Addr: addr, Err: fmt.Errorf("%w: the address space ends here", ErrAbsent)}
		}
	}
	return nil
}

// Present reports whether the dump holds the page that contains addr. Whether
// the page can be decompressed only reading it can tell.
func (d *Dump) Present(addr PhysAddr) bool {
	return d.store.present(uint64(addr) / uint64(d.PageSize))
}

// PageCounts counts the pages in the dump, those that the machine had but the
// dump does not, and the rest below MaxPFN: holes, or memory nobody knows of.
func (d *Dump) PageCounts() (present, excluded, absent uint64) {
	present, excluded = d.store.counts()
	return present, excluded, d.MaxPFN - min(d.MaxPFN, present+excluded)
}

// PhysRanges yields the memory in the dump in ascending order, as runs of
// whole pages: start and length in bytes.
func (d *Dump) PhysRanges() iter.Seq2[PhysAddr, uint64] {
	return func(yield func(PhysAddr, uint64) bool) {
		size := uint64(d.PageSize)
		d.store.runs(func(pfn, n uint64) bool { return yield(PhysAddr(pfn*size), n*size) })
	}
}
