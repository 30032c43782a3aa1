package main

import (
	"errors"
	"fmt"
	"os"

	"inquest/inspect/rule"
	"inquest/verdict"
)

var verdictGroup = &group{
	name:  "verdict",
	short: "judge packets in user space by rules",
	long: `The kernel hands packets over through NFQUEUE, a daemon looks into them, follows
their flows, and accepts, drops, rejects, marks or passes them on, as the rules of one
YAML file say. Once the verdict of a flow is final, the kernel applies it by itself.

docs/verdict.md is the guide.`,
	exit: `0 done; 1 the rules were refused, expectations not met, or what was asked
for could not be done; 2 the command line is wrong.`,
	tools: []*tool{
		verdictRunTool,
		verdictCheckTool,
		verdictTestTool,
		verdictTopTool,
		verdictRulesTool,
	},
}

// loadRules reads a rule file. What is wrong with it goes to standard error, with the
// lines that it is in.
func loadRules(io stdio, path string) (*verdict.File, error) {
	file, err := verdict.Load(path)
	var problems *rule.Error
	if !errors.As(err, &problems) {
		return file, err
	}
	if text, readErr := os.ReadFile(path); readErr == nil {
		fmt.Fprintf(io.err, "%s\n", verdict.Excerpt(problems, text))
	}
	return nil, fmt.Errorf("%s is refused: %s", path, plural(len(problems.Problems), "problem"))
}
