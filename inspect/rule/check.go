package rule

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"

	"cel.dev/cel-go/cel"
	celast "cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/operators"
	"cel.dev/cel-go/common/types"

	"inquest/inspect/packet"
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
		return checked{}, []complaint{{first.Location.Line(), first.Location.Column(), parseMessage(text, first.Message)}}
	}
	r := &resolver{vocabulary: v, ast: parsed.NativeRep(), fac: celast.NewExprFactory()}
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

func parseMessage(text, message string) string {
	if callOfIn.MatchString(text) {
		return `in is an operator, not a function: write ip.src in "10.0.0.0/8" or ip.src in list.name`
	}
	message, _, _ = strings.Cut(message, " expecting ")
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
			return fmt.Sprintf("there is no %s.%s(%s", target, name, rest)
		}
		return fmt.Sprintf("%s does not apply to %s", name, args)
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

// resolver checks names before the type checker does, to say better what is wrong,
// and gives literals the type of the variable that they are compared with.
type resolver struct {
	*vocabulary
	ast        *celast.AST
	fac        celast.ExprFactory
	nextID     int64
	complaints []complaint
}

func (r *resolver) complain(e celast.Expr, format string, args ...any) {
	if _, first := dotted(e); first != nil {
		e = first // of a.b.c the place of a
	}
	loc := r.ast.SourceInfo().GetStartLocation(e.ID())
	r.complaints = append(r.complaints, complaint{loc.Line(), loc.Column(), fmt.Sprintf(format, args...)})
}

func (r *resolver) walk(e celast.Expr, bound []string) {
	switch e.Kind() {
	case celast.IdentKind, celast.SelectKind:
		r.name(e, bound)
	case celast.CallKind:
		r.call(e, bound)
	case celast.ListKind:
		for _, x := range e.AsList().Elements() {
			r.walk(x, bound)
		}
	case celast.MapKind:
		for _, x := range e.AsMap().Entries() {
			r.walk(x.AsMapEntry().Key(), bound)
			r.walk(x.AsMapEntry().Value(), bound)
		}
	case celast.StructKind:
		for _, x := range e.AsStruct().Fields() {
			r.walk(x.AsStructField().Value(), bound)
		}
	case celast.ComprehensionKind:
		c := e.AsComprehension()
		r.walk(c.IterRange(), bound)
		r.walk(c.AccuInit(), bound)
		bound = append(slices.Clip(bound), c.AccuVar(), c.IterVar())
		if c.HasIterVar2() {
			bound = append(bound, c.IterVar2())
		}
		r.walk(c.LoopCondition(), bound)
		r.walk(c.LoopStep(), bound)
		r.walk(c.Result(), bound)
	}
}

// dotted is the name that a chain of selections spells, with its first part.
func dotted(e celast.Expr) (name string, first celast.Expr) {
	switch e.Kind() {
	case celast.IdentKind:
		return e.AsIdent(), e
	case celast.SelectKind:
		if prefix, first := dotted(e.AsSelect().Operand()); first != nil {
			return prefix + "." + e.AsSelect().FieldName(), first
		}
	}
	return "", nil
}

var typeNames = []string{"bool", "int", "uint", "double", "string", "bytes", "list", "map", "type", "null_type"}

func (r *resolver) name(e celast.Expr, bound []string) {
	name, first := dotted(e)
	if first == nil {
		r.walk(e.AsSelect().Operand(), bound)
		return
	}
	vars := variables()
	group, rest, _ := strings.Cut(name, ".")
	if slices.Contains(bound, group) || strings.HasPrefix(name, patternPrefix) {
		return
	}
	if e.Kind() == celast.SelectKind && e.AsSelect().IsTestOnly() {
		r.complain(first, "has() is for maps; every variable is there, compare it: %s != \"\"", name)
		return
	}
	if vars.byName[name] != nil {
		return
	}
	if group == "list" && rest != "" {
		if r.lists[rest] == nil {
			r.complain(first, "there is no list %q in this file%s", rest, suggest(rest, slices.Sorted(maps.Keys(r.lists))))
		}
		return
	}
	for prefix := name; ; {
		i := strings.LastIndexByte(prefix, '.')
		if i < 0 {
			break
		}
		prefix = prefix[:i]
		if v := vars.byName[prefix]; v != nil {
			r.complain(first, "%s is of type %s and has no field %s", prefix, v.Type, name[i+1:])
			return
		}
	}
	switch {
	case rest == "" && slices.Contains(typeNames, name):
	case rest == "" && slices.Contains(vars.groups, name):
		r.complain(first, "%s alone is nothing, it has %s", name, strings.Join(vars.group(name), ", "))
	case rest != "" && slices.Contains(vars.groups, group):
		hint := suggest(name, vars.group(group))
		if hint == "" {
			hint = "; " + group + " has " + strings.Join(vars.group(group), ", ")
		}
		r.complain(first, "there is no variable %s%s", name, hint)
	default:
		hint := suggest(name, vars.names)
		if hint == "" && rest == "" {
			hint = fmt.Sprintf("; a text is written in quotes: %q", name)
		}
		r.complain(first, "there is no variable %s%s", name, hint)
	}
}

// group are the variables that begin with name and a dot.
func (t *variableTable) group(name string) []string {
	var in []string
	for _, n := range t.names {
		if strings.HasPrefix(n, name+".") {
			in = append(in, n)
		}
	}
	return in
}

func (r *resolver) call(e celast.Expr, bound []string) {
	c := e.AsCall()
	args, function := c.Args(), c.FunctionName()
	if c.IsMemberFunction() {
		if name, _ := dotted(c.Target()); name == "" || !r.env.HasFunction(name+"."+function) {
			r.walk(c.Target(), bound)
		}
	}
	if function == "pattern" && !c.IsMemberFunction() {
		r.pattern(e, args)
		return
	}
	for _, a := range args {
		r.walk(a, bound)
	}
	switch {
	case len(args) == 2 && comparisons[function]:
		r.compare(function, args[0], args[1])
		r.compare(function, args[1], args[0])
	case function == operators.In && len(args) == 2:
		r.membership(args[0], args[1])
	case (function == "ip" || function == "cidr") && len(args) == 1:
		r.addresses(function, args[0])
	case function == "matches" && len(args) > 0:
		if text, ok := literalString(args[len(args)-1]); ok {
			if _, err := regexp.Compile(text); err != nil {
				r.complain(args[len(args)-1], "%v", err)
			}
		}
	}
}

func (r *resolver) pattern(e celast.Expr, args []celast.Expr) {
	if len(args) != 1 {
		r.complain(e, `pattern takes the name of one pattern: pattern("name")`)
		return
	}
	name, ok := literalString(args[0])
	if !ok {
		r.complain(args[0], `pattern takes a name in quotes: pattern("name")`)
		return
	}
	i, ok := r.patterns[name]
	if !ok {
		r.complain(args[0], "there is no pattern %q in this file%s", name, suggest(name, slices.Sorted(maps.Keys(r.patterns))))
		return
	}
	e.SetKindCase(r.fac.NewIdent(e.ID(), fmt.Sprint(patternPrefix, i)))
}

var comparisons = map[string]bool{
	operators.Equals: true, operators.NotEquals: true,
	operators.Less: true, operators.LessEquals: true, operators.Greater: true, operators.GreaterEquals: true,
}

// compare gives the literal lit the type of the variable that it is compared with.
func (r *resolver) compare(operator string, of, lit celast.Expr) {
	v := variableOf(of)
	text, ok := literalString(lit)
	if v == nil || !ok {
		return
	}
	switch {
	case v.typ == addressType && (operator == operators.Equals || operator == operators.NotEquals):
		if strings.Contains(text, "/") {
			r.complain(lit, "%q is a network: write %s in %q", text, v.Name, text)
		} else if _, err := parseAddr(text); err != nil {
			r.complain(lit, "%v", err)
		}
		r.wrap(lit, "ip")
	case v.typ == cel.DurationType:
		if _, err := time.ParseDuration(text); err != nil {
			r.complain(lit, "%q is no duration: write 30s, 5m or 1h30m", text)
		}
		r.wrap(lit, "duration")
	case v.dim == dimProto:
		r.protocol(lit, text)
	}
}

// membership does the same for the operator in.
func (r *resolver) membership(of, in celast.Expr) {
	v := variableOf(of)
	if v == nil {
		return
	}
	_, isText := literalString(in)
	isList := in.Kind() == celast.ListKind
	switch {
	case v.typ == addressType && (isText || isList):
		r.addresses("cidr", in)
		r.wrap(in, "cidr")
	case v.dim == dimProto && isList:
		for _, e := range in.AsList().Elements() {
			if text, ok := literalString(e); ok {
				r.protocol(e, text)
			}
		}
	}
}

// addresses checks the literal arguments of ip and cidr.
func (r *resolver) addresses(function string, arg celast.Expr) {
	texts := []celast.Expr{arg}
	if arg.Kind() == celast.ListKind {
		texts = arg.AsList().Elements()
	}
	for _, e := range texts {
		text, ok := literalString(e)
		if !ok {
			continue
		}
		var err error
		if function == "ip" {
			_, err = parseAddr(text)
		} else {
			_, err = parsePrefix(text)
		}
		if err != nil {
			r.complain(e, "%v", err)
		}
	}
}

func (r *resolver) protocol(lit celast.Expr, name string) {
	number, ok := protocols[strings.ToLower(name)]
	if !ok {
		r.complain(lit, "%q is no protocol that is known by name%s", name, suggest(name, slices.Sorted(maps.Keys(protocols))))
	}
	lit.SetKindCase(r.fac.NewLiteral(lit.ID(), types.Int(number)))
}

// wrap replaces e by a call of function with e.
func (r *resolver) wrap(e celast.Expr, function string) {
	r.nextID++
	if at, ok := r.ast.SourceInfo().GetOffsetRange(e.ID()); ok {
		r.ast.SourceInfo().SetOffsetRange(r.nextID, at)
	}
	var inner celast.Expr
	if e.Kind() == celast.ListKind {
		inner = r.fac.NewList(r.nextID, e.AsList().Elements(), nil)
	} else {
		inner = r.fac.NewLiteral(r.nextID, e.AsLiteral())
	}
	e.SetKindCase(r.fac.NewCall(e.ID(), function, inner))
}

// protocols are the names that ip.proto can be compared with.
var protocols = map[string]int64{
	"icmp": packet.ProtoICMP, "igmp": 2, "ipip": packet.ProtoIPIP, "tcp": packet.ProtoTCP, "udp": packet.ProtoUDP,
	"ipv6": packet.ProtoIPv6, "gre": packet.ProtoGRE, "esp": 50, "ah": 51, "icmpv6": packet.ProtoICMPv6, "ospf": 89,
	"pim": 103, "vrrp": 112, "l2tp": 115, "sctp": packet.ProtoSCTP, "udplite": packet.ProtoUDPLite,
}

// variableOf is the variable that e names, nil when it names none.
func variableOf(e celast.Expr) *Variable {
	name, first := dotted(e)
	if first == nil {
		return nil
	}
	return variables().byName[name]
}

func literalString(e celast.Expr) (string, bool) {
	if e.Kind() != celast.LiteralKind {
		return "", false
	}
	s, ok := e.AsLiteral().(types.String)
	return string(s), ok
}
