package x86

import (
	"encoding/hex"
	"testing"
)

func decodeHex(t *testing.T, code string) Insn {
	t.Helper()
	b, err := hex.DecodeString(code)
	if err != nil {
		t.Fatal(err)
	}
	in, err := Decode(b, 0xffffffff81000000)
	if err != nil {
		t.Fatal(err)
	}
	if in.Len != len(b) {
		t.Fatalf("%s decodes to %d bytes", code, in.Len)
	}
	return in
}

func TestText(t *testing.T) {
	for _, c := range []struct{ code, want string }{
		{"488b8300ffffff", "mov -0x100(%rbx),%rax"},
		{"488b4388", "mov -0x78(%rbx),%rax"},
		{"480304cda0079eb0", "add -0x4f61f860(,%rcx,8),%rax"},
		{"488b838000ff7f", "mov 0x7fff0080(%rbx),%rax"},
		{"c704250000000000000000", "movl $0x0,0x0"},
		{"8b042500000000", "mov 0x0,%eax"},
		{"4863c9", "movslq %ecx,%rcx"},
		{"48a1000000ff00000000", "mov 0xff000000,%rax"},
		{"c3", "retq"},
		{"4898", "cltq"},
		{"6690", "xchg %ax,%ax"},
		{"f04109ac2460000000", "lock or %ebp,0x60(%r12)"},
	} {
		if got := decodeHex(t, c.code).Text(nil); got != c.want {
			t.Errorf("%s: %q, want %q", c.code, got, c.want)
		}
	}
}

func TestRIPTarget(t *testing.T) {
	for _, c := range []struct {
		code string
		want uint64
		ok   bool
	}{
		{"488b0500100000", 0xffffffff81001007, true},
		{"488b0500f0ffff", 0xffffffff80fff007, true},
		{"488d3d00000000", 0xffffffff81000007, true},
		{"488b4388", 0, false},
		{"f30f1efa", 0, false},
	} {
		got, ok := decodeHex(t, c.code).RIPTarget()
		if got != c.want || ok != c.ok {
			t.Errorf("%s: %#x %v, want %#x %v", c.code, got, ok, c.want, c.ok)
		}
	}
}

func TestImmediate(t *testing.T) {
	for _, c := range []struct {
		code string
		want uint64
		ok   bool
	}{
		{"48c7c740a0e082", 0xffffffff82e0a040, true},
		{"480304cda0079eb0", 0xffffffffb09e07a0, true},
		{"b8ffffffff", 0, false},
		{"488b8300ffffff", 0, false},
		{"bf01000000", 0, false},
	} {
		got, ok := decodeHex(t, c.code).Immediate()
		if got != c.want || ok != c.ok {
			t.Errorf("%s: %#x %v, want %#x %v", c.code, got, ok, c.want, c.ok)
		}
	}
}
