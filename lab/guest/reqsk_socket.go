//go:build linux

package guest

import (
	"errors"
	"fmt"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
)

// listener is a TCP socket that listens, in a namespace.
type listener struct {
	fd      int
	addr    netip.AddrPort // for clients to call
	strange map[uint16]int // connections that another accept asked for, by the client's port
}

// backlog is longer than any scenario has connections at a time.
const backlog = 1024

// listen listens at a port of an address. With mapped the socket is one of IPv6, to
// which an IPv4 client is ::ffff:a.b.c.d.
func (n *netns) listen(addr netip.AddrPort, mapped bool) (*listener, error) {
	l := &listener{addr: addr, strange: make(map[uint16]int)}
	bind := addr
	if mapped {
		bind = netip.AddrPortFrom(netip.IPv6Unspecified(), addr.Port())
	}
	err := n.do(func() (err error) {
		if l.fd, err = tcpSocket(bind); err == nil {
			err = unix.Listen(l.fd, backlog)
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("listen at %s: %w", bind, err)
	}
	return l, nil
}

// retries sets how often a SYN/ACK is sent again, in place of tcp_synack_retries.
func (l *listener) retries(n int) error {
	return unix.SetsockoptInt(l.fd, unix.IPPROTO_TCP, unix.TCP_SYNCNT, n)
}

// accept takes the connection from a client's port out of the listener's queue.
func (l *listener) accept(port uint16, patience time.Duration) (int, error) {
	for end := time.Now().Add(patience); ; {
		if fd, ok := l.strange[port]; ok {
			delete(l.strange, port)
			return fd, nil
		}
		fd, from, err := unix.Accept4(l.fd, unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC)
		switch {
		case err == nil:
			l.strange[portOf(from)] = fd
		case !again(err):
			return -1, fmt.Errorf("accept: %w", err)
		case time.Now().After(end):
			return -1, fmt.Errorf("no connection from port %d came within %v", port, patience)
		default:
			time.Sleep(time.Millisecond)
		}
	}
}

// dial begins to connect from a port, and does not wait.
func (n *netns) dial(from, to netip.AddrPort) (fd int, err error) {
	err = n.do(func() (err error) {
		if fd, err = tcpSocket(from); err != nil {
			return err
		}
		if err = unix.Connect(fd, sockaddr(to)); errors.Is(err, unix.EINPROGRESS) {
			err = nil
		}
		return err
	})
	if err != nil {
		return -1, fmt.Errorf("connect from %s to %s: %w", from, to, err)
	}
	return fd, nil
}

// errNotConnected is the error for a connection that was not made in time.
var errNotConnected = errors.New("not connected in time")

// connected waits until a connection is made, or failed.
func connected(fd int, patience time.Duration) error {
	poll := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}
	end := time.Now().Add(patience)
	for {
		n, err := unix.Poll(poll, int(max(0, time.Until(end).Milliseconds())))
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return err
		case n == 0:
			return errNotConnected
		}
		return socketError(fd)
	}
}

// socketError takes the error that a socket has met.
func socketError(fd int) error {
	code, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ERROR)
	if err == nil && code != 0 {
		err = unix.Errno(code)
	}
	return err
}

// tcpSocket returns a bound socket of the calling thread's namespace, which never
// blocks and leaves no TIME_WAIT behind.
func tcpSocket(bind netip.AddrPort) (int, error) {
	family := unix.AF_INET
	if bind.Addr().Is6() {
		family = unix.AF_INET6
	}
	fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	err = errors.Join(
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1),
		unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1}),
		unix.Bind(fd, sockaddr(bind)))
	if err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

func sockaddr(a netip.AddrPort) unix.Sockaddr {
	if a.Addr().Is6() {
		return &unix.SockaddrInet6{Addr: a.Addr().As16(), Port: int(a.Port())}
	}
	return &unix.SockaddrInet4{Addr: a.Addr().As4(), Port: int(a.Port())}
}

func portOf(a unix.Sockaddr) uint16 {
	switch a := a.(type) {
	case *unix.SockaddrInet4:
		return uint16(a.Port)
	case *unix.SockaddrInet6:
		return uint16(a.Port)
	}
	return 0
}

// again reports whether a call that does not wait is to be made once more.
func again(err error) bool {
	return errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EINTR) || errors.Is(err, unix.ECONNABORTED)
}
