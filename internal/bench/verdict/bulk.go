package main

import (
	"context"
	"fmt"
	"log"
	"os/exec"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

const (
	bulkFlows = 10
	bulkPort  = 5001
	// decided is the bit of the mark that takes a flow out of the queue.
	decided = "0x1/0x1"
)

// bulk measures ten TCP flows at full speed, from the sender's core to the
// contestant's: without a rule, with connection tracking but no queue, and with each
// contestant reading the queue of both directions in the receiver's namespace. A flow
// whose packets are accepted with the mark's decided bit is not queued any more.
func bulk(ctx context.Context, s *setup, all []*contestant) error {
	s.hook = "input"
	s.shortcut = true
	defer func() { s.shortcut = false }()
	tracked := &contestant{name: "conntrack", doc: "no queue: connections are tracked and their marks compared"}
	list := append([]*contestant{all[0], tracked}, all[1:]...)
	if all[0].name != "none" {
		list = append([]*contestant{{name: "none"}, tracked}, all...)
	}
	rates := map[*contestant][]bulkSample{}
	for round := range s.rounds {
		for _, c := range rotate(list, round) {
			if c.absent != nil {
				continue
			}
			sm, err := s.bulkRun(ctx, c, c != list[0])
			if ctx.Err() != nil {
				return ctx.Err()
			}
			if err != nil {
				log.Print(err)
				c.absent = err
				continue
			}
			sm.round = round
			rates[c] = append(rates[c], sm)
		}
	}
	fmt.Printf("\n%d TCP flows through INPUT and OUTPUT of the receiver\n\n"+
		"| contestant | Gbit/s | of no queue | queued packets/s | CPU | |\n| --- | ---: | ---: | ---: | ---: | --- |\n", bulkFlows)
	rate := func(c *contestant) float64 { return median(rates[c], func(s bulkSample) float64 { return s.bytes }) }
	for _, c := range list {
		if len(rates[c]) == 0 {
			fmt.Printf("| %s | absent | | | | %v |\n", c.name, c.absent)
			continue
		}
		fmt.Printf("| %s | %.2f | %s | %.0f | %.0f %% | %s |\n", c.name, rate(c)*8/1e9, ratio(rates[c], rates[list[0]]),
			median(rates[c], func(s bulkSample) float64 { return s.queued }),
			100*median(rates[c], func(s bulkSample) float64 { return s.cpu }), c.doc)
	}
	return nil
}

// bulkSample is one run: bytes and queued packets a second, and the contestant's
// share of a core.
type bulkSample struct {
	round              int
	bytes, queued, cpu float64
}

func (s bulkSample) result() (round int, rate float64) { return s.round, s.bytes }

// bulkRun runs the flows once.
func (s *setup) bulkRun(ctx context.Context, c *contestant, track bool) (bulkSample, error) {
	defer func() {
		for _, table := range []string{"mangle", "filter"} {
			s.recv.run("iptables-legacy -w -t " + table + " -F")
			s.recv.run("iptables-legacy -w -t " + table + " -X")
		}
	}()
	lines, err := s.bulkRules(c, track)
	if err != nil {
		return bulkSample{}, err
	}
	for _, line := range lines {
		if err := s.recv.run(line); err != nil {
			return bulkSample{}, err
		}
	}
	var r *running
	if c.command != nil {
		if r, err = c.start(ctx, s); err != nil {
			return bulkSample{}, err
		}
		defer r.stop()
	}
	received, end, err := s.bulkTraffic(ctx)
	if err != nil {
		return bulkSample{}, err
	}
	defer end()
	read := func() (at time.Time, bytes, queued uint64, cpu time.Duration) {
		if r != nil {
			cpu, _ = r.usage()
			stat, _ := s.recv.queueStat(s.queue)
			queued = stat.given
		}
		return time.Now(), received.Load(), queued, cpu
	}
	if err := sleep(ctx, s.warm); err != nil {
		return bulkSample{}, err
	}
	at, bytes, queued, cpu := read()
	if err := sleep(ctx, s.time); err != nil {
		return bulkSample{}, err
	}
	at2, bytes2, queued2, cpu2 := read()
	if r != nil {
		if err := r.alive(); err != nil {
			return bulkSample{}, err
		}
	}
	t := at2.Sub(at).Seconds()
	return bulkSample{bytes: float64(bytes2-bytes) / t, queued: float64(queued2-queued) / t, cpu: (cpu2 - cpu).Seconds() / t}, nil
}

// bulkRules returns the kernel's rules: those that the daemon itself prints, or such as
// save a packet's mark as its connection's where the verdict has set the decided bit.
// (Kernels built without NETFILTER_NETLINK_GLUE_CT cannot take the connection's mark
// from the verdict itself.)
func (s *setup) bulkRules(c *contestant, track bool) (lines []string, err error) {
	switch {
	case !track:
		return nil, nil
	case c.config:
		if err := s.writeConfig(); err != nil {
			return nil, err
		}
		out, err := exec.Command(c.command[0], "verdict", "rules", "--iptables", s.configPath()).Output()
		if err != nil {
			return nil, fmt.Errorf("%s: print its rules: %w", c.name, err)
		}
		for line := range strings.Lines(string(out)) {
			if args, ok := strings.CutPrefix(line, "iptables "); ok {
				lines = append(lines, "iptables-legacy "+args)
			}
		}
		return lines, nil
	}
	for _, chain := range []string{"INPUT", "OUTPUT"} {
		lines = append(lines,
			fmt.Sprintf("iptables-legacy -w -t mangle -A %s -m connmark --mark %s -j ACCEPT", chain, decided),
			fmt.Sprintf("iptables-legacy -w -A %s -m mark --mark %s -j CONNMARK --save-mark", chain, decided))
		if c.command != nil {
			lines = append(lines, fmt.Sprintf("iptables-legacy -w -t mangle -A %s -p tcp -j NFQUEUE --queue-num %d", chain, s.queue))
		}
	}
	return lines, nil
}

// bulkTraffic starts the flows, a thread at each end of each.
func (s *setup) bulkTraffic(ctx context.Context) (received *atomic.Uint64, end func(), err error) {
	received = new(atomic.Uint64)
	var listener int
	err = s.recv.do(func() (err error) { listener, err = listenTCP(); return err })
	if err != nil {
		return nil, nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	var done []<-chan error
	for range bulkFlows {
		done = append(done,
			s.recv.goOn(s.readCPU, func() error {
				fd, err := acceptTCP(ctx, listener)
				if err != nil {
					return err
				}
				defer unix.Close(fd)
				buf := make([]byte, 256<<10)
				return transfer(ctx, func() (int, error) { return unix.Read(fd, buf) }, received)
			}),
			s.send.goOn(s.sendCPU, func() error {
				fd, err := dialTCP(ctx)
				if err != nil {
					return err
				}
				defer unix.Close(fd)
				buf := make([]byte, 256<<10)
				return transfer(ctx, func() (int, error) { return unix.Write(fd, buf) }, new(atomic.Uint64))
			}))
	}
	return received, func() {
		cancel()
		for _, d := range done {
			<-d
		}
		unix.Close(listener)
	}, nil
}

// bulkTimeout bounds each call of a flow, so that it sees when its time is over.
const bulkTimeout = 200 * time.Millisecond

// transfer calls f until ctx is done, and sums up what it moved.
func transfer(ctx context.Context, f func() (int, error), sum *atomic.Uint64) error {
	for ctx.Err() == nil {
		n, err := f()
		switch {
		case err == unix.EAGAIN || err == unix.EINTR:
		case err != nil:
			return err
		case n == 0:
			return nil
		default:
			sum.Add(uint64(n))
		}
	}
	return nil
}

func socketTCP() (int, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("socket: %w", err)
	}
	tv := unix.NsecToTimeval(int64(bulkTimeout))
	unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &tv)
	unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv)
	unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
	unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
	return fd, nil
}

func listenTCP() (int, error) {
	fd, err := socketTCP()
	if err != nil {
		return -1, err
	}
	if err := unix.Bind(fd, &unix.SockaddrInet4{Port: bulkPort}); err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("bind: %w", err)
	}
	if err := unix.Listen(fd, bulkFlows); err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("listen: %w", err)
	}
	return fd, nil
}

func acceptTCP(ctx context.Context, listener int) (int, error) {
	for ctx.Err() == nil {
		fd, _, err := unix.Accept4(listener, unix.SOCK_CLOEXEC)
		if err == unix.EAGAIN || err == unix.EINTR {
			continue
		}
		if err != nil {
			return -1, fmt.Errorf("accept: %w", err)
		}
		tv := unix.NsecToTimeval(int64(bulkTimeout))
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv)
		return fd, nil
	}
	return -1, ctx.Err()
}

// dialTCP connects, again and again until it is done: a contestant may lose a SYN.
func dialTCP(ctx context.Context) (int, error) {
	for ctx.Err() == nil {
		fd, err := socketTCP()
		if err != nil {
			return -1, err
		}
		err = unix.Connect(fd, &unix.SockaddrInet4{Port: bulkPort, Addr: [4]byte{10, 99, 0, 2}})
		if err == nil {
			return fd, nil
		}
		unix.Close(fd)
		if err != unix.EAGAIN && err != unix.EINPROGRESS && err != unix.EINTR && err != unix.ETIMEDOUT && err != unix.ECONNREFUSED {
			return -1, fmt.Errorf("connect: %w", err)
		}
	}
	return -1, ctx.Err()
}
