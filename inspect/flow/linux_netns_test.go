//go:build netns

package flow_test

import (
	"encoding/binary"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"inquest/inspect/flow"
	"inquest/inspect/packet"
)

// TestLinuxPolicy sends segments that do not agree to this kernel's own TCP, through
// a tun device in a network namespace, and compares what a program reads there with
// what a Stream of the policy Linux does.
func TestLinuxPolicy(t *testing.T) {
	runtime.LockOSThread() // never unlocked: the thread ends with the test
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Fatalf("new network namespace (this test needs root): %v", err)
	}
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	ifr, err := unix.NewIfreq("tun0")
	if err != nil {
		t.Fatal(err)
	}
	ifr.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, ifr); err != nil {
		t.Fatal(err)
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		t.Fatal(err)
	}
	tun := os.NewFile(uintptr(fd), "tun0")
	defer tun.Close()
	for _, args := range [][]string{{"addr", "add", "10.9.0.1/24", "dev", "tun0"}, {"link", "set", "tun0", "up"}} {
		if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
			t.Fatalf("ip %v: %v: %s", args, err, out)
		}
	}
	listener, err := net.Listen("tcp4", "10.9.0.1:80")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()

	r := rand.New(rand.NewPCG(1, 2))
	disagreed := 0
	for n := range 300 {
		const length = 60
		segments := segmentsApart(r, length)
		value := func(i int) byte { return byte('A' + i%58) }

		var s flow.Stream
		var want sink
		l := &flow.Limits{Policy: flow.Linux}
		s.Add(flow.Segment{Seq: 1000, SYN: true}, l, &want)
		got := overTun(t, tun, listener, uint16(20000+n), length, func(send func(at int, data []byte)) {
			for i, seg := range segments {
				data := make([]byte, seg[1])
				for k := range data {
					data[k] = value(i)
				}
				send(seg[0], data)
				s.Add(flow.Segment{Seq: 1001 + uint32(seg[0]), Data: data}, l, &want)
			}
		})
		if got != want.String() {
			t.Fatalf("connection %d, segments %v:\nkernel %q\nstream %q", n, segments, got, want.String())
		}
		if s.Conflicts > 0 {
			disagreed++
		}
	}
	if disagreed < 100 {
		t.Errorf("segments disagreed in only %d connections", disagreed)
	}
}

// segmentsApart returns segments that cover [0, length) at last. None but the last
// ones begins where another ends: those the kernel may merge, which is not imitated.
func segmentsApart(r *rand.Rand, length int) (segments [][2]int) {
	covered := make([]bool, length)
	touches := map[int]bool{}
	for range 3 + r.IntN(12) {
		at := 2 + r.IntN(length-4)
		n := min(1+r.IntN(12), length-1-at)
		if touches[at] || touches[at+n] {
			continue
		}
		touches[at], touches[at+n] = true, true
		segments = append(segments, [2]int{at, n})
		for i := at; i < at+n; i++ {
			covered[i] = true
		}
	}
	// Then the holes, from the left, so that each is read at once.
	for at := 0; at < length; at++ {
		if n := 0; !covered[at] {
			for at+n < length && !covered[at+n] {
				n++
			}
			segments = append(segments, [2]int{at, n})
			at += n
		}
	}
	return segments
}

// overTun opens a connection from 10.9.0.2, lets play send its segments and returns
// the n bytes that the listener's side reads.
func overTun(t *testing.T, tun *os.File, listener net.Listener, port uint16, n int, play func(send func(at int, data []byte))) string {
	t.Helper()
	e := ends{src: 0x0a090002, dst: 0x0a090001, sport: port, dport: 80}
	write := func(p *packet.Packet) {
		p.FixChecksums()
		if _, err := tun.Write(p.Data); err != nil {
			t.Fatal(err)
		}
	}
	withWindow := func(p *packet.Packet) *packet.Packet {
		binary.BigEndian.PutUint16(p.Data[p.Transport+14:], 0xffff)
		return p
	}
	write(withWindow(e.tcp(packet.SYN, 1000, 0, "")))
	var ack uint32
	buf := make([]byte, 2000)
	for {
		tun.SetReadDeadline(time.Now().Add(5 * time.Second))
		k, err := tun.Read(buf)
		if err != nil {
			t.Fatalf("wait for the SYN/ACK: %v", err)
		}
		var p packet.Packet
		if p.Decode(buf[:k]) == nil && p.Proto == packet.ProtoTCP && p.DstPort == port && p.TCP.Flags.Has(packet.SYN|packet.ACK) {
			ack = p.TCP.Seq + 1
			break
		}
	}
	write(withWindow(e.tcp(packet.ACK, 1001, ack, "")))
	conn, err := listener.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetReadDeadline(time.Now().Add(5 * time.Second))
	play(func(at int, data []byte) {
		write(withWindow(e.tcp(packet.ACK|packet.PSH, 1001+uint32(at), ack, string(data))))
	})
	out := make([]byte, n)
	if _, err := io.ReadFull(conn, out); err != nil {
		t.Fatalf("read: %v", err)
	}
	write(e.tcp(packet.RST, 1001+uint32(n), 0, ""))
	return string(out)
}
