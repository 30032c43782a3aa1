package main

import (
	"bytes"
	"os"
	"strings"
	"testing"
)

// TestReadme holds the README's first screen against what the command prints: every
// line of it but the ellipses, in the same order.
func TestReadme(t *testing.T) {
	readme, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, shown, ok := strings.Cut(string(readme), "$ inquest explain vmcore\n")
	if !ok {
		t.Fatal("the README shows no explain")
	}
	shown, _, _ = strings.Cut(shown, "\nNo vmlinux")
	var out, errOut bytes.Buffer
	if code := run([]string{"explain", "../../testdata/example.kdump"}, stdio{&out, &errOut}); code != exitDone {
		t.Fatalf("exit code %d: %s", code, errOut.String())
	}
	rest, lines := out.String(), 0
	for line := range strings.Lines(shown) {
		line = strings.TrimPrefix(strings.TrimRight(line, "\n"), "    ")
		if strings.TrimSpace(line) == "" || strings.TrimSpace(line) == "…" {
			continue
		}
		lines++
		_, after, ok := strings.Cut(rest, line+"\n")
		if !ok {
			t.Errorf("explain does not print %q, or not there", line)
			continue
		}
		rest = after
	}
	if lines < 15 {
		t.Errorf("the README shows %d lines", lines)
	}
}
