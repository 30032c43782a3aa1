package explain

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"inquest/advisory"
)

func TestBlameFor(t *testing.T) {
	in := func(names ...string) (places []Place) {
		for _, n := range names {
			places = append(places, Place{Function: n})
		}
		return places
	}
	foreign := func(function, module string) Place { return Place{function, module, true} }
	for _, tt := range []struct {
		name   string
		places []Place
		want   Blame
	}{
		{"innermost", in("tcp_sendmsg", "sock_sendmsg"), Blame{Function: "tcp_sendmsg", Subsystem: "tcp"}},
		{"suffix", in("nft_set_destroy.part.0"), Blame{Function: "nft_set_destroy", Subsystem: "netfilter"}},
		{"plumbing", in("__list_add_valid", "_raw_spin_lock_irqsave", "kmem_cache_free", "ext4_free_inode"),
			Blame{Function: "ext4_free_inode", Subsystem: "ext4", Why: []string{"__list_add_valid, _raw_spin_lock_irqsave, kmem_cache_free only did what it was asked to"}}},
		{"dying", in("panic", "oops_end", "exc_page_fault", "asm_exc_page_fault", "xfs_iget"), Blame{Function: "xfs_iget", Subsystem: "xfs"}},
		{"nothing but plumbing", in("kfree", "rcu_do_batch", "handle_softirqs"), Blame{Function: "kfree"}},
		{"foreign caller", append(in("tcp_sendmsg"), foreign("hook_send", "agent")),
			Blame{Function: "hook_send", Module: "agent", Why: []string{"agent is from outside the kernel, and called tcp_sendmsg"}}},
		{"foreign, far out", append(in("tcp_a", "tcp_b", "tcp_c", "tcp_d"), foreign("hook", "agent")), Blame{Function: "tcp_a", Subsystem: "tcp"}},
		{"foreign, beyond what it did not call", append(in("tcp_v4_rcv", "__do_softirq"), foreign("poll", "agent")), Blame{Function: "tcp_v4_rcv", Subsystem: "tcp"}},
		{"a module's own kfree is no plumbing", []Place{{"kfree_it", "agent", true}}, Blame{Function: "kfree_it", Module: "agent"}},
		{"no names", in("", ""), Blame{}},
		{"none", nil, Blame{}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if diff := cmp.Diff(tt.want, BlameFor(tt.places)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestPlumbingIsNotASubject(t *testing.T) {
	for _, name := range []string{"memory_failure", "mem_cgroup_charge", "stream_open", "download_firmware", "upload", "uprobe_register", "string_to_security_class",
		"list_lru_walk", "page_pool_put_page", "report_iommu_fault", "struct_size"} {
		if plumbing(name) {
			t.Errorf("%s is taken for plumbing", name)
		}
	}
	for _, name := range []string{"kfree", "kmem_cache_free", "__slab_free", "_raw_spin_lock", "native_queued_spin_lock_slowpath", "mutex_lock", "__mutex_lock",
		"down", "down_write", "refcount_warn_saturate", "__list_del_entry_valid_or_report", "memcpy", "strscpy", "schedule_timeout", "usercopy_abort", "__fortify_panic"} {
		if !plumbing(name) {
			t.Errorf("%s is not taken for plumbing", name)
		}
	}
}

func TestSubsystem(t *testing.T) {
	for _, tt := range []struct{ function, module, want string }{
		{"nfqnl_recv_verdict", "nfnetlink_queue", "netfilter"},
		{"ip_route_output_key", "", "ipv4 routing"},
		{"ip_rcv", "", "ipv4"},
		{"__tcp_retransmit_skb", "", "tcp"},
		{"anything", "e1000e", "network drivers"},
		{"frobnicate", "", ""},
		{"frobnicate", "frob", ""},
	} {
		if got := Subsystem(tt.function, tt.module); got != tt.want {
			t.Errorf("%s [%s]: %q, want %q", tt.function, tt.module, got, tt.want)
		}
	}
}

func TestSignature(t *testing.T) {
	finding := func(c Class, function, module string) *Finding {
		return &Finding{Class: c, Blame: &Blame{Function: function, Module: module}, Title: module, Confidence: Confidence(len(module) % 3)}
	}
	known := &Finding{Class: RefCount, Advisory: &Known{Advisory: &advisory.Advisory{ID: "a"}}}
	one := Signature(finding(UseAfterFree, "f", ""))
	for name, f := range map[string]*Finding{
		"built as a module":     finding(UseAfterFree, "f", "mod"),
		"noticed as wild":       finding(WildPointer, "f", ""),
		"noticed by list debug": finding(ListCorruption, "f", ""),
	} {
		if got := Signature(f); got != one {
			t.Errorf("%s: %s, want %s", name, got, one)
		}
	}
	seen := map[string]string{one: "use-after-free in f"}
	for name, f := range map[string]*Finding{
		"another function": finding(UseAfterFree, "g", ""),
		"another class":    finding(Bug, "f", ""),
		"no function":      {Class: UseAfterFree},
		"known":            known,
		"known, other":     {Class: RefCount, Advisory: &Known{Advisory: &advisory.Advisory{ID: "b"}}},
	} {
		got := Signature(f)
		if other, double := seen[got]; double {
			t.Errorf("%s has the signature of %s", name, other)
		}
		seen[got] = name
	}
	if a, b := Signature(known), Signature(&Finding{Class: TypeConfusion, Advisory: known.Advisory}); a != b {
		t.Errorf("two dumps of a known bug have %s and %s", a, b)
	}
}
