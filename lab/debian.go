package lab

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"
)

// debianKernel returns the kernel of a Debian package such as "linux-image-cloud-amd64",
// of the version that apt would install, or, as "linux-image-cloud-amd64/bullseye", of
// the one that another suite has. The package is downloaded and unpacked below the
// cache directory, unless it is there already; nothing is installed. Processes may do so
// at the same time.
//
// Which version that is, apt is asked once a day. Without a network it is the last
// one that was fetched.
func debianKernel(ctx context.Context, cache, name string, progress func(step string)) (*Kernel, error) {
	known, age := knownKernel(cache, name)
	if known != nil && age < listsAge {
		return known, nil
	}
	k, err := newestKernel(ctx, cache, name, progress)
	if err != nil && known != nil && ctx.Err() == nil {
		progress(fmt.Sprintf("%s as it was %d days ago (%v)", name, int(age.Hours()/24), err))
		return known, nil
	}
	return k, err
}

// newestKernel asks apt for the version of a package, and fetches what is not there.
func newestKernel(ctx context.Context, cache, name string, progress func(step string)) (*Kernel, error) {
	pkg, suite, _ := strings.Cut(name, "/")
	progress("ask apt for " + name)
	a, err := openApt(ctx, cache, suite)
	if err != nil {
		return nil, err
	}
	list, err := kernelPackages(pkg, func(name string) (string, error) { return a.show(ctx, name) })
	if err != nil {
		return nil, fmt.Errorf("find the packages of %s: %w", name, err)
	}
	// The directory's name has the version: a release may be built more than once.
	dir := filepath.Join(cache, "kernels", list[0])
	k, err := OpenKernel(dir)
	if err != nil {
		k, err = fetchOnce(ctx, cache, dir, func(work string) error {
			progress("download " + strings.Join(list, ", "))
			return a.unpack(ctx, work, list)
		})
	}
	if err != nil {
		return nil, fmt.Errorf("fetch %s: %w", list[0], err)
	}
	return k, rememberKernel(cache, name, dir)
}

// fetchOnce is fill, by one process at a time.
func fetchOnce(ctx context.Context, cache, dir string, make func(work string) error) (*Kernel, error) {
	unlock, err := lockName(ctx, cache, filepath.Base(dir))
	if err != nil {
		return nil, err
	}
	defer unlock()
	if k, err := OpenKernel(dir); err == nil { // another process fetched it meanwhile
		return k, nil
	}
	return fill(dir, make)
}

// aliasOf is the symbolic link that leads from the name of a package to its kernel. It
// is as old as what apt said.
func aliasOf(cache, name string) string {
	return filepath.Join(cache, "names", strings.ReplaceAll(name, "/", "@"))
}

// knownKernel returns the kernel that a name stood for, and how long ago; nil if there
// is none.
func knownKernel(cache, name string) (*Kernel, time.Duration) {
	alias := aliasOf(cache, name)
	info, err := os.Lstat(alias)
	if err != nil {
		return nil, 0
	}
	dir, err := os.Readlink(alias)
	if err != nil {
		return nil, 0
	}
	k, err := OpenKernel(filepath.Join(filepath.Dir(alias), dir))
	if err != nil {
		return nil, 0
	}
	return k, time.Since(info.ModTime())
}

func rememberKernel(cache, name, dir string) error {
	alias := aliasOf(cache, name)
	if err := os.MkdirAll(filepath.Dir(alias), 0o755); err != nil {
		return err
	}
	fresh := fmt.Sprintf("%s.%d", alias, os.Getpid())
	if err := os.Symlink(filepath.Join("..", "kernels", filepath.Base(dir)), fresh); err != nil {
		return err
	}
	return os.Rename(fresh, alias)
}

// FetchDebug adds to a kernel of a Debian package its vmlinux with debug information,
// of the package linux-image-RELEASE-dbg, some hundreds of megabytes. Kernels of
// recipes have it from the beginning.
func (k *Kernel) FetchDebug(ctx context.Context, progress func(step string)) error {
	cache, err := cacheDir()
	if err != nil {
		return err
	}
	return k.fetchDebug(ctx, cache, progress)
}

func (k *Kernel) fetchDebug(ctx context.Context, cache string, progress func(step string)) error {
	if k.Debug != "" {
		return nil
	}
	_, version, ok := strings.Cut(filepath.Base(k.Root), "=")
	if !ok || filepath.Dir(k.Root) != filepath.Join(cache, "kernels") {
		return fmt.Errorf("kernel %s is not of a Debian package", k.Release)
	}
	unlock, err := lockName(ctx, cache, filepath.Base(k.Root)+".debug")
	if err != nil {
		return err
	}
	defer unlock()
	path := filepath.Join(k.Root, debugFile(k.Release))
	if _, err := os.Stat(path); err == nil {
		k.Debug = path
		return nil
	}
	pkg := "linux-image-" + k.Release + "-dbg=" + version
	suite, err := suiteOf(cache, k.Root)
	if err != nil {
		return err
	}
	a, err := openApt(ctx, cache, suite)
	if err != nil {
		return err
	}
	work, err := os.MkdirTemp(k.Root, unfinished)
	if err != nil {
		return err
	}
	defer os.RemoveAll(work)
	keep, err := tryLock(work) // it is no garbage
	if err != nil {
		return err
	}
	defer keep()
	progress("download " + pkg)
	if err := a.unpackFile(ctx, work, pkg, debugFile(k.Release)); err != nil {
		return fmt.Errorf("fetch %s: %w", pkg, err)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	if err := os.Rename(filepath.Join(work, "root", debugFile(k.Release)), path); err != nil {
		return err
	}
	k.Debug = path
	return nil
}

// suiteOf returns the suite that a kernel was fetched from, by a name that leads to it.
func suiteOf(cache, root string) (string, error) {
	aliases, err := filepath.Glob(aliasOf(cache, "*"))
	if err != nil {
		return "", err
	}
	for _, alias := range aliases {
		if dir, err := os.Readlink(alias); err == nil && filepath.Base(dir) == filepath.Base(root) {
			_, suite, _ := strings.Cut(filepath.Base(alias), "@")
			return suite, nil
		}
	}
	return "", nil
}

// fill has make put a kernel into WORK/root, and gives it the name dir when it is
// whole: what has the name of a kernel is never half of one.
func fill(dir string, make func(work string) error) (*Kernel, error) {
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return nil, err
	}
	work, err := os.MkdirTemp(filepath.Dir(dir), unfinished)
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(work)
	unlock, err := tryLock(work) // it is no garbage
	if err != nil {
		return nil, err
	}
	defer unlock()
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
