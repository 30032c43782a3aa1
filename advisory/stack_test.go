package advisory

import (
	"slices"
	"strings"
	"testing"
)

// Stacks of machines that died, as they were made public (functions only, innermost
// first), and which advisory each is a case of. Those of other bugs in the same code
// are a case of none.
func TestStacks(t *testing.T) {
	tests := []struct{ source, stack, want string }{
		{"CVE-2024-36904, Fedora 6.8.6", "refcount_warn_saturate tcp_twsk_unique __inet_check_established __inet_hash_connect tcp_v4_connect __inet_stream_connect inet_stream_connect __sys_connect __x64_sys_connect do_syscall_64 entry_SYSCALL_64_after_hwframe",
			"tcp-twsk-unique"},
		{"linux-kernel, D. Sonck, nfsd on 5.6.16", "__cgroup_bpf_run_filter_skb ip_finish_output ip_output __ip_queue_xmit __tcp_transmit_skb tcp_write_xmit __tcp_push_pending_frames do_tcp_sendpages tcp_sendpage inet_sendpage kernel_sendpage svc_send_common svc_sendto svc_tcp_sendto svc_send nfsd kthread ret_from_fork",
			"cgroup-sk-clone"},
		{"CVE-2024-57977, 56,000 tasks in a cgroup", "console_unlock vprintk_emit printk dump_task mem_cgroup_scan_tasks dump_header oom_kill_process out_of_memory mem_cgroup_out_of_memory try_charge mem_cgroup_try_charge mem_cgroup_try_charge_delay do_anonymous_page handle_mm_fault",
			"memcg-oom-soft-lockup"},
		{"CVE-2022-49584, a PowerEdge R740", "ixgbe_msg_task ixgbe_msix_other __handle_irq_event_percpu handle_irq_event_percpu handle_irq_event handle_edge_irq handle_irq do_IRQ common_interrupt",
			"ixgbe-sriov-disable"},
		{"CVE-2024-50154, a BPF program on tcp_retransmit_synack", "bpf_sk_storage_get_tracing bpf_prog_5ea3e95db6da0438_tcp_retransmit_synack bpf_trace_run2 tcp_rtx_synack reqsk_timer_handler run_timer_softirq irq_exit_rcu sysvec_apic_timer_interrupt asm_sysvec_apic_timer_interrupt intel_idle_irq cpuidle_enter_state cpu_startup_entry start_secondary",
			"reqsk-timer-pending"},
		{"syzbot 694120e1002c117747ed, 5.16-rc5", "tcp_retransmit_timer tcp_write_timer_handler tcp_write_timer call_timer_fn __run_timers.part.0 run_timer_softirq __do_softirq",
			"tcp-kernel-socket-timers"},
		{"syzbot cfc0247ac173f597aaaa, 5.8", "memset xt_compat_target_from_user translate_compat_table compat_do_replace.constprop.0 do_ip6t_set_ctl nf_setsockopt ipv6_setsockopt udpv6_setsockopt __sys_setsockopt __ia32_sys_setsockopt",
			"xt-compat-padding"},
		{"netfilter-devel, L. Xiao, list:set on arm64", "hash_net4_kadt ip_set_test set_match_v4 ipt_do_table iptable_filter_hook nf_hook_slow ip_local_deliver ip_rcv_finish ip_rcv",
			"ipset-swap-destroy"},
		{"nf_tables, a batch that is aborted", "__list_del_entry_valid nf_tables_deactivate_set __nf_tables_abort nf_tables_abort nfnetlink_rcv_batch nfnetlink_rcv netlink_unicast netlink_sendmsg sock_sendmsg ____sys_sendmsg",
			"nft-anonymous-set"},
		{"syzbot f427adf9324b92652ccc, 5.10-rc4", "dnotify_free_mark fsnotify_final_mark_destroy fsnotify_mark_destroy_workfn process_one_work worker_thread kthread ret_from_fork",
			"fuse-bad-inode"},
		{"syzbot, /proc/locks", "number vsnprintf seq_printf lock_get_status locks_show seq_read_iter proc_reg_read_iter copy_splice_read do_splice_read splice_direct_to_actor do_splice_direct do_sendfile",
			"fcntl-close-race"},
		{"netdev, tcp_shifted_skb", "tcp_shifted_skb tcp_sacktag_walk tcp_sacktag_write_queue tcp_ack tcp_rcv_established tcp_v4_do_rcv tcp_v4_rcv",
			"tcp-sack-panic"},
		{"the case: nf_queue", "__sk_destruct nf_queue_entry_release_refs nf_queue_entry_free nf_reinject nfqnl_reinject nfqnl_recv_verdict nfnetlink_rcv_msg netlink_rcv_skb",
			"nf-queue-request-sock"},

		// Near misses.
		{"netdev, KASAN in pskb_expand_head below SACK", "kmalloc_reserve pskb_expand_head __skb_unclone_keeptruesize skb_shift tcp_sacktag_walk tcp_sacktag_write_queue tcp_ack tcp_rcv_established tcp_v4_do_rcv __release_sock release_sock tcp_sendmsg", ""},
		{"bpf, a program that faults itself, 6.18", "bpf_prog_e63b106389d7305a __bpf_prog_run_save_cb __cgroup_bpf_run_filter_skb sk_filter_trim_cap tcp_v4_rcv ip_protocol_deliver_rcu ip_local_deliver_finish", ""},
		{"netdev, cgroup_skb egress on arm64", "bpf_prog_ce7c9180c3b128ea_cgroupskb_egres __bpf_prog_run __cgroup_bpf_run_filter_skb ip_finish_output ip_output ip_send_skb udp_send_skb udp_sendmsg inet_sendmsg __sys_sendto", ""},
		{"netdev, tcp_fastretrans_alert", "tcp_fastretrans_alert tcp_ack tcp_rcv_established tcp_v6_do_rcv tcp_v6_rcv ip6_protocol_deliver_rcu ip6_input_finish", ""},
		{"syzbot a7c1ec5b1d71ceaa5186, set_mempolicy_home_node, 6.3-rc5", "mas_next_entry mas_find __do_sys_set_mempolicy_home_node do_syscall_64 entry_SYSCALL_64_after_hwframe", ""},
		{"netdev, a bridge below vhost, 5.0", "br_handle_frame __netif_receive_skb_core __netif_receive_skb_one_core netif_receive_skb tun_sendmsg vhost_tx_batch.isra.0 handle_tx_copy handle_tx vhost_worker kthread", ""},
		{"virtualization, removal of vp_vdpa", "vp_modern_get_status vp_vdpa_reset virtio_vdpa_reset remove_vq_common virtnet_remove virtio_dev_remove device_release_driver_internal", ""},
		{"a connect that only waits", "schedule wait_woken inet_wait_for_connect __inet_stream_connect inet_stream_connect __sys_connect", ""},
		{"an OOM of the whole machine", "dump_task dump_tasks dump_header oom_kill_process out_of_memory __alloc_pages_may_oom __alloc_pages_slowpath __alloc_pages", ""},
		{"iptables of a 64-bit process", "memcpy translate_table do_replace do_ipt_set_ctl nf_setsockopt ip_setsockopt tcp_setsockopt __sys_setsockopt", ""},
		{"ipset from user space", "ip_set_utest call_ad ip_set_uadd nfnetlink_rcv_msg netlink_rcv_skb", ""},
		{"mptcp, TSQ", "refcount_warn_saturate tcp_tsq_handler tcp_tasklet_func tasklet_action_common", ""},
		{"nothing", "", ""},
	}
	all, err := Shipped()
	if err != nil {
		t.Fatal(err)
	}
	var matched []string
	for _, tt := range tests {
		var got []string
		for _, a := range all {
			if steps := a.MatchStack(strings.Fields(tt.stack)); steps != nil {
				got = append(got, a.ID)
				if len(steps) != len(a.Stack) {
					t.Errorf("%s: %s matched %q, of %d steps", tt.source, a.ID, steps, len(a.Stack))
				}
			}
		}
		if strings.Join(got, " ") != tt.want {
			t.Errorf("%s: is a case of %q, want %q", tt.source, got, tt.want)
		}
		matched = append(matched, got...)
	}
	for _, a := range all {
		// Of these no public stack is known; their notes say so.
		if !slices.Contains(matched, a.ID) && !strings.Contains(a.Note, "No public oops") {
			t.Errorf("no stack is a case of %s", a.ID)
		}
	}
}

// Each advisory's own steps, one after the other, are a case of it, and stop being
// one without its last step, in the reverse order, or with too much in front.
func TestStackSteps(t *testing.T) {
	all, err := Shipped()
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range all {
		var stack []string
		for _, step := range a.Stack {
			i := slices.IndexFunc(step, func(f string) bool { return !slices.Contains(stack, f) })
			if i < 0 {
				t.Fatalf("%s: a step has nothing that the others have not", a.ID)
			}
			stack = append(stack, step[i])
		}
		if a.MatchStack(stack) == nil {
			t.Errorf("%s does not match %q", a.ID, stack)
		}
		if m := a.MatchStack(stack[:len(stack)-1]); m != nil {
			t.Errorf("%s matches without its last step: %q", a.ID, m)
		}
		if a.Within > 0 {
			deep := append(slices.Repeat([]string{"other"}, a.Within), stack...)
			if m := a.MatchStack(deep); m != nil {
				t.Errorf("%s matches below %d others: %q", a.ID, a.Within, m)
			}
		}
	}
}
