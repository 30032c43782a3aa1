package main

import (
	"fmt"
	"slices"

	"github.com/spf13/pflag"

	"inquest/advisory"
	"inquest/internal/spelling"
)

var advisoryGroup = &group{
	name:  "advisory",
	short: "the known bugs: list them, show one, write one",
	long: `Known kernel bugs are data, one YAML file each: the stack that the bug leaves, what the
code looks like before and after the fix, where it was fixed, and what to do until then.
"inquest explain" and "inquest doctor" use those that ship with Inquest and your own,
which lie in the directories of $INQUEST_ADVISORIES, or else in /etc/inquest/advisories and
in inquest/advisories below $XDG_CONFIG_HOME. docs/advisories.md says how to write one.`,
	exit: `0 done; 1 a file is wrong, or could not be read; 2 the command line is wrong.`,
	tools: []*tool{
		advisoryListTool,
		advisoryShowTool,
		advisoryLintTool,
		advisoryCheckTool,
	},
}

// advisories are the flags of the tools that read advisories, and what they read.
type advisories struct {
	dirs   []string
	asJSON bool
}

func (a *advisories) flags(flags *pflag.FlagSet) {
	flags.StringArrayVar(&a.dirs, "advisories", nil, "read your own advisories from `DIR`, not from the usual directories; may be repeated")
	flags.BoolVar(&a.asJSON, "json", false, "print JSON")
}

// load returns all advisories, or those with the ids. What is wrong with the user's own
// is a warning.
func (a *advisories) load(io stdio, tool string, ids []string) ([]*advisory.Advisory, error) {
	all, err := advisory.Shipped()
	if err != nil {
		return nil, fmt.Errorf("advisory %s: %w", tool, err)
	}
	dirs := a.dirs
	if len(dirs) == 0 {
		dirs = advisory.Directories()
	}
	own, err := advisory.LoadUser(dirs)
	if err != nil {
		fmt.Fprintf(io.err, "inquest: warning: %v\n", err)
	}
	all = advisory.Merge(all, own)
	if len(ids) == 0 {
		return all, nil
	}
	var some []*advisory.Advisory
	for _, id := range ids {
		one := advisory.Find(all, id)
		if one == nil {
			var names []string
			for _, b := range all {
				names = append(names, b.ID)
			}
			return nil, usageError{fmt.Sprintf("advisory %s: there is no advisory %q%s\nSee `inquest advisory list`.",
				tool, id, spelling.DidYouMean(spelling.Closest(id, names)))}
		}
		if !slices.Contains(some, one) {
			some = append(some, one)
		}
	}
	return some, nil
}
