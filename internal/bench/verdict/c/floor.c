/*
 * floor QUEUE BATCH LENGTH: the cheapest reader there can be. It takes up to BATCH
 * packets with one recvmmsg and accepts them all with one batch verdict. It looks
 * at nothing but the last packet's id, so whoever inspects packets is slower.
 * The attributes are those of linux/netfilter/nfnetlink_queue.h.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <err.h>
#include <errno.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netfilter/nfnetlink_queue.h>
#include <linux/netlink.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define MAX 1024
#define SLOT 512

static int fd;
static uint16_t queue;

static void *put(struct nlmsghdr *h, uint16_t type, const void *data, int len)
{
	struct nlattr *a = (void *)((char *)h + NLMSG_ALIGN(h->nlmsg_len));

	a->nla_type = type;
	a->nla_len = NLA_HDRLEN + len;
	memcpy((char *)a + NLA_HDRLEN, data, len);
	h->nlmsg_len = NLMSG_ALIGN(h->nlmsg_len) + NLA_ALIGN(a->nla_len);
	return (char *)a + NLA_HDRLEN;
}

static struct nlmsghdr *start(char *buf, int type, int flags)
{
	struct nlmsghdr *h = (void *)buf;
	struct nfgenmsg *g = NLMSG_DATA(h);

	memset(buf, 0, NLMSG_LENGTH(sizeof *g));
	h->nlmsg_len = NLMSG_LENGTH(sizeof *g);
	h->nlmsg_type = NFNL_SUBSYS_QUEUE << 8 | type;
	h->nlmsg_flags = NLM_F_REQUEST | flags;
	g->version = NFNETLINK_V0;
	g->res_id = htons(queue);
	return h;
}

static void configure(int attr, const void *data, int len)
{
	char buf[256];
	struct nlmsghdr *h = start(buf, NFQNL_MSG_CONFIG, NLM_F_ACK);
	struct nlmsgerr *e;

	put(h, attr, data, len);
	if (send(fd, h, h->nlmsg_len, 0) < 0 || recv(fd, buf, sizeof buf, 0) < 0)
		err(1, "configure queue %d", queue);
	e = NLMSG_DATA(h);
	if (e->error)
		errx(1, "configure queue %d: %s", queue, strerror(-e->error));
}

/* gso keeps the kernel from segmenting and from filling in checksums. */
static void gso(void)
{
	char buf[256];
	struct nlmsghdr *h = start(buf, NFQNL_MSG_CONFIG, 0);
	uint32_t flag = htonl(NFQA_CFG_F_GSO);

	put(h, NFQA_CFG_FLAGS, &flag, sizeof flag);
	put(h, NFQA_CFG_MASK, &flag, sizeof flag);
	if (send(fd, h, h->nlmsg_len, 0) < 0)
		err(1, "configure queue %d", queue);
}

int main(int argc, char **argv)
{
	static char bufs[MAX][SLOT], out[256];
	static struct mmsghdr msgs[MAX];
	static struct iovec iovs[MAX];
	struct sockaddr_nl kernel = { .nl_family = AF_NETLINK };
	struct nfqnl_msg_config_cmd bind_cmd = { .command = NFQNL_CFG_CMD_BIND };
	struct nfqnl_msg_config_params params = { .copy_range = htonl(0xffff), .copy_mode = NFQNL_COPY_PACKET };
	struct nfqnl_msg_verdict_hdr v = { .verdict = htonl(NF_ACCEPT) }, *vp;
	int batch = argc > 2 ? atoi(argv[2]) : 64, size = 8 << 20, one = 1, i, n;
	uint32_t length = htonl(argc > 3 ? atoi(argv[3]) : 1024);
	struct nlmsghdr *h;

	if (batch < 1 || batch > MAX)
		errx(2, "batch of 1 to %d", MAX);
	queue = argc > 1 ? atoi(argv[1]) : 0;
	fd = socket(AF_NETLINK, SOCK_RAW, NETLINK_NETFILTER);
	if (fd < 0 || connect(fd, (void *)&kernel, sizeof kernel) < 0)
		err(1, "netlink");
	setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof size);
	setsockopt(fd, SOL_NETLINK, NETLINK_NO_ENOBUFS, &one, sizeof one);
	configure(NFQA_CFG_CMD, &bind_cmd, sizeof bind_cmd);
	configure(NFQA_CFG_QUEUE_MAXLEN, &length, sizeof length);
	configure(NFQA_CFG_PARAMS, &params, sizeof params);
	gso();

	for (i = 0; i < batch; i++) {
		iovs[i] = (struct iovec){ bufs[i], SLOT };
		msgs[i].msg_hdr.msg_iov = &iovs[i];
		msgs[i].msg_hdr.msg_iovlen = 1;
	}
	h = start(out, NFQNL_MSG_VERDICT_BATCH, 0);
	vp = put(h, NFQA_VERDICT_HDR, &v, sizeof v);
	for (;;) {
		n = recvmmsg(fd, msgs, batch, MSG_WAITFORONE, NULL);
		if (n <= 0) {
			if (errno == EINTR || errno == ENOBUFS)
				continue;
			err(1, "recvmmsg");
		}
		/* The packet's header is the kernel's first attribute. */
		memcpy(&vp->id, bufs[n - 1] + NLMSG_LENGTH(sizeof(struct nfgenmsg)) + NLA_HDRLEN, 4);
		if (send(fd, h, h->nlmsg_len, 0) < 0)
			err(1, "send");
	}
}
