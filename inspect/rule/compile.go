package rule

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"

	"cel.dev/cel-go/cel"
	celast "cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/operators"
	"cel.dev/cel-go/common/types"
)

// compiler turns one checked condition into closures. What it has no closure for is
// left to cel-go's interpreter, in pieces as small as possible.
type compiler struct {
	*vocabulary
	checked
	bound       []string // variables of the exists and all around, innermost last
	interpreted int      // pieces left to the interpreter
}

// errInterpret is returned for what has no closure.
var errInterpret = errors.New("no compiled form")

// polarity is what is asked of a boolean expression. At the top of a rule only "can it
// be true" matters, below a ! only "can it be false". There an operand without a value
// settles an && or || that CEL calls unknown as long as the other operand is: with a UDP
// packet, tcp.dport == 443 && tls.sni == "x" cannot become true whatever the SNI.
type polarity int8

const (
	exact polarity = iota
	askTrue
	askFalse
)

func (p polarity) inverted() polarity {
	switch p {
	case askTrue:
		return askFalse
	case askFalse:
		return askTrue
	}
	return exact
}

// term is a compiled boolean expression with an estimate of what it costs.
type term struct {
	eval condFn
	cost int
}

// Costs order the operands of && and ||, the outcome of which does not depend on order.
const (
	costCompare   = 1
	costText      = 3
	costSet       = 5
	costRegexp    = 50
	costInterpret = 1000
)

// cond compiles a boolean expression.
func (c *compiler) cond(e celast.Expr, p polarity) (term, error) {
	t, err := c.compiled(e, p)
	if !errors.Is(err, errInterpret) || c.usesBound(e) {
		return t, err
	}
	return c.interpret(e)
}

func (c *compiler) compiled(e celast.Expr, p polarity) (term, error) {
	switch e.Kind() {
	case celast.LiteralKind:
		if b, ok := e.AsLiteral().(types.Bool); ok {
			is := truth(bool(b))
			return term{func(*machine) tri { return is }, 0}, nil
		}
	case celast.IdentKind:
		return c.boolVariable(e)
	case celast.ComprehensionKind:
		return c.quantifier(e, p)
	case celast.CallKind:
		return c.boolCall(e, p)
	}
	return term{}, errInterpret
}

func (c *compiler) boolVariable(e celast.Expr) (term, error) {
	if v := variableOf(e); v != nil && v.cond != nil {
		return term{v.cond, costCompare}, nil
	}
	var i int
	if _, err := fmt.Sscanf(e.AsIdent(), patternPrefix+"%d", &i); err == nil {
		return term{patternHit(i), costCompare}, nil
	}
	return term{}, errInterpret
}

// patternHit is true for good when the pattern was seen, and false until then.
func patternHit(i int) condFn {
	word, bit := i>>6, uint64(1)<<(i&63)
	return func(m *machine) tri {
		switch {
		case word < len(m.env.Patterns) && m.env.Patterns[word]&bit != 0:
			return yes
		case m.hide&fromPatterns != 0:
			return unknown
		}
		return no
	}
}

func (c *compiler) boolCall(e celast.Expr, p polarity) (term, error) {
	call := e.AsCall()
	args, function := call.Args(), call.FunctionName()
	if call.IsMemberFunction() {
		return c.memberCall(function, call.Target(), args)
	}
	switch function {
	case operators.LogicalAnd:
		terms, err := c.operands(e, function, p)
		return conjunction(terms, p), err
	case operators.LogicalOr:
		terms, err := c.operands(e, function, p)
		return disjunction(terms, p), err
	case operators.LogicalNot:
		t, err := c.cond(args[0], p.inverted())
		return term{not(t.eval), t.cost}, err
	case operators.Conditional:
		return c.conditional(args, p)
	case operators.Equals, operators.NotEquals:
		return c.equality(args[0], args[1], function == operators.Equals)
	case operators.Less, operators.LessEquals, operators.Greater, operators.GreaterEquals:
		return c.ordering(function, args[0], args[1])
	case operators.In:
		return c.membership(args[0], args[1])
	}
	return term{}, errInterpret
}

// operands compiles all operands of a chain of one logical operator, cheapest first.
func (c *compiler) operands(e celast.Expr, operator string, p polarity) ([]term, error) {
	if e.Kind() == celast.CallKind && e.AsCall().FunctionName() == operator {
		var all []term
		for _, a := range e.AsCall().Args() {
			terms, err := c.operands(a, operator, p)
			if err != nil {
				return nil, err
			}
			all = append(all, terms...)
		}
		slices.SortStableFunc(all, func(a, b term) int { return cmp.Compare(a.cost, b.cost) })
		return all, nil
	}
	t, err := c.cond(e, p)
	return []term{t}, err
}

func conjunction(terms []term, p polarity) term {
	var cost int
	evals := make([]condFn, len(terms))
	for i, t := range terms {
		evals[i], cost = t.eval, cost+t.cost
	}
	if p == askTrue {
		return term{func(m *machine) tri {
			all := yes
			for _, eval := range evals {
				switch is := eval(m); is {
				case no, absent:
					return is
				case unknown:
					all = unknown
				}
			}
			return all
		}, cost}
	}
	return term{func(m *machine) tri {
		all := yes
		for _, eval := range evals {
			switch is := eval(m); is {
			case no:
				return no
			case unknown:
				all = unknown
			case absent:
				if all == yes {
					all = absent
				}
			}
		}
		return all
	}, cost}
}

func disjunction(terms []term, p polarity) term {
	var cost int
	evals := make([]condFn, len(terms))
	for i, t := range terms {
		evals[i], cost = t.eval, cost+t.cost
	}
	return term{func(m *machine) tri {
		anyOf := no
		for _, eval := range evals {
			switch is := eval(m); is {
			case yes:
				return yes
			case unknown:
				anyOf = unknown
			case absent:
				if p == askFalse {
					return absent
				}
				if anyOf == no {
					anyOf = absent
				}
			}
		}
		return anyOf
	}, cost}
}

func not(eval condFn) condFn {
	return func(m *machine) tri {
		switch is := eval(m); is {
		case yes:
			return no
		case no:
			return yes
		default:
			return is
		}
	}
}

func (c *compiler) conditional(args []celast.Expr, p polarity) (term, error) {
	test, err1 := c.cond(args[0], exact)
	then, err2 := c.cond(args[1], p)
	otherwise, err3 := c.cond(args[2], p)
	return term{func(m *machine) tri {
		switch is := test.eval(m); is {
		case yes:
			return then.eval(m)
		case no:
			return otherwise.eval(m)
		default:
			return is
		}
	}, test.cost + max(then.cost, otherwise.cost)}, cmp.Or(err1, err2, err3)
}

// quantifier compiles list.exists(x, …) and list.all(x, …), which the parser has turned
// into comprehensions.
func (c *compiler) quantifier(e celast.Expr, p polarity) (term, error) {
	q := e.AsComprehension()
	start, isBool := literalBool(q.AccuInit())
	step := q.LoopStep()
	if !isBool || q.HasIterVar2() || step.Kind() != celast.CallKind || q.Result().Kind() != celast.IdentKind ||
		q.Result().AsIdent() != q.AccuVar() || len(c.bound) == maxNesting {
		return term{}, errInterpret
	}
	function, args := step.AsCall().FunctionName(), step.AsCall().Args()
	isExists := function == operators.LogicalOr && !start
	isAll := function == operators.LogicalAnd && start
	if !isExists && !isAll || len(args) != 2 || args[0].Kind() != celast.IdentKind || args[0].AsIdent() != q.AccuVar() {
		return term{}, errInterpret
	}
	list, err := c.list(q.IterRange())
	if err != nil {
		return term{}, err
	}
	depth := len(c.bound)
	c.bound = append(c.bound, q.IterVar())
	body, err := c.cond(args[1], p)
	c.bound = c.bound[:depth]
	if err != nil {
		return term{}, err
	}

	settled := truth(isExists) // the outcome of one element that is the outcome of all
	return term{func(m *machine) tri {
		texts, is := list(m)
		if is != yes {
			return is
		}
		all := truth(isAll)
		for _, text := range texts {
			m.iter[depth] = text
			is := body.eval(m)
			switch {
			case is == settled:
				return is
			case is == absent && (isAll && p == askTrue || isExists && p == askFalse):
				return absent
			case is == unknown, is == absent && all != unknown:
				all = is
			}
		}
		return all
	}, 4 * body.cost}, nil
}

func literalBool(e celast.Expr) (value, ok bool) {
	if e.Kind() != celast.LiteralKind {
		return false, false
	}
	b, ok := e.AsLiteral().(types.Bool)
	return bool(b), ok
}

func (c *compiler) equality(a, b celast.Expr, equal bool) (term, error) {
	switch t := c.info.GetType(a.ID()); t.Kind() {
	case types.BoolKind:
		x, err1 := c.cond(a, exact)
		y, err2 := c.cond(b, exact)
		return term{func(m *machine) tri {
			x, y := x.eval(m), y.eval(m)
			if x > yes || y > yes {
				if x == absent || y == absent {
					return absent
				}
				return unknown
			}
			return truth((x == y) == equal)
		}, x.cost + y.cost}, cmp.Or(err1, err2)
	case types.IntKind, types.DurationKind:
		return equalValues(c.num, a, b, equal, costCompare, func(x, y int64) bool { return x == y })
	case types.StringKind:
		return equalValues(c.text, a, b, equal, costText, func(x, y string) bool { return x == y })
	case types.BytesKind:
		return equalValues(c.bytes, a, b, equal, costText, bytes.Equal)
	default:
		if t.IsExactType(addressType) {
			return equalValues(c.addr, a, b, equal, costCompare, func(x, y netip.Addr) bool { return x == y })
		}
	}
	return term{}, errInterpret
}

func equalValues[T any](compile func(celast.Expr) (valueFn[T], error), a, b celast.Expr, equal bool, cost int, same func(T, T) bool) (term, error) {
	x, err1 := compile(a)
	y, err2 := compile(b)
	if err := cmp.Or(err1, err2); err != nil {
		return term{}, err
	}
	if b.Kind() == celast.LiteralKind {
		k, _ := y(nil)
		return term{func(m *machine) tri {
			v, is := x(m)
			if is != yes {
				return is
			}
			return truth(same(v, k) == equal)
		}, cost}, nil
	}
	return term{func(m *machine) tri {
		v, isV := x(m)
		w, isW := y(m)
		if isV != yes || isW != yes {
			return strictEqual(isV, isW)
		}
		return truth(same(v, w) == equal)
	}, cost}, nil
}

func (c *compiler) ordering(operator string, a, b celast.Expr) (term, error) {
	switch c.info.GetType(a.ID()).Kind() {
	case types.IntKind, types.DurationKind:
		return order(c.num, operator, a, b, costCompare, cmp.Compare[int64])
	case types.StringKind:
		return order(c.text, operator, a, b, costText, strings.Compare)
	case types.BytesKind:
		return order(c.bytes, operator, a, b, costText, bytes.Compare)
	}
	return term{}, errInterpret
}

func order[T any](compile func(celast.Expr) (valueFn[T], error), operator string, a, b celast.Expr, cost int, compare func(T, T) int) (term, error) {
	x, err1 := compile(a)
	y, err2 := compile(b)
	var holds [3]bool // for less, equal, greater
	switch operator {
	case operators.Less:
		holds = [3]bool{true, false, false}
	case operators.LessEquals:
		holds = [3]bool{true, true, false}
	case operators.Greater:
		holds = [3]bool{false, false, true}
	case operators.GreaterEquals:
		holds = [3]bool{false, true, true}
	}
	return term{func(m *machine) tri {
		v, isV := x(m)
		w, isW := y(m)
		if isV != yes || isW != yes {
			return strict(isV, isW)
		}
		return truth(holds[1+compare(v, w)])
	}, cost}, cmp.Or(err1, err2)
}

// membership compiles the operator in.
func (c *compiler) membership(of, in celast.Expr) (term, error) {
	if in.Kind() == celast.ListKind && len(in.AsList().Elements()) == 0 {
		return term{func(*machine) tri { return no }, 0}, nil // cel-go does not look at the left side either
	}
	set, isSet := c.set(in)
	switch t := c.info.GetType(of.ID()); {
	case t.IsExactType(addressType) && isSet:
		x, err := c.addr(of)
		return member(x, set.(*addrSet).has), err
	case t.Kind() == types.IntKind && isSet:
		x, err := c.num(of)
		return member(x, set.(*portSet).has), err
	case t.Kind() == types.StringKind && isSet:
		x, err := c.text(of)
		return member(x, set.(*domainSet).has), err
	case t.Kind() == types.IntKind:
		if values, ok := literals[types.Int](in); ok {
			x, err := c.num(of)
			return member(x, oneOf(values, func(v types.Int) int64 { return int64(v) })), err
		}
	case t.Kind() == types.StringKind:
		x, err := c.text(of)
		if err != nil {
			return term{}, err
		}
		if values, ok := literals[types.String](in); ok {
			return member(x, oneOf(values, func(v types.String) string { return string(v) })), nil
		}
		list, err := c.list(in)
		return term{func(m *machine) tri {
			v, isV := x(m)
			l, isL := list(m)
			if isV != yes || isL != yes {
				return strict(isV, isL)
			}
			return truth(slices.Contains(l, v))
		}, costSet}, err
	}
	return term{}, errInterpret
}

func member[T any](x valueFn[T], has func(T) bool) term {
	return term{func(m *machine) tri {
		v, is := x(m)
		if is != yes {
			return is
		}
		return truth(has(v))
	}, costSet}
}

// oneOf is a set of constants: few are compared one by one.
func oneOf[L any, T comparable](literals []L, value func(L) T) func(T) bool {
	values := make([]T, len(literals))
	set := make(map[T]struct{}, len(literals))
	for i, l := range literals {
		values[i] = value(l)
		set[values[i]] = struct{}{}
	}
	if len(values) <= 8 {
		return func(v T) bool { return slices.Contains(values, v) }
	}
	return func(v T) bool { _, ok := set[v]; return ok }
}

// literals are the elements of a list that has nothing but literals of one type.
func literals[T any](e celast.Expr) ([]T, bool) {
	if e.Kind() != celast.ListKind {
		return nil, false
	}
	var values []T
	for _, x := range e.AsList().Elements() {
		if x.Kind() != celast.LiteralKind {
			return nil, false
		}
		v, ok := x.AsLiteral().(T)
		if !ok {
			return nil, false
		}
		values = append(values, v)
	}
	return values, true
}

// set is the constant set that e stands for: a named list, or cidr of literals.
func (c *compiler) set(e celast.Expr) (any, bool) {
	if e.Kind() == celast.IdentKind {
		set, ok := c.lists[strings.TrimPrefix(e.AsIdent(), "list.")]
		return set, ok && strings.HasPrefix(e.AsIdent(), "list.")
	}
	if e.Kind() != celast.CallKind || e.AsCall().FunctionName() != "cidr" {
		return nil, false
	}
	arg := e.AsCall().Args()[0]
	texts, ok := literals[types.String](arg)
	if text, single := literalString(arg); single {
		texts, ok = []types.String{types.String(text)}, true
	}
	if !ok {
		return nil, false
	}
	plain := make([]string, len(texts))
	for i, t := range texts {
		plain[i] = string(t)
	}
	set, err := parseAddrSet(plain)
	return set, err == nil
}

// memberCall compiles a function of a value.
func (c *compiler) memberCall(function string, target celast.Expr, args []celast.Expr) (term, error) {
	t := c.info.GetType(target.ID())
	switch {
	case t.IsExactType(addressType):
		x, err := c.addr(target)
		if is, ok := addressTests[function]; ok {
			return member(x, is), err
		}
	case len(args) != 1:
	case t.Kind() == types.StringKind && function == "matches":
		return c.matches(target, args[0])
	case t.Kind() == types.StringKind:
		switch function {
		case "startsWith":
			return relation(c.text, target, args[0], strings.HasPrefix)
		case "endsWith":
			return relation(c.text, target, args[0], strings.HasSuffix)
		case "contains":
			return relation(c.text, target, args[0], strings.Contains)
		}
	case t.Kind() == types.BytesKind:
		switch function {
		case "startsWith":
			return relation(c.bytes, target, args[0], bytes.HasPrefix)
		case "endsWith":
			return relation(c.bytes, target, args[0], bytes.HasSuffix)
		case "contains":
			return relation(c.bytes, target, args[0], bytes.Contains)
		}
	}
	return term{}, errInterpret
}

func relation[T any](compile func(celast.Expr) (valueFn[T], error), a, b celast.Expr, holds func(T, T) bool) (term, error) {
	x, err1 := compile(a)
	y, err2 := compile(b)
	return term{func(m *machine) tri {
		v, isV := x(m)
		w, isW := y(m)
		if isV != yes || isW != yes {
			return strict(isV, isW)
		}
		return truth(holds(v, w))
	}, costText}, cmp.Or(err1, err2)
}

func (c *compiler) matches(target, pattern celast.Expr) (term, error) {
	x, err := c.text(target)
	if err != nil {
		return term{}, err
	}
	text, ok := literalString(pattern)
	if !ok {
		return term{}, errInterpret
	}
	re, err := regexp.Compile(text)
	if err != nil {
		return term{}, errInterpret
	}
	t := member(x, re.MatchString)
	t.cost = costRegexp
	return t, nil
}

// num compiles an expression of type int or duration; durations are nanoseconds.
func (c *compiler) num(e celast.Expr) (intFn, error) {
	switch e.Kind() {
	case celast.LiteralKind:
		if n, ok := e.AsLiteral().(types.Int); ok {
			return constant(int64(n)), nil
		}
	case celast.IdentKind:
		if v := variableOf(e); v != nil && v.num != nil {
			return v.num, nil
		}
	case celast.CallKind:
		return c.numCall(e)
	}
	return nil, errInterpret
}

func (c *compiler) numCall(e celast.Expr) (intFn, error) {
	call := e.AsCall()
	args := call.Args()
	isDuration := c.info.GetType(e.ID()).Kind() == types.DurationKind
	switch function := call.FunctionName(); {
	case function == "duration":
		if text, ok := literalString(args[0]); ok {
			d, isD := types.String(text).ConvertToType(types.DurationType).(types.Duration)
			if isD {
				return constant(int64(d.Duration)), nil
			}
		}
	case function == "size":
		if call.IsMemberFunction() {
			args = []celast.Expr{call.Target()}
		}
		return c.size(args[0])
	case function == "at" && call.IsMemberFunction():
		b, err1 := c.bytes(call.Target())
		i, err2 := c.num(args[0])
		return func(m *machine) (int64, tri) {
			data, isB := b(m)
			index, isI := i(m)
			if isB != yes || isI != yes {
				return 0, strict(isB, isI)
			}
			v, ok := byteAt(data, index)
			return v, presentIf(ok)
		}, cmp.Or(err1, err2)
	case isDuration:
	case function == operators.Negate:
		x, err := c.num(args[0])
		return func(m *machine) (int64, tri) {
			v, is := x(m)
			if is == yes && v == math.MinInt64 {
				is = absent
			}
			return -v, is
		}, err
	case len(args) == 2 && arithmetic[function] != nil && c.areInts(args):
		calculate := arithmetic[function]
		x, err1 := c.num(args[0])
		y, err2 := c.num(args[1])
		return func(m *machine) (int64, tri) {
			v, isV := x(m)
			w, isW := y(m)
			if isV != yes || isW != yes {
				return 0, strict(isV, isW)
			}
			result, ok := calculate(v, w)
			return result, presentIf(ok)
		}, cmp.Or(err1, err2)
	}
	return nil, errInterpret
}

func (c *compiler) areInts(args []celast.Expr) bool {
	for _, a := range args {
		if c.info.GetType(a.ID()).Kind() != types.IntKind {
			return false
		}
	}
	return true
}

// size is that of a string in characters, of bytes, of a list.
func (c *compiler) size(e celast.Expr) (intFn, error) {
	switch c.info.GetType(e.ID()).Kind() {
	case types.StringKind:
		x, err := c.text(e)
		return measure(x, func(s string) int64 { return int64(utf8.RuneCountInString(s)) }), err
	case types.BytesKind:
		x, err := c.bytes(e)
		return measure(x, func(b []byte) int64 { return int64(len(b)) }), err
	case types.ListKind:
		x, err := c.list(e)
		return measure(x, func(l []string) int64 { return int64(len(l)) }), err
	}
	return nil, errInterpret
}

func measure[T any](x valueFn[T], size func(T) int64) intFn {
	return func(m *machine) (int64, tri) {
		v, is := x(m)
		if is != yes {
			return 0, is
		}
		return size(v), yes
	}
}

// text compiles an expression of type string.
func (c *compiler) text(e celast.Expr) (textFn, error) {
	switch e.Kind() {
	case celast.LiteralKind:
		if s, ok := literalString(e); ok {
			return constant(s), nil
		}
	case celast.IdentKind:
		if depth := c.boundAt(e.AsIdent()); depth >= 0 {
			return func(m *machine) (string, tri) { return m.iter[depth], yes }, nil
		}
		if v := variableOf(e); v != nil && v.text != nil {
			return v.text, nil
		}
	case celast.CallKind:
		call := e.AsCall()
		if call.FunctionName() != operators.Index {
			break
		}
		list, err1 := c.list(call.Args()[0])
		index, err2 := c.num(call.Args()[1])
		return func(m *machine) (string, tri) {
			l, isL := list(m)
			i, isI := index(m)
			switch {
			case isL != yes || isI != yes:
				return "", strict(isL, isI)
			case i < 0 || i >= int64(len(l)):
				return "", absent
			}
			return l[i], yes
		}, cmp.Or(err1, err2)
	}
	return nil, errInterpret
}

func (c *compiler) bytes(e celast.Expr) (bytesFn, error) {
	switch e.Kind() {
	case celast.LiteralKind:
		if b, ok := e.AsLiteral().(types.Bytes); ok {
			return constant([]byte(b)), nil
		}
	case celast.IdentKind:
		if v := variableOf(e); v != nil && v.bytes != nil {
			return v.bytes, nil
		}
	}
	return nil, errInterpret
}

func (c *compiler) addr(e celast.Expr) (addrFn, error) {
	switch e.Kind() {
	case celast.IdentKind:
		if v := variableOf(e); v != nil && v.addr != nil {
			return v.addr, nil
		}
	case celast.CallKind:
		if call := e.AsCall(); call.FunctionName() == "ip" && !call.IsMemberFunction() {
			if text, ok := literalString(call.Args()[0]); ok {
				a, err := parseAddr(text)
				if err == nil {
					return constant(a), nil
				}
			}
		}
	}
	return nil, errInterpret
}

// list compiles an expression of type list(string).
func (c *compiler) list(e celast.Expr) (listFn, error) {
	if e.Kind() == celast.IdentKind {
		if v := variableOf(e); v != nil && v.list != nil {
			return v.list, nil
		}
	}
	if texts, ok := literals[types.String](e); ok && c.info.GetType(e.ID()).IsExactType(cel.ListType(cel.StringType)) {
		plain := make([]string, len(texts))
		for i, t := range texts {
			plain[i] = string(t)
		}
		return constant(plain), nil
	}
	return nil, errInterpret
}

// boundAt is the nesting depth of the variable name, -1 when it is none of exists or
// all. The innermost of a name counts.
func (c *compiler) boundAt(name string) int {
	for i := len(c.bound) - 1; i >= 0; i-- {
		if c.bound[i] == name {
			return i
		}
	}
	return -1
}

// usesBound tells whether e needs a variable of an exists or all around it.
func (c *compiler) usesBound(e celast.Expr) bool {
	uses := false
	celast.PreOrderVisit(e, celast.NewExprVisitor(func(x celast.Expr) {
		if x.Kind() == celast.IdentKind && c.boundAt(x.AsIdent()) >= 0 {
			uses = true
		}
	}))
	return uses
}

// arithmetic has the operators on ints; ok is false where CEL has an error.
var arithmetic = map[string]func(a, b int64) (v int64, ok bool){
	operators.Add: func(a, b int64) (int64, bool) {
		v := a + b
		return v, (v > a) == (b > 0)
	},
	operators.Subtract: func(a, b int64) (int64, bool) {
		v := a - b
		return v, (v < a) == (b > 0)
	},
	operators.Multiply: func(a, b int64) (int64, bool) {
		if a == 0 || b == 0 {
			return 0, true
		}
		v := a * b
		return v, v/b == a && !(a == -1 && b == math.MinInt64) && !(b == -1 && a == math.MinInt64)
	},
	operators.Divide: func(a, b int64) (int64, bool) {
		if b == 0 || a == math.MinInt64 && b == -1 {
			return 0, false
		}
		return a / b, true
	},
	operators.Modulo: func(a, b int64) (int64, bool) {
		if b == 0 || a == math.MinInt64 && b == -1 {
			return 0, false
		}
		return a % b, true
	},
	"math.bitAnd": func(a, b int64) (int64, bool) { return a & b, true },
	"math.bitOr":  func(a, b int64) (int64, bool) { return a | b, true },
	"math.bitXor": func(a, b int64) (int64, bool) { return a ^ b, true },
}
