package guard

import (
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// hookNames are those of the IP families, by their numbers.
var hookNames = []string{"prerouting", "input", "forward", "output", "postrouting", "ingress"}

// Where packets come by that were made here: only there may a packet's socket be a
// request socket. What comes in is handed on without a socket (ip_rcv, ip_local_deliver), and so is what is
// bridged.
var outgoing = []string{"output", "postrouting"}

// plan finds the rules that queue, and says of each how it stands with SYN/ACKs. Each
// point of the result that is Open has the changes that shield it, with counters or
// without.
func (s *snapshot) plan(counted bool) ([]Point, []change, error) {
	reached := s.reached()
	var points []Point
	var changes []change
	var ids uint32
	kept := make(map[*kernelRule]bool)
	for i := range s.rules {
		r := &s.rules[i]
		q, ok := r.queue()
		if !ok {
			continue
		}
		p := Point{
			Rule: fmt.Sprintf("%s handle %d", r.chainKey, r.handle), Queues: q.queues, Bypass: q.bypass, Fanout: q.fanout,
			Hooks: reached[r.chainKey],
		}
		conditions, left := r.conditions(q)
		p.State, p.Why = s.state(r, conditions, p.Hooks)
		if p.State == Open && s.handmade(i) {
			p.State, p.Why = Shielded, byHand
		}
		if p.State == Open {
			c := s.carveOut(r, q, conditions, p.Hooks)
			p.Costs = costs(p.Hooks, left)
			if before := s.before(i); before != nil && before.comment == c.comment(s) {
				kept[before] = true
				p.State, p.Passed = Shielded, before.passed()
			} else {
				more, err := c.changes(s, counted, &ids)
				if err != nil {
					return nil, nil, err
				}
				changes = append(changes, more...)
			}
		}
		points = append(points, p)
	}
	for i := range s.rules {
		if r := &s.rules[i]; r.ours() && !kept[r] {
			changes = append(changes, r.removal())
		}
	}
	return points, changes, nil
}

// state says how it stands with a rule that queues: Open if nothing else is known.
func (s *snapshot) state(r *kernelRule, conditions []expression, hooks []string) (State, string) {
	inChain := func(c chain) bool { return c.chainKey == r.chainKey }
	switch {
	case !slices.Contains([]byte{unix.NFPROTO_INET, unix.NFPROTO_IPV4, unix.NFPROTO_IPV6}, r.family):
		return Harmless, "the hooks of family " + familyNames[r.family] + " know no socket"
	case len(hooks) == 0:
		return Harmless, "no packet comes here"
	case !slices.ContainsFunc(hooks, func(h string) bool { return slices.Contains(outgoing, h) }):
		return Harmless, "only packets that come in or are forwarded come here, and they have no socket"
	case !matchesTCP(conditions):
		return Harmless, "it queues no TCP"
	case s.owned[chainKey{family: r.family, table: r.table}]:
		return OutOfReach, "the table has an owner, and nobody else may change it"
	case slices.ContainsFunc(s.chains, func(c chain) bool { return inChain(c) && c.bound }):
		return OutOfReach, "the chain belongs to one rule, and takes no other"
	}
	return Open, ""
}

func (s *snapshot) carveOut(r *kernelRule, q queueing, conditions []expression, hooks []string) *carveOut {
	// Family inet is not iptables' (and has no match "tcp" of its).
	xt := r.family != unix.NFPROTO_INET && (q.xt || slices.ContainsFunc(conditions, func(e expression) bool { return e.name == "match" }))
	leaving := slices.ContainsFunc(hooks, func(h string) bool { return h == "prerouting" || h == "input" })
	return &carveOut{before: *r, xt: xt, leaving: leaving, copied: conditions}
}

// byHand is why a rule without a carve-out is shielded.
const byHand = "an earlier rule of the chain accepts all SYN/ACKs"

// handmade reports whether all SYN/ACKs are accepted before a rule, in its chain.
func (s *snapshot) handmade(i int) bool {
	for j := i - 1; j >= 0 && s.rules[j].chainKey == s.rules[i].chainKey; j-- {
		if r := &s.rules[j]; !r.ours() && r.acceptsSynAcks() {
			return true
		}
	}
	return false
}

// before is the rule right before one, in the same chain; nil if there is none.
func (s *snapshot) before(i int) *kernelRule {
	if i == 0 || s.rules[i-1].chainKey != s.rules[i].chainKey {
		return nil
	}
	return &s.rules[i-1]
}

// costs says what a carve-out costs beyond what it is for.
func costs(hooks, left []string) []string {
	var list []string
	if slices.Contains(hooks, "postrouting") || slices.Contains(hooks, "forward") {
		list = append(list, "SYN/ACKs that this machine forwards for others are not queued either")
	}
	if len(left) > 0 {
		list = append(list, "SYN/ACKs are accepted whatever "+strings.Join(left, ", ")+" would say")
	}
	return list
}

// reached returns the hooks from which packets come to each chain.
func (s *snapshot) reached() map[chainKey][]string {
	leads := make(map[chainKey][]string)
	for _, r := range s.rules {
		for _, e := range r.exprs {
			var names []string
			if e.name == "immediate" {
				names = []string{immediateVerdict(e.data).chain()}
			} else if m := s.sets[setKey{r.family, r.table, e.setName()}]; m != nil && e.givesVerdict() {
				names = m.chains()
			}
			for _, name := range names {
				if name != "" {
					leads[r.chainKey] = append(leads[r.chainKey], name)
				}
			}
		}
	}
	reached := make(map[chainKey][]string)
	for _, c := range s.chains {
		if !c.base {
			continue
		}
		hook := fmt.Sprintf("hook %d", c.hook)
		if int(c.hook) < len(hookNames) {
			hook = hookNames[c.hook]
		}
		left := []chainKey{c.chainKey}
		for len(left) > 0 {
			key := left[0]
			left = left[1:]
			if slices.Contains(reached[key], hook) {
				continue
			}
			reached[key] = append(reached[key], hook)
			for _, name := range leads[key] {
				left = append(left, chainKey{key.family, key.table, name})
			}
		}
	}
	return reached
}
