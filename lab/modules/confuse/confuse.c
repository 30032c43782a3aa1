// SPDX-License-Identifier: GPL-2.0-only
/*
 * confuse: takes objects for what they are not, in the way that is written to
 * /proc/confuse. Each way is one classic bug, arranged so that the machine dies
 * of it at once and the same way every time: what the code reads by mistake was
 * filled with GARBAGE before, which is no address.
 *
 * The functions are noinline, as functions of distinct files would be, and pass
 * the pointer on through a few frames.
 */
#include <linux/list.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/proc_fs.h>
#include <linux/refcount.h>
#include <linux/slab.h>
#include <linux/string.h>
#include <linux/uaccess.h>
#include <linux/workqueue.h>

#define GARBAGE 0xfd	/* in every byte: 0xfdfdfdfdfdfdfdfd is not canonical */
#define MANY 256	/* objects: more than a slab holds */

struct session;

struct session_ops {
	int (*account)(struct session *s, u64 bytes);
	void (*close)(struct session *s);
};

/* The larger one, in a cache of its own. */
struct session {
	u64 id;
	char peer[40];
	u64 counters[20];
	struct list_head link;
	struct mutex lock;
	struct work_struct work;
	const struct session_ops *ops;
	u64 deadline;
	u64 stamp;
	refcount_t users;
	void (*notify)(struct session *s);
};

/* The smaller one; it too has a name, a link and work to do, elsewhere. */
struct probe {
	u64 id;
	char peer[40];
	struct work_struct work;
	u64 samples[5];
};

/* What a ticket's memory is used for when the ticket is gone. */
struct blob {
	u32 length;
	u32 flags;
	u8 data[184];
};

struct ticket {
	u64 id;
	char holder[24];
	struct list_head link;
	struct session *session;
	u64 used;
	u64 serial[2];
	/* In the middle, where SLUB keeps its pointer to the next free object. */
	const struct session_ops *ops;
	u64 stamps[4];
	void (*release)(struct ticket *t);
	u64 flags;
	u64 more[4];
};

static struct kmem_cache *session_cache, *probe_cache, *ticket_cache, *blob_cache;
static LIST_HEAD(tickets);
static void *kept[MANY];
static u64 total;

/* Sessions: code that is right as long as it is given a session. */

static noinline int session_account(struct session *s, u64 bytes)
{
	total += bytes + s->id;
	s->deadline = total;
	return s->ops->account(s, bytes);
}

static noinline int session_flush(struct session *s, u64 bytes)
{
	int err = session_account(s, bytes + s->counters[0]);

	s->counters[1] += err;
	return err;
}

static noinline void session_expire(struct session *s)
{
	if (session_flush(s, 42))
		s->deadline = 0;
	total ^= s->id;
}

static noinline void session_lock(struct session *s)
{
	mutex_lock(&s->lock);
	total += s->id;
	mutex_unlock(&s->lock);
}

static noinline void session_rename(struct session *s, const char *peer)
{
	session_lock(s);
	strscpy(s->peer, peer, sizeof(s->peer));
}

static noinline void session_unref(struct session *s)
{
	refcount_dec(&s->users);
	total += s->id;
}

static noinline void session_leave(struct session *s)
{
	session_unref(s);
	s->counters[4]++;
}

static noinline void session_unlink(struct session *s)
{
	list_del(&s->link);
	s->id = 0;
}

static noinline void session_drop(struct session *s)
{
	session_unlink(s);
	total += s->counters[2];
}

static noinline void session_notify(struct session *s)
{
	s->notify(s);
	total += s->id;
}

static noinline void session_wake(struct session *s)
{
	total += s->id;
	session_notify(s);
	s->counters[3]++;
}

/* This is where container_of is wrong when the work is a probe's. */
static void session_work(struct work_struct *work)
{
	struct session *s = container_of(work, struct session, work);

	session_expire(s);
	total++;
}

/* Tickets. */

static noinline int ticket_check(struct ticket *t)
{
	t->used++;
	total += t->id;
	return t->ops->account(t->session, t->used);
}

static noinline int ticket_use(struct ticket *t, u64 times)
{
	int err = 0;

	while (times-- && !err)
		err = ticket_check(t);
	t->flags |= err;
	return err;
}

static noinline void ticket_redeem(struct ticket *t)
{
	if (ticket_use(t, 3))
		t->flags = 0;
	total += t->used;
}

static noinline struct ticket *ticket_new(struct kmem_cache *cache)
{
	struct ticket *t = cache ? kmem_cache_alloc(cache, GFP_KERNEL) : kmalloc(sizeof(*t), GFP_KERNEL);

	memset(t, 0, sizeof(*t));
	t->id = 7;
	strscpy(t->holder, "a ticket's holder", sizeof(t->holder));
	list_add(&t->link, &tickets);
	return t;
}

static noinline void ticket_free(struct kmem_cache *cache, struct ticket *t)
{
	list_del(&t->link);
	kmem_cache_free(cache, t);
}

static noinline struct blob *blob_new(struct kmem_cache *cache)
{
	struct blob *b = cache ? kmem_cache_alloc(cache, GFP_KERNEL) : kmalloc(sizeof(*b), GFP_KERNEL);

	b->length = sizeof(b->data);
	b->flags = 1;
	memset(b->data, GARBAGE, sizeof(b->data));
	return b;
}

/* Fills slabs with probes and returns one from the middle of a page, with probes on both sides. */
static noinline struct probe *probe_crowd(void)
{
	struct probe *middle = NULL;
	int i;

	for (i = 0; i < MANY; i++) {
		struct probe *p = kept[i] = kmem_cache_alloc(probe_cache, GFP_KERNEL);

		memset(p, GARBAGE, sizeof(*p));
		p->id = i;
		strscpy(p->peer, "a probe's peer", sizeof(p->peer));
		INIT_WORK(&p->work, session_work);
		/* Not one of the last: their slab need not be full. */
		if (i < MANY / 2 && offset_in_page(p) >= PAGE_SIZE / 3 && offset_in_page(p) < PAGE_SIZE / 2)
			middle = p;
	}
	return middle;
}

/* The ways. */

/* The work of a probe runs the callback that is meant for a session's. */
static noinline void confuse_container(void)
{
	struct probe *p = probe_crowd();

	schedule_work(&p->work);
	flush_work(&p->work);
}

/* A probe is passed as a session; its lock is past the probe's end and never free: the CPU waits for good. */
static noinline void confuse_lock(void)
{
	struct probe *p = probe_crowd();

	session_rename((struct session *)p, "nobody");
	total++;
}

/* The same; its counter is past the probe's end, in a pointer. */
static noinline void confuse_refcount(void)
{
	struct probe *p = probe_crowd();

	session_leave((struct session *)p);
	total++;
}

/* The same; its link is past the probe's end, with garbage in it. */
static noinline void confuse_list(void)
{
	struct probe *p = probe_crowd();

	session_drop((struct session *)p);
	total++;
}

/* The same; a function pointer past the probe's end is called. */
static noinline void confuse_call(void)
{
	struct probe *p = probe_crowd();

	session_wake((struct session *)p);
	total++;
}

/* A ticket is freed, a blob of the same kmalloc bucket gets its memory, the ticket is used. */
static noinline void confuse_bucket(void)
{
	struct ticket *t = ticket_new(NULL);

	list_del(&t->link);
	kfree(t);
	kept[0] = blob_new(NULL);
	ticket_redeem(t);
	total++;
}

/* Gives the slab of a ticket back to the page allocator and returns the ticket if a blobs' slab got the page. */
static noinline struct ticket *ticket_recycle(void)
{
	static struct ticket *all[MANY];
	struct ticket *t;
	int i;

	for (i = 0; i < MANY; i++)
		all[i] = ticket_new(ticket_cache);
	t = all[MANY / 2];
	for (i = 0; i < MANY; i++)
		ticket_free(ticket_cache, all[i]);
	kmem_cache_shrink(ticket_cache);
	for (i = 0; i < 8 * MANY; i++)
		if (((unsigned long)blob_new(blob_cache) ^ (unsigned long)t) < PAGE_SIZE)
			break;
	if (i == 8 * MANY)
		return NULL;
	/* The rest of that slab. */
	for (i = 0; i < 64; i++)
		blob_new(blob_cache);
	return t;
}

/* The same across caches; should somebody else get the page, it tries again. */
static noinline void confuse_page(void)
{
	struct ticket *t = NULL;
	int i;

	for (i = 0; i < 16 && !t; i++)
		t = ticket_recycle();
	if (t)
		ticket_redeem(t);
	total++;
}

/* A ticket is freed and used; what it calls through is SLUB's free pointer, or poison. */
static noinline void confuse_freed(void)
{
	struct ticket *t = ticket_new(ticket_cache);

	ticket_new(ticket_cache);
	ticket_free(ticket_cache, t);
	ticket_redeem(t);
	total++;
}

/* A ticket is freed twice in a row, which CONFIG_SLAB_FREELIST_HARDENED notices. */
static noinline void ticket_put(struct ticket *t)
{
	total += t->id;
	kmem_cache_free(ticket_cache, t);
	total++;
}

static noinline void confuse_twice(void)
{
	struct ticket *t = ticket_new(ticket_cache);

	list_del(&t->link);
	ticket_put(t);
	ticket_put(t);
	total++;
}

/* Writes a text that is too long; it runs on into whatever is behind. */
static noinline void ticket_name(struct ticket *t, const char *text, size_t n)
{
	char *to = t->holder;

	OPTIMIZER_HIDE_VAR(to);
	while (n--)
		*to++ = *text ? *text++ : 'x';
}

/* A ticket's holder's name overwrites the rest of the ticket and half of the next one, which is used. */
static noinline void confuse_overflow(void)
{
	struct ticket *low = NULL, *high = NULL;
	int i, j;

	for (i = 0; i < MANY; i++)
		kept[i] = ticket_new(ticket_cache);
	for (i = 0; i < MANY && !low; i++)
		for (j = 0; j < MANY; j++) {
			unsigned long apart = (unsigned long)kept[j] - (unsigned long)kept[i];

			/* With a red zone they are further apart. */
			if (kept[j] > kept[i] && apart < sizeof(struct ticket) + 200) {
				low = kept[i];
				high = kept[j];
			}
		}
	if (!low)
		return;
	ticket_name(low, "root; ", (char *)(&high->ops + 1) - low->holder);
	ticket_redeem(high);
	total++;
}

/* A ticket is used whose members were never set. With slub_debug=P they hold POISON_INUSE. */
static noinline void confuse_uninit(void)
{
	struct ticket *t = kmalloc(sizeof(*t), GFP_KERNEL);

	t->id = 9;
	t->flags = 0;
	ticket_redeem(t);
	total++;
}

static const struct {
	const char *name;
	void (*run)(void);
} ways[] = {
	{ "container", confuse_container },
	{ "lock", confuse_lock },
	{ "refcount", confuse_refcount },
	{ "list", confuse_list },
	{ "call", confuse_call },
	{ "bucket", confuse_bucket },
	{ "page", confuse_page },
	{ "freed", confuse_freed },
	{ "twice", confuse_twice },
	{ "overflow", confuse_overflow },
	{ "uninit", confuse_uninit },
};

static ssize_t confuse_write(struct file *file, const char __user *buf, size_t count, loff_t *pos)
{
	char text[32] = {};
	int i;

	if (count >= sizeof(text))
		return -EINVAL;
	if (copy_from_user(text, buf, count))
		return -EFAULT;
	for (i = 0; i < ARRAY_SIZE(ways); i++)
		if (sysfs_streq(text, ways[i].name)) {
			ways[i].run();
			return count;
		}
	return -EINVAL;
}

static const struct proc_ops confuse_ops = { .proc_write = confuse_write };

/* A cache whose objects may be copied to user space is never merged with another. */
static struct kmem_cache *cache_of(const char *name, unsigned int size)
{
	return kmem_cache_create_usercopy(name, size, 0, 0, 0, size, NULL);
}

static int __init confuse_init(void)
{
	session_cache = cache_of("confuse_session", sizeof(struct session));
	probe_cache = cache_of("confuse_probe", sizeof(struct probe));
	ticket_cache = cache_of("confuse_ticket", sizeof(struct ticket));
	blob_cache = cache_of("confuse_blob", sizeof(struct blob));
	if (!session_cache || !probe_cache || !ticket_cache || !blob_cache)
		return -ENOMEM;
	return proc_create("confuse", 0200, NULL, &confuse_ops) ? 0 : -ENOMEM;
}
module_init(confuse_init);

MODULE_DESCRIPTION("Takes objects for what they are not");
MODULE_LICENSE("GPL v2");
