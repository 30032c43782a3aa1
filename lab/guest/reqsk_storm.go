//go:build linux

package guest

import (
	"context"
	"fmt"
	"net/netip"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"inquest/nfqueue"
)

// maxStormClients bounds the connections that are begun at a time: each has a thread.
const maxStormClients = 128

// storm tells the story nfqueue-reqsk/storm: connections that are made and closed as
// fast as they can be, while all that the server sends is queued. No packet is chosen
// and held; each waits the same time for its verdict, or none.
//
// The kernel's own test for the bug does so (tools/testing/selftests/netfilter,
// 2e78855d311c): one loop that connects and closes, one that accepts and closes.
func storm(s *story) error {
	r := &requests{story: s, cache: "request_sock_TCP"}
	var err error
	if r.net, err = newNetwork(s); err != nil {
		return err
	}
	if r.before, err = readSlab(r.cache); err != nil {
		return err
	}
	duration, err := s.Duration("time")
	if err != nil {
		return err
	}
	delay, err := s.Duration("delay")
	if err != nil {
		return err
	}
	queues, err := s.Number("queues")
	if err != nil {
		return err
	}
	pairs, err := s.Number("pairs")
	if err != nil {
		return err
	}
	port := uint16(8080)
	if s.Option("outcome") == "warning" {
		port = 48080
		if err := setSysctl("kernel.panic_on_warn=1"); err != nil {
			return err
		}
	}
	var d delayer
	stop, err := d.serve(r.net.server, queues, delay)
	if err != nil {
		return err
	}
	if err := r.net.server.queueing(ruling{
		hook: s.Option("hook"), ports: [2]uint16{port, port + uint16(pairs) - 1}, queues: uint16(queues),
	}); err != nil {
		return err
	}
	if err := s.raiseGuard(r.net.server); err != nil {
		return err
	}
	s.Step(fmt.Sprintf("connect and close, accept and close, for %v", duration))
	ctx, cancel := context.WithTimeout(context.Background(), duration)
	defer cancel()
	var counts struct{ connected, accepted, failed atomic.Int64 }
	var loops sync.WaitGroup
	var listeners []*listener
	// A connection takes as long as its packets wait.
	clients := min(max(1, int(delay/time.Millisecond)), maxStormClients)
	for i := range pairs {
		l, err := r.net.server.listen(netip.AddrPortFrom(r.net.serverAddr, port+uint16(i)), false)
		if err != nil {
			return err
		}
		listeners = append(listeners, l)
		loops.Go(func() { acceptAndClose(ctx, l.fd, s.Option("accept") == "spin", &counts.accepted) })
		for range clients {
			loops.Go(func() {
				r.net.client.do(func() error {
					connectAndClose(ctx, l.addr, &counts.connected, &counts.failed)
					return nil
				})
			})
		}
	}
	loops.Wait()
	for _, l := range listeners {
		unix.Close(l.fd)
	}
	err = within(longEnough, "no connection is half open", func() (bool, error) {
		half, err := r.net.server.halfOpens()
		return len(half) == 0, err
	})
	if err != nil {
		return err
	}
	time.Sleep(delay + 100*time.Millisecond)
	stop()
	s.Fact("connected", counts.connected.Load())
	s.Fact("accepted", counts.accepted.Load())
	s.Fact("failed", counts.failed.Load())
	s.Fact("packets", d.packets.Load())
	slab, err := readSlab(r.cache)
	if err != nil {
		return err
	}
	s.Fact("leaked", slab.Objects-r.before.Objects)
	if err := s.reportGuard(r.net.server); err != nil {
		return err
	}
	return s.Pause("survived")
}

// delayer accepts each packet some time after it came.
type delayer struct{ packets atomic.Int64 }

// serve binds queues 0 and up, each with a thread.
func (d *delayer) serve(n *netns, queues int, delay time.Duration) (stop func(), err error) {
	var bound *nfqueue.Queues
	err = n.do(func() (err error) {
		bound, err = nfqueue.Open(nfqueue.Config{Count: queues, Default: nfqueue.Accept(), MaxLen: 1 << 16})
		return err
	})
	if err != nil {
		return nil, err
	}
	go bound.Serve(context.Background(), func(p *nfqueue.Packet) nfqueue.Verdict {
		d.packets.Add(1)
		if delay == 0 {
			return nfqueue.Accept()
		}
		held := p.Hold()
		time.AfterFunc(delay, func() { held.Judge(nfqueue.Accept()) })
		return nfqueue.Verdict{}
	})
	return func() { bound.Close() }, nil
}

// acceptAndClose accepts connections as soon as there are any: by asking again and
// again, or by sleeping until the kernel wakes it.
func acceptAndClose(ctx context.Context, fd int, spin bool, accepted *atomic.Int64) {
	runtime.LockOSThread()
	for ctx.Err() == nil {
		if !spin {
			unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 100)
		}
		if got, _, err := unix.Accept4(fd, unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC); err == nil {
			accepted.Add(1)
			unix.Close(got)
		}
	}
}

// connectAndClose connects, and closes as soon as it is connected.
func connectAndClose(ctx context.Context, to netip.AddrPort, done, failed *atomic.Int64) {
	for ctx.Err() == nil {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			failed.Add(1)
			return
		}
		unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &unix.Timeval{Sec: 3})
		if err := unix.Connect(fd, sockaddr(to)); err != nil {
			failed.Add(1)
		} else {
			done.Add(1)
		}
		unix.Close(fd)
	}
}
