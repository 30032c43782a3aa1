package nfqueue

import (
	"errors"
	"fmt"
	"os"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// mmsghdr is struct mmsghdr: a message and, after receiving, its length.
type mmsghdr struct {
	hdr syscall.Msghdr
	n   uint32
}

// socket is a netlink socket connected to the kernel, which for nobody else's
// messages: netlink refuses those of other processes then.
type socket struct {
	fd   int
	hdrs []mmsghdr
	iovs []syscall.Iovec
	size int // of each buffer
	bufs []byte
}

const (
	// metaSize is more than a packet's message has beside the payload; security
	// contexts and conntrack labels are the longest.
	metaSize = 8 << 10
	// stagger puts the buffers' beginnings, which is all that small packets
	// touch, into different sets of the CPU's caches.
	stagger = 5 * 64
)

func newSocket(c *Config) (*socket, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_NETFILTER)
	if err != nil {
		if errors.Is(err, unix.EPROTONOSUPPORT) || errors.Is(err, unix.EAFNOSUPPORT) {
			return nil, fmt.Errorf("%w: nfnetlink", ErrUnsupported)
		}
		return nil, os.NewSyscallError("socket", err)
	}
	s := &socket{fd: fd}
	if err := s.setup(c); err != nil {
		unix.Close(fd)
		return nil, err
	}
	return s, nil
}

func (s *socket) setup(c *Config) error {
	kernel := &unix.SockaddrNetlink{Family: unix.AF_NETLINK}
	if err := unix.Bind(s.fd, kernel); err != nil {
		return os.NewSyscallError("bind", err)
	}
	if err := unix.Connect(s.fd, kernel); err != nil {
		return os.NewSyscallError("connect", err)
	}
	// Beyond the system's limit if CAP_NET_ADMIN is there in the first
	// user namespace, else up to it.
	if unix.SetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, c.ReadBuffer/2) != nil {
		unix.SetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_RCVBUF, c.ReadBuffer/2)
	}
	// A verdict with a payload must fit.
	if unix.SetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, 256<<10) != nil {
		unix.SetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_SNDBUF, 256<<10)
	}
	// After an overrun the kernel delivers nothing until the socket is empty,
	// unless it need not report it (2.6.30). Overruns show in the ids.
	unix.SetsockoptInt(s.fd, unix.SOL_NETLINK, unix.NETLINK_NO_ENOBUFS, 1)
	// Errors repeat the header of the message only (4.3).
	unix.SetsockoptInt(s.fd, unix.SOL_NETLINK, unix.NETLINK_CAP_ACK, 1)
	if c.Timestamps {
		// On any socket but a Unix one this has skbs stamped when they come in.
		if err := unix.SetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_TIMESTAMPNS, 1); err != nil {
			return os.NewSyscallError("setsockopt SO_TIMESTAMPNS", err)
		}
	}

	s.size = align(metaSize + attrHeader + int(c.CopyRange))
	if c.Mode == CopyMeta {
		s.size = metaSize
	}
	s.bufs = make([]byte, c.Batch*(s.size+stagger))
	s.hdrs = make([]mmsghdr, c.Batch)
	s.iovs = make([]syscall.Iovec, c.Batch)
	for i := range s.hdrs {
		s.iovs[i].Base = &s.bufs[i*(s.size+stagger)]
		s.iovs[i].SetLen(s.size)
		s.hdrs[i].hdr.Iov = &s.iovs[i]
		s.hdrs[i].hdr.Iovlen = 1
	}
	return nil
}

// receive reads as many messages as there are. Without wait it does not tell
// the scheduler that it is in the kernel, as it comes back at once.
func (s *socket) receive(wait bool) (int, error) {
	var n uintptr
	var errno syscall.Errno
	if wait {
		n, _, errno = syscall.Syscall6(unix.SYS_RECVMMSG, uintptr(s.fd),
			uintptr(unsafe.Pointer(&s.hdrs[0])), uintptr(len(s.hdrs)), unix.MSG_WAITFORONE, 0, 0)
	} else {
		n, _, errno = syscall.RawSyscall6(unix.SYS_RECVMMSG, uintptr(s.fd),
			uintptr(unsafe.Pointer(&s.hdrs[0])), uintptr(len(s.hdrs)), unix.MSG_DONTWAIT, 0, 0)
	}
	switch errno {
	case 0:
		return int(n), nil
	case syscall.EAGAIN, syscall.EINTR:
		return 0, nil
	case syscall.ENOBUFS:
		return 0, ErrOverrun
	}
	return 0, os.NewSyscallError("recvmmsg", errno)
}

func (s *socket) message(i int) ([]byte, bool) {
	h := &s.hdrs[i]
	start := i * (s.size + stagger)
	return s.bufs[start : start+int(h.n) : start+s.size], h.hdr.Flags&unix.MSG_TRUNC != 0
}

// sendSize keeps messages that are sent together within a page, beyond which
// the kernel gets their memory from vmalloc.
const sendSize = 3 << 10

func (s *socket) send(b []byte) (int, error) {
	sent := 0
	for sent < len(b) {
		n := align(int(native.Uint32(b[sent:])))
		for sent+n < len(b) {
			next := align(int(native.Uint32(b[sent+n:])))
			if n+next > sendSize {
				break
			}
			n += next
		}
		_, _, errno := syscall.RawSyscall6(unix.SYS_SENDTO, uintptr(s.fd),
			uintptr(unsafe.Pointer(&b[sent])), uintptr(n), 0, 0, 0)
		switch errno {
		case 0:
			sent += n
		case syscall.EINTR:
		case syscall.EAGAIN, syscall.ENOBUFS, syscall.ENOMEM:
			return sent, errAgain
		default:
			return sent, os.NewSyscallError("send", errno)
		}
	}
	return sent, nil
}

func (s *socket) close() error { return unix.Close(s.fd) }

// bind opens a socket and binds a queue to it.
func bind(num uint16, c *Config) (*socket, error) {
	s, err := newSocket(c)
	if err != nil {
		return nil, err
	}
	if err := s.bind(num, c); err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

func (s *socket) bind(num uint16, c *Config) error {
	// Binding an address family was needed before 3.8 and does nothing
	// since, but for the check of privileges: EPERM to a BIND has two meanings.
	pf, start := message(nil, typeConfig, flagRequest, 0, 0)
	errno, err := s.ask(end(appendCommand(pf, cmdPFBind, unix.AF_INET), start))
	switch {
	case err != nil:
		return err
	case errno == syscall.EPERM:
		return ErrPermission
	case errno == syscall.EINVAL || errno == syscall.EOPNOTSUPP:
		return fmt.Errorf("%w: nfnetlink_queue", ErrUnsupported)
	case errno != 0 && errno != syscall.EEXIST && errno != syscall.EBUSY:
		return fmt.Errorf("bind address family: %w", errno)
	}
	errno, err = s.ask(appendBind(nil, num, c))
	switch {
	case err != nil:
		return err
	case errno == 0:
		return nil
	case errno == syscall.EPERM || errno == syscall.EBUSY || errno == syscall.EEXIST:
		return ErrBusy
	case errno == syscall.EOPNOTSUPP:
		return fmt.Errorf("%w: %s", ErrUnsupported, s.unsupported(num, c))
	}
	return errno
}

// unsupported names the first flag of c that the kernel does not know. It
// checks flags before it looks for the queue, and there is none.
func (s *socket) unsupported(num uint16, c *Config) string {
	for _, f := range configFlags {
		if c.flags()&f.flag == 0 {
			continue
		}
		b, start := message(nil, typeConfig, flagRequest, 0, num)
		errno, err := s.ask(end(appendFlags(b, f.flag, f.flag), start))
		if err == nil && errno == syscall.EOPNOTSUPP {
			return f.name
		}
	}
	return "flags"
}

// ask sends a configuration and returns the kernel's error. No acknowledgement
// is asked for: the kernel handles a message before send returns, so an error
// is there then, and is the first thing that is, as a queue that could not be
// bound has sent no packets.
func (s *socket) ask(b []byte) (syscall.Errno, error) {
	if _, err := s.send(b); err != nil {
		return 0, err
	}
	var reply [headerLen + 4 + headerLen]byte
	n, _, err := unix.Recvfrom(s.fd, reply[:], unix.MSG_PEEK|unix.MSG_DONTWAIT)
	if err != nil || n < len(reply) || native.Uint16(reply[4:]) != typeError {
		return 0, nil
	}
	if _, _, err := unix.Recvfrom(s.fd, reply[:], unix.MSG_DONTWAIT); err != nil {
		return 0, os.NewSyscallError("recvfrom", err)
	}
	errno, _, _ := parseError(reply[headerLen:])
	return syscall.Errno(errno), nil
}

func pin(cpu int) error {
	var set unix.CPUSet
	set.Set(cpu)
	return unix.SchedSetaffinity(0, &set)
}
