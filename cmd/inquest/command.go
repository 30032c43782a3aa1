package main

import (
	"errors"
	"fmt"
	"regexp"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"inquest/kernel"
)

// command is one subcommand. A value of it describes both `inquest NAME DUMP …`
// and the line `NAME …` of a shell on an opened dump.
type command struct {
	name    string
	aliases []string
	args    string // after the dump, as the usage shows them: "[PID | TASK]..."
	min     int    // arguments after the dump, at least
	max     int    // at most; -1 for any number
	short   string // one line, lower case
	long    string // what the reader of `inquest help NAME` needs
	example string // lines of commands, without indentation

	// complete returns the words that an argument may become; may be nil.
	complete func(k *kernel.Kernel, word string) []string

	// setup declares the flags and returns what runs the command once they are
	// parsed. Each invocation calls it anew, so that flags never outlive one line.
	setup func(flags *pflag.FlagSet) runFunc
}

// runFunc runs a command with its arguments, the dump left out.
type runFunc func(s *session, args []string) error

// options are the flags that every command has.
type options struct {
	json  bool
	parts []string
}

func (o *options) declare(flags *pflag.FlagSet) {
	flags.BoolVar(&o.json, "json", false, "print JSON")
	flags.StringArrayVar(&o.parts, "part", nil, "`FILE` is another part of the split dump; may be repeated")
}

// cobra makes the command a subcommand of the program.
func (c *command) cobra(io stdio) *cobra.Command {
	cmd := &cobra.Command{
		Use:                   c.use(),
		Aliases:               c.aliases,
		Short:                 c.short,
		Long:                  c.long,
		Example:               c.example,
		DisableFlagsInUseLine: true,
	}
	var opts options
	run := c.setup(cmd.Flags())
	opts.declare(cmd.Flags())
	cmd.ValidArgsFunction = func(_ *cobra.Command, args []string, word string) ([]string, cobra.ShellCompDirective) {
		if len(args) == 0 || c.complete == nil {
			return nil, cobra.ShellCompDirectiveDefault
		}
		return c.words(append(args[:1:1], opts.parts...), word), cobra.ShellCompDirectiveNoFileComp
	}
	cmd.RunE = func(_ *cobra.Command, args []string) error {
		if len(args) == 0 {
			return usagef(c, "which dump?")
		}
		paths, rest := args[:1], args[1:]
		if c.max == 0 {
			// Nothing but dumps can follow.
			paths, rest = args, nil
		}
		if err := c.check(rest); err != nil {
			return err
		}
		s := newSession(c, io, opts, append(paths, opts.parts...))
		defer s.close()
		err := run(s, rest)
		if usage := (usageError{}); err != nil && !errors.As(err, &usage) && s.dump != nil && s.dump.Incomplete {
			err = fmt.Errorf("%w (this dump is incomplete)", err)
		}
		return err
	}
	return cmd
}

func (c *command) use() string {
	use := c.name + " DUMP"
	if c.max == 0 {
		use += " [PART]..."
	}
	if c.args != "" {
		use += " " + c.args
	}
	return use
}

func (c *command) check(args []string) error {
	switch {
	case len(args) < c.min:
		return usagef(c, "too few arguments")
	case c.max >= 0 && len(args) > c.max:
		return usagef(c, "%q is one argument too many", args[c.max])
	}
	return nil
}

// usageError is a command line that makes no sense.
type usageError struct{ text string }

func (e usageError) Error() string { return e.text }

// usagef builds the error of a command line that c cannot make sense of.
func usagef(c *command, format string, args ...any) error {
	return usageError{fmt.Sprintf("%s: %s\nusage: inquest %s\nSee `inquest help %s`.", c.name, fmt.Sprintf(format, args...), c.use(), c.name)}
}

// crashFlags are the single-dash flags of crash(8) that are not single letters.
var crashFlags = regexp.MustCompile(`^-(8|16|32|64)$`)

// crashArgs spells crash's -8, -16, -32 and -64 as the flag parser wants them.
func crashArgs(args []string) []string {
	out := make([]string, len(args))
	for i, a := range args {
		if out[i] = a; crashFlags.MatchString(a) {
			out[i] = "-" + a
		}
	}
	return out
}
