package main

import (
	"fmt"

	"github.com/spf13/pflag"

	"inquest/lab"
)

var labCleanTool = &tool{
	name:  "clean",
	args:  "[KERNEL]...",
	max:   64,
	short: "free what the cache holds in vain",
	long: `Removes from the cache what nobody needs: kernels that newer ones took the place of, and
downloads and builds that were interrupted. With names it removes those kernels and
nothing else, with --all everything. It asks nothing, and says what it frees; what a
process uses stays. Folders of runs are yours, and not touched.`,
	example: `inquest lab clean --dry-run
inquest lab clean debian-6.12
inquest lab clean --all`,
	setup: func(flags *pflag.FlagSet) toolFunc {
		var c lab.Cleaning
		flags.BoolVar(&c.All, "all", false, "remove everything")
		flags.BoolVar(&c.DryRun, "dry-run", false, "remove nothing, but say what would be")
		asJSON := flags.Bool("json", false, "print JSON")
		return func(io stdio, args []string) error {
			if c.All && len(args) > 0 {
				return usageError{"lab clean: --all and names do not go together\nSee `inquest help lab clean`."}
			}
			c.Kernels = args
			ctx, stop := untilInterrupted()
			defer stop()
			list, err := lab.Clean(ctx, c)
			if *asJSON && err == nil {
				return printJSON(io, append([]lab.Garbage{}, list...))
			}
			var freed int64
			for _, g := range list {
				what := g.What
				if g.Kept != "" {
					what += ": stays, " + g.Kept
				} else {
					freed += g.Bytes
				}
				fmt.Fprintf(io.out, "%10s  %s (%s)\n", formatBytes(uint64(g.Bytes)), g.Path, what)
			}
			verb := "freed"
			if c.DryRun {
				verb = "would be freed"
			}
			if err == nil {
				fmt.Fprintf(io.out, "%s %s\n", formatBytes(uint64(freed)), verb)
			}
			return labError("clean", err)
		}
	},
}
