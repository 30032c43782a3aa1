package report

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"inquest/explain"
	"inquest/kernel"
)

// drawing is an object, what lies behind it, and where code that took it for something
// larger went. Offsets are from the pointer that the code had.
type drawing struct {
	ptr       kernel.Addr
	taken     string // the struct that the object was taken for
	takenSize int64  // 0 when not known
	blocks    []block
	uses      []use
}

// block is an object in memory.
type block struct {
	Start, End int64
	Addr       kernel.Addr
	Type       string // "" when not known
	Cache      string
}

// Name is what a block is called.
func (b *block) Name() string { return cmp.Or(b.Type, b.Cache, "an object") }

// Size is the block's, in bytes.
func (b *block) Size() int64 { return b.End - b.Start }

// label fits into a box.
func (b *block) label() string {
	size := fmt.Sprintf(", %d bytes", b.Size())
	return " " + shorten(b.Name(), boxWidth-2-len(size)) + size
}

// use is an access beyond the object.
type use struct {
	At     int64
	Member string // with the struct's name: "sock.sk_callback_lock"
	By     string
	Is     string // the neighbour's member there, "" when not known
	Past   int64  // bytes behind the object's end
}

// Bounds of what is drawn.
const (
	maxUses     = 6
	maxDistance = 1 << 40
)

// newDrawing draws a finding, nil where there is nothing to draw.
func newDrawing(f explain.Finding) *drawing {
	if len(f.Objects) == 0 || len(f.Overrun) == 0 {
		return nil
	}
	obj := f.Objects[0]
	room := f.Overrun[0].End
	if obj.Size == 0 || obj.Size > maxDistance || room > obj.Size {
		return nil
	}
	d := &drawing{ptr: obj.Addr + kernel.Addr(obj.Size-room)}
	d.taken, _, _ = strings.Cut(f.Overrun[0].Member, ".")
	if t := obj.TakenFor; t != nil && t.Size <= maxDistance {
		d.takenSize = int64(t.Size)
	}
	for _, o := range f.Objects[:min(len(f.Objects), 2)] {
		start := int64(o.Addr - d.ptr)
		if start < -maxDistance || start > maxDistance || o.Size > maxDistance {
			continue
		}
		d.blocks = append(d.blocks, block{start, start + int64(o.Size), o.Addr, o.Type, o.Cache})
	}
	for _, o := range f.Overrun[:min(len(f.Overrun), maxUses)] {
		if o.Offset > maxDistance || o.Offset < room {
			continue
		}
		d.uses = append(d.uses, use{At: int64(o.Offset), Member: o.Member, By: o.By, Is: o.Is, Past: int64(o.Offset - room)})
	}
	slices.SortStableFunc(d.uses, func(a, b use) int { return cmp.Compare(a.At, b.At) })
	if len(d.uses) == 0 {
		return nil
	}
	return d
}

// blockAt returns the block that an offset lies in, nil when there is none.
func (d *drawing) blockAt(at int64) *block {
	for i := range d.blocks {
		if b := &d.blocks[i]; at >= b.Start && at < b.End {
			return b
		}
	}
	return nil
}

// object is what the code took for another.
func (d *drawing) object() *block { return &d.blocks[0] }

// neighbour is the object behind it, nil when there is none.
func (d *drawing) neighbour() *block {
	if len(d.blocks) < 2 {
		return nil
	}
	return &d.blocks[1]
}

// sentence says what the drawing shows.
func (d *drawing) sentence() string {
	s := fmt.Sprintf("The object is %d bytes long. The code took it for a struct %s", d.object().Size(), d.taken)
	if d.takenSize > 0 {
		s += fmt.Sprintf(", which has %d,", d.takenSize)
	}
	s += fmt.Sprintf(" and used memory %d bytes past its end", d.uses[len(d.uses)-1].Past)
	if n := d.neighbour(); n != nil && d.blockAt(d.uses[len(d.uses)-1].At) == n {
		s += ": that belongs to the next object"
	}
	return s + "."
}

// rowKind is what happens at an offset; the order is that at one offset.
type rowKind int

const (
	rowEnd rowKind = iota
	rowStart
	rowPointer
	rowUse
	rowTakenEnd
)

// row is an offset at which something happens.
type row struct {
	at    int64
	kind  rowKind
	block *block
	use   *use
}

// rows are all that is to be drawn, from low addresses to high ones.
func (d *drawing) rows() []row {
	var rows []row
	for i := range d.blocks {
		b := &d.blocks[i]
		rows = append(rows, row{at: b.Start, kind: rowStart, block: b}, row{at: b.End, kind: rowEnd, block: b})
	}
	for i := range d.uses {
		rows = append(rows, row{at: d.uses[i].At, kind: rowUse, use: &d.uses[i]})
	}
	if d.object().Start != 0 {
		rows = append(rows, row{kind: rowPointer})
	}
	if d.takenSize > 0 {
		rows = append(rows, row{at: d.takenSize, kind: rowTakenEnd})
	}
	slices.SortStableFunc(rows, func(a, b row) int {
		return cmp.Or(cmp.Compare(a.at, b.at), cmp.Compare(a.kind, b.kind))
	})
	return rows
}

// offset writes an offset, which may lie in front of the pointer.
func offset(at int64) string {
	if at < 0 {
		return fmt.Sprintf("-0x%03x", -at)
	}
	return fmt.Sprintf("0x%03x", at)
}

// boxWidth is the room in a block of the text drawing.
const boxWidth = 30

// text draws in ASCII: on the left how far the struct reaches that the object was
// taken for, in boxes what is there, on the right what was used.
func (d *drawing) text(width int) []string {
	rows := d.rows()
	digits := 5
	for _, r := range rows {
		digits = max(digits, len(offset(r.at)))
	}
	border := "+" + strings.Repeat("-", boxWidth) + "+"
	var lines []string
	inside := false
	draw := func(at, box, note string) {
		if box == "" && inside {
			box = " "
		}
		if inside && box != border {
			box = fmt.Sprintf("|%-*s|", boxWidth, shorten(box, boxWidth))
		}
		line := fmt.Sprintf("%-*s  %-*s %s", digits, at, boxWidth+2, box, note)
		lines = append(lines, strings.TrimRight(line, " "))
	}
	for i, r := range rows {
		first := len(lines)
		at := offset(r.at)
		switch r.kind {
		case rowStart:
			note := "the next object"
			if r.block == d.object() {
				note = "the object"
			}
			draw(at, border, fmt.Sprintf("%v, %s", r.block.Addr, note))
			inside = true
			draw("", r.block.label(), "")
		case rowEnd:
			inside = false
			if i+1 < len(rows) && rows[i+1].kind == rowStart && rows[i+1].at == r.at {
				continue // the next block's border
			}
			note := ""
			if r.block == d.object() {
				note = "the object ends"
			}
			draw(at, border, note)
		case rowPointer:
			draw(at, "", "<- the pointer")
		case rowUse:
			room := width - digits - boxWidth - 10
			draw(at, "   "+tailOf(r.use.Is, boxWidth-4), "<- "+r.use.words(room))
		case rowTakenEnd:
			draw(at, "", fmt.Sprintf("a struct %s would end here", d.taken))
		}
		for n := first; n < len(lines); n++ {
			lines[n] = d.bar(r, n > first) + " " + lines[n]
		}
	}
	return lines
}

// words names the member, and the function if there is room for it.
func (u *use) words(room int) string {
	whole := headOf(u.Member, max(room, 8))
	by := " (" + u.By + ")"
	least := strings.Join(strings.SplitN(u.Member+"..", ".", 3)[:2], ".") + "..."
	if left := room - utf8.RuneCountInString(by); left >= min(len(least), len(u.Member)) {
		return headOf(u.Member, left) + by
	}
	return whole
}

// bar stands in front of a line: the extent of the struct that the object was taken for.
func (d *drawing) bar(r row, below bool) string {
	switch {
	case d.takenSize == 0 || r.at < 0 || r.at > d.takenSize:
		return " "
	case r.kind == rowTakenEnd, r.at == 0 && !below && (r.kind == rowStart || r.kind == rowPointer):
		return "+"
	}
	return "|"
}
