package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/pflag"

	"inquest/advisory"
)

var advisoryLintTool = &tool{
	name:  "lint",
	args:  "FILE|DIR...",
	min:   1,
	max:   1024,
	short: "say what is wrong with files of advisories, and where",
	long: `Reads files of advisories, and all *.yaml files below directories, and says what is wrong
with each, as FILE:LINE:COLUMN: what. Nothing is printed of a file without fault.`,
	example: `inquest advisory lint my-bug.yaml
inquest advisory lint ~/.config/inquest/advisories --json`,
	setup: func(flags *pflag.FlagSet) toolFunc {
		asJSON := flags.Bool("json", false, "print JSON: file, line, column, message")
		return func(io stdio, args []string) error {
			l := &advisoryLint{ids: make(map[string]string), problems: []fileProblem{}}
			for _, arg := range args {
				if err := l.path(arg); err != nil {
					return fmt.Errorf("advisory lint: %w", err)
				}
			}
			if *asJSON {
				if err := printJSON(io, l.problems); err != nil {
					return err
				}
			} else {
				for _, p := range l.problems {
					fmt.Fprintf(io.out, "%s:%v\n", p.File, p.Problem)
				}
			}
			if len(l.problems) > 0 {
				return fmt.Errorf("advisory lint: %s in %s", plural(len(l.problems), "problem"), plural(l.files, "file"))
			}
			return nil
		}
	},
}

type fileProblem struct {
	File string `json:"file"`
	advisory.Problem
}

// advisoryLint collects what is wrong with files.
type advisoryLint struct {
	files    int
	ids      map[string]string // and the files that have them
	problems []fileProblem
}

// path reads a file, or all below a directory.
func (l *advisoryLint) path(path string) error {
	before := l.files
	err := filepath.WalkDir(path, func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || name != path && !strings.HasSuffix(name, ".yaml") {
			return err
		}
		return l.file(name)
	})
	if err == nil && l.files == before {
		err = errors.New(path + " has no *.yaml file")
	}
	return err
}

func (l *advisoryLint) file(name string) error {
	raw, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	l.files++
	a, problems := advisory.Lint(raw)
	for _, p := range problems {
		l.problems = append(l.problems, fileProblem{name, p})
	}
	if a == nil || a.ID == "" {
		return nil
	}
	if other, ok := l.ids[a.ID]; ok {
		l.problems = append(l.problems, fileProblem{name, advisory.Problem{Line: 1, Column: 1, Message: fmt.Sprintf("there is an advisory %s in %s already", a.ID, other)}})
	}
	l.ids[a.ID] = name
	return nil
}
