package inspect

import (
	"sync"
	"time"

	"inquest/inspect/app"
	"inquest/inspect/flow"
	"inquest/inspect/packet"
	"inquest/inspect/rule"
)

// Decision is what is to be done with a packet.
type Decision struct {
	Verdict rule.Verdict
	// Rule is the index, in the rules of Engine.Set, of the rule that decided or that
	// waits for a fact; rule.Default when none did.
	Rule int
	// Log: the rule asks for a line in the log. Of a flow that is decided only the
	// packet that decided it asks for one.
	Log bool
	// Pending: the rule waits for a fact of the flow, and the verdict is what the rule
	// file says of packets until then.
	Pending bool
	// Decided: all later packets of the flow, in both directions, get the same
	// verdict, so that the kernel may give it without asking.
	Decided bool
	// Cached: the flow had been decided by an earlier packet.
	Cached bool
	// First: the packet began its flow.
	First bool
	// Held: the packet was dropped for what its rule said of a segment before it, which
	// must be let through first.
	Held bool
}

// Worker inspects the packets of one queue. It must not be used by two goroutines at
// a time.
type Worker struct {
	engine *Engine
	mu     sync.Mutex // only Stats ever waits for it

	generation *generation
	packet     packet.Packet
	env        rule.Env
	scratch    rule.Scratch
	noMeta     rule.Meta

	// of the last packet, for Flow, Dir and Facts
	tuple packet.Tuple
	dir   flow.Dir
	facts app.Facts
	keep  bool // facts of every packet, not only of those to be logged

	feed  feed
	stats workerStats

	// what is locked while a packet is inspected
	ref    flow.Ref[value]
	locked *session
}

// Worker returns a new worker.
func (e *Engine) Worker() *Worker {
	w := &Worker{engine: e}
	w.feed.w = w
	e.mu.Lock()
	defer e.mu.Unlock()
	w.adopt(e.rules.Load())
	e.workers = append(e.workers, w)
	return w
}

// adopt begins to judge by another generation's rules.
func (w *Worker) adopt(g *generation) {
	w.generation = g
	w.stats.rules = make([]uint64, len(g.set.Rules())+1)
}

// Packet returns the last packet, valid until the next Inspect.
func (w *Worker) Packet() *packet.Packet { return &w.packet }

// Flow returns the flow of the last packet, in the original direction; without a flow
// it is the packet's own tuple.
func (w *Worker) Flow() packet.Tuple { return w.tuple }

// Dir returns the direction of the last packet in its flow.
func (w *Worker) Dir() flow.Dir { return w.dir }

// Facts returns what was known of the last packet's flow when it was judged. It is
// filled in for packets whose Decision has Log set, and valid until the next Inspect.
func (w *Worker) Facts() *app.Facts { return &w.facts }

// Inspect judges a packet that begins with its network header. The time now is in
// nanoseconds of a clock that does not run backwards; it must be the same clock for
// all workers. meta may be nil. Nothing of data or meta is kept.
//
// A packet of a flow that is known costs no allocation.
func (w *Worker) Inspect(data []byte, meta *rule.Meta, now int64) Decision {
	w.mu.Lock()
	defer w.unlock()
	d := w.inspect(data, meta, now)
	w.stats.count(&w.packet, &d)
	return d
}

// unlock is deferred: who contains a panic finds nothing locked. A session that is
// still locked was left by one; its payload is not looked at again.
func (w *Worker) unlock() {
	if s := w.locked; s != nil {
		s.inspection = app.Inspection{Facts: w.engine.unseen[1]}
		s.over = true
		w.unlockSession()
	}
	w.ref.Release()
	w.ref = flow.Ref[value]{}
	w.mu.Unlock()
}

func (w *Worker) unlockSession() {
	if s := w.locked; s != nil {
		w.locked = nil
		s.mu.Unlock()
	}
}

func (w *Worker) inspect(data []byte, meta *rule.Meta, now int64) Decision {
	g := w.engine.rules.Load()
	if g != w.generation {
		w.adopt(g)
	}
	p := &w.packet
	if err := p.Decode(data); err != nil {
		w.stats.NotIP++
	}
	if meta == nil {
		meta = &w.noMeta
	}
	if p.TCP.Flags&(packet.SYN|packet.FIN|packet.RST) != 0 {
		p.Verify(meta.Checksum) // what it does not reach it does not open or close
	}
	w.ref = w.engine.flows.Track(p, now)
	ref := &w.ref
	if ref.Flow == nil {
		return w.alone(meta, now)
	}
	v := &ref.Flow.Value
	w.tuple, w.dir = p.Tuple(), ref.Dir
	if ref.Dir == flow.Reply {
		w.tuple = w.tuple.Reverse()
	}
	valid := v.flags&decided != 0 && v.generation == g.number
	if ref.Knocks && !(valid && p.PayloadLen > 0) {
		return w.knock(ref, meta, now)
	}
	if valid {
		d := Decision{Rule: int(v.rule), Decided: !ref.Knocks, Cached: true}
		d.Verdict = g.verdict(d.Rule)
		if w.keep {
			w.recall(v)
		}
		return d
	}
	return w.judgeFlow(ref, meta, now)
}

// recall fills in what is known of a flow that was decided.
func (w *Worker) recall(v *value) {
	w.facts = app.Facts{}
	if v.session == 0 {
		return
	}
	if s := w.engine.sessions.get(v.session, v.serial); s != nil {
		w.facts = s.inspection.Facts
		s.mu.Unlock()
	}
}

func (g *generation) verdict(index int) rule.Verdict {
	if index == rule.Default {
		return g.set.Default()
	}
	return g.set.Rules()[index].Verdict
}

// alone judges a packet that belongs to no flow: of it nothing more will be known.
func (w *Worker) alone(meta *rule.Meta, now int64) Decision {
	p := &w.packet
	w.tuple, w.dir = p.Tuple(), flow.Original
	if p.Version != 0 {
		p.Verify(meta.Checksum)
	}
	w.env = rule.Env{Packet: p, Facts: &w.engine.unseen[0], PatternsDone: true, Meta: meta}
	o := w.judge(now)
	return w.decision(o)
}

// judge asks the rules.
func (w *Worker) judge(now int64) rule.Outcome {
	return w.generation.set.Judge(&w.env, now, &w.scratch)
}

func (w *Worker) decision(o rule.Outcome) Decision {
	if o.Log || w.keep {
		w.facts = app.Facts{}
		if w.env.Facts != nil {
			w.facts = *w.env.Facts
		}
	}
	return Decision{Verdict: o.Verdict, Rule: o.Rule, Log: o.Log, Pending: o.Pending, Decided: o.PerFlow}
}

// judgeFlow judges a packet of a flow that is not decided.
func (w *Worker) judgeFlow(ref *flow.Ref[value], meta *rule.Meta, now int64) Decision {
	e, p, f := w.engine, &w.packet, ref.Flow
	v := &f.Value
	env := w.flowEnv(ref, meta, now)
	s := w.session(f)
	var o rule.Outcome
	if s == nil {
		if v.flags&settled != 0 || !inspectable(p.Proto) {
			env.Facts, env.PatternsDone = e.nothing(v.flags), true
		} else {
			env.Facts = before(p.Proto)
		}
		o = w.judge(now)
	} else {
		o = w.judgeSession(s, ref, now)
	}
	d := w.decision(o)
	d.First = ref.Created
	if s != nil {
		d.Held = w.feed.held
		// What is on a SYN may not be what its receiver reads.
		d.Decided = d.Decided && !s.syn.on
		w.settle(s, f, d.Decided)
	}
	if d.Decided {
		v.flags |= decided
		v.generation, v.rule = w.generation.number, int32(o.Rule)
		w.stats.Decided++
	}
	return d
}

// flowEnv sets what rules see of a packet and its flow, but for the facts.
func (w *Worker) flowEnv(ref *flow.Ref[value], meta *rule.Meta, now int64) *rule.Env {
	e, p, f := w.engine, &w.packet, ref.Flow
	v := &f.Value
	p.Verify(meta.Checksum)
	if ref.Created {
		v.in, v.out = e.devices.number(meta.In), e.devices.number(meta.Out)
	}
	env := &w.env
	env.Packet, env.Meta = p, meta
	env.Flow = rule.FlowInfo{
		Tuple: w.tuple,
		In:    e.devices.name(v.in), Out: e.devices.name(v.out),
		Reply:   ref.Dir == flow.Reply,
		State:   stateNames[f.State()],
		Packets: f.Packets[0] + f.Packets[1],
		Bytes:   f.Bytes[0] + f.Bytes[1],
		Age:     time.Duration(now - f.Started),
	}
	env.Patterns, env.PatternsDone = nil, !w.generation.search
	return env
}

// knock judges a SYN on the ports of a connection that may be over: as that of a new
// one, of which nothing is known. It decides nothing: the flow stays as it is until
// the SYN is answered. One with payload is not let through where the flow was refused.
func (w *Worker) knock(ref *flow.Ref[value], meta *rule.Meta, now int64) Decision {
	env := w.flowEnv(ref, meta, now)
	env.Flow.State, env.Flow.Packets, env.Flow.Bytes, env.Flow.Age = stateNames[flow.Half], 1, uint64(w.packet.Len), 0
	env.Facts = beforeTCP
	d := w.decision(w.judge(now))
	d.Decided = false
	return d
}

var stateNames = [...]string{
	flow.Half: "new", flow.OneWay: "established", flow.Established: "established", flow.Closing: "closing",
	flow.Closed: "closed", flow.Unreplied: "new", flow.Replied: "established",
}

// inspectable tells whether there are analyzers and patterns for a transport.
func inspectable(proto uint8) bool { return proto == packet.ProtoTCP || proto == packet.ProtoUDP }

// session returns the flow's session, locked, and makes one when there is payload to
// be looked at for the first time. It is nil when there is nothing to look at, or no
// room.
func (w *Worker) session(f *flow.Flow[value]) *session {
	e, p, v := w.engine, &w.packet, &f.Value
	if v.session != 0 {
		if s := e.sessions.get(v.session, v.serial); s != nil {
			w.locked = s
			return s
		}
		v.session = 0
		v.flags |= settled | incomplete
		return nil
	}
	if v.flags&settled != 0 || !inspectable(p.Proto) || p.PayloadLen == 0 || !p.HasTransport ||
		w.generation.facts&^before(p.Proto).Final == 0 && !w.generation.search {
		return nil
	}
	s, id := e.sessions.add()
	if s == nil {
		v.flags |= settled | incomplete
		return nil
	}
	w.locked = s
	v.session, v.serial = id, s.serial
	w.start(s)
	return s
}

// start makes a session ready for the last packet's flow.
func (w *Worker) start(s *session) {
	proto := w.packet.Proto
	s.inspection.Start(app.Flow{
		Transport: app.Transport(proto), ClientPort: w.tuple.SrcPort, ServerPort: w.tuple.DstPort, Budget: w.engine.parsers,
	})
	if known := before(proto).Final; w.generation.facts&^known == 0 {
		s.inspection.Facts = w.engine.unseen[0] // only patterns are wanted
	} else {
		s.inspection.Facts.Known, s.inspection.Facts.Final = known, known
	}
}

// settle unlocks the session, and ends it when it is of no more use.
func (w *Worker) settle(s *session, f *flow.Flow[value], perFlow bool) {
	e, v, facts := w.engine, &f.Value, &s.inspection.Facts
	if !s.counted && (facts.Done || facts.Proto != app.ProtoUnknown) {
		s.counted = true
		w.stats.Apps[facts.Proto]++
	}
	if s.syn.on {
		w.unlockSession()
		return
	}
	if !s.over && (perFlow || facts.Done && w.env.PatternsDone) {
		s.over = true
		s.close(&e.limits)
		if !facts.Done {
			// The payload of a decided flow is not looked at any more. To the rules of
			// a later generation what is not known by now is absent.
			facts.Known, facts.Final, facts.Done, facts.Gap = app.AllFields, app.AllFields, true, true
		}
	}
	nothing := s.over && facts.Proto == app.ProtoUnknown && !s.scan.Any()
	gap := facts.Gap
	w.unlockSession()
	switch {
	case nothing:
		v.flags |= settled
		if gap {
			v.flags |= incomplete
		}
	case perFlow && e.sessions.crowded():
		// What is known would serve the rules of a later generation, but there are
		// flows that need the room now.
		v.flags |= settled | incomplete
	default:
		return
	}
	id, serial := v.session, v.serial
	v.session = 0
	e.sessions.remove(id, serial)
}
