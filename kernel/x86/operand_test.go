package x86

import (
	"encoding/hex"
	"slices"
	"testing"
)

func TestAccesses(t *testing.T) {
	const at = 0xffffffff81000000
	var regs Regs
	regs.Set(RBX, 0xffff888000001000)
	regs.Set(R12, 0x10)
	regs.Set(GSBase, 0xffff88801f000000)
	for _, tt := range []struct {
		code        string
		addr        uint64
		known       bool
		bytes       int
		read, write bool
		regs        []Reg
	}{
		{"48891c25001000 00", 0x1000, true, 8, false, true, nil},                  // mov %rbx,0x1000
		{"49892c24", 0x10, true, 8, false, true, []Reg{R12}},                      // mov %rbp,(%r12)
		{"488b03", 0xffff888000001000, true, 8, true, false, []Reg{RBX}},          // mov (%rbx),%rax
		{"428b44a3f8", 0xffff888000001038, true, 4, true, false, []Reg{RBX, R12}}, // mov -8(%rbx,%r12,4),%eax
		{"f0480fb113", 0xffff888000001000, true, 8, true, true, []Reg{RBX}},       // lock cmpxchg %rdx,(%rbx)
		{"65488b042540000000", 0xffff88801f000040, true, 8, true, false, nil},     // mov %gs:0x40,%rax
		{"488b0510000000", at + 7 + 0x10, true, 8, true, false, nil},              // mov 0x10(%rip),%rax
		{"833b05", 0xffff888000001000, true, 4, true, false, []Reg{RBX}},          // cmpl $5,(%rbx)
		{"ff33", 0xffff888000001000, true, 8, true, false, []Reg{RBX}},            // push (%rbx)
		{"0f001b", 0xffff888000001000, true, 2, true, false, []Reg{RBX}},          // ltr (%rbx)
		{"0f002b", 0xffff888000001000, true, 2, true, false, []Reg{RBX}},          // verw (%rbx)
		{"0fae13", 0xffff888000001000, true, 4, true, false, []Reg{RBX}},          // ldmxcsr (%rbx)
		{"488b06", 0, false, 8, true, false, []Reg{RSI}},                          // mov (%rsi),%rax
	} {
		var code []byte
		for _, part := range []byte(tt.code) {
			if part != ' ' {
				code = append(code, part)
			}
		}
		raw, err := hex.DecodeString(string(code))
		if err != nil {
			t.Fatal(err)
		}
		i, err := Decode(raw, at)
		if err != nil {
			t.Errorf("%s: %v", tt.code, err)
			continue
		}
		all := i.Accesses()
		if len(all) != 1 {
			t.Errorf("%s (%s): %d accesses", tt.code, i.Text(nil), len(all))
			continue
		}
		a := all[0]
		addr, known := a.Address(&regs)
		if known != tt.known || known && addr != tt.addr || a.Bytes != tt.bytes || a.Read != tt.read || a.Write != tt.write ||
			!slices.Equal(a.Registers(), tt.regs) {
			t.Errorf("%s (%s): %#x, %v; %+v", tt.code, i.Text(nil), addr, known, a)
		}
	}
	for _, code := range []string{"488d03", "0f1f4000", "4889d8", "0f0b"} { // lea, nop, mov between registers, ud2
		raw, _ := hex.DecodeString(code)
		i, err := Decode(raw, at)
		if err != nil || len(i.Accesses()) != 0 {
			t.Errorf("%s: %v, %v", code, i.Accesses(), err)
		}
	}
}
