package advisory

import (
	"cmp"
	"errors"
	"fmt"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
	"golang.org/x/arch/x86/x86asm"
)

// Problem is one thing that is wrong with a file.
type Problem struct {
	Line    int    `json:"line"` // counted from 1, as the column
	Column  int    `json:"column"`
	Message string `json:"message"`
}

func (p Problem) Error() string { return fmt.Sprintf("%d:%d: %s", p.Line, p.Column, p.Message) }

// Lint reads one advisory and says what is wrong with it, by line. With a problem the
// advisory is as much as could be read, or nil.
func Lint(raw []byte) (*Advisory, []Problem) {
	l := &linter{}
	a := l.read(raw)
	if a != nil {
		l.check(a)
	}
	slices.SortStableFunc(l.problems, func(a, b Problem) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
	return a, slices.Compact(l.problems)
}

// linter collects what is wrong with one file.
type linter struct {
	file     *ast.File
	problems []Problem
}

// complain notes a problem at a node, "$.fixed[0].commit", or where the nearest node
// around it begins.
func (l *linter) complain(path, format string, args ...any) {
	p := Problem{1, 1, fmt.Sprintf(format, args...)}
	for p.Line, p.Column = l.position(path); p.Line == 0; p.Line, p.Column = l.position(path) {
		i := strings.LastIndexAny(path, ".[")
		if i <= 0 {
			p.Line, p.Column = 1, 1
			break
		}
		path = path[:i]
	}
	l.problems = append(l.problems, p)
}

func (l *linter) position(path string) (line, column int) {
	defer func() { recover() }() // the library panics on some documents; then there is no place
	p, err := yaml.PathString(path)
	if err != nil {
		return 0, 0
	}
	n, err := p.FilterFile(l.file)
	if err != nil || n == nil || n.GetToken() == nil || n.GetToken().Position == nil {
		return 0, 0
	}
	at := n.GetToken().Position
	if m, ok := n.(*ast.MappingNode); ok && len(m.Values) > 0 {
		at = m.Values[0].Key.GetToken().Position
	}
	return at.Line, at.Column
}

// Bounds on what the YAML library is given: its time grows with the square of some.
const (
	maxNest    = 100
	maxDashes  = 32
	maxEntries = 10_000
)

// read parses the YAML, nil when it is none.
func (l *linter) read(raw []byte) (a *Advisory) {
	defer func() {
		if p := recover(); p != nil { // the library does on some malformed documents
			l.problems = append(l.problems, Problem{1, 1, fmt.Sprintf("malformed YAML: %v", p)})
			a = nil
		}
	}()
	if line, message := excess(raw); line > 0 {
		l.problems = append(l.problems, Problem{line, 1, message})
		return nil
	}
	file, err := parser.ParseBytes(raw, 0)
	if err != nil {
		l.problems = append(l.problems, yamlProblem(err))
		return nil
	}
	l.file = file
	if len(file.Docs) != 1 || file.Docs[0].Body == nil {
		l.problems = append(l.problems, Problem{1, 1, fmt.Sprintf("a file is one advisory; this has %d documents", len(file.Docs))})
		return nil
	}
	ast.Walk(visitor(func(n ast.Node) {
		switch n.Type() {
		case ast.AnchorType, ast.AliasType, ast.MergeKeyType, ast.TagType:
			if t := n.GetToken(); t != nil && t.Position != nil {
				l.problems = append(l.problems, Problem{t.Position.Line, t.Position.Column, "anchors, aliases and tags are not used in advisories"})
			}
		}
	}), file.Docs[0].Body)
	if len(l.problems) > 0 {
		return nil
	}
	a = new(Advisory)
	if err := yaml.NodeToValue(file.Docs[0].Body, a, yaml.Strict()); err != nil {
		l.problems = append(l.problems, yamlProblem(err))
		return nil
	}
	return a
}

// excess finds what no advisory has and the YAML library does not bear.
func excess(raw []byte) (line int, message string) {
	switch {
	case len(raw) > maxFile:
		return 1, fmt.Sprintf("larger than %d bytes", maxFile)
	case !utf8.Valid(raw) || slices.Contains(raw, 0):
		return 1, "no UTF-8 text"
	case strings.Contains(strings.ReplaceAll(string(raw), "\r\n", "\n"), "\r"):
		return 1, "carriage returns without line feeds"
	}
	nest, lines := 0, 0
	for text := range strings.Lines(string(raw)) {
		lines++
		dashes := 0
		for rest := strings.TrimLeft(text, " "); strings.HasPrefix(rest, "- "); rest = strings.TrimLeft(rest[1:], " ") {
			dashes++
		}
		nest += strings.Count(text, "[") + strings.Count(text, "{")
		if closed := strings.Count(text, "]") + strings.Count(text, "}"); closed < nest {
			nest -= closed
		} else {
			nest = 0
		}
		if nest > maxNest || dashes > maxDashes || lines > maxEntries || strings.Count(text, "[")+strings.Count(text, "{") > maxNest {
			return lines, "too much of it"
		}
	}
	return 0, ""
}

type visitor func(ast.Node)

func (v visitor) Visit(n ast.Node) ast.Visitor { v(n); return v }

// yamlProblem is what the library says, with its place and without its drawing of it.
func yamlProblem(err error) Problem {
	p := Problem{1, 1, err.Error()}
	var e yaml.Error
	if errors.As(err, &e) {
		p.Message = e.GetMessage()
		if t := e.GetToken(); t != nil && t.Position != nil {
			p.Line, p.Column = t.Position.Line, t.Position.Column
		}
	}
	if name, ok := strings.CutPrefix(p.Message, `unknown field "`); ok {
		name, _, _ = strings.Cut(name, `"`)
		p.Message = fmt.Sprintf("no key is called %q", name)
	}
	return p
}

var (
	idForm       = regexp.MustCompile(`^[a-z0-9]+(-[a-z0-9]+)*$`)
	commitForm   = regexp.MustCompile(`^[0-9a-f]{12,40}$`)
	releaseForm  = regexp.MustCompile(`^[0-9]+\.[0-9]+(\.[0-9]+)?$`)
	cveForm      = regexp.MustCompile(`^CVE-[0-9]{4}-[0-9]{4,}$`)
	functionForm = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)
	moduleForm   = regexp.MustCompile(`^[a-z0-9_]+$`)
)

// check says what no YAML schema can.
func (l *linter) check(a *Advisory) {
	for _, need := range []struct{ path, value string }{{"$.id", a.ID}, {"$.title", a.Title}, {"$.class", a.Class}} {
		if need.value == "" {
			l.complain(need.path, "an advisory needs an id, a title and a class: it has no %s", need.path[2:])
		}
	}
	l.form("$.id", a.ID, idForm, "small letters, digits and single dashes")
	l.form("$.cve", a.CVE, cveForm, "CVE-YEAR-NUMBER")
	if a.Class != "" && !slices.Contains(Classes, a.Class) {
		l.complain("$.class", "class %q is none of %s", a.Class, strings.Join(Classes, ", "))
	}
	if strings.HasSuffix(a.Title, ".") || strings.Contains(a.Title, "\n") {
		l.complain("$.title", "a title is one line without a full stop")
	}
	l.commit("$.introduced", a.Introduced, false)
	if len(a.Fixed) == 0 {
		l.complain("$.fixed", "advisory %s does not say what fixed it", a.ID)
	}
	for i, c := range a.Fixed {
		l.commit(fmt.Sprintf("$.fixed[%d]", i), c, true)
	}
	l.checkReleases(a)
	if a.Within < 0 {
		l.complain("$.within", "within is a number of functions")
	}
	if len(a.Stack) == 0 {
		l.complain("$.stack", "advisory %s has no stack signature", a.ID)
	}
	for i, step := range a.Stack {
		path := fmt.Sprintf("$.stack[%d]", i)
		if len(step) == 0 {
			l.complain(path, "a step of the stack names at least one function")
		}
		l.functions(path, step)
	}
	for i, s := range a.Code {
		l.signature(fmt.Sprintf("$.code[%d]", i), s)
	}
}

func (l *linter) form(path, value string, form *regexp.Regexp, what string) {
	if value != "" && !form.MatchString(value) {
		l.complain(path, "%q is not of the form: %s", value, what)
	}
}

func (l *linter) commit(path string, c Commit, needed bool) {
	if needed && (c.Commit == "" || c.Version == "") {
		l.complain(path, "a fix has a commit and the version that has it first")
	}
	l.form(path+".commit", c.Commit, commitForm, "12 to 40 hexadecimal digits")
	l.form(path+".version", c.Version, releaseForm, "a release, 5.17")
}

// checkReleases wants one release a stable series, in order.
func (l *linter) checkReleases(a *Advisory) {
	for i, s := range a.Stable {
		path := fmt.Sprintf("$.stable[%d]", i)
		l.form(path, s, releaseForm, "a release, 5.10.104")
		if i > 0 && slices.Compare(release(a.Stable[i-1]), release(s)) >= 0 {
			l.complain(path, "%s comes after %s: they are sorted, one a series", s, a.Stable[i-1])
		}
	}
	for i, v := range a.Vendors {
		if v.Series == "" || v.Fixed == "" {
			l.complain(fmt.Sprintf("$.vendors[%d]", i), "a vendor has a series and the version that is fixed first")
		}
	}
}

func release(s string) []int {
	var numbers []int
	for part := range strings.SplitSeq(s, ".") {
		n, _ := strconv.Atoi(part)
		numbers = append(numbers, n)
	}
	return numbers
}

func (l *linter) functions(path string, names []string) {
	for i, name := range names {
		at := fmt.Sprintf("%s[%d]", path, i)
		switch {
		case strings.Contains(name, "."):
			l.complain(at, "%q: suffixes of the compiler are left out, %q", name, base(name))
		case !functionForm.MatchString(name):
			l.complain(at, "%q is no name of a function", name)
		case slices.Index(names, name) < i:
			l.complain(at, "%s stands here twice", name)
		}
	}
}

func (l *linter) signature(path string, s Signature) {
	if len(s.In) == 0 {
		l.complain(path, "a code signature says in which functions to look")
	}
	l.functions(path+".in", s.In)
	for i, m := range s.Modules {
		l.form(fmt.Sprintf("%s.module[%d]", path, i), m, moduleForm, "a module's name as lsmod prints it")
	}
	if s.Exposed.empty() && s.Fixed.empty() {
		l.complain(path, "a code signature says what exposed or fixed code looks like")
	}
	if !s.Exposed.empty() && reflect.DeepEqual(s.Exposed, s.Fixed) {
		l.complain(path+".exposed", "exposed and fixed look the same")
	}
	l.look(path+".exposed", s.Exposed)
	l.look(path+".fixed", s.Fixed)
}

func (l *linter) look(path string, k Look) {
	for key, names := range map[string][]string{"calls": k.Any, "not": k.None, "defines": k.Defines, "lacks": k.Lacks} {
		l.functions(path+"."+key, names)
	}
	for i, name := range k.None {
		if slices.Contains(k.Any, name) {
			l.complain(fmt.Sprintf("%s.not[%d]", path, i), "%s stands in calls, too", name)
		}
	}
	for i, name := range k.Uses {
		if instructions[name] == 0 {
			l.complain(fmt.Sprintf("%s.uses[%d]", path, i), "%q is no instruction that is known; they are written in small letters", name)
		}
	}
}

// instructions are those that there are, by name; 0 is none.
var instructions = func() map[string]x86asm.Op {
	all := make(map[string]x86asm.Op)
	for op := x86asm.Op(1); op <= x86asm.XTEST; op++ {
		all[strings.ToLower(op.String())] = op
	}
	return all
}()
