package rule

import (
	"fmt"
	"log/slog"
	"runtime"
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
	restless         *index // those by flow that may change though all facts are final
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
		switch text, ok := r.scalar(e.value, "pending"); {
		case text == "drop":
			s.pending.Kind = Drop
		case ok && text != "accept":
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
