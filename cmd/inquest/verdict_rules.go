package main

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/pflag"

	"inquest/nfqueue"
	"inquest/verdict"
)

var verdictRulesTool = &tool{
	name:  "rules",
	args:  "[FILE]",
	max:   1,
	short: "print, install or remove the kernel's rules",
	long: `Prints what "verdict run" installs for a rule file, as a file for nft -f or as
commands for iptables and ip6tables, to be used with "verdict run --no-install". The
commands end each of the table filter's chains with ours; where a chain accepts packets
before that, put ours first.

Whether SYN/ACKs that this machine makes are kept out of the queues depends on the
kernel this runs on, unless the file says carve_out: always or never. To look at the
kernel's code takes root.`,
	example: `inquest verdict rules rules.yaml | nft -f -
inquest verdict rules rules.yaml --iptables | sh -e
inquest verdict rules --remove`,
	setup: func(flags *pflag.FlagSet) toolFunc {
		iptables := flags.Bool("iptables", false, "print commands for iptables and ip6tables")
		undo := flags.Bool("iptables-undo", false, "print the commands that undo those of --iptables")
		install := flags.Bool("install", false, "install the nftables table, as verdict run does")
		remove := flags.Bool("remove", false, "remove the nftables table of a daemon that runs no more")
		table := flags.String("table", "inquest", "`NAME` of the table to remove, if no file tells it")
		return func(io stdio, args []string) error {
			if len(args) == 0 {
				if *remove {
					return (&verdict.Ruleset{Table: *table}).Remove()
				}
				return usageError{"verdict rules: whose rules? name a file\nSee `inquest help verdict rules`."}
			}
			file, err := loadRules(io, args[0])
			if err != nil {
				return err
			}
			carveOut, why := file.Config.CarveOutNow()
			r := verdict.NewRuleset(file.Config, carveOut)
			comment := "# SYN/ACKs that this machine makes are queued: "
			if carveOut {
				comment = "# SYN/ACKs that this machine makes are kept out of the queues: "
			}
			switch {
			case *remove:
				return r.Remove()
			case *install:
				way, err := r.Install()
				if err != nil {
					return fmt.Errorf("verdict rules: %w%s", err, verdictAdvice(err))
				}
				fmt.Fprintf(io.out, "installed table inet %s, by %s\n", r.Table, way)
			case *undo:
				fmt.Fprintln(io.out, strings.Join(r.IPTablesRemove(), "\n"))
			case *iptables:
				fmt.Fprintf(io.out, "%s%s\n%s\n", comment, why, strings.Join(r.IPTables(), "\n"))
			default:
				fmt.Fprintf(io.out, "%s%s\n%s", comment, why, r.NFT())
			}
			return nil
		}
	},
}

// verdictAdvice says what to do next about an error of the daemon; "" if there is
// nothing to say.
func verdictAdvice(err error) string {
	switch {
	case errors.Is(err, verdict.ErrNoQueueing), errors.Is(err, verdict.ErrNoNFTables):
		return "\nTo use iptables instead: inquest verdict rules FILE --iptables | sh -e; then run with --no-install"
	case errors.Is(err, verdict.ErrPermission), errors.Is(err, nfqueue.ErrPermission):
		return "\nRun it as root, or as packaging/systemd/inquest-verdict.service does"
	case errors.Is(err, nfqueue.ErrBusy):
		return "\nAnother program reads that queue; /proc/net/netfilter/nfnetlink_queue lists them with their port IDs, mostly PIDs"
	}
	return ""
}
