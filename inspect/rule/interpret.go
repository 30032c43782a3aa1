package rule

import (
	"fmt"
	"strings"
	"time"

	"cel.dev/cel-go/cel"
	celast "cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
)

// interpret leaves a boolean expression to cel-go's interpreter.
func (c *compiler) interpret(e celast.Expr) (term, error) {
	part := celast.NewCheckedAST(celast.NewAST(e, c.info.SourceInfo()), c.info.TypeMap(), c.info.ReferenceMap())
	program, err := c.env.PlanProgram(part, cel.EvalOptions(cel.OptOptimize), cel.CostLimit(maxEvalCost))
	if err != nil {
		return term{}, fmt.Errorf("prepare for the interpreter: %w", err)
	}
	c.interpreted++
	return term{func(m *machine) tri {
		v, _, err := program.Eval(&activation{m, c.vocabulary})
		if err != nil {
			return absent
		}
		switch v := v.(type) {
		case types.Bool:
			return truth(bool(v))
		case *types.Unknown:
			return unknown
		}
		return absent
	}, costInterpret}, nil
}

// activation shows the interpreter the variables of a machine.
type activation struct {
	m *machine
	*vocabulary
}

// Parent implements cel.Activation.
func (a *activation) Parent() cel.Activation { return nil }

// ResolveName implements cel.Activation.
func (a *activation) ResolveName(name string) (any, bool) {
	if v := variables().byName[name]; v != nil {
		return v.value(a.m), true
	}
	if rest, ok := strings.CutPrefix(name, "list."); ok {
		switch set := a.lists[rest].(type) {
		case *addrSet:
			return &addrSetVal{set, addressesType}, true
		case *portSet:
			return &portSetVal{set, portsType}, true
		case *domainSet:
			return &domainSetVal{set, domainsType}, true
		}
	}
	var pattern int
	if _, err := fmt.Sscanf(name, patternPrefix+"%d", &pattern); err == nil {
		return boolVal(patternHit(pattern)(a.m)), true
	}
	return nil, false
}

var (
	unknownVal = types.NewUnknown(0, nil)
	absentVal  = types.NewErr("the packet has no such header")
)

// value is the variable's value for the interpreter.
func (v *Variable) value(m *machine) ref.Val {
	switch {
	case v.cond != nil:
		return boolVal(v.cond(m))
	case v.num != nil:
		n, is := v.num(m)
		if v.typ == cel.DurationType {
			return valueOr(is, types.Duration{Duration: time.Duration(n)})
		}
		return valueOr(is, types.Int(n))
	case v.text != nil:
		s, is := v.text(m)
		return valueOr(is, types.String(s))
	case v.bytes != nil:
		b, is := v.bytes(m)
		return valueOr(is, types.Bytes(b))
	case v.addr != nil:
		a, is := v.addr(m)
		return valueOr(is, addressVal(a))
	default:
		l, is := v.list(m)
		return valueOr(is, types.NewStringList(types.DefaultTypeAdapter, l))
	}
}

func valueOr(is tri, v ref.Val) ref.Val {
	switch is {
	case yes:
		return v
	case unknown:
		return unknownVal
	}
	return absentVal
}

func boolVal(is tri) ref.Val {
	if is == no {
		return types.False
	}
	return valueOr(is, types.True)
}
