package rule

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"github.com/goccy/go-yaml/ast"
	"golang.org/x/sync/errgroup"

	"inquest/inspect/app"
)

// Rule is one rule as the file has it.
type Rule struct {
	Name        string  `json:"name"`
	Description string  `json:"description,omitempty"`
	When        string  `json:"when"`
	Verdict     Verdict `json:"verdict"`
	Log         Log     `json:"log,omitzero"`
	Rate        *Rate   `json:"rate,omitempty"`
	PerPacket   bool    `json:"per_packet,omitempty"` // scope: packet
	Disabled    bool    `json:"disabled,omitempty"`
	Line        int     `json:"line"` // where it begins in the file
}

// Log is what a rule writes to the log when it matches.
type Log struct {
	On      bool       `json:"on"`
	Level   slog.Level `json:"level"`
	Message string     `json:"message,omitempty"` // "" for the caller's own
}

// maxRules bounds a file.
const maxRules = 100_000

// Set is the rules of one file, ready to judge packets. It is immutable, save for how
// full the buckets of its rates are, and safe for concurrent use.
type Set struct {
	rules    []Rule
	compiled []compiledRule
	verdict  Verdict // the default
	log      bool    // log the default
	pending  Verdict
	patterns *app.Patterns
	daemon   ast.Node
	warnings []Problem
	lists    map[string]any
	notes    []note

	byFlow, byPacket *index // byPacket is nil without such rules
	needs            sources
	limits           bool
}

// Load reads a rule file; name is what messages call it. The error is an *[Error] with
// everything that is wrong.
//
// The section `daemon` is left to the caller, see [Set.Daemon].
func Load(name string, data []byte) (*Set, error) {
	r := &reader{src: data}
	s := &Set{}
	if body := r.parse(); body != nil {
		r.file(s, body)
	} else if len(r.problems) == 0 {
		r.problems.add(1, 1, "the file is empty: write at least default: accept or default: drop")
	}
	if len(r.problems) > 0 {
		return nil, &Error{File: name, Problems: r.problems.sorted()}
	}
	s.finish()
	return s, nil
}

// Rules returns the rules in order; outcomes name them by index. It is not to be
// changed.
func (s *Set) Rules() []Rule { return s.rules }

// Default returns the verdict on packets that no rule matches.
func (s *Set) Default() Verdict { return s.verdict }

// Pending returns the verdict on packets of flows that wait for a fact: accept or drop.
func (s *Set) Pending() Verdict { return s.pending }

// Patterns returns the patterns to search flows for, never nil.
func (s *Set) Patterns() *app.Patterns { return s.patterns }

// Facts returns the facts that any rule looks at; when there are none, no flow's
// payload need be analysed.
func (s *Set) Facts() app.FieldSet { return app.FieldSet(s.needs & fromFacts) }

// Daemon returns the section `daemon`, nil when there is none.
func (s *Set) Daemon() ast.Node { return s.daemon }

// Warnings returns what is odd but not wrong, in the file's order.
func (s *Set) Warnings() []Problem { return s.warnings }

var sections = []string{"default", "pending", "patterns", "lists", "rules", "daemon"}

func (r *reader) file(s *Set, body ast.Node) {
	entries, ok := r.mapping(body, "a rule file")
	if !ok {
		return
	}
	by := r.known(entries, "a rule file", sections...)
	s.pending = Verdict{Kind: Accept}
	if e, ok := by["default"]; ok {
		r.defaultVerdict(s, e.value)
	} else {
		r.problems.add(1, 1, "there is no default: write default: accept or default: drop")
	}
	if e, ok := by["pending"]; ok {
		s.pending = r.verdict(e.value)
		if s.pending.Kind > Drop {
			r.complain(e.value, "pending is accept or drop")
		}
	}
	s.daemon = by["daemon"].value
	var names []string
	if e, ok := by["patterns"]; ok {
		names = r.patterns(s, e.value)
	} else {
		s.patterns, _ = app.NewPatterns(nil)
	}
	s.lists = map[string]any{}
	if e, ok := by["lists"]; ok {
		r.lists(s, e.value)
	}
	if e, ok := by["rules"]; ok {
		r.rules(s, e.value, names)
	}
}

func (r *reader) defaultVerdict(s *Set, n ast.Node) {
	if _, isMap := n.(*ast.MappingNode); isMap {
		if entries, _ := r.mapping(n, "default"); len(entries) > 0 && slices.ContainsFunc(entries, func(e entry) bool { return e.name == "verdict" }) {
			by := r.known(entries, "default", "verdict", "log")
			s.verdict = r.verdict(by["verdict"].value)
			if e, ok := by["log"]; ok {
				s.log = r.boolean(e.value, "log")
			}
			return
		}
	}
	s.verdict = r.verdict(n)
}

var identifier = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

func (r *reader) lists(s *Set, n ast.Node) {
	if _, empty := n.(*ast.NullNode); empty {
		return
	}
	entries, _ := r.mapping(n, "lists")
	for _, e := range entries {
		if !identifier.MatchString(e.name) {
			r.complain(e.key, "%q is no name of a list: letters, digits and _ only", e.name)
			continue
		}
		if list := r.list(e); list != nil {
			s.lists[e.name] = list
		}
	}
}

// list reads a list, whose first entry tells which kind it is of.
func (r *reader) list(e entry) any {
	nodes := r.sequence(e.value)
	if len(nodes) == 0 {
		r.complain(e.key, "list %s is empty", e.name)
		return nil
	}
	var add func(text string) error
	var list func() any
	var prefixes []netip.Prefix
	ports := &portSet{}
	domains := &domainSet{entries: map[string]domainKind{}}
	for i, n := range nodes {
		text, ok := r.scalar(n, "an entry of list "+e.name)
		if !ok {
			continue
		}
		if add == nil {
			switch _, _, portErr := parsePorts(text); {
			case portErr == nil:
				list = func() any { return ports }
				add = func(text string) error {
					first, last, err := parsePorts(text)
					if err == nil {
						ports.add(first, last)
					}
					return err
				}
			case looksLikeNetwork(text):
				list = func() any { return newAddrSet(prefixes) }
				add = func(text string) error {
					p, err := parsePrefix(text)
					prefixes = append(prefixes, p)
					return err
				}
			default:
				list = func() any { return domains }
				add = domains.add
			}
		}
		if err := add(text); err != nil {
			kind := ""
			if i > 0 {
				kind = "; the first entry makes this a list of " + listType(list()).TypeName()
			}
			r.complain(n, "%v%s", err, kind)
		}
	}
	if list == nil || len(r.problems) > 0 {
		return &domainSet{entries: map[string]domainKind{}}
	}
	return list()
}

// looksLikeNetwork tells what is meant for an address from a domain.
func looksLikeNetwork(text string) bool {
	if strings.ContainsAny(text, "/:") {
		return true
	}
	_, err := netip.ParseAddr(text)
	return err == nil
}

var patternKinds = map[string]app.Kind{"literal": app.Literal, "fold": app.Fold, "hex": app.Hex, "regexp": app.Regexp}

func (r *reader) patterns(s *Set, n ast.Node) (names []string) {
	var list []app.Pattern
	s.patterns, _ = app.NewPatterns(nil)
	if _, empty := n.(*ast.NullNode); empty {
		return nil
	}
	entries, _ := r.mapping(n, "patterns")
	good := true
	for _, e := range entries {
		p := app.Pattern{Name: e.name}
		names = append(names, e.name)
		at := e.value
		if inner, isMap := e.value.(*ast.MappingNode); isMap {
			kinds, _ := r.mapping(inner, "a pattern")
			by := r.known(kinds, "a pattern", "literal", "fold", "hex", "regexp")
			if len(by) != 1 {
				r.complain(inner, "pattern %s is one of literal, fold, hex or regexp", e.name)
				good = false
				continue
			}
			p.Kind, at = patternKinds[kinds[0].name], kinds[0].value
		}
		var ok bool
		if p.Text, ok = r.scalar(at, "pattern "+e.name); !ok {
			good = false
			continue
		}
		if _, err := app.NewPatterns([]app.Pattern{p}); err != nil {
			var patternErr *app.PatternError
			if errors.As(err, &patternErr) {
				err = patternErr.Err
			}
			r.complain(at, "pattern %s: %v", e.name, err)
			good = false
			continue
		}
		list = append(list, p)
	}
	if good {
		var err error
		if s.patterns, err = app.NewPatterns(list); err != nil {
			r.complain(n, "%v", err)
			s.patterns, _ = app.NewPatterns(nil)
		}
	}
	return names
}

func (r *reader) rules(s *Set, n ast.Node, patterns []string) {
	nodes := r.sequence(n)
	if len(nodes) > maxRules {
		r.complain(n, "%d rules are more than the %d that are read", len(nodes), maxRules)
		return
	}
	words, err := newVocabulary(s.lists, patterns)
	if err != nil {
		r.complain(n, "%v", err)
		return
	}
	s.rules = make([]Rule, len(nodes))
	whens := make([]ast.Node, len(nodes))
	named := map[string]int{}
	for i, n := range nodes {
		s.rules[i], whens[i] = r.rule(n)
		rule := &s.rules[i]
		if first, double := named[rule.Name]; double && rule.Name != "" {
			r.complain(n, "there are two rules %s, the first in line %d", rule.Name, first)
		}
		named[rule.Name] = rule.Line
	}

	// Checking conditions takes nearly all of the time.
	complaints := make([][]complaint, len(nodes))
	s.compiled = make([]compiledRule, len(nodes))
	s.notes = make([]note, len(nodes))
	var group errgroup.Group
	group.SetLimit(runtime.GOMAXPROCS(0))
	const batch = 64
	for first := 0; first < len(nodes); first += batch {
		group.Go(func() error {
			for i := first; i < min(first+batch, len(nodes)); i++ {
				if whens[i] != nil {
					complaints[i] = s.compile(i, words)
				}
			}
			return nil
		})
	}
	_ = group.Wait() // the functions return nil
	for i, c := range complaints {
		if whens[i] != nil {
			r.condition(whens[i], s.rules[i].When, c)
		}
	}
	s.warn(whens)
}

// compile checks and compiles the condition of rule i.
func (s *Set) compile(i int, words *vocabulary) (complaints []complaint) {
	defer func() {
		if p := recover(); p != nil {
			complaints = []complaint{{1, 0, fmt.Sprintf("the condition cannot be understood: %v", p)}}
		}
	}()
	rule := &s.rules[i]
	condition, complaints := words.check(rule.When)
	if len(complaints) > 0 {
		return complaints
	}
	c := &compiler{vocabulary: words, checked: condition}
	when, err := c.cond(condition.root, askTrue)
	if err != nil {
		return []complaint{{1, 0, err.Error()}}
	}
	vars, from := c.uses(condition.root)
	s.compiled[i] = compiledRule{when: when.eval, needs: from, verdict: rule.Verdict, log: rule.Log.On}
	s.notes[i] = note{constraints: c.constraints(condition.root), interpreted: c.interpreted, variables: vars}
	return nil
}

var ruleKeys = []string{"name", "description", "when", "verdict", "log", "rate", "per", "scope", "disabled"}

func (r *reader) rule(n ast.Node) (rule Rule, when ast.Node) {
	rule.Line, _ = place(n)
	entries, ok := r.mapping(n, "a rule")
	if !ok {
		return rule, nil
	}
	by := r.known(entries, "a rule", ruleKeys...)
	for _, name := range []string{"name", "when", "verdict"} {
		if _, ok := by[name]; !ok {
			hint := ""
			if name == "when" {
				hint = "; write when: true for a rule that matches everything"
			}
			r.complain(n, "the rule has no %s%s", name, hint)
		}
	}
	for name, e := range by {
		switch name {
		case "name":
			rule.Name, _ = r.scalar(e.value, "name")
			if len(rule.Name) > 128 || strings.ContainsFunc(rule.Name, func(c rune) bool { return c < ' ' }) {
				r.complain(e.value, "a rule's name is up to 128 characters in one line")
			}
		case "description":
			rule.Description, _ = r.scalar(e.value, "description")
		case "when":
			if rule.When, ok = r.scalar(e.value, "when"); ok {
				when = e.value
			}
		case "verdict":
			rule.Verdict = r.verdict(e.value)
		case "log":
			rule.Log = r.log(e.value)
		case "rate":
			rule.Rate = r.rate(e.value, by)
		case "per":
			if _, ok := by["rate"]; !ok {
				r.complain(e.key, "per belongs to a rate, and the rule has none")
			}
		case "scope":
			switch scope, _ := r.scalar(e.value, "scope"); scope {
			case "packet":
				rule.PerPacket = true
			case "flow":
			default:
				r.complain(e.value, "scope is flow or packet")
			}
		case "disabled":
			rule.Disabled = r.boolean(e.value, "disabled")
		}
	}
	return rule, when
}

func (r *reader) rate(n ast.Node, by map[string]entry) *Rate {
	text, ok := r.scalar(n, "rate")
	if !ok {
		return nil
	}
	rate, err := parseRate(text)
	if err != nil {
		r.complain(n, "%v", err)
	}
	if per, ok := by["per"]; ok {
		share, _ := r.scalar(per.value, "per")
		i := slices.Index(shareNames[:], share)
		if i < 0 {
			r.complain(per.value, "per is one of %s", strings.Join(shareNames[:], ", "))
		}
		rate.Of = Share(max(i, 0))
	}
	return &rate
}

func (r *reader) log(n ast.Node) Log {
	if _, isMap := n.(*ast.MappingNode); !isMap {
		return Log{On: r.boolean(n, "log, unless it has a level and a message,")}
	}
	log := Log{On: true}
	entries, _ := r.mapping(n, "log")
	by := r.known(entries, "log", "level", "message")
	if e, ok := by["level"]; ok {
		if text, ok := r.scalar(e.value, "level"); ok && log.Level.UnmarshalText([]byte(text)) != nil {
			r.complain(e.value, "level is one of debug, info, warn, error")
		}
	}
	if e, ok := by["message"]; ok {
		log.Message, _ = r.scalar(e.value, "message")
	}
	return log
}

// verdict reads "drop", "mark 0x1/0xff", "queue 3", "reject-with tcp-reset", or a
// mapping {mark: 0x1/0xff}.
func (r *reader) verdict(n ast.Node) (v Verdict) {
	var kind, argument string
	at := n
	if _, isMap := n.(*ast.MappingNode); isMap {
		entries, _ := r.mapping(n, "a verdict")
		if len(entries) != 1 {
			r.complain(n, "a verdict is one of mark, queue or reject-with here")
			return v
		}
		var ok bool
		kind, at = entries[0].name, entries[0].value
		if argument, ok = r.scalar(at, kind); !ok {
			return v
		}
	} else {
		text, ok := r.scalar(n, "a verdict")
		if !ok {
			return v
		}
		kind, argument, _ = strings.Cut(strings.TrimSpace(text), " ")
		argument = strings.TrimSpace(argument)
	}
	v, err := parseVerdict(kind, argument)
	if err != nil {
		r.complain(at, "%v", err)
	}
	return v
}

func parseVerdict(kind, argument string) (v Verdict, err error) {
	switch kind {
	case "accept", "drop", "reject":
		v.Kind = Kind(slices.Index(kindNames[:], kind))
		if argument != "" {
			return v, fmt.Errorf("%s takes nothing; did you mean reject-with %s?", kind, argument)
		}
	case "reject-with":
		v.Kind = Reject
		i := slices.Index(answerNames[:], argument)
		if i <= 0 {
			return v, fmt.Errorf("%q is no way to reject%s; there are %s", argument, suggest(argument, answerNames[1:]), strings.Join(answerNames[1:], ", "))
		}
		v.Answer = Answer(i)
	case "mark":
		v.Kind = Mark
		mark, mask, hasMask := strings.Cut(argument, "/")
		m, err := strconv.ParseUint(mark, 0, 32)
		v.Mark, v.Mask = uint32(m), ^uint32(0)
		if hasMask && err == nil {
			m, err = strconv.ParseUint(mask, 0, 32)
			v.Mask = uint32(m)
		}
		if err != nil {
			return v, fmt.Errorf("%q is no mark: write 0x10 or 0x10/0xff, up to 32 bits", argument)
		}
		if v.Mark&^v.Mask != 0 {
			return v, fmt.Errorf("mark %#x has bits outside of its mask %#x", v.Mark, v.Mask)
		}
	case "queue":
		v.Kind = Queue
		q, err := strconv.ParseUint(argument, 10, 16)
		if err != nil {
			return v, fmt.Errorf("%q is no queue: write queue 3, up to 65535", argument)
		}
		v.Queue = uint16(q)
	default:
		names := []string{"accept", "drop", "reject", "reject-with", "mark", "queue"}
		hint := suggest(kind, names)
		if hint == "" {
			hint = "; there are " + strings.Join(names, ", ")
		}
		return v, fmt.Errorf("%q is no verdict%s", kind, hint)
	}
	return v, nil
}

// warn finds rules that can never match because of earlier ones.
func (s *Set) warn(whens []ast.Node) {
	var odd problems
	type condition struct {
		when      string
		perPacket bool
	}
	earlier := map[condition]*Rule{}
	var all *Rule
	for i := range s.rules {
		rule := &s.rules[i]
		if rule.Disabled || whens[i] == nil {
			continue
		}
		line, column := place(whens[i])
		when := condition{strings.TrimSpace(rule.When), rule.PerPacket}
		if all != nil {
			odd.add(line, column, "rule %s is never reached: rule %s before it matches every packet", rule.Name, all.Name)
			continue
		}
		if same := earlier[when]; same != nil {
			odd.add(line, column, "rule %s is never reached: rule %s before it has the same condition", rule.Name, same.Name)
			continue
		}
		if rule.Rate != nil {
			continue
		}
		earlier[when] = rule
		if when.when == "true" {
			all = rule
		}
	}
	s.warnings = odd.sorted()
}
