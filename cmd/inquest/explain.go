package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/pflag"

	"inquest/console"
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

In place of a dump it takes what a kernel wrote: a console log, dmesg(1)'s output in
any of its styles, a journal or syslog, the parts of a pstore record, a
vmcore-dmesg.txt, a netconsole capture, or crash(8)'s log and bt; gzip or zstd may
have compressed it, and "-" is standard input. Then it says what the text alone
allows.

The exit code is 1 when the dump or text could be read, but nothing could be
concluded.`,
	example: `inquest explain vmcore
dmesg | inquest explain -
inquest explain /var/lib/systemd/pstore/1700000000/*
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
	text, err := console.Open(s.paths...)
	if err == nil {
		defer text.Close()
		return e.text(s, text)
	}
	k, err := s.typedKernel()
	if err != nil {
		return err
	}
	c, err := explain.New(k)
	if err != nil {
		return err
	}
	findings := c.Findings()
	if err := e.write(s, e.dump(s, c, findings)); err != nil {
		return err
	}
	if len(findings) == 0 {
		return errors.New("nothing could be concluded from this dump")
	}
	return nil
}

// text explains a log instead of a dump.
func (e *explanation) text(s *session, text io.Reader) error {
	log, err := console.Read(text)
	if err != nil {
		return err
	}
	c := explain.NewText(log)
	findings := c.Findings()
	if c.Report == nil {
		return fmt.Errorf("%s is a text of %s in which no kernel reports trouble: no oops, panic, BUG, WARNING, lockup, stall or sanitizer's report", name(s.paths), lines(log.Lines))
	}
	err = e.write(s, func(w io.Writer, style report.Style) error {
		switch e.format {
		case "json":
			return s.writeJSON(report.LogJSON(c, findings))
		case "markdown":
			return report.LogMarkdown(w, c, findings)
		case "html":
			return report.LogHTML(w, c, findings)
		}
		return report.LogText(w, c, findings, style)
	})
	if err == nil && len(findings) == 0 {
		return errors.New("nothing could be concluded from this text")
	}
	return err
}

func name(paths []string) string {
	switch {
	case len(paths) > 1:
		return fmt.Sprintf("%s with %d more", paths[0], len(paths)-1)
	case paths[0] == "-":
		return "standard input"
	}
	return paths[0]
}

func lines(n int64) string {
	if n == 1 {
		return "1 line"
	}
	return fmt.Sprintf("%d lines", n)
}

// write writes the story. A file is only touched when the story is complete.
func (e *explanation) write(s *session, print func(io.Writer, report.Style) error) error {
	style := s.style(e.verbose)
	if e.file == "" {
		return print(s.out, style)
	}
	style.Width, style.Colour = 0, false
	var b bytes.Buffer
	out := s.out
	defer func() { s.out = out }()
	s.out = &b
	if err := print(&b, style); err != nil {
		return err
	}
	if err := os.WriteFile(e.file, b.Bytes(), 0o666); err != nil {
		return fmt.Errorf("write the report: %w", err)
	}
	return nil
}

// dump is the story of a dump.
func (e *explanation) dump(s *session, c *explain.Case, findings []explain.Finding) func(io.Writer, report.Style) error {
	return func(w io.Writer, style report.Style) error {
		switch e.format {
		case "json":
			return s.writeJSON(report.JSON(c, findings))
		case "markdown":
			return report.Markdown(w, c, findings)
		case "html":
			return report.HTML(w, c, findings)
		}
		return report.Text(w, c, findings, style)
	}
}

// style is how reports are shown here.
func (s *session) style(verbose bool) report.Style {
	return report.Style{Width: s.term.width, Colour: s.term.colour, Verbose: verbose}
}
