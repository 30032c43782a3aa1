package stack

import (
	"slices"
	"testing"

	"golang.org/x/arch/x86/x86asm"

	"inquest/kernel"
	"inquest/vmcore"
)

func exampleUnwinder(t testing.TB) *Unwinder { return unwinderOf(t, "example") }

func unwinderOf(t testing.TB, dump string) *Unwinder {
	t.Helper()
	d, err := vmcore.Open("../testdata/" + dump + ".kdump")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	k, err := kernel.Open(d)
	if err != nil {
		t.Fatal(err)
	}
	return NewUnwinder(k)
}

// TestWays looks for tail calls among functions of the example's kernel.
func TestWays(t *testing.T) {
	u := exampleUnwinder(t)
	for _, tt := range []struct {
		name, from, to string
		ways           [][]string
	}{
		{"one jump", "nfqnl_reinject", "nf_reinject", [][]string{{"nfqnl_reinject"}}},
		{"a conditional jump", "_raw_write_lock_bh", "queued_write_lock_slowpath", [][]string{{"_raw_write_lock_bh"}}},
		{"two ways", "sk_free", "sk_destruct", [][]string{{"sk_free", "__sk_free"}, {"sk_free", "__sk_free", "sock_diag_broadcast_destroy"}}},
		{"among hundreds", "x64_sys_call", "__sys_sendmsg", [][]string{{"x64_sys_call", "__x64_sys_sendmsg"}}},
		{"the entry of a system call", "x64_sys_call", "__x64_sys_sendmsg", [][]string{{"x64_sys_call"}}},
		{"none", "_raw_write_lock_bh", "sk_destruct", nil},
	} {
		from, err1 := u.k.Symbol(tt.from)
		to, err2 := u.k.Symbol(tt.to)
		if err1 != nil || err2 != nil {
			t.Fatal(err1, err2)
		}
		ways, all := u.ways(uint64(from), uint64(to))
		if !all {
			t.Errorf("%s: not all ways were tried", tt.name)
		}
		var got [][]string
		for _, way := range ways {
			var names []string
			for _, c := range way {
				names = append(names, c.name)
			}
			got = append(got, names)
		}
		if !slices.EqualFunc(got, tt.ways, slices.Equal[[]string]) {
			t.Errorf("%s: %v, want %v", tt.name, got, tt.ways)
		}
	}
}

// TestThrough asks what is known of the registers behind tail calls.
func TestThrough(t *testing.T) {
	u := exampleUnwinder(t)
	at := func(name string) uint64 {
		a, err := u.k.Symbol(name)
		if err != nil {
			t.Fatal(err)
		}
		return uint64(a)
	}
	given := entryLocations().regs
	l := u.through(at("sk_free"), at("sk_destruct"), given)
	if l == nil || !l.oneOf || len(l.tails) != 2 {
		t.Fatalf("sk_free to sk_destruct: %+v", l)
	}
	if l.regs[rdi] != entryValue(rdi) || l.tails[1].regs[rdi] != entryValue(rdi) {
		t.Error("sk is not passed on to sk_destruct")
	}
	if l.regs[rsi] != (value{}) {
		t.Errorf("rsi is %+v, which sock_diag_broadcast_destroy overwrites", l.regs[rsi])
	}
	l = u.through(at("__x64_sys_sendmsg"), at("__sys_sendmsg"), given)
	if l == nil || l.regs[rcx] != constant(1) || l.setter(rcx) != "__x64_sys_sendmsg" {
		t.Errorf("__x64_sys_sendmsg to __sys_sendmsg: %+v", l)
	}
	if l := u.through(at("_raw_write_lock_bh"), at("sk_destruct"), given); l != nil {
		t.Errorf("a link where there is none: %+v", l)
	}
}

// TestGraph follows code that only a whole kernel has.
func TestGraph(t *testing.T) {
	graphAt := func(u *Unwinder, name string) *graph {
		at, err := u.k.Symbol(name)
		if err != nil {
			t.Fatal(err)
		}
		c, err := u.codeAt(at)
		if err != nil {
			t.Fatal(err)
		}
		g, err := c.graph()
		if err != nil {
			t.Fatal(err)
		}
		return g
	}
	count := func(g *graph, which func(*node) bool) (n int) {
		for i := range g.nodes {
			if which(&g.nodes[i]) {
				n++
			}
		}
		return n
	}
	refcount := unwinderOf(t, "refcount")
	if n := count(graphAt(refcount, "refcount_warn_saturate"), func(n *node) bool { return n.Op == x86asm.UD2 && n.next != none }); n < 5 {
		t.Errorf("refcount_warn_saturate goes on behind %d of its warnings", n)
	}
	if n := count(graphAt(refcount, "refcount_warn_saturate"), func(n *node) bool { return n.Op == x86asm.JMP && len(n.targets) > 2 }); n != 1 {
		t.Errorf("refcount_warn_saturate has %d jump tables", n)
	}
	if g := graphAt(unwinderOf(t, "example"), "oops_end.cold"); g.code.name != "oops_end" || len(g.code.parts) != 2 {
		t.Errorf("oops_end.cold is a part of %s, which has %d", g.code.name, len(g.code.parts))
	}
}
