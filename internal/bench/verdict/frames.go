package main

import (
	"crypto/tls"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"net"
)

// frames makes Ethernet frames for the receiver. What it returns is valid until
// the next call.
type frames struct {
	rnd   *rand.Rand
	buf   []byte
	seeds [][]byte
	flows uint32 // so far
}

const (
	etherLen  = 14
	ipLen     = 20
	floodFlow = 1 << 20 // flows before their addresses come again: more than a million
)

var (
	sendMAC  = [6]byte{2, 0, 0, 0, 0, 1}
	recvMAC  = [6]byte{2, 0, 0, 0, 0, 2}
	recvIPv4 = [4]byte{10, 99, 0, 2}
	recvIPv6 = [16]byte{0: 0xfd, 15: 2}
)

func newFrames() *frames {
	f := &frames{rnd: rand.New(rand.NewPCG(1, 2)), buf: make([]byte, 2048)}
	copy(f.buf, recvMAC[:])
	copy(f.buf[6:], sendMAC[:])
	hello := clientHello()
	http := []byte("GET /index.html HTTP/1.1\r\nHost: www.example.com\r\nUser-Agent: bench\r\n\r\n")
	dns := []byte("\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x03www\x07example\x03com\x00\x00\x01\x00\x01")
	inner := ipv4(17, udpHeader(1024, 53, dns))
	f.seeds = [][]byte{
		ipv4(6, tcpHeader(40000, 443, 0x18, hello)),
		ipv4(6, tcpHeader(40001, 80, 0x18, http)),
		ipv4(6, tcpHeader(40002, 22, 0x18, []byte("SSH-2.0-OpenSSH_9.2p1\r\n"))),
		ipv4(6, tcpHeader(40003, 443, 0x02, nil)),
		ipv4(17, udpHeader(40004, 53, dns)),
		ipv4(17, udpHeader(40005, 443, append([]byte{0xc3, 0, 0, 0, 1, 8}, make([]byte, 1200)...))),
		ipv4(1, append([]byte{3, 3, 0, 0, 0, 0, 0, 0}, inner...)),
		ipv4(132, append([]byte{0x9c, 0x40, 0x0b, 0x59, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 20}, make([]byte, 16)...)),
		ipv4(47, append([]byte{0, 0, 8, 0}, inner...)),
		ipv4(4, inner),
		ipv6(6, tcpHeader(40006, 443, 0x18, hello)),
		ipv6(17, udpHeader(40007, 53, dns)),
		ipv6(0, append([]byte{43, 0, 5, 2, 0, 0, 1, 0, 60, 0, 0, 0, 0, 0, 0, 0, 44, 0, 1, 4, 0, 0, 0, 0, 17, 0, 0, 1, 0, 0, 0, 7}, udpHeader(40008, 53, dns)...)),
		ipv6(58, append([]byte{1, 4, 0, 0, 0, 0, 0, 0}, ipv6(17, udpHeader(1024, 53, dns))...)),
	}
	return f
}

// flow returns a datagram of another flow each time, until floodFlow.
func (f *frames) flow() []byte {
	n := f.flows % floodFlow
	f.flows++
	p := ipv4(17, udpHeader(uint16(1024+n>>16), floodPort, make([]byte, 18)))
	binary.BigEndian.PutUint32(p[12:], 10<<24|1<<16|n&0xffff) // 10.1.x.y
	return f.frame(p)
}

// syn returns a SYN from a random address and port.
func (f *frames) syn() []byte {
	p := ipv4(6, tcpHeader(uint16(1024+f.rnd.IntN(60000)), 80, 0x02, nil))
	binary.BigEndian.PutUint32(p[12:], 10<<24|f.rnd.Uint32N(1<<22))
	binary.BigEndian.PutUint32(p[ipLen+4:], f.rnd.Uint32())
	return f.frame(p)
}

// malformed returns a seed with bytes changed, cut, grown or fragmented in any way
// that the kernel still takes for IP.
func (f *frames) malformed() []byte {
	seed := f.seeds[f.rnd.IntN(len(f.seeds))]
	p := append(make([]byte, 0, 2000), seed...)
	for range f.rnd.IntN(8) {
		switch i := f.rnd.IntN(len(p)); f.rnd.IntN(6) {
		case 0:
			p[i] ^= 1 << f.rnd.IntN(8)
		case 1:
			p[i] = byte(f.rnd.Uint32())
		case 2:
			p[i] = []byte{0, 1, 0x7f, 0x80, 0xff}[f.rnd.IntN(5)]
		case 3:
			p = p[:max(i, 1)]
		case 4:
			p = append(p, seed[f.rnd.IntN(len(seed)):]...)
			p = p[:min(len(p), 1500)]
		case 5:
			copy(p[i:], seed[f.rnd.IntN(len(seed)):])
		}
	}
	if seed[0]>>4 == 4 {
		p = append(p, make([]byte, max(0, ipLen-len(p)))...)
		ihl := 5
		if f.rnd.IntN(4) == 0 {
			ihl = min(5+f.rnd.IntN(11), len(p)/4)
		}
		p[0] = 0x40 | byte(ihl)
		fix4(p)
	} else {
		p = append(p, make([]byte, max(0, 40-len(p)))...)
		p[0] = 0x60
		binary.BigEndian.PutUint16(p[4:], uint16(len(p)-40))
		copy(p[24:], recvIPv6[:])
	}
	return f.frame(p)
}

func (f *frames) frame(p []byte) []byte {
	binary.BigEndian.PutUint16(f.buf[12:], 0x0800)
	if p[0]>>4 == 6 {
		binary.BigEndian.PutUint16(f.buf[12:], 0x86dd)
	} else {
		fix4(p)
	}
	return f.buf[:etherLen+copy(f.buf[etherLen:], p)]
}

func ipv4(proto byte, payload []byte) []byte {
	p := append(make([]byte, ipLen), payload...)
	p[0], p[8], p[9] = 0x45, 64, proto
	copy(p[12:], []byte{10, 99, 0, 1})
	copy(p[16:], recvIPv4[:])
	fix4(p)
	return p
}

// fix4 sets an IPv4 header's length and checksum.
func fix4(p []byte) {
	binary.BigEndian.PutUint16(p[2:], uint16(len(p)))
	p[10], p[11] = 0, 0
	var sum uint32
	for i := 0; i < int(p[0]&15)*4; i += 2 {
		sum += uint32(binary.BigEndian.Uint16(p[i:]))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	binary.BigEndian.PutUint16(p[10:], ^uint16(sum))
}

func ipv6(next byte, payload []byte) []byte {
	p := append(make([]byte, 40), payload...)
	p[0], p[6], p[7] = 0x60, next, 64
	binary.BigEndian.PutUint16(p[4:], uint16(len(payload)))
	copy(p[8:], []byte{0: 0xfd, 15: 1})
	copy(p[24:], recvIPv6[:])
	return p
}

func tcpHeader(src, dst uint16, flags byte, payload []byte) []byte {
	p := append(make([]byte, 40), payload...)
	binary.BigEndian.PutUint16(p, src)
	binary.BigEndian.PutUint16(p[2:], dst)
	p[12], p[13] = 10<<4, flags
	binary.BigEndian.PutUint16(p[14:], 64240)
	copy(p[20:], []byte{2, 4, 5, 0xb4, 4, 2, 8, 10, 0, 0, 0, 1, 0, 0, 0, 0, 1, 3, 3, 7})
	return p
}

func udpHeader(src, dst uint16, payload []byte) []byte {
	p := append(make([]byte, 8), payload...)
	binary.BigEndian.PutUint16(p, src)
	binary.BigEndian.PutUint16(p[2:], dst)
	binary.BigEndian.PutUint16(p[4:], uint16(len(p)))
	return p
}

// clientHello returns what crypto/tls sends first; a small one, that fits a packet.
func clientHello() []byte {
	var c helloConn
	tls.Client(&c, &tls.Config{ServerName: "www.example.com", NextProtos: []string{"h2", "http/1.1"},
		CurvePreferences: []tls.CurveID{tls.X25519}}).Handshake()
	return c.first
}

type helloConn struct {
	net.Conn
	first []byte
}

func (c *helloConn) Write(b []byte) (int, error) {
	if c.first == nil {
		c.first = append(c.first, b...)
	}
	return len(b), nil
}
func (c *helloConn) Read([]byte) (int, error) { return 0, errors.New("no server") }
func (c *helloConn) Close() error             { return nil }
