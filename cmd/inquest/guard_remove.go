package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/pflag"

	"inquest/guard"
)

var guardRemoveTool = &tool{
	name:  "remove",
	short: "take the shields down",
	long: `Takes away all carve-outs in the network namespace that it runs in, and unloads the
module; with --rule or --hook only those. Nothing else of the rules is touched, and no
trace is left. Packets that wait in queues are not lost.`,
	example: `inquest guard remove
inquest guard remove --hook`,
	setup: func(flags *pflag.FlagSet) toolFunc {
		rule := flags.Bool("rule", false, "take the carve-outs away")
		hook := flags.Bool("hook", false, "unload the kernel module")
		asJSON := flags.Bool("json", false, "print JSON")
		return func(io stdio, _ []string) error {
			both := !*rule && !*hook
			if *hook || both {
				if err := guard.Unload(); err != nil && !(both && errors.Is(err, guard.ErrNoHook)) {
					return guardError("remove", err)
				}
			}
			if *rule || both {
				if _, err := guard.RemoveRules(context.Background()); err != nil {
					return guardError("remove", err)
				}
			}
			s, err := guard.ReadStatus(context.Background())
			if err != nil {
				return guardError("remove", err)
			}
			if *asJSON {
				return printJSON(io, s)
			}
			printRules(io, s.Rules)
			printHook(io, s.Hook)
			if !s.Safe {
				fmt.Fprintf(io.out, "the machine is exposed, or may be: %s\n", s.Why)
			}
			return nil
		}
	},
}
