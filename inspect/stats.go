package inspect

import (
	"slices"

	"inquest/inspect/app"
	"inquest/inspect/flow"
	"inquest/inspect/packet"
	"inquest/inspect/rule"
)

// Stats is what an Engine has done since it was made, unless a field says otherwise.
type Stats struct {
	Counters

	// Generation counts the rule sets, from 1.
	Generation uint32
	// Rules counts the packets that each rule decided, or let wait, since its set was
	// loaded; Default those that none did.
	Rules   []uint64
	Default uint64

	Flows flow.Stats

	// Sessions is how many flows' payload is being looked at or was learnt from, of at
	// most MaxSessions. Taken counts those that had to make room for others.
	Sessions, MaxSessions int
	Taken                 uint64

	// StreamMemory, ParserMemory and SessionMemory are what is held now, in bytes.
	StreamMemory, ParserMemory, SessionMemory int64
}

// Counters are those that every worker keeps for itself.
type Counters struct {
	Packets, Bytes uint64
	// Verdicts by rule.Kind.
	Verdicts [rule.Queue + 1]uint64
	// Pending packets waited for a fact; Cached ones belonged to a flow that had been
	// decided; Held ones waited for a dropped segment to come again.
	Pending, Cached, Held uint64
	// Decided counts flows.
	Decided uint64
	// NotIP packets have no IP header, Anomalous ones have something else wrong with
	// them.
	NotIP, Anomalous uint64
	// Protocols counts packets by transport.
	TCP, UDP, ICMP, SCTP, OtherProtocols uint64
	// Apps counts flows by the protocol that was found in their payload.
	Apps [app.ProtoSSH + 1]uint64
	// Streams is about TCP streams that were put in order.
	Streams StreamStats
}

// StreamStats sums up flow.Counts.
type StreamStats flow.Counts

// add takes the counts over from a stream.
func (t *StreamStats) add(c *flow.Counts) {
	t.Retransmitted += c.Retransmitted
	t.Overlaps += c.Overlaps
	t.Conflicts += c.Conflicts
	t.Gaps += c.Gaps
	*c = flow.Counts{}
}

type workerStats struct {
	Counters
	rules []uint64 // of the worker's generation; the last is the default
}

// count takes in a packet and what was decided.
func (s *workerStats) count(p *packet.Packet, d *Decision) {
	s.Packets++
	s.Bytes += uint64(p.Len)
	s.Verdicts[d.Verdict.Kind]++
	switch {
	case d.Cached:
		s.Cached++
	case d.Held:
		s.Held++
	case d.Pending:
		s.Pending++
	}
	if p.Anomalies != 0 {
		s.Anomalous++
	}
	if d.Rule == rule.Default {
		s.rules[len(s.rules)-1]++
	} else {
		s.rules[d.Rule]++
	}
	if p.Version == 0 {
		return
	}
	switch p.Proto {
	case packet.ProtoTCP:
		s.TCP++
	case packet.ProtoUDP, packet.ProtoUDPLite:
		s.UDP++
	case packet.ProtoICMP, packet.ProtoICMPv6:
		s.ICMP++
	case packet.ProtoSCTP:
		s.SCTP++
	default:
		s.OtherProtocols++
	}
}

func (c *Counters) add(o *Counters) {
	c.Packets += o.Packets
	c.Bytes += o.Bytes
	for i, n := range o.Verdicts {
		c.Verdicts[i] += n
	}
	c.Pending += o.Pending
	c.Cached += o.Cached
	c.Held += o.Held
	c.Decided += o.Decided
	c.NotIP += o.NotIP
	c.Anomalous += o.Anomalous
	c.TCP += o.TCP
	c.UDP += o.UDP
	c.ICMP += o.ICMP
	c.SCTP += o.SCTP
	c.OtherProtocols += o.OtherProtocols
	for i, n := range o.Apps {
		c.Apps[i] += n
	}
	counts := flow.Counts(o.Streams)
	c.Streams.add(&counts)
}

// Stats sums up what all workers did.
func (e *Engine) Stats() Stats {
	e.mu.Lock()
	g, workers := e.rules.Load(), slices.Clone(e.workers)
	e.mu.Unlock()

	rules := make([]uint64, len(g.set.Rules())+1)
	s := Stats{Generation: g.number, MaxSessions: e.sessions.max}
	for _, w := range workers {
		w.mu.Lock()
		s.Counters.add(&w.stats.Counters)
		if w.generation == g {
			for i, n := range w.stats.rules {
				rules[i] += n
			}
		}
		w.mu.Unlock()
	}
	s.Rules, s.Default = rules[:len(rules)-1], rules[len(rules)-1]
	s.Flows = e.flows.Stats()
	s.StreamMemory, s.ParserMemory = e.limits.Budget.Used(), e.parsers.Held()
	ss := &e.sessions
	ss.mu.Lock()
	s.Sessions, s.Taken = ss.used, ss.taken
	s.SessionMemory = int64(len(*ss.slabs.Load())) * sessionSlab * sessionSize
	ss.mu.Unlock()
	return s
}
