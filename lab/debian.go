package lab

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
)

// DebianKernel returns the kernel of a Debian package such as "linux-image-cloud-amd64",
// of the version that apt would install, or, as "linux-image-cloud-amd64/bullseye", of
// the one that another suite has. The package is downloaded and unpacked below the
// user's cache directory, unless it is there already; nothing is installed. Processes
// may do so at the same time.
func DebianKernel(ctx context.Context, name string) (*Kernel, error) {
	cache, err := cacheDir()
	if err != nil {
		return nil, err
	}
	return debianKernel(ctx, cache, name)
}

// cacheDir is where kernels are kept.
func cacheDir() (string, error) {
	cache, err := os.UserCacheDir()
	return filepath.Join(cache, "inquest"), err
}

func debianKernel(ctx context.Context, cache, name string) (*Kernel, error) {
	name, suite, _ := strings.Cut(name, "/")
	a, err := openApt(ctx, cache, suite)
	if err != nil {
		return nil, err
	}
	list, err := kernelPackages(name, func(name string) (string, error) { return a.show(ctx, name) })
	if err != nil {
		return nil, fmt.Errorf("find the packages of %s: %w", name, err)
	}
	// The directory's name has the version: a release may be built more than once.
	dir := filepath.Join(cache, "kernels", list[0])
	if k, err := OpenKernel(dir); err == nil {
		return k, nil
	}
	return fill(dir, func(work string) error {
		if err := a.unpack(ctx, work, list); err != nil {
			return fmt.Errorf("fetch %s: %w", list[0], err)
		}
		return nil
	})
}

// fill has make put a kernel into WORK/root, and gives it the name dir when it is
// whole: what has the name of a kernel is never half of one.
func fill(dir string, make func(work string) error) (*Kernel, error) {
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return nil, err
	}
	work, err := os.MkdirTemp(filepath.Dir(dir), "unfinished-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(work)
	if err := make(work); err != nil {
		return nil, err
	}
	if _, err := OpenKernel(filepath.Join(work, "root")); err != nil {
		return nil, err
	}
	if err := os.Rename(filepath.Join(work, "root"), dir); err != nil {
		if k, again := OpenKernel(dir); again == nil { // another process was faster
			return k, nil
		}
		return nil, err
	}
	return OpenKernel(dir)
}

// kernelFiles matches the packages that a kernel's files may be spread over: since
// 6.19 image, modules and System.map have one each, and linux-image only depends on them.
var kernelFiles = regexp.MustCompile(`^linux-(image|binary|modules|base)-[0-9]`)

// maxKernelPackages bounds the walk over what packages depend on.
const maxKernelPackages = 16

// kernelPackages returns the packages that hold a kernel's files, as "name=version",
// linux-image first. The package may be one of those or depend on one. show returns
// a package's control stanza.
func kernelPackages(name string, show func(name string) (string, error)) ([]string, error) {
	var list []string
	queue, seen := []string{name}, map[string]bool{name: true}
	for len(queue) > 0 && len(seen) <= maxKernelPackages {
		name, queue = queue[0], queue[1:]
		text, err := show(name)
		if err != nil {
			return nil, err
		}
		stanza := parseStanza(text)
		if kernelFiles.MatchString(name) {
			list = append(list, stanza["Package"]+"="+stanza["Version"])
		}
		for dependency := range strings.SplitSeq(stanza["Depends"], ",") {
			dependency, _, _ := strings.Cut(strings.TrimSpace(dependency), " ")
			if kernelFiles.MatchString(dependency) && !seen[dependency] {
				seen[dependency] = true
				queue = append(queue, dependency)
			}
		}
	}
	if len(list) == 0 {
		return nil, fmt.Errorf("package %s neither is a kernel nor depends on one", name)
	}
	return list, nil
}

// parseStanza reads the fields of a Debian control stanza, without continued lines.
func parseStanza(text string) map[string]string {
	fields := make(map[string]string)
	for line := range strings.Lines(text) {
		key, value, ok := strings.Cut(line, ":")
		if _, again := fields[key]; ok && !again && !strings.HasPrefix(line, " ") {
			fields[key] = strings.TrimSpace(value)
		}
	}
	return fields
}
