package doctor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"inquest/advisory"
	"inquest/guard"
)

// QueueRules looks at the rules that queue packets.
var QueueRules = &Check{
	Name: "queue-rules",
	Doc: `looks at the rules that queue packets: those whose queue nobody reads, those that queue
SYN/ACKs made here, and whether reloading the ruleset loses the packets that wait`,
	Run:     queueRules,
	Applies: onMachine,
}

// ruleset is what queues packets in a network namespace.
type ruleset struct {
	source string // where it was read
	rules  []guard.Point
	stale  int // carve-outs that shield nothing any more
}

// open reports whether any of them may queue SYN/ACKs made here.
func (r *ruleset) open() bool {
	return slices.ContainsFunc(r.rules, func(p guard.Point) bool { return p.State == guard.Open || p.State == guard.OutOfReach })
}

// runningRules asks the kernel.
func runningRules() (*ruleset, error) {
	r, err := guard.ReadRules(context.Background())
	if err != nil {
		return nil, err
	}
	return &ruleset{"nftables and iptables", r.Points, r.Stale}, nil
}

func queueRules(s *Subject) []Finding {
	set, err := s.rules()
	if err != nil {
		f := unread("The rules that queue packets", err)
		if errors.Is(err, guard.ErrPermission) {
			f.Advice = []string{"Run it as root."}
		}
		return []Finding{f}
	}
	found := s.reload(set)
	if len(set.rules) == 0 {
		return append(found, Finding{Title: "No rule queues packets", Sure: Certain, Looked: []string{set.source}})
	}
	queues, err := s.readQueues()
	if err != nil {
		return append(found, unread("The packet queues", err, "/"+queueFile))
	}
	read := make(map[uint16]bool)
	for _, q := range queues {
		read[q.Number] = true
	}
	for i := range set.rules {
		found = append(found, s.reader(&set.rules[i], read, set.source))
	}
	return append(found, s.synAcks(set)...)
}

// reader says whether somebody reads the queues of a rule.
func (s *Subject) reader(p *guard.Point, read map[uint16]bool, source string) Finding {
	f := Finding{Looked: []string{source, "/" + queueFile}, Sure: Certain, Found: []string{fmt.Sprintf("%s queues to %s", p.Rule, where(p))}}
	numbers, ok := queueNumbers(p.Queues)
	if !ok {
		f.State, f.Title = Unknown, fmt.Sprintf("The rule %s chooses its queue by the packet", p.Rule)
		return f
	}
	var unread []int
	for _, n := range numbers {
		if !read[uint16(n)] {
			unread = append(unread, n)
		}
	}
	switch {
	case len(unread) == 0:
		f.Title = fmt.Sprintf("The queues of %s are read", p.Rule)
	case p.Bypass:
		f.State, f.Title = Weak, fmt.Sprintf("Nobody reads queue %s: what %s queues passes unseen", list(unread, 8), p.Rule)
		f.Advice = []string{"Start the program that reads it; until then the rule has bypass, and lets packets pass."}
	default:
		f.State, f.Title = Exposed, fmt.Sprintf("Nobody reads queue %s: what %s queues is dropped", list(unread, 8), p.Rule)
		f.Advice = []string{"Start the program that reads it, take the rule away, or give it bypass (iptables: --queue-bypass)."}
	}
	return f
}

// where says which queues a rule has.
func where(p *guard.Point) string {
	if _, ok := queueNumbers(p.Queues); !ok {
		return "a queue that it chooses " + p.Queues
	}
	return p.Queues
}

// queueNumbers are those of "0" and "0-3"; not ok for what depends on the packet.
func queueNumbers(text string) ([]int, bool) {
	first, last, isRange := strings.Cut(text, "-")
	if !isRange {
		last = first
	}
	a, err1 := strconv.ParseUint(first, 10, 16)
	b, err2 := strconv.ParseUint(last, 10, 16)
	if err1 != nil || err2 != nil || b < a {
		return nil, false
	}
	var all []int
	for n := a; n <= b; n++ {
		all = append(all, int(n))
	}
	return all, true
}

// synAcks says which rules queue SYN/ACKs made here, and what that means on this kernel.
func (s *Subject) synAcks(set *ruleset) []Finding {
	exposed, sure := s.has(requestSockBug)
	var found []Finding
	add := func(state State, title string, p *guard.Point, advice ...string) {
		f := Finding{State: state, Title: title, Sure: sure, Looked: []string{set.source}, Advice: advice, Advisory: requestSockBug}
		f.Found = []string{fmt.Sprintf("%s, reached from %s, queues to %s", p.Rule, list(p.Hooks, 5), where(p))}
		if p.Why != "" {
			f.Found = append(f.Found, p.Why)
		}
		found = append(found, f)
	}
	for i := range set.rules {
		switch p := &set.rules[i]; p.State {
		case guard.Shielded:
			add(Fine, fmt.Sprintf("SYN/ACKs made here are kept out of the queue of %s", p.Rule), p)
		case guard.Open, guard.OutOfReach:
			if !exposed {
				add(Fine, fmt.Sprintf("%s may queue SYN/ACKs made here, which this kernel is not known to mind", p.Rule), p)
				continue
			}
			advice := "Keep them out: inquest guard apply."
			if p.State == guard.OutOfReach {
				advice = "No rule can be put before it: inquest guard apply --hook, or change the ruleset by hand."
			}
			add(Exposed, fmt.Sprintf("%s may queue SYN/ACKs made here, which can crash this kernel", p.Rule), p, advice)
		}
	}
	if set.stale > 0 {
		found = append(found, Finding{
			State: Weak, Sure: Certain, Looked: []string{set.source}, Title: "Carve-outs of the guard shield nothing: the rules that they stood before are gone",
			Found: []string{fmt.Sprintf("%d of them", set.stale)}, Advice: []string{"inquest guard apply puts them right."},
		})
	}
	return found
}

// has reports whether the kernel has a bug that nothing shields it from, and how sure that is.
func (s *Subject) has(id string) (bool, Sure) {
	all, err := s.known()
	if err != nil || s.Kernel == nil {
		return false, Guess
	}
	a := advisory.Find(all, id)
	if a == nil {
		return false, Guess
	}
	answer := s.Kernel.Check(a)
	return answer.State == advisory.Exposed && !(id == requestSockBug && s.hooked()), sureOf(answer.Sure)
}

// rulesetFiles are what the services that load nftables at boot read.
var rulesetFiles = []string{"etc/nftables.conf", "etc/sysconfig/nftables.conf"}

var (
	flushes  = regexp.MustCompile(`(?m)^\s*(flush ruleset|(?:delete|destroy) table\b[^;#\n]*)`)
	queuesTo = regexp.MustCompile(`(?m)^[^#\n]*\bqueue\b`)
)

// reload looks whether a reload takes the chains away and makes them anew. When a base
// chain goes, the kernel drops all packets of the network namespace that wait in any
// queue (nf_queue_nf_hook_drop in net/netfilter/core.c, since 4.7).
func (s *Subject) reload(set *ruleset) []Finding {
	var found []Finding
	for _, name := range rulesetFiles {
		text, err := s.read(name)
		if err != nil {
			if !errors.Is(err, fs.ErrNotExist) {
				found = append(found, unread("What loads the ruleset", err, "/"+name))
			}
			continue
		}
		m := flushes.FindStringSubmatch(text)
		if m == nil || len(set.rules) == 0 && !queuesTo.MatchString(text) {
			continue
		}
		found = append(found, Finding{
			State: Weak, Sure: Certain, Looked: []string{"/" + name},
			Title:  "Reloading the ruleset drops every packet that waits in a queue",
			Found:  []string{fmt.Sprintf("/%s begins with %q: the chains go, and come again", name, strings.TrimSpace(m[1]))},
			Advice: []string{"Flush the rules and leave the chains: flush chain for each instead, in the same file; then nothing that waits is lost."},
		})
	}
	return found
}
