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
// of the version that apt would install. The package is downloaded and unpacked below
// the user's cache directory, unless it is there already; nothing is installed.
// Processes may do so at the same time.
func DebianKernel(ctx context.Context, name string) (*Kernel, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return nil, err
	}
	return debianKernel(ctx, filepath.Join(cache, "inquest", "kernels"), name)
}

func debianKernel(ctx context.Context, cache, name string) (*Kernel, error) {
	list, err := kernelPackages(name, func(name string) (string, error) {
		out, err := runTool(ctx, "", aptEnv, "apt-cache", "--no-all-versions", "show", name)
		if err != nil {
			return "", fmt.Errorf("%w (apt-get update brings the lists of packages)", err)
		}
		return string(out), nil
	})
	if err != nil {
		return nil, fmt.Errorf("find the packages of %s: %w", name, err)
	}
	// The directory's name has the version: a release may be built more than once.
	dir := filepath.Join(cache, list[0])
	if k, err := OpenKernel(dir); err == nil {
		return k, nil
	}
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return nil, err
	}
	work, err := os.MkdirTemp(cache, "download-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(work)
	if err := unpack(ctx, work, list); err != nil {
		return nil, fmt.Errorf("fetch %s: %w", list[0], err)
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

// aptEnv keeps translations and questions away.
var aptEnv = []string{"LC_ALL=C", "DEBIAN_FRONTEND=noninteractive"}

// unpack downloads packages ("name=version") to dir and unpacks them to dir/root.
func unpack(ctx context.Context, dir string, list []string) error {
	if _, err := runTool(ctx, dir, aptEnv, "apt-get", append([]string{"--quiet", "download"}, list...)...); err != nil {
		return err
	}
	debs, err := filepath.Glob(filepath.Join(dir, "*.deb"))
	if err != nil {
		return err
	}
	root := filepath.Join(dir, "root")
	if err := os.Mkdir(root, 0o755); err != nil {
		return err
	}
	for _, deb := range debs {
		if _, err := runTool(ctx, dir, nil, "dpkg-deb", "-x", deb, root); err != nil {
			return err
		}
	}
	return nil
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
