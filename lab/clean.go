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

// Garbage is something in the cache that Clean removes.
type Garbage struct {
	Path  string `json:"path"`
	What  string `json:"what"`
	Bytes int64  `json:"bytes"`
	Kept  string `json:"kept,omitempty"` // why it was not removed
}

// Cleaning says what Clean removes.
type Cleaning struct {
	Kernels []string // these, by name or directory, and nothing else
	All     bool     // everything
	DryRun  bool     // remove nothing, but say what would be
}

// Clean removes from the cache what nobody needs: kernels that newer ones took the
// place of, what was interrupted and is not under way any more. What a process uses
// stays.
func Clean(ctx context.Context, c Cleaning) ([]Garbage, error) {
	cache, err := cacheDir()
	if err != nil {
		return nil, err
	}
	return c.clean(ctx, cache)
}

func (c Cleaning) clean(ctx context.Context, cache string) ([]Garbage, error) {
	list, err := c.garbage(cache)
	if err != nil {
		return nil, err
	}
	for i := range list {
		g := &list[i]
		if g.Bytes, err = diskUsage(g.Path); err != nil {
			return list[:i], err
		}
		if err := ctx.Err(); err != nil {
			return list[:i], err
		}
		if c.DryRun {
			if inUse(g.Path) {
				g.Kept = ErrBusy.Error()
			}
			continue
		}
		if err := remove(cache, g); err != nil {
			return list[:i+1], err
		}
	}
	return list, nil
}

// garbage lists what is to be removed.
func (c Cleaning) garbage(cache string) ([]Garbage, error) {
	kernels, err := cachedKernels(cache)
	if err != nil {
		return nil, err
	}
	var list []Garbage
	named := make(map[string]bool)
	for _, k := range kernels {
		wanted := ""
		for _, name := range c.Kernels {
			if slices.Contains(k.Names, name) || filepath.Base(k.Root) == name || k.Release == name {
				wanted, named[name] = "kernel", true
			}
		}
		switch {
		case c.All:
			wanted = "kernel"
		case len(c.Kernels) == 0 && len(k.Names) == 0:
			wanted = "kernel that no name leads to any more"
		}
		if wanted != "" {
			list = append(list, Garbage{Path: k.Root, What: wanted})
		}
	}
	for _, name := range c.Kernels {
		if !named[name] {
			return nil, &fs.PathError{Op: "clean", Path: name, Err: ErrNoKernel}
		}
	}
	if len(c.Kernels) > 0 {
		return list, nil
	}
	add := func(pattern, what string) error {
		paths, err := filepath.Glob(filepath.Join(cache, pattern))
		for _, path := range paths {
			if !strings.HasSuffix(path, ".lock") {
				list = append(list, Garbage{Path: path, What: what})
			}
		}
		return err
	}
	err = errors.Join(add("kernels/"+unfinished+"*", "interrupted download or build"),
		add("kernels/*/"+unfinished+"*", "interrupted download"), add("build/*", "interrupted build"))
	if c.All {
		err = errors.Join(err, add("modules/*", "modules built out of tree"), add("apt/*", "lists of packages"), add("names/*", "name"))
	}
	return list, err
}

// remove removes one piece, unless a process uses it. From the first moment on nobody
// finds half of it.
func remove(cache string, g *Garbage) error {
	if info, err := os.Lstat(g.Path); err == nil && info.Mode()&fs.ModeSymlink != 0 {
		return os.Remove(g.Path)
	}
	unlock, err := tryLock(g.Path)
	if err == nil && filepath.Base(filepath.Dir(g.Path)) == "build" {
		unlock()
		unlock, err = tryLock(g.Path + ".lock")
	}
	switch {
	case errors.Is(err, ErrBusy):
		g.Kept = ErrBusy.Error()
		return nil
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	}
	defer unlock()
	doomed := g.Path
	if filepath.Dir(g.Path) == filepath.Join(cache, "kernels") {
		doomed = filepath.Join(cache, "kernels", unfinished+"clean-"+filepath.Base(g.Path))
		if err := os.Rename(g.Path, doomed); err != nil {
			return err
		}
	}
	if err := os.RemoveAll(doomed); err != nil {
		return err
	}
	if err := os.Remove(g.Path + ".lock"); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
