package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strings"

	"golang.org/x/sys/unix"

	"inquest/lab"
)

var labGroup = &group{
	name:  "lab",
	short: "make it happen in a virtual machine",
	long: `Boots real kernels under QEMU, makes a named thing happen in them, and keeps the dump,
the console and the truth about what was done: to see whether a fix or a workaround
holds before it is rolled out, and whether Inquest is right.

Nothing needs root and nothing is installed. Kernels are kept below the user's cache
directory ($XDG_CACHE_HOME/inquest). docs/lab.md is the guide.`,
	exit: `0 what happened is what was expected; 1 something else did, or it could not be
done; 2 the command line is wrong.`,
	tools: []*tool{
		labListTool,
		labRunTool,
		labMatrixTool,
		labKernelTool,
		labCleanTool,
	},
}

// untilInterrupted is the context of work that Ctrl-C ends in good order.
func untilInterrupted() (context.Context, context.CancelFunc) {
	return signal.NotifyContext(context.Background(), unix.SIGINT, unix.SIGTERM, unix.SIGHUP)
}

// labError says of an error what to do next.
func labError(tool string, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, context.Canceled):
		return fmt.Errorf("lab %s: interrupted", tool)
	case errors.Is(err, lab.ErrNoScenario):
		return usageError{fmt.Sprintf("lab %s: %v\nSee `inquest lab list`.", tool, err)}
	case errors.Is(err, lab.ErrExperiment):
		return usageError{fmt.Sprintf("lab %s: %v\nSee `inquest help lab %[1]s`.", tool, err)}
	}
	return fmt.Errorf("lab %s: %w", tool, err)
}

// assignments reads KEY=VALUE words.
func assignments(words []string) (map[string]string, error) {
	set := make(map[string]string)
	for _, word := range words {
		key, value, ok := strings.Cut(word, "=")
		if !ok || key == "" {
			return nil, usageError{fmt.Sprintf("lab: %q is not KEY=VALUE", word)}
		}
		set[key] = value
	}
	return set, nil
}

// accel is the value of --accel.
type accel lab.Accel

func (a accel) String() string { return string(a) }

// Type names the value in usage texts.
func (a accel) Type() string { return "kvm|tcg" }

// Set takes the accelerators that there are.
func (a *accel) Set(value string) error {
	switch value {
	case "kvm", "tcg", "":
		*a = accel(value)
		return nil
	}
	return errors.New("the accelerators are kvm and tcg")
}

// printJSON prints one document.
func printJSON(io stdio, v any) error {
	e := json.NewEncoder(io.out)
	e.SetIndent("", "  ")
	return e.Encode(v)
}

// ownProgram is this program's file, which is the init of its guests.
func ownProgram() (string, error) {
	path, err := os.Executable()
	if err != nil {
		return "", fmt.Errorf("find this program's file, which is to be the guest's init: %w", err)
	}
	return path, nil
}
