package stack

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync"

	"github.com/cilium/ebpf/btf"

	"inquest/kernel"
)

var le = binary.LittleEndian

// errNoORC reports a pc that no ORC table covers.
var errNoORC = errors.New("no ORC data")

// orcReg is a register that an ORC entry hangs a frame on.
type orcReg uint8

const (
	orcUndefined orcReg = iota
	orcPrevSP
	orcAX
	orcDX
	orcDI
	orcBP
	orcSP
	orcR10
	orcR13
	orcBPIndirect
	orcSPIndirect
)

// Two numberings of these registers (arch/x86/include/asm/orc_types.h): that of
// 4.14 to 6.18, and that of 7.0 and later.
var (
	oldNumbering = [16]orcReg{orcUndefined, orcPrevSP, orcDX, orcDI, orcBP, orcSP, orcR10, orcR13, orcBPIndirect, orcSPIndirect}
	newNumbering = [16]orcReg{orcUndefined, orcAX, orcDX, orcSP, orcBP, orcDI, orcR10, orcR13, orcPrevSP, orcSPIndirect, orcBPIndirect}
)

// frameType is what an ORC entry says of the frame, in one numbering for all
// kernels.
type frameType uint8

const (
	typeUndefined   frameType = iota
	typeEnd                   // outermost frame of a kernel stack
	typeCall                  // return address below the CFA
	typeRegs                  // struct pt_regs at the CFA
	typeRegsPartial           // only the hardware's part of pt_regs at the CFA
)

// orcEntry is a decoded struct orc_entry.
type orcEntry struct {
	spOffset, bpOffset int64
	spReg, bpReg       orcReg
	typ                frameType
}

const orcEntrySize = 6

// orcFormat says where the fields of an entry's third 16-bit word are: they moved
// in 6.3 (commit ffb1b4a41016, signal) and 6.4 (commit fb799447ae29, three bits of
// type and no end).
type orcFormat struct {
	typeShift, typeBits uint
	endShift            uint
	hasEnd              bool
	regs                *[16]orcReg
}

// formatOf takes the bit layout from the kernel's BTF; one without BTF is old.
func formatOf(k *kernel.Kernel) orcFormat {
	f := orcFormat{typeShift: 8, typeBits: 2, endShift: 10, hasEnd: true, regs: &oldNumbering}
	o, err := k.Object("orc_entry", 0)
	if err != nil {
		return f
	}
	const word = 32 // bits in front of the third word
	if m, at, ok := kernel.FindMember(o.Type, "type"); ok && at >= word && m.BitfieldSize > 0 {
		f.typeShift, f.typeBits = uint(at-word), uint(m.BitfieldSize)
	}
	var at btf.Bits
	_, at, f.hasEnd = kernel.FindMember(o.Type, "end")
	if f.hasEnd && at >= word {
		f.endShift = uint(at - word)
	}
	return f
}

func (f orcFormat) decode(b []byte) orcEntry {
	w := le.Uint16(b[4:])
	e := orcEntry{
		spOffset: int64(int16(le.Uint16(b))),
		bpOffset: int64(int16(le.Uint16(b[2:]))),
		spReg:    f.regs[w&15],
		bpReg:    f.regs[w>>4&15],
	}
	typ := w >> f.typeShift & (1<<f.typeBits - 1)
	switch {
	case f.typeBits > 2:
		// ORC_TYPE_UNDEFINED, END_OF_STACK, CALL, REGS, REGS_PARTIAL
		e.typ = [...]frameType{typeUndefined, typeEnd, typeCall, typeRegs, typeRegsPartial, 0, 0, 0}[typ&7]
	case e.spReg == orcUndefined && f.hasEnd && w>>f.endShift&1 == 1:
		e.typ = typeEnd
	case e.spReg == orcUndefined:
		e.typ = typeUndefined
	default:
		e.typ = [...]frameType{typeCall, typeRegs, typeRegsPartial, typeUndefined}[typ&3]
	}
	return e
}

// orcTable is a sorted table of instruction addresses, each stored as its distance
// from its own place, and the entries that begin there.
type orcTable struct {
	ips, entries kernel.Addr
	count        int
}

// orc finds the ORC entry of any pc.
type orc struct {
	k      *kernel.Kernel
	format orcFormat
	core   orcTable
	err    error    // why core cannot be used
	mods   sync.Map // *kernel.Module -> orcTable
}

const maxORC = 64 << 20

func newORC(k *kernel.Kernel) *orc {
	o := &orc{k: k, format: formatOf(k)}
	var at [3]kernel.Addr
	for i, name := range []string{"__start_orc_unwind_ip", "__stop_orc_unwind_ip", "__start_orc_unwind"} {
		if at[i], o.err = k.Symbol(name); o.err != nil {
			return o
		}
	}
	if at[1] < at[0] || at[1]-at[0] > maxORC*4 {
		o.err = fmt.Errorf("ORC table from %v to %v: %w", at[0], at[1], kernel.ErrCorrupt)
		return o
	}
	o.core = orcTable{at[0], at[2], int(at[1]-at[0]) / 4}
	o.pickNumbering()
	return o
}

// pickNumbering looks at how the kernel describes the first instruction of a
// function: the return address is 8 bytes below the CFA, which hangs on rsp.
func (o *orc) pickNumbering() {
	for _, name := range []string{"schedule", "panic", "schedule_timeout"} {
		at, err := o.k.Symbol(name)
		if err != nil {
			continue
		}
		for _, numbering := range []*[16]orcReg{&oldNumbering, &newNumbering} {
			o.format.regs = numbering
			if e, err := o.find(at); err == nil && e.spReg == orcSP && e.spOffset == 8 && e.typ == typeCall {
				return
			}
		}
	}
	o.format.regs = &oldNumbering
}

// find returns the entry in force at pc.
func (o *orc) find(pc kernel.Addr) (orcEntry, error) {
	t, err := o.table(pc)
	if err != nil {
		return orcEntry{}, err
	}
	// The last entry at or before pc.
	lo, hi := 0, t.count
	for lo < hi {
		mid := int(uint(lo+hi) / 2)
		at := t.ips + kernel.Addr(4*mid)
		rel, err := o.k.U32(at)
		if err != nil {
			return orcEntry{}, fmt.Errorf("read ORC table: %w", err)
		}
		if at+kernel.Addr(int64(int32(rel))) <= pc {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	if lo == 0 {
		return orcEntry{}, fmt.Errorf("%v: %w", pc, errNoORC)
	}
	var b [orcEntrySize]byte
	if err := o.k.Read(b[:], t.entries+kernel.Addr(orcEntrySize*(lo-1))); err != nil {
		return orcEntry{}, fmt.Errorf("read ORC table: %w", err)
	}
	return o.format.decode(b[:]), nil
}

// table returns the table that covers pc.
func (o *orc) table(pc kernel.Addr) (orcTable, error) {
	if !o.k.Text(pc) {
		return orcTable{}, fmt.Errorf("%v: %w: not in the kernel's text", pc, errNoORC)
	}
	m := o.k.ModuleAt(pc)
	if m == nil {
		return o.core, o.err
	}
	if t, ok := o.mods.Load(m); ok {
		return t.(orcTable), nil
	}
	n, err1 := m.Uint("arch.num_orcs")
	ips, err2 := m.Pointer("arch.orc_unwind_ip")
	entries, err3 := m.Pointer("arch.orc_unwind")
	if err := errors.Join(err1, err2, err3); err != nil {
		return orcTable{}, fmt.Errorf("ORC of module %s: %w", m.Name, err)
	}
	if n == 0 || n > maxORC {
		return orcTable{}, fmt.Errorf("module %s: %w", m.Name, errNoORC)
	}
	t := orcTable{ips, entries, int(n)}
	o.mods.Store(m, t)
	return t, nil
}
