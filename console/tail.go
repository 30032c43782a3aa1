package console

import (
	"strings"
	"unicode/utf8"
)

func (p *parser) makeLine(text []byte) Line {
	return makeLine(p.log.Lines, text, &p.m)
}

func makeLine(number int64, text []byte, m *meta) Line {
	l := Line{Number: number, Time: m.time, Timed: m.timed, Level: int(m.level), Caller: string(m.caller), Source: string(m.source)}
	if utf8.Valid(text) {
		l.Text = string(text)
	} else {
		l.Text = strings.ToValidUTF8(string(text), "\ufffd")
	}
	return l
}

// remembered is a line that may be wanted: as a Line, or its bytes, which are copied
// without allocating.
type remembered struct {
	line           Line // valid where text is empty
	number         int64
	m              meta
	text           []byte
	caller, source []byte
}

// remember keeps the lines in front of what may come.
func (p *parser) remember(text []byte) {
	slot := &p.tail[p.tails%tailLines]
	p.tails++
	slot.number, slot.m = p.log.Lines, p.m
	slot.text = append(slot.text[:0], text...)
	slot.caller = append(slot.caller[:0], p.m.caller...)
	slot.source = append(slot.source[:0], p.m.source...)
	slot.m.caller, slot.m.source = slot.caller, slot.source
}

func (p *parser) keep(l Line) {
	slot := &p.tail[p.tails%tailLines]
	p.tails++
	slot.line, slot.text = l, slot.text[:0]
}

// lastLines returns the last lines that were remembered, oldest first.
func (p *parser) lastLines(most int) []Line {
	var out []Line
	for i := max(0, p.tails-most); i < p.tails; i++ {
		if s := &p.tail[i%tailLines]; len(s.text) > 0 {
			out = append(out, makeLine(s.number, s.text, &s.m))
		} else {
			out = append(out, s.line)
		}
	}
	return out
}
