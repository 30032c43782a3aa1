package verdict

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/goccy/go-yaml"
)

// Expectations are what a dry run of rules over a capture is to come to.
type Expectations struct {
	// Rules are counts by the rules' names, "default" included. A rule that is not
	// named may count what it wants.
	Rules map[string]ExpectedCounts `yaml:"rules"`
	// Frames are single packets by their number in the capture.
	Frames map[int]ExpectedFrame `yaml:"frames"`
}

// ExpectedCounts are numbers, "12", or bounds, ">0", "<=3"; "" leaves it open.
type ExpectedCounts struct {
	Packets string `yaml:"packets"`
	Flows   string `yaml:"flows"`
}

// ExpectedFrame is what is expected of one packet; "" leaves it open.
type ExpectedFrame struct {
	Rule    string `yaml:"rule"`
	Verdict string `yaml:"verdict"` // as a rule file has it, or "pending"
}

// ParseExpectations reads a YAML file of expectations.
func ParseExpectations(text []byte) (*Expectations, error) {
	var e Expectations
	if err := yaml.UnmarshalWithOptions(text, &e, yaml.Strict()); err != nil {
		return nil, fmt.Errorf("read expectations: %s", strings.TrimSpace(yaml.FormatError(err, false, true)))
	}
	for name, counts := range e.Rules {
		for _, c := range []string{counts.Packets, counts.Flows} {
			if _, err := holds(c, 0); err != nil {
				return nil, fmt.Errorf("read expectations: rule %s: %w", name, err)
			}
		}
	}
	return &e, nil
}

// holds reports whether a count is as expected.
func holds(expected string, n uint64) (bool, error) {
	text := strings.TrimSpace(expected)
	if text == "" {
		return true, nil
	}
	op := text[:len(text)-len(strings.TrimLeft(text, "<>="))]
	want, err := strconv.ParseUint(strings.TrimSpace(text[len(op):]), 10, 64)
	if err == nil {
		switch op {
		case "", "=", "==":
			return n == want, nil
		case ">":
			return n > want, nil
		case ">=":
			return n >= want, nil
		case "<":
			return n < want, nil
		case "<=":
			return n <= want, nil
		}
	}
	return false, fmt.Errorf("%q is neither a number nor a bound such as >0", expected)
}

// Unmet says which expectations a dry run did not meet. names are those of all rules.
func (e *Expectations) Unmet(names []string, rules map[string]RuleStatus, frames map[int]ExpectedFrame) []string {
	var unmet []string
	for _, name := range slices.Sorted(maps.Keys(e.Rules)) {
		if !slices.Contains(names, name) {
			unmet = append(unmet, fmt.Sprintf("rule %s: there is no such rule", name))
			continue
		}
		for _, c := range []struct {
			what, want string
			got        uint64
		}{{"packets", e.Rules[name].Packets, rules[name].Packets}, {"flows", e.Rules[name].Flows, rules[name].Flows}} {
			if ok, _ := holds(c.want, c.got); !ok {
				unmet = append(unmet, fmt.Sprintf("rule %s: %d %s, expected %s", name, c.got, c.what, c.want))
			}
		}
	}
	for _, n := range slices.Sorted(maps.Keys(e.Frames)) {
		want := e.Frames[n]
		got, ok := frames[n]
		if !ok {
			unmet = append(unmet, fmt.Sprintf("frame %d: no packet of that number was judged", n))
			continue
		}
		if want.Rule != "" && want.Rule != got.Rule {
			unmet = append(unmet, fmt.Sprintf("frame %d: rule %s, expected %s", n, got.Rule, want.Rule))
		}
		if want.Verdict != "" && want.Verdict != got.Verdict {
			unmet = append(unmet, fmt.Sprintf("frame %d: %s, expected %s", n, got.Verdict, want.Verdict))
		}
	}
	return unmet
}
