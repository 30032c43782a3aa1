package main

import (
	"context"
	"fmt"
	"os/signal"

	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"

	"inquest/verdict"
)

var verdictRunTool = &tool{
	name:  "run",
	args:  "--config FILE",
	short: "run the daemon",
	long: `Binds the queues that the section "daemon" of the rule file names, installs its own
nftables table, and judges packets until it is told to end with SIGTERM or SIGINT; then
it stops queueing, judges what waits, and removes the table. A table that a killed daemon
left is taken over. SIGHUP, and a change of the file, reload the rules: all of them, or
none if anything is wrong.

It needs CAP_NET_ADMIN, and nothing else but to read the file. With --no-install the
kernel's rules are yours: "inquest verdict rules --iptables" prints them.`,
	example: `inquest verdict run --config /etc/inquest/rules.yaml`,
	setup: func(flags *pflag.FlagSet) toolFunc {
		path := flags.StringP("config", "c", "", "`FILE` with the rules and the section daemon")
		noInstall := flags.Bool("no-install", false, "do not touch nftables: the kernel's rules are somebody else's")
		return func(io stdio, _ []string) error {
			if *path == "" {
				return usageError{"verdict run: which rules? give --config FILE\nSee `inquest help verdict run`."}
			}
			file, err := loadRules(io, *path)
			if err != nil {
				return err
			}
			ctx, stop := signal.NotifyContext(context.Background(), unix.SIGTERM, unix.SIGINT)
			defer stop()
			d, err := verdict.New(file, verdict.Options{NoInstall: *noInstall, Log: verdict.NewLogger(io.err, file.Config.Log)})
			if err != nil {
				return err
			}
			if err := d.Run(ctx); err != nil {
				return fmt.Errorf("verdict run: %w%s", err, verdictAdvice(err))
			}
			return nil
		}
	},
}
