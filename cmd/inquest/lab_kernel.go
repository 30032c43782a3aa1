package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/pflag"

	"inquest/internal/spelling"
	"inquest/lab"
)

var labKernelTool = &tool{
	name:  "kernel",
	args:  "list|fetch|build [KERNEL]...",
	min:   1,
	max:   64,
	short: "list, fetch and build kernels",
	long: `list    lists the kernels in the cache, those with a short name, and the recipes.
fetch   downloads kernels of Debian and unpacks them into the cache: debian is the
        newest of this machine's release, debian-6.1 and the like of another one,
        linux-image-amd64/trixie is any package; "all" is the newest of each suite.
        --debug adds the vmlinux with debug information, some hundreds of megabytes.
build   builds recipes from Debian's source: minutes, 3 GiB of disk, a compiler. A
        build that was interrupted goes on where it stood.

"inquest lab run --kernel" fetches and builds what is not there by itself.`,
	example: `inquest lab kernel list
inquest lab kernel fetch debian-6.12 --debug
inquest lab kernel build nfqbug-6.1`,
	setup: func(flags *pflag.FlagSet) toolFunc {
		var c labKernels
		flags.BoolVar(&c.debug, "debug", false, "fetch the debug information, too")
		flags.BoolVar(&c.json, "json", false, "print JSON")
		flags.BoolVarP(&c.quiet, "quiet", "q", false, "show no progress")
		return func(io stdio, args []string) error {
			c.io = io
			verb, names := args[0], args[1:]
			switch verb {
			case "list":
				if len(names) > 0 {
					return usageError{"lab kernel list: it lists all\nSee `inquest help lab kernel`."}
				}
				return labError("kernel list", c.list())
			case "fetch", "build":
				if len(names) == 0 {
					return usageError{fmt.Sprintf("lab kernel %s: which kernel?\nSee `inquest lab kernel list`.", verb)}
				}
				return labError("kernel "+verb, c.get(verb, names))
			}
			return usageError{fmt.Sprintf("lab kernel: there is no command %q%s\nSee `inquest help lab kernel`.",
				verb, spelling.DidYouMean(spelling.Closest(verb, []string{"list", "fetch", "build"})))}
		}
	},
}

// labKernels is what is to be done with kernels.
type labKernels struct {
	debug, json, quiet bool
	io                 stdio
}

// labKernel is a kernel as --json prints it.
type labKernel struct {
	Name    string `json:"name"`
	Release string `json:"release"`
	Image   string `json:"image"`
	Modules string `json:"modules,omitempty"`
	Debug   string `json:"debug,omitempty"`
}

// get fetches or builds kernels.
func (c *labKernels) get(verb string, names []string) error {
	ctx, stop := untilInterrupted()
	defer stop()
	if verb == "fetch" && len(names) == 1 && names[0] == "all" {
		names = nil
		for _, s := range lab.Suites() {
			names = append(names, s.Name)
		}
	}
	steps := newSteps(c.io.err, c.quiet)
	kernels, err := c.getAll(ctx, verb, names, steps)
	steps.end()
	if err != nil {
		return err
	}
	if c.json {
		return printJSON(c.io, kernels)
	}
	for _, k := range kernels {
		fmt.Fprintf(c.io.out, "%-16s %s  %s\n", k.Name, k.Release, k.Image)
		if k.Debug != "" {
			fmt.Fprintf(c.io.out, "%-16s %s  %s\n", "", strings.Repeat(" ", len(k.Release)), k.Debug)
		}
	}
	return nil
}

func (c *labKernels) getAll(ctx context.Context, verb string, names []string, steps *steps) ([]labKernel, error) {
	var list []labKernel
	for _, name := range names {
		if verb == "build" {
			if _, err := lab.FindRecipe(name); err != nil {
				return nil, err
			}
		}
		k, err := lab.FindKernel(ctx, name, steps.begin)
		if err != nil {
			return nil, err
		}
		if c.debug {
			if err := k.FetchDebug(ctx, steps.begin); err != nil {
				return nil, err
			}
		}
		list = append(list, labKernel{name, k.Release, k.Image, k.Modules, k.Debug})
	}
	return list, nil
}

// list prints what is in the cache, and what could be.
func (c *labKernels) list() error {
	cached, err := lab.CachedKernels()
	if err != nil {
		return err
	}
	recipes, err := lab.Recipes()
	if err != nil {
		return err
	}
	if c.json {
		return c.listJSON(cached, recipes)
	}
	have := make(map[string]bool)
	for _, k := range cached {
		for _, name := range k.Names {
			have[name] = true
		}
		names := strings.Join(k.Names, ", ")
		if names == "" {
			names = "(replaced by a newer one)"
		}
		debug := ""
		if k.Debug != "" {
			debug = ", with debug information"
		}
		fmt.Fprintf(c.io.out, "%-32s %10s%s  %s\n", k.Release, formatBytes(uint64(k.Bytes)), debug, names)
	}
	fmt.Fprintf(c.io.out, "\nNot here yet:\n")
	for _, s := range lab.Suites() {
		suite := s.Debian
		if suite == "" {
			suite = "this machine's release"
		}
		if !have[s.Name] {
			fmt.Fprintf(c.io.out, "  %-14s the newest kernel of Debian %s\n", s.Name, suite)
		}
	}
	for _, r := range recipes {
		if !have[r.Name] {
			fmt.Fprintf(c.io.out, "  %-14s %s\n", r.Name, r.Doc)
		}
	}
	return nil
}

func (c *labKernels) listJSON(cached []lab.CachedKernel, recipes []*lab.Recipe) error {
	type kernel struct {
		labKernel
		Names []string `json:"names"`
		Bytes int64    `json:"bytes"`
		InUse bool     `json:"in_use"`
	}
	type recipe struct {
		Name   string `json:"name"`
		Doc    string `json:"doc"`
		Source string `json:"source"`
	}
	all := struct {
		Cached  []kernel `json:"cached"`
		Suites  []string `json:"suites"`
		Recipes []recipe `json:"recipes"`
	}{[]kernel{}, nil, []recipe{}}
	for _, k := range cached {
		name := k.Release
		if len(k.Names) > 0 {
			name = k.Names[0]
		}
		all.Cached = append(all.Cached, kernel{labKernel{name, k.Release, k.Image, k.Modules, k.Debug}, append([]string{}, k.Names...), k.Bytes, k.InUse})
	}
	for _, s := range lab.Suites() {
		all.Suites = append(all.Suites, s.Name)
	}
	for _, r := range recipes {
		all.Recipes = append(all.Recipes, recipe{r.Name, r.Doc, r.Source})
	}
	return printJSON(c.io, all)
}
