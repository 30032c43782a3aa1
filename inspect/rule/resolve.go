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

// resolver checks names before the type checker does, to say better what is wrong,
// and gives literals the type of the variable that they are compared with.
type resolver struct {
	*vocabulary
	ast        *celast.AST
	fac        celast.ExprFactory
	nextID     int64
	elements   map[string]string // variables of exists and all: whose elements they are
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
		r.elements[c.IterVar()], _ = dotted(c.IterRange())
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
		switch {
		case rest == "port" && vars.byName[group+".dport"] != nil:
			hint = fmt.Sprintf("; write %s.dport for the server's, %s.sport for the client's", group, group)
		case hint == "":
			hint = "; " + group + " has " + strings.Join(vars.group(group), ", ")
		}
		r.complain(first, "there is no variable %s%s", name, hint)
	default:
		hint := suggest(name, vars.names)
		if ending := vars.ending(name); len(ending) > 0 {
			hint = fmt.Sprintf("; did you mean %s?", strings.Join(ending, " or "))
		} else if hint == "" && rest == "" {
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

// ending are the variables whose last part is name.
func (t *variableTable) ending(name string) []string {
	var of []string
	for _, n := range t.names {
		if strings.HasSuffix(n, "."+name) {
			of = append(of, n)
		}
	}
	return of
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
		r.hostName(function, args[0], args[1])
		r.hostName(function, args[1], args[0])
		r.compare(function, args[0], args[1])
		r.compare(function, args[1], args[0])
	case function == operators.In && len(args) == 2:
		r.hostName(function, args[1], args[0])
		if args[1].Kind() == celast.ListKind {
			for _, x := range args[1].AsList().Elements() {
				r.hostName(function, args[0], x)
			}
		}
		r.membership(args[0], args[1])
	case c.IsMemberFunction() && len(args) == 1 && function != "matches":
		r.hostName(function, c.Target(), args[0])
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
