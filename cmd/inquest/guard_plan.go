package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/pflag"

	"inquest/guard"
)

var guardPlanTool = &tool{
	name:  "plan",
	short: "say what apply would do, and change nothing",
	long: `Says whether the running kernel has the bug, finds each rule that queues packets, in
nftables and in the tables of iptables, and says of each whether SYN/ACKs that this
machine makes come to it. A carve-out is a copy of such a rule that accepts where the
other queues, and only SYN/ACKs; no other packet, and no other rule, is affected.

With --iptables it prints commands, for the rules that iptables-save has printed to
FILE, here or on another machine; - is standard input.`,
	example: `inquest guard plan
iptables-save | inquest guard plan --iptables - | sh -e
ip6tables-save | inquest guard plan --iptables - --program ip6tables`,
	setup: func(flags *pflag.FlagSet) toolFunc {
		asJSON := flags.Bool("json", false, "print JSON")
		saved := flags.String("iptables", "", "print commands for what iptables-save has printed to `FILE`")
		program := flags.String("program", "iptables", "`NAME` of the program that the commands call")
		return func(io stdio, _ []string) error {
			if *saved != "" {
				return planIPTables(io, *saved, *program, *asJSON)
			}
			s, err := guard.ReadStatus(context.Background())
			if err != nil {
				return guardError("plan", err)
			}
			if *asJSON {
				return printJSON(io, s)
			}
			printPlan(io, s)
			return nil
		}
	},
}

func printPlan(io stdio, s *guard.Status) {
	if !s.Needed {
		fmt.Fprintf(io.out, "kernel %s takes no shield: %s\n", s.Release, s.Why)
		printRules(io, s.Rules)
		return
	}
	fmt.Fprintf(io.out, "kernel %s takes a shield: %s\n", s.Release, s.Why)
	printRules(io, s.Rules)
	printHook(io, s.Hook)
	if s.Rules.Open() {
		fmt.Fprintf(io.out, "\ninquest guard apply --rule puts a carve-out before each rule that is open.\n%s\n", whatRulesCost)
	}
	if s.Hook == nil {
		fmt.Fprintln(io.out, "\ninquest guard apply --hook builds and loads a kernel module; everything is inspected as before.")
	}
}

// planIPTables prints the commands for recorded rules.
func planIPTables(out stdio, path, program string, asJSON bool) error {
	var from io.Reader = os.Stdin
	if path != "-" {
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		defer f.Close()
		from = f
	}
	commands, points, err := guard.Commands(program, from)
	if err != nil {
		return err
	}
	if asJSON {
		return printJSON(out, map[string]any{"commands": append([]string{}, commands...), "points": append([]guard.Point{}, points...)})
	}
	for _, p := range points {
		for _, cost := range p.Costs {
			fmt.Fprintf(out.out, "# %s: %s\n", clean(p.Rule), cost)
		}
	}
	if len(commands) > 0 {
		fmt.Fprintln(out.out, strings.Join(commands, "\n"))
	}
	return nil
}
