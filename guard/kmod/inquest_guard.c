// SPDX-License-Identifier: GPL-2.0-only
/*
 * inquest_guard: give request and time-wait sockets that waited in a packet queue back
 * as what they are.
 *
 * A packet in an NFQUEUE holds a reference on the socket that it was sent for
 * (nf_queue_entry.state.sk). Before 747670fd9a2d (Linux 5.17) the kernel drops it with
 * sock_put(), also if that is a request socket, which a SYN/ACK is sent for: the last
 * reference has sk_free() take some 300 bytes for a struct sock of more than 700.
 *
 * All entries end in nf_reinject(): on a verdict, when a queue is flushed, when its
 * reader dies. There this module holds one more reference while the kernel drops its
 * own, which so is never the last, and drops it with sock_gen_put(), which knows all
 * three kinds of sockets. The kernel's own handling of the packet is not changed: it
 * sees the same socket.
 *
 * nf_reinject() is entered through ftrace, as live patches are: the call is led to
 * guard_reinject() below, which runs where nf_reinject() would have, so it may free a
 * socket. A kprobe's handler may not: it can run with interrupts off, even as an NMI.
 *
 * What a header promises is tried before it is trusted. try_release() makes a request
 * socket of its own, with a cache and a destructor of its own, in a network namespace
 * that nobody else can see, has nf_reinject() drop its last reference, and looks which of
 * the two ways it went. The module stays only if it was the wrong way before the hook
 * was set, and is the right way afterwards.
 */

#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/etherdevice.h>
#include <linux/module.h>
#include <linux/netfilter.h>
#include <linux/skbuff.h>
#include <net/netfilter/nf_queue.h> /* in 4.18 it includes none of these */

#ifdef GUARD_HAS_REINJECT

#ifndef CONFIG_X86_64
#error "this module knows the registers of x86-64 only"
#endif
#if !IS_ENABLED(CONFIG_INET) || !IS_ENABLED(CONFIG_DYNAMIC_FTRACE_WITH_REGS)
#error "this module takes a kernel with CONFIG_INET and CONFIG_DYNAMIC_FTRACE_WITH_REGS"
#endif

#include <linux/atomic.h>
#include <linux/ftrace.h>
#include <linux/netfilter_ipv4.h>
#include <linux/rcupdate.h>
#include <linux/refcount.h>
#include <linux/slab.h>
#include <net/inet_hashtables.h>
#include <net/inet_timewait_sock.h>
#include <net/net_namespace.h>
#include <net/request_sock.h>
#include <net/sock.h>
#include <net/tcp_states.h>

/* What was saved, to be read below /sys/module/inquest_guard/parameters. */
static atomic64_t request_socks, timewait_socks, last_references;

static int get_counter(char *buffer, const struct kernel_param *kp)
{
	return sprintf(buffer, "%lld\n", (long long)atomic64_read((atomic64_t *)kp->arg));
}

static const struct kernel_param_ops counter_ops = { .get = get_counter };

module_param_cb(request_socks, &counter_ops, &request_socks, 0444);
MODULE_PARM_DESC(request_socks, "references on request sockets that were given back");
module_param_cb(timewait_socks, &counter_ops, &timewait_socks, 0444);
MODULE_PARM_DESC(timewait_socks, "references on time-wait sockets that were given back");
module_param_cb(last_references, &counter_ops, &last_references, 0444);
MODULE_PARM_DESC(last_references, "those of them that were the last: what the kernel would have freed as a full socket");

static bool is_mini(const struct sock *sk)
{
	return sk && (1 << READ_ONCE(sk->sk_state) & (TCPF_NEW_SYN_RECV | TCPF_TIME_WAIT));
}

/*
 * In place of nf_reinject(), for entries with a small socket. Like that it runs under
 * the caller's rcu_read_lock().
 */
static void guard_reinject(struct nf_queue_entry *entry, unsigned int verdict)
{
	struct sock *sk = entry->state.sk;

	sock_hold(sk);
	atomic64_inc(sk->sk_state == TCP_TIME_WAIT ? &timewait_socks : &request_socks);

	entry->id = 0;
	nf_reinject(entry, verdict);

	if (!refcount_dec_not_one(&sk->sk_refcnt)) {
		atomic64_inc(&last_references);
		sock_gen_put(sk);
	}
}

/*
 * Calls from this module are those of guard_reinject(), which has set the entry's id,
 * of no use any more, to 0, and those of try_release(), which has set another.
 */
static void notrace redirect(unsigned long parent_ip, struct pt_regs *regs)
{
	const struct nf_queue_entry *entry = (void *)regs->di;

	if (!is_mini(entry->state.sk) || (within_module(parent_ip, THIS_MODULE) && entry->id == 0))
		return;
	regs->ip = (unsigned long)guard_reinject;
}

#ifdef GUARD_HAS_FTRACE_REGS /* since 5.11 */
static void notrace on_reinject(unsigned long ip, unsigned long parent_ip, struct ftrace_ops *ops, struct ftrace_regs *fregs)
{
	redirect(parent_ip, ftrace_get_regs(fregs));
}
#else
static void notrace on_reinject(unsigned long ip, unsigned long parent_ip, struct ftrace_ops *ops, struct pt_regs *regs)
{
	redirect(parent_ip, regs);
}
#endif

static struct ftrace_ops hook = {
	.func = on_reinject,
	.flags = FTRACE_OPS_FL_SAVE_REGS | FTRACE_OPS_FL_IPMODIFY
#ifdef GUARD_HAS_PERMANENT /* since 5.6: kernel.ftrace_enabled cannot be cleared meanwhile */
		| FTRACE_OPS_FL_PERMANENT
#endif
};

static int set_hook(void)
{
	int err = ftrace_set_filter_ip(&hook, (unsigned long)nf_reinject, 0, 0);

	if (err)
		return err;
	err = register_ftrace_function(&hook);
	if (err)
		ftrace_set_filter_ip(&hook, (unsigned long)nf_reinject, 1, 0);
	return err;
}

/*
 * Nobody enters guard_reinject() any more when unregister_ftrace_function() returns.
 * Who is in it is inside of an RCU read-side section, or of an RCU callback that
 * destroys a queue.
 */
static void remove_hook(void)
{
	unregister_ftrace_function(&hook);
	ftrace_set_filter_ip(&hook, (unsigned long)nf_reinject, 1, 0);
	synchronize_rcu();
	rcu_barrier();
}

/* How a last reference was dropped. */
enum released { AS_REQUEST, AS_FULL_SOCKET, NOT_UNDERSTOOD };

static unsigned int destroyed;

static void count_destroyed(struct request_sock *req)
{
	destroyed++;
}

/* More than the one reference that sk_free() drops, so that it does nothing else. */
#define WMEM 2

/*
 * Has nf_reinject() drop one of the references on a request socket by dropping a packet.
 * entry and packet are freed.
 */
static bool drop_packet(struct net *net, struct sock *sk)
{
	struct nf_queue_entry *entry = kzalloc(sizeof(*entry), GFP_KERNEL);
	struct sk_buff *skb = alloc_skb(128, GFP_KERNEL);

	if (!entry || !skb) {
		kfree(entry);
		kfree_skb(skb);
		return false;
	}
	entry->id = 1;
	entry->skb = skb;
	entry->size = sizeof(*entry);
	entry->state.hook = NF_INET_LOCAL_OUT;
	entry->state.pf = NFPROTO_IPV4;
	entry->state.net = net;
	entry->state.sk = sk;
	rcu_read_lock();
	nf_reinject(entry, NF_DROP);
	rcu_read_unlock();
	return true;
}

static enum released release_with(struct net *net, struct request_sock_ops *ops)
{
	enum released how = NOT_UNDERSTOOD;
	/* The bug takes it for a struct sock: this one may be. */
	struct request_sock *req = kmem_cache_zalloc(ops->slab, GFP_KERNEL);
	struct sock *sk = (struct sock *)req;

	if (!req)
		return how;
	req->rsk_ops = ops;
	sk->sk_family = AF_INET;
	sk->sk_state = TCP_NEW_SYN_RECV;
	refcount_set(&sk->sk_wmem_alloc, WMEM);
	refcount_set(&sk->sk_refcnt, 2);
	destroyed = 0;

	/* One of two references is dropped: the kernel and the headers mean the same members. */
	if (!drop_packet(net, sk) || refcount_read(&sk->sk_refcnt) != 1 ||
	    refcount_read(&sk->sk_wmem_alloc) != WMEM || destroyed)
		goto free;
	if (!drop_packet(net, sk))
		goto free;
	if (destroyed)
		return AS_REQUEST; /* and freed */
	if (refcount_read(&sk->sk_wmem_alloc) == WMEM - 1)
		how = AS_FULL_SOCKET;
free:
	kmem_cache_free(ops->slab, req);
	return how;
}

/* Sees how this kernel, as it is now, drops the last reference on a request socket. */
static enum released try_release(void)
{
	enum released how = NOT_UNDERSTOOD;
	struct request_sock_ops *ops = kzalloc(sizeof(*ops), GFP_KERNEL);
	struct net *net = kzalloc(sizeof(*net), GFP_KERNEL);
	struct nf_hook_entries *hooks = kzalloc(sizeof(*hooks) + sizeof(hooks->hooks[0]), GFP_KERNEL);

	if (offsetof(struct sock, sk_wmem_alloc) < sizeof(struct request_sock) || !ops || !net || !hooks)
		goto out;
	ops->family = AF_INET;
	ops->destructor = count_destroyed;
	ops->slab = kmem_cache_create("inquest_guard_try", sizeof(struct sock), 0, 0, NULL);
	if (!ops->slab)
		goto out;
	hooks->num_hook_entries = 1;
	RCU_INIT_POINTER(net->nf.hooks_ipv4[NF_INET_LOCAL_OUT], hooks);
	how = release_with(net, ops);
	kmem_cache_destroy(ops->slab);
out:
	kfree(hooks);
	kfree(net);
	kfree(ops);
	return how;
}

static int __init guard_init(void)
{
	int err;

	switch (try_release()) {
	case AS_FULL_SOCKET:
		break;
	case AS_REQUEST:
		pr_err("nf_reinject gives request sockets back the right way: there is nothing to guard\n");
		return -ENODEV;
	default:
		pr_err("nf_reinject does not do what its headers promise; not loaded\n");
		return -EOPNOTSUPP;
	}
	err = set_hook();
	if (err) {
		pr_err("ftrace does not hook nf_reinject (a live patch? kernel.ftrace_enabled=0?): %d\n", err);
		return err;
	}
	if (try_release() != AS_REQUEST) {
		pr_err("the hook is set and has no effect; not loaded\n");
		remove_hook();
		return -EIO;
	}
	atomic64_set(&request_socks, 0);
	atomic64_set(&last_references, 0);
	pr_info("request sockets in packet queues are given back the right way\n");
	return 0;
}

static void __exit guard_exit(void)
{
	remove_hook();
	pr_info("removed; gave back %lld request and %lld time-wait sockets, %lld of them for the last time\n",
		(long long)atomic64_read(&request_socks), (long long)atomic64_read(&timewait_socks),
		(long long)atomic64_read(&last_references));
}

#else /* since 6.10 nf_reinject is a part of nfnetlink_queue, which has the fix */

static int __init guard_init(void)
{
	pr_err("this kernel is newer than the fix: there is nothing to guard\n");
	return -ENODEV;
}

static void __exit guard_exit(void) {}

#endif

module_init(guard_init);
module_exit(guard_exit);

MODULE_LICENSE("GPL");
MODULE_AUTHOR("The Inquest authors");
MODULE_DESCRIPTION("gives request and time-wait sockets in packet queues back the right way");
MODULE_VERSION("1");
