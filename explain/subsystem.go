package explain

import "strings"

// Subsystem names the part of the kernel that a function belongs to, by its module or by
// how the names of that part's functions begin: kallsyms has no source files. It is ""
// where neither says it.
func Subsystem(function, module string) string {
	for _, s := range subsystemModules {
		if module != "" && (module == s.prefix || strings.HasPrefix(module, s.prefix)) {
			return s.name
		}
	}
	name := strings.TrimLeft(function, "_")
	best, found := 0, ""
	for _, s := range subsystemFunctions {
		if len(s.prefix) > best && strings.HasPrefix(name, s.prefix) {
			best, found = len(s.prefix), s.name
		}
	}
	return found
}

type subsystem struct{ prefix, name string }

// subsystemModules are found by the beginning of a module's name.
var subsystemModules = []subsystem{
	{"nf_", "netfilter"}, {"nft_", "netfilter"}, {"nfnetlink", "netfilter"}, {"xt_", "netfilter"}, {"ip_tables", "netfilter"}, {"ip6_tables", "netfilter"},
	{"iptable_", "netfilter"}, {"ip6table_", "netfilter"}, {"x_tables", "netfilter"}, {"ipt_", "netfilter"}, {"ip6t_", "netfilter"}, {"ip_set", "netfilter"}, {"ebt", "netfilter"}, {"ip_vs", "ipvs"},
	{"br_netfilter", "netfilter"}, {"bridge", "bridge"}, {"openvswitch", "openvswitch"}, {"bonding", "bonding"}, {"sctp", "sctp"}, {"tipc", "tipc"}, {"rds", "rds"}, {"wireguard", "wireguard"},
	{"veth", "network drivers"}, {"vxlan", "network drivers"}, {"tun", "network drivers"}, {"e1000", "network drivers"}, {"igb", "network drivers"}, {"ixgbe", "network drivers"}, {"i40e", "network drivers"},
	{"ice", "network drivers"}, {"mlx", "network drivers"}, {"bnx", "network drivers"}, {"tg3", "network drivers"}, {"virtio_net", "network drivers"}, {"vmxnet3", "network drivers"}, {"ena", "network drivers"},
	{"cls_", "traffic control"}, {"sch_", "traffic control"}, {"act_", "traffic control"}, {"em_", "traffic control"},
	{"ext4", "ext4"}, {"jbd2", "ext4"}, {"xfs", "xfs"}, {"btrfs", "btrfs"}, {"f2fs", "f2fs"}, {"overlay", "overlayfs"}, {"fuse", "fuse"}, {"nfsd", "nfsd"}, {"nfs", "nfs"}, {"lockd", "nfs"}, {"sunrpc", "sunrpc"},
	{"cifs", "smb client"}, {"ksmbd", "smb server"}, {"ceph", "ceph"}, {"libceph", "ceph"}, {"rbd", "ceph"}, {"gfs2", "gfs2"}, {"ocfs2", "ocfs2"}, {"zfs", "zfs"}, {"spl", "zfs"},
	{"dm_", "device mapper"}, {"md_", "md"}, {"raid", "md"}, {"bcache", "bcache"}, {"nvme", "nvme"}, {"scsi_", "scsi"}, {"sd_mod", "scsi"}, {"sr_mod", "scsi"}, {"megaraid", "scsi"}, {"mpt", "scsi"}, {"qla2", "scsi"}, {"lpfc", "scsi"}, {"libiscsi", "scsi"}, {"iscsi", "scsi"},
	{"libata", "ata"}, {"ahci", "ata"}, {"virtio_blk", "block drivers"}, {"nbd", "block drivers"}, {"loop", "block drivers"}, {"zram", "block drivers"}, {"null_blk", "block drivers"},
	{"kvm", "kvm"}, {"vhost", "vhost"}, {"vfio", "vfio"}, {"drm", "drm"}, {"i915", "drm"}, {"xe", "drm"}, {"amdgpu", "drm"}, {"radeon", "drm"}, {"nouveau", "drm"}, {"nvidia", "nvidia"}, {"snd", "sound"},
	{"usb", "usb"}, {"xhci", "usb"}, {"ehci", "usb"}, {"cfg80211", "wireless"}, {"mac80211", "wireless"}, {"iwl", "wireless"}, {"ath", "wireless"}, {"bluetooth", "bluetooth"}, {"btusb", "bluetooth"},
	{"ib_", "infiniband"}, {"rdma", "infiniband"}, {"lkdtm", "lkdtm"}, {"i2c", "i2c"}, {"hid", "hid"}, {"ipmi", "ipmi"}, {"edac", "edac"}, {"tls", "tls"}, {"can", "can"},
}

// subsystemFunctions are found by the beginning of a function's name, behind
// underscores; the longest that fits counts.
var subsystemFunctions = []subsystem{
	{"nf_", "netfilter"}, {"nft_", "netfilter"}, {"nfnl", "netfilter"}, {"nfnetlink_", "netfilter"}, {"nfqnl_", "netfilter"}, {"xt_", "netfilter"}, {"ipt_", "netfilter"}, {"ip_set_", "netfilter"}, {"ip_vs_", "ipvs"},
	{"tcp_", "tcp"}, {"mptcp_", "mptcp"}, {"udp_", "udp"}, {"udp6_", "udp"}, {"tcp6_", "tcp"}, {"tcp4_", "tcp"}, {"inet_csk_", "tcp"}, {"inet_", "ipv4"}, {"ip_", "ipv4"}, {"ip4_", "ipv4"}, {"ipv4_", "ipv4"}, {"icmp_", "ipv4"},
	{"fib_", "ipv4 routing"}, {"rt_", "ipv4 routing"}, {"ip_route_", "ipv4 routing"}, {"igmp_", "ipv4"}, {"arp_", "ipv4"}, {"ip6_", "ipv6"}, {"inet6_", "ipv6"}, {"ipv6_", "ipv6"}, {"fib6_", "ipv6 routing"}, {"addrconf_", "ipv6"}, {"ndisc_", "ipv6"}, {"icmpv6_", "ipv6"}, {"mld_", "ipv6"},
	{"sock_", "sockets"}, {"sk_", "sockets"}, {"reuseport_", "sockets"}, {"skb_", "networking core"}, {"kfree_skb", "networking core"}, {"consume_skb", "networking core"}, {"dev_", "networking core"}, {"netdev_", "networking core"}, {"netif_", "networking core"}, {"napi_", "networking core"},
	{"net_", "networking core"}, {"neigh_", "networking core"}, {"dst_", "networking core"}, {"rtnl_", "networking core"}, {"rtnetlink_", "networking core"}, {"process_backlog", "networking core"}, {"gro_", "networking core"}, {"page_pool_", "networking core"}, {"flow_", "networking core"},
	{"netlink_", "netlink"}, {"genl_", "netlink"}, {"unix_", "unix sockets"}, {"packet_", "packet sockets"}, {"tpacket_", "packet sockets"}, {"vsock_", "vsock"}, {"tls_", "tls"}, {"xfrm_", "ipsec"}, {"esp_", "ipsec"}, {"qdisc_", "traffic control"}, {"tcf_", "traffic control"}, {"tc_", "traffic control"}, {"fq_", "traffic control"}, {"htb_", "traffic control"},
	{"br_", "bridge"}, {"vlan_", "vlan"}, {"bond_", "bonding"}, {"sctp_", "sctp"}, {"l2tp_", "l2tp"}, {"ppp_", "ppp"}, {"macvlan_", "network drivers"}, {"veth_", "network drivers"}, {"tun_", "network drivers"}, {"virtnet_", "network drivers"},
	{"bpf_", "bpf"}, {"btf_", "bpf"}, {"xdp_", "xdp"}, {"xsk_", "xdp"}, {"io_uring", "io_uring"}, {"io_", "io_uring"},
	{"ext4_", "ext4"}, {"jbd2_", "ext4"}, {"xfs_", "xfs"}, {"btrfs_", "btrfs"}, {"f2fs_", "f2fs"}, {"ovl_", "overlayfs"}, {"fuse_", "fuse"}, {"nfs_", "nfs"}, {"nfs4_", "nfs"}, {"nfsd_", "nfsd"}, {"nfsd4_", "nfsd"}, {"rpc_", "sunrpc"}, {"xprt_", "sunrpc"}, {"svc_", "sunrpc"}, {"cifs_", "smb client"}, {"smb2_", "smb client"}, {"ceph_", "ceph"},
	{"vfs_", "vfs"}, {"do_sys_open", "vfs"}, {"path_", "vfs"}, {"link_path_walk", "vfs"}, {"d_", "vfs"}, {"dput", "vfs"}, {"dentry_", "vfs"}, {"shrink_dcache", "vfs"}, {"iput", "vfs"}, {"inode_", "vfs"}, {"evict", "vfs"}, {"generic_file_", "vfs"}, {"file_", "vfs"}, {"fput", "vfs"}, {"filp_", "vfs"}, {"mnt_", "vfs"}, {"mntput", "vfs"}, {"iomap_", "iomap"},
	{"writeback_", "writeback"}, {"wb_", "writeback"}, {"pipe_", "pipe"}, {"eventfd_", "eventfd"}, {"ep_", "epoll"}, {"eventpoll_", "epoll"}, {"fsnotify", "fsnotify"}, {"inotify_", "fsnotify"}, {"fanotify_", "fsnotify"}, {"proc_", "proc"}, {"kernfs_", "kernfs"}, {"sysfs_", "sysfs"}, {"debugfs_", "debugfs"}, {"configfs_", "configfs"}, {"seq_", "seq_file"}, {"aio_", "aio"}, {"dax_", "dax"},
	{"blk_", "block"}, {"bio_", "block"}, {"submit_bio", "block"}, {"bdev_", "block"}, {"blkdev_", "block"}, {"blkcg_", "block"}, {"bfq_", "block"}, {"dd_", "block"}, {"wbt_", "block"}, {"elv_", "block"}, {"disk_", "block"}, {"part_", "block"}, {"scsi_", "scsi"}, {"sd_", "scsi"}, {"ata_", "ata"}, {"nvme_", "nvme"}, {"dm_", "device mapper"}, {"md_", "md"}, {"raid", "md"}, {"virtblk_", "block drivers"}, {"nbd_", "block drivers"}, {"loop_", "block drivers"}, {"zram_", "block drivers"},
	{"do_anonymous_page", "memory management"}, {"handle_mm_fault", "memory management"}, {"do_swap_page", "memory management"}, {"unmap_", "memory management"}, {"zap_", "memory management"}, {"mmap_", "memory management"}, {"do_mmap", "memory management"}, {"exit_mmap", "memory management"}, {"vma_", "memory management"}, {"anon_vma", "memory management"}, {"split_huge_page", "memory management"},
	{"page_", "memory management"}, {"folio_", "memory management"}, {"filemap_", "memory management"}, {"shrink_", "memory management"}, {"swap_", "memory management"}, {"migrate_", "memory management"}, {"compact_", "memory management"}, {"khugepaged", "memory management"}, {"huge", "memory management"}, {"lru_", "memory management"}, {"copy_page_range", "memory management"}, {"shmem_", "tmpfs"}, {"mem_cgroup_", "memory cgroups"}, {"memcg_", "memory cgroups"}, {"obj_cgroup_", "memory cgroups"}, {"ksm_", "memory management"}, {"userfaultfd_", "userfaultfd"},
	{"cgroup_", "cgroups"}, {"css_", "cgroups"}, {"cpuset_", "cgroups"}, {"sched_", "scheduler"}, {"pick_", "scheduler"}, {"enqueue_", "scheduler"}, {"dequeue_", "scheduler"}, {"update_cfs", "scheduler"}, {"load_balance", "scheduler"}, {"ttwu_", "scheduler"}, {"task_numa_", "scheduler"}, {"futex_", "futex"}, {"do_futex", "futex"},
	{"rcu_", "rcu"}, {"srcu_", "rcu"}, {"timer_", "timers"}, {"hrtimer_", "timers"}, {"clockevents_", "timers"}, {"tick_", "timers"}, {"posix_", "posix timers"}, {"irq_", "interrupts"}, {"handle_irq", "interrupts"}, {"msi_", "interrupts"}, {"smp_call_", "smp"}, {"flush_tlb", "smp"}, {"on_each_cpu", "smp"}, {"cpuhp_", "cpu hotplug"}, {"stop_machine", "stop machine"}, {"multi_cpu_stop", "stop machine"}, {"flush_work", "workqueues"}, {"queue_work", "workqueues"}, {"cancel_work", "workqueues"}, {"wq_", "workqueues"},
	{"signal_", "signals"}, {"send_sig", "signals"}, {"ptrace_", "ptrace"}, {"audit_", "audit"}, {"perf_", "perf"}, {"x86_pmu_", "perf"}, {"intel_pmu_", "perf"}, {"trace_", "tracing"}, {"tracing_", "tracing"}, {"ring_buffer_", "tracing"}, {"kprobe", "kprobes"}, {"module_", "modules"}, {"kexec_", "kexec"}, {"key_", "keys"}, {"keyring_", "keys"}, {"security_", "security modules"}, {"selinux_", "selinux"}, {"avc_", "selinux"}, {"apparmor_", "apparmor"}, {"aa_", "apparmor"}, {"crypto_", "crypto"},
	{"kobject_", "driver core"}, {"device_", "driver core"}, {"driver_", "driver core"}, {"bus_", "driver core"}, {"really_probe", "driver core"}, {"platform_", "driver core"}, {"class_", "driver core"}, {"devm_", "driver core"}, {"pm_", "power management"}, {"pci_", "pci"}, {"pcie_", "pci"}, {"aer_", "pci"}, {"acpi_", "acpi"}, {"usb_", "usb"}, {"xhci_", "usb"}, {"hub_", "usb"}, {"tty_", "tty"}, {"n_tty_", "tty"}, {"pty_", "tty"}, {"uart_", "serial"}, {"serial8250_", "serial"}, {"vt_", "console"}, {"fb_", "fbdev"}, {"fbcon_", "fbdev"}, {"drm_", "drm"}, {"i915_", "drm"}, {"amdgpu_", "drm"}, {"snd_", "sound"}, {"input_", "input"}, {"evdev_", "input"}, {"hid_", "hid"}, {"i2c_", "i2c"}, {"mmc_", "mmc"}, {"mtd_", "mtd"},
	{"virtio_", "virtio"}, {"virtqueue_", "virtio"}, {"vring_", "virtio"}, {"vhost_", "vhost"}, {"kvm_", "kvm"}, {"vmx_", "kvm"}, {"svm_", "kvm"}, {"vcpu_", "kvm"}, {"vfio_", "vfio"}, {"iommu_", "iommu"}, {"dma_", "dma"}, {"swiotlb_", "dma"}, {"dmar_", "iommu"}, {"xen_", "xen"}, {"hv_", "hyper-v"}, {"vmbus_", "hyper-v"}, {"ieee80211_", "wireless"}, {"cfg80211_", "wireless"}, {"bt_", "bluetooth"}, {"hci_", "bluetooth"}, {"l2cap_", "bluetooth"}, {"rdma_", "infiniband"}, {"ib_", "infiniband"}, {"mce_", "machine checks"}, {"lkdtm_", "lkdtm"},
	{"sysrq_", "sysrq"}, {"write_sysrq", "sysrq"}, {"watchdog_", "watchdog"},
}
