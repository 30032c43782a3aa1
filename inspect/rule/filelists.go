package rule

import (
	"errors"
	"net/netip"
	"regexp"

	"github.com/goccy/go-yaml/ast"

	"inquest/inspect/app"
)

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
			switch {
			case looksLikePorts.MatchString(text):
				list = func() any { return ports }
				add = func(text string) error {
					first, last, err := parsePorts(text)
					if err == nil {
						ports.add(first, last)
					}
					return err
				}
			case looksLikeNetwork.MatchString(text):
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

// What is meant for ports or an address, though it may be wrong, is told from a domain:
// those do not end with a number.
var (
	looksLikePorts   = regexp.MustCompile(`^\d+\s*(-\s*\d+)?$`)
	looksLikeNetwork = regexp.MustCompile(`[/:]|(^|\.)\d+$`)
)

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
