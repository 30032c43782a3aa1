package explain

import (
	"fmt"
	"slices"
	"strings"

	"github.com/cilium/ebpf/btf"
	"golang.org/x/arch/x86/x86asm"

	"inquest/kernel"
	"inquest/kernel/x86"
	"inquest/stack"
)

// promise is a pointer that the code on the crashed stack took for one to a struct.
type promise struct {
	ptr      kernel.Addr
	typ      *btf.Struct
	module   string // that has the struct; "" for the kernel
	sure     bool   // the value is what was passed; else it was read again where it had come from
	called   bool   // with it, the giver called an address that is none: nobody came in between
	passings []passing
}

// passing is one function that was given the pointer.
type passing struct {
	frame    int // index in the trace; of a function that a tail call removed, that of the frame it led to
	function string
	param    string
	from     string
}

// promises are the struct pointers that the crashed stack's functions were given,
// innermost first, those of one pointer and type together.
func (c *Case) promises() []promise {
	cr := c.Crash
	if cr == nil {
		return nil
	}
	cr.promisesOnce.Do(func() { cr.promises = c.collectPromises() })
	return cr.promises
}

func (c *Case) collectPromises() []promise {
	var all []promise
	c.arguments(func(frame int, function string, a stack.Arg) {
		target, ok := pointee(a.BTF)
		if !ok {
			return
		}
		s, ok := target.(*btf.Struct)
		if !ok || s.Name == "" || s.Size == 0 {
			return
		}
		ptr, from, known := value(a)
		if !known && a.Again == nil {
			return
		}
		pass := passing{frame, function, a.Name, from}
		for i := range all {
			if p := &all[i]; p.ptr == ptr && p.typ.Name == s.Name {
				p.sure = p.sure || known
				p.passings = append(p.passings, pass)
				return
			}
		}
		all = append(all, promise{ptr: ptr, typ: s, sure: known, passings: []passing{pass}})
	})
	for i := range all {
		// A struct is of the module that declares a function by it, or of the kernel.
		p := &all[i]
		p.module = c.structFor(p.typ, c.Crash.Trace.Frames[p.passings[0].frame].Symbol.Module).module
	}
	if p, ok := c.calledBack(); ok {
		all = append([]promise{p}, all...)
	}
	return all
}

// arguments works out the arguments of the crashed stack, and calls f with every
// parameter from the culprit outwards; f may be nil.
func (c *Case) arguments(f func(frame int, function string, a stack.Arg)) {
	cr := c.Crash
	if cr == nil || cr.Trace == nil {
		return
	}
	cr.args.Do(func() { c.Unwinder.Arguments(cr.Trace) })
	if f == nil {
		return
	}
	for i := cr.Culprit; i < len(cr.Trace.Frames); i++ {
		fr := &cr.Trace.Frames[i]
		for _, a := range fr.Args {
			f(i, fr.Symbol.Name, a)
		}
		for _, tail := range fr.Tail {
			for _, a := range tail.Args {
				f(i, tail.Symbol.Name, a)
			}
		}
	}
}

// value is a parameter's value, or what was read again in its place.
func value(a stack.Arg) (ptr kernel.Addr, from string, known bool) {
	switch {
	case a.Known:
		return kernel.Addr(a.Value), a.From, true
	case a.Again != nil:
		return kernel.Addr(a.Again.Value), "read again from " + a.Again.Expr, false
	}
	return 0, "", false
}

// pointee is what a pointer type points to, without names and qualifiers.
func pointee(t btf.Type) (btf.Type, bool) {
	if t == nil {
		return nil, false
	}
	p, ok := btf.UnderlyingType(t).(*btf.Pointer)
	if !ok {
		return nil, false
	}
	return btf.UnderlyingType(p.Target), true
}

// structType is the struct that was promised.
func (p *promise) structType() *structType { return &structType{p.typ, p.module} }

// functions lists who was given the pointer, innermost first.
func (p *promise) functions() string { return strings.Join(p.passedTo(), ", ") }

func (p *promise) passedTo() []string {
	var names []string
	for _, pass := range p.passings {
		if !slices.Contains(names, pass.function) {
			names = append(names, pass.function)
		}
	}
	return names
}

// outermost is the first function that was given the pointer.
func (p *promise) outermost() passing { return p.passings[len(p.passings)-1] }

// giver is the function that gave it to the first one. A call through a pointer may
// have led to functions that left the stack since, by tail calls.
func (c *Case) giver(p *promise) string {
	name := c.giverFunction(p)
	if i := p.outermost().frame + 1; !p.called && i < len(c.Crash.Trace.Frames) && !c.callsDirectly(c.Crash.Trace.Frames[i].PC) {
		name += " or what it called"
	}
	return name
}

// giverFunction is the name alone.
func (c *Case) giverFunction(p *promise) string {
	frames := c.Crash.Trace.Frames
	out := p.outermost()
	if i := out.frame + 1; i < len(frames) && frames[i].Symbol.Name != "" {
		return base(frames[i].Symbol.Name)
	}
	return base(out.function)
}

// callsDirectly reports whether the call in front of a return address names its target.
func (c *Case) callsDirectly(ret kernel.Addr) bool {
	const size = 5 // e8 and 4 bytes
	code, err := c.Kernel.Slice(ret-size, size)
	if err != nil {
		return false
	}
	insn, err := x86.Decode(code, uint64(ret-size))
	if err != nil || insn.Op != x86asm.CALL {
		return false
	}
	to, ok := insn.Target()
	return ok && !strings.HasPrefix(c.Kernel.Name(kernel.Addr(to)), "__x86_indirect_")
}

// access is a use of memory by way of a promised pointer: at an offset in the struct
// that it was taken for.
type access struct {
	offset   uint64
	place    kernel.Place
	function string
	how      string // in words
	sure     bool   // the code says so; else what it holds is what the code used
}

// accesses finds where the code used the struct: members whose address it passed on,
// the memory that the trapped instruction accessed, and where it had read a bad pointer.
func (c *Case) accesses(p *promise) []access {
	var all []access
	add := func(addr kernel.Addr, function, how string, sure bool) {
		offset := uint64(addr - p.ptr)
		place, ok := kernel.PlaceAt(p.typ, offset)
		if ok && addr >= p.ptr && !slices.ContainsFunc(all, func(a access) bool { return a.offset == offset }) {
			all = append(all, access{offset, place, function, how, sure})
		}
	}
	last := p.outermost().frame
	c.arguments(func(frame int, function string, a stack.Arg) {
		target, ok := pointee(a.BTF)
		if !ok || frame > last {
			return
		}
		addr, _, known := value(a)
		if !known && a.Again == nil || addr <= p.ptr || !holds(p.typ, uint64(addr-p.ptr), target) {
			return
		}
		add(addr, base(function), fmt.Sprintf("%s was given its address", base(function)), true)
	})
	if site := c.Crash.Fault; site != nil && site.Known && c.trapped() {
		for _, a := range site.Insn.Accesses() {
			if addr, ok := a.Address(&site.Regs); ok && !c.explained(kernel.Addr(addr), p, c.promises()) {
				add(kernel.Addr(addr), functionOf(c.culpritName()), "the trapped instruction accessed it", true)
			}
		}
	}
	for _, l := range c.leads() {
		if c.blames(l, p, c.promises()) {
			add(l.at, functionOf(c.Crash.Trace.Frames[l.frame].Name()), l.use(), l.sure)
		}
	}
	return all
}

// holds reports whether a type has a member of another type right at an offset. A
// pointer to void or to a number may point to anything.
func holds(typ btf.Type, offset uint64, want btf.Type) bool {
	name := want.TypeName()
	if _, ok := want.(*btf.Struct); !ok || name == "" {
		place, ok := kernel.PlaceAt(typ, offset)
		return ok && place.Rest == 0
	}
	for range 32 {
		s, ok := btf.UnderlyingType(typ).(*btf.Struct)
		if offset == 0 && ok && s.Name == name {
			return true
		}
		inner, ok := memberOver(typ, &offset)
		if !ok {
			return false
		}
		typ = inner
	}
	return false
}

// memberOver returns the type of the member that an offset falls into, and makes the
// offset one into that.
func memberOver(typ btf.Type, offset *uint64) (btf.Type, bool) {
	if a, ok := btf.UnderlyingType(typ).(*btf.Array); ok {
		if n, err := btf.Sizeof(a.Type); err == nil && n > 0 {
			*offset %= uint64(n)
			return a.Type, true
		}
		return nil, false
	}
	for _, m := range kernel.Members(typ) {
		at := uint64(m.Offset / 8)
		if n, err := btf.Sizeof(m.Type); err == nil && *offset >= at && *offset < at+uint64(n) {
			*offset -= at
			return m.Type, true
		}
	}
	return nil, false
}
