package report

import "fmt"

// picture is a drawing with its places worked out: on the left the struct that the
// object was taken for, on the right what is in memory, with arrows for the uses. It
// is narrow, so that a telephone shows it without scaling.
type picture struct {
	Width, Height int
	Title, Desc   string
	Struct        rect
	Blocks        []rect
	Arrows        []arrow
	Legend        []legend
}

// rect is a box with up to three lines of text.
type rect struct {
	ID           string // anchor
	Class        string
	X, Y, W, H   int
	Lines        []svgLine
	Start, End   string // offsets
	StartY, EndY int
	TickX        int
	ShowEnd      bool
}

type svgLine struct {
	X, Y  int
	Class string
	Text  string
}

// arrow is a use, from the struct's member to what is there.
type arrow struct {
	X1, X2, Y int
	Left      svgLine
	Offset    svgLine
	Right     svgLine
	Head      string // points of the polygon
}

// legend is a use in words.
type legend struct {
	Offset, Member, By, Where string
	Past                      int64
}

// Places of the picture, in its own units: a character is about 6 wide.
const (
	pictureWidth = 360
	leftX, leftW = 4, 138
	memX, memW   = 206, 150
	top          = 22
	labelWidth   = 21 // characters in a box
)

// picture works out where everything goes.
func (d *drawing) picture() *picture {
	y, bottom := d.places()
	p := &picture{Width: pictureWidth, Height: bottom + 14, Title: "Memory around the object", Desc: d.describe()}
	end := bottom
	if d.takenSize > 0 {
		end = y[d.takenSize]
	}
	p.Struct = rect{
		Class: "taken", X: leftX, Y: y[0], W: leftW, H: max(end-y[0], 1),
		Lines: []svgLine{{leftX + 8, y[0] + 16, "name", shorten("struct "+d.taken, labelWidth)}},
	}
	if d.takenSize > 0 {
		p.Struct.Lines = append(p.Struct.Lines,
			svgLine{leftX + 8, y[0] + 31, "small", plural(int(d.takenSize), "byte")},
			svgLine{leftX + 8, end - 6, "small mono", "to " + offset(d.takenSize)})
	}
	for i := range d.blocks {
		p.Blocks = append(p.Blocks, d.box(i, y))
	}
	for i := range d.uses {
		u := &d.uses[i]
		p.Arrows = append(p.Arrows, d.arrow(u, y[u.At]))
		p.Legend = append(p.Legend, d.legend(u))
	}
	return p
}

// places gives every offset a height. It is not to scale: what is small must be seen,
// and what is large must not hide the rest.
func (d *drawing) places() (y map[int64]int, bottom int) {
	rows := d.rows()
	y = map[int64]int{}
	at := top
	for i, r := range rows {
		if i > 0 && r.at != rows[i-1].at {
			at += gap(rows[i-1], r)
		}
		y[r.at] = at
	}
	if _, ok := y[0]; !ok {
		y[0] = y[d.object().Start]
	}
	return y, at
}

func gap(a, b row) int {
	const perByte, most = 0.35, 80
	less := 20
	switch {
	case a.kind == rowStart:
		less = 54 // its name, its size, its address
	case a.kind == rowEnd && b.kind == rowStart:
		less = 8
	}
	return max(less, int(min(float64(b.at-a.at)*perByte, most)))
}

func (d *drawing) box(i int, y map[int64]int) rect {
	b := &d.blocks[i]
	r := rect{ID: fmt.Sprintf("object-%d", i+1), Class: "object", X: memX, Y: y[b.Start], W: memW, H: max(y[b.End]-y[b.Start], 1)}
	if i > 0 {
		r.Class = "neighbour"
	}
	r.Lines = []svgLine{
		{memX + 8, r.Y + 16, "name", shorten(b.Name(), labelWidth)},
		{memX + 8, r.Y + 31, "small", plural(int(b.Size()), "byte")},
		{memX + 8, r.Y + 45, "small mono", b.Addr.String()},
	}
	r.TickX, r.Start, r.StartY = memX-4, offset(b.Start), r.Y+4
	r.End, r.EndY = offset(b.End), r.Y+r.H+4
	r.ShowEnd = i == len(d.blocks)-1 || d.blocks[i+1].Start-b.End > 64
	if !r.ShowEnd {
		r.EndY = r.Y + r.H - 2
		r.ShowEnd = d.blocks[i+1].Start != b.End
	}
	if i > 0 && r.Y-y[d.blocks[i-1].End] < 12 {
		r.StartY = r.Y + 11
	}
	return r
}

func (d *drawing) arrow(u *use, y int) arrow {
	member := u.Member
	if len(member) > len(d.taken) {
		member = member[len(d.taken)+1:]
	}
	x1, x2 := leftX+leftW, memX-1
	return arrow{
		X1: x1, X2: x2 - 6, Y: y,
		Left:   svgLine{leftX + leftW - 6, y + 4, "use end mono", headOf(member, labelWidth)},
		Offset: svgLine{(x1 + x2) / 2, y - 3, "use middle mono", offset(u.At)},
		Right:  svgLine{memX + 8, y + 4, "use mono", tailOf(u.Is, labelWidth+1)},
		Head:   fmt.Sprintf("%d,%d %d,%d %d,%d", x2, y, x2-8, y-4, x2-8, y+4),
	}
}

func (d *drawing) legend(u *use) legend {
	l := legend{Offset: offset(u.At), Member: u.Member, By: u.By, Past: u.Past, Where: "no object is known there"}
	if b := d.blockAt(u.At); b != nil {
		l.Where = fmt.Sprintf("that is offset %#x of the next object (%s)", u.At-b.Start, b.Name())
		if u.Is != "" {
			l.Where += ": its " + u.Is
		}
	}
	return l
}

// describe is the picture in words, for who cannot see it.
func (d *drawing) describe() string {
	s := d.sentence()
	for i := range d.uses {
		u := &d.uses[i]
		s += fmt.Sprintf(" %s at offset %s was used by %s; %s.", u.Member, offset(u.At), u.By, d.legend(u).Where)
	}
	return shorten(s, 2000)
}
