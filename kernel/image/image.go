package image

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"regexp"

	"inquest/kernel"
	"inquest/vmcore"
)

// Image is a kernel as it lies in a file, with the modules that were added. It is safe
// for concurrent use once the last module has been added.
type Image struct {
	*kernel.Kernel
	Banner string // what /proc/version has, "" if it is not found

	modules []*module
	stubs   stubs
}

// Open opens a kernel's file. The error wraps ErrNotKernel, ErrCorrupt, ErrTooLarge, or one
// of package kernel's.
func Open(path string) (*Image, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := ReadFile(f)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	img, err := New(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return img, nil
}

// ReadFile reads a file of sane size: kernels of some GiB, with debug information, are one.
func ReadFile(f fs.File) ([]byte, error) {
	const most = 4 << 30
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !st.Mode().IsRegular() {
		return nil, fmt.Errorf("%w: no regular file", ErrNotKernel)
	}
	if st.Size() > most {
		return nil, ErrTooLarge
	}
	data := make([]byte, st.Size())
	if n, err := io.ReadFull(f, data); err != nil {
		return nil, fmt.Errorf("read %d of %d bytes: %w", n, len(data), err)
	}
	return data, nil
}

// New opens a kernel by the content of its file.
func New(data []byte) (*Image, error) {
	data, err := vmlinux(data)
	if err != nil {
		return nil, err
	}
	core, err := asCore(data)
	if err != nil {
		return nil, err
	}
	dump, err := vmcore.NewReader(vmcore.Part{R: core, Size: core.size(), Name: "vmlinux"})
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNotKernel, err)
	}
	k, err := kernel.Open(dump)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNotKernel, err)
	}
	img := &Image{Kernel: k, Banner: banner(data)}
	if _, err := k.Symbols(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNotKernel, err)
	}
	return img, nil
}

// bannerText is linux_banner, or what is left of it in a kernel that was told to say
// less (init/version.c).
var bannerText = regexp.MustCompile(`Linux version ([0-9][^ \x00\n]*) \([^\x00\n]*`)

// banner finds linux_banner. A preliminary one, which has no build number yet, is left
// over from linking since 6.1; it is the shorter one.
func banner(data []byte) string {
	var longest []byte
	for _, b := range bannerText.FindAll(data, maxBanners) {
		if len(b) > len(longest) {
			longest = b
		}
	}
	return string(longest)
}

const maxBanners = 16

// The image is linked to the upper 2 GiB of the address space and its physical place
// differs by just that, if nothing moves it (arch/x86/kernel/vmlinux.lds.S).
const startKernelMap = 0xffffffff80000000

const (
	ehdrSize = 64
	phdrSize = 56
	maxLoads = 64
)

// core is a vmlinux in the form of a memory dump: headers, then the file.
type core struct {
	head []byte
	file []byte
}

func (c *core) size() int64 { return int64(len(c.head) + len(c.file)) }

func (c *core) ReadAt(p []byte, off int64) (n int, err error) {
	if off < 0 {
		return 0, errors.New("negative offset")
	}
	for _, part := range [][]byte{c.head, c.file} {
		if off < int64(len(part)) {
			n += copy(p[n:], part[off:])
			off = int64(len(part))
		}
		off -= int64(len(part))
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// asCore writes the headers that make a vmlinux a dump: its segments at their physical
// addresses, and the VMCOREINFO of a machine that has just not begun to run it. Its page
// table, in page 0, is missing, for which package kernel knows that the image lies where
// VMCOREINFO says.
func asCore(file []byte) (*core, error) {
	f, err := elf.NewFile(bytes.NewReader(file))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	if f.Machine != elf.EM_X86_64 || f.Type != elf.ET_EXEC && f.Type != elf.ET_DYN {
		return nil, fmt.Errorf("%w: ELF file of type %v for %v", ErrNotKernel, f.Type, f.Machine)
	}
	var loads []elf.ProgHeader
	text := ^uint64(0)
	for _, p := range f.Progs {
		// Per-CPU data is linked to 0 before 6.15: what is in it is of no use.
		if p.Type != elf.PT_LOAD || p.Vaddr < startKernelMap || p.Filesz == 0 {
			continue
		}
		if p.Off > uint64(len(file)) || p.Filesz > uint64(len(file))-p.Off {
			return nil, fmt.Errorf("segment at %#x ends behind the file: %w", p.Vaddr, ErrCorrupt)
		}
		loads = append(loads, p.ProgHeader)
		text = min(text, p.Vaddr)
	}
	if len(loads) == 0 || len(loads) > maxLoads {
		return nil, fmt.Errorf("%w: %d segments in the kernel's part of memory", ErrNotKernel, len(loads))
	}
	release := ""
	if m := bannerText.FindSubmatch(file); m != nil {
		release = string(m[1])
	}
	info := fmt.Sprintf("OSRELEASE=%s\nPAGESIZE=4096\nSYMBOL(_stext)=%x\nSYMBOL(swapper_pg_dir)=%x\nNUMBER(phys_base)=0\n",
		release, text, uint64(startKernelMap))
	return &core{head: coreHead(loads, info), file: file}, nil
}

// coreHead is an ELF header, program headers and the note; the file follows.
func coreHead(loads []elf.ProgHeader, info string) []byte {
	const name, ntVMCoreInfo = "VMCOREINFO\x00", 0
	pad := func(b []byte) []byte { return append(b, make([]byte, -len(b)&3)...) }
	le := binary.LittleEndian

	var note []byte
	for _, v := range []int{len(name), len(info), ntVMCoreInfo} {
		note = le.AppendUint32(note, uint32(v))
	}
	note = pad(append(note, name...))
	note = pad(append(note, info...))

	noteAt := uint64(ehdrSize + phdrSize*(1+len(loads)))
	head := make([]byte, ehdrSize, int(noteAt)+len(note))
	copy(head, elf.ELFMAG)
	head[elf.EI_CLASS], head[elf.EI_DATA], head[elf.EI_VERSION] = byte(elf.ELFCLASS64), byte(elf.ELFDATA2LSB), byte(elf.EV_CURRENT)
	le.PutUint16(head[16:], uint16(elf.ET_CORE))
	le.PutUint16(head[18:], uint16(elf.EM_X86_64))
	le.PutUint32(head[20:], uint32(elf.EV_CURRENT))
	le.PutUint64(head[32:], ehdrSize)
	le.PutUint16(head[52:], ehdrSize)
	le.PutUint16(head[54:], phdrSize)
	le.PutUint16(head[56:], uint16(1+len(loads)))

	program := func(t elf.ProgType, off, virt, phys, size uint64) {
		head = le.AppendUint32(head, uint32(t))
		head = le.AppendUint32(head, uint32(elf.PF_R))
		for _, v := range []uint64{off, virt, phys, size, size, 0} {
			head = le.AppendUint64(head, v)
		}
	}
	program(elf.PT_NOTE, noteAt, 0, 0, uint64(len(note)))
	for _, p := range loads {
		program(elf.PT_LOAD, noteAt+uint64(len(note))+p.Off, p.Vaddr, p.Vaddr-startKernelMap, p.Filesz)
	}
	return append(head, note...)
}
