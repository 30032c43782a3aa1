package inspect_test

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"net"
	"net/netip"
	"slices"
	"testing"

	"golang.org/x/net/dns/dnsmessage"

	"inquest/inspect"
	"inquest/inspect/packet"
	"inquest/inspect/rule"
)

// ends are two endpoints; packets go from the first to the second.
type ends struct{ src, dst netip.AddrPort }

func between(src, dst string) ends {
	return ends{netip.MustParseAddrPort(src), netip.MustParseAddrPort(dst)}
}

func (e ends) back() ends { return ends{e.dst, e.src} }

// ip puts an IP header before a transport's bytes and fills in all checksums.
func (e ends) ip(proto uint8, transport ...[]byte) []byte {
	t := slices.Concat(transport...)
	var b []byte
	if e.src.Addr().Is4() {
		b = make([]byte, 20, 20+len(t))
		b[0], b[8], b[9] = 0x45, 64, proto
		binary.BigEndian.PutUint16(b[2:], uint16(20+len(t)))
		copy(b[12:], e.src.Addr().AsSlice())
		copy(b[16:], e.dst.Addr().AsSlice())
	} else {
		b = make([]byte, 40, 40+len(t))
		b[0], b[6], b[7] = 0x60, proto, 64
		binary.BigEndian.PutUint16(b[4:], uint16(len(t)))
		copy(b[8:], e.src.Addr().AsSlice())
		copy(b[24:], e.dst.Addr().AsSlice())
	}
	b = append(b, t...)
	var p packet.Packet
	if err := p.Decode(b); err != nil {
		panic(err)
	}
	p.FixChecksums()
	return b
}

func (e ends) udp(payload []byte) []byte {
	h := make([]byte, 8)
	binary.BigEndian.PutUint16(h, e.src.Port())
	binary.BigEndian.PutUint16(h[2:], e.dst.Port())
	binary.BigEndian.PutUint16(h[4:], uint16(8+len(payload)))
	h[6] = 1 // a checksum is wanted
	return e.ip(packet.ProtoUDP, h, payload)
}

func (e ends) tcp(flags packet.Flags, seq, ack uint32, payload string) []byte {
	h := make([]byte, 20)
	binary.BigEndian.PutUint16(h, e.src.Port())
	binary.BigEndian.PutUint16(h[2:], e.dst.Port())
	binary.BigEndian.PutUint32(h[4:], seq)
	binary.BigEndian.PutUint32(h[8:], ack)
	binary.BigEndian.PutUint16(h[12:], 5<<12|uint16(flags))
	binary.BigEndian.PutUint16(h[14:], 512)
	return e.ip(packet.ProtoTCP, h, []byte(payload))
}

// connection makes the packets of a TCP connection, in order.
type connection struct {
	ends
	seq [2]uint32
}

func connect(src, dst string) *connection {
	return &connection{between(src, dst), [2]uint32{1000, 5000}}
}

// open returns the three packets of the handshake.
func (c *connection) open() [][]byte {
	out := [][]byte{
		c.tcp(packet.SYN, c.seq[0], 0, ""),
		c.back().tcp(packet.SYN|packet.ACK, c.seq[1], c.seq[0]+1, ""),
		c.tcp(packet.ACK, c.seq[0]+1, c.seq[1]+1, ""),
	}
	c.seq[0]++
	c.seq[1]++
	return out
}

// say returns a segment of the client, answer one of the server.
func (c *connection) say(payload string) []byte {
	b := c.tcp(packet.ACK|packet.PSH, c.seq[0], c.seq[1], payload)
	c.seq[0] += uint32(len(payload))
	return b
}

func (c *connection) answer(payload string) []byte {
	b := c.back().tcp(packet.ACK|packet.PSH, c.seq[1], c.seq[0], payload)
	c.seq[1] += uint32(len(payload))
	return b
}

func (c *connection) ack() []byte { return c.back().tcp(packet.ACK, c.seq[1], c.seq[0], "") }

// clientHello is the first thing that crypto/tls says to a server.
func clientHello(t testing.TB, name string) string {
	t.Helper()
	client, server := net.Pipe()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		tls.Client(client, &tls.Config{ServerName: name, NextProtos: []string{"h2"}}).HandshakeContext(ctx)
	}()
	b := make([]byte, 1<<16)
	n, err := server.Read(b)
	if err != nil {
		t.Fatal(err)
	}
	cancel()
	<-done
	client.Close()
	server.Close()
	return string(b[:n])
}

func dnsQuery(t testing.TB, name string) []byte {
	t.Helper()
	m := dnsmessage.Message{
		Header:    dnsmessage.Header{ID: 7, RecursionDesired: true},
		Questions: []dnsmessage.Question{{Name: dnsmessage.MustNewName(name), Type: dnsmessage.TypeA, Class: dnsmessage.ClassINET}},
	}
	b, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func load(t testing.TB, file string) *rule.Set {
	t.Helper()
	set, err := rule.Load("test.yaml", []byte(file))
	if err != nil {
		t.Fatal(err)
	}
	return set
}

// judge makes a decision short: the verdict, the rule's name, and what else is set.
func judge(e *inspect.Engine, d inspect.Decision) string {
	s := d.Verdict.String()
	if d.Rule != rule.Default {
		s += " " + e.Set().Rules()[d.Rule].Name
	}
	for _, f := range []struct {
		on   bool
		name string
	}{{d.Pending, "pending"}, {d.Decided, "decided"}, {d.Cached, "cached"}, {d.Held, "held"}, {d.Log, "log"}} {
		if f.on {
			s += " " + f.name
		}
	}
	return s
}
