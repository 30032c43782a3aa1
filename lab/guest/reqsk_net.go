//go:build linux

package guest

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"os"
	"runtime"
	"unsafe"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// netns is a network namespace.
type netns struct{ file *os.File }

// ownNamespace is the one that the calling thread is in.
func ownNamespace() (*netns, error) {
	f, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return nil, err
	}
	return &netns{f}, nil
}

// newNamespace makes a namespace, in which lo is up.
func newNamespace() (*netns, error) {
	var ns *netns
	err := onOwnThread(func() (err error) {
		if err = unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("make a network namespace: %w", err)
		}
		ns, err = ownNamespace()
		return err
	})
	if err != nil {
		return nil, err
	}
	return ns, ns.links(func(l *links) error { return l.up("lo") })
}

// do calls f on a thread that is in the namespace. What f opens stays there.
func (n *netns) do(f func() error) error {
	return onOwnThread(func() error {
		if err := unix.Setns(int(n.file.Fd()), unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("enter a network namespace: %w", err)
		}
		return f()
	})
}

// onOwnThread calls f on a thread that ends with it.
func onOwnThread(f func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlock: nobody is to get this thread
		done <- f()
	}()
	return <-done
}

// sysctl sets /proc/sys/PATH of the namespace.
func (n *netns) sysctl(path, value string) error {
	return n.do(func() error { return os.WriteFile("/proc/sys/"+path, []byte(value), 0) })
}

// links are the network devices of a namespace, as rtnetlink changes them.
type links struct{ conn *netlink.Conn }

// links calls f with the namespace's devices.
func (n *netns) links(f func(*links) error) error {
	conn, err := netlink.Dial(unix.NETLINK_ROUTE, &netlink.Config{NetNS: int(n.file.Fd())})
	if err != nil {
		return fmt.Errorf("open rtnetlink: %w", err)
	}
	defer conn.Close()
	return f(&links{conn})
}

// index is the number of a device.
func (l *links) index(name string) (uint32, error) {
	answer, err := l.request(unix.RTM_GETLINK, 0, &unix.IfInfomsg{}, func(a *netlink.AttributeEncoder) {
		a.String(unix.IFLA_IFNAME, name)
	})
	if err != nil {
		return 0, fmt.Errorf("find device %s: %w", name, err)
	}
	if len(answer) != 1 || len(answer[0].Data) < unix.SizeofIfInfomsg {
		return 0, fmt.Errorf("find device %s: %d answers", name, len(answer))
	}
	return binary.NativeEndian.Uint32(answer[0].Data[unsafe.Offsetof(unix.IfInfomsg{}.Index):]), nil
}

// up switches a device on.
func (l *links) up(name string) error {
	i, err := l.index(name)
	if err == nil {
		_, err = l.request(unix.RTM_NEWLINK, 0, &unix.IfInfomsg{Index: int32(i), Flags: unix.IFF_UP, Change: unix.IFF_UP}, nil)
	}
	if err != nil {
		return fmt.Errorf("switch %s on: %w", name, err)
	}
	return nil
}

// veth makes a cable, one of whose ends is in another namespace.
func (l *links) veth(name string, peer *netns, peerName string) error {
	err := l.create(name, "veth", func(a *netlink.AttributeEncoder) error {
		const vethInfoPeer = 1 // VETH_INFO_PEER
		a.Do(unix.NLA_F_NESTED|vethInfoPeer, func() ([]byte, error) {
			b := netlink.NewAttributeEncoder()
			b.String(unix.IFLA_IFNAME, peerName)
			b.Uint32(unix.IFLA_NET_NS_FD, uint32(peer.file.Fd()))
			attributes, err := b.Encode()
			return append(bytesOf(&unix.IfInfomsg{}), attributes...), err
		})
		return nil
	})
	if err != nil {
		return fmt.Errorf("make the cable %s: %w", name, err)
	}
	return nil
}

// bridge makes a bridge of devices.
func (l *links) bridge(name string, ports ...string) error {
	if err := l.create(name, "bridge", nil); err != nil {
		return fmt.Errorf("make the bridge %s: %w", name, err)
	}
	master, err := l.index(name)
	if err != nil {
		return err
	}
	for _, port := range ports {
		i, err := l.index(port)
		if err == nil {
			_, err = l.request(unix.RTM_NEWLINK, 0, &unix.IfInfomsg{Index: int32(i)}, func(a *netlink.AttributeEncoder) {
				a.Uint32(unix.IFLA_MASTER, master)
			})
		}
		if err != nil {
			return fmt.Errorf("add %s to the bridge %s: %w", port, name, err)
		}
		if err := l.up(port); err != nil {
			return err
		}
	}
	return l.up(name)
}

func (l *links) create(name, kind string, data func(*netlink.AttributeEncoder) error) error {
	_, err := l.request(unix.RTM_NEWLINK, netlink.Create|netlink.Excl, &unix.IfInfomsg{}, func(a *netlink.AttributeEncoder) {
		a.String(unix.IFLA_IFNAME, name)
		a.Nested(unix.IFLA_LINKINFO, func(a *netlink.AttributeEncoder) error {
			a.String(unix.IFLA_INFO_KIND, kind)
			if data != nil {
				a.Nested(unix.IFLA_INFO_DATA, data)
			}
			return nil
		})
	})
	return err
}

// address gives a device an address, which can be used at once.
func (l *links) address(name string, prefix netip.Prefix) error {
	i, err := l.index(name)
	if err != nil {
		return err
	}
	addr := prefix.Addr().AsSlice()
	message := &unix.IfAddrmsg{Family: unix.AF_INET, Prefixlen: uint8(prefix.Bits()), Index: i}
	if prefix.Addr().Is6() {
		message.Family = unix.AF_INET6
		message.Flags = unix.IFA_F_NODAD // no wait for a duplicate
	}
	_, err = l.request(unix.RTM_NEWADDR, netlink.Create|netlink.Replace, message, func(a *netlink.AttributeEncoder) {
		a.Bytes(unix.IFA_LOCAL, addr)
		a.Bytes(unix.IFA_ADDRESS, addr)
	})
	if err != nil {
		return fmt.Errorf("give %s the address %s: %w", name, prefix, err)
	}
	return nil
}

// request sends a message with its header and attributes, and returns the answers.
func (l *links) request(kind netlink.HeaderType, flags netlink.HeaderFlags, header any, attributes func(*netlink.AttributeEncoder)) ([]netlink.Message, error) {
	var data []byte
	switch h := header.(type) {
	case *unix.IfInfomsg:
		data = bytesOf(h)
	case *unix.IfAddrmsg:
		data = bytesOf(h)
	}
	if attributes != nil {
		a := netlink.NewAttributeEncoder()
		attributes(a)
		more, err := a.Encode()
		if err != nil {
			return nil, err
		}
		data = append(data, more...)
	}
	flags |= netlink.Request
	if kind != unix.RTM_GETLINK {
		flags |= netlink.Acknowledge
	}
	return l.conn.Execute(netlink.Message{Header: netlink.Header{Type: kind, Flags: flags}, Data: data})
}

// bytesOf is a struct of the kernel's interface as the kernel sees it.
func bytesOf[T any](v *T) []byte {
	return append([]byte(nil), unsafe.Slice((*byte)(unsafe.Pointer(v)), unsafe.Sizeof(*v))...)
}
