package doctor

import (
	"fmt"
	"io/fs"
	"regexp"
	"slices"
	"strings"

	"inquest/guard"
)

// Where a copy of a machine's files may have the rules: as sosreport(1) names them, or
// as nft list ruleset and iptables-save print them.
var (
	nftTexts = []string{
		"sos_commands/firewall_tables/nft_-a_list_ruleset", "sos_commands/firewall_tables/nft_list_ruleset",
		"sos_commands/networking/nft_list_ruleset", "nft_list_ruleset", "ruleset.nft", "etc/nftables.conf",
	}
	iptablesTexts = []string{
		"sos_commands/firewall_tables/iptables-save", "sos_commands/firewall_tables/ip6tables-save",
		"iptables-save", "ip6tables-save", "etc/iptables/rules.v4", "etc/iptables/rules.v6", "etc/sysconfig/iptables", "etc/sysconfig/ip6tables",
	}
)

// recordedRules reads rules as text.
func (s *Subject) recordedRules() (*ruleset, error) {
	var set ruleset
	var sources []string
	for _, name := range nftTexts {
		if text, err := s.read(name); err == nil {
			set.rules = append(set.rules, parseNFT(text)...)
			sources = append(sources, "/"+name)
			break
		}
	}
	for _, name := range iptablesTexts {
		if text, err := s.read(name); err == nil {
			set.rules = append(set.rules, parseIPTables(text)...)
			sources = append(sources, "/"+name)
		}
	}
	if len(sources) == 0 {
		return nil, fmt.Errorf("no %s, nor %s: %w", list(nftTexts, 9), list(iptablesTexts, 9), fs.ErrNotExist)
	}
	set.source = list(sources, 9)
	return &set, nil
}

// textChain is a chain, as far as its text tells.
type textChain struct {
	name  string // with its table
	hook  string // of a base chain: "output"; else ""
	jumps []string
	rules []string
}

var (
	nftTable = regexp.MustCompile(`^\s*table (\w+ )?([\w-]+) \{`)
	nftChain = regexp.MustCompile(`^\s*chain ([\w-]+) \{`)
	nftHook  = regexp.MustCompile(`\btype \w+ hook (\w+)\b`)
	nftJump  = regexp.MustCompile(`\b(?:jump|goto) ([\w-]+)`)
	nftQueue = regexp.MustCompile(`(?:^|\s)queue(?: (.*))?$`)
	nftNum   = regexp.MustCompile(`^(?:num |to )?(\d+(?:-\d+)?)$`)
	comments = regexp.MustCompile(`\s#.*$|\scomment "[^"]*"`)
)

// parseNFT finds the rules that queue in what `nft list ruleset` prints.
func parseNFT(text string) []guard.Point {
	var chains []*textChain
	table := ""
	var chain *textChain
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, "\n")
		switch {
		case nftTable.MatchString(line):
			m := nftTable.FindStringSubmatch(line)
			table, chain = strings.TrimSpace(m[1]+m[2]), nil
		case nftChain.MatchString(line):
			chain = &textChain{name: table + " " + nftChain.FindStringSubmatch(line)[1]}
			chains = append(chains, chain)
		case chain == nil:
		case strings.TrimSpace(line) == "}":
			chain = nil
		case nftHook.MatchString(line):
			chain.hook = nftHook.FindStringSubmatch(line)[1]
		default:
			line = strings.TrimSpace(comments.ReplaceAllString(line, ""))
			for _, m := range nftJump.FindAllStringSubmatch(line, 64) {
				chain.jumps = append(chain.jumps, table+" "+m[1])
			}
			chain.rules = append(chain.rules, line)
		}
	}
	hooks := reached(chains)
	var points []guard.Point
	for _, c := range chains {
		for i, r := range c.rules {
			m := nftQueue.FindStringSubmatch(r)
			if m == nil {
				continue
			}
			p := guard.Point{Rule: fmt.Sprintf("%s rule %d", c.name, i+1), Queues: "0", Hooks: hooks[c.name]}
			var to []string
			words := strings.Fields(m[1])
			for j := 0; j < len(words); j++ {
				switch w := words[j]; {
				case w == "flags":
				case isQueueFlags(w):
					p.Bypass = p.Bypass || strings.Contains(w, "bypass")
					p.Fanout = p.Fanout || strings.Contains(w, "fanout")
				default:
					to = append(to, w)
				}
			}
			if len(to) > 0 {
				p.Queues = "by the packet"
				if m := nftNum.FindStringSubmatch(strings.Join(to, " ")); m != nil {
					p.Queues = m[1]
				}
			}
			p.State, p.Why = judgeText(&p, strings.TrimSuffix(r, m[0]), c.rules[:i], nftSynAck)
			points = append(points, p)
		}
	}
	return points
}

func isQueueFlags(w string) bool {
	for f := range strings.SplitSeq(w, ",") {
		if f != "bypass" && f != "fanout" {
			return false
		}
	}
	return true
}

// reached tells from which hooks packets come to each chain.
func reached(chains []*textChain) map[string][]string {
	byName := make(map[string]*textChain)
	for _, c := range chains {
		byName[c.name] = c
	}
	hooks := make(map[string][]string)
	var visit func(c *textChain, hook string)
	visit = func(c *textChain, hook string) {
		if c == nil || slices.Contains(hooks[c.name], hook) {
			return
		}
		hooks[c.name] = append(hooks[c.name], hook)
		for _, j := range c.jumps {
			visit(byName[j], hook)
		}
	}
	for _, c := range chains {
		if c.hook != "" {
			visit(c, c.hook)
		}
	}
	return hooks
}

// What keeps SYN/ACKs out: in front of a rule, one that accepts them all, without any
// other condition; in the rule itself, another protocol or the state of a connection that has just begun.
var (
	nftSynAck = regexp.MustCompile(`^(?:(?:meta l4proto|ip protocol|ip6 nexthdr) tcp )?` +
		`tcp flags (?:& \(?(?:(?:fin|rst|syn|ack)(?: ?\| ?)?)+\)? == \(?(?:syn ?\| ?ack|ack ?\| ?syn)\)?|(?:syn,ack|ack,syn) / (?:syn,ack|ack,syn|fin,syn,rst,ack))` +
		`(?: counter(?: packets \d+ bytes \d+)?)? accept$`)
	iptablesSynAck = regexp.MustCompile(`^-p tcp (?:-m tcp )?--tcp-flags (?:FIN,)?SYN,(?:RST,)?ACK SYN,ACK(?: -m comment --comment (?:\S+|"[^"]*"))? -j ACCEPT$`)
	otherProtocol  = regexp.MustCompile(`\budp\b|\bicmp|\bsctp\b|\bdccp\b|-p (?:17|1|58)\b`)
	newOnly        = regexp.MustCompile(`ct state (?:\{ )?new(?: \})?(?:\s|$)|--(?:ct)?state NEW(?:\s|$)|(?:^|\s)--syn\b`)
)

// judgeText says how a rule stands with SYN/ACKs made here.
func judgeText(p *guard.Point, conditions string, before []string, shield *regexp.Regexp) (guard.State, string) {
	local := slices.ContainsFunc(p.Hooks, func(h string) bool { return h == "output" || h == "postrouting" })
	switch {
	case !local:
		return guard.Harmless, "packets made here do not come to it"
	case otherProtocol.MatchString(conditions) && !strings.Contains(conditions, "tcp"):
		return guard.Harmless, "it is about another protocol than TCP"
	case newOnly.MatchString(conditions):
		return guard.Harmless, "a SYN/ACK does not begin a connection"
	case slices.ContainsFunc(before, shield.MatchString):
		return guard.Shielded, ""
	}
	return guard.Open, ""
}

// iptablesHooks are the built-in chains.
var iptablesHooks = map[string]string{
	"PREROUTING": "prerouting", "INPUT": "input", "FORWARD": "forward", "OUTPUT": "output", "POSTROUTING": "postrouting",
}

var (
	iptablesRule    = regexp.MustCompile(`^(?:\[\d+:\d+\] )?-A (\S+) (.*)$`)
	iptablesJump    = regexp.MustCompile(`(?:^|\s)(?:-j|-g) (\S+)`)
	iptablesNum     = regexp.MustCompile(`--queue-num (\d+)`)
	iptablesBalance = regexp.MustCompile(`--queue-balance (\d+):(\d+)`)
)

// parseIPTables finds the rules that queue in what iptables-save prints.
func parseIPTables(text string) []guard.Point {
	var chains []*textChain
	byName := make(map[string]*textChain)
	table := ""
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if rest, ok := strings.CutPrefix(line, "*"); ok {
			table = rest
			continue
		}
		m := iptablesRule.FindStringSubmatch(line)
		if m == nil {
			continue
		}
		name := "iptables " + table + " " + m[1]
		c := byName[name]
		if c == nil {
			c = &textChain{name: name, hook: iptablesHooks[m[1]]}
			byName[name] = c
			chains = append(chains, c)
		}
		if j := iptablesJump.FindStringSubmatch(m[2]); j != nil {
			c.jumps = append(c.jumps, "iptables "+table+" "+j[1])
		}
		c.rules = append(c.rules, m[2])
	}
	hooks := reached(chains)
	var points []guard.Point
	for _, c := range chains {
		for i, r := range c.rules {
			j := iptablesJump.FindStringSubmatch(r)
			if j == nil || j[1] != "NFQUEUE" && j[1] != "QUEUE" {
				continue
			}
			p := guard.Point{
				Rule: fmt.Sprintf("%s rule %d", c.name, i+1), Queues: "0", Hooks: hooks[c.name],
				Bypass: strings.Contains(r, "--queue-bypass"), Fanout: strings.Contains(r, "--queue-cpu-fanout"),
			}
			if m := iptablesNum.FindStringSubmatch(r); m != nil {
				p.Queues = m[1]
			} else if m := iptablesBalance.FindStringSubmatch(r); m != nil {
				p.Queues = m[1] + "-" + m[2]
			}
			p.State, p.Why = judgeText(&p, r, c.rules[:i], iptablesSynAck)
			points = append(points, p)
		}
	}
	return points
}
