package rule

import (
	"cmp"
	"errors"
	"fmt"
	"slices"

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
	join        joinFn   // of the comparison at hand
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
	c.join = absentFirst
	if p == exact {
		c.join = inOrder
	}
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
