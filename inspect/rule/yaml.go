package rule

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
)

// Bounds on a file.
const (
	maxFileSize = 4 << 20
	maxNest     = 500    // brackets inside each other
	maxDashes   = 32     // sequences that begin on one line
	maxEntries  = 10_000 // keys of one mapping; the YAML library's time grows with their square
)

// reader walks the YAML of one file and collects what is wrong with it.
type reader struct {
	src      []byte
	lines    []int // offset of each line
	problems problems
}

// Document reads the YAML of a rule file, within the bounds that keep its parser from
// harm: nil when the file is empty. The error is a [*Error]; name is what it calls the
// file. [Load] begins with the same; it serves those who own a section of the file.
func Document(name string, data []byte) (ast.Node, error) {
	r := &reader{src: data}
	body := r.parse()
	if len(r.problems) > 0 {
		return nil, &Error{File: name, Problems: r.problems.sorted()}
	}
	return body, nil
}

// parse reads the one document of a file, nil when it is empty or cannot be read.
func (r *reader) parse() (body ast.Node) {
	r.lines = []int{0}
	for i, c := range r.src {
		if c == '\n' {
			r.lines = append(r.lines, i+1)
		}
	}
	switch {
	case len(r.src) > maxFileSize:
		r.problems.add(1, 1, "the file has %d bytes, more than the %d that are read", len(r.src), maxFileSize)
		return nil
	case !utf8.Valid(r.src):
		r.problems.add(1, 1, "the file is no UTF-8 text")
		return nil
	case bytes.IndexByte(r.src, 0) >= 0:
		r.problems.add(1, 1, "the file has a zero byte in it")
		return nil
	case bytes.Contains(bytes.ReplaceAll(r.src, []byte("\r\n"), []byte("\n")), []byte("\r")):
		r.problems.add(1, 1, "the file has carriage returns without line feeds")
		return nil
	}
	if line, message := r.excess(); line > 0 {
		r.problems.add(line, 1, "%s", message)
		return nil
	}
	// The YAML library panics on some malformed input.
	defer func() {
		if p := recover(); p != nil {
			r.problems.add(1, 1, "the file is no YAML: %v", p)
			body = nil
		}
	}()
	file, err := parser.ParseBytes(r.src, 0, parser.AllowDuplicateMapKey())
	if err != nil {
		line, column, message := 1, 1, err.Error()
		var yamlErr yaml.Error
		if errors.As(err, &yamlErr) {
			if t := yamlErr.GetToken(); t != nil && t.Position != nil {
				line, column = t.Position.Line, t.Position.Column
			}
			message = yamlMessage(yamlErr.GetMessage(), r.line(line))
		}
		r.problems.add(line, column, "%s", message)
		return nil
	}
	for _, d := range file.Docs {
		switch {
		case d.Body == nil || d.Body.Type() == ast.CommentType || d.Body.Type() == ast.CommentGroupType:
		case body != nil:
			r.complain(d.Body, "a rule file is one document; this begins another")
		default:
			body = d.Body
		}
	}
	return body
}

// line returns the text of a line, counted from 1.
func (r *reader) line(n int) []byte {
	if n < 1 || n > len(r.lines) {
		return nil
	}
	text, _, _ := bytes.Cut(r.src[r.lines[n-1]:], []byte("\n"))
	return text
}

// yamlMessage adds to what the YAML library says of a line what mostly is the reason.
func yamlMessage(message string, line []byte) string {
	switch {
	case strings.HasPrefix(message, "mapping value is not allowed"):
		return message + ": is this line, or the next, indented otherwise than those beside it? A text that has a colon and a space in it is written in quotes"
	case strings.HasPrefix(message, "found character '\t'"):
		return "a tab: YAML is indented with spaces"
	case strings.HasPrefix(message, "value is not allowed in this context") && !bytes.ContainsAny(line, `'"`):
		return message + ": is this line, or the one before it, indented otherwise than those beside it?"
	case strings.HasPrefix(message, "value is not allowed in this context"):
		return `something follows the closing quote: a condition that begins with a quote is written in other quotes as a whole, '"a" in dns.names'`
	}
	return message
}

// excess finds what the YAML library, whose time and stack grow with nesting and with
// the keys of a mapping, should not be given. It does not know quotes: brackets in
// strings count, closing ones take back.
func (r *reader) excess() (line int, message string) {
	var inBrackets [maxNest + 1]int // keys, by depth
	inBlock := map[int]int{}        // keys, by indentation
	depth := 0
	for n, start := range r.lines {
		end := len(r.src)
		if n+1 < len(r.lines) {
			end = r.lines[n+1]
		}
		text := bytes.TrimRight(r.src[start:end], " \t\r\n")
		body := bytes.TrimLeft(text, " \t")
		indent, dashes := len(text)-len(body), 0
		for len(body) > 0 && (body[0] == '-' || body[0] == '?') && (len(body) == 1 || body[1] == ' ' || body[1] == '\t') {
			rest := bytes.TrimLeft(body[1:], " \t")
			deeper(inBlock, indent)
			indent, dashes, body = indent+len(body)-len(rest), dashes+1, rest
		}
		if len(body) > 0 && depth == 0 {
			deeper(inBlock, indent)
			inBlock[indent]++
		}
	characters:
		for i, c := range body {
			switch c {
			case '[', '{':
				if depth++; depth > maxNest {
					break characters
				}
				inBrackets[depth] = 0
			case ']', '}':
				depth = max(depth-1, 0)
			case ':':
				if i+1 == len(body) || body[i+1] == ' ' {
					inBrackets[depth]++
				}
				if depth > 0 && inBrackets[depth] > maxEntries {
					return n + 1, fmt.Sprintf("more than %d keys in one mapping", maxEntries)
				}
			}
		}
		switch {
		case depth > maxNest || dashes > maxDashes:
			return n + 1, "brackets or dashes are nested too deep"
		case inBlock[indent] > maxEntries:
			return n + 1, fmt.Sprintf("more than %d keys in one mapping", maxEntries)
		}
	}
	return 0, ""
}

// deeper forgets the counts of mappings that are indented more: they have ended.
func deeper(counts map[int]int, indent int) {
	for at := range counts {
		if at > indent {
			delete(counts, at)
		}
	}
}

// complain adds a problem at a node.
func (r *reader) complain(n ast.Node, format string, args ...any) {
	line, column := place(n)
	r.problems.add(line, column, format, args...)
}

// place is where a node begins.
func place(n ast.Node) (line, column int) {
	switch n := n.(type) {
	case *ast.MappingNode:
		if !n.IsFlowStyle && len(n.Values) > 0 {
			return place(n.Values[0].Key)
		}
	case *ast.MappingValueNode:
		return place(n.Key)
	}
	t := n.GetToken()
	if t == nil || t.Position == nil {
		return 1, 1
	}
	return t.Position.Line, t.Position.Column
}

// entry is one key of a mapping with its value.
type entry struct {
	name  string
	key   ast.Node
	value ast.Node
}

// mapping returns the entries of a mapping, each key once. what says what the mapping
// is for, in messages. ok is false when n is no mapping.
func (r *reader) mapping(n ast.Node, what string) (entries []entry, ok bool) {
	var values []*ast.MappingValueNode
	switch n := n.(type) {
	case *ast.MappingNode:
		values = n.Values
	case *ast.MappingValueNode:
		values = []*ast.MappingValueNode{n}
	default:
		if !r.refuse(n) {
			r.complain(n, "%s has keys and values: write name: value", what)
		}
		return nil, false
	}
	seen := map[string]int{}
	for _, v := range values {
		key, ok := v.Key.(ast.Node)
		if !ok || r.refuse(key) {
			continue
		}
		name, _ := r.scalar(key, "a key")
		line, _ := place(key)
		if first, double := seen[name]; double {
			r.complain(key, "%s is there twice, first in line %d", name, first)
			continue
		}
		seen[name] = line
		entries = append(entries, entry{name, key, v.Value})
	}
	return entries, true
}

// known complains about the entries whose key is not among names.
func (r *reader) known(entries []entry, what string, names ...string) map[string]entry {
	by := make(map[string]entry, len(entries))
	for _, e := range entries {
		by[e.name] = e
		found := false
		for _, name := range names {
			found = found || name == e.name
		}
		if !found {
			hint := suggest(e.name, names)
			if hint == "" {
				hint = "; there are " + strings.Join(names, ", ")
			}
			r.complain(e.key, "%s has no key %s%s", what, e.name, hint)
		}
	}
	return by
}

// sequence returns the elements of a sequence; a single value is a sequence of one.
func (r *reader) sequence(n ast.Node) []ast.Node {
	switch n := n.(type) {
	case *ast.SequenceNode:
		return n.Values
	case *ast.NullNode:
		return nil
	}
	return []ast.Node{n}
}

// refuse complains about what YAML has and rule files have no use for.
func (r *reader) refuse(n ast.Node) bool {
	switch n.(type) {
	case *ast.AnchorNode, *ast.AliasNode, *ast.MergeKeyNode:
		r.complain(n, "anchors, aliases and merge keys are not used in rule files; name a list instead")
	case *ast.TagNode:
		r.complain(n, "tags are not used in rule files; a text that begins with ! is written in quotes")
	case *ast.MappingKeyNode:
		r.complain(n, "keys are plain names")
	default:
		return false
	}
	return true
}

// scalar is the text of a single value as it is written, quotes and escapes undone.
func (r *reader) scalar(n ast.Node, what string) (text string, ok bool) {
	switch n := n.(type) {
	case *ast.StringNode:
		return n.Value, true
	case *ast.LiteralNode:
		return n.Value.Value, true
	case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode, *ast.InfinityNode, *ast.NanNode:
		return n.GetToken().Value, true
	case *ast.NullNode:
		r.complain(n, "%s is empty", what)
		return "", false
	}
	if !r.refuse(n) {
		r.complain(n, "%s is one value, not several", what)
	}
	return "", false
}

func (r *reader) boolean(n ast.Node, what string) bool {
	if b, ok := n.(*ast.BoolNode); ok {
		return b.Value
	}
	r.complain(n, "%s is true or false", what)
	return false
}
