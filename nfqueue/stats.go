package nfqueue

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"sync/atomic"
)

// Stats are the counts of one queue since Open.
type Stats struct {
	Queue uint16

	Received uint64 // packets that reached this program

	// Verdicts sent, by kind, those of Config.Default included.
	Accepted, Dropped, Repeated, Requeued uint64
	Modified                              uint64 // of these, with another payload

	Held int // packets held now

	// Lost packets had an id but did not fit in the socket's buffer; Overruns
	// are how often the socket said so.
	Lost, Overruns uint64

	Flushed   uint64 // verdicts that came too late; a batch counts once
	Refused   uint64 // verdicts that the kernel refused for other reasons
	Vanished  uint64 // times the queue was gone and was bound again
	Malformed uint64 // messages that could not be read

	Receives, Sends uint64 // system calls that received packets and that sent verdicts

	Latency Latency

	// Kernel is the kernel's own count, nil where /proc/net/netfilter is not
	// readable: it wants root, not CAP_NET_ADMIN.
	Kernel *KernelStats
}

// KernelStats is a line of /proc/net/netfilter/nfnetlink_queue. The counts
// begin when the queue is bound, and wrap.
type KernelStats struct {
	Queue       uint16
	PortID      uint32 // of the socket that bound it
	Waiting     uint32 // packets that wait for their verdict
	Mode        uint8  // 0 none, 1 meta, 2 packet
	CopyRange   uint32
	Dropped     uint32 // the queue was full
	UserDropped uint32 // the socket's buffer was full; with FailOpen they passed and are not counted
	LastID      uint32
}

// ReadKernelStats reads what the kernel tells about all queues of the calling
// thread's network namespace, whoever bound them. It wants root.
func ReadKernelStats() ([]KernelStats, error) {
	b, err := os.ReadFile(procPath)
	if err != nil {
		return nil, err
	}
	return parseKernelStats(b)
}

const procPath = "/proc/thread-self/net/netfilter/nfnetlink_queue"

func parseKernelStats(b []byte) ([]KernelStats, error) {
	var all []KernelStats
	for s := bufio.NewScanner(bytes.NewReader(b)); s.Scan(); {
		var k KernelStats
		if _, err := fmt.Sscan(s.Text(), &k.Queue, &k.PortID, &k.Waiting, &k.Mode, &k.CopyRange,
			&k.Dropped, &k.UserDropped, &k.LastID); err != nil {
			return nil, fmt.Errorf("read nfnetlink_queue line %q: %w", s.Text(), err)
		}
		all = append(all, k)
	}
	return all, nil
}

// counters are what Stats reads while the queue works.
type counters struct {
	received, lost, overruns, flushed atomic.Uint64
	refused, vanished, malformed      atomic.Uint64
	modified, receives                atomic.Uint64
	kinds                             [nfRepeat + 1]atomic.Uint64
	latency                           histogram
}

func (c *counters) add(t *tally) {
	if t.received > 0 {
		c.received.Add(t.received)
	}
	for i, n := range t.kinds {
		if n > 0 {
			c.kinds[i].Add(n)
		}
	}
	if t.modified > 0 {
		c.modified.Add(t.modified)
	}
}

func (q *queue) stats() Stats {
	c := &q.counters
	s := Stats{
		Queue:     q.num,
		Received:  c.received.Load(),
		Accepted:  c.kinds[nfAccept].Load(),
		Dropped:   c.kinds[nfDrop].Load(),
		Repeated:  c.kinds[nfRepeat].Load(),
		Requeued:  c.kinds[nfQueue].Load(),
		Modified:  c.modified.Load(),
		Held:      int(q.holds.Load()),
		Lost:      c.lost.Load(),
		Overruns:  c.overruns.Load(),
		Flushed:   c.flushed.Load(),
		Refused:   c.refused.Load(),
		Vanished:  c.vanished.Load(),
		Malformed: c.malformed.Load(),
		Receives:  c.receives.Load(),
		Sends:     q.out.sends.Load(),
	}
	c.latency.read(&s.Latency)
	return s
}
