package rule

import (
	"bytes"
	"fmt"
	"net/netip"
	"reflect"
	"strings"
	"sync"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/operators"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
	"cel.dev/cel-go/common/types/traits"
	"cel.dev/cel-go/ext"
)

// The types that the language of conditions has besides CEL's own.
var (
	addressType   = cel.OpaqueType("ip")
	addressesType = cel.OpaqueType("networks").WithTraits(traits.ContainerType)
	portsType     = cel.OpaqueType("ports").WithTraits(traits.ContainerType)
	domainsType   = cel.OpaqueType("domains").WithTraits(traits.ContainerType)
)

// Bounds on one condition.
const (
	maxConditionLen   = 16 << 10 // characters
	maxConditionNodes = 4096
	maxConditionDepth = 100
	maxEvalCost       = 1 << 20 // of what the interpreter evaluates, in its units
)

// language is the part of the environment that is the same for all files.
var language = sync.OnceValues(func() (*cel.Env, error) {
	options := []cel.EnvOption{
		cel.ParserExpressionSizeLimit(maxConditionLen),
		cel.ParserRecursionLimit(maxConditionDepth),
		cel.ExpressionNodeLimit(maxConditionNodes),
		cel.ExpressionNestingDepthLimit(maxConditionDepth),
		ext.Strings(),
		ext.Math(),

		cel.Function("ip", cel.Overload("string_to_ip", []*cel.Type{cel.StringType}, addressType, cel.UnaryBinding(celAddr))),
		cel.Function("cidr",
			cel.Overload("string_to_networks", []*cel.Type{cel.StringType}, addressesType, cel.UnaryBinding(celNetworks)),
			cel.Overload("list_to_networks", []*cel.Type{cel.ListType(cel.StringType)}, addressesType, cel.UnaryBinding(celNetworks))),
		// The interpreter asks the set, by traits.Container.
		cel.Function(operators.In,
			cel.Overload("in_ip_networks", []*cel.Type{addressType, addressesType}, cel.BoolType),
			cel.Overload("in_int_ports", []*cel.Type{cel.IntType, portsType}, cel.BoolType),
			cel.Overload("in_string_domains", []*cel.Type{cel.StringType, domainsType}, cel.BoolType)),
		bytesFunction("startsWith", bytes.HasPrefix),
		bytesFunction("endsWith", bytes.HasSuffix),
		bytesFunction("contains", bytes.Contains),
		cel.Function("at", cel.MemberOverload("bytes_at_int", []*cel.Type{cel.BytesType, cel.IntType}, cel.IntType, cel.BinaryBinding(celBytesAt))),
	}
	for _, v := range variables().all {
		options = append(options, cel.Variable(v.Name, v.typ))
	}
	for name, is := range addressTests {
		options = append(options, cel.Function(name, cel.MemberOverload("ip_"+name, []*cel.Type{addressType}, cel.BoolType,
			cel.UnaryBinding(func(v ref.Val) ref.Val {
				if a, ok := v.(addressVal); ok {
					return types.Bool(is(netip.Addr(a)))
				}
				return types.MaybeNoSuchOverloadErr(v)
			}))))
	}
	return cel.NewEnv(options...)
})

// addressTests are the functions of addresses: ip.src.isPrivate().
var addressTests = map[string]func(netip.Addr) bool{
	"isLoopback":    netip.Addr.IsLoopback,
	"isPrivate":     netip.Addr.IsPrivate,
	"isMulticast":   netip.Addr.IsMulticast,
	"isLinkLocal":   netip.Addr.IsLinkLocalUnicast,
	"isUnspecified": netip.Addr.IsUnspecified,
}

// byteAt is the byte of b at index i.
func byteAt(b []byte, i int64) (int64, bool) {
	if i < 0 || i >= int64(len(b)) {
		return 0, false
	}
	return int64(b[i]), true
}

// The values of those types, for the interpreter.

type addressVal netip.Addr

func (a addressVal) Type() ref.Type { return addressType }
func (a addressVal) Value() any     { return netip.Addr(a) }
func (a addressVal) Equal(other ref.Val) ref.Val {
	b, ok := other.(addressVal)
	return types.Bool(ok && a == b)
}
func (a addressVal) ConvertToNative(t reflect.Type) (any, error) {
	return nil, fmt.Errorf("no conversion of an address to %v", t)
}
func (a addressVal) ConvertToType(t ref.Type) ref.Val {
	if t == types.StringType {
		return types.String(netip.Addr(a).String())
	}
	return types.NewErr("no conversion of an address to %v", t)
}

// setVal is a set of one of the three kinds.
type setVal[T any] struct {
	set *T
	typ *cel.Type
}

type (
	addrSetVal   = setVal[addrSet]
	portSetVal   = setVal[portSet]
	domainSetVal = setVal[domainSet]
)

func (s *setVal[T]) Type() ref.Type { return s.typ }
func (s *setVal[T]) Value() any     { return s.set }
func (s *setVal[T]) Equal(other ref.Val) ref.Val {
	o, ok := other.(*setVal[T])
	return types.Bool(ok && s.set == o.set)
}
func (s *setVal[T]) ConvertToNative(t reflect.Type) (any, error) {
	return nil, fmt.Errorf("no conversion of %v to %v", s.typ, t)
}
func (s *setVal[T]) ConvertToType(t ref.Type) ref.Val {
	return types.NewErr("no conversion of %v to %v", s.typ, t)
}

// Contains is the operator in.
func (s *setVal[T]) Contains(v ref.Val) ref.Val {
	switch set := any(s.set).(type) {
	case *addrSet:
		if a, ok := v.(addressVal); ok {
			return types.Bool(set.has(netip.Addr(a)))
		}
	case *portSet:
		if port, ok := v.(types.Int); ok {
			return types.Bool(set.has(int64(port)))
		}
	case *domainSet:
		if name, ok := v.(types.String); ok {
			return types.Bool(set.has(string(name)))
		}
	}
	return types.MaybeNoSuchOverloadErr(v)
}

// What the functions do in the interpreter; the compiled forms are in compile.go.

func celAddr(v ref.Val) ref.Val {
	s, ok := v.(types.String)
	if !ok {
		return types.MaybeNoSuchOverloadErr(v)
	}
	a, err := parseAddr(string(s))
	if err != nil {
		return types.WrapErr(err)
	}
	return addressVal(a)
}

func celNetworks(v ref.Val) ref.Val {
	texts, err := v.ConvertToNative(reflect.TypeFor[[]string]())
	if s, ok := v.(types.String); ok {
		texts, err = []string{string(s)}, nil
	}
	if err != nil {
		return types.MaybeNoSuchOverloadErr(v)
	}
	set, err := parseAddrSet(texts.([]string))
	if err != nil {
		return types.WrapErr(err)
	}
	return &addrSetVal{set, addressesType}
}

func parseAddrSet(texts []string) (*addrSet, error) {
	prefixes := make([]netip.Prefix, len(texts))
	for i, text := range texts {
		p, err := parsePrefix(text)
		if err != nil {
			return nil, err
		}
		prefixes[i] = p
	}
	return newAddrSet(prefixes), nil
}

func bytesFunction(name string, is func(b, arg []byte) bool) cel.EnvOption {
	return cel.Function(name, cel.MemberOverload("bytes_"+strings.ToLower(name)+"_bytes", []*cel.Type{cel.BytesType, cel.BytesType}, cel.BoolType,
		cel.BinaryBinding(func(b, arg ref.Val) ref.Val {
			data, ok1 := b.(types.Bytes)
			part, ok2 := arg.(types.Bytes)
			if !ok1 || !ok2 {
				return types.MaybeNoSuchOverloadErr(b)
			}
			return types.Bool(is(data, part))
		})))
}

func celBytesAt(b, index ref.Val) ref.Val {
	data, ok1 := b.(types.Bytes)
	i, ok2 := index.(types.Int)
	if !ok1 || !ok2 {
		return types.MaybeNoSuchOverloadErr(b)
	}
	v, ok := byteAt(data, int64(i))
	if !ok {
		return types.NewErr("no byte %d in %d bytes", int64(i), len(data))
	}
	return types.Int(v)
}
