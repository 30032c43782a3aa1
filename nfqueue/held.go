package nfqueue

import "fmt"

// A Held is a packet whose verdict comes later. It is a small value that may be
// copied, stored and sent to other goroutines; the packet gets one verdict all
// the same.
type Held struct {
	queue *queue
	index int
	gen   uint64
}

// A place is where a queue notes a packet held.
type place struct {
	id       uint32
	gen      uint64 // of the Held that may judge it
	received int64
	fate     fate
}

type fate uint8

const (
	free     fate = iota
	waiting       // for its verdict
	flushed       // the kernel has it no more
	defaults      // got Config.Default when the queue was closed
)

// Judge gives the packet its verdict and returns when the kernel has it. The
// zero Verdict means Config.Default. A second verdict is ErrJudged; after
// the queue was closed it is ErrClosed, and ErrFlushed after it vanished.
// (That the kernel dropped the packet is not known here; see Stats.Flushed.)
// After any other error, as when the kernel has no memory, the verdict stands
// and is sent before the next.
//
// Verdicts given at the same time by several goroutines are sent together.
func (h Held) Judge(v Verdict) error {
	q := h.queue
	if q == nil {
		return fmt.Errorf("judge a packet that is not held: %w", ErrJudged)
	}
	if !v.Given() {
		v = q.cfg.Default
	}
	if err := v.check(); err != nil {
		return err
	}
	q.out.mu.Lock()
	p, err := q.take(h)
	if err != nil {
		q.out.mu.Unlock()
		return err
	}
	q.out.out = appendVerdict(q.out.out, q.num, p.id, &v)
	// After the message, see batch.
	q.holds.Add(-1)
	q.out.mu.Unlock()

	err = q.out.flush(nil)
	var t tally
	t.add(&v)
	q.counters.add(&t)
	q.counters.latency.add(Now()-p.received, 1)
	return err
}

// take frees the place of h, with q.out.mu locked.
func (q *queue) take(h Held) (place, error) {
	p := &q.places[h.index]
	if p.gen != h.gen {
		return place{}, ErrJudged
	}
	was := *p
	*p = place{gen: p.gen + 1}
	q.vacant = append(q.vacant, h.index)
	switch was.fate {
	case waiting:
		return was, nil
	case flushed:
		return place{}, ErrFlushed
	default:
		return place{}, ErrClosed
	}
}

// hold notes p as held; called by the queue's goroutine, from the handler.
func (q *queue) hold(p *Packet) Held {
	if p.held {
		return q.lastHeld
	}
	p.held = true
	q.out.mu.Lock()
	defer q.out.mu.Unlock()
	var i int
	if n := len(q.vacant); n > 0 {
		i = q.vacant[n-1]
		q.vacant = q.vacant[:n-1]
	} else {
		i = len(q.places)
		q.places = append(q.places, place{})
	}
	s := &q.places[i]
	s.id, s.received, s.fate = p.ID, p.Received, waiting
	q.holds.Add(1)
	q.lastHeld = Held{queue: q, index: i, gen: s.gen}
	return q.lastHeld
}

// settle ends the waiting of all packets held. Those that get a verdict, v, are
// judged with it; for none they are as flushed by the kernel.
func (q *queue) settle(v Verdict) {
	q.out.mu.Lock()
	defer q.out.mu.Unlock()
	var t tally
	for i := range q.places {
		p := &q.places[i]
		if p.fate != waiting {
			continue
		}
		p.fate = flushed
		if v.Given() {
			p.fate = defaults
			q.out.out = appendVerdict(q.out.out, q.num, p.id, &v)
			t.add(&v)
		}
		q.holds.Add(-1)
	}
	q.counters.add(&t)
}
