// Package nfqueue judges packets that the kernel queues to user space
// (NFQUEUE): it binds queues, calls a handler for each packet and returns
// verdicts, over netlink and without cgo.
//
//	queues, err := nfqueue.Open(nfqueue.Config{Default: nfqueue.Accept()})
//	…
//	err = queues.Serve(ctx, func(p *nfqueue.Packet) nfqueue.Verdict {
//		if suspicious(p.Payload) {
//			return nfqueue.Drop()
//		}
//		return nfqueue.Accept()
//	})
//
// Packets come from a rule such as one of
//
//	nft add rule inet filter input queue num 0
//	iptables -A INPUT -j NFQUEUE --queue-num 0
//
// # Verdicts
//
// A handler returns Accept, Drop, Repeat or ToQueue, with a mark, a connection
// mark or another payload as needed. To answer later it calls Packet.Hold and
// gives the Held to whoever will; Held.Judge may be called from any
// goroutine, in any order. Every packet gets one verdict: the zero Verdict and
// packets that are still held at the end get Config.Default.
//
// Verdicts of packets that came together are sent together: runs of the
// same verdict as one batch message, and all in one system call. How long the
// first may wait for the others is bounded by Config.MaxDelay and one call of
// the handler. So a handler should not block; it should hold.
//
// # Errors
//
// Open fails with ErrBusy, ErrPermission or ErrUnsupported. After that nothing
// ends Serve but its context and Close: packets lost to a full socket buffer,
// verdicts for packets that the kernel has flushed, and even a queue
// that vanished are counted in Stats and told to Config.Event.
//
// When a program is killed the kernel unbinds its queues and drops what they
// held; rules with bypass let packets pass from then on.
package nfqueue
