package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"

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

The story comes as text for the terminal, as Markdown for a bug tracker, as a
page for the browser that needs no network, or as JSON.

The exit code is 1 when the dump could be read, but nothing could be concluded.`,
	example: `inquest explain vmcore
inquest explain --verbose vmcore
inquest explain --format html -o crash.html vmcore
inquest explain --json vmcore | jq .findings[0]`,
	setup: func(flags *pflag.FlagSet) runFunc {
		e := explanation{format: "text"}
		flags.BoolVarP(&e.verbose, "verbose", "v", false, "show all that is known, however long; for text")
		flags.VarP(&e.format, "format", "f", "write the story as `FORMAT`: text, markdown, html or json")
		flags.StringVarP(&e.file, "output", "o", "", "write it to `FILE`")
		return e.run
	},
}

// explanation is how a crash is to be explained.
type explanation struct {
	verbose bool
	format  reportFormat
	file    string // "" for standard output
}

// reportFormat is the value of --format.
type reportFormat string

func (f reportFormat) String() string { return string(f) }

// Type names the value in usage texts.
func (f reportFormat) Type() string { return "format" }

// Set takes the formats that there are.
func (f *reportFormat) Set(value string) error {
	switch value {
	case "text", "markdown", "html", "json":
		*f = reportFormat(value)
		return nil
	}
	return errors.New("the formats are text, markdown, html and json")
}

func (e *explanation) run(s *session, _ []string) error {
	switch {
	case s.json && e.format != "text" && e.format != "json":
		return s.usagef("--json and --format %s do not go together", e.format)
	case s.json:
		e.format = "json"
	}
	s.json = e.format == "json"
	k, err := s.typedKernel()
	if err != nil {
		return err
	}
	c, err := explain.New(k)
	if err != nil {
		return err
	}
	findings := c.Findings()
	if err := e.write(s, c, findings); err != nil {
		return err
	}
	if len(findings) == 0 {
		return errors.New("nothing could be concluded from this dump")
	}
	return nil
}

// write writes the story. A file is only touched when the story is complete.
func (e *explanation) write(s *session, c *explain.Case, findings []explain.Finding) error {
	style := s.style(e.verbose)
	if e.file != "" {
		style.Width, style.Colour = 0, false
		var b bytes.Buffer
		out := s.out
		defer func() { s.out = out }()
		s.out = &b
		if err := e.print(s, c, findings, style); err != nil {
			return err
		}
		if err := os.WriteFile(e.file, b.Bytes(), 0o666); err != nil {
			return fmt.Errorf("write the report: %w", err)
		}
		return nil
	}
	return e.print(s, c, findings, style)
}

func (e *explanation) print(s *session, c *explain.Case, findings []explain.Finding, style report.Style) error {
	switch e.format {
	case "json":
		return s.writeJSON(report.JSON(c, findings))
	case "markdown":
		return report.Markdown(s.out, c, findings)
	case "html":
		return report.HTML(s.out, c, findings)
	}
	return report.Text(s.out, c, findings, style)
}

// style is how reports are shown here.
func (s *session) style(verbose bool) report.Style {
	return report.Style{Width: s.term.width, Colour: s.term.colour, Verbose: verbose}
}
