package nfqueue

import "sync/atomic"

// A batch turns the verdicts that a queue's goroutine gives, in the order of
// the packets' arrival, into messages: runs of one plain verdict into one
// NFQNL_MSG_VERDICT_BATCH, all others into one NFQNL_MSG_VERDICT each.
//
// A batch verdict judges every packet still queued up to its id, also one that
// is held. So a run only begins and grows while none is held: whatever is held
// when it ends came after its last packet. Held packets become more on this
// goroutine only, and fewer when Judge has put its message into the outbox, from
// where it is sent before the run's. No ids are compared, so they may wrap.
type batch struct {
	queue uint16
	held  *atomic.Int64 // how many packets are
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
	judged   uint64
	received uint64
}

func (t *tally) add(v *Verdict) {
	t.kinds[v.kind()]++
	if v.has&hasPayload != 0 {
		t.modified++
	}
	t.judged++
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
