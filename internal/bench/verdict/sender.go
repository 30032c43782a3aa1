package main

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Ordinary datagrams go to port, those of a flood elsewhere.
const port, floodPort = 9, 19

// sender sends datagrams from its namespace as fast as one core can, or at a rate.
// A burst is one system call: for a queue in INPUT with UDP_SEGMENT (Linux 4.18), so
// that the kernel cuts it into datagrams in front of the device, which costs the
// sender's core least; in OUTPUT, where it would come to the queue in one piece, with
// sendmmsg.
type sender struct {
	sent atomic.Uint64 // datagrams
	stop context.CancelFunc
	done <-chan error
}

// startSender starts one; rate is in datagrams a second, 0 for no limit.
func (s *setup) startSender(ctx context.Context, rate float64) *sender {
	ctx, cancel := context.WithCancel(ctx)
	snd := &sender{stop: cancel}
	snd.done = s.send.goOn(s.sendCPU, func() error { return snd.loop(ctx, s, rate) })
	return snd
}

func (snd *sender) end() error {
	snd.stop()
	return <-snd.done
}

func (snd *sender) loop(ctx context.Context, s *setup, rate float64) error {
	burst := s.burst
	if rate > 0 {
		burst = 1
	}
	segment := s.size
	if s.hook == "output" {
		segment = 0
	}
	fds, err := openFlows(s.flows, segment)
	defer closeAll(fds)
	if err != nil {
		return err
	}
	buf := make([]byte, burst*s.size)
	messages := newMessages(buf, burst)
	start := time.Now()
	for n := uint64(0); ctx.Err() == nil; n++ {
		if rate > 0 {
			due := start.Add(time.Duration(float64(n) / rate * 1e9))
			for time.Now().Before(due) && ctx.Err() == nil {
			}
		}
		fd, sent := fds[n%uint64(len(fds))], burst
		var err error
		if segment > 0 {
			_, err = unix.Write(fd, buf)
		} else {
			sent, err = sendmmsg(fd, messages)
		}
		switch err {
		case nil:
			snd.sent.Add(uint64(sent))
		case unix.ENOBUFS, unix.EAGAIN, unix.EINTR, unix.EPERM: // EPERM: a full queue in OUTPUT
			snd.sent.Add(1)
		default:
			return fmt.Errorf("send: %w", err)
		}
	}
	return nil
}

// message is the kernel's struct mmsghdr.
type message struct {
	header unix.Msghdr
	length uint32
}

// newMessages returns n messages, of the n equal parts of buf.
func newMessages(buf []byte, n int) []message {
	size := len(buf) / n
	messages := make([]message, n)
	for i := range messages {
		iov := &unix.Iovec{Base: &buf[i*size]}
		iov.SetLen(size)
		messages[i].header.Iov = iov
		messages[i].header.SetIovlen(1)
	}
	return messages
}

func sendmmsg(fd int, messages []message) (int, error) {
	n, _, errno := unix.Syscall6(unix.SYS_SENDMMSG, uintptr(fd), uintptr(unsafe.Pointer(&messages[0])), uintptr(len(messages)), 0, 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}

// openFlows opens connected UDP sockets, each with a source port of its own. What is
// written is cut into datagrams of the given size, if that is not 0.
func openFlows(n, segment int) (fds []int, err error) {
	for range n {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return fds, fmt.Errorf("socket: %w", err)
		}
		fds = append(fds, fd)
		if err := unix.SetsockoptInt(fd, unix.IPPROTO_UDP, unix.UDP_SEGMENT, segment); err != nil {
			return fds, fmt.Errorf("UDP_SEGMENT: %w", err)
		}
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, 8<<20); err != nil {
			return fds, fmt.Errorf("SO_SNDBUFFORCE: %w", err)
		}
		if err := unix.Connect(fd, &unix.SockaddrInet4{Port: port, Addr: [4]byte{10, 99, 0, 2}}); err != nil {
			return fds, fmt.Errorf("connect: %w", err)
		}
	}
	return fds, nil
}

func closeAll(fds []int) {
	for _, fd := range fds {
		unix.Close(fd)
	}
}

// openSink opens a socket that datagrams are sent to. Nobody reads it: when it is
// full, each datagram ends there and is counted, at no cost of waking anyone.
func openSink(port int) (fd int, err error) {
	fd, err = unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("socket: %w", err)
	}
	unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, 2048)
	if err := unix.Bind(fd, &unix.SockaddrInet4{Port: port}); err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("bind: %w", err)
	}
	return fd, nil
}
