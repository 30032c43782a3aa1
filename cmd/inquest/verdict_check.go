package main

import (
	"encoding/json"
	"fmt"
	"strings"

	"github.com/spf13/pflag"

	"inquest/inspect/rule"
	"inquest/verdict"
)

var verdictCheckTool = &tool{
	name:  "check",
	args:  "FILE",
	min:   1,
	max:   1,
	short: "check a rule file",
	long: `Reads a rule file as the daemon does, and says what is wrong with it, all at once and
where. Of a good file it says what is worth knowing: rules that keep their flows in the
queue because they look at what changes from packet to packet, and those whose
condition is too odd for the compiled form and is interpreted.`,
	example: `inquest verdict check rules.yaml
inquest verdict check rules.yaml --show`,
	setup: func(flags *pflag.FlagSet) toolFunc {
		show := flags.Bool("show", false, "print the section daemon with all its settings")
		asJSON := flags.Bool("json", false, "print JSON: problems, warnings, rules")
		return func(io stdio, args []string) error {
			if *asJSON {
				return checkJSON(io, args[0])
			}
			file, err := loadRules(io, args[0])
			if err != nil {
				return err
			}
			if *show {
				fmt.Fprint(io.out, file.Config.YAML())
				return nil
			}
			printCheck(io, file)
			return nil
		}
	},
}

func printCheck(io stdio, file *verdict.File) {
	rules, c := file.Rules.Describe(), file.Config
	fmt.Fprintf(io.out, "%s is good: %s, default %s; queues %s, fails %s\n",
		file.Path, plural(len(rules), "rule"), file.Rules.Default(), c.Queues, c.Fail)
	for _, w := range file.Rules.Warnings() {
		fmt.Fprintf(io.out, "%s:%d:%d: warning: %s\n", file.Path, w.Line, w.Column, w.Message)
	}
	remarks := []struct {
		title string
		of    func(d *rule.Description) string
	}{
		{"keeps its flows in the queue: looks at", func(d *rule.Description) string { return strings.Join(d.KeepsQueued, ", ") }},
		{"is interpreted, which is slow:", func(d *rule.Description) string {
			if d.Interpreted == 0 {
				return ""
			}
			return plural(d.Interpreted, "part") + " of the condition"
		}},
		{"is switched off", func(d *rule.Description) string { return map[bool]string{true: " "}[d.Disabled] }},
	}
	for i := range rules {
		d := &rules[i]
		for _, r := range remarks {
			if what := r.of(d); what != "" {
				fmt.Fprintln(io.out, strings.TrimRight(fmt.Sprintf("%s:%d: %s %s %s", file.Path, d.Line, d.Name, r.title, what), " "))
			}
		}
	}
}

// checkJSON prints what is wrong, or how the rules are judged. A refused file is an
// error all the same.
func checkJSON(io stdio, path string) error {
	e := json.NewEncoder(io.out)
	e.SetIndent("", "  ")
	file, err := verdict.Load(path)
	problems, refused := verdict.Problems(err)
	switch {
	case refused:
		if err := e.Encode(map[string]any{"file": path, "good": false, "problems": problems}); err != nil {
			return err
		}
		return fmt.Errorf("%s is refused: %s", path, plural(len(problems), "problem"))
	case err != nil:
		return err
	}
	return e.Encode(map[string]any{
		"file": path, "good": true, "default": file.Rules.Default(),
		"warnings": append([]rule.Problem{}, file.Rules.Warnings()...), "rules": file.Rules.Describe(),
	})
}
