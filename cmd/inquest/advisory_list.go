package main

import (
	"fmt"
	"strings"

	"github.com/spf13/pflag"

	"inquest/advisory"
)

var advisoryListTool = &tool{
	name:  "list",
	short: "list the known bugs",
	long: `Lists the known bugs: id, class, the mainline release with the fix, and what goes wrong.
Your own are marked with a star.`,
	example: `inquest advisory list
inquest advisory list --advisories ./advisories --json`,
	setup: func(flags *pflag.FlagSet) toolFunc {
		var a advisories
		a.flags(flags)
		return func(io stdio, args []string) error {
			all, err := a.load(io, "list", nil)
			if err != nil {
				return err
			}
			if a.asJSON {
				return printJSON(io, all)
			}
			for _, b := range all {
				fmt.Fprintf(io.out, "%-25s %-17s %-6s %s\n", b.ID+star(b), b.Class, b.Fixed[0].Version, b.Title)
			}
			return nil
		}
	},
}

// star marks what did not ship with Inquest.
func star(a *advisory.Advisory) string {
	if strings.HasPrefix(a.File, "known/") {
		return ""
	}
	return "*"
}
