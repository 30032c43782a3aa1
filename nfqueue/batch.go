package nfqueue

import "sync/atomic"

// A batch turns the verdicts that a queue's goroutine gives, in the order of
// the packets' arrival, into messages: runs of one plain verdict into one
// NFQNL_MSG_VERDICT_BATCH, all others into one NFQNL_MSG_VERDICT each.
//
// A batch verdict judges every packet still queued up to its id, also one that
// is held. So none is written while any is held: held is how many are. It can
// only grow by hold, on this goroutine, which closes the run before; and a
// Judge of another goroutine lowers it only after its own message was put into
// the outbox, which is sent before this one. No ids are compared, so that they
// may wrap.
type batch struct {
	queue uint16
	held  *atomic.Int64
	buf   []byte

	run  Verdict // of the open run, if n is not 0
	last uint32
	n    int

	count tally
}

// A tally counts verdicts that are not in the queue's counters yet.
type tally struct {
	kinds    [nfRepeat + 1]uint64 // by verdict
	modified uint64
	n        uint64
}

func (t *tally) add(v *Verdict) {
	t.kinds[v.kind()]++
	if v.has&hasPayload != 0 {
		t.modified++
	}
	t.n++
}

// judge takes the verdict of the packet id, later than all before.
func (b *batch) judge(id uint32, v *Verdict) {
	b.count.add(v)
	if v.plain() && b.held.Load() == 0 {
		if b.n > 0 && b.run.code == v.code && b.run.has == v.has && b.run.mark == v.mark {
			b.last = id
			b.n++
			return
		}
		b.close()
		b.run, b.last, b.n = *v, id, 1
		return
	}
	b.close()
	b.buf = appendVerdict(b.buf, b.queue, id, v)
}

// hold is to be called before a packet is held.
func (b *batch) hold() { b.close() }

// close ends the run.
func (b *batch) close() {
	switch {
	case b.n == 1:
		b.buf = appendVerdict(b.buf, b.queue, b.last, &b.run)
	case b.n > 1:
		b.buf = appendBatch(b.buf, b.queue, b.last, &b.run)
	}
	b.n = 0
}
