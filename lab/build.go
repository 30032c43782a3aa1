package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
)

// Build returns the recipe's kernel, which it builds when it is not in the cache:
// that takes gcc, make, pahole and so on, 3 GiB of disk, and minutes. The directory
// of the kernel has vmlinux with its debug information too.
//
// What was unpacked stays in the cache, so that a build that was interrupted begins
// where it stood.
func (r *Recipe) Build(ctx context.Context, progress func(step string)) (*Kernel, error) {
	cache, err := cacheDir()
	if err != nil {
		return nil, err
	}
	return r.build(ctx, cache, progress)
}

// Cached returns the recipe's kernel when it was built before, of whatever version of
// the source; else the error is ErrNoKernel.
func (r *Recipe) Cached() (*Kernel, error) {
	cache, err := cacheDir()
	if err != nil {
		return nil, err
	}
	return r.cached(cache)
}

func (r *Recipe) cached(cache string) (*Kernel, error) {
	dirs, err := filepath.Glob(filepath.Join(cache, "kernels", r.Name+"_*_"+r.digest()))
	if err != nil {
		return nil, err
	}
	for i := len(dirs) - 1; i >= 0; i-- {
		if k, err := OpenKernel(dirs[i]); err == nil {
			return k, nil
		}
	}
	return nil, fmt.Errorf("%w for %s in the cache", ErrNoKernel, r.Name)
}

func (r *Recipe) build(ctx context.Context, cache string, progress func(step string)) (*Kernel, error) {
	if err := buildTools(); err != nil {
		return nil, err
	}
	name, suite, _ := strings.Cut(r.Source, "/")
	a, err := openApt(ctx, cache, suite)
	if err != nil {
		return nil, err
	}
	stanza, err := a.show(ctx, name)
	if err != nil {
		return nil, err
	}
	version := parseStanza(stanza)["Version"]
	id := strings.Join([]string{r.Name, version, r.digest()}, "_")
	dir := filepath.Join(cache, "kernels", id)
	if k, err := OpenKernel(dir); err == nil {
		return k, nil
	}
	work := filepath.Join(cache, "build", id)
	if err := os.MkdirAll(work, 0o755); err != nil {
		return nil, err
	}
	unlock, err := lockFile(ctx, work+".lock")
	if err != nil {
		return nil, err
	}
	defer unlock()
	if k, err := OpenKernel(dir); err == nil { // another process built it meanwhile
		return k, nil
	}
	source := filepath.Join(work, "source")
	if err := r.unpackSource(ctx, a, name+"="+version, source, progress); err != nil {
		return nil, fmt.Errorf("unpack %s: %w", name, err)
	}
	k, err := fill(dir, func(to string) error {
		return r.compile(ctx, source, filepath.Join(work, "object"), filepath.Join(to, "root"), progress)
	})
	if err != nil {
		return nil, fmt.Errorf("build %s: %w", r.Name, err)
	}
	return k, errors.Join(os.RemoveAll(work), os.Remove(work+".lock"))
}

// buildTools are all that a build runs, named before half an hour has gone into it.
func buildTools() error {
	for _, tool := range []string{"bc", "bison", "flex", "gcc", "make", "pahole", "patch", "perl", "tar", "xz"} {
		if _, err := findTool(tool); err != nil {
			return err
		}
	}
	for _, dir := range []string{"/usr/include", "/usr/local/include"} {
		if _, err := os.Stat(filepath.Join(dir, "gelf.h")); err == nil {
			return nil
		}
	}
	return &MissingToolError{"gelf.h", "libelf-dev"}
}

// unpackSource leaves the patched source in dir.
func (r *Recipe) unpackSource(ctx context.Context, a apt, pkg, dir string, progress func(string)) error {
	if _, err := os.Stat(dir); err == nil {
		return nil
	}
	work, err := os.MkdirTemp(filepath.Dir(dir), "unpack-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(work)
	progress("download " + pkg)
	if err := a.unpack(ctx, work, []string{pkg}); err != nil {
		return err
	}
	tarballs, err := filepath.Glob(filepath.Join(work, "root/usr/src/linux-source-*.tar.xz"))
	if err != nil || len(tarballs) != 1 {
		return errors.Join(fmt.Errorf("the package has %d tarballs of the source", len(tarballs)), err)
	}
	progress("unpack the source")
	tree := filepath.Join(work, "tree")
	if err := os.Mkdir(tree, 0o755); err != nil {
		return err
	}
	if _, err := runTool(ctx, tree, nil, "tar", "--extract", "--strip-components=1", "--no-same-owner", "--file", tarballs[0]); err != nil {
		return err
	}
	for _, name := range r.Patches {
		file := filepath.Join(work, filepath.Base(name))
		if err := os.WriteFile(file, r.files[name], 0o644); err != nil {
			return err
		}
		if _, err := runTool(ctx, tree, nil, "patch", "--strip=1", "--forward", "--fuzz=3", "--input", file); err != nil {
			return err
		}
	}
	return os.Rename(tree, dir)
}

// compile builds in object and lays the result out in root as a Debian package does.
func (r *Recipe) compile(ctx context.Context, source, object, root string, progress func(string)) error {
	progress("configure " + r.Name)
	if err := os.MkdirAll(object, 0o755); err != nil {
		return err
	}
	fragment, err := filepath.Abs(filepath.Join(object, "fragment"))
	if err != nil {
		return err
	}
	var wanted bytes.Buffer
	for _, name := range r.Config {
		wanted.Write(r.files[name])
	}
	if err := os.WriteFile(fragment, wanted.Bytes(), 0o644); err != nil {
		return err
	}
	// The same kernel whoever builds it, and wherever.
	env := []string{"LC_ALL=C", "KBUILD_BUILD_USER=inquest", "KBUILD_BUILD_HOST=lab", "KBUILD_BUILD_TIMESTAMP=@0", "KCONFIG_ALLCONFIG=" + fragment}
	run := func(args ...string) error {
		_, err := runTool(ctx, source, env, "make", append([]string{"--silent", "O=" + object}, args...)...)
		return err
	}
	if err := run("allnoconfig"); err != nil {
		return err
	}
	config, err := os.ReadFile(filepath.Join(object, ".config"))
	if err != nil {
		return err
	}
	if lost := lostOptions(wanted.String(), string(config)); len(lost) > 0 {
		return fmt.Errorf("this source does not take the options %s", strings.Join(lost, ", "))
	}
	progress("compile " + r.Name)
	if err := run("--jobs="+strconv.Itoa(runtime.NumCPU()), "bzImage", "modules"); err != nil {
		return err
	}
	progress("install " + r.Name)
	text, err := os.ReadFile(filepath.Join(object, "include/config/kernel.release"))
	if err != nil {
		return err
	}
	release := strings.TrimSpace(string(text))
	if err := run("INSTALL_MOD_PATH="+root, "INSTALL_MOD_STRIP=1", "DEPMOD=true", "modules_install"); err != nil {
		return err
	}
	for from, to := range map[string]string{
		"arch/x86/boot/bzImage": "boot/vmlinuz-" + release,
		".config":               "boot/config-" + release,
		"vmlinux":               "usr/lib/debug/boot/vmlinux-" + release,
	} {
		if err := copyFile(filepath.Join(object, from), filepath.Join(root, to)); err != nil {
			return err
		}
	}
	modules := filepath.Join(root, "lib/modules", release)
	for _, link := range []string{"build", "source"} { // into the build's directory, which goes
		if err := os.Remove(filepath.Join(modules, link)); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	return nil
}

// lostOptions returns the lines of a fragment that a configuration did not take over.
// An option that is to be off may be missing.
func lostOptions(fragment, config string) []string {
	have := make(map[string]bool)
	for line := range strings.Lines(config) {
		have[strings.TrimSpace(line)] = true
	}
	var lost []string
	for line := range strings.Lines(fragment) {
		line = strings.TrimSpace(line)
		name, value, ok := strings.Cut(line, "=")
		if !ok || strings.HasPrefix(line, "#") || have[line] || value == "n" && !have[name+"=y"] && !have[name+"=m"] {
			continue
		}
		lost = append(lost, line)
	}
	return lost
}

func copyFile(from, to string) error {
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.Create(to)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}
