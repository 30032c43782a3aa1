package main

import (
	"bytes"
	"os"
	"path/filepath"
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

// TestReadmeRules checks the rule file that the README and the daemon's guide begin with.
func TestReadmeRules(t *testing.T) {
	for path, begin := range map[string]string{"../../README.md": "    # rules.yaml\n", "../../docs/verdict.md": "    # /etc/inquest/rules.yaml\n"} {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		_, shown, ok := strings.Cut(string(text), begin)
		if !ok {
			t.Fatalf("%s has no %q", path, begin)
		}
		shown, _, _ = strings.Cut(shown, "\n\n")
		file := filepath.Join(t.TempDir(), "rules.yaml")
		if err := os.WriteFile(file, []byte(strings.ReplaceAll("\n"+shown, "\n    ", "\n")), 0o600); err != nil {
			t.Fatal(err)
		}
		var out, errOut bytes.Buffer
		if code := run([]string{"verdict", "check", file}, stdio{&out, &errOut}); code != exitDone || !strings.Contains(out.String(), "is good: 1 rule") {
			t.Errorf("%s: exit code %d: %s%s", path, code, out.String(), errOut.String())
		}
	}
}
