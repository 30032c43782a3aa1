package lab

import (
	"crypto/sha256"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"

	"github.com/goccy/go-yaml"
)

// kernels holds the recipes: for each one NAME.yaml, and the fragments of
// configuration and the patches that it names.
//
//go:embed kernels
var kernels embed.FS

// Recipe is a kernel that [Recipe.Build] makes from the source that Debian packages.
type Recipe struct {
	Name    string   `yaml:"-"`
	Doc     string   `yaml:"doc"`
	Source  string   `yaml:"source"`  // the package, with its suite: "linux-source-6.1/bookworm"
	Config  []string `yaml:"config"`  // fragments; all else is as in allnoconfig
	Patches []string `yaml:"patches"` // applied one after the other

	files map[string][]byte // the fragments and the patches, by name
}

// ErrNoRecipe is the error for a name that no recipe has.
var ErrNoRecipe = errors.New("no recipe for a kernel")

// Recipes returns all recipes by name.
func Recipes() ([]*Recipe, error) {
	entries, err := kernels.ReadDir("kernels")
	if err != nil {
		return nil, err
	}
	var all []*Recipe
	for _, e := range entries {
		name, ok := strings.CutSuffix(e.Name(), ".yaml")
		if !ok {
			continue
		}
		r, err := readRecipe(kernels, name)
		if err != nil {
			return nil, err
		}
		all = append(all, r)
	}
	return all, nil
}

// FindRecipe returns the recipe of a name.
func FindRecipe(name string) (*Recipe, error) {
	all, err := Recipes()
	if err != nil {
		return nil, err
	}
	var names []string
	for _, r := range all {
		if r.Name == name {
			return r, nil
		}
		names = append(names, r.Name)
	}
	return nil, fmt.Errorf("%w: %q is none of %s", ErrNoRecipe, name, strings.Join(names, ", "))
}

func readRecipe(from fs.FS, name string) (*Recipe, error) {
	text, err := fs.ReadFile(from, path.Join("kernels", name+".yaml"))
	if err != nil {
		return nil, err
	}
	r := &Recipe{Name: name, files: make(map[string][]byte)}
	if err := yaml.UnmarshalWithOptions(text, r, yaml.Strict()); err != nil {
		return nil, fmt.Errorf("recipe %s: %w", name, err)
	}
	for _, file := range slices.Concat(r.Config, r.Patches) {
		if r.files[file], err = fs.ReadFile(from, path.Join("kernels", file)); err != nil {
			return nil, fmt.Errorf("recipe %s: %w", name, err)
		}
	}
	return r, nil
}

// digest tells apart what a recipe was and what it has become.
func (r *Recipe) digest() string {
	h := sha256.New()
	for _, name := range slices.Concat(r.Config, r.Patches) {
		fmt.Fprintf(h, "%s %d\n%s", name, len(r.files[name]), r.files[name])
	}
	return fmt.Sprintf("%x", h.Sum(nil)[:4])
}
