package main

import (
	"bytes"
	"context"
	"fmt"
	"os/exec"
	"strings"
	"unicode"

	"inquest/explain"
	"inquest/kernel"
	"inquest/lab"
	"inquest/report"
	"inquest/vmcore"
)

// explained is what Inquest says of a dump.
type explained struct {
	answer lab.Answer
	text   []string // the report, line by line
}

// explainDump has a dump explained.
func explainDump(path string, style report.Style) (*explained, error) {
	dump, err := vmcore.Open(path)
	if err != nil {
		return nil, &openError{err}
	}
	defer dump.Close()
	k, err := kernel.Open(dump)
	if err != nil {
		return nil, err
	}
	c, err := explain.New(k)
	if err != nil {
		return nil, err
	}
	findings := c.Findings()
	var text bytes.Buffer
	if err := report.Text(&text, c, findings, style); err != nil {
		return nil, err
	}
	e := &explained{text: strings.Split(strings.TrimSpace(text.String()), "\n")}
	if len(findings) > 0 {
		e.answer = answerOf(&findings[0])
	}
	return e, nil
}

// answerOf is what a finding says, in words that can be held against the truth.
func answerOf(f *explain.Finding) lab.Answer {
	a := lab.Answer{Class: string(f.Class), Title: f.Title, Confidence: f.Confidence.String(), Signature: f.Signature}
	a.Names = strings.FieldsFunc(f.Title, func(r rune) bool {
		return !unicode.IsLetter(r) && !unicode.IsDigit(r) && !strings.ContainsRune("_.-", r)
	})
	if f.Blame != nil {
		a.Names = append(a.Names, f.Blame.Function)
	}
	for _, o := range f.Objects {
		for _, name := range []string{o.Type, o.Cache} {
			if name != "" {
				a.Names = append(a.Names, name)
			}
		}
	}
	return a
}

// answerDump is what a matrix asks of each dump.
func answerDump(_ context.Context, path string) (lab.Answer, error) {
	e, err := explainDump(path, report.Style{})
	if err != nil {
		return lab.Answer{}, err
	}
	return e.answer, nil
}

// shrinkDump makes a small dump of a dump, as `inquest shrink` does.
func shrinkDump(ctx context.Context, dump, to string) error {
	program, err := ownProgram()
	if err != nil {
		return err
	}
	if out, err := exec.CommandContext(ctx, program, "shrink", dump, "-o", to).CombinedOutput(); err != nil {
		return fmt.Errorf("shrink %s: %w: %s", dump, err, bytes.TrimSpace(out))
	}
	return nil
}
