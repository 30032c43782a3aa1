//go:build linux

package guest

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"inquest/guard"
	"inquest/nfqueue"
)

func init() { stories["guard/load"] = guardLoad }

// guardLoad tells the story guard/load: connections that are made, used and closed,
// each checked to be the one that it says it is, while all that the server sends is
// queued and SYN/ACKs wait as long as chance will have it. Those that wait longest are
// sent again meanwhile, so that their second, which is judged after accept(), has the
// last reference on the request socket: the bug's condition.
func guardLoad(s *story) error {
	l := &load{story: s}
	err := errors.Join(
		l.number("connections", &l.connections), l.number("clients", &l.clients), l.number("late", &l.late),
		l.duration("hold", &l.hold), l.duration("reload", &l.reload),
	)
	if err != nil {
		return err
	}
	for _, assignment := range []string{
		"net.core.somaxconn=4096", "net.ipv4.tcp_max_syn_backlog=65536",
		"net.ipv4.tcp_syncookies=0",               // a SYN/ACK with a cookie has no request socket
		"net.ipv4.ip_local_port_range=1024 65535", // clients: many
	} {
		if err := setSysctl(assignment); err != nil {
			return err
		}
	}
	if l.ns, err = ownNamespace(); err != nil {
		return err
	}
	if err := l.ns.links(func(k *links) error { return k.up("lo") }); err != nil {
		return err
	}
	before, err := readSlab("request_sock_TCP")
	if err != nil {
		return err
	}
	if err := l.serve(); err != nil {
		return err
	}
	if err := l.raiseGuard(l.ns); err != nil {
		return err
	}
	l.Step(fmt.Sprintf("make %d connections, %d at a time", l.connections, l.clients))
	start := time.Now()
	if err := l.run(); err != nil {
		return err
	}
	seconds := time.Since(start).Seconds()
	l.drain()
	l.Fact("seconds", seconds)
	l.Fact("connected", l.connected.Load())
	l.Fact("lost", l.lost.Load())
	l.Fact("wrong", l.wrong.Load())
	l.Fact("synacks_queued", l.queued.Load())
	l.Fact("synacks_held_longest", time.Duration(l.longest.Load()).String())
	l.Fact("synacks_late", l.lates.Load())
	l.Fact("synacks_again", l.again.Load())
	l.Fact("packets", l.packets.Load())
	l.Fact("reloads", l.reloads.Load())
	if first := l.problem.Load(); first != nil {
		l.Fact("first_problem", first.(string))
	}
	if err := l.reportGuard(l.ns); err != nil {
		return err
	}
	if l.Option("guard") == "hook" {
		l.Step("unload the kernel module")
		if err := guard.Unload(); err != nil {
			return err
		}
	}
	var slab slabCache
	err = within(5*time.Second, "all request sockets are freed", func() (ok bool, err error) {
		slab, err = readSlab("request_sock_TCP")
		return slab.Objects <= before.Objects, err
	})
	if err != nil && slab.Slot == 0 {
		return err
	}
	l.Fact("leaked", slab.Objects-before.Objects)
	if n := l.lost.Load() + l.wrong.Load(); n > 0 {
		return fmt.Errorf("%d of %d connections were lost, %d were another's", l.lost.Load(), l.connections, l.wrong.Load())
	}
	return nil
}

// load is what the story knows.
type load struct {
	*story
	ns                         *netns
	connections, clients, late int
	hold, reload               time.Duration

	queues   *nfqueue.Queues
	listener *net.TCPListener
	waiting  sync.Map     // how many SYN/ACKs were queued lately, by client
	shield   sync.RWMutex // locked while it is down

	connected, lost, wrong, queued, again, packets, longest, lates, reloads atomic.Int64
	problem                                                                 atomic.Value
}

func (l *load) number(key string, to *int) (err error) {
	*to, err = l.Number(key)
	return err
}

func (l *load) duration(key string, to *time.Duration) (err error) {
	*to, err = l.Duration(key)
	return err
}

// loadPort is the server's; above 32767, so that a request socket with one reference
// too few is seen (see newRequests).
const loadPort = 48080

// serve starts the server and the daemon, and sets the rule.
func (l *load) serve() error {
	var err error
	if l.listener, err = net.ListenTCP("tcp4", &net.TCPAddr{Port: loadPort}); err != nil {
		return err
	}
	go l.accept()
	l.queues, err = nfqueue.Open(nfqueue.Config{Default: nfqueue.Accept(), MaxLen: 1 << 16, CopyRange: 128})
	if err != nil {
		return err
	}
	go l.queues.Serve(context.Background(), l.judge)
	return l.ns.queueing(ruling{hook: "output", ports: [2]uint16{loadPort, loadPort}})
}

// judge accepts everything, SYN/ACKs after a while.
func (l *load) judge(p *nfqueue.Packet) nfqueue.Verdict {
	l.packets.Add(1)
	if _, ok := synAckPort(p.Payload); !ok {
		return nfqueue.Accept()
	}
	// Clients share ports, by their addresses.
	client := [6]byte(append(append([]byte{}, p.Payload[16:20]...), p.Payload[22:24]...))
	n := l.queued.Add(1)
	first := new(atomic.Int64)
	if others, again := l.waiting.LoadOrStore(client, first); again {
		first = others.(*atomic.Int64)
	} else {
		time.AfterFunc(10*time.Second, func() { l.waiting.CompareAndDelete(client, first) })
	}
	wait := time.Duration(rand.Int64N(int64(l.hold) + 1))
	if first.Add(1) > 1 {
		// Behind the first: the handshake ends, accept() returns, and then this.
		l.again.Add(1)
		wait += 1500 * time.Millisecond
	} else if l.late > 0 && n%int64(l.late) == 0 {
		l.lates.Add(1)
		wait = 1500 * time.Millisecond // TCP_TIMEOUT_INIT is 1 s
	}
	held, since := p.Hold(), time.Now()
	time.AfterFunc(wait, func() {
		if first.Load() > 1 {
			// It may have the last reference, and needs the shield.
			l.shield.RLock()
			defer l.shield.RUnlock()
		}
		raise(&l.longest, int64(time.Since(since)))
		if err := held.Judge(nfqueue.Accept()); err != nil {
			l.say("judge: " + err.Error())
		}
	})
	return nfqueue.Verdict{}
}

// raise makes a number at least as large as another.
func raise(to *atomic.Int64, n int64) {
	for old := to.Load(); old < n && !to.CompareAndSwap(old, n); old = to.Load() {
	}
}

// accept tells each client which address and port it has, as the server sees them. While
// the shield is down it accepts nothing: the listener's queue keeps a reference on the
// request sockets.
func (l *load) accept() {
	for {
		l.shield.RLock()
		l.listener.SetDeadline(time.Now().Add(20 * time.Millisecond))
		conn, err := l.listener.Accept()
		l.shield.RUnlock()
		if errors.Is(err, os.ErrDeadlineExceeded) {
			continue
		}
		if err != nil {
			return
		}
		go func() {
			defer conn.Close()
			conn.SetDeadline(time.Now().Add(longEnough))
			conn.Write(token(conn.RemoteAddr()))
			io.Copy(io.Discard, conn) // until the client is done
		}()
	}
}

// token is an address and a port in six bytes.
func token(a net.Addr) []byte {
	ap := a.(*net.TCPAddr).AddrPort()
	ip := ap.Addr().Unmap().As4()
	return binary.BigEndian.AppendUint16(ip[:], ap.Port())
}

// run has all clients make their connections.
func (l *load) run() error {
	stop := make(chan struct{})
	var others sync.WaitGroup
	if l.reload > 0 {
		others.Go(func() { l.reloading(stop) })
	}
	var next atomic.Int64
	var clients sync.WaitGroup
	for i := range l.clients {
		// Each has addresses of its own, and so all ports.
		from := netip.AddrFrom4([4]byte{127, 0, byte(1 + i/250), byte(1 + i%250)})
		clients.Go(func() {
			for next.Add(1) <= int64(l.connections) {
				l.connect(from)
			}
		})
	}
	clients.Wait()
	close(stop)
	others.Wait()
	return nil
}

// connect makes one connection, and checks that it is its own.
func (l *load) connect(from netip.Addr) {
	dialer := net.Dialer{Timeout: 30 * time.Second, LocalAddr: &net.TCPAddr{IP: from.AsSlice()}}
	conn, err := dialer.Dial("tcp4", fmt.Sprintf("127.0.0.1:%d", loadPort))
	if err != nil {
		l.lost.Add(1)
		l.say(err.Error())
		return
	}
	defer conn.Close()
	conn.(*net.TCPConn).SetLinger(0) // the port is free at once
	conn.SetDeadline(time.Now().Add(30 * time.Second))
	got := make([]byte, 6)
	if _, err := io.ReadFull(conn, got); err != nil {
		l.lost.Add(1)
		l.say(err.Error())
		return
	}
	if string(got) != string(token(conn.LocalAddr())) {
		l.wrong.Add(1)
		l.say(fmt.Sprintf("the connection from %v is known to the server as that from %v", conn.LocalAddr(), got))
		return
	}
	l.connected.Add(1)
}

// reloading takes the shield away and raises it again, under load. Meanwhile no verdict
// is given that could be on a last reference.
func (l *load) reloading(stop <-chan struct{}) {
	for {
		select {
		case <-stop:
			return
		case <-time.After(l.reload): // for so long it stays up
		}
		if err := l.reloadOnce(); err != nil {
			l.lost.Add(1)
			l.say("reload: " + err.Error())
			return
		}
		l.reloads.Add(1)
	}
}

func (l *load) reloadOnce() error {
	l.shield.Lock()
	defer l.shield.Unlock()
	const settle = 300 * time.Millisecond // verdicts that were given are carried out
	time.Sleep(settle)
	defer time.Sleep(settle)
	if l.Option("guard") == "hook" {
		if err := guard.Unload(); err != nil {
			return err
		}
		return guard.Load(guardFile)
	}
	return l.ns.do(func() error {
		if _, err := guard.RemoveRules(context.Background()); err != nil {
			return err
		}
		_, err := guard.ApplyRules(context.Background())
		return err
	})
}

// drain waits until nothing is held any more.
func (l *load) drain() {
	time.Sleep(l.hold + 2*time.Second)
	l.listener.Close()
	l.queues.Close()
}

// say notes the first problem.
func (l *load) say(problem string) {
	if l.problem.CompareAndSwap(nil, problem) {
		fmt.Fprintln(os.Stderr, "guest:", problem)
		unix.Sync()
	}
}
