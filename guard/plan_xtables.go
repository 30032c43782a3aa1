package guard

import (
	"fmt"
	"io"
	"slices"
	"strings"
)

// xedit is a change of one chain, at the rule of this number, from 1.
type xedit struct {
	rule int
	spec string // of the rule to insert before it; "" to delete it
}

// plan finds the rules that queue, and counts the carve-outs that shield none.
func (x *xtables) plan() (points []Point, stale int) {
	for _, t := range x.tables {
		reached := t.reached()
		for _, c := range t.chains {
			found, edits := c.plan(reached[c.name])
			for _, p := range found {
				p.Rule = strings.Join([]string{strings.TrimSuffix(x.program, "-legacy"), t.name, p.Rule}, " ")
				points = append(points, p)
			}
			stale += countRemovals(edits)
		}
	}
	return points, stale
}

func countRemovals(edits []xedit) int {
	n := 0
	for _, e := range edits {
		if e.spec == "" {
			n++
		}
	}
	return n
}

// plan says how it stands with the rules of a chain, and what is to be done.
func (c *xchain) plan(hooks []string) (points []Point, edits []xedit) {
	kept := make(map[int]bool)
	for i := range c.rules {
		r := &c.rules[i]
		target := r.target()
		if len(target) == 0 || target[0].text != "NFQUEUE" {
			continue
		}
		p := Point{Rule: fmt.Sprintf("%s rule %d", c.name, i+1), Queues: "0", Hooks: hooks, State: Open}
		if num, ok := r.option("--queue-num"); ok {
			p.Queues = num
		} else if balance, ok := r.option("--queue-balance"); ok {
			p.Queues = strings.ReplaceAll(balance, ":", "-")
		}
		_, p.Bypass = r.option("--queue-bypass")
		_, p.Fanout = r.option("--queue-cpu-fanout")
		conditions, left, tcp := r.conditions()
		switch {
		case len(hooks) == 0:
			p.State, p.Why = Harmless, "no packet comes here"
		case !slices.ContainsFunc(hooks, func(h string) bool { return slices.Contains(outgoing, h) }):
			p.State, p.Why = Harmless, "only packets that come in or are forwarded come here, and they have no socket"
		case !tcp:
			p.State, p.Why = Harmless, "it queues no TCP"
		case slices.ContainsFunc(c.rules[:i], func(r xrule) bool { _, ours := r.ours(); return !ours && r.acceptsSynAcks() }):
			p.State, p.Why = Shielded, byHand
		}
		if p.State == Open {
			p.Costs = costs(hooks, left)
			if slices.Contains(hooks, "input") || slices.Contains(hooks, "prerouting") {
				p.Costs = append(p.Costs, "SYN/ACKs that come in through this chain are not queued either")
			}
			comment := carveOutComment(conditions)
			if i > 0 {
				if have, ours := c.rules[i-1].ours(); ours && have == comment {
					kept[i-1] = true
					p.State, p.Passed = Shielded, c.rules[i-1].packets
				}
			}
			if p.State == Open {
				spec := fmt.Sprintf("%s -m comment --comment %q -j ACCEPT", strings.Join(conditions, " "), comment)
				edits = append(edits, xedit{i + 1, spec})
			}
		}
		points = append(points, p)
	}
	for i := range c.rules {
		if _, ours := c.rules[i].ours(); ours && !kept[i] {
			edits = append(edits, xedit{rule: i + 1})
		}
	}
	// From the end, so that the numbers of those still to come stay right.
	slices.SortStableFunc(edits, func(a, b xedit) int { return b.rule - a.rule })
	return points, edits
}

// reached returns the hooks from which packets come to each chain.
func (t *xtable) reached() map[string][]string {
	reached := make(map[string][]string)
	for _, base := range t.chains {
		if !base.base {
			continue
		}
		left := []string{base.name}
		for len(left) > 0 {
			c, hook := t.chain(left[0]), strings.ToLower(base.name)
			left = left[1:]
			if c == nil || slices.Contains(reached[c.name], hook) {
				continue
			}
			reached[c.name] = append(reached[c.name], hook)
			for i := range c.rules {
				if target := c.rules[i].target(); len(target) > 0 {
					left = append(left, target[0].text)
				}
			}
		}
	}
	return reached
}

// edits calls f for each change that shields all rules.
func (x *xtables) edits(f func(t *xtable, c *xchain, e xedit)) {
	for _, t := range x.tables {
		reached := t.reached()
		for _, c := range t.chains {
			_, edits := c.plan(reached[c.name])
			for _, e := range edits {
				f(t, c, e)
			}
		}
	}
}

// script is what iptables-restore --noflush takes to shield all rules; "" for nothing.
func (x *xtables) script() string {
	tables := make(map[string][]string)
	x.edits(func(t *xtable, c *xchain, e xedit) { tables[t.name] = append(tables[t.name], e.line(c)) })
	return restoreText(x, tables)
}

// removal is the same to take all carve-outs away.
func (x *xtables) removal() string {
	tables := make(map[string][]string)
	for _, t := range x.tables {
		for _, c := range t.chains {
			for i := len(c.rules) - 1; i >= 0; i-- {
				if _, ours := c.rules[i].ours(); ours {
					tables[t.name] = append(tables[t.name], xedit{rule: i + 1}.line(c))
				}
			}
		}
	}
	return restoreText(x, tables)
}

func (e xedit) line(c *xchain) string {
	if e.spec == "" {
		return fmt.Sprintf("-D %s %d", c.name, e.rule)
	}
	return fmt.Sprintf("-I %s %d %s", c.name, e.rule, e.spec)
}

func restoreText(x *xtables, tables map[string][]string) string {
	var b strings.Builder
	for _, t := range x.tables {
		if lines := tables[t.name]; len(lines) > 0 {
			fmt.Fprintf(&b, "*%s\n%s\nCOMMIT\n", t.name, strings.Join(lines, "\n"))
		}
	}
	return b.String()
}

// Commands returns the commands that shield the rules which iptables-save (or
// ip6tables-save) has printed, to be run one after the other. program is what they call:
// "iptables", "ip6tables".
func Commands(program string, saved io.Reader) (commands []string, points []Point, err error) {
	text, err := io.ReadAll(io.LimitReader(saved, 64<<20))
	if err != nil {
		return nil, nil, err
	}
	x, err := parseXTables(string(text))
	if err != nil {
		return nil, nil, fmt.Errorf("%s-save's output: %w", program, err)
	}
	x.program = program
	x.edits(func(t *xtable, c *xchain, e xedit) {
		commands = append(commands, fmt.Sprintf("%s -w -t %s %s", program, t.name, e.line(c)))
	})
	points, _ = x.plan()
	return commands, points, nil
}
