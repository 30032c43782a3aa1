//go:build linux

package guest

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"inquest/nfqueue"
)

// reqsk tells the stories nfqueue-reqsk/retransmit and nfqueue-reqsk/expired: a
// request socket whose last reference is that of a SYN/ACK which waits in a queue.
//
// Many connections are begun, so that their request sockets fill slabs; of these one
// is made the victim, behind which another lies in memory: the neighbour. Which
// members of struct sock the kernel then takes for the victim's is no chance.
func reqsk(s *story) error {
	if s.Name == "nfqueue-reqsk/storm" {
		return storm(s)
	}
	r, err := newRequests(s)
	if err != nil {
		return err
	}
	steps := []func() error{r.begin, r.choose, r.retransmitted, r.lookAtNeighbour, r.account}
	switch {
	case s.Option("guard") == "rule" && r.net.hooked(s.Option("hook")) == r.net.server:
		steps = []func() error{r.begin, r.unqueued, r.account}
	case s.Name == "nfqueue-reqsk/expired":
		steps[2] = r.expired
	}
	for _, step := range steps {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

// requests are the connections of such a story.
type requests struct {
	*story
	net     *network
	daemon  *daemon
	cache   string    // slab cache of the request sockets
	before  slabCache // in which nothing lives yet
	sockets slabCache // of the listeners' cache, likewise

	ports      []uint16       // that clients call from
	victims    *listener      // SYN/ACKs from here are given up after tcp_synack_retries
	neighbours *listener      // and from here never
	dialled    map[uint16]int // clients' sockets, by port

	victim, neighbour halfOpen
}

// Connections are begun from ports firstClient and up, in turns to either listener.
// 80 fill six slabs.
const (
	firstClient = 20000
	clients     = 80
	never       = 127 // retries of a SYN/ACK
)

// longEnough is how long anything may take that is not to be waited for.
const longEnough = 20 * time.Second

func newRequests(s *story) (*requests, error) {
	r := &requests{story: s, dialled: make(map[uint16]int), cache: "request_sock_TCP"}
	if s.Option("family") == "ipv6" {
		r.cache = "request_sock_TCPv6"
	}
	// Root reads addresses in /proc/net/tcp.
	if err := setSysctl("kernel.kptr_restrict=1"); err != nil {
		return nil, err
	}
	var err error
	if r.net, err = newNetwork(s); err != nil {
		return nil, err
	}
	if r.before, err = readSlab(r.cache); err != nil {
		return nil, err
	}
	err = within(longEnough, "no listener is left of trying the way", func() (bool, error) {
		r.sockets, err = readSlab(r.listenerCache())
		return r.sockets.Objects == 0, err
	})
	if err != nil {
		return nil, err
	}
	// At 324 bytes from a tcp_request_sock the kernel believes a struct sock's
	// sk_wmem_alloc; that is bytes 12 to 15 of the next one, its ports: the
	// client's below, in network order, and the listener's above. Decremented they are
	// another client's port, but for a listener's port from 32768 on, which
	// make a refcount_t negative.
	port := uint16(8080)
	if s.Option("outcome") == "warning" {
		port = 48080
	}
	mapped := s.Option("family") == "mapped"
	if r.victims, err = r.net.server.listen(netip.AddrPortFrom(r.net.serverAddr, port), mapped); err != nil {
		return nil, err
	}
	if r.neighbours, err = r.net.server.listen(netip.AddrPortFrom(r.net.serverAddr, port+1), mapped); err != nil {
		return nil, err
	}
	if err := r.neighbours.retries(never); err != nil {
		return nil, err
	}
	if s.Option("bind") == "yes" {
		for _, l := range []*listener{r.victims, r.neighbours} {
			if err := unix.BindToDevice(l.fd, r.net.device); err != nil {
				return nil, fmt.Errorf("bind to %s: %w", r.net.device, err)
			}
		}
	}
	at := r.net.hooked(s.Option("hook"))
	conntrack := s.Option("conntrack") == "yes"
	if r.daemon, err = holdSynAcks(at, nfqueue.Config{
		Default: nfqueue.Accept(), Conntrack: conntrack, GSO: s.Option("gso") == "yes",
	}); err != nil {
		return nil, err
	}
	if err := at.queueing(ruling{
		hook: s.Option("hook"), ports: [2]uint16{port, port + 1}, synAcks: true, conntrack: conntrack,
	}); err != nil {
		return nil, err
	}
	return r, r.raiseGuard(at)
}

// listenerCache is the slab cache of the listeners: a request socket has a reference
// on its listener.
func (r *requests) listenerCache() string {
	if r.Option("family") == "ipv4" {
		return "TCP"
	}
	return "TCPv6"
}

// begin begins the connections.
func (r *requests) begin() error {
	r.Step(fmt.Sprintf("begin %d connections, whose SYN/ACKs are held", clients))
	for i := range uint16(clients) {
		to := r.neighbours
		if i%2 == 0 {
			to = r.victims
		}
		port := firstClient + i
		fd, err := r.net.client.dial(netip.AddrPortFrom(r.net.clientAddr, port), to.addr)
		if err != nil {
			return err
		}
		r.dialled[port] = fd
		r.ports = append(r.ports, port)
	}
	return nil
}

// unqueued completes all connections, none of whose SYN/ACKs is to have come by the
// daemon.
func (r *requests) unqueued() error {
	held := 0
	for _, port := range r.ports {
		held += r.daemon.count(port)
		if err := r.finish(port); err != nil {
			return err
		}
	}
	r.Fact("held", held)
	return nil
}

// choose looks for a victim and its neighbour, when all SYN/ACKs are held.
func (r *requests) choose() error {
	if err := r.daemon.wait(r.ports, 1, longEnough); err != nil {
		return err
	}
	half, err := r.net.server.halfOpens()
	if err != nil {
		return err
	}
	slab, err := readSlab(r.cache)
	if err != nil {
		return err
	}
	if err := r.pick(half, slab.Slot); err != nil {
		return err
	}
	r.Fact("request_sockets", slab.Objects-r.before.Objects)
	r.Fact("slot", slab.Slot)
	r.Fact("victim", addressText(r.victim.Object))
	r.Fact("victim_client", r.victim.Remote.String())
	r.Fact("neighbour", addressText(r.neighbour.Object))
	r.Fact("neighbour_client", r.neighbour.Remote.String())

	// The others have done their duty; before their retransmissions are due, too.
	for _, port := range r.ports {
		if port != r.victim.Remote.Port() && port != r.neighbour.Remote.Port() {
			if err := r.finish(port); err != nil {
				return err
			}
		}
	}
	return nil
}

// pick finds a victim with a neighbour, and with one more behind that, lest what lies
// there be the end of a slab. A kernel that does not show addresses gets any two.
func (r *requests) pick(half []halfOpen, slot uint64) error {
	at := make(map[uint64]halfOpen)
	for _, h := range half {
		at[h.Object] = h
	}
	listens := func(h halfOpen, l *listener) bool { return h.Local.Port() == l.addr.Port() }
	hidden := true
	for _, h := range half {
		if h.Object == 0 {
			continue
		}
		hidden = false
		next, ok := at[h.Object+slot]
		_, more := at[h.Object+2*slot]
		if ok && more && listens(h, r.victims) && listens(next, r.neighbours) {
			r.victim, r.neighbour = h, next
			return nil
		}
	}
	if !hidden {
		return fmt.Errorf("of %d request sockets no two lie as they should", len(half))
	}
	for _, h := range half {
		if listens(h, r.victims) {
			r.victim = h
		} else {
			r.neighbour = h
		}
	}
	return nil
}

// finish completes a connection, and closes it. Its request socket is freed as it
// should be: the references of SYN/ACKs are given back before accept() is called.
func (r *requests) finish(port uint16) error {
	if err := r.pass(port); err != nil {
		return err
	}
	if err := connected(r.dialled[port], longEnough); err != nil {
		return fmt.Errorf("finish the connection from port %d: %w", port, err)
	}
	// It may have been sent once more meanwhile, but is not from now on.
	if err := errors.Join(r.daemon.catchUp(0), r.pass(port)); err != nil {
		return err
	}
	fd, err := r.listenerOf(port).accept(port, longEnough)
	if err != nil {
		return err
	}
	unix.Close(fd)
	return r.hangUp(port)
}

// pass lets the SYN/ACKs to a port pass that are held, the last one first.
func (r *requests) pass(port uint16) error {
	for _, p := range slices.Backward(r.daemon.take(port)) {
		if err := p.Judge(nfqueue.Accept()); err != nil {
			return err
		}
	}
	return nil
}

func (r *requests) listenerOf(port uint16) *listener {
	if port%2 == firstClient%2 {
		return r.victims
	}
	return r.neighbours
}

// hangUp closes a client's socket.
func (r *requests) hangUp(port uint16) error {
	fd := r.dialled[port]
	delete(r.dialled, port)
	return unix.Close(fd)
}

// retransmitted lets the victim's handshake end while its SYN/ACK, sent again, waits.
func (r *requests) retransmitted() error {
	port := r.victim.Remote.Port()
	r.Step("wait for the SYN/ACK to be sent again")
	if err := r.daemon.wait([]uint16{port}, 2, longEnough); err != nil {
		return err
	}
	if r.Option("outcome") == "leak" {
		if err := r.finish(r.neighbour.Remote.Port()); err != nil {
			return err
		}
	}
	held := r.daemon.take(port)
	r.Step("release the first, so that the handshake ends")
	if err := held[0].Judge(nfqueue.Accept()); err != nil {
		return err
	}
	if err := connected(r.dialled[port], longEnough); err != nil {
		return err
	}
	// It may have been sent once more meanwhile, but is not from now on.
	held = held[1:]
	if err := r.daemon.catchUp(len(held)); err != nil {
		return err
	}
	held = append(held, r.daemon.take(port)...)
	r.Fact("held", len(held))
	if r.Option("accept") == "yes" {
		fd, err := r.victims.accept(port, longEnough)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		r.Step("accept() returned; release the others")
	} else {
		r.Step("release the others; accept() was not called")
	}
	return r.release(held)
}

// expired lets the victim's request socket be given up while its SYN/ACK waits.
func (r *requests) expired() error {
	port := r.victim.Remote.Port()
	// A client that is still there sends its SYN again, and begins a new one.
	if err := r.hangUp(port); err != nil {
		return err
	}
	if r.Option("outcome") == "leak" {
		if err := r.finish(r.neighbour.Remote.Port()); err != nil {
			return err
		}
	}
	r.Step("wait for the kernel to give the connection up")
	if err := r.net.server.sysctl("net/ipv4/tcp_synack_retries", "0"); err != nil {
		return err
	}
	err := within(longEnough, "the request socket is given up", func() (bool, error) {
		half, err := r.net.server.halfOpens()
		return !slices.ContainsFunc(half, func(h halfOpen) bool { return h.Remote.Port() == port }), err
	})
	if err != nil {
		return err
	}
	held := r.daemon.take(port)
	r.Fact("held", len(held))
	r.Step("release its SYN/ACK")
	return r.release(held)
}

// release gives the SYN/ACKs their verdicts, the last of which drops the last
// reference.
func (r *requests) release(held []synAck) error {
	outcome := r.Option("outcome")
	if outcome == "crash" || r.Option("bind") == "yes" { // the others leave who can be asked
		if err := r.Pause("armed"); err != nil {
			return err
		}
	}
	if outcome == "warning" {
		if err := setSysctl("kernel.panic_on_warn=1"); err != nil {
			return err
		}
	}
	if r.Option("verdict") == "flush" {
		return r.daemon.ns.unqueueing(r.Option("hook"))
	}
	for _, p := range held {
		verdict := nfqueue.Accept()
		switch r.Option("verdict") {
		case "drop":
			verdict = nfqueue.Drop()
		case "grow": // by more than the packet's memory has room for
			verdict = verdict.WithPayload(append(p.payload, make([]byte, 1024)...))
		}
		if err := p.Judge(verdict); err != nil {
			return err
		}
	}
	return nil
}

// account says what the survivor looks like.
func (r *requests) account() error {
	if err := r.daemon.hasten(); err != nil {
		return err
	}
	for port := range r.dialled {
		r.hangUp(port)
	}
	for _, l := range []*listener{r.victims, r.neighbours} {
		for _, fd := range l.strange {
			unix.Close(fd)
		}
		unix.Close(l.fd)
	}
	// The kernel gives up the half-open connections of a listener that is gone one by
	// one, and frees the rest soon, but not at once.
	err := within(longEnough, "no connection is half open", func() (bool, error) {
		half, err := r.net.server.halfOpens()
		return len(half) == 0, err
	})
	if err != nil {
		return err
	}
	var slab, sockets slabCache
	for end := time.Now().Add(5 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if slab, err = readSlab(r.cache); err != nil {
			return err
		}
		if sockets, err = readSlab(r.listenerCache()); err != nil {
			return err
		}
		if slab.Objects <= r.before.Objects && sockets.Objects <= r.sockets.Objects {
			break
		}
	}
	r.Fact("leaked", slab.Objects-r.before.Objects)
	r.Fact("leaked_listeners", sockets.Objects-r.sockets.Objects)
	if err := r.reportGuard(r.daemon.ns); err != nil {
		return err
	}
	return r.Pause("survived")
}

// lookAtNeighbour says what has become of the neighbour, and whether its connection
// can still be made.
func (r *requests) lookAtNeighbour() error {
	if _, open := r.dialled[r.neighbour.Remote.Port()]; !open {
		return nil
	}
	half, err := r.net.server.halfOpens()
	if err != nil {
		return err
	}
	same := func(h halfOpen) bool {
		return h.Object == r.neighbour.Object && h.Local.Port() == r.neighbour.Local.Port()
	}
	i := slices.IndexFunc(half, same)
	if i < 0 {
		r.Fact("neighbour_client", "gone")
	} else {
		r.Fact("neighbour_client", half[i].Remote.String())
	}
	r.Step("let the neighbour's handshake end")
	port := r.neighbour.Remote.Port()
	if err := r.pass(port); err != nil {
		return err
	}
	fate := "accepted"
	if err := connected(r.dialled[port], longEnough); err != nil {
		fate = "client: " + err.Error()
	} else if fd, err := r.neighbours.accept(port, time.Second); err == nil {
		unix.Close(fd)
	} else if fate = "never accepted"; socketError(r.dialled[port]) != nil {
		fate = "reset"
	}
	r.Fact("neighbour_connection", fate)
	return nil
}

// addressText is an address of the kernel; "hidden" if it does not show it.
func addressText(addr uint64) string {
	if addr == 0 {
		return "hidden"
	}
	return fmt.Sprintf("%#x", addr)
}

// network is where a story's packets go.
type network struct {
	server, client, between *netns // the same where there is no cable
	serverAddr, clientAddr  netip.Addr
	device                  string // of the server
}

// newNetwork makes what the options path and family say.
func newNetwork(s *story) (*network, error) {
	own, err := ownNamespace()
	if err != nil {
		return nil, err
	}
	n := &network{server: own, client: own, between: own, device: "eth0"}
	v6 := s.Option("family") == "ipv6"
	if s.Option("path") == "lo" {
		n.serverAddr = netip.MustParseAddr("127.0.0.1")
		if v6 {
			n.serverAddr = netip.IPv6Loopback()
		}
		n.clientAddr, n.device = n.serverAddr, "lo"
		return n, own.links(func(l *links) error { return l.up("lo") })
	}
	if n.server, err = newNamespace(); err != nil {
		return nil, err
	}
	if n.client, err = newNamespace(); err != nil {
		return nil, err
	}
	if s.Option("path") == "bridge" {
		err = own.links(func(l *links) error {
			return errors.Join(
				l.veth("server", n.server, "eth0"),
				l.veth("client", n.client, "eth0"),
				l.bridge("bridge", "server", "client"))
		})
	} else {
		err = n.server.links(func(l *links) error { return l.veth("eth0", n.client, "eth0") })
	}
	if err != nil {
		return nil, err
	}
	prefixes := []string{"10.9.0.1/24", "10.9.0.2/24"}
	if v6 {
		prefixes = []string{"fd09::1/64", "fd09::2/64"}
	}
	for i, ns := range []*netns{n.server, n.client} {
		prefix := netip.MustParsePrefix(prefixes[i])
		err := ns.links(func(l *links) error {
			return errors.Join(l.address("eth0", prefix), l.up("eth0"))
		})
		if err != nil {
			return nil, err
		}
		*[]*netip.Addr{&n.serverAddr, &n.clientAddr}[i] = prefix.Addr()
	}
	return n, n.settle()
}

// settle waits until a connection gets through the cables.
func (n *network) settle() error {
	const port = 7
	l, err := n.server.listen(netip.AddrPortFrom(n.serverAddr, port), false)
	if err != nil {
		return err
	}
	defer unix.Close(l.fd)
	fd, err := n.client.dial(netip.AddrPortFrom(n.clientAddr, port), l.addr)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := connected(fd, longEnough); err != nil {
		return fmt.Errorf("the way from %s to %s: %w", n.clientAddr, n.serverAddr, err)
	}
	taken, err := l.accept(port, longEnough)
	if err != nil {
		return err
	}
	return unix.Close(taken)
}

// hooked is the namespace in which SYN/ACKs come by a hook.
func (n *network) hooked(hook string) *netns {
	switch hook {
	case "prerouting", "input":
		return n.client
	case "bridge":
		return n.between
	}
	return n.server
}
