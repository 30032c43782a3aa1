package explain

import (
	"fmt"

	"github.com/cilium/ebpf/btf"

	"inquest/kernel"
	"inquest/kernel/x86"
	"inquest/stack"
)

// calledBack is a promise that no prototype shows: of a function that was given a member
// and computed the struct around it (container_of), to call a function of that struct
// with it, such as __sk_destruct() calls sk->sk_destruct(sk). The call went to a bad
// address, so what was called cannot say what its first parameter was; the struct can:
// the only one with a member of that type at that offset, whose pointer to a function
// that takes such a struct holds the bad address.
func (c *Case) calledBack() (promise, bool) {
	cr := c.Crash
	if cr.Fault == nil || cr.Trace == nil || cr.Fault.Frame+1 >= len(cr.Trace.Frames) {
		return promise{}, false
	}
	target := uint64(cr.Fault.PC)
	if bad, ok := c.judge(target, false, true); !ok || !bad.sure || bad.class == NullDereference {
		return promise{}, false
	}
	first, ok := cr.Fault.Regs.Get(x86.RDI)
	if !ok || first < userTop {
		return promise{}, false
	}
	caller := cr.Fault.Frame + 1
	const largest = 1 << 16 // struct
	var found promise
	matches := 0
	for _, a := range cr.Trace.Frames[caller].Args {
		member, isStruct := structOf(a)
		at, from, known := value(a)
		if !isStruct || !known || uint64(at) <= first || uint64(at)-first >= largest {
			continue
		}
		offset := uint64(at) - first
		for typ, module := range c.structsWith(member, offset, cr.Trace.Frames[caller].Symbol.Module) {
			if !c.holdsCall(typ, kernel.Addr(first), target) {
				continue
			}
			matches++
			found = promise{ptr: kernel.Addr(first), typ: typ, module: module, sure: true, called: true, passings: []passing{{
				frame: cr.Fault.Frame, function: shortAddr(target), param: "p",
				from: fmt.Sprintf("in rdi; it is %s minus %#x, where struct %s has its struct %s; %s is %s", a.Name, offset, typ.Name, member.Name, a.Name, from),
			}}}
		}
	}
	return found, matches == 1
}

func structOf(a stack.Arg) (*btf.Struct, bool) {
	target, ok := pointee(a.BTF)
	if !ok {
		return nil, false
	}
	s, ok := target.(*btf.Struct)
	return s, ok && s.Name != "" && s.Size > 0
}

// structsWith yields the structs of the kernel, or of the module that the code is from,
// that have a member of a type right at an offset, by whose module they are.
func (c *Case) structsWith(member *btf.Struct, offset uint64, module string) func(func(*btf.Struct, string) bool) {
	return func(yield func(*btf.Struct, string) bool) {
		types, err := c.Kernel.Types()
		if err != nil {
			return
		}
		modules := []string{""}
		if module != "" {
			modules = append(modules, module)
		}
		for _, m := range modules {
			for typ := range types.All(m) {
				s, ok := typ.(*btf.Struct)
				if !ok || s.Name == "" || offset == 0 || offset+uint64(member.Size) > uint64(s.Size) {
					continue
				}
				if _, has := memberOfType(s, offset, member); has && !yield(s, m) {
					return
				}
			}
		}
	}
}

// holdsCall reports whether a struct at an address has a pointer with a value to a function
// whose first parameter is such a struct.
func (c *Case) holdsCall(s *btf.Struct, at kernel.Addr, value uint64) bool {
	for _, m := range pointerMembers(s) {
		proto, ok := m.target.(*btf.FuncProto)
		if !ok || len(proto.Params) == 0 {
			continue
		}
		param, ok := pointee(proto.Params[0].Type)
		if !ok {
			continue
		}
		own, ok := param.(*btf.Struct)
		if !ok || own.Name != s.Name {
			continue
		}
		if v, err := c.Kernel.U64(at + kernel.Addr(m.offset)); err == nil && v == value {
			return true
		}
	}
	return false
}
