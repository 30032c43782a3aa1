//go:build netns

// These tests need root, and a kernel with nf_tables, nfnetlink_queue and conntrack. They
// run daemons in network namespaces of their own:
//
//	go test -tags netns -run Netns ./verdict

package verdict

import (
	"encoding/binary"
	"flag"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// namespace is a network namespace. It lives as long as the thread that is in it.
type namespace struct {
	t    testing.TB
	tid  int
	jobs chan func()
	addr netip.Addr // of its first device, IPv4
}

// newNamespace makes a namespace whose loopback device is up.
func newNamespace(t testing.TB) *namespace {
	t.Helper()
	n := &namespace{t: t, jobs: make(chan func())}
	ready := make(chan error)
	go func() {
		runtime.LockOSThread() // for ever: the thread ends with the goroutine
		n.tid = unix.Gettid()
		ready <- unix.Unshare(unix.CLONE_NEWNET)
		for job := range n.jobs {
			job()
		}
	}()
	if err := <-ready; err != nil {
		t.Fatalf("make a network namespace: %v (these tests need root)", err)
	}
	t.Cleanup(func() { close(n.jobs) })
	n.up("lo")
	return n
}

// do runs f in the namespace. Sockets that f makes, and processes that it starts, stay
// there.
func (n *namespace) do(f func()) {
	done := make(chan bool, 1)
	n.jobs <- func() {
		ended := false
		defer func() { done <- ended }()
		f()
		ended = true
	}
	if ended := <-done; !ended {
		n.t.FailNow() // f called Fatal, which ended the thread
	}
}

// must runs f in the namespace and ends the test if it fails.
func (n *namespace) must(f func() error) {
	n.t.Helper()
	var err error
	n.do(func() { err = f() })
	if err != nil {
		n.t.Fatal(err)
	}
}

// in returns what f makes in the namespace.
func in[T any](n *namespace, f func() (T, error)) T {
	n.t.Helper()
	var v T
	n.must(func() (err error) { v, err = f(); return err })
	return v
}

func (n *namespace) dial(network, address string, timeout time.Duration) (net.Conn, error) {
	var conn net.Conn
	var err error
	n.do(func() { conn, err = net.DialTimeout(network, address, timeout) })
	return conn, err
}

// sysctl sets a value by its path below /proc/sys.
func (n *namespace) sysctl(path, value string) {
	n.t.Helper()
	n.must(func() error { return os.WriteFile(filepath.Join("/proc/sys", path), []byte(value), 0) })
}

// rtnetlink sends one request.
func (n *namespace) rtnetlink(kind uint16, flags netlink.HeaderFlags, data []byte) {
	n.t.Helper()
	n.must(func() error {
		conn, err := netlink.Dial(unix.NETLINK_ROUTE, nil)
		if err != nil {
			return err
		}
		defer conn.Close()
		_, err = conn.Execute(netlink.Message{
			Header: netlink.Header{Type: netlink.HeaderType(kind), Flags: netlink.Request | netlink.Acknowledge | flags},
			Data:   data,
		})
		return err
	})
}

// ifinfomsg is the header of messages about links.
func ifinfomsg(index int, flags, change uint32) []byte {
	b := make([]byte, unix.SizeofIfInfomsg)
	binary.NativeEndian.PutUint32(b[4:], uint32(index))
	binary.NativeEndian.PutUint32(b[8:], flags)
	binary.NativeEndian.PutUint32(b[12:], change)
	return b
}

func attributes(t testing.TB, list ...netlink.Attribute) []byte {
	t.Helper()
	b, err := netlink.MarshalAttributes(list)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func text(kind uint16, s string) netlink.Attribute {
	return netlink.Attribute{Type: kind, Data: append([]byte(s), 0)}
}

// connect makes a pair of veth devices between two namespaces.
func connect(t testing.TB, a *namespace, aName string, b *namespace, bName string) {
	t.Helper()
	const vethInfoPeer = 1
	peer := append(ifinfomsg(0, 0, 0), attributes(t, text(unix.IFLA_IFNAME, bName),
		netlink.Attribute{Type: unix.IFLA_NET_NS_PID, Data: binary.NativeEndian.AppendUint32(nil, uint32(b.tid))})...)
	info := attributes(t, text(unix.IFLA_INFO_KIND, "veth"), netlink.Attribute{
		Type: unix.IFLA_INFO_DATA | netlink.Nested,
		Data: attributes(t, netlink.Attribute{Type: vethInfoPeer | netlink.Nested, Data: peer}),
	})
	a.rtnetlink(unix.RTM_NEWLINK, netlink.Create|netlink.Excl, append(ifinfomsg(0, 0, 0),
		attributes(t, text(unix.IFLA_IFNAME, aName), netlink.Attribute{Type: unix.IFLA_LINKINFO | netlink.Nested, Data: info})...))
}

func (n *namespace) index(device string) int {
	n.t.Helper()
	i := in(n, func() (*net.Interface, error) { return net.InterfaceByName(device) })
	return i.Index
}

func (n *namespace) up(device string) {
	n.t.Helper()
	n.rtnetlink(unix.RTM_NEWLINK, 0, ifinfomsg(n.index(device), unix.IFF_UP, unix.IFF_UP))
}

// address gives a device an address and brings it up.
func (n *namespace) address(device, prefix string) {
	n.t.Helper()
	p := netip.MustParsePrefix(prefix)
	family := byte(unix.AF_INET)
	if p.Addr().Is6() {
		family = unix.AF_INET6
	} else if !n.addr.IsValid() {
		n.addr = p.Addr()
	}
	// struct ifaddrmsg; no duplicate address detection, which would take a second.
	data := []byte{family, byte(p.Bits()), unix.IFA_F_NODAD, unix.RT_SCOPE_UNIVERSE}
	data = binary.NativeEndian.AppendUint32(data, uint32(n.index(device)))
	data = append(data, attributes(n.t, netlink.Attribute{Type: unix.IFA_LOCAL, Data: p.Addr().AsSlice()},
		netlink.Attribute{Type: unix.IFA_ADDRESS, Data: p.Addr().AsSlice()})...)
	n.rtnetlink(unix.RTM_NEWADDR, netlink.Create|netlink.Excl, data)
	n.up(device)
}

// gateway is where everything else is.
func (n *namespace) gateway(addr string) {
	n.t.Helper()
	// struct rtmsg
	data := []byte{unix.AF_INET, 0, 0, 0, unix.RT_TABLE_MAIN, unix.RTPROT_STATIC, unix.RT_SCOPE_UNIVERSE, unix.RTN_UNICAST, 0, 0, 0, 0}
	data = append(data, attributes(n.t, netlink.Attribute{Type: unix.RTA_GATEWAY, Data: netip.MustParseAddr(addr).AsSlice()})...)
	n.rtnetlink(unix.RTM_NEWROUTE, netlink.Create|netlink.Excl, data)
}

// pair is a client and a server with a wire between them.
func pair(t testing.TB) (client, server *namespace) {
	t.Helper()
	client, server = newNamespace(t), newNamespace(t)
	connect(t, client, "eth0", server, "eth0")
	client.address("eth0", "10.99.0.1/24")
	server.address("eth0", "10.99.0.2/24")
	client.address("eth0", "fd99::1/64")
	server.address("eth0", "fd99::2/64")
	return client, server
}

// built is where inquestBinary puts what it builds.
var built string

var program = flag.String("inquest", "", "path of the inquest to test; built when empty")

// inquestBinary is the program under test.
var inquestBinary = sync.OnceValues(func() (string, error) {
	if *program != "" {
		return *program, nil
	}
	dir, err := os.MkdirTemp("", "inquest-netns-")
	if err != nil {
		return "", err
	}
	built = dir
	if err := os.Chmod(dir, 0o755); err != nil { // other users run it too
		return "", err
	}
	path := filepath.Join(dir, "inquest")
	build := exec.Command("go", "build", "-o", path, "inquest/cmd/inquest")
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build inquest: %w\n%s", err, out)
	}
	return path, nil
})

// TestMain removes what inquestBinary made.
func TestMain(m *testing.M) {
	code := m.Run()
	if built != "" {
		os.RemoveAll(built)
	}
	os.Exit(code)
}
