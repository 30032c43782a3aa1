//go:build netns

package nfqueue_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"inquest/nfqueue"
)

// TestMain runs the tests in a network namespace of their own, in which the
// loopback device is up. They fail without root.
func TestMain(m *testing.M) {
	const inside = "NFQUEUE_TEST_NETNS"
	if os.Getenv(inside) == "" {
		runtime.LockOSThread()
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			fmt.Fprintln(os.Stderr, "these tests need root: unshare:", err)
			os.Exit(1)
		}
		// What this thread belongs to is what the program begins with.
		err := syscall.Exec("/proc/self/exe", os.Args, append(os.Environ(), inside+"=1"))
		fmt.Fprintln(os.Stderr, "exec:", err)
		os.Exit(1)
	}
	if os.Getenv(roleEnv) != "" {
		os.Exit(role())
	}
	if out, err := exec.Command("ip", "link", "set", "lo", "up").CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "ip: %v: %s\n", err, out)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// rule adds an iptables rule, the table first, until the test ends.
func rule(t testing.TB, args string) {
	t.Helper()
	addRule(t, "iptables-legacy", args)
}

func rule6(t testing.TB, args string) {
	t.Helper()
	addRule(t, "ip6tables-legacy", args)
}

func addRule(t testing.TB, command, args string) {
	t.Helper()
	add := append([]string{"-w", "-t"}, strings.Fields(args)...)
	if out, err := exec.Command(command, add...).CombinedOutput(); err != nil {
		t.Fatalf("%s %s: %v: %s", command, args, err, out)
	}
	t.Cleanup(func() {
		for i, a := range add {
			if a == "-A" || a == "-I" {
				add[i] = "-D"
			}
		}
		exec.Command(command, add...).Run()
	})
}

// open binds queues and serves them until the test ends.
func open(t testing.TB, cfg nfqueue.Config, handle nfqueue.Handler) *nfqueue.Queues {
	t.Helper()
	g, err := nfqueue.Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- g.Serve(context.Background(), handle) }()
	t.Cleanup(func() {
		g.Close()
		if err := <-served; err != nil {
			t.Error("serve:", err)
		}
	})
	return g
}

// A pair is a UDP socket and one connected to it.
type pair struct {
	net.Conn
	server *net.UDPConn
}

func newPair(t testing.TB, address string) *pair {
	t.Helper()
	addr := net.UDPAddrFromAddrPort(netip.MustParseAddrPort(address))
	server, err := net.ListenUDP("udp", addr)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := server.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	raw.Control(func(fd uintptr) { unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 64<<20) })
	conn, err := net.Dial("udp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		conn.Close()
		server.Close()
	})
	return &pair{conn, server}
}

func (p *pair) send(t testing.TB, text string) {
	t.Helper()
	// EPERM: dropped on its way out. ECONNREFUSED: something before was.
	if _, err := p.Write([]byte(text)); err != nil && !errors.Is(err, syscall.EPERM) && !errors.Is(err, syscall.ECONNREFUSED) {
		t.Fatal(err)
	}
}

// receive returns what arrives until nothing does for a while.
func (p *pair) receive(t testing.TB, want int) []string {
	t.Helper()
	var got []string
	b := make([]byte, 1<<16)
	for {
		wait := 3 * time.Second
		if len(got) >= want {
			wait = 50 * time.Millisecond
		}
		p.server.SetReadDeadline(time.Now().Add(wait))
		n, err := p.server.Read(b)
		if err != nil {
			return got
		}
		got = append(got, string(b[:n]))
	}
}

// datagram is what a UDP packet over IPv4 carries.
func datagram(p *nfqueue.Packet) []byte { return p.Payload[28:] }

// redatagram is p with another datagram, lengths and checksums right.
func redatagram(p *nfqueue.Packet, data string) []byte {
	b := append(bytes.Clone(p.Payload[:28]), data...)
	binary.BigEndian.PutUint16(b[2:], uint16(len(b)))
	binary.BigEndian.PutUint16(b[24:], uint16(len(b)-20))
	binary.BigEndian.PutUint16(b[10:], 0)
	binary.BigEndian.PutUint16(b[10:], checksum(0, b[:20]))
	binary.BigEndian.PutUint16(b[26:], 0)
	pseudo := uint32(17 + len(b) - 20)
	for i := 12; i < 20; i += 2 {
		pseudo += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	binary.BigEndian.PutUint16(b[26:], checksum(pseudo, b[20:]))
	return b
}

func checksum(sum uint32, b []byte) uint16 {
	for ; len(b) > 1; b = b[2:] {
		sum += uint32(binary.BigEndian.Uint16(b))
	}
	if len(b) == 1 {
		sum += uint32(b[0]) << 8
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}

func eventually(t testing.TB, what string, f func() bool) {
	t.Helper()
	for until := time.Now().Add(5 * time.Second); !f(); time.Sleep(time.Millisecond) {
		if time.Now().After(until) {
			t.Fatal("not within 5 s:", what)
		}
	}
}

func run(t testing.TB, command ...string) {
	t.Helper()
	if out, err := exec.Command(command[0], command[1:]...).CombinedOutput(); err != nil {
		t.Fatalf("%v: %v: %s", command, err, out)
	}
}
