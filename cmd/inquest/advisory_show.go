package main

import (
	"fmt"
	"strings"

	"github.com/spf13/pflag"

	"inquest/advisory"
)

var advisoryShowTool = &tool{
	name:    "show",
	args:    "ID...",
	min:     1,
	max:     64,
	short:   "show all that is known of a bug",
	long:    `Shows a known bug: what goes wrong, since when, where it is fixed, what to do until then, and by what it is known again.`,
	example: "inquest advisory show nf-queue-request-sock\ninquest advisory show tcp-sack-panic --json",
	setup: func(flags *pflag.FlagSet) toolFunc {
		var a advisories
		a.flags(flags)
		return func(io stdio, args []string) error {
			all, err := a.load(io, "show", args)
			if err != nil {
				return err
			}
			if a.asJSON {
				return showJSON(io, all)
			}
			for i, b := range all {
				if i > 0 {
					fmt.Fprintln(io.out)
				}
				showAdvisory(io, b)
			}
			return nil
		}
	},
}

func showAdvisory(io stdio, a *advisory.Advisory) {
	say := func(key, format string, args ...any) {
		fmt.Fprintf(io.out, "  %-12s %s\n", key, fmt.Sprintf(format, args...))
	}
	fmt.Fprintf(io.out, "%s: %s\n", a.ID+star(a), a.Title)
	say("class", "%s", a.Class)
	if a.CVE != "" {
		say("CVE", "%s", a.CVE)
	}
	if a.Introduced.Commit != "" {
		say("introduced", "%s", commitText(a.Introduced))
	}
	for _, c := range a.Fixed {
		say("fixed", "%s", commitText(c))
	}
	if len(a.Stable) > 0 {
		say("stable", "%s", strings.Join(a.Stable, ", "))
	}
	for _, key := range []struct {
		name  string
		lines []string
	}{{"", []string{a.Summary}}, {"distribution", a.Distros}, {"workaround", a.Workaround}} {
		for _, line := range key.lines {
			say(key.name, "%s", strings.Join(wrapWords(line, 86), "\n"+strings.Repeat(" ", 15)))
		}
	}
	for i, step := range a.Stack {
		name := "then"
		if i == 0 {
			name = "stack"
		}
		say(name, "%s", strings.Join(wrapWords(strings.Join(step, " or "), 86), "\n"+strings.Repeat(" ", 15)))
	}
	for _, s := range a.Code {
		where := strings.Join(s.In, " or ")
		if len(s.Modules) > 0 {
			where += " (" + strings.Join(s.Modules, ", ") + ")"
		}
		say("code of", "%s", where)
		for _, look := range []struct{ name, text string }{{"exposed", s.Exposed.String()}, {"fixed", s.Fixed.String()}} {
			if look.text != "" {
				say("  "+look.name, "%s", look.text)
			}
		}
	}
	if a.Note != "" {
		say("note", "%s", strings.Join(wrapWords(a.Note, 86), "\n"+strings.Repeat(" ", 15)))
	}
	if star(a) != "" {
		say("file", "%s", a.File)
	}
}

func commitText(c advisory.Commit) string {
	text := c.Commit + " (" + c.Version + ")"
	if c.Subject != "" {
		text += " " + c.Subject
	}
	return text
}

// wrapWords breaks a text into lines of at most width characters.
func wrapWords(text string, width int) []string {
	var lines []string
	line := ""
	for _, word := range strings.Fields(text) {
		switch {
		case line == "":
			line = word
		case len(line)+1+len(word) > width:
			lines = append(lines, line)
			line = word
		default:
			line += " " + word
		}
	}
	return append(lines, line)
}

// showJSON prints the advisories with their signatures, which other commands' JSON has not.
func showJSON(io stdio, all []*advisory.Advisory) error {
	type full struct {
		*advisory.Advisory
		Within int                  `json:"within,omitempty"`
		Stack  []advisory.OneOf     `json:"stack"`
		Code   []advisory.Signature `json:"code"`
		Note   string               `json:"note,omitempty"`
		File   string               `json:"file"`
	}
	list := []full{}
	for _, a := range all {
		list = append(list, full{Advisory: a, Within: a.Within, Stack: a.Stack, Code: a.Code, Note: a.Note, File: a.File})
	}
	return printJSON(io, list)
}
