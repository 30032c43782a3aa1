package rule

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"cel.dev/cel-go/cel"
	celast "cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/operators"
)

// vocabulary is what the conditions of one file can name: the variables and functions
// of the language, and the file's lists and patterns. It is safe for concurrent use.
type vocabulary struct {
	env      *cel.Env
	lists    map[string]any // *addrSet, *portSet or *domainSet, by name
	patterns map[string]int
}

// patternPrefix begins the variables that pattern("name") is turned into. No variable
// that a person writes can begin so.
const patternPrefix = "@pattern."

func newVocabulary(lists map[string]any, patterns []string) (*vocabulary, error) {
	base, err := language()
	if err != nil {
		return nil, fmt.Errorf("set up the language of conditions: %w", err)
	}
	v := &vocabulary{lists: lists, patterns: make(map[string]int, len(patterns))}
	var options []cel.EnvOption
	for name, list := range lists {
		options = append(options, cel.Variable("list."+name, listType(list)))
	}
	for i, name := range patterns {
		v.patterns[name] = i
		options = append(options, cel.Variable(fmt.Sprint(patternPrefix, i), cel.BoolType))
	}
	if v.env, err = base.Extend(options...); err != nil {
		return nil, fmt.Errorf("declare lists and patterns: %w", err)
	}
	return v, nil
}

func listType(list any) *cel.Type {
	switch list.(type) {
	case *addrSet:
		return addressesType
	case *portSet:
		return portsType
	default:
		return domainsType
	}
}

// complaint is a problem inside a condition; line from 1, column from 0, in the
// condition's own text.
type complaint struct {
	line, column int
	message      string
}

// checked is a condition that has been type-checked.
type checked struct {
	ast  *cel.Ast
	root celast.Expr
	info *celast.AST
}

// check parses and type-checks a condition.
func (v *vocabulary) check(text string) (checked, []complaint) {
	parsed, issues := v.env.Parse(text)
	if issues.Err() != nil {
		first := issues.Errors()[0] // those that follow are mostly its consequences
		return checked{}, []complaint{{first.Location.Line(), first.Location.Column(), parseMessage(text, first)}}
	}
	r := &resolver{vocabulary: v, ast: parsed.NativeRep(), fac: celast.NewExprFactory(), elements: map[string]string{}}
	r.nextID = celast.MaxID(r.ast)
	r.walk(r.ast.Expr(), nil)
	if len(r.complaints) > 0 {
		return checked{}, r.complaints
	}
	good, issues := v.env.Check(parsed)
	if issues.Err() != nil {
		for _, e := range issues.Errors() {
			r.complaints = append(r.complaints, complaint{e.Location.Line(), e.Location.Column(), v.checkMessage(e.Message)})
		}
		return checked{}, r.complaints
	}
	if t := good.OutputType(); !t.IsExactType(cel.BoolType) {
		return checked{}, []complaint{{1, 0, fmt.Sprintf("a condition is true or false, this is of type %s", t)}}
	}
	return checked{good, good.NativeRep().Expr(), good.NativeRep()}, nil
}

var callOfIn = regexp.MustCompile(`\.\s*in\s*\(`)

func parseMessage(text string, e *cel.Error) string {
	if callOfIn.MatchString(text) {
		return `in is an operator, not a function: write ip.src in "10.0.0.0/8" or ip.src in list.name`
	}
	if advice := syntaxAdvice(text, offsetOf(text, e.Location.Line(), e.Location.Column())); advice != "" {
		return advice
	}
	message, _, _ := strings.Cut(e.Message, " expecting ")
	return strings.Replace(message, "Syntax error: ", "syntax error: ", 1)
}

var (
	noOverload = regexp.MustCompile(`^found no matching overload for '([^']*)' applied to '(.*)'$`)
	undeclared = regexp.MustCompile(`^undeclared reference to '([^']*)'`)
)

// checkMessage says in our words what the checker found.
func (v *vocabulary) checkMessage(message string) string {
	if m := noOverload.FindStringSubmatch(message); m != nil {
		name, args := strings.Trim(m[1], "_@"), m[2]
		if symbol, ok := operators.FindReverse(m[1]); ok && symbol != "" {
			name = symbol
		}
		if target, rest, member := strings.Cut(args, ".("); member {
			return fmt.Sprintf("there is no %s.%s(%s%s", target, name, rest, memberAdvice(target))
		}
		return fmt.Sprintf("%s does not apply to %s%s", name, args, typeAdvice(args))
	}
	if m := undeclared.FindStringSubmatch(message); m != nil {
		return fmt.Sprintf("there is no function %s%s", m[1], suggest(m[1], v.functions()))
	}
	return message
}

// functions are the names of functions that a person can write.
func (v *vocabulary) functions() []string {
	names := slices.DeleteFunc(slices.Sorted(maps.Keys(v.env.Functions())), func(name string) bool {
		return strings.ContainsAny(name, "_@!")
	})
	for _, m := range v.env.Macros() {
		names = append(names, m.Function())
	}
	return append(names, "pattern")
}
