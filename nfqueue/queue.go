package nfqueue

import (
	"errors"
	"fmt"
	"runtime"
	"sync/atomic"
	"time"
)

// A Handler judges a packet. It is called by the goroutine of the packet's
// queue, one packet after the other in the order of their ids.
type Handler func(*Packet) Verdict

// queue is one bound queue: a socket, and the goroutine in serve.
type queue struct {
	num  uint16
	cfg  *Config
	out  outbox
	stop atomic.Bool

	// Of the goroutine in serve.
	packet   Packet
	batch    batch
	lastID   uint32
	arrivals []int64 // of packets with timestamps, in this batch
	vanished bool    // the rest of this batch is of a queue that is gone
	unsent   bool    // verdicts are in the outbox that could not be sent
	lastHeld Held
	at, gap  int64 // when packets were received, and how long after those before

	holds  atomic.Int64 // how many places wait
	places []place      // guarded by out.mu
	vacant []int        // guarded by out.mu; indexes of places

	counters counters
}

func newQueue(num uint16, cfg *Config, sock transport) *queue {
	q := &queue{num: num, cfg: cfg, out: outbox{sock: sock}}
	q.batch = batch{queue: num, held: &q.holds}
	return q
}

// serve handles packets until stop is set, and then drains the queue.
func (q *queue) serve(handle Handler, cpu int) error {
	runtime.LockOSThread()
	if cpu >= 0 {
		// The thread keeps the affinity; it ends with this goroutine.
		if err := pin(cpu); err != nil {
			return fmt.Errorf("pin queue %d to CPU %d: %w", q.num, cpu, err)
		}
	} else {
		defer runtime.UnlockOSThread()
	}
	for !q.stop.Load() {
		n, err := q.receive()
		if err != nil {
			return fmt.Errorf("receive packets of queue %d: %w", q.num, err)
		}
		q.handle(n, handle)
	}
	return q.drain(handle)
}

// receive waits for packets. An overrun is an event, not an error.
func (q *queue) receive() (int, error) {
	n, err := q.out.sock.receive(false)
	if n > 0 || err != nil {
		return q.received(n, err)
	}
	if q.unsent {
		// The packets may be all that the queue has room for, so that none comes
		// with which their verdicts could be sent.
		if q.unsent = q.out.flush(nil) != nil; q.unsent {
			time.Sleep(time.Millisecond)
		}
		return 0, nil
	}
	if q.gap < int64(q.cfg.BusyPoll) {
		for until := Now() + int64(q.cfg.BusyPoll); Now() < until && !q.stop.Load(); {
			if n, err = q.out.sock.receive(false); n > 0 || err != nil {
				return q.received(n, err)
			}
		}
	}
	return q.received(q.out.sock.receive(true))
}

func (q *queue) received(n int, err error) (int, error) {
	if errors.Is(err, ErrOverrun) {
		q.counters.overruns.Add(1)
		q.event(ErrOverrun, 0, 0)
		return n, nil
	}
	return n, err
}

// handle judges the n packets received and sends the verdicts.
func (q *queue) handle(n int, handle Handler) {
	if n == 0 {
		return
	}
	q.counters.receives.Add(1)
	now := Now()
	q.gap, q.at = now-q.at, now
	q.vanished = false
	waiting := now // since when the oldest verdict waits to be sent
	for i := range n {
		b, cut := q.out.sock.message(i)
		q.messages(b, cut, now, handle)
		if q.vanished {
			return
		}
		if i == n-1 {
			break
		}
		if t := Now(); t-waiting > int64(q.cfg.MaxDelay) {
			q.flush(now)
			waiting = t
		}
	}
	q.flush(now)
}

// flush sends the verdicts given since the last flush, of packets received at
// the time given.
func (q *queue) flush(received int64) {
	q.batch.close()
	err := q.out.flush(q.batch.buf)
	q.batch.buf = q.batch.buf[:0]
	if q.unsent = err != nil; q.unsent {
		q.counters.refused.Add(1)
		q.event(fmt.Errorf("%w: %w", ErrRefused, err), 0, 0)
	}
	t := &q.batch.count
	q.counters.add(t)
	if n := t.judged - uint64(len(q.arrivals)); n > 0 {
		q.counters.latency.add(Now()-received, n)
	}
	if len(q.arrivals) > 0 {
		now := time.Now().UnixNano()
		for _, at := range q.arrivals {
			q.counters.latency.add(now-at, 1)
		}
		q.arrivals = q.arrivals[:0]
	}
	*t = tally{}
}

// messages handles a datagram: a packet, an error, or an acknowledgement.
func (q *queue) messages(b []byte, cut bool, now int64, handle Handler) {
	for len(b) >= headerLen {
		n := int(native.Uint32(b))
		typ := native.Uint16(b[4:])
		switch {
		case n < headerLen || n > len(b) && !cut:
			q.malformed()
			return
		case n > len(b):
			n = len(b)
		}
		switch typ {
		case typePacket:
			q.judge(b[headerLen:n:n], now, handle)
		case typeError:
			if errno, about, ok := parseError(b[headerLen:n]); ok {
				if q.failed(errno, about); q.vanished {
					return
				}
			} else {
				q.malformed()
			}
		}
		b = b[min(align(n), len(b)):]
	}
	if len(b) > 0 {
		q.malformed()
	}
}

// judge has one packet judged.
func (q *queue) judge(b []byte, now int64, handle Handler) {
	p := &q.packet
	*p = Packet{queue: q, Received: now}
	hasID, err := p.parse(b)
	if hasID {
		// The kernel numbers packets before it finds the socket's buffer full.
		if lost := p.ID - q.lastID - 1; int32(lost) > 0 {
			q.counters.lost.Add(uint64(lost))
			q.event(ErrOverrun, uint64(lost), 0)
		}
		q.lastID = p.ID
	}
	if err != nil {
		q.malformed()
		if hasID {
			q.batch.judge(p.ID, &q.cfg.Default)
		}
		return
	}
	q.batch.count.received++
	v := handle(p)
	if p.held {
		return
	}
	if !v.Given() {
		v = q.cfg.Default
	} else if v.has&hasPayload != 0 {
		if err := v.check(); err != nil {
			q.counters.refused.Add(1)
			q.event(err, 1, 0)
			v = q.cfg.Default
		}
	}
	q.batch.judge(p.ID, &v)
	if !p.Timestamp.IsZero() {
		q.arrivals = append(q.arrivals, p.Timestamp.UnixNano())
	}
}

func (q *queue) malformed() {
	q.counters.malformed.Add(1)
	q.event(ErrMalformed, 1, 0)
}

func (q *queue) event(err error, packets uint64, errno uint32) {
	if q.cfg.Event != nil {
		q.cfg.Event(Event{Queue: q.num, Err: err, Packets: packets, Errno: errno})
	}
}
