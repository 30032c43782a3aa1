package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"time"

	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"

	"inquest/verdict"
)

var verdictTopTool = &tool{
	name:  "top",
	short: "watch a running daemon",
	long: `Shows what the daemon does, once a second: rates, latency, queues, rules by how much
they decide, and anything that is wrong. It reads the daemon's Unix socket, which only
root may. q quits, space pauses.

With --once it prints two looks' difference, with --json all that there is, once.`,
	example: `inquest verdict top
inquest verdict top --json | jq .packets`,
	setup: func(flags *pflag.FlagSet) toolFunc {
		socket := flags.String("socket", "/run/inquest/verdict.sock", "`PATH` of the daemon's socket, as daemon.socket says")
		interval := flags.Duration("interval", time.Second, "`TIME` between two looks")
		once := flags.Bool("once", false, "print what happens during one interval and end")
		asJSON := flags.Bool("json", false, "print the daemon's status as JSON and end")
		return func(io stdio, _ []string) error {
			if *interval < 50*time.Millisecond || *interval > time.Hour {
				return usageError{fmt.Sprintf("verdict top: an interval of %v is not between 50ms and 1h", *interval)}
			}
			if *asJSON {
				s, err := verdict.ReadStatus(*socket)
				if err != nil {
					return err
				}
				e := json.NewEncoder(io.out)
				e.SetIndent("", "  ")
				return e.Encode(s)
			}
			t := terminalOf(io.out)
			if *once {
				return topOnce(io, *socket, *interval, t)
			}
			ctx, stop := signal.NotifyContext(context.Background(), unix.SIGTERM, unix.SIGINT, unix.SIGHUP)
			defer stop()
			out := fileOf(io.out)
			if out == nil {
				return verdict.ErrNoTerminal
			}
			screen := verdict.Screen{Socket: *socket, Interval: *interval, In: os.Stdin, Out: out, Colour: t.colour}
			err := screen.Run(ctx)
			if errors.Is(err, verdict.ErrNoTerminal) {
				return fmt.Errorf("verdict top: %w; use --once or --json", err)
			}
			return err
		}
	},
}

func topOnce(io stdio, socket string, interval time.Duration, t terminal) error {
	before, err := verdict.ReadStatus(socket)
	if err != nil {
		return err
	}
	time.Sleep(interval)
	now, err := verdict.ReadStatus(socket)
	if err != nil {
		return err
	}
	view := verdict.View{Width: max(t.width, 80), Height: 1 << 20, Colour: t.colour}
	for _, line := range view.Render(before, now) {
		fmt.Fprintln(io.out, line)
	}
	return nil
}
