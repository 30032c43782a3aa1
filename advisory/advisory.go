package advisory

import (
	"embed"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"sync"

	"github.com/goccy/go-yaml"
)

//go:embed known/*.yaml
var shipped embed.FS

// Advisory is one known bug.
type Advisory struct {
	ID         string      `yaml:"id" json:"id"`
	Title      string      `yaml:"title" json:"title"`
	Class      string      `yaml:"class" json:"class"`
	Summary    string      `yaml:"summary" json:"summary"`
	Introduced Commit      `yaml:"introduced" json:"introduced"`
	Fixed      []Commit    `yaml:"fixed" json:"fixed"`
	Stable     []string    `yaml:"stable" json:"stable,omitempty"` // first fixed release of each stable series
	Distros    []string    `yaml:"distributions" json:"distributions,omitempty"`
	Workaround []string    `yaml:"workaround" json:"workaround,omitempty"`
	Stack      []OneOf     `yaml:"stack" json:"-"`
	Code       []Signature `yaml:"code" json:"-"`
}

// Commit is a commit of the mainline kernel.
type Commit struct {
	Commit  string `yaml:"commit" json:"commit"`
	Version string `yaml:"version" json:"version"` // first release that has it
	Subject string `yaml:"subject" json:"subject"`
}

// OneOf is a step of a stack signature: one of these functions.
type OneOf []string

// Signature tells exposed code from fixed code by what functions call.
type Signature struct {
	// In are functions to look into: the one that has the bug, and those that the
	// compiler may have inlined it into.
	In      []string `yaml:"in"`
	Exposed Calls    `yaml:"exposed"`
	Fixed   Calls    `yaml:"fixed"`
}

// Calls is a condition on the direct calls of a function.
type Calls struct {
	Any  []string `yaml:"calls"` // at least one of these
	None []string `yaml:"not"`   // and none of these
}

// All returns the advisories that ship with Inquest, by id.
var All = sync.OnceValues(func() ([]*Advisory, error) { return Load(shipped) })

// Load reads the advisories in every *.yaml file of a file system.
func Load(fsys fs.FS) ([]*Advisory, error) {
	var all []*Advisory
	err := fs.WalkDir(fsys, ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, ".yaml") {
			return err
		}
		raw, err := fs.ReadFile(fsys, path)
		if err != nil {
			return err
		}
		a, err := Parse(raw)
		if err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		all = append(all, a)
		return nil
	})
	slices.SortFunc(all, func(a, b *Advisory) int { return strings.Compare(a.ID, b.ID) })
	return all, err
}

// Parse reads one advisory. Unknown keys and missing parts are errors.
func Parse(raw []byte) (*Advisory, error) {
	var a Advisory
	if err := unmarshal(raw, &a); err != nil {
		return nil, err
	}
	switch {
	case a.ID == "" || a.Title == "" || a.Class == "":
		return nil, fmt.Errorf("an advisory needs an id, a title and a class")
	case len(a.Stack) == 0:
		return nil, fmt.Errorf("advisory %s has no stack signature", a.ID)
	case len(a.Fixed) == 0:
		return nil, fmt.Errorf("advisory %s does not say what fixed it", a.ID)
	}
	return &a, nil
}

// unmarshal reads YAML. On some malformed documents the library panics.
func unmarshal(raw []byte, to any) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("malformed YAML: %v", p)
		}
	}()
	return yaml.UnmarshalWithOptions(raw, to, yaml.Strict())
}

// MatchStack compares the functions on a stack, innermost first, with the
// signature: its steps must occur in this order, with anything between them. It
// returns the functions that matched, nil when the stack is another.
func (a *Advisory) MatchStack(functions []string) []string {
	var matched []string
	step := 0
	for _, f := range functions {
		if step < len(a.Stack) && slices.Contains(a.Stack[step], f) {
			matched = append(matched, f)
			step++
		}
	}
	if step < len(a.Stack) {
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
