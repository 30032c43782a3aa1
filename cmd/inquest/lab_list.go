package main

import (
	"fmt"
	"strings"

	"github.com/spf13/pflag"

	"inquest/lab"
)

var labListTool = &tool{
	name:  "list",
	args:  "[SCENARIO|FAMILY]",
	max:   1,
	short: "list scenarios, their options, and what ought to happen",
	long: `Lists the scenarios: what can be made to happen. Of one scenario, or of a family such as
"lkdtm", it says all: the options with their values, of which the first is the default,
the kernel that it is for, and what ought to come of it.`,
	example: `inquest lab list
inquest lab list lkdtm
inquest lab list sysrq --json`,
	setup: func(flags *pflag.FlagSet) toolFunc {
		asJSON := flags.Bool("json", false, "print JSON")
		return func(io stdio, args []string) error {
			list, detailed := lab.Scenarios(), len(args) > 0
			if detailed {
				var err error
				if list, err = lab.Family(args[0]); err != nil {
					return labError("list", err)
				}
			}
			if *asJSON {
				return listJSON(io, list)
			}
			for _, s := range list {
				fmt.Fprintf(io.out, "%-32s %s\n", s.Name, s.Doc)
				if detailed && len(list) == 1 {
					printScenario(io, s)
				}
			}
			return nil
		}
	},
}

// printScenario prints all about one scenario, but its name.
func printScenario(io stdio, s *lab.Scenario) {
	for _, o := range s.Options {
		values := strings.Join(o.Values, "|")
		if o.Open {
			values += ", or another"
		}
		fmt.Fprintf(io.out, "  --set %-24s %s\n", o.Name+"="+values, o.Doc)
	}
	kernel := s.Kernel
	if kernel == "" {
		kernel = lab.DefaultKernel
	}
	fmt.Fprintf(io.out, "  kernel    %s\n", kernel)
	truth, err := lab.Expected(s, nil)
	if err != nil {
		return
	}
	fmt.Fprintf(io.out, "  expected  %s\n", truthText(truth))
	if truth.Why != "" {
		fmt.Fprintf(io.out, "            %s\n", truth.Why)
	}
}

// truthText is what ought to happen in one line: "panic, user-panic in sysrq_handle_crash".
func truthText(t lab.Truth) string {
	text := string(t.Outcome)
	if text == "" {
		text = "any outcome"
	}
	if len(t.Classes) > 0 {
		text += ", " + strings.Join(t.Classes, " or ")
	}
	if len(t.Culprits) > 0 {
		text += " in " + strings.Join(t.Culprits, " or ")
	}
	if t.Object != "" {
		text += " of " + t.Object
	}
	return text
}

func listJSON(io stdio, list []*lab.Scenario) error {
	type option struct {
		Name   string   `json:"name"`
		Doc    string   `json:"doc"`
		Values []string `json:"values"`
		Open   bool     `json:"open"`
	}
	type scenario struct {
		Name     string    `json:"name"`
		Doc      string    `json:"doc"`
		Kernel   string    `json:"kernel,omitempty"`
		Options  []option  `json:"options"`
		Expected lab.Truth `json:"expected"`
	}
	all := []scenario{}
	for _, s := range list {
		truth, err := lab.Expected(s, nil)
		if err != nil {
			return labError("list", err)
		}
		options := []option{}
		for _, o := range s.Options {
			options = append(options, option(o))
		}
		all = append(all, scenario{s.Name, s.Doc, s.Kernel, options, truth})
	}
	return printJSON(io, all)
}
