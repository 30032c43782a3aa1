package lab

import (
	"bytes"
	"context"
	"fmt"
	"os/exec"
	"strings"
)

// MissingToolError is the error for a program that is not installed.
type MissingToolError struct {
	Tool    string
	Package string // of Debian, that brings it
}

func (e *MissingToolError) Error() string {
	return fmt.Sprintf("%s is not installed: apt-get install %s", e.Tool, e.Package)
}

// packages are the Debian packages of the programs that a lab runs or packs.
var packages = map[string]string{
	"apt-cache":          "apt",
	"apt-get":            "apt",
	"bc":                 "bc",
	"bison":              "bison",
	"dpkg-deb":           "dpkg",
	"flex":               "flex",
	"gcc":                "gcc",
	"go":                 "golang-go",
	"make":               "make",
	"makedumpfile":       "makedumpfile",
	"pahole":             "dwarves",
	"patch":              "patch",
	"perl":               "perl",
	"qemu-system-x86_64": "qemu-system-x86",
	"sh":                 "dash",
	"tar":                "tar",
	"xz":                 "xz-utils",
}

// findTool returns the path of a program, or a MissingToolError.
func findTool(name string) (string, error) {
	path, err := exec.LookPath(name)
	if err != nil {
		return "", &MissingToolError{name, packages[name]}
	}
	return path, nil
}

// runTool runs a program and returns what it prints. Its error says what it
// complained of.
func runTool(ctx context.Context, dir string, env []string, name string, args ...string) ([]byte, error) {
	path, err := findTool(name)
	if err != nil {
		return nil, err
	}
	var out, complaint bytes.Buffer
	cmd := exec.CommandContext(ctx, path, args...)
	endWithChildren(cmd)
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, &out, &complaint
	cmd.Env = append(cmd.Environ(), env...)
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			return nil, fmt.Errorf("%s: %w", name, ctx.Err())
		}
		return nil, fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, bytes.TrimSpace(complaint.Bytes()))
	}
	return out.Bytes(), nil
}
