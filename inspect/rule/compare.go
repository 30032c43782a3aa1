package rule

import (
	"bytes"
	"cmp"
	"net/netip"
	"regexp"
	"slices"
	"strings"

	celast "cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/operators"
	"cel.dev/cel-go/common/types"
)

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
			return absentFirst(isV, isW)
		}
		return truth(same(v, w) == equal)
	}, cost}, nil
}

func (c *compiler) ordering(operator string, a, b celast.Expr) (term, error) {
	switch c.info.GetType(a.ID()).Kind() {
	case types.IntKind, types.DurationKind:
		return order(c.join, c.num, operator, a, b, costCompare, cmp.Compare[int64])
	case types.StringKind:
		return order(c.join, c.text, operator, a, b, costText, strings.Compare)
	case types.BytesKind:
		return order(c.join, c.bytes, operator, a, b, costText, bytes.Compare)
	}
	return term{}, errInterpret
}

func order[T any](join joinFn, compile func(celast.Expr) (valueFn[T], error), operator string, a, b celast.Expr, cost int, compare func(T, T) int) (term, error) {
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
			return join(isV, isW)
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
		join := c.join
		return term{func(m *machine) tri {
			v, isV := x(m)
			l, isL := list(m)
			if isV != yes || isL != yes {
				return join(isV, isL)
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
			return relation(c.join, c.text, target, args[0], strings.HasPrefix)
		case "endsWith":
			return relation(c.join, c.text, target, args[0], strings.HasSuffix)
		case "contains":
			return relation(c.join, c.text, target, args[0], strings.Contains)
		}
	case t.Kind() == types.BytesKind:
		switch function {
		case "startsWith":
			return relation(c.join, c.bytes, target, args[0], bytes.HasPrefix)
		case "endsWith":
			return relation(c.join, c.bytes, target, args[0], bytes.HasSuffix)
		case "contains":
			return relation(c.join, c.bytes, target, args[0], bytes.Contains)
		}
	}
	return term{}, errInterpret
}

func relation[T any](join joinFn, compile func(celast.Expr) (valueFn[T], error), a, b celast.Expr, holds func(T, T) bool) (term, error) {
	x, err1 := compile(a)
	y, err2 := compile(b)
	return term{func(m *machine) tri {
		v, isV := x(m)
		w, isW := y(m)
		if isV != yes || isW != yes {
			return join(isV, isW)
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
