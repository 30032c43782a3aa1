package main

import (
	"errors"

	"github.com/spf13/pflag"

	"inquest/explain"
	"inquest/report"
)

var explainCommand = &command{
	name:  "explain",
	short: "say what crashed, where, and why",
	long: `Tells the story of the crash: what trapped, which instruction, with which
values, on which CPU, in which task, doing what; what is known of the bug and
what to do. Log, registers and stack are held against each other.

The exit code is 1 when the dump could be read, but nothing could be concluded.`,
	example: `inquest explain vmcore
inquest explain --verbose vmcore
inquest explain --json vmcore | jq .findings[0]`,
	setup: func(flags *pflag.FlagSet) runFunc {
		verbose := flags.BoolP("verbose", "v", false, "show all that is known, however long")
		return func(s *session, _ []string) error {
			k, err := s.typedKernel()
			if err != nil {
				return err
			}
			c, err := explain.New(k)
			if err != nil {
				return err
			}
			findings := c.Findings()
			if s.json {
				if err := s.writeJSON(report.JSON(c, findings)); err != nil {
					return err
				}
			} else {
				report.Text(s.out, c, findings, s.style(*verbose))
			}
			if len(findings) == 0 {
				return errors.New("nothing could be concluded from this dump")
			}
			return nil
		}
	},
}

// style is how reports are shown here.
func (s *session) style(verbose bool) report.Style {
	return report.Style{Width: s.term.width, Colour: s.term.colour, Verbose: verbose}
}
