package stack

import (
	"fmt"
	"strings"
	"testing"

	"github.com/cilium/ebpf/btf"
)

// TestArgs assigns registers and words on the stack to parameters.
func TestArgs(t *testing.T) {
	var (
		char  = &btf.Int{Name: "char", Size: 1}
		i32   = &btf.Int{Name: "int", Size: 4}
		u64   = &btf.Int{Name: "u64", Size: 8}
		ptr   = &btf.Pointer{Target: char}
		size8 = &btf.Struct{Name: "one", Size: 8, Members: []btf.Member{{Name: "a", Type: i32}, {Name: "b", Type: i32, Offset: 32}}}
		two   = &btf.Struct{Name: "two", Size: 16, Members: []btf.Member{{Name: "a", Type: u64}, {Name: "b", Type: u64, Offset: 64}}}
		three = &btf.Struct{Name: "three", Size: 24, Members: []btf.Member{{Name: "a", Type: &btf.Array{Type: u64, Index: i32, Nelems: 3}}}}
		empty = &btf.Struct{Name: "empty"}
		packd = &btf.Struct{Name: "packed", Size: 9, Members: []btf.Member{{Name: "a", Type: char}, {Name: "b", Type: u64, Offset: 8}}}
		union = &btf.Union{Name: "u", Size: 8, Members: []btf.Member{{Name: "a", Type: u64}, {Name: "b", Type: char}}}
	)
	// Register n holds 0x1111111111111111*(n+1), word n of the stack 0xa0+n.
	var entry [16]known
	for i, r := range argRegs {
		entry[r] = known{v: 0x1111111111111111 * uint64(i+1), bits: 64, from: origin{kind: originConstant}}
	}
	var stack [stackArgs]known
	for i := range stack {
		stack[i] = known{v: 0xa0 + uint64(i), bits: 64, from: origin{kind: originConstant}}
	}
	for _, tt := range []struct {
		name   string
		params []btf.Type
		ret    btf.Type
		want   string
	}{
		{"integers", []btf.Type{char, i32, u64, ptr}, i32, "11 22222222 3333333333333333 4444444444444444"},
		{"a struct in a register", []btf.Type{size8, i32}, i32, "? 22222222"},
		{"a union in a register", []btf.Type{union, i32}, i32, "? 22222222"},
		{"a struct in two registers", []btf.Type{two, i32}, i32, "? 33333333"},
		{"a struct on the stack", []btf.Type{three, i32}, i32, "? 11111111"},
		{"a struct on the stack, then a word", []btf.Type{u64, u64, u64, u64, u64, u64, three, u64}, i32,
			"1111111111111111 2222222222222222 3333333333333333 4444444444444444 5555555555555555 6666666666666666 ? a3"},
		{"a struct that does not fit the registers left", []btf.Type{u64, u64, u64, u64, u64, two, u64, u64}, i32,
			"1111111111111111 2222222222222222 3333333333333333 4444444444444444 5555555555555555 ? 6666666666666666 a2"},
		{"an empty struct", []btf.Type{empty, i32}, i32, "? 11111111"},
		{"a packed struct", []btf.Type{packd, i32}, i32, "? 11111111"},
		{"eight parameters", []btf.Type{i32, i32, i32, i32, i32, i32, i32, u64}, i32,
			"11111111 22222222 33333333 44444444 55555555 66666666 a0 a1"},
		{"more than are followed", []btf.Type{u64, u64, u64, u64, u64, u64, three, three, u64}, i32,
			"1111111111111111 2222222222222222 3333333333333333 4444444444444444 5555555555555555 6666666666666666 ? ? ?"},
		{"variadic", []btf.Type{ptr, &btf.Void{}}, i32, "1111111111111111"},
		{"a big struct returned", []btf.Type{u64}, three, "2222222222222222"},
		{"a small struct returned", []btf.Type{u64}, two, "1111111111111111"},
		{"nothing returned", []btf.Type{u64}, &btf.Void{}, "1111111111111111"},
	} {
		proto := &btf.FuncProto{Return: tt.ret}
		for i, p := range tt.params {
			proto.Params = append(proto.Params, btf.FuncParam{Name: fmt.Sprint("p", i), Type: p})
		}
		var got []string
		for _, a := range args(proto, entry, stack) {
			text := "?"
			if a.Known {
				text = fmt.Sprintf("%x", a.Value)
			}
			got = append(got, text)
		}
		if strings.Join(got, " ") != tt.want {
			t.Errorf("%s: %s, want %s", tt.name, strings.Join(got, " "), tt.want)
		}
	}
}

// TestSolve has witnesses that agree, and some that do not.
func TestSolve(t *testing.T) {
	saw := func(v uint64, bits uint8) known { return known{v, bits, origin{kind: originConstant}} }
	newActivation := func() *activation {
		a := &activation{roots: map[root]known{}, bad: map[root]bool{}}
		a.learn(constant(0), saw(0, 64))
		return a
	}
	a := newActivation()
	a.learn(entryValue(rdi).add(0x10), saw(0x1010, 64))
	if k, ok := a.eval(entryValue(rdi)); !ok || k.v != 0x1000 || k.bits != 64 {
		t.Errorf("rdi is %+v", k)
	}
	a.learn(entryValue(rdi), saw(0x2000, 64))
	if k, ok := a.eval(entryValue(rdi)); ok {
		t.Errorf("two witnesses disagree, yet rdi is %+v", k)
	}
	a.learn(entryValue(rdi), saw(0x1000, 64))
	if _, ok := a.eval(entryValue(rdi)); ok {
		t.Error("a third witness decides")
	}
	low, _ := entryValue(rsi).low(32, true)
	a.learn(low, saw(0xffffffff, 32))
	if k, ok := a.eval(entryValue(rsi)); !ok || k.bits != 32 || k.v != 0xffffffff {
		t.Errorf("rsi is %+v", k)
	}
	if k, ok := a.eval(low); !ok || k.bits != 64 || k.v != 0xffffffffffffffff {
		t.Errorf("rsi's low half, sign-extended, is %+v", k)
	}
	a.learn(constant(5), saw(5, 64))
	if a.wrong {
		t.Error("a constant that is right is wrong")
	}
	a.learn(constant(5), saw(6, 32))
	if !a.wrong {
		t.Error("a constant that is not what it must be is believed")
	}
}
