package inspect

import (
	"inquest/inspect/app"
	"inquest/inspect/flow"
	"inquest/inspect/packet"
	"inquest/inspect/rule"
)

// feed shows the payload of one packet to analyzers and patterns. It is the Reader of
// the flow's streams.
type feed struct {
	w   *Worker
	s   *session
	dir flow.Dir // of the bytes being read
	now int64

	// changed: something was learnt since the rules were asked.
	changed bool
	// stopped: the rules refuse what was learnt already, though there is more in the
	// packet; outcome is what they say.
	stopped bool
	outcome rule.Outcome
	// held: the packet waits for one before it.
	held bool
}

// judgeSession judges a packet of a flow whose payload is looked at.
func (w *Worker) judgeSession(s *session, ref *flow.Ref[value], now int64) rule.Outcome {
	p, g, fd := &w.packet, w.generation, &w.feed
	*fd = feed{w: w, s: s, dir: ref.Dir, now: now}
	if g.search && s.generation != g.number {
		s.scan, s.generation, s.searched, s.over = app.Scan{}, g.number, 0, false
	}
	w.env.Facts, w.env.Patterns = &s.inspection.Facts, s.scan.Hits()
	w.env.PatternsDone = !g.search || s.searched >= w.engine.cfg.Search

	switch {
	case s.over, p.Anomalies&(packet.BadChecksum|packet.BadIPChecksum|packet.BadHeaderLen|packet.BadLen) != 0:
		// The receiver does not read it, so neither does the inspection.
	case p.Proto == packet.ProtoUDP:
		if p.Fragment {
			fd.Gap(p.PayloadLen) // where nothing puts fragments together
			break
		}
		fd.Data(p.Payload)
		if g.search {
			g.set.Patterns().Gap(&s.scan, app.Dir(ref.Dir)) // no match spans datagrams
		}
	case p.TCP.Flags&packet.RST != 0:
	case p.Fragment:
		// Its bytes count as lost once they are acknowledged.
	default:
		return fd.segment(ref)
	}
	return fd.end()
}

// segment takes in a TCP segment and judges it.
func (fd *feed) segment(ref *flow.Ref[value]) rule.Outcome {
	w, s, p, dir := fd.w, fd.s, &fd.w.packet, ref.Dir
	limits := &w.engine.limits
	flags := p.TCP.Flags
	if s.syn.on {
		if flags&packet.ACK != 0 && dir != s.syn.dir && int32(p.TCP.Ack-s.syn.end) >= 0 {
			s.syn.on = false
		} else if flags&packet.SYN != 0 || dir != s.syn.dir {
			fd.restart()
		}
	}
	if flags&packet.SYN != 0 && (p.PayloadLen == 0 || flags&packet.ACK != 0 || s.begun[dir]) ||
		flags&packet.SYN == 0 && !acceptable(ref, p) {
		if flags&packet.SYN != 0 && flags&packet.ACK != 0 {
			fd.acknowledge(ref)
		}
		return fd.end()
	}
	seg := flow.Segment{
		Seq: p.TCP.Seq, SYN: p.TCP.Flags&packet.SYN != 0, FIN: p.TCP.Flags&packet.FIN != 0,
		Data: p.Payload, Len: p.PayloadLen,
	}
	if h := &s.held[dir]; h.on && seg.Len > 0 {
		if int32(seg.Seq-h.seq) > 0 {
			fd.held = true
			return h.outcome
		}
		if int32(seg.Seq+uint32(seg.Len)-h.seq) > 0 {
			// The segment that was dropped comes again. What it says is known.
			if o := w.judge(fd.now); refuses(o) {
				return o
			}
			h.on = false
		}
	}
	for d := range s.streams {
		if seq, ok := ref.Flow.FirstSeq(flow.Dir(d)); ok && !s.begun[d] {
			// Unless this is the middle of a connection that was not looked at before.
			if flow.Dir(d) != dir || seg.Seq-seq < beginning {
				s.streams[d].Begin(seq)
			}
		}
		s.begun[d] = true
	}
	fd.acknowledge(ref)
	if seg.SYN {
		s.syn = syn{on: true, dir: dir, end: seg.Seq + 1 + uint32(seg.Len)}
	}
	s.streams[dir].Add(seg, limits, fd)
	for d := range s.streams {
		w.stats.Streams.add(&s.streams[d].Counts)
	}
	o := fd.end()
	if refuses(o) && !o.Pending && !o.PerFlow && seg.Len > 0 && !s.inspection.Facts.Done {
		s.held[dir] = held{on: true, seq: seg.Seq, outcome: o}
		s.held[dir].outcome.Log = false
	}
	return o
}

// acceptable tells whether a segment's receiver reads its payload: one that
// acknowledges nothing, or what its receiver never sent, or what it sent longer ago
// than a window, is dropped (RFC 9293, 3.10.7.4 and RFC 5961, 5).
func acceptable(ref *flow.Ref[value], p *packet.Packet) bool {
	if p.TCP.Flags&packet.ACK == 0 {
		return false
	}
	sent, ok := ref.Flow.NextSeq(1 - ref.Dir)
	if !ok {
		return true
	}
	off := int32(p.TCP.Ack - sent)
	return off <= 0 && off >= -1<<30
}

// acknowledge takes in what a segment acknowledges, as far as it was sent.
func (fd *feed) acknowledge(ref *flow.Ref[value]) {
	p := &fd.w.packet
	if p.TCP.Flags&packet.ACK == 0 || !acceptable(ref, p) {
		return
	}
	fd.dir = 1 - ref.Dir
	fd.s.streams[fd.dir].Ack(p.TCP.Ack, &fd.w.engine.limits, fd)
	fd.dir = ref.Dir
}

// restart forgets what was learnt of a SYN's payload.
func (fd *feed) restart() {
	w, s := fd.w, fd.s
	s.close(&w.engine.limits)
	w.start(s)
	s.scan, s.searched = app.Scan{}, 0
	s.begun, s.lost, s.held, s.syn = [2]bool{}, [2]int{}, [2]held{}, syn{}
	w.env.Facts, w.env.Patterns = &s.inspection.Facts, s.scan.Hits()
	w.env.PatternsDone = !w.generation.search
}

// beginning is how far from a connection's first byte the first segment with payload
// may lie: farther ones are not out of order, but from its middle.
const beginning = 1 << 16

// refuses tells whether a packet does not reach its receiver.
func refuses(o rule.Outcome) bool {
	return o.Verdict.Kind == rule.Drop || o.Verdict.Kind == rule.Reject
}

// end judges the packet with all that is known after it.
func (fd *feed) end() rule.Outcome {
	if fd.stopped {
		return fd.outcome
	}
	return fd.w.judge(fd.now)
}

// Data is called with the next bytes of a stream, or a datagram. When there are
// several messages in them, the rules are asked about each.
func (fd *feed) Data(b []byte) {
	s, dir := fd.s, fd.dir
	if fd.stopped {
		s.lost[dir] += len(b)
		return
	}
	fd.search(b)
	in := &s.inspection
	if n := s.lost[dir]; n > 0 {
		s.lost[dir] = 0
		fd.changed = in.Gap(app.Dir(dir), n) || fd.changed
	}
	for len(b) > 0 && !in.Facts.Done {
		if fd.changed && fd.refused() {
			s.lost[dir] += len(b)
			return
		}
		n, changed := in.Feed(app.Dir(dir), b)
		fd.changed = changed || fd.changed
		if n <= 0 {
			return
		}
		b = b[n:]
	}
}

// Gap is called for bytes that were not seen.
func (fd *feed) Gap(n int) {
	if fd.w.generation.search {
		fd.w.generation.set.Patterns().Gap(&fd.s.scan, app.Dir(fd.dir))
	}
	if fd.stopped {
		fd.s.lost[fd.dir] += n
		return
	}
	fd.changed = fd.s.inspection.Gap(app.Dir(fd.dir), n) || fd.changed
}

// refused asks the rules about what is known before more is read.
func (fd *feed) refused() bool {
	fd.changed = false
	if o := fd.w.judge(fd.now); refuses(o) && !o.Pending {
		fd.stopped, fd.outcome = true, o
	}
	return fd.stopped
}

func (fd *feed) search(b []byte) {
	w, s := fd.w, fd.s
	room := w.engine.cfg.Search - s.searched
	if !w.generation.search || room <= 0 {
		return
	}
	b = b[:min(len(b), room)]
	s.searched += len(b)
	if w.generation.set.Patterns().Search(&s.scan, app.Dir(fd.dir), b) {
		fd.changed = true
		w.env.Patterns = s.scan.Hits()
	}
	w.env.PatternsDone = s.searched >= w.engine.cfg.Search
}
