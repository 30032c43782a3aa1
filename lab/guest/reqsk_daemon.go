//go:build linux

package guest

import (
	"context"
	"encoding/binary"
	"fmt"
	"sync"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"inquest/nfqueue"
)

// hooks are where rules can queue packets, by the names of option hook. The first two
// are on the way out of the machine that made the packet, the others come after.
var hooks = map[string]struct {
	family nftables.TableFamily
	kind   *nftables.ChainHook
}{
	"output":      {nftables.TableFamilyINet, nftables.ChainHookOutput},
	"postrouting": {nftables.TableFamilyINet, nftables.ChainHookPostrouting},
	"prerouting":  {nftables.TableFamilyINet, nftables.ChainHookPrerouting},
	"input":       {nftables.TableFamilyINet, nftables.ChainHookInput},
	"bridge":      {nftables.TableFamilyBridge, nftables.ChainHookForward},
}

// ruling says which packets a namespace queues.
type ruling struct {
	hook      string
	ports     [2]uint16 // source ports, both included
	synAcks   bool      // only SYN/ACKs
	conntrack bool      // with the connection's state known, which makes the kernel track all connections
	queues    uint16    // 0 to queues-1, by a hash of the connection
}

// tcpSYN and tcpACK are bits of a TCP header's byte 13.
const tcpSYN, tcpACK = 0x02, 0x10

// queueing has the namespace queue what a ruling says:
//
//	tcp sport 8080-8081 tcp flags & (syn|ack) == syn|ack queue num 0
func (n *netns) queueing(r ruling) error {
	conn, err := nftables.New(nftables.WithNetNSFd(int(n.file.Fd())))
	if err != nil {
		return err
	}
	hook := hooks[r.hook]
	table := conn.AddTable(&nftables.Table{Name: "lab", Family: hook.family})
	chain := conn.AddChain(&nftables.Chain{
		Name: r.hook, Table: table,
		Type: nftables.ChainTypeFilter, Hooknum: hook.kind, Priority: nftables.ChainPriorityFilter,
	})
	port := func(p uint16) []byte { return binaryutil.BigEndian.PutUint16(p) }
	var exprs []expr.Any
	if hook.family != nftables.TableFamilyBridge { // there meta is a module of its own, and nothing but TCP comes by
		exprs = append(exprs,
			&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1},
			&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{unix.IPPROTO_TCP}})
	}
	exprs = append(exprs,
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 0, Len: 2},
		&expr.Cmp{Op: expr.CmpOpGte, Register: 1, Data: port(r.ports[0])},
		&expr.Cmp{Op: expr.CmpOpLte, Register: 1, Data: port(r.ports[1])})
	if r.conntrack {
		exprs = append(exprs, &expr.Ct{Key: expr.CtKeySTATE, Register: 1})
	}
	if r.synAcks {
		const both = tcpSYN | tcpACK
		exprs = append(exprs,
			&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 13, Len: 1},
			&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 1, Mask: []byte{both}, Xor: []byte{0}},
			&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{both}})
	}
	exprs = append(exprs, &expr.Queue{Num: 0, Total: max(r.queues, 1)})
	conn.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: exprs})
	if err := conn.Flush(); err != nil {
		return fmt.Errorf("set the rule in %s: %w", r.hook, err)
	}
	return nil
}

// unqueueing takes a hook's rules away, as a ruleset that is loaded anew does. The
// kernel drops what they had queued.
func (n *netns) unqueueing(hook string) error {
	conn, err := nftables.New(nftables.WithNetNSFd(int(n.file.Fd())))
	if err != nil {
		return err
	}
	// Some other chain stays: without any at the hook nf_reinject() warns of what it drops.
	table := conn.AddTable(&nftables.Table{Name: "other", Family: hooks[hook].family})
	conn.AddChain(&nftables.Chain{
		Name: hook, Table: table,
		Type: nftables.ChainTypeFilter, Hooknum: hooks[hook].kind, Priority: nftables.ChainPrioritySecurity,
	})
	conn.DelTable(&nftables.Table{Name: "lab", Family: hooks[hook].family})
	if err := conn.Flush(); err != nil {
		return fmt.Errorf("take the rule in %s away: %w", hook, err)
	}
	return nil
}

// daemon is a program that judges packets, and takes its time.
type daemon struct {
	ns     *netns
	queues *nfqueue.Queues

	mu      sync.Mutex
	held    map[uint16][]synAck // by the port that they go to, in the order of their coming
	hastens bool                // nothing is held any more
}

// synAck is a packet that waits for its verdict.
type synAck struct {
	nfqueue.Held
	payload []byte
}

// holdSynAcks starts a daemon in a namespace that holds all SYN/ACKs.
func holdSynAcks(n *netns, cfg nfqueue.Config) (*daemon, error) {
	d := &daemon{ns: n, held: make(map[uint16][]synAck)}
	err := n.do(func() (err error) {
		d.queues, err = nfqueue.Open(cfg)
		return err
	})
	if err != nil {
		return nil, err
	}
	go d.queues.Serve(context.Background(), func(p *nfqueue.Packet) nfqueue.Verdict {
		port, ok := synAckPort(p.Payload)
		if !ok {
			return nfqueue.Accept()
		}
		d.mu.Lock()
		defer d.mu.Unlock()
		if d.hastens {
			return nfqueue.Accept()
		}
		d.held[port] = append(d.held[port], synAck{p.Hold(), append([]byte(nil), p.Payload...)})
		return nfqueue.Verdict{}
	})
	return d, nil
}

// count is how many SYN/ACKs to a port are held.
func (d *daemon) count(port uint16) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.held[port])
}

// take returns the SYN/ACKs to a port that are held, for their verdicts.
func (d *daemon) take(port uint16) []synAck {
	d.mu.Lock()
	defer d.mu.Unlock()
	list := d.held[port]
	delete(d.held, port)
	return list
}

// hasten releases all that is held, and holds nothing from now on.
func (d *daemon) hasten() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.hastens = true
	for _, list := range d.held {
		for _, p := range list {
			if err := p.Judge(nfqueue.Accept()); err != nil {
				return err
			}
		}
	}
	clear(d.held)
	return nil
}

// catchUp waits until the daemon has all that the kernel has queued, but for those
// that were taken and have no verdict yet.
func (d *daemon) catchUp(taken int) error {
	return within(longEnough, "the daemon has all packets of its queue", func() (caughtUp bool, err error) {
		err = d.ns.do(func() error {
			stats, err := nfqueue.ReadKernelStats()
			if err == nil && len(stats) == 1 {
				d.mu.Lock()
				defer d.mu.Unlock()
				waiting := taken
				for _, list := range d.held {
					waiting += len(list)
				}
				caughtUp = int(stats[0].Waiting) == waiting
			}
			return err
		})
		return caughtUp, err
	})
}

// wait waits until each port has so many SYN/ACKs held.
func (d *daemon) wait(ports []uint16, n int, patience time.Duration) error {
	return within(patience, fmt.Sprintf("%d SYN/ACKs for each of %d connections", n, len(ports)), func() (bool, error) {
		for _, port := range ports {
			if d.count(port) < n {
				return false, nil
			}
		}
		return true, nil
	})
}

// within waits until something is so, for which it looks every few milliseconds.
func within(patience time.Duration, what string, so func() (bool, error)) error {
	for end := time.Now().Add(patience); ; time.Sleep(2 * time.Millisecond) {
		if ok, err := so(); ok || err != nil {
			return err
		}
		if time.Now().After(end) {
			return fmt.Errorf("%s: not within %v", what, patience)
		}
	}
}

// synAckPort returns the port that a SYN/ACK goes to.
func synAckPort(packet []byte) (port uint16, ok bool) {
	if len(packet) == 0 {
		return 0, false
	}
	header := 40 // of IPv6, without extensions
	protocol := 6
	if packet[0]>>4 == 4 {
		header, protocol = int(packet[0]&15)*4, 9
	}
	if len(packet) < header+14 || packet[protocol] != unix.IPPROTO_TCP {
		return 0, false
	}
	tcp := packet[header:]
	return binary.BigEndian.Uint16(tcp[2:]), tcp[13]&(tcpSYN|tcpACK) == tcpSYN|tcpACK
}
