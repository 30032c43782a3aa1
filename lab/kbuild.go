package lab

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
)

// sourceModule is a module of the kernel's source that distributions do not build.
type sourceModule struct {
	name   string // as lsmod has it
	dir    string // in the source
	option string // of the configuration, that makes it: "CONFIG_LKDTM"
	// further are variables for make: what the source needs where it is built out of
	// tree, for a kernel that does not know of it.
	further []string
}

// ErrNoHeaders is the error for a kernel for which no module can be built, because no
// package has its headers.
var ErrNoHeaders = errors.New("no headers of this kernel")

// sourceModule returns a module of the kernel: the one that it has, or else one built
// out of tree from the source and with the headers of its Debian package, which takes
// gcc, make, and for the first time a download of the source. What was built is kept
// below cache. Modules that the kernel has built in are no modules: nil.
func (k *Kernel) sourceModule(ctx context.Context, cache string, m sourceModule, progress func(string)) ([]Module, error) {
	files, err := k.moduleFiles()
	if err != nil {
		return nil, err
	}
	builtin, err := k.builtinModules()
	if err != nil {
		return nil, err
	}
	if files[m.name] != "" || builtin[m.name] {
		return k.LoadOrder(ctx, m.name)
	}
	path, err := k.buildModule(ctx, cache, m, progress)
	if err != nil {
		return nil, fmt.Errorf("build module %s for %s: %w", m.name, k.Release, err)
	}
	code, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	return []Module{{Name: m.name, Code: code}}, nil
}

// buildModule returns the path of a module that was built for the kernel, now or before.
func (k *Kernel) buildModule(ctx context.Context, cache string, m sourceModule, progress func(string)) (string, error) {
	dir := filepath.Join(cache, "modules", k.id())
	path := filepath.Join(dir, m.name+".ko")
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}
	// Not below dir: make takes a = in a path for an assignment.
	work := filepath.Join(cache, "build", strings.ReplaceAll(m.name+"_"+k.id(), "=", "_"))
	if err := errors.Join(os.MkdirAll(dir, 0o755), os.MkdirAll(filepath.Dir(work), 0o755)); err != nil {
		return "", err
	}
	unlock, err := lockFile(ctx, work+".lock")
	if err != nil {
		return "", err
	}
	defer unlock()
	if _, err := os.Stat(path); err == nil { // another process built it meanwhile
		return path, nil
	}
	for _, tool := range []string{"make", "tar", "xz"} {
		if _, err := findTool(tool); err != nil {
			return "", err
		}
	}
	a, headers, err := k.headers(ctx, cache)
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(work)
	if err := errors.Join(os.RemoveAll(work), os.Mkdir(work, 0o755)); err != nil {
		return "", err
	}
	progress("download " + headers.names[0])
	if err := a.unpack(ctx, work, headers.names); err != nil {
		return "", err
	}
	root := filepath.Join(work, "root")
	if err := relocateHeaders(root, k.Release); err != nil {
		return "", err
	}
	compiler, err := headersCompiler(root, k.Release)
	if err != nil {
		return "", err
	}
	source := filepath.Join(work, m.name)
	if err := m.unpack(ctx, a, headers.version, work, source, progress); err != nil {
		return "", err
	}
	progress("compile module " + m.name)
	arguments := slices.Concat([]string{
		"--silent", "--jobs=" + strconv.Itoa(runtime.NumCPU()), "-C", filepath.Join(root, "usr/src/linux-headers-"+k.Release),
		"M=" + source, "CC=" + compiler, m.option + "=m",
		"KCFLAGS=-fmacro-prefix-map=" + source + "=" + m.dir, // what BUG() says of itself is as from a kernel's own
	}, m.further, []string{"modules"})
	if _, err := runTool(ctx, source, []string{"LC_ALL=C"}, "make", arguments...); err != nil {
		return "", err
	}
	return path, os.Rename(filepath.Join(source, m.name+".ko"), path)
}

// id tells builds of one release apart: the directory of a Debian package's kernel has
// its version in its name.
func (k *Kernel) id() string {
	if version := k.debianVersion(); version != "" {
		return k.Release + "=" + version
	}
	return k.Release
}

// debianVersion is the version of the package that the kernel was unpacked from, or "".
func (k *Kernel) debianVersion() string {
	_, version, _ := strings.Cut(filepath.Base(k.Root), "=")
	return version
}

// headerPackages are the packages that modules are built with.
type headerPackages struct {
	names   []string // "name=version", linux-headers-RELEASE first
	version string   // of the source
}

// headerFiles matches the packages that a kernel's headers are spread over.
var headerFiles = regexp.MustCompile(`^linux-(headers|kbuild)-[0-9]`)

// headers finds the packages of the kernel's headers: in the machine's own lists of
// packages, or in those of the suites that kernels came from before.
func (k *Kernel) headers(ctx context.Context, cache string) (apt, headerPackages, error) {
	suites := []string{""}
	entries, err := os.ReadDir(filepath.Join(cache, "apt"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return apt{}, headerPackages{}, err
	}
	for _, e := range entries {
		suites = append(suites, e.Name())
	}
	name := "linux-headers-" + k.Release
	var failed []error
	for _, suite := range suites {
		a, err := openApt(ctx, cache, suite)
		if err != nil {
			failed = append(failed, err)
			continue
		}
		found, err := findHeaders(name, k.debianVersion(), func(name string) (string, error) { return a.show(ctx, name) })
		if err == nil {
			return a, found, nil
		}
		failed = append(failed, err)
	}
	return apt{}, headerPackages{}, fmt.Errorf("%w: no package %s: %w", ErrNoHeaders, name, errors.Join(failed...))
}

// findHeaders follows the dependencies of a linux-headers package of a version, or,
// for "", of the one that there is.
func findHeaders(name, version string, show func(string) (string, error)) (headerPackages, error) {
	first := name
	if version != "" {
		first += "=" + version
	}
	var found headerPackages
	queue, seen := []string{first}, map[string]bool{name: true}
	for len(queue) > 0 && len(seen) <= maxKernelPackages {
		text, err := show(queue[0])
		if err != nil {
			return found, err
		}
		queue = queue[1:]
		stanza := parseStanza(text)
		if stanza["Package"] == "" || stanza["Version"] == "" {
			return found, fmt.Errorf("no package %s", first)
		}
		if found.version == "" {
			found.version = stanza["Version"]
		}
		found.names = append(found.names, stanza["Package"]+"="+stanza["Version"])
		for dependency := range strings.SplitSeq(stanza["Depends"], ",") {
			dependency, _, _ := strings.Cut(strings.TrimSpace(dependency), " ")
			if headerFiles.MatchString(dependency) && !seen[dependency] {
				seen[dependency] = true
				queue = append(queue, dependency)
			}
		}
	}
	return found, nil
}

// relocateHeaders lets unpacked headers work where they lie: Debian's Makefile names
// the directories by where they are installed.
func relocateHeaders(root, release string) error {
	path := filepath.Join(root, "usr/src/linux-headers-"+release, "Makefile")
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	const installed = "/usr/src/"
	return os.WriteFile(path, []byte(strings.ReplaceAll(string(text), installed, filepath.Join(root, installed)+"/")), 0o644)
}

// compilerLine is the line of a configuration that names the compiler, with the package
// that it is from as Debian does it: "gcc-12 (Debian …) …".
var compilerLine = regexp.MustCompile(`(?m)^CONFIG_CC_VERSION_TEXT="(?:[a-z0-9_]+-linux-gnu-)?(gcc-[0-9]+) `)

// headersCompiler returns the compiler that the kernel was built with; a module built by
// another might not have its flags.
func headersCompiler(root, release string) (string, error) {
	text, err := os.ReadFile(filepath.Join(root, "usr/src/linux-headers-"+release, ".config"))
	if err != nil {
		return "", err
	}
	name := "gcc"
	if line := compilerLine.FindSubmatch(text); line != nil {
		name = string(line[1])
	}
	_, err = findTool(name)
	var missing *MissingToolError
	if errors.As(err, &missing) && missing.Package == "" {
		missing.Package = name
	}
	return name, err
}

// sourcePackage is the Debian package of the source that a version of the kernel was
// built from: "linux-source-6.1" for "6.1.192-2".
func sourcePackage(version string) (string, error) {
	parts := strings.FieldsFunc(version, func(r rune) bool { return !(r >= '0' && r <= '9') })
	if len(parts) < 2 {
		return "", fmt.Errorf("unexpected version of a kernel package: %q", version)
	}
	return "linux-source-" + strings.Join(parts[:2], ".") + "=" + version, nil
}

// unpack leaves the module's source, of a version of Debian's kernel, in dir.
func (m sourceModule) unpack(ctx context.Context, a apt, version, work, dir string, progress func(string)) error {
	name, err := sourcePackage(version)
	if err != nil {
		return err
	}
	progress("download " + name)
	unpacked := filepath.Join(work, "source")
	for _, d := range []string{unpacked, dir} {
		if err := os.Mkdir(d, 0o755); err != nil {
			return err
		}
	}
	if err := a.unpack(ctx, unpacked, []string{name}); err != nil {
		return err
	}
	tarballs, err := filepath.Glob(filepath.Join(unpacked, "root/usr/src/linux-source-*.tar.xz"))
	if err != nil || len(tarballs) != 1 {
		return errors.Join(fmt.Errorf("the package has %d tarballs of the source", len(tarballs)), err)
	}
	progress("unpack the source of " + m.name)
	depth := strconv.Itoa(2 + strings.Count(m.dir, "/"))
	if _, err := runTool(ctx, dir, nil, "tar", "--extract", "--no-same-owner", "--strip-components="+depth,
		"--wildcards", "--file", tarballs[0], "*/"+m.dir+"/*"); err != nil {
		return err
	}
	return os.RemoveAll(unpacked) // some 140 MiB
}

// kernelConfig is a kernel's configuration: the options that are on, without CONFIG_.
type kernelConfig map[string]bool

// config returns the kernel's configuration, nil when it is not beside the kernel.
func (k *Kernel) config() (kernelConfig, error) {
	var paths []string
	if k.Image != "" {
		dir := filepath.Dir(k.Image)
		paths = append(paths, filepath.Join(dir, "config-"+k.Release), filepath.Join(dir, "config"))
	}
	if k.Modules != "" {
		paths = append(paths, filepath.Join(k.Modules, "config"))
	}
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		return parseConfig(string(text)), nil
	}
	return nil, nil
}

func parseConfig(text string) kernelConfig {
	on := make(kernelConfig)
	for line := range strings.Lines(text) {
		name, value, ok := strings.Cut(strings.TrimSpace(line), "=")
		if option, found := strings.CutPrefix(name, "CONFIG_"); ok && found && slices.Contains([]string{"y", "m"}, value) {
			on[option] = true
		}
	}
	return on
}
