package rule

import (
	"cmp"
	"math"
	"unicode/utf8"

	"cel.dev/cel-go/cel"
	celast "cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/operators"
	"cel.dev/cel-go/common/types"
)

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
	join := c.join
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
				return 0, join(isB, isI)
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
				return 0, join(isV, isW)
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
		join := c.join
		return func(m *machine) (string, tri) {
			l, isL := list(m)
			i, isI := index(m)
			switch {
			case isL != yes || isI != yes:
				return "", join(isL, isI)
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
