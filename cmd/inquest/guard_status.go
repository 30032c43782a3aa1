package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/pflag"

	"inquest/guard"
)

var guardStatusTool = &tool{
	name:  "status",
	short: "say which shields are in force, and what they saved",
	long: `Lists the rules that queue packets in the network namespace that it runs in, with the
SYN/ACKs that each carve-out has accepted, and what the module has counted: references
that it gave back, and those of them that were the last, each of which the kernel would
have freed as what it is not.

The exit status is 1 if the kernel takes a shield and has none.`,
	example: `inquest guard status
inquest guard status --json | jq .hook.last_references`,
	setup: func(flags *pflag.FlagSet) toolFunc {
		asJSON := flags.Bool("json", false, "print JSON")
		return func(io stdio, _ []string) error {
			s, err := guard.ReadStatus(context.Background())
			if err != nil {
				return guardError("status", err)
			}
			if *asJSON {
				if err := printJSON(io, s); err != nil {
					return err
				}
			} else {
				needs := "takes no shield"
				if s.Needed {
					needs = "takes a shield"
				}
				fmt.Fprintf(io.out, "kernel %s %s: %s\n", s.Release, needs, s.Why)
				printRules(io, s.Rules)
				printHook(io, s.Hook)
			}
			if !s.Safe {
				return errors.New("the machine is exposed, or may be: see inquest guard plan")
			}
			return nil
		}
	},
}
