package main

import (
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"
)

// manCommand writes the manual pages. It needs no dump, so it is no command of
// the table.
func manCommand(root *cobra.Command) *cobra.Command {
	return &cobra.Command{
		Use:   "man DIR",
		Short: "write the manual pages into a directory",
		Long: `Write a manual page for inquest and for each of its commands into a directory,
which is made if it does not exist.`,
		Example:               "inquest man /usr/local/share/man/man1",
		DisableFlagsInUseLine: true,
		RunE: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 {
				return usageError{"man: name one directory\nusage: inquest man DIR"}
			}
			if err := os.MkdirAll(args[0], 0o777); err != nil {
				return fmt.Errorf("make the manual's directory: %w", err)
			}
			root.DisableAutoGenTag = true
			root.Long = rootUsage()
			// The same source gives the same pages on any day.
			date := time.Unix(0, 0).UTC()
			return doc.GenManTree(root, &doc.GenManHeader{Title: "INQUEST", Section: "1", Source: "Inquest", Manual: "Inquest manual", Date: &date}, args[0])
		},
	}
}
