package x86

import (
	"encoding/hex"
	"errors"
	"strings"
	"testing"
)

func TestDecode(t *testing.T) {
	const at = 0xffffffff81000000
	names := func(a uint64) (string, uint64) {
		if a == 0xffffffff81000105 {
			return "callee", a
		}
		return "", 0
	}
	for _, tt := range []struct {
		code   string
		len    int
		text   string
		target uint64 // of a direct branch, 0 when it is none
	}{
		{"f30f1efa", 4, "endbr64", 0},
		{"f30f1efb", 4, "endbr32", 0},
		{"0f01ca", 3, "clac", 0},
		{"0f01cb", 3, "stac", 0},
		{"0f0b", 2, "ud2", 0},
		{"0fb900", 3, "ud1", 0},
		{"0fb94001", 4, "ud1", 0},
		{"670fb94001", 5, "ud1", 0},
		{"670fb9400f", 5, "ud1", 0},
		{"0fb98100010000", 7, "ud1", 0},
		{"0fb90500010000", 7, "ud1", 0},
		{"0fb904250001000f", 8, "ud1", 0},
		{"480fb9840001000000", 9, "ud1", 0},
		{"d6", 1, "udb", 0},
		{"4889fb", 3, "mov %rdi,%rbx", 0},
		{"e800010000", 5, "callq callee", at + 0x105},
		{"e8fbfeffff", 5, "callq 0xffffffff80ffff00", at - 0x100},
		{"ebfe", 2, "jmp 0xffffffff81000000", at},
		{"7410", 2, "je 0xffffffff81000012", at + 0x12},
		{"0f8400100000", 6, "je 0xffffffff81001006", at + 0x1006},
		{"2ee800010000", 6, "", at + 0x106}, // a retpoline's call with a cs prefix
		{"ffd0", 2, "call *%rax", 0},
		{"3effe0", 3, "", 0}, // notrack jmp
		{"f0480fb113", 5, "lock cmpxchg %rdx,(%rbx)", 0},
		{"f3a4", 2, "rep movsb %ds:(%rsi),%es:(%rdi)", 0},
		{"c3", 1, "retq", 0},
		{"cc", 1, "int3", 0},
		{"cd80", 2, "int $0x80", 0},
		{"65488b042500000000", 9, "mov %gs:0x0,%rax", 0},
		{"0f1f4400 00", 5, "", 0},
		{"f390", 2, "pause", 0},
		{"49892c24", 4, "mov %rbp,(%r12)", 0},
	} {
		code, err := hex.DecodeString(strings.ReplaceAll(tt.code, " ", ""))
		if err != nil {
			t.Fatal(err)
		}
		code = append(code, 0x90, 0x90)
		i, err := Decode(code, at)
		if err != nil {
			t.Errorf("%s: %v", tt.code, err)
			continue
		}
		if i.Len != tt.len || len(i.Code) != tt.len || i.Addr != at {
			t.Errorf("%s: %d bytes (%x), want %d", tt.code, i.Len, i.Code, tt.len)
		}
		if text := i.Text(names); tt.text != "" && text != tt.text {
			t.Errorf("%s is %q, want %q", tt.code, text, tt.text)
		}
		if target, ok := i.Target(); target != tt.target || ok != (tt.target != 0) {
			t.Errorf("%s goes to %#x, %v; want %#x", tt.code, target, ok, tt.target)
		}
		if i.Text(nil) == "" {
			t.Errorf("%s has no text", tt.code)
		}
	}
}

func TestDecodeErrors(t *testing.T) {
	for _, code := range []string{"", "06", "48", "0f", "0f0a", "e80000", "67", "0fb9", "0fb980", "670fb904", "666666666666666666666666666666"} {
		b, _ := hex.DecodeString(code)
		if i, err := Decode(b, 0); !errors.Is(err, ErrDecode) {
			t.Errorf("%s is %v, %v", code, i, err)
		}
	}
}

func FuzzDecode(f *testing.F) {
	for _, s := range []string{"\xf3\x0f\x1e\xfa", "\xe8\x00\x01\x00\x00", "\x67\x0f\xb9\x40\x01", "\xf0\x48\x0f\xb1\x13", "\x65\x48\x8b\x04\x25\x00\x00\x00\x00", ""} {
		f.Add([]byte(s), uint64(0xffffffff81000000))
	}
	f.Fuzz(func(t *testing.T, code []byte, addr uint64) {
		i, err := Decode(code, addr)
		if err != nil {
			return
		}
		if i.Len < 1 || i.Len > MaxInsn || i.Len > len(code) || len(i.Code) != i.Len {
			t.Errorf("% x: %d bytes", code, i.Len)
		}
		if i.Text(nil) == "" {
			t.Errorf("% x: no text", code)
		}
		i.Target()
		i.RIPTarget()
		i.Immediate()
		regs := FromUserRegs([NumRegs]uint64{})
		for _, a := range i.Accesses() {
			if !a.Read && !a.Write || a.Bytes < 0 {
				t.Errorf("% x: %+v", code, a)
			}
			a.Address(&regs)
			a.Address(&Regs{})
			a.Registers()
		}
	})
}

func BenchmarkDecode(b *testing.B) {
	code := []byte("\x48\x8b\x84\x24\x80\x00\x00\x00\x90")
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Decode(code, 0); err != nil {
			b.Fatal(err)
		}
	}
}
