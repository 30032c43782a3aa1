package lab

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// The cache, below the user's cache directory:
//
//	kernels/linux-image-…=VERSION      unpacked Debian packages
//	kernels/RECIPE_VERSION_DIGEST      built kernels
//	kernels/unfinished-…               what is on its way to become one
//	names/PACKAGE@SUITE                links to the kernels that these stood for
//	build/                             builds that are under way, or were interrupted
//	modules/RELEASE=VERSION/           modules that were built out of tree
//	apt/SUITE/                         lists of packages
//	locks/                             files that processes lock
//
// A process that uses a kernel has a shared lock on its directory.

// unfinished begins the names of directories that are not whole.
const unfinished = "unfinished-"

// cacheDir is where kernels are kept.
func cacheDir() (string, error) {
	cache, err := os.UserCacheDir()
	return filepath.Join(cache, "inquest"), err
}

// lockName takes the lock of a name in the cache.
func lockName(ctx context.Context, cache, name string) (unlock func(), err error) {
	dir := filepath.Join(cache, "locks")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	return lockFile(ctx, filepath.Join(dir, strings.ReplaceAll(name, "/", "@")))
}

// CachedKernel is a kernel that is in the cache.
type CachedKernel struct {
	*Kernel
	Names []string `json:"names"` // by which FindKernel finds it; none if something newer took its place
	Bytes int64    `json:"bytes"` // on disk
	InUse bool     `json:"in_use"`
}

// CachedKernels lists the kernels in the cache.
func CachedKernels() ([]CachedKernel, error) {
	cache, err := cacheDir()
	if err != nil {
		return nil, err
	}
	return cachedKernels(cache)
}

func cachedKernels(cache string) ([]CachedKernel, error) {
	entries, err := os.ReadDir(filepath.Join(cache, "kernels"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	names, err := cachedNames(cache)
	if err != nil {
		return nil, err
	}
	var list []CachedKernel
	for _, e := range entries {
		dir := filepath.Join(cache, "kernels", e.Name())
		k, err := OpenKernel(dir)
		if err != nil || strings.HasPrefix(e.Name(), unfinished) {
			continue
		}
		size, err := diskUsage(dir)
		if err != nil {
			return nil, err
		}
		list = append(list, CachedKernel{Kernel: k, Names: names[e.Name()], Bytes: size, InUse: inUse(dir)})
	}
	return list, nil
}

// cachedNames are the names that lead to each directory of a kernel.
func cachedNames(cache string) (map[string][]string, error) {
	names := make(map[string][]string)
	aliases, err := filepath.Glob(aliasOf(cache, "*"))
	if err != nil {
		return nil, err
	}
	for _, alias := range aliases {
		dir, err := os.Readlink(alias)
		if err != nil {
			continue
		}
		name := strings.ReplaceAll(filepath.Base(alias), "@", "/")
		for _, s := range Suites() {
			if pkg, _ := shortName(s.Name); pkg == name {
				names[filepath.Base(dir)] = append(names[filepath.Base(dir)], s.Name)
			}
		}
		names[filepath.Base(dir)] = append(names[filepath.Base(dir)], name)
	}
	recipes, err := Recipes()
	if err != nil {
		return nil, err
	}
	for _, r := range recipes {
		if k, err := r.cached(cache); err == nil {
			names[filepath.Base(k.Root)] = append(names[filepath.Base(k.Root)], r.Name)
		}
	}
	for _, list := range names {
		slices.Sort(list)
	}
	return names, nil
}

// diskUsage is the size of all files below a directory.
func diskUsage(dir string) (int64, error) {
	var size int64
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil // it was removed meanwhile
		}
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		info, err := d.Info()
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err == nil {
			size += info.Size()
		}
		return err
	})
	return size, err
}
