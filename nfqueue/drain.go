package nfqueue

import (
	"errors"
	"syscall"
	"time"
)

// failed handles an error that the kernel has sent for a message of type about.
func (q *queue) failed(errno uint32, about uint16) {
	switch {
	case errno == 0: // an acknowledgement, see wake
	case about == typeConfig:
		q.rebindLater(errno)
	case about != typeVerdict && about != typeBatch:
	case syscall.Errno(errno) == syscall.ENOENT:
		q.counters.flushed.Add(1)
		q.event(ErrFlushed, 1, errno)
	case syscall.Errno(errno) == syscall.ENODEV:
		q.vanish()
	default:
		q.counters.refused.Add(1)
		q.event(ErrRefused, 1, errno)
	}
}

// vanish binds the queue anew. Its ids will start from 1 again, so that
// nothing of the old one may be judged any more: packets held are given up, and
// messages not read and verdicts not sent are thrown away before.
func (q *queue) vanish() {
	q.counters.vanished.Add(1)
	q.event(ErrVanished, 0, 0)
	q.settle(Verdict{})
	q.out.discard()
	q.batch.n, q.batch.buf, q.batch.count = 0, q.batch.buf[:0], tally{}
	q.arrivals = q.arrivals[:0]
	for {
		if n, err := q.out.sock.receive(false); n == 0 && !errors.Is(err, ErrOverrun) {
			break
		}
	}
	q.vanished, q.lastID = true, 0
	q.rebind()
}

func (q *queue) rebind() {
	if err := q.out.flush(appendBind(nil, q.num, q.cfg)); err != nil {
		q.rebindLater(0)
	}
}

// rebindLater tries again in a second: someone else has bound the queue.
func (q *queue) rebindLater(errno uint32) {
	q.event(ErrBusy, 0, errno)
	time.AfterFunc(time.Second, func() {
		if !q.stop.Load() {
			q.rebind()
		}
	})
}

// drain ends the queue without losing a packet that Default accepts: the kernel
// stops queueing, what it has queued already is judged, packets held are waited
// for, and then the queue is unbound.
func (q *queue) drain(handle Handler) error {
	pass := q.cfg.Default.kind() == nfAccept
	err := q.out.flush(appendRefuse(nil, q.num, pass))
	for err == nil && handle != nil {
		n, e := q.out.sock.receive(false)
		if n, err = q.received(n, e); n == 0 {
			break
		}
		q.handle(n, handle)
	}
	for until := Now() + int64(q.cfg.Grace); q.holds.Load() > 0 && Now() < until; {
		time.Sleep(time.Millisecond)
	}
	q.settle(q.cfg.Default)
	// What was not read, or was not readable, gets Default too: all ids up to
	// the highest that is not "after" the last one.
	last := Verdict{code: q.cfg.Default.code}
	b := appendBatch(nil, q.num, q.lastID+1<<31-1, &last)
	if e := q.out.flush(appendUnbind(b, q.num)); err == nil {
		err = e
	}
	if e := q.out.close(); err == nil {
		err = e
	}
	return err
}

// discard throws away what was not sent.
func (o *outbox) discard() {
	o.sending.Lock()
	defer o.sending.Unlock()
	o.mu.Lock()
	defer o.mu.Unlock()
	o.out = o.out[:0]
}
