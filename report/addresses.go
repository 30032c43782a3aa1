package report

import (
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"inquest/heap"
	"inquest/kernel"
	"inquest/kernel/x86"
)

// address is an address that the page names, and what is there.
type address struct {
	ID    string
	Value uint64
	Desc  string
	Seen  []seen
}

// seen is a place of the page where an address is.
type seen struct{ ID, Text string }

// addresses are those that a page has, each with a row of its own to link to.
type addresses struct {
	rows  map[uint64]*address
	other map[uint64]string // anchors of what has no row: the pc of frames
}

// maxAddresses bounds the rows of a page, and so what is looked up for it.
const maxAddresses = 160

// Below these are numbers rather than addresses: of what is declared a pointer or
// written as one, and of a register, which may hold anything.
const (
	least         = 1 << 16
	leastRegister = 1 << 32
)

// collect gathers the addresses of a story.
func collect(st *story) *addresses {
	a := &addresses{rows: map[uint64]*address{}, other: map[uint64]string{}}
	a.add(st.objects()...)
	if st.regs != nil {
		for r := x86.Reg(0); r < x86.NumRegs; r++ {
			if v, ok := st.regs.Get(r); ok && v >= leastRegister && r != x86.OrigRAX && r != x86.RIP {
				a.see(v, seen{"reg-" + r.String(), r.String()})
			}
		}
	}
	for _, list := range [][]frame{st.frames, st.dying} {
		for _, f := range list {
			id := fmt.Sprintf("frame-%d", f.Index)
			if _, ok := a.other[uint64(f.PC)]; !ok {
				a.other[uint64(f.PC)] = id
			}
			a.seeArgs(f.Args, id, f.Name)
			for _, t := range f.Tail {
				a.seeArgs(t.Args, id, t.Name)
			}
		}
	}
	for _, f := range st.findings {
		for _, e := range f.Evidence {
			for _, at := range addressText.FindAllString(e.Text, -1) {
				if v, ok := parseAddress(at); ok {
					a.see(v, seen{"evidence", "evidence"})
				}
			}
		}
	}
	return a
}

// objects are those of the findings.
func (st *story) objects() []address {
	var out []address
	for _, f := range st.findings {
		for _, o := range f.Objects {
			out = append(out, address{Value: uint64(o.Addr), Seen: []seen{{"evidence", "object: " + o.Role}}})
		}
	}
	if st.drawing != nil {
		for i, b := range st.drawing.blocks {
			out = append(out, address{Value: uint64(b.Addr), Seen: []seen{{fmt.Sprintf("object-%d", i+1), "drawing"}}})
		}
	}
	return out
}

func (a *addresses) add(all ...address) {
	for _, one := range all {
		for _, s := range one.Seen {
			a.see(one.Value, s)
		}
	}
}

func (a *addresses) seeArgs(args []argument, id, function string) {
	for _, arg := range args {
		if arg.Value != nil && (arg.Pointer || arg.Decl == arg.Name) {
			a.see(*arg.Value, seen{id, arg.Name + " of " + function})
		}
	}
}

// see notes that an address is somewhere.
func (a *addresses) see(v uint64, s seen) {
	if v < least {
		return
	}
	row := a.rows[v]
	if row == nil {
		if len(a.rows) == maxAddresses {
			return
		}
		row = &address{ID: fmt.Sprintf("a-%x", v), Value: v}
		a.rows[v] = row
	}
	if !slices.Contains(row.Seen, s) {
		row.Seen = append(row.Seen, s)
	}
}

// describe says what is at each address.
func (a *addresses) describe(h *heap.Heap) {
	for v, row := range a.rows {
		if m, err := h.Identify(kernel.Addr(v)); err == nil {
			row.Desc = clean(m.Desc)
		}
	}
}

// sorted are the rows from low addresses to high ones.
func (a *addresses) sorted() []*address {
	var all []*address
	for _, row := range a.rows {
		all = append(all, row)
	}
	slices.SortFunc(all, func(x, y *address) int { return cmp.Compare(x.Value, y.Value) })
	return all
}

// anchor is where the page says what an address is, "" when it does not.
func (a *addresses) anchor(v uint64) string {
	if row := a.rows[v]; row != nil {
		return row.ID
	}
	return a.other[v]
}

// piece is text that may be a link within the page.
type piece struct{ Text, To string }

// addressText finds addresses in text: with 0x, or as the kernel prints registers.
var addressText = regexp.MustCompile(`\b(?:0x[0-9a-f]{5,16}|[0-9a-f]{16})\b`)

// parseAddress takes no small numbers, nor what the kernel prints in place of an address
// that it hides: 16 digits of which the first half is zero.
func parseAddress(text string) (uint64, bool) {
	digits, prefixed := strings.CutPrefix(text, "0x")
	v, err := strconv.ParseUint(digits, 16, 64)
	return v, err == nil && v >= least && (prefixed || v >= leastRegister)
}

// link cuts text at the addresses that the page knows.
func (a *addresses) link(text string) []piece {
	var out []piece
	done := 0
	for _, at := range addressText.FindAllStringIndex(text, -1) {
		v, ok := parseAddress(text[at[0]:at[1]])
		to := a.anchor(v)
		if !ok || to == "" {
			continue
		}
		if at[0] > done {
			out = append(out, piece{Text: text[done:at[0]]})
		}
		out = append(out, piece{text[at[0]:at[1]], to})
		done = at[1]
	}
	if done < len(text) || len(out) == 0 {
		out = append(out, piece{Text: text[done:]})
	}
	return out
}
