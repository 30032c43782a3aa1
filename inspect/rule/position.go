package rule

import (
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/token"
)

// inside finds where in the file the character at (line, column), from 1 and 0, of a
// scalar's text is. When quoting and folding make it impossible to tell, exact is
// false and the place is that of the scalar.
func (r *reader) inside(n ast.Node, text string, line, column int) (fileLine, fileColumn int, exact bool) {
	fileLine, fileColumn = place(n)
	start, style, ok := r.rawStart(n)
	if !ok {
		return fileLine, fileColumn, false
	}
	at, ok := align(r.src[start:], style, text, offsetOf(text, line, column))
	if !ok {
		return fileLine, fileColumn, false
	}
	fileLine, fileColumn = r.lineAndColumn(start + at)
	return fileLine, fileColumn, true
}

// offsetOf turns a line from 1 and a column in characters from 0 into a byte offset.
func offsetOf(text string, line, column int) int {
	offset := 0
	for ; line > 1; line-- {
		i := strings.IndexByte(text[offset:], '\n')
		if i < 0 {
			break
		}
		offset += i + 1
	}
	for ; column > 0 && offset < len(text); column-- {
		_, n := utf8.DecodeRuneInString(text[offset:])
		offset += n
	}
	return offset
}

// rawStart is the offset in the file at which a scalar's own characters begin.
func (r *reader) rawStart(n ast.Node) (offset int, style token.Type, ok bool) {
	t := n.GetToken()
	if t == nil || t.Position == nil || t.Position.Line < 1 || t.Position.Line > len(r.lines) {
		return 0, 0, false
	}
	if _, block := n.(*ast.LiteralNode); block {
		if t.Position.Line >= len(r.lines) {
			return 0, 0, false
		}
		return r.lines[t.Position.Line], t.Type, true // the line behind the | or >
	}
	offset = r.lines[t.Position.Line-1]
	for i := 1; i < t.Position.Column; i++ {
		if offset >= len(r.src) || r.src[offset] == '\n' {
			return 0, 0, false
		}
		_, size := utf8.DecodeRune(r.src[offset:])
		offset += size
	}
	if t.Type == token.DoubleQuoteType || t.Type == token.SingleQuoteType {
		if offset >= len(r.src) || r.src[offset] != '"' && r.src[offset] != '\'' {
			return 0, 0, false
		}
		offset++
	}
	return offset, t.Type, true
}

func (r *reader) lineAndColumn(offset int) (line, column int) {
	for line < len(r.lines) && r.lines[line] <= offset {
		line++
	}
	return line, utf8.RuneCount(r.src[r.lines[line-1]:offset]) + 1
}

// align walks a scalar as written (raw) and its text in step until the byte at target
// of text, and returns where in raw that is. Runs of white space are taken for each
// other, which undoes folding and indentation of every style; ok is false when the
// rest does not agree.
func align(raw []byte, style token.Type, text string, target int) (at int, ok bool) {
	i, k := 0, 0
	for i < len(raw) && isSpace(raw[i]) && (k >= len(text) || !isSpace(text[k])) {
		i++ // indentation of a block
	}
	for k < target {
		if i >= len(raw) || k >= len(text) {
			return 0, false
		}
		size, decoded := 1, text[k:k+1]
		switch {
		case style == token.DoubleQuoteType && raw[i] == '\\':
			if size, decoded = unescape(raw[i:]); size == 0 {
				return 0, false
			}
		case style == token.SingleQuoteType && raw[i] == '\'':
			size, decoded = 2, "'"
		case isSpace(raw[i]) || isSpace(text[k]):
			var spaceRaw, spaceText int
			for i+spaceRaw < len(raw) && isSpace(raw[i+spaceRaw]) {
				spaceRaw++
			}
			for k+spaceText < len(text) && isSpace(text[k+spaceText]) {
				spaceText++
			}
			if spaceRaw == 0 {
				return 0, false
			}
			if k+spaceText > target {
				return i + min(target-k, spaceRaw-1), true
			}
			i, k = i+spaceRaw, k+spaceText
			continue
		case raw[i] != text[k]:
			return 0, false
		}
		if !strings.HasPrefix(text[k:], decoded) {
			return 0, false
		}
		i, k = i+size, k+len(decoded)
	}
	return i, true
}

func isSpace(c byte) bool { return c == ' ' || c == '\t' || c == '\n' || c == '\r' }

// unescape reads one escape sequence of a double-quoted scalar: how long it is, and
// what it stands for.
func unescape(raw []byte) (size int, decoded string) {
	if len(raw) < 2 {
		return 0, ""
	}
	digits := 0
	switch raw[1] {
	case 'n':
		return 2, "\n"
	case 't', '\t':
		return 2, "\t"
	case '"', '\\', '/', ' ':
		return 2, string(raw[1])
	case 'r':
		return 2, "\r"
	case 'x':
		digits = 2
	case 'u':
		digits = 4
	case 'U':
		digits = 8
	case '\n': // the line goes on
		size = 2
		for size < len(raw) && (raw[size] == ' ' || raw[size] == '\t') {
			size++
		}
		return size, ""
	}
	if digits == 0 || len(raw) < 2+digits {
		return 0, ""
	}
	n, err := strconv.ParseUint(string(raw[2:2+digits]), 16, 32)
	if err != nil {
		return 0, ""
	}
	return 2 + digits, string(rune(n))
}

// condition reports what is wrong inside a condition at its place in the file.
func (r *reader) condition(n ast.Node, text string, complaints []complaint) {
	for _, c := range complaints {
		line, column, exact := r.inside(n, text, c.line, c.column)
		if !exact {
			c.message += fmt.Sprintf(" (at line %d, column %d of the condition)", c.line, c.column+1)
		}
		r.problems.add(line, column, "%s", c.message)
	}
}
