package main

import (
	"context"
	"encoding/binary"
	"fmt"
	"log"
	"slices"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// latency measures how long a datagram takes from the sender's system call through
// the queue to the receiver's device, at half of what each contestant accepts at most
// with the queue in OUTPUT. The kernel stamps arrival (SO_TIMESTAMPNS), on the
// contestant's core, so nobody has to be woken to measure it: the sender reads the
// stamps whenever it has nothing to send.
func latency(ctx context.Context, s *setup, all []*contestant) error {
	s.hook = "output"
	type result struct {
		rate, lost     float64
		p50, p99, p999 time.Duration
	}
	results := map[*contestant][]result{}
	for round := range s.rounds {
		for _, c := range rotate(all, round) {
			if c.absent != nil {
				continue
			}
			most, err := s.mostAccepted(ctx, c)
			if err == nil {
				var times []time.Duration
				var sent int
				times, sent, err = s.paced(ctx, c, most/2)
				if err == nil && len(times) > 0 {
					slices.Sort(times)
					at := func(share float64) time.Duration { return times[int(share*float64(len(times)-1))] }
					results[c] = append(results[c], result{most / 2, 1 - float64(len(times))/float64(sent), at(0.5), at(0.99), at(0.999)})
				}
			}
			if ctx.Err() != nil {
				return ctx.Err()
			}
			if err != nil {
				log.Print(err)
				c.absent = err
			}
		}
	}
	fmt.Printf("\nLatency at half the load, queue in OUTPUT, µs\n\n" +
		"| contestant | packets/s | p50 | p99 | p99.9 | lost | |\n| --- | ---: | ---: | ---: | ---: | ---: | --- |\n")
	for _, c := range all {
		r := results[c]
		if len(r) == 0 {
			fmt.Printf("| %s | absent | | | | | %v |\n", c.name, c.absent)
			continue
		}
		µs := func(f func(result) time.Duration) float64 { return float64(median(r, f).Nanoseconds()) / 1000 }
		fmt.Printf("| %s | %.0f | %.0f | %.0f | %.0f | %.4f %% | %s |\n", c.name, median(r, func(r result) float64 { return r.rate }),
			µs(func(r result) time.Duration { return r.p50 }), µs(func(r result) time.Duration { return r.p99 }),
			µs(func(r result) time.Duration { return r.p999 }), 100*median(r, func(r result) float64 { return r.lost }), c.doc)
	}
	return nil
}

// mostAccepted returns the rate that accept measures, once and shortly.
func (s *setup) mostAccepted(ctx context.Context, c *contestant) (float64, error) {
	var fd int
	err := s.recv.do(func() (err error) { fd, err = openSink(port); return err })
	if err != nil {
		return 0, err
	}
	defer unix.Close(fd)
	short := *s
	short.time = s.time / 3
	sm, err := short.flood(ctx, c)
	return sm.accepted, err
}

// paced sends at a rate and returns each arrived datagram's time on its way.
func (s *setup) paced(ctx context.Context, c *contestant, rate float64) (times []time.Duration, sent int, err error) {
	if c.command != nil {
		r, err := c.start(ctx, s)
		if err != nil {
			return nil, 0, err
		}
		defer r.stop()
		if err := s.rule("-A"); err != nil {
			return nil, 0, err
		}
		defer s.rule("-D")
	}
	sink, err := s.openProbes()
	if err != nil {
		return nil, 0, err
	}
	defer unix.Close(sink)
	times = make([]time.Duration, 0, int(rate*(s.warm+s.time).Seconds())+1024)
	err = <-s.send.goOn(s.sendCPU, func() error {
		fds, err := openFlows(s.flows, 0)
		defer closeAll(fds)
		if err != nil {
			return err
		}
		in := newInbox(32, s.size)
		payload := make([]byte, max(s.size, 8))
		start := time.Now()
		for n := 0; time.Since(start) < s.warm+s.time && ctx.Err() == nil; n++ {
			due := start.Add(time.Duration(float64(n) / rate * 1e9))
			for time.Now().Before(due) {
				times = in.read(sink, start.Add(s.warm).UnixNano(), times)
			}
			if n%32 == 0 { // also when there is never time to spare
				times = in.read(sink, start.Add(s.warm).UnixNano(), times)
			}
			now := time.Now()
			binary.LittleEndian.PutUint64(payload, uint64(now.UnixNano()))
			if now.Sub(start) >= s.warm {
				sent++
			}
			if _, err := unix.Write(fds[n%len(fds)], payload[:s.size]); err != nil && err != unix.EPERM && err != unix.ENOBUFS {
				return fmt.Errorf("send: %w", err)
			}
		}
		for end := time.Now().Add(100 * time.Millisecond); time.Now().Before(end); {
			times = in.read(sink, start.Add(s.warm).UnixNano(), times)
		}
		return nil
	})
	if err == nil {
		err = ctx.Err()
	}
	return times, sent, err
}

// inbox receives datagrams that begin with when they were sent, and the kernel's
// stamp of when they came.
type inbox struct {
	messages []message
	payload  []byte
	control  []byte
	size     int
}

// stampLen is the length of SO_TIMESTAMPNS's control message on 64-bit machines.
const stampLen = 32

func newInbox(n, size int) *inbox {
	in := &inbox{payload: make([]byte, n*size), control: make([]byte, n*stampLen), size: size}
	in.messages = newMessages(in.payload, n)
	for i := range in.messages {
		in.messages[i].header.Control = &in.control[i*stampLen]
	}
	return in
}

// read appends the times on the way of what is there, of what was sent after since.
// Others' datagrams are not taken for such.
func (in *inbox) read(fd int, since int64, times []time.Duration) []time.Duration {
	for i := range in.messages {
		in.messages[i].header.SetControllen(stampLen)
	}
	n, _, errno := unix.Syscall6(unix.SYS_RECVMMSG, uintptr(fd), uintptr(unsafe.Pointer(&in.messages[0])), uintptr(len(in.messages)), unix.MSG_DONTWAIT, 0, 0)
	if errno != 0 {
		return times
	}
	now := time.Now().UnixNano()
	for i := range int(n) {
		sent := int64(binary.LittleEndian.Uint64(in.payload[i*in.size:]))
		if in.messages[i].length != uint32(in.size) || sent < since || sent > now || in.messages[i].header.Controllen < stampLen {
			continue
		}
		stamp := in.control[i*stampLen+unix.CmsgLen(0):]
		came := int64(binary.LittleEndian.Uint64(stamp))*1e9 + int64(binary.LittleEndian.Uint64(stamp[8:]))
		times = append(times, time.Duration(came-sent))
	}
	return times
}

// rotate returns the list begun at another element each round, so that no
// contestant always follows the same one.
func rotate[T any](list []T, n int) []T {
	n %= max(len(list), 1)
	return append(slices.Clone(list[n:]), list[:n]...)
}
