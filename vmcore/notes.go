package vmcore

import (
	"bytes"
	"encoding/binary"
	"iter"
	"strings"
)

// ELF note types of a core (include/uapi/linux/elf.h).
const (
	ntPRStatus = 1
	ntPRPSInfo = 3
)

// maxNotes is the most bytes of notes that are looked at. A CPU's share is
// under 1 KiB; this is room for more than 16 thousand of them.
const maxNotes = 16 << 20

// Note is one ELF note of the dump: kdump's sub header points to them, an ELF
// dump has them in PT_NOTE.
type Note struct {
	Name string // without the terminating NUL: "CORE", "QEMU", "VMCOREINFO"
	Type uint32
	Desc []byte
}

// CPU is what the dump says of one processor.
type CPU struct {
	// Index counts the CPUs that left registers behind, in the dump's order.
	// The kernel writes no note for an offline CPU, so it is the CPU's
	// number only if none was offline.
	Index int
	// PID of the task that ran there. QEMU knows no tasks and writes its own
	// CPU number plus one instead.
	PID int
	// Regs is in the order of x86-64's struct user_regs_struct:
	// r15 r14 r13 r12 rbp rbx r11 r10 r9 r8 rax rcx rdx rsi rdi orig_rax
	// rip cs eflags rsp ss fs_base gs_base ds es fs gs.
	Regs [27]uint64
	// Control is CR0 to CR4, from QEMU's note.
	Control [5]uint64
	// KernelGSBase is the MSR of that name, from QEMU's note: the other one of
	// the two GS bases, the user's while in the kernel.
	KernelGSBase uint64

	HasRegs    bool // Regs are filled in
	HasControl bool // Control and KernelGSBase are filled in
}

// parseNotes yields the notes in p. A note that runs past the end of p ends
// them: what came before it is good.
func parseNotes(p []byte) iter.Seq[Note] {
	return func(yield func(Note) bool) {
		for len(p) >= 12 {
			nameSize := uint64(binary.LittleEndian.Uint32(p))
			descSize := uint64(binary.LittleEndian.Uint32(p[4:]))
			typ := binary.LittleEndian.Uint32(p[8:])
			p = p[12:]
			if nameSize == 0 && descSize == 0 && typ == 0 {
				// The kernel ends each CPU's notes with an empty one.
				continue
			}
			descOff := (nameSize + 3) &^ 3
			if descOff+descSize > uint64(len(p)) {
				return
			}
			n := Note{
				Name: strings.TrimRight(string(p[:nameSize]), "\x00"),
				Type: typ,
				Desc: p[descOff : descOff+descSize : descOff+descSize],
			}
			if !yield(n) {
				return
			}
			p = p[min((descOff+descSize+3)&^3, uint64(len(p))):]
		}
	}
}

// setNotes files the notes: CPUs and the VMCOREINFO text.
func (d *Dump) setNotes(p []byte) {
	var regs, qemu []CPU
	for n := range parseNotes(p) {
		d.Notes = append(d.Notes, n)
		switch {
		case n.Name == "CORE" && n.Type == ntPRStatus && (d.Machine == "x86_64" || unknownMachine(d.Machine)):
			if c, ok := parsePRStatus(n.Desc); ok {
				// QEMU does not always say; only x86-64's note is of this size.
				d.Machine = "x86_64"
				regs = append(regs, c)
			}
		case n.Name == "QEMU":
			d.Writer = "qemu"
			if c, ok := parseQEMU(n.Desc); ok {
				qemu = append(qemu, c)
			}
		case n.Name == "VMCOREINFO" && d.noteInfo == nil && isVMCoreInfo(n.Desc):
			d.noteInfo = n.Desc
		}
	}
	// QEMU writes a PRSTATUS for every CPU, then its own note for every CPU.
	for len(regs) < len(qemu) {
		regs = append(regs, CPU{})
	}
	for i := range regs {
		regs[i].Index = i
		if i < len(qemu) {
			regs[i].addQEMU(&qemu[i])
		}
	}
	d.CPUs = regs
}

// unknownMachine reports whether a header leaves open what machine it was.
func unknownMachine(name string) bool { return name == "" || name == "Unknown" }

// parsePRStatus reads x86-64's struct elf_prstatus (include/linux/elfcore.h):
// pid at 32, pr_reg at 112, 336 bytes in all.
func parsePRStatus(p []byte) (c CPU, ok bool) {
	const pid, reg, size = 32, 112, 336
	if len(p) != size {
		return c, false
	}
	c.PID = int(int32(binary.LittleEndian.Uint32(p[pid:])))
	for i := range c.Regs {
		c.Regs[i] = binary.LittleEndian.Uint64(p[reg+8*i:])
	}
	c.HasRegs = true
	return c, true
}

// Places in CPU.Regs, in the order of struct user_regs_struct.
const (
	regR15 = iota
	regR14
	regR13
	regR12
	regRBP
	regRBX
	regR11
	regR10
	regR9
	regR8
	regRAX
	regRCX
	regRDX
	regRSI
	regRDI
	regOrigRAX
	regRIP
	regCS
	regEFlags
	regRSP
	regSS
	regFSBase
	regGSBase
	regDS
	regES
	regFS
	regGS
)

// parseQEMU reads the QEMUCPUState of QEMU's target/i386/arch_dump.c, version
// 1: version and size, 18 registers, ten segments of 24 bytes, CR0 to CR4 and
// kernel_gs_base, which was added without a new version.
func parseQEMU(p []byte) (c CPU, ok bool) {
	const (
		gprs     = 8
		segments = gprs + 18*8
		controls = segments + 10*24
		kernelGS = controls + 5*8
	)
	if len(p) < kernelGS || binary.LittleEndian.Uint32(p) != 1 {
		return c, false
	}
	// The size it claims must not be less than what is read here.
	size := int(min(binary.LittleEndian.Uint32(p[4:]), uint32(len(p))))
	if size < kernelGS {
		return c, false
	}
	for i, r := range [...]int{
		regRAX, regRBX, regRCX, regRDX, regRSI, regRDI, regRSP, regRBP,
		regR8, regR9, regR10, regR11, regR12, regR13, regR14, regR15,
		regRIP, regEFlags,
	} {
		c.Regs[r] = binary.LittleEndian.Uint64(p[gprs+8*i:])
	}
	for i, r := range [...]int{regCS, regDS, regES, regFS, regGS, regSS} {
		seg := p[segments+24*i:]
		c.Regs[r] = uint64(binary.LittleEndian.Uint32(seg))
		switch base := binary.LittleEndian.Uint64(seg[16:]); r {
		case regFS:
			c.Regs[regFSBase] = base
		case regGS:
			c.Regs[regGSBase] = base
		}
	}
	for i := range c.Control {
		c.Control[i] = binary.LittleEndian.Uint64(p[controls+8*i:])
	}
	if size >= kernelGS+8 {
		c.KernelGSBase = binary.LittleEndian.Uint64(p[kernelGS:])
	}
	c.HasRegs, c.HasControl = true, true
	return c, true
}

// addQEMU completes c with what only QEMU's own note knows.
func (c *CPU) addQEMU(q *CPU) {
	if !c.HasRegs {
		c.Regs, c.HasRegs = q.Regs, true
	}
	// QEMU's PRSTATUS has zeros for the segment bases.
	if c.Regs[regFSBase] == 0 && c.Regs[regGSBase] == 0 {
		c.Regs[regFSBase], c.Regs[regGSBase] = q.Regs[regFSBase], q.Regs[regGSBase]
	}
	c.Control, c.KernelGSBase, c.HasControl = q.Control, q.KernelGSBase, true
}

// isVMCoreInfo reports whether p looks like VMCOREINFO: lines of KEY=VALUE of
// which the first is the release (kernel/vmcore_info.c; kernel/crash_core.c
// before 6.9).
func isVMCoreInfo(p []byte) bool {
	return bytes.HasPrefix(p, []byte("OSRELEASE="))
}
