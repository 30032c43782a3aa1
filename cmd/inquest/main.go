// Inquest reads the dump of a crashed Linux machine and says what happened, with
// nothing but the dump.
//
// This command is the thin front of the packages beside it: each subcommand is
// one file with one value of type command, and commands.go lists them.
package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"inquest/internal/spelling"
	"inquest/lab/guest"
	"inquest/vmcore"
)

// Exit codes.
const (
	exitDone    = 0
	exitNothing = 1 // the dump was read, but what was asked for is not to be had
	exitUsage   = 2
	exitNoDump  = 3 // not a dump that can be read
)

func main() {
	if guest.Called() { // this process is the init of a virtual machine that `inquest lab` made
		guest.Main()
	}
	os.Exit(run(os.Args[1:], stdio{os.Stdout, os.Stderr}))
}

// stdio is where a run writes to.
type stdio struct{ out, err io.Writer }

// run is the program.
func run(args []string, io stdio) int {
	out := newOutput(io.out)
	io.out = out
	root := newRoot(io)
	root.SetArgs(crashArgs(args))
	err := root.Execute()
	if flushErr := out.Flush(); err == nil {
		err = flushErr
	}
	if err != nil {
		fmt.Fprintf(io.err, "inquest: %v\n", err)
	}
	return exitCode(err)
}

func exitCode(err error) int {
	var usage usageError
	var open *openError
	var file *fileError
	switch {
	case err == nil:
		return exitDone
	case errors.As(err, &usage):
		return exitUsage
	case errors.As(err, &open), errors.As(err, &file):
		return exitNoDump
	}
	return exitNothing
}

// newRoot builds the cobra command tree from the table.
func newRoot(io stdio) *cobra.Command {
	root := &cobra.Command{
		Use:           "inquest",
		Short:         "say why a Linux machine crashed, from its dump alone",
		SilenceErrors: true,
		SilenceUsage:  true,
		RunE: func(_ *cobra.Command, args []string) error {
			return unknownCommand(args)
		},
		Args: cobra.ArbitraryArgs,
	}
	root.SetOut(io.out)
	root.SetErr(io.err)
	root.SetHelpFunc(help)
	root.SetUsageFunc(func(cmd *cobra.Command) error { help(cmd, nil); return nil })
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		text := err.Error()
		if cmd.HasParent() {
			name := strings.TrimPrefix(cmd.CommandPath(), cmd.Root().Name()+" ")
			text = fmt.Sprintf("%s: %s\nSee `inquest help %s`.", name, text, name)
		}
		return usageError{text}
	})
	for _, c := range commands {
		root.AddCommand(c.cobra(io))
	}
	for _, g := range groups {
		root.AddCommand(g.cobra(io))
	}
	root.AddCommand(manCommand())
	root.InitDefaultHelpCmd()
	root.InitDefaultCompletionCmd()
	return root
}

// unknownCommand says what might have been meant.
func unknownCommand(args []string) error {
	if len(args) == 0 {
		return usageError{"which command?\n" + strings.TrimRight(rootUsage(), "\n")}
	}
	if _, err := os.Stat(args[0]); err == nil {
		return usageError{fmt.Sprintf("%s is a file; say what to do with it: inquest %s %s\nSee `inquest help`.", args[0], commands[0].name, args[0])}
	}
	names := groupNames()
	for _, c := range commands {
		names = append(names, c.name)
	}
	return usageError{fmt.Sprintf("there is no command %q%s\nSee `inquest help`.", args[0], spelling.DidYouMean(spelling.Closest(args[0], names)))}
}

// openError is a dump that cannot be opened.
type openError struct{ err error }

func (e *openError) Error() string {
	var file *fs.PathError
	switch {
	case errors.Is(e.err, vmcore.ErrMissingPart):
		return fmt.Sprintf("open dump: %v, with --part FILE", e.err)
	case errors.As(e.err, &file):
		return fmt.Sprintf("open dump %s: %v", file.Path, file.Err)
	}
	return fmt.Sprintf("open dump: %v", e.err)
}

func (e *openError) Unwrap() error { return e.err }
