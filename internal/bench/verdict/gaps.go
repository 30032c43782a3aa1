package main

import (
	"context"
	"fmt"
	"time"
)

// gaps says for how long each core is away from a thread that never sleeps: what the
// machine itself (its hypervisor, interrupts, threads of the kernel) adds to a tail of
// latencies, whoever reads the queue.
func gaps(ctx context.Context, s *setup, _ []*contestant) error {
	const long = 500 * time.Microsecond
	fmt.Printf("\nThe machine alone, %v: how long a thread that never sleeps is kept from its core\n\n"+
		"| core | away for over %v | longest | in all |\n| --- | ---: | ---: | ---: |\n", s.time, long)
	for _, t := range []struct {
		name string
		cpu  int
	}{{"the sender's", s.sendCPU}, {"the reader's", s.readCPU}} {
		var count int
		var longest, sum time.Duration
		err := <-s.send.goOn(t.cpu, func() error {
			start := time.Now()
			for last := start; last.Sub(start) < s.time && ctx.Err() == nil; {
				now := time.Now()
				if gap := now.Sub(last); gap > long {
					count, longest, sum = count+1, max(longest, gap), sum+gap
				}
				last = now
			}
			return ctx.Err()
		})
		if err != nil {
			return err
		}
		fmt.Printf("| %s | %d times | %v | %.2f %% |\n", t.name, count, longest.Round(10*time.Microsecond), 100*sum.Seconds()/s.time.Seconds())
	}
	return nil
}
