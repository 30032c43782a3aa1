package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"time"

	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"

	"inquest/guard"
)

var guardApplyTool = &tool{
	name:  "apply",
	short: "put a shield up",
	long: `Without flags, or with --rule, puts a carve-out right before each rule that may queue
SYN/ACKs which this machine makes, in the network namespace that it runs in. Who loads
those rules anew takes the carve-outs away; --watch stays and puts them back at once.

--hook builds the kernel module for the running kernel, which takes its headers, make
and gcc, and loads it. The module tries the kernel before and after it hooks
nf_reinject, and refuses a kernel that has the fix or that is not what its headers say.
It is gone after a reboot; for DKMS, --source writes its source to a directory:

inquest guard apply --source /usr/src/inquest-guard-1 && dkms install inquest-guard/1

A kernel that is known to have the fix is left alone, unless --force is given.`,
	example: `inquest guard apply
inquest guard apply --rule --watch
inquest guard apply --hook`,
	setup: func(flags *pflag.FlagSet) toolFunc {
		var a application
		flags.BoolVar(&a.rule, "rule", false, "put carve-outs before the rules that queue")
		flags.BoolVar(&a.hook, "hook", false, "build and load the kernel module")
		flags.BoolVar(&a.watch, "watch", false, "stay, and put carve-outs back when the rules are loaded anew")
		flags.BoolVar(&a.force, "force", false, "also if the kernel is known to have the fix")
		flags.StringVar(&a.source, "source", "", "only write the module's source to `DIR`, for DKMS")
		flags.BoolVar(&a.json, "json", false, "print JSON, with --watch one object a line")
		return func(io stdio, _ []string) error {
			a.io = io
			if a.watch && a.hook && !a.rule {
				return usageError{"guard apply: --watch is for carve-outs; add --rule\nSee `inquest help guard apply`."}
			}
			return guardError("apply", a.run(context.Background()))
		}
	},
}

// application is one use of guard apply.
type application struct {
	io                             stdio
	rule, hook, watch, force, json bool
	source                         string
}

func (a *application) run(ctx context.Context) error {
	if a.source != "" {
		return os.CopyFS(a.source, guard.Module())
	}
	if needed, why := guard.Needed(guard.Exposed()); !needed && !a.force {
		if a.json {
			return printJSON(a.io, map[string]any{"needed": false, "why": why})
		}
		fmt.Fprintf(a.io.out, "nothing is to be done: %s\n", why)
		return nil
	}
	if a.hook {
		if err := a.loadHook(ctx); err != nil {
			return err
		}
	}
	switch {
	case a.watch:
		return a.keepRules(ctx)
	case a.rule || !a.hook:
		if _, err := guard.ApplyRules(ctx); err != nil {
			return err
		}
	}
	return a.report(ctx)
}

// report says how it stands now.
func (a *application) report(ctx context.Context) error {
	s, err := guard.ReadStatus(ctx)
	if err != nil {
		return err
	}
	if a.json {
		if err := printJSON(a.io, s); err != nil {
			return err
		}
	} else {
		if a.rule || !a.hook {
			printRules(a.io, s.Rules)
			if slices.ContainsFunc(s.Rules.Points, func(p guard.Point) bool { return p.State == guard.Shielded }) {
				fmt.Fprintln(a.io.out, whatRulesCost)
			}
		}
		if a.hook {
			printHook(a.io, s.Hook)
		}
	}
	if s.Hook == nil && s.Rules.Open() {
		return errors.New("some rules that queue cannot be shielded by rule; use --hook")
	}
	return nil
}

// loadHook builds and loads the module.
func (a *application) loadHook(ctx context.Context) error {
	if _, err := guard.ReadHook(); err == nil {
		return guard.ErrHooked
	}
	release, err := guard.Release()
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "inquest-guard-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	path, err := guard.Build(ctx, release, filepath.Join(dir, "kmod"))
	if err != nil {
		return err
	}
	return guard.Load(path)
}

// kept is one line of --watch --json.
type kept struct {
	Time    time.Time `json:"time"`
	Seconds float64   `json:"seconds"` // from the change to the carve-outs
	*guard.Rules
}

// keepRules stays until a signal.
func (a *application) keepRules(ctx context.Context) error {
	ctx, stop := signal.NotifyContext(ctx, unix.SIGTERM, unix.SIGINT)
	defer stop()
	w, err := guard.Watch(ctx)
	if err != nil {
		return err
	}
	return w.Run(ctx, func(l guard.Look) {
		if out, ok := a.io.out.(interface{ Flush() error }); ok {
			defer out.Flush()
		}
		now := time.Now()
		switch {
		case l.Err != nil:
			fmt.Fprintf(a.io.err, "%s: %v; trying again\n", now.Format(time.RFC3339), l.Err)
		case a.json:
			json.NewEncoder(a.io.out).Encode(kept{now, l.After.Seconds(), l.Rules})
		default:
			fmt.Fprintf(a.io.out, "%s: carve-outs are in force, %.1f ms after the change\n", now.Format(time.RFC3339), l.After.Seconds()*1000)
			printRules(a.io, l.Rules)
		}
	})
}
