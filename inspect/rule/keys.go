package rule

import (
	"net/netip"
	"slices"
	"strings"

	celast "cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/operators"
	"cel.dev/cel-go/common/types"

	"inquest/inspect/app"
	"inquest/inspect/packet"
)

// dimension is something that rules can be found by.
type dimension uint8

const (
	dimNone dimension = iota
	dimSrc
	dimDst
	dimSrcPort
	dimDstPort
	dimProto
	dimFact // the first of the facts: dimFact + app.FieldID
)

func (d dimension) isFact() bool       { return d >= dimFact }
func (d dimension) field() app.FieldID { return app.FieldID(d - dimFact) }

// String is the name in descriptions.
func (d dimension) String() string {
	if d.isFact() {
		return app.Fields[d.field()].Name
	}
	return [...]string{"nothing", "source", "destination", "source port", "destination port", "protocol"}[d]
}

// keys are values in one dimension; a packet with none of them cannot make a condition
// true, nor unknown. Those of the dimension's type are set.
type keys struct {
	numbers  []uint32       // ports with their protocol, or protocols
	prefixes []netip.Prefix // addresses
	suffixes []string       // what a fact ends with
}

func (k keys) len() int { return len(k.numbers) + len(k.prefixes) + len(k.suffixes) }

// portKey joins a protocol and a port.
func portKey(proto uint8, port uint16) uint32 { return uint32(proto)<<16 | uint32(port) }

// maxKeys bounds the entries that one rule has in an index. Larger sets are looked
// into when the rule is evaluated.
const maxKeys = 1024

// constraints are keys in several dimensions, all of which must be met.
type constraints map[dimension]keys

// constraints finds what a condition cannot be true without.
func (c *compiler) constraints(e celast.Expr) constraints {
	switch e.Kind() {
	case celast.IdentKind:
		return needsProto(variableOf(e))
	case celast.ComprehensionKind:
		return c.existsConstraints(e)
	case celast.CallKind:
	default:
		return nil
	}
	call := e.AsCall()
	args := call.Args()
	if call.IsMemberFunction() {
		return c.functionConstraints(call, args)
	}
	switch call.FunctionName() {
	case operators.LogicalAnd:
		return bothOf(c.constraints(args[0]), c.constraints(args[1]))
	case operators.LogicalOr:
		return eitherOf(c.constraints(args[0]), c.constraints(args[1]))
	case operators.LogicalNot:
		return needsProto(variableOf(args[0]))
	case operators.Equals:
		return bothOf(c.equalConstraints(args[0], args[1]), c.equalConstraints(args[1], args[0]))
	case operators.NotEquals, operators.Less, operators.LessEquals, operators.Greater, operators.GreaterEquals:
		if variableOf(args[0]) == nil && args[0].Kind() != celast.LiteralKind {
			return nil // the interpreter may find the left side unknown and not look at the right one
		}
		return bothOf(needsProto(variableOf(args[0])), needsProto(variableOf(args[1])))
	case operators.In:
		return c.inConstraints(args[0], args[1])
	}
	return nil
}

// bothOf joins what two operands of && need.
func bothOf(a, b constraints) constraints {
	if len(a) == 0 {
		return b
	}
	for d, k := range b {
		if old, ok := a[d]; !ok || k.len() < old.len() {
			a[d] = k
		}
	}
	return a
}

// eitherOf joins what two operands of || need.
func eitherOf(a, b constraints) constraints {
	out := constraints{}
	for d, k := range a {
		other, ok := b[d]
		if !ok || k.len()+other.len() > maxKeys {
			continue
		}
		out[d] = keys{
			slices.Concat(k.numbers, other.numbers),
			slices.Concat(k.prefixes, other.prefixes),
			slices.Concat(k.suffixes, other.suffixes),
		}
	}
	return out
}

// needsProto is the transport that a variable is absent without.
func needsProto(v *Variable) constraints {
	if v == nil || v.proto == 0 {
		return nil
	}
	protos := keys{numbers: []uint32{uint32(v.proto)}}
	if v.also != 0 {
		protos.numbers = append(protos.numbers, uint32(v.also))
	}
	return constraints{dimProto: protos}
}

// withPorts are the constraints of a port variable that has one of some values.
func (v *Variable) withPorts(ports []uint16) constraints {
	out := needsProto(v)
	protos := []uint8{v.proto}
	if v.proto == 0 {
		protos = []uint8{packet.ProtoTCP, packet.ProtoUDP, packet.ProtoSCTP, packet.ProtoUDPLite}
	}
	if len(ports)*len(protos) > maxKeys {
		return out
	}
	var k keys
	for _, port := range ports {
		for _, proto := range protos {
			k.numbers = append(k.numbers, portKey(proto, port))
		}
	}
	return bothOf(constraints{v.dim: k}, out)
}

func (v *Variable) isPort() bool { return v.dim == dimSrcPort || v.dim == dimDstPort }

func (c *compiler) equalConstraints(of, lit celast.Expr) constraints {
	v := variableOf(of)
	if v == nil {
		return nil
	}
	switch {
	case v.addr != nil && v.dim != dimNone:
		if a, err := c.addr(lit); err == nil && lit.Kind() == celast.CallKind {
			addr, _ := a(nil)
			return constraints{v.dim: {prefixes: []netip.Prefix{netip.PrefixFrom(addr, addr.BitLen())}}}
		}
	case lit.Kind() != celast.LiteralKind:
	case v.text != nil && v.dim.isFact():
		if s, ok := literalString(lit); ok && s != "" {
			return constraints{v.dim: {suffixes: []string{s}}}
		}
	case v.num != nil && !v.dim.isFact():
		if n, ok := lit.AsLiteral().(types.Int); ok {
			return v.numbers([]types.Int{n})
		}
	}
	return needsProto(v)
}

// numbers are the constraints of a port or protocol variable that has one of some
// values.
func (v *Variable) numbers(values []types.Int) constraints {
	switch {
	case v.isPort():
		var ports []uint16
		for _, n := range values {
			if n >= 0 && n < 1<<16 {
				ports = append(ports, uint16(n))
			}
		}
		return v.withPorts(ports)
	case v.dim == dimProto:
		var k keys
		for _, n := range values {
			if n >= 0 && n < 256 {
				k.numbers = append(k.numbers, uint32(n))
			}
		}
		return constraints{dimProto: k}
	}
	return needsProto(v)
}

func (c *compiler) inConstraints(of, in celast.Expr) constraints {
	v := variableOf(of)
	if v == nil {
		// "x" in dns.names
		if list := variableOf(in); list != nil && list.dim.isFact() {
			if s, ok := literalString(of); ok && s != "" {
				return constraints{list.dim: {suffixes: []string{s}}}
			}
		}
		return nil
	}
	set, _ := c.set(in)
	switch {
	case v.addr != nil && v.dim != dimNone:
		if addrs, ok := set.(*addrSet); ok && len(addrs.prefixes) <= maxKeys {
			return constraints{v.dim: {prefixes: addrs.prefixes}}
		}
	case v.num != nil && !v.dim.isFact():
		if ports, ok := set.(*portSet); ok && v.isPort() && ports.count <= maxKeys {
			return v.withPorts(ports.ports())
		}
		if values, ok := literals[types.Int](in); ok && len(values) <= maxKeys {
			return v.numbers(values)
		}
	case v.text != nil && v.dim.isFact():
		if suffixes, ok := c.inSuffixes(in); ok {
			return constraints{v.dim: {suffixes: suffixes}}
		}
	}
	return needsProto(v)
}

// inSuffixes are what the members of a set of strings end with.
func (c *compiler) inSuffixes(in celast.Expr) ([]string, bool) {
	if set, _ := c.set(in); set != nil {
		if domains, ok := set.(*domainSet); ok && len(domains.entries) <= maxKeys {
			return domains.suffixes(), true
		}
	}
	values, ok := literals[types.String](in)
	if !ok || len(values) > maxKeys || slices.Contains(values, "") {
		return nil, false
	}
	suffixes := make([]string, len(values))
	for i, s := range values {
		suffixes[i] = string(s)
	}
	return suffixes, true
}

func (c *compiler) functionConstraints(call celast.CallExpr, args []celast.Expr) constraints {
	v := variableOf(call.Target())
	if v == nil || !v.dim.isFact() || v.text == nil || call.FunctionName() != "endsWith" {
		return nil
	}
	if s, ok := literalString(args[0]); ok && s != "" {
		return constraints{v.dim: {suffixes: []string{s}}}
	}
	return nil
}

// existsConstraints are those of dns.names.exists(n, …) where the body compares n.
func (c *compiler) existsConstraints(e celast.Expr) constraints {
	q := e.AsComprehension()
	list := variableOf(q.IterRange())
	start, isBool := literalBool(q.AccuInit())
	if list == nil || !list.dim.isFact() || !isBool || start || q.HasIterVar2() ||
		q.LoopStep().Kind() != celast.CallKind || q.LoopStep().AsCall().FunctionName() != operators.LogicalOr ||
		q.Result().Kind() != celast.IdentKind {
		return nil
	}
	if suffixes, ok := c.elementSuffixes(q.LoopStep().AsCall().Args()[1], q.IterVar()); ok {
		return constraints{list.dim: {suffixes: suffixes}}
	}
	return nil
}

// elementSuffixes finds what an element must end with to make the body true.
func (c *compiler) elementSuffixes(e celast.Expr, name string) ([]string, bool) {
	isElement := func(e celast.Expr) bool { return e.Kind() == celast.IdentKind && e.AsIdent() == name }
	if e.Kind() != celast.CallKind {
		return nil, false
	}
	call := e.AsCall()
	args := call.Args()
	one := func(e celast.Expr) ([]string, bool) {
		s, ok := literalString(e)
		return []string{s}, ok && s != ""
	}
	switch function := call.FunctionName(); {
	case function == operators.LogicalOr:
		a, ok1 := c.elementSuffixes(args[0], name)
		b, ok2 := c.elementSuffixes(args[1], name)
		return slices.Concat(a, b), ok1 && ok2 && len(a)+len(b) <= maxKeys
	case function == operators.LogicalAnd:
		if a, ok := c.elementSuffixes(args[0], name); ok {
			return a, true
		}
		return c.elementSuffixes(args[1], name)
	case function == operators.Equals && isElement(args[0]):
		return one(args[1])
	case function == operators.Equals && isElement(args[1]):
		return one(args[0])
	case function == operators.In && isElement(args[0]):
		return c.inSuffixes(args[1])
	case function == "endsWith" && call.IsMemberFunction() && isElement(call.Target()):
		return one(args[0])
	}
	return nil, false
}

// uses finds the variables of an expression, each once, and where its values come from.
func (c *compiler) uses(e celast.Expr) (vars []*Variable, from sources) {
	celast.PreOrderVisit(e, celast.NewExprVisitor(func(x celast.Expr) {
		if x.Kind() != celast.IdentKind {
			return
		}
		if v := variableOf(x); v != nil {
			from |= v.from
			if !slices.Contains(vars, v) {
				vars = append(vars, v)
			}
		} else if strings.HasPrefix(x.AsIdent(), patternPrefix) {
			from |= fromPatterns
		}
	}))
	return vars, from
}
