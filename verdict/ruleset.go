package verdict

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Ruleset is what the kernel is told: which packets to queue, and what to do with
// those that the daemon has decided on. It knows three languages: nftables messages
// ([Ruleset.Install]), text for nft ([Ruleset.NFT]) and commands for iptables and
// ip6tables ([Ruleset.IPTables]).
type Ruleset struct {
	Table  string
	chains []chain
}

// chain is a list of rules; one with a hook is a base chain.
type chain struct {
	name     string
	hooked   bool
	hook     Hook
	priority int32
	rules    []kernelRule
}

// kernelRule does something with the packets for which all its conditions hold.
type kernelRule struct {
	when []match
	do   action
	why  string // a comment, "" for none
}

// The chains beside those of the hooks.
const (
	decidedChain  = "decided"  // packets that came back with a mark
	acceptedChain = "accepted" // those of them that pass
	rejectedChain = "rejected" // packets of rejected flows
	resetChain    = "reset"    // TCP is reset, others are told that nobody listens
)

// answers are how the kernel tells the sender of a rejected packet, by rule.Answer less
// one: AnswerAuto and AnswerTCPReset are the same.
func (c *Config) answers() []action {
	return []action{
		jump{c.Table, resetChain},
		unreachable(unix.NFT_REJECT_ICMPX_NO_ROUTE),
		unreachable(unix.NFT_REJECT_ICMPX_HOST_UNREACH),
		unreachable(unix.NFT_REJECT_ICMPX_PORT_UNREACH),
		unreachable(unix.NFT_REJECT_ICMPX_ADMIN_PROHIBITED),
	}
}

// NewRuleset makes the rules of a configuration. carveOut keeps the SYN/ACKs that
// this machine makes out of the queues.
//
// A verdict that the kernel shall remember comes back as NF_REPEAT with bits of [Mark]
// in the packet's mark: the packet goes through the chain once more, and the first rule
// sees to it. The other way, NFQA_CT in the verdict, would need a kernel with
// CONFIG_NETFILTER_NETLINK_GLUE_CT and the module nf_conntrack_netlink. It also leaves
// answers to the kernel, which is why the daemon needs no CAP_NET_RAW to reject.
func NewRuleset(c *Config, carveOut bool) *Ruleset {
	mask := uint32(c.Mark)
	once := c.Mark.value(codeOnce)
	packet := func(code uint32) match { return packetMark{value: c.Mark.value(code), mask: mask} }
	flow := func(code uint32) match { return flowMark{value: c.Mark.value(code), mask: mask} }
	to := func(name string) action { return jump{c.Table, name} }

	accepted := chain{name: acceptedChain, rules: []kernelRule{
		{do: clearMark(mask)},
		{do: accept},
	}}
	reset := chain{name: resetChain, rules: []kernelRule{
		{when: []match{protocol(unix.IPPROTO_TCP)}, do: resetTCP{}},
		{do: unreachable(unix.NFT_REJECT_ICMPX_PORT_UNREACH)},
	}}
	// The kernel's own answers belong to the flow that they end.
	rejected := chain{name: rejectedChain, rules: []kernelRule{
		{when: []match{tcpFlags(tcpRST)}, do: accept, why: "answers"},
		{when: []match{related{}}, do: accept},
	}}
	decided := chain{name: decidedChain}
	if c.Shortcut {
		for code := uint32(codeAccept); code < codeReject+uint32(len(c.answers())); code++ {
			decided.rules = append(decided.rules, kernelRule{when: []match{packet(code)}, do: markFlow{c.Mark.value(code), mask}})
		}
	}
	decided.rules = append(decided.rules,
		kernelRule{when: []match{packet(codeAccept)}, do: to(acceptedChain)},
		kernelRule{when: []match{packet(codeDrop)}, do: drop},
	)
	for i, answer := range c.answers() {
		code := codeReject + uint32(i)
		either := packetMark{value: c.Mark.value(code), mask: mask &^ once}
		decided.rules = append(decided.rules, kernelRule{when: []match{either}, do: answer})
		rejected.rules = append(rejected.rules, kernelRule{when: []match{flow(code)}, do: answer})
	}

	r := &Ruleset{Table: c.Table, chains: []chain{accepted, reset, rejected, decided}}
	for _, hook := range c.Hooks {
		rules := []kernelRule{{
			when: []match{packetMark{mask: mask, not: true}}, do: to(decidedChain), why: "what the daemon says",
		}}
		if c.Shortcut {
			rules = append(rules,
				kernelRule{when: []match{flow(codeAccept)}, do: accept, why: "decided flows"},
				kernelRule{when: []match{flow(codeDrop)}, do: drop},
				kernelRule{when: []match{flowMark{mask: mask, not: true}}, do: to(rejectedChain)},
			)
		}
		if hook != Forward {
			rules = append(rules, answerRules(hook)...)
			rules = append(rules, linkLocalRules()...)
		}
		rules = append(rules, c.Exclude.rules(hook)...)
		if carveOut && hook == Output {
			rules = append(rules, kernelRule{when: []match{tcpSYN | tcpACK}, do: accept, why: "request sockets are not safe in a queue"})
		}
		rules = append(rules, kernelRule{do: enqueue{
			first: c.Queues.First, count: uint16(c.Queues.Count),
			bypass: c.Fail == FailOpen, fanout: c.Fanout && c.Queues.Count > 1,
		}})
		r.chains = append(r.chains, chain{hook.String(), true, hook, c.Priority, rules})
	}
	return r
}

// answerRules accept resets and ICMP errors that this kernel makes. They have the conntrack
// entry of the packet that they answer, as related (nf_ct_attach). If that one was its
// flow's first, the entry is not confirmed, and packets that share such a one are dropped
// rather than queued (7d8dc1c7be8d, 6.11).
func answerRules(hook Hook) []kernelRule {
	made := []match{related{}}
	if hook == Input {
		made = append(made, device{name: "lo"})
	}
	var rules []kernelRule
	for _, what := range []match{tcpFlags(tcpRST), protocol(unix.IPPROTO_ICMP), protocol(unix.IPPROTO_ICMPV6)} {
		rules = append(rules, kernelRule{when: append(slices.Clone(made), what), do: accept})
	}
	rules[0].why = "answers that this kernel makes"
	return rules
}

// linkLocalRules accept neighbour discovery: a daemon that is down and fails closed must
// not take the link away too.
func linkLocalRules() []kernelRule {
	var rules []kernelRule
	for _, t := range slices.Sorted(maps.Keys(neighbourDiscovery)) {
		rules = append(rules, kernelRule{when: []match{t}, do: accept})
	}
	rules[0].why = "neighbour discovery"
	return rules
}

// rules accept what is excluded at a hook.
func (e *Exclude) rules(hook Hook) []kernelRule {
	var rules []kernelRule
	add := func(m match) { rules = append(rules, kernelRule{when: []match{m}, do: accept}) }
	for _, name := range e.Interfaces {
		if hook != Output {
			add(device{name: name})
		}
		if hook != Input {
			add(device{name: name, out: true})
		}
	}
	for _, n := range e.Networks {
		add(network{prefix: n})
		add(network{prefix: n, dst: true})
	}
	for _, p := range e.Ports {
		add(port{Port: p})
		add(port{Port: p, dst: true})
	}
	if len(rules) > 0 {
		rules[0].why = "excluded"
	}
	return rules
}

// withXT returns the same rules for a kernel without nft_queue.
func (r *Ruleset) withXT() *Ruleset {
	return r.changed(func(rule kernelRule) (kernelRule, bool) {
		if q, ok := rule.do.(enqueue); ok {
			q.xt = true
			rule.do = q
		}
		return rule, true
	})
}

// without returns the rules but those that do something.
func (r *Ruleset) without(does func(action) bool) *Ruleset {
	return r.changed(func(rule kernelRule) (kernelRule, bool) { return rule, !does(rule.do) })
}

// changed returns a copy with each rule as change returns it, if it is to stay.
func (r *Ruleset) changed(change func(kernelRule) (kernelRule, bool)) *Ruleset {
	x := &Ruleset{Table: r.Table}
	for _, c := range r.chains {
		var rules []kernelRule
		for _, rule := range c.rules {
			if rule, stays := change(rule); stays {
				rules = append(rules, rule)
			}
		}
		c.rules = rules
		x.chains = append(x.chains, c)
	}
	return x
}

// NFT returns the rules as a file for "nft -f", which replaces the table at once.
func (r *Ruleset) NFT() string {
	var b strings.Builder
	fmt.Fprintf(&b, "table inet %s\ndelete table inet %[1]s\n\ntable inet %[1]s {\n", r.Table)
	for i, c := range r.chains {
		if i > 0 {
			b.WriteString("\n")
		}
		fmt.Fprintf(&b, "\tchain %s {\n", c.name)
		if c.hooked {
			fmt.Fprintf(&b, "\t\ttype filter hook %s priority %d; policy accept;\n", c.hook, c.priority)
		}
		for _, rule := range c.rules {
			b.WriteString("\t\t")
			for _, m := range rule.when {
				b.WriteString(m.nft() + " ")
			}
			b.WriteString(rule.do.nft())
			if rule.why != "" {
				fmt.Fprintf(&b, " comment %q", rule.why)
			}
			b.WriteString("\n")
		}
		b.WriteString("\t}\n")
	}
	b.WriteString("}\n")
	return b.String()
}

// IPTables returns commands for iptables and ip6tables that do the same in their table
// "filter", each chain of the kernel going through ours last. They are no transaction.
func (r *Ruleset) IPTables() []string { return r.bothTables(r.iptables) }

// IPTablesRemove returns the commands that undo those of [Ruleset.IPTables].
func (r *Ruleset) IPTablesRemove() []string { return r.bothTables(r.iptablesRemove) }

func (r *Ruleset) bothTables(commands func(v6 bool) []string) []string {
	var list []string
	for _, v6 := range []bool{false, true} {
		program := "iptables -w "
		if v6 {
			program = "ip6tables -w "
		}
		for _, c := range commands(v6) {
			list = append(list, program+c)
		}
	}
	return list
}

func (r *Ruleset) iptables(v6 bool) []string {
	var list []string
	for _, c := range r.chains {
		list = append(list, fmt.Sprintf("-N %s-%s", r.Table, c.name))
	}
	for _, c := range r.chains {
	rules:
		for _, rule := range c.rules {
			words := fmt.Sprintf("-A %s-%s", r.Table, c.name)
			for _, m := range rule.when {
				args, ok := m.iptables(v6)
				if !ok {
					continue rules
				}
				words += " " + args
			}
			list = append(list, words+" "+rule.do.iptables(v6))
		}
	}
	for _, c := range r.chains {
		if c.hooked {
			list = append(list, fmt.Sprintf("-A %s -j %s-%s", strings.ToUpper(c.hook.String()), r.Table, c.name))
		}
	}
	return list
}

func (r *Ruleset) iptablesRemove(bool) []string {
	var list []string
	for _, c := range r.chains {
		if c.hooked {
			list = append(list, fmt.Sprintf("-D %s -j %s-%s", strings.ToUpper(c.hook.String()), r.Table, c.name))
		}
	}
	for _, verb := range []string{"-F", "-X"} {
		for _, c := range r.chains {
			list = append(list, fmt.Sprintf("%s %s-%s", verb, r.Table, c.name))
		}
	}
	return list
}
