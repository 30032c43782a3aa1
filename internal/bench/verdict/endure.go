package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// A load is what Inquest has to endure while ordinary datagrams go on.
type load struct {
	name string
	next func(*frames) []byte
}

var loads = []load{
	{"a million flows", (*frames).flow},
	{"SYN flood", (*frames).syn},
	{"malformed packets", (*frames).malformed},
}

// probes is the share of ordinary datagrams, which all rules accept: one in so many.
const probes = 50

// endured is how one load went.
type endured struct {
	packets, probes, arrived int
	full, user               uint64 // lost in the queue, at the reader's socket
	took                     time.Duration
	rss                      [3]int // KiB: before, half-way, at the end
	peak                     int
}

// endure sends each load at half of what the contestant accepts at most, in PREROUTING,
// where all comes through that the kernel takes for IP. No ordinary datagram may be
// lost, the contestant may not end, and its memory may not grow once the flow table is full.
func endure(ctx context.Context, s *setup, all []*contestant) error {
	// Half the load is not half of every millisecond: leave room for the machine's
	// other work.
	length := s.length
	defer func() { s.length = length }()
	s.length = 8192
	if err := s.endureSetup(); err != nil {
		return err
	}
	fmt.Printf("\nEndured, %v each, at half the load, queue in PREROUTING\n\n"+
		"| contestant | load | packets | packets/s | ordinary ones: sent | lost | queue full | socket full | RSS MiB: before | half-way | end | peak |\n"+
		"| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n", s.endure)
	var failed []error
	for _, c := range all {
		if !c.endures {
			continue
		}
		if c.absent != nil {
			fmt.Printf("| %s | absent: %v | | | | | | | | | | |\n", c.name, c.absent)
			continue
		}
		s.hook = "input"
		most, err := s.mostAccepted(ctx, c)
		for _, l := range loads {
			if !strings.Contains(l.name, s.loads) {
				continue
			}
			var e endured
			if err == nil {
				e, err = s.endureRun(ctx, c, l, most/2)
			}
			if ctx.Err() != nil {
				return ctx.Err()
			}
			if err != nil {
				log.Print(err)
				failed = append(failed, err)
				break
			}
			fmt.Printf("| %s | %s | %d | %.0f | %d | %d | %d | %d | %d | %d | %d | %d |\n", c.name, l.name,
				e.packets, float64(e.packets)/e.took.Seconds(), e.probes, e.probes-e.arrived, e.full, e.user,
				e.rss[0]>>10, e.rss[1]>>10, e.rss[2]>>10, e.peak>>10)
			if e.arrived < e.probes {
				failed = append(failed, fmt.Errorf("%s: %s: %d of %d ordinary datagrams were lost", c.name, l.name, e.probes-e.arrived, e.probes))
			}
		}
	}
	return errors.Join(failed...)
}

// endureSetup lets any source address reach the receiver, of either IP version.
func (s *setup) endureSetup() error {
	for _, line := range []string{"ip address replace fd00::2/64 dev r0 nodad", "ip link set r0 promisc on"} {
		if err := s.recv.run(line); err != nil {
			return err
		}
	}
	return s.recv.do(func() error {
		for _, name := range []string{"all", "r0"} {
			if err := os.WriteFile("/proc/sys/net/ipv4/conf/"+name+"/rp_filter", []byte("0"), 0); err != nil {
				return err
			}
		}
		return nil
	})
}

func (s *setup) endureRun(ctx context.Context, c *contestant, l load, rate float64) (e endured, err error) {
	r, err := c.start(ctx, s)
	if err != nil {
		return e, err
	}
	defer r.stop()
	for _, tool := range []string{"iptables-legacy", "ip6tables-legacy"} {
		defer s.recv.run(tool + " -w -t mangle -F")
		if err := s.recv.run(fmt.Sprintf("%s -w -t mangle -A PREROUTING -j NFQUEUE --queue-num %d", tool, s.queue)); err != nil {
			return e, err
		}
	}
	var flood int
	if err := s.recv.do(func() (err error) { flood, err = openSink(floodPort); return err }); err != nil {
		return e, err
	}
	defer unix.Close(flood)
	sink, err := s.openProbes()
	if err != nil {
		return e, err
	}
	defer unix.Close(sink)
	before, err := s.recv.queueStat(s.queue)
	if err != nil {
		return e, err
	}
	_, e.rss[0] = r.usage()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	times := make([]time.Duration, 0, int(rate*s.endure.Seconds()/probes)+1024)
	done := s.send.goOn(s.sendCPU, func() error {
		times, err = e.send(ctx, s, l, rate, sink, times)
		return err
	})
	start, end := time.Now(), false
	for !end {
		select {
		case err = <-done:
			end = true
		case <-time.After(100 * time.Millisecond):
		}
		_, rss := r.usage()
		e.peak, e.rss[2] = max(e.peak, rss), rss
		if time.Since(start) < s.endure/2 {
			e.rss[1] = rss
		}
		if err := r.alive(); err != nil {
			cancel()
			return e, fmt.Errorf("%s: %w", l.name, err)
		}
	}
	if err != nil {
		return e, err
	}
	if err := ctx.Err(); err != nil {
		return e, err
	}
	after, err := s.recv.queueStat(s.queue)
	if err != nil {
		return e, err
	}
	e.full, e.user = after.full-before.full, after.user-before.user
	e.arrived = len(times)
	return e, nil
}

// openProbes opens the socket that ordinary datagrams go to.
func (s *setup) openProbes() (fd int, err error) {
	err = s.recv.do(func() (err error) {
		if fd, err = openSink(port); err != nil {
			return err
		}
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 64<<20); err != nil {
			return fmt.Errorf("SO_RCVBUFFORCE: %w", err)
		}
		return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TIMESTAMPNS, 1)
	})
	return fd, err
}

// send sends the load's frames, and ordinary datagrams among them, and collects the
// latter's times on the way. Those begin with when they were sent; the load's
// own datagrams, of which some come to the same socket, with zeros or nonsense.
func (e *endured) send(ctx context.Context, s *setup, l load, rate float64, sink int, times []time.Duration) ([]time.Duration, error) {
	link, err := openLink("s0")
	if err != nil {
		return nil, err
	}
	defer unix.Close(link)
	fds, err := openFlows(1, 0)
	defer closeAll(fds)
	if err != nil {
		return nil, err
	}
	in := newInbox(32, s.size)
	payload := make([]byte, s.size)
	f := newFrames()
	start := time.Now()
	since := start.UnixNano()
	for ; time.Since(start) < s.endure && ctx.Err() == nil; e.packets++ {
		due := start.Add(time.Duration(float64(e.packets) / rate * 1e9))
		for time.Now().Before(due) {
			times = in.read(sink, since, times)
		}
		if e.packets%probes == 0 {
			times = in.read(sink, since, times) // also when there is never time to spare
			binary.LittleEndian.PutUint64(payload, uint64(time.Now().UnixNano()))
			e.probes++
			if _, err := unix.Write(fds[0], payload); err != nil {
				return nil, fmt.Errorf("send: %w", err)
			}
			continue
		}
		if _, err := unix.Write(link, l.next(f)); err != nil && err != unix.ENOBUFS {
			return nil, fmt.Errorf("send a frame: %w", err)
		}
	}
	e.took = time.Since(start)
	for end := time.Now().Add(200 * time.Millisecond); time.Now().Before(end); {
		times = in.read(sink, since, times)
	}
	return times, nil
}

// openLink opens a socket that sends whole frames to a device.
func openLink(device string) (int, error) {
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("packet socket: %w", err)
	}
	// Go's own list of devices is of the namespace of whichever thread asks: this one.
	req, err := unix.NewIfreq(device)
	if err == nil {
		err = unix.IoctlIfreq(fd, unix.SIOCGIFINDEX, req)
	}
	if err == nil {
		err = unix.Bind(fd, &unix.SockaddrLinklayer{Ifindex: int(req.Uint32())})
	}
	if err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("packet socket on %s: %w", device, err)
	}
	return fd, nil
}
