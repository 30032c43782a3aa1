package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"inquest/internal/spelling"
)

// tool is a command that reads no dump, one of a group: `inquest GROUP NAME …`.
type tool struct {
	name    string
	args    string // as the usage shows them: "FILE"
	min     int    // arguments, at least
	max     int    // at most
	short   string // one line, lower case
	long    string // what the reader of `inquest help GROUP NAME` needs
	example string // lines of commands, without indentation

	// setup declares the flags and returns what runs the tool once they are parsed.
	setup func(flags *pflag.FlagSet) toolFunc
}

// toolFunc runs a tool with its arguments.
type toolFunc func(io stdio, args []string) error

// group is a command whose subcommands are tools.
type group struct {
	name  string
	short string
	long  string
	exit  string // what its exit codes mean
	tools []*tool
	alone bool // it has one tool, of the same name, which is the command itself
}

// cobra makes the group a subcommand of the program.
func (g *group) cobra(io stdio) *cobra.Command {
	if g.alone {
		cmd := g.command(io, g.tools[0])
		cmd.Long += "\n\nExit status: " + g.exit
		return cmd
	}
	parent := &cobra.Command{
		Use:                   g.name + " COMMAND",
		Short:                 g.short,
		Long:                  g.long + "\n\nExit status: " + g.exit,
		DisableFlagsInUseLine: true,
		Args:                  cobra.ArbitraryArgs,
		RunE: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return usageError{fmt.Sprintf("%s: which command?\nSee `inquest help %[1]s`.", g.name)}
			}
			return usageError{fmt.Sprintf("%s: there is no command %q%s\nSee `inquest help %[1]s`.", g.name, args[0], spelling.DidYouMean(spelling.Closest(args[0], g.names())))}
		},
	}
	for _, t := range g.tools {
		parent.AddCommand(g.command(io, t))
	}
	return parent
}

// command makes one of the tools a command.
func (g *group) command(io stdio, t *tool) *cobra.Command {
	cmd := &cobra.Command{
		Use:                   t.use(),
		Short:                 t.short,
		Long:                  t.long,
		Example:               t.example,
		DisableFlagsInUseLine: true,
	}
	run := t.setup(cmd.Flags())
	cmd.RunE = func(_ *cobra.Command, args []string) error {
		switch {
		case len(args) < t.min:
			return g.usagef(t, "too few arguments")
		case len(args) > t.max:
			return g.usagef(t, "%q is one argument too many", args[t.max])
		}
		return run(io, args)
	}
	return cmd
}

// path is what a tool is called by, and use with its arguments.
func (g *group) path(t *tool) string {
	if g.alone {
		return g.name
	}
	return g.name + " " + t.name
}

func (g *group) use(t *tool) string { return strings.TrimSpace(g.path(t) + " " + t.args) }

func (g *group) names() []string {
	var names []string
	for _, t := range g.tools {
		names = append(names, t.name)
	}
	return names
}

func (t *tool) use() string {
	if t.args == "" {
		return t.name
	}
	return t.name + " " + t.args
}

// usagef builds the error of a command line that t cannot make sense of.
func (g *group) usagef(t *tool, format string, args ...any) error {
	return usageError{fmt.Sprintf("%s: %s\nusage: inquest %s\nSee `inquest help %[1]s`.",
		g.path(t), fmt.Sprintf(format, args...), g.use(t))}
}

// manPage is the page of the group, with all its tools.
func (g *group) manPage() string {
	var r roff
	r.head("INQUEST-"+g.name, "inquest-"+g.name, g.short)
	r.section("SYNOPSIS")
	for i, t := range g.tools {
		if i > 0 {
			r.line(".br")
		}
		r.line(`.B inquest ` + roffEscape(g.path(t)))
		r.line(`[\fIOPTION\fR]... ` + roffEscape(t.args))
	}
	r.section("DESCRIPTION")
	r.text(g.long)
	for _, t := range g.tools {
		if g.alone {
			r.section("OPTIONS")
		} else {
			r.section(`"` + roffEscape(g.name+" "+t.name) + `"`)
			r.text(t.long)
		}
		flags := pflag.NewFlagSet(t.name, pflag.ContinueOnError)
		t.setup(flags)
		r.options(flags)
	}
	r.section("EXIT STATUS")
	r.text(g.exit)
	r.section("EXAMPLES")
	for _, t := range g.tools {
		r.verbatim(t.example)
	}
	r.section("SEE ALSO")
	r.line(`\fBinquest\fR(1), \fBnft\fR(8), \fBiptables\-extensions\fR(8)`)
	return r.String()
}

// groupNames are the names of all groups.
func groupNames() []string {
	var names []string
	for _, g := range groups {
		names = append(names, g.name)
	}
	slices.Sort(names)
	return names
}
