package advisory

import (
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"sync"
)

//go:embed known/*.yaml
var shipped embed.FS

// Advisory is one known bug.
type Advisory struct {
	ID         string      `yaml:"id" json:"id"`
	Title      string      `yaml:"title" json:"title"`
	Class      string      `yaml:"class" json:"class"` // one of Classes
	CVE        string      `yaml:"cve" json:"cve,omitempty"`
	Summary    string      `yaml:"summary" json:"summary"`
	Introduced Commit      `yaml:"introduced" json:"introduced"`
	Fixed      []Commit    `yaml:"fixed" json:"fixed"`
	Stable     []string    `yaml:"stable" json:"stable,omitempty"` // first fixed release of each stable series
	Vendors    []Vendor    `yaml:"vendors" json:"vendors,omitempty"`
	Distros    []string    `yaml:"distributions" json:"distributions,omitempty"`
	Workaround []string    `yaml:"workaround" json:"workaround,omitempty"`
	Within     int         `yaml:"within" json:"-"` // how far in the innermost step may lie; 0 is anywhere
	Stack      []OneOf     `yaml:"stack" json:"-"`
	Confusion  *Confusion  `yaml:"confusion" json:"-"` // nil where no object is taken for another
	Code       []Signature `yaml:"code" json:"-"`
	Note       string      `yaml:"note" json:"-"` // what the signature was tested against

	File string `yaml:"-" json:"-"` // that it was read from
}

// Commit is a commit of the mainline kernel.
type Commit struct {
	Commit  string `yaml:"commit" json:"commit"`
	Version string `yaml:"version" json:"version"` // first release that has it
	Subject string `yaml:"subject" json:"subject"`
}

// Vendor is where a distribution has the fix first.
type Vendor struct {
	Series string `yaml:"series" json:"series"` // "debian/11", or a pattern of releases, "4.18.0-*.el8"
	Fixed  string `yaml:"fixed" json:"fixed"`   // the package's version, or the release
}

// Confusion is an object that the bug has the kernel take for another: what a crash shows
// that comes long after, on a stack that has nothing of the bug any more.
type Confusion struct {
	Object   string `yaml:"object"`    // the struct that it is
	TakenFor string `yaml:"taken_for"` // the struct that it was taken for
}

// MatchConfusion reports whether this is the confusion of the bug.
func (a *Advisory) MatchConfusion(object, takenFor string) bool {
	return a.Confusion != nil && object != "" && *a.Confusion == Confusion{object, takenFor}
}

// OneOf is a step of a stack signature: one of these functions.
type OneOf []string

// Classes are the kinds of failure, those of a finding of `inquest explain`.
var Classes = []string{
	"type-confusion", "use-after-free", "double-free", "out-of-bounds", "null-dereference", "wild-pointer",
	"list-corruption", "refcount", "stack-overflow", "bug", "warning", "hung-task", "soft-lockup", "hard-lockup",
	"deadlock", "rcu-stall", "out-of-memory", "double-fault", "machine-check", "divide-error", "bad-instruction",
	"user-panic", "unknown",
}

// Shipped returns the advisories that ship with Inquest, by id.
var Shipped = sync.OnceValues(func() ([]*Advisory, error) { return Load(shipped) })

// All returns the advisories that ship with Inquest and those of the user's own
// directories (see [Directories]), by id. One of the user's takes the place of a
// shipped one with its id. Files of the user's that are wrong are left out;
// [LoadUser] says what is wrong with them.
var All = sync.OnceValues(func() ([]*Advisory, error) {
	all, err := Shipped()
	if err != nil {
		return nil, err
	}
	own, _ := LoadUser(Directories())
	return Merge(all, own), nil
})

// Load reads the advisories in every *.yaml file of a file system, by id. Those that
// are right come with the error that says what is wrong with the others.
func Load(fsys fs.FS) ([]*Advisory, error) {
	var all []*Advisory
	var wrong []error
	err := fs.WalkDir(fsys, ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, ".yaml") {
			return err
		}
		raw, err := readFile(fsys, path)
		if err != nil {
			wrong = append(wrong, err)
			return nil
		}
		a, problems := Lint(raw)
		for _, p := range problems {
			wrong = append(wrong, fmt.Errorf("%s:%w", path, p))
		}
		if len(problems) > 0 {
			return nil
		}
		if i := slices.IndexFunc(all, func(b *Advisory) bool { return b.ID == a.ID }); i >= 0 {
			wrong = append(wrong, fmt.Errorf("%s: there is an advisory %s in %s already", path, a.ID, all[i].File))
			return nil
		}
		a.File = path
		all = append(all, a)
		return nil
	})
	sortByID(all)
	return all, errors.Join(append(wrong, err)...)
}

// Parse reads one advisory. Unknown keys and missing parts are errors; the first is
// returned, with its line and column.
func Parse(raw []byte) (*Advisory, error) {
	a, problems := Lint(raw)
	if len(problems) > 0 {
		return nil, problems[0]
	}
	return a, nil
}

// Find returns the advisory with an id, nil when there is none.
func Find(all []*Advisory, id string) *Advisory {
	for _, a := range all {
		if a.ID == id {
			return a
		}
	}
	return nil
}

func sortByID(all []*Advisory) {
	slices.SortFunc(all, func(a, b *Advisory) int { return strings.Compare(a.ID, b.ID) })
}

// Modules returns the modules that may hold the code which the signatures look at,
// when the kernel itself does not.
func (a *Advisory) Modules() []string {
	var names []string
	for _, s := range a.Code {
		for _, m := range s.Modules {
			if !slices.Contains(names, m) {
				names = append(names, m)
			}
		}
	}
	return names
}

// MatchStack compares the functions on a stack, innermost first, with the
// signature: its steps must occur in this order, with anything between them, the
// first among the innermost Within. It returns the functions that matched, nil when
// the stack is another.
func (a *Advisory) MatchStack(functions []string) []string {
	var matched []string
	for i, f := range functions {
		if len(matched) == len(a.Stack) || len(matched) == 0 && a.Within > 0 && i >= a.Within {
			break
		}
		if slices.Contains(a.Stack[len(matched)], base(f)) {
			matched = append(matched, f)
		}
	}
	if len(matched) < len(a.Stack) {
		return nil
	}
	return matched
}

// Advice returns what to do, in words.
func (a *Advisory) Advice() []string {
	var commits []string
	for _, f := range a.Fixed {
		commits = append(commits, fmt.Sprintf("%s (%q)", f.Commit, f.Subject))
	}
	advice := []string{fmt.Sprintf("Fixed in Linux %s by %s.", a.Fixed[0].Version, strings.Join(commits, " and "))}
	if len(a.Stable) > 0 {
		advice = append(advice, "Stable kernels have the fix since "+strings.Join(a.Stable, ", ")+".")
	}
	advice = append(advice, a.Distros...)
	return append(advice, a.Workaround...)
}
