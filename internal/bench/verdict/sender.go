package main

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

const port = 9

// sender sends datagrams from its namespace as fast as one core can, or at a rate.
// A burst is one system call with UDP_SEGMENT (Linux 4.18): the kernel cuts it into
// datagrams in front of the device, which costs the sender's core less than anything
// else from user space, so the core has the most time for the queue.
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
	fds, err := openFlows(s.flows, s.size)
	defer closeAll(fds)
	if err != nil {
		return err
	}
	buf := make([]byte, burst*s.size)
	start := time.Now()
	for n := uint64(0); ctx.Err() == nil; n++ {
		if rate > 0 {
			due := start.Add(time.Duration(float64(n) / rate * 1e9))
			for time.Now().Before(due) && ctx.Err() == nil {
			}
		}
		_, err := unix.Write(fds[n%uint64(len(fds))], buf)
		switch err {
		case nil:
			snd.sent.Add(uint64(burst))
		case unix.ENOBUFS, unix.EAGAIN, unix.EINTR:
		default:
			return fmt.Errorf("send: %w", err)
		}
	}
	return nil
}

// openFlows opens connected UDP sockets, each with a source port of its own.
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

// openSink opens the socket that datagrams are sent to. Nobody reads it: when it is
// full, each datagram ends there and is counted, at no cost of waking anyone.
func openSink() (fd int, err error) {
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
