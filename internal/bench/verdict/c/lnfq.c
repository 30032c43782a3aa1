/*
 * lnfq QUEUE BATCH LENGTH: the reader of libnetfilter_queue's manual, with its
 * advice on speed (a large receive buffer, no ENOBUFS, no segmentation). BATCH 1
 * gives each packet its own verdict; more accepts that many with one batch verdict,
 * and what is left when the socket has run dry.
 */
#include <arpa/inet.h>
#include <err.h>
#include <errno.h>
#include <libnetfilter_queue/libnetfilter_queue.h>
#include <linux/netfilter.h>
#include <linux/netlink.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/socket.h>

static uint32_t batch, pending, last;
static unsigned long bytes;

static int packet(struct nfq_q_handle *q, struct nfgenmsg *m, struct nfq_data *d, void *unused)
{
	struct nfqnl_msg_packet_hdr *h = nfq_get_msg_packet_hdr(d);
	unsigned char *payload;
	int len = nfq_get_payload(d, &payload);

	if (len > 0)
		bytes += payload[0] + len;
	if (!h)
		return 0;
	last = ntohl(h->packet_id);
	if (batch == 1)
		return nfq_set_verdict(q, last, NF_ACCEPT, 0, NULL);
	if (++pending < batch)
		return 0;
	pending = 0;
	return nfq_set_verdict_batch(q, last, NF_ACCEPT);
}

int main(int argc, char **argv)
{
	static char buf[0x10000 + 4096] __attribute__((aligned));
	struct nfq_handle *h = nfq_open();
	struct nfq_q_handle *q;
	int fd, n, size = 8 << 20, one = 1;

	batch = argc > 2 ? atoi(argv[2]) : 1;
	if (!h || !(q = nfq_create_queue(h, argc > 1 ? atoi(argv[1]) : 0, packet, NULL)))
		err(1, "nfq_create_queue");
	nfq_set_queue_maxlen(q, argc > 3 ? atoi(argv[3]) : 1024);
	if (nfq_set_mode(q, NFQNL_COPY_PACKET, 0xffff) < 0)
		err(1, "nfq_set_mode");
	if (nfq_set_queue_flags(q, NFQA_CFG_F_GSO, NFQA_CFG_F_GSO) < 0)
		err(1, "nfq_set_queue_flags");
	fd = nfq_fd(h);
	setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof size);
	setsockopt(fd, SOL_NETLINK, NETLINK_NO_ENOBUFS, &one, sizeof one);
	for (;;) {
		n = recv(fd, buf, sizeof buf, pending ? MSG_DONTWAIT : 0);
		if (n > 0) {
			nfq_handle_packet(h, buf, n);
			continue;
		}
		if (n < 0 && errno == EAGAIN && pending) {
			nfq_set_verdict_batch(q, last, NF_ACCEPT);
			pending = 0;
			continue;
		}
		if (errno != EINTR && errno != ENOBUFS)
			err(1, "recv");
	}
}
