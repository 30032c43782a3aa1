package rule

import "math"

// Scratch is what Judge needs besides its arguments. The zero value is ready; use one
// for each goroutine.
type Scratch struct {
	m     machine
	lists merge
}

// compiledRule is what Judge needs of a rule.
type compiledRule struct {
	when    condFn
	needs   sources
	view    view
	log     bool
	verdict Verdict
	limit   *limiter
}

// Judge tells what the rules say of one packet. now is a time in nanoseconds that does
// not go backwards; rates are measured by it. Judge allocates nothing, unless a
// condition is left to the interpreter (see [Set.Describe]), and may be called by
// several goroutines at once, each with its own scratch.
func (s *Set) Judge(e *Env, now int64, scratch *Scratch) Outcome {
	m := &scratch.m
	m.load(e)
	m.hide = fromFacts &^ sources(m.facts.Known)
	lists := s.find(m, scratch, s.byFlow, false)
	out := Outcome{Rule: Default, Verdict: s.verdict, Log: s.log}
	seen := asFlow
	m.look(seen)
	for id := lists.next(); id >= 0; id = lists.next() {
		r := &s.compiled[id]
		if r.view != seen {
			seen = r.view
			m.look(seen)
		}
		is := r.when(m)
		if is == unknown {
			return Outcome{Rule: int(id), Verdict: s.pending, Pending: true}
		}
		if is == yes && (r.limit == nil || r.limit.matches(m, now)) {
			out = Outcome{Rule: int(id), Verdict: r.verdict, Log: r.log}
			break
		}
	}
	out.PerFlow = s.lasts(m, scratch, out.Rule)
	return out
}

// find collects the rules that may match. For the second pass it looks at both
// directions of what is judged by packet.
func (s *Set) find(m *machine, scratch *Scratch, byFlow *index, reverse bool) *merge {
	l := scratch.lists.lists[:0:cap(scratch.lists.lists)]
	if s.byPacket != nil {
		m.look(asPacket)
		l = s.byPacket.find(m, l)
		if reverse {
			m.look(asReverse)
			l = s.byPacket.find(m, l)
		}
	}
	m.look(asFlow)
	l = byFlow.find(m, l)
	scratch.lists.lists = l
	return &scratch.lists
}

// lasts tells whether the rule that decided will decide all other packets of the flow
// too: whether it is true, and all rules before it are not, with all that may still
// change taken for unknown.
func (s *Set) lasts(m *machine, scratch *Scratch, decided int) bool {
	if !m.env.Flow.Src.IsValid() {
		return false
	}
	change := fromPacket | fromFacts&^sources(m.facts.Final)
	if !m.env.PatternsDone {
		change |= fromPatterns
	}
	if s.needs&change == 0 && s.byPacket == nil && !s.limits {
		return true
	}
	end := int32(math.MaxInt32)
	if decided != Default {
		end = int32(decided)
		r := &s.compiled[decided]
		if r.limit != nil || !s.always(m, r, change, yes) {
			return false
		}
	}
	byFlow := s.restless
	if s.needs&change&fromFacts != 0 {
		byFlow = s.byFlow
	}
	m.hide = change
	lists := s.find(m, scratch, byFlow, true)
	for id := lists.next(); id >= 0 && id < end; id = lists.next() {
		if r := &s.compiled[id]; !s.always(m, r, change, no) {
			return false
		}
	}
	return true
}

// always tells whether a rule comes to the same for all packets of the flow: yes, or
// anything that does not match.
func (s *Set) always(m *machine, r *compiledRule, change sources, want tri) bool {
	is := func(v view) bool {
		m.look(v)
		m.hide = change
		if v != asFlow {
			m.hide |= fromDevices
		}
		switch r.when(m) {
		case yes:
			return want == yes
		case unknown:
			return false
		default:
			return want == no
		}
	}
	if r.view == asFlow {
		if want == no && r.limit == nil && r.needs&change == 0 {
			return true // it was not true a moment ago, and nothing of it can change
		}
		return is(asFlow)
	}
	return is(asPacket) && is(asReverse)
}
