package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"inquest/internal/spelling"
)

// DefaultKernel is the name of the kernel that is taken where none is named.
const DefaultKernel = "debian"

// Suite is a release of Debian, whose newest kernel has a short name.
type Suite struct {
	Name   string // "debian-6.1", as FindKernel takes it
	Debian string // "bookworm"; "" for the machine's own
}

// Suites returns the short names.
func Suites() []Suite {
	return []Suite{
		{"debian", ""},
		{"debian-5.10", "bullseye"},
		{"debian-6.1", "bookworm"},
		{"debian-6.12", "trixie"},
		{"debian-7.x", "sid"}, // whatever it has now
	}
}

// debianImage is the package that depends on the newest kernel of a suite, in the
// flavour for virtual machines.
const debianImage = "linux-image-cloud-amd64"

// debianPackage matches what may be a package's name, with its suite.
var debianPackage = regexp.MustCompile(`^linux-[a-z0-9][a-z0-9+.-]*(/[a-z0-9][a-z0-9.-]*)?$`)

// FindKernel returns the kernel of a name, which is fetched or built if it is not in
// the cache, unless it is one of these:
//
//	debian, debian-6.1      the newest of a suite, see Suites
//	debian-SUITE            the newest of any suite: debian-bookworm-backports
//	PACKAGE, PACKAGE/SUITE  a Debian package: linux-image-amd64/trixie
//	nfqbug-6.1              a recipe, see Recipes
//	DIRECTORY               of an unpacked kernel, see OpenKernel
//	FILE                    a bzImage or vmlinux, see OpenImage
//	FILE:DIRECTORY          the same with its modules
//
// What has a slash and exists is a file or a directory.
func FindKernel(ctx context.Context, name string, progress func(step string)) (*Kernel, error) {
	cache, err := cacheDir()
	if err != nil {
		return nil, err
	}
	k, err := findKernel(ctx, cache, name, progress)
	if err != nil {
		return nil, fmt.Errorf("kernel %s: %w", firstOf(name, DefaultKernel), err)
	}
	return k, nil
}

func findKernel(ctx context.Context, cache, name string, progress func(step string)) (*Kernel, error) {
	if progress == nil {
		progress = func(string) {}
	}
	name = firstOf(name, DefaultKernel)
	if isPath(name) {
		return openPath(name)
	}
	k, err := findNamed(ctx, cache, name, progress)
	if err != nil {
		return nil, err
	}
	k.Name = name
	return k, nil
}

// findNamed finds a kernel that has no path of its own.
func findNamed(ctx context.Context, cache, name string, progress func(step string)) (*Kernel, error) {
	if pkg, ok := shortName(name); ok {
		return debianKernel(ctx, cache, pkg, progress)
	}
	r, err := FindRecipe(name)
	switch {
	case err == nil:
		if k, err := r.cached(cache); err == nil {
			return k, nil
		}
		return r.build(ctx, cache, progress)
	case !errors.Is(err, ErrNoRecipe):
		return nil, err
	case debianPackage.MatchString(name):
		return debianKernel(ctx, cache, name, progress)
	}
	names := kernelNames()
	return nil, fmt.Errorf("%w of that name%s (there are %s; Debian packages, as linux-image-amd64/trixie; directories and images)",
		ErrNoKernel, spelling.DidYouMean(spelling.Closest(name, names)), strings.Join(names, ", "))
}

// kernelNames are all that are made up here.
func kernelNames() []string {
	var names []string
	for _, s := range Suites() {
		names = append(names, s.Name)
	}
	if recipes, err := Recipes(); err == nil {
		for _, r := range recipes {
			names = append(names, r.Name)
		}
	}
	return names
}

// shortName returns the package that "debian-6.1" or "debian-bookworm" stands for.
func shortName(name string) (string, bool) {
	suite, short := strings.CutPrefix(name, "debian-")
	if i := slices.IndexFunc(Suites(), func(s Suite) bool { return s.Name == name }); i >= 0 {
		if suite = Suites()[i].Debian; suite == "" {
			return debianImage, true
		}
		return debianImage + "/" + suite, true
	}
	// No suite's name begins with a digit, but the short names of kernels do.
	if !short || !safeName(suite) || suite[0] >= '0' && suite[0] <= '9' {
		return "", false
	}
	return debianImage + "/" + suite, true
}

// isPath reports whether a name is meant as that of a file or directory.
func isPath(name string) bool {
	if filepath.IsAbs(name) || strings.HasPrefix(name, ".") {
		return true
	}
	file, _, _ := strings.Cut(name, ":")
	_, err := os.Stat(file)
	return err == nil && (strings.ContainsRune(name, filepath.Separator) || !slices.Contains(kernelNames(), name))
}

func openPath(name string) (*Kernel, error) {
	info, err := os.Stat(name)
	switch {
	case err == nil && info.IsDir():
		return OpenKernel(name)
	case err == nil:
		return OpenImage(name, "")
	}
	image, modules, ok := strings.Cut(name, ":")
	if !ok {
		return nil, err
	}
	return OpenImage(image, modules)
}
