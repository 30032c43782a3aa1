package main

import (
	"bytes"
	"context"
	"fmt"
	"log"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// sample is what one run of one contestant came to, rates in packets a second.
type sample struct {
	round             int
	offered, accepted float64
	full, user        float64 // lost: the queue was full; the reader's socket was
	cpu               float64 // of the contestant's process, share of a core
	rss               float64 // KiB
	others            float64 // cores that other processes of the machine used
}

func (s sample) result() (round int, rate float64) { return s.round, s.accepted }

// accept measures how many datagrams a second reach the receiver when the sender
// sends all it can.
func accept(ctx context.Context, s *setup, all []*contestant) error {
	var fd int
	err := s.recv.do(func() (err error) { fd, err = openSink(port); return err })
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	for _, s.hook = range s.hooks {
		if err := s.acceptAt(ctx, all); err != nil {
			return err
		}
	}
	return nil
}

func (s *setup) acceptAt(ctx context.Context, all []*contestant) error {
	samples := map[*contestant][]sample{}
	for round := range s.rounds {
		for _, c := range rotate(all, round) {
			if c.absent != nil {
				continue
			}
			sm, err := s.flood(ctx, c)
			if ctx.Err() != nil {
				return ctx.Err()
			}
			if err != nil {
				log.Print(err)
				c.absent = err
				continue
			}
			sm.round = round
			samples[c] = append(samples[c], sm)
		}
	}
	fmt.Printf("\nAccepted with the queue in %s, packets/s\n\n"+
		"| contestant | accepted | of no queue | of floor | ns CPU each | offered | queue full | socket full | CPU | RSS MiB | others | |\n"+
		"| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | --- |\n", strings.ToUpper(s.hook))
	named := map[string][]sample{}
	for c, sm := range samples {
		named[c.name] = sm
	}
	for _, c := range all {
		sm := samples[c]
		if len(sm) == 0 {
			fmt.Printf("| %s | absent | | | | | | | | | | %v |\n", c.name, c.absent)
			continue
		}
		fmt.Printf("| %s | %.0f | %s | %s | %.0f | %.0f | %.0f | %.0f | %.0f %% | %.0f | %.2f | %s |\n", c.name,
			median(sm, func(s sample) float64 { return s.accepted }), ratio(sm, named["none"]), ratio(sm, named["floor"]),
			1e9*median(sm, func(s sample) float64 { return s.cpu / s.accepted }),
			median(sm, func(s sample) float64 { return s.offered }),
			median(sm, func(s sample) float64 { return s.full }),
			median(sm, func(s sample) float64 { return s.user }),
			100*median(sm, func(s sample) float64 { return s.cpu }),
			median(sm, func(s sample) float64 { return s.rss })/1024,
			median(sm, func(s sample) float64 { return s.others }), c.doc)
	}
	return nil
}

// flood runs one contestant under a sender without limit.
func (s *setup) flood(ctx context.Context, c *contestant) (sample, error) {
	var r *running
	if c.command != nil {
		var err error
		if r, err = c.start(ctx, s); err != nil {
			return sample{}, err
		}
		defer r.stop()
		if err := s.rule("-A"); err != nil {
			return sample{}, err
		}
		defer s.rule("-D")
	}
	snd := s.startSender(ctx, 0)
	defer snd.end()
	if err := sleep(ctx, s.warm); err != nil {
		return sample{}, err
	}
	before, err := s.snapshot(snd, r)
	if err != nil {
		return sample{}, err
	}
	if err := sleep(ctx, s.time); err != nil {
		return sample{}, err
	}
	after, err := s.snapshot(snd, r)
	if err != nil {
		return sample{}, err
	}
	if r != nil {
		if err := r.alive(); err != nil {
			return sample{}, err
		}
	}
	return after.since(before), nil
}

// snapshot is the state of all counters at one time.
type snapshot struct {
	at            time.Time
	sent, arrived uint64
	queue         queueStat
	cpu           time.Duration
	rss           int
	busy, own     time.Duration // all cores; this process
}

func (s *setup) snapshot(snd *sender, r *running) (snap snapshot, err error) {
	snap.at = time.Now()
	snap.sent = snd.sent.Load()
	if snap.arrived, err = s.recv.udpArrived(); err != nil {
		return snap, err
	}
	if snap.busy, err = busy(); err != nil {
		return snap, err
	}
	var u unix.Rusage
	unix.Getrusage(unix.RUSAGE_SELF, &u)
	snap.own = time.Duration(u.Utime.Nano() + u.Stime.Nano())
	if r == nil {
		return snap, nil
	}
	snap.cpu, snap.rss = r.usage()
	snap.queue, err = s.reader().queueStat(s.queue)
	return snap, err
}

func (a snapshot) since(b snapshot) sample {
	t := a.at.Sub(b.at).Seconds()
	rate := func(a, b uint64) float64 { return float64(a-b) / t }
	return sample{
		offered: rate(a.sent, b.sent), accepted: rate(a.arrived, b.arrived),
		full: rate(a.queue.full, b.queue.full), user: rate(a.queue.user, b.queue.user),
		cpu: (a.cpu - b.cpu).Seconds() / t, rss: float64(a.rss),
		others: max(0, (a.busy-b.busy-(a.own-b.own)-(a.cpu-b.cpu)).Seconds()/t),
	}
}

// ratio compares rates of the same rounds, and returns the median as text: between
// rounds the machine itself may get faster or slower.
func ratio[T interface{ result() (int, float64) }](a, b []T) string {
	base := map[int]float64{}
	for _, v := range b {
		round, rate := v.result()
		base[round] = rate
	}
	var ratios []float64
	for _, v := range a {
		round, rate := v.result()
		if base[round] > 0 {
			ratios = append(ratios, rate/base[round])
		}
	}
	if len(ratios) == 0 {
		return ""
	}
	return fmt.Sprintf("%.2f", median(ratios, func(r float64) float64 { return r }))
}

func median[T any, V ~int64 | ~float64](list []T, f func(T) V) V {
	values := make([]V, len(list))
	for i, v := range list {
		values[i] = f(v)
	}
	slices.Sort(values)
	return (values[(len(values)-1)/2] + values[len(values)/2]) / 2
}

func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

// busy returns the time that all cores together were not idle.
func busy() (time.Duration, error) {
	b, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, err
	}
	// cpu user nice system idle iowait irq softirq steal ..., in ticks of 10 ms
	var ticks int64
	for i, f := range strings.Fields(string(b[:bytes.IndexByte(b, '\n')]))[1:9] {
		n, err := strconv.ParseInt(f, 10, 64)
		if err != nil {
			return 0, fmt.Errorf("/proc/stat: %w", err)
		}
		if i != 3 && i != 4 {
			ticks += n
		}
	}
	return time.Duration(ticks) * 10 * time.Millisecond, nil
}
