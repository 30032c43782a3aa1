package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// manCommand writes the manual pages. It needs no dump, so it is no command of
// the table.
func manCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "man DIR",
		Short: "write the manual pages into a directory",
		Long: `Write a manual page for inquest and one for each of its commands into a
directory, which is made if it does not exist.`,
		Example:               "inquest man /usr/local/share/man/man1",
		DisableFlagsInUseLine: true,
		RunE: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 {
				return usageError{"man: name one directory\nusage: inquest man DIR"}
			}
			if err := os.MkdirAll(args[0], 0o777); err != nil {
				return fmt.Errorf("make the manual's directory: %w", err)
			}
			for name, page := range manPages() {
				if err := os.WriteFile(filepath.Join(args[0], name), []byte(page), 0o666); err != nil {
					return fmt.Errorf("write the manual: %w", err)
				}
			}
			return nil
		},
	}
}

// manPages returns every page by file name.
func manPages() map[string]string {
	pages := map[string]string{"inquest.1": rootPage()}
	for _, c := range commands {
		pages["inquest-"+c.name+".1"] = c.manPage()
	}
	for _, g := range groups {
		pages["inquest-"+g.name+".1"] = g.manPage()
	}
	return pages
}

func rootPage() string {
	var r roff
	r.head("INQUEST", "inquest", "say why a Linux machine crashed, from its dump alone")
	r.section("SYNOPSIS")
	r.line(`.B inquest`)
	r.line(`\fICOMMAND DUMP\fR [\fIARGUMENT\fR]... [\fB\-\-json\fR]`)
	r.section("DESCRIPTION")
	r.text(aboutText)
	r.section("COMMANDS")
	for _, c := range commands {
		r.item(`\fBinquest\-`+roffEscape(c.name)+`\fR(1)`, c.short)
	}
	for _, g := range groups {
		r.item(`\fBinquest\-`+roffEscape(g.name)+`\fR(1)`, g.short)
	}
	r.exitStatus()
	r.section("ENVIRONMENT")
	r.item(`\fBNO_COLOR\fR`, "if set, output to a terminal has no colours.")
	r.section("EXAMPLES")
	r.verbatim(rootExamples)
	r.section("SEE ALSO")
	r.line(`\fBcrash\fR(8), \fBmakedumpfile\fR(8), \fBkdump\fR(5)`)
	return r.String()
}

func (c *command) manPage() string {
	var r roff
	r.head("INQUEST-"+strings.ToUpper(c.name), "inquest-"+c.name, c.short)
	r.section("SYNOPSIS")
	r.line(`.B inquest ` + roffEscape(c.name))
	r.line(`[\fIOPTION\fR]... ` + roffEscape(strings.TrimPrefix(c.use(), c.name+" ")))
	if len(c.aliases) > 0 {
		r.text("Also as " + strings.Join(c.aliases, ", ") + ".")
	}
	r.section("DESCRIPTION")
	r.text(c.long)
	r.section("OPTIONS")
	flags := pflag.NewFlagSet(c.name, pflag.ContinueOnError)
	c.setup(flags)
	new(options).declare(flags)
	r.options(flags)
	r.exitStatus()
	r.section("EXAMPLES")
	r.verbatim(c.example)
	r.section("SEE ALSO")
	r.line(`\fBinquest\fR(1)`)
	return r.String()
}

// roff builds a page in the language of man(7).
type roff struct{ strings.Builder }

func (r *roff) line(text string) { r.WriteString(text + "\n") }

func (r *roff) head(title, name, short string) {
	r.line(`.TH ` + roffEscape(title) + ` 1 "" Inquest "Inquest manual"`)
	r.section("NAME")
	r.line(roffEscape(name) + ` \- ` + roffEscape(short))
}

// options lists flags.
func (r *roff) options(flags *pflag.FlagSet) {
	flags.VisitAll(func(f *pflag.Flag) {
		name, usage := pflag.UnquoteUsage(f)
		tag := `\fB\-\-` + roffEscape(f.Name) + `\fR`
		if f.Shorthand != "" {
			tag = `\fB\-` + f.Shorthand + `\fR, ` + tag
		}
		if name != "" {
			tag += ` \fI` + roffEscape(name) + `\fR`
		}
		r.item(tag, usage)
	})
}

func (r *roff) section(title string) { r.line(".SH " + title) }

func (r *roff) item(tag, text string) {
	r.line(".TP")
	r.line(tag)
	r.text(text)
}

// text writes paragraphs.
func (r *roff) text(text string) {
	for i, paragraph := range strings.Split(strings.TrimSpace(text), "\n\n") {
		if i > 0 {
			r.line(".PP")
		}
		for line := range strings.Lines(paragraph) {
			r.line(roffEscape(strings.TrimSuffix(line, "\n")))
		}
	}
}

func (r *roff) verbatim(text string) {
	r.line(".nf")
	for line := range strings.Lines(strings.TrimSpace(text)) {
		r.line(roffEscape(strings.TrimSuffix(line, "\n")))
	}
	r.line(".fi")
}

func (r *roff) exitStatus() {
	r.section("EXIT STATUS")
	r.text(exitText)
}

// roffEscape makes text stand for itself: no line of it is a request.
func roffEscape(text string) string {
	text = strings.NewReplacer(`\`, `\e`, "-", `\-`).Replace(text)
	if strings.HasPrefix(text, ".") || strings.HasPrefix(text, "'") {
		text = `\&` + text
	}
	return text
}
