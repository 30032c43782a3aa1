package x86

import (
	"encoding/binary"
	"testing"
)

func TestRegs(t *testing.T) {
	var r Regs
	if _, ok := r.Get(RIP); ok || r.PC() != 0 || r.SP() != 0 || r.User() {
		t.Errorf("the zero register file knows something: %+v", r)
	}
	r.Set(RIP, 0x1000)
	r.Set(CS, 0x33)
	if v, ok := r.Get(RIP); v != 0x1000 || !ok || r.PC() != 0x1000 || !r.User() {
		t.Errorf("%+v", r)
	}
	r.Forget(RIP, CS)
	if _, ok := r.Get(RIP); ok || r.PC() != 0 || r.User() {
		t.Errorf("not forgotten: %+v", r)
	}
	for n, want := range map[Reg]string{R15: "r15", RIP: "rip", GS: "gs", NumRegs: "reg(27)", -1: "reg(-1)"} {
		if n.String() != want {
			t.Errorf("register %d is %s", int(n), n)
		}
	}
}

func TestFromPtRegs(t *testing.T) {
	b := make([]byte, PtRegsSize)
	for n := range int(SS) + 1 {
		binary.LittleEndian.PutUint64(b[8*n:], uint64(n)+0xabcd_0000_0000_0000)
	}
	r, err := FromPtRegs(b)
	if err != nil {
		t.Fatal(err)
	}
	for n := R15; n <= SS; n++ {
		want := uint64(n) + 0xabcd_0000_0000_0000
		if n == CS || n == SS {
			want = uint64(n) // what FRED keeps above the selector is no part of it
		}
		if v, ok := r.Get(n); v != want || !ok {
			t.Errorf("%s is %#x, %v", n, v, ok)
		}
	}
	if _, ok := r.Get(GSBase); ok {
		t.Error("pt_regs has no gs_base")
	}
	if _, err := FromPtRegs(b[:PtRegsSize-1]); err == nil {
		t.Error("pt_regs cut off")
	}
}

func TestFromPrstatus(t *testing.T) {
	b := make([]byte, PrstatusSize)
	for n := range NumRegs {
		binary.LittleEndian.PutUint64(b[112+8*n:], uint64(n)+7)
	}
	r, err := FromPrstatus(b)
	if err != nil {
		t.Fatal(err)
	}
	for n := range NumRegs {
		if v, ok := r.Get(n); v != uint64(n)+7 || !ok {
			t.Errorf("%s is %#x, %v", n, v, ok)
		}
	}
	if _, err := FromPrstatus(b[:PrstatusSize-1]); err == nil {
		t.Error("elf_prstatus cut off")
	}
}
