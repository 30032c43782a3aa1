package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
)

// help writes the help of the program or of one command.
func help(cmd *cobra.Command, _ []string) {
	w := cmd.OutOrStdout()
	if !cmd.HasParent() {
		io.WriteString(w, rootUsage())
		return
	}
	fmt.Fprintf(w, "Usage: inquest %s\n\n", strings.TrimPrefix(cmd.UseLine(), "inquest "))
	text := cmd.Long
	if text == "" {
		text = cmd.Short
	}
	fmt.Fprintf(w, "%s\n", strings.TrimSpace(text))
	if flags := cmd.LocalFlags(); flags.HasAvailableFlags() {
		fmt.Fprintf(w, "\nOptions:\n%s", flags.FlagUsages())
	}
	if cmd.HasAvailableSubCommands() {
		fmt.Fprintf(w, "\nCommands:\n")
		for _, c := range cmd.Commands() {
			fmt.Fprintf(w, "  %-12s%s\n", c.Name(), c.Short)
		}
	}
	if cmd.Example != "" {
		fmt.Fprintf(w, "\nExamples:\n")
		for line := range strings.Lines(strings.TrimSpace(cmd.Example) + "\n") {
			fmt.Fprintf(w, "  %s", line)
		}
	}
}

// What both the help and the manual say.
const (
	aboutText = `Inquest reads the dump of a crashed Linux machine. Symbols, types and all else
come from the dump itself; it needs no debuginfo and no vmlinux.

DUMP is what kdump, makedumpfile, QEMU or virsh wrote, or /proc/kcore. Name the
other files of a split dump with --part, once each. A kernel address is written
in hexadecimal or as SYMBOL, SYMBOL+OFFSET or, for per-CPU data, SYMBOL:CPU.
Commands have the names and habits of crash(8); each takes --json.`

	exitText = `0 done; 1 the dump was read, but what was asked for is not in it;
2 the command line is wrong; 3 the file is not a dump that can be read.`

	rootExamples = `inquest explain /var/crash/202611220142/dump
inquest log vmcore | tail -n 60
inquest struct vmcore task_struct.comm,pid,flags ffff9d2b84c7a000`
)

// rootUsage is the help of the whole program.
func rootUsage() string {
	var b strings.Builder
	b.WriteString("Usage: inquest COMMAND DUMP [ARGUMENT]... [--json]\n\n" + aboutText + "\n\nCommands:\n")
	for _, c := range commands {
		fmt.Fprintf(&b, "  %-12s%s\n", c.name, c.short)
	}
	b.WriteString("\nWithout a dump:\n")
	for _, g := range groups {
		fmt.Fprintf(&b, "  %-12s%s\n", g.name, g.short)
	}
	b.WriteString(`
Also:
  completion  print the completion script of a shell: bash, zsh, fish
  man         write the manual pages into a directory
  help        explain a command, with examples
`)
	b.WriteString("\nExit status: " + exitText + "\n\nExamples:\n")
	for line := range strings.Lines(rootExamples + "\n") {
		b.WriteString("  " + line)
	}
	return b.String()
}
