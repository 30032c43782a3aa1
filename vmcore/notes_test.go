package vmcore

import (
	"encoding/binary"
	"fmt"
	"slices"
	"testing"
)

func TestParseNotes(t *testing.T) {
	for _, c := range []struct {
		name string
		data []byte
		want []string
	}{
		{"none", nil, nil},
		{"one", note("CORE", 1, []byte("abc")), []string{"CORE/1/abc"}},
		{"padding", slices.Concat(note("QEMU", 0, []byte("a")), note("VMCOREINFO", 0, []byte("bcde")), note("X", 9, nil)),
			[]string{"QEMU/0/a", "VMCOREINFO/0/bcde", "X/9/"}},
		{"empty ones between", slices.Concat(note("A", 1, nil), make([]byte, 12), note("B", 2, nil), make([]byte, 24)), []string{"A/1/", "B/2/"}},
		{"cut description", append(note("A", 1, nil), note("B", 2, []byte("12345678"))[:20]...), []string{"A/1/"}},
		{"cut header", append(note("A", 1, nil), note("B", 2, nil)[:11]...), []string{"A/1/"}},
		{"no padding at the end", note("A", 1, []byte("abcde"))[:12+4+5], []string{"A/1/abcde"}},
		{"huge name", binary.LittleEndian.AppendUint32(nil, 1<<32-1), nil},
		{"huge sizes", []byte("\xff\xff\xff\xff\xff\xff\xff\xff\x01\x00\x00\x00abcdefgh"), nil},
	} {
		var got []string
		for n := range parseNotes(c.data) {
			got = append(got, fmt.Sprintf("%s/%d/%s", n.Name, n.Type, n.Desc))
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%s: got %q, want %q", c.name, got, c.want)
		}
	}
}

func TestCPUs(t *testing.T) {
	d := &Dump{Machine: "x86_64"}
	d.setNotes(slices.Concat(prstatus(7, 0x1000), prstatus(8, 0x2000)))
	if len(d.CPUs) != 2 {
		t.Fatalf("%d CPUs, want 2", len(d.CPUs))
	}
	for i, c := range d.CPUs {
		base := uint64(0x1000 * (i + 1))
		if c.Index != i || c.PID != 7+i || !c.HasRegs || c.HasControl || c.Regs[regR15] != base || c.Regs[regRIP] != base+16 || c.Regs[regGS] != base+26 {
			t.Errorf("CPU %d: %+v", i, c)
		}
	}

	// QEMU's own note alone has registers as well.
	d = &Dump{Machine: "x86_64"}
	d.setNotes(qemuState(0x100, true))
	want := [27]uint64{
		regRAX: 0x100, regRBX: 0x101, regRCX: 0x102, regRDX: 0x103, regRSI: 0x104, regRDI: 0x105, regRSP: 0x106, regRBP: 0x107,
		regR8: 0x108, regR9: 0x109, regR10: 0x10a, regR11: 0x10b, regR12: 0x10c, regR13: 0x10d, regR14: 0x10e, regR15: 0x10f,
		regRIP: 0x110, regEFlags: 0x111,
		regCS: 0x120, regDS: 0x121, regES: 0x122, regFS: 0x123, regGS: 0x124, regSS: 0x125,
		regFSBase: 0x143, regGSBase: 0x144,
	}
	if len(d.CPUs) != 1 || d.CPUs[0].Regs != want {
		t.Errorf("from QEMU's note: %+v\nwant %#x", d.CPUs, want)
	}
	if c := d.CPUs[0]; !c.HasRegs || !c.HasControl || c.Control != [5]uint64{0x160, 0x161, 0x162, 0x163, 0x164} || c.KernelGSBase != 0x180 {
		t.Errorf("control registers: %+v", c)
	}

	// With both, PRSTATUS has the registers and QEMU's note the segment bases
	// that PRSTATUS leaves zero.
	status := prstatus(1, 0x1000)
	clear(status[12+8+112+8*regFSBase:][:16])
	d = &Dump{Machine: "x86_64"}
	d.setNotes(slices.Concat(status, qemuState(0x100, true)))
	if c := d.CPUs[0]; len(d.CPUs) != 1 || c.Regs[regRIP] != 0x1010 || c.Regs[regGSBase] != 0x144 || c.Control[3] != 0x163 {
		t.Errorf("both notes: %+v", d.CPUs)
	}
}

func TestCPUsRefused(t *testing.T) {
	short := note("CORE", ntPRStatus, make([]byte, 335))
	badVersion := qemuState(0, true)
	badVersion[12+8] = 2
	badSize := qemuState(0, true)
	binary.LittleEndian.PutUint32(badSize[12+8+4:], 16)
	for name, notes := range map[string][]byte{
		"short PRSTATUS": short, "QEMU version 2": badVersion, "QEMU size 16": badSize,
		"short QEMU": note("QEMU", 0, make([]byte, 100)),
	} {
		d := &Dump{Machine: "x86_64"}
		if d.setNotes(notes); len(d.CPUs) != 0 || len(d.Notes) != 1 {
			t.Errorf("%s: CPUs %+v, %d notes", name, d.CPUs, len(d.Notes))
		}
	}
	d := &Dump{Machine: "aarch64"}
	if d.setNotes(prstatus(1, 0)); len(d.CPUs) != 0 {
		t.Errorf("an arm64 PRSTATUS was read as x86-64: %+v", d.CPUs)
	}
}

// TestUnknownMachine opens a dump whose header does not name the machine: the
// size of the register notes does.
func TestUnknownMachine(t *testing.T) {
	spec := kdumpSpec{maxPFN: 8, machine: "Unknown", pages: map[uint64][]byte{1: testPage(1)}, notes: prstatus(7, 100)}
	d := mustOpen(t, spec.build())
	if d.Machine != "x86_64" || len(d.CPUs) != 1 || d.CPUs[0].PID != 7 {
		t.Errorf("machine %q, CPUs %+v", d.Machine, d.CPUs)
	}
}
