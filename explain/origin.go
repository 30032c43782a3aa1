package explain

import (
	"fmt"

	"inquest/heap"
	"inquest/kernel"
	"inquest/kernel/x86"
)

// trace adds to a finding where the registers of a bad address came from: a
// parameter, or memory; and whose memory that is. A pointer that was read from a freed
// object makes the finding one of use after free.
func (c *Case) trace(f *Finding, a x86.Access) {
	cr := c.Crash
	site := cr.Fault
	c.arguments(nil)
	for i, r := range a.Registers() {
		v, ok := site.Regs.Get(r)
		if !ok {
			continue
		}
		e := Evidence{Text: fmt.Sprintf("the address comes from %v = %#x", r, v)}
		src, ok := c.Unwinder.Source(cr.Trace, site.Frame, r)
		if !ok {
			f.Evidence = append(f.Evidence, e)
			continue
		}
		plus := ""
		if src.Plus != 0 {
			plus = fmt.Sprintf("%+#x", src.Plus)
		}
		switch {
		case src.Param != "":
			e.Text += fmt.Sprintf(", which is the parameter %s%s", src.Param, plus)
			e.Check = "bt --args"
			if i == 0 && f.Class == NullDereference && v-uint64(src.Plus) == 0 {
				f.Title += fmt.Sprintf(": its parameter %s is NULL", src.Param)
			}
		default:
			e.Addr, e.Check = src.Addr, fmt.Sprintf("whatis %v", src.Addr)
			e.Text += fmt.Sprintf(", which was read from %v%s", src.Addr, plus)
			if src.Expr != "" {
				e.Text += fmt.Sprintf(", that is %s", src.Expr)
				if i == 0 && f.Class == NullDereference && v-uint64(src.Plus) == 0 {
					f.Title += fmt.Sprintf(": %s is NULL", src.Expr)
				}
			}
			c.readFrom(f, &e, src.Addr)
		}
		f.Evidence = append(f.Evidence, e)
	}
}

// readFrom says whose memory a bad pointer was read from.
func (c *Case) readFrom(f *Finding, e *Evidence, at kernel.Addr) {
	mem, err := c.heap().Identify(at)
	if err != nil {
		return
	}
	e.Text += "; there is " + mem.Desc
	o := mem.Slab
	if o == nil || o.Start == 0 {
		return
	}
	f.Objects = append(f.Objects, Object{Addr: o.Start, Role: "held the bad pointer", Cache: o.Cache.Name, Size: o.Size})
	if o.State != heap.Free || f.Class == NullDereference {
		return
	}
	f.Class, f.Weight = UseAfterFree, 5
	f.Title = fmt.Sprintf("use of a freed object of slab cache %s in %s", o.Cache.Name, functionOf(c.culpritName()))
}
