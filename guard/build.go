package guard

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"

	"golang.org/x/sys/unix"
)

// MissingError is the error for something that building the module takes and this
// machine does not have.
type MissingError struct {
	What     string   // "the headers of kernel 5.10.0-9-amd64"
	Packages []string // that bring it, in words: "linux-headers-5.10.0-9-amd64 (Debian, Ubuntu)"
}

func (e *MissingError) Error() string {
	return fmt.Sprintf("to build the module takes %s; install %s", e.What, strings.Join(e.Packages, " or "))
}

// Release is the running kernel's.
func Release() (string, error) {
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		return "", err
	}
	return unix.ByteSliceToString(name.Release[:]), nil
}

// Build compiles the module for a kernel of this machine, in a directory that is to be
// empty, and returns the file's path. A module that DKMS has built is no concern of it.
func Build(ctx context.Context, release, dir string) (string, error) {
	return build(ctx, release, filepath.Join("/lib/modules", release, "build"), dir)
}

func build(ctx context.Context, release, headers, dir string) (string, error) {
	if _, err := os.Stat(filepath.Join(headers, "Makefile")); err != nil {
		return "", &MissingError{"the headers of kernel " + release, []string{
			"linux-headers-" + release + " (Debian, Ubuntu)", "kernel-devel-" + release + " (RHEL, Fedora)", "kernel-default-devel (SUSE)",
		}}
	}
	if _, err := exec.LookPath("make"); err != nil {
		return "", &MissingError{"make", []string{"make"}}
	}
	compiler, err := compilerOf(headers)
	if err != nil {
		return "", err
	}
	if err := os.CopyFS(dir, Module()); err != nil {
		return "", err
	}
	cmd := exec.CommandContext(ctx, "make", "-C", headers, "M="+dir, "CC="+compiler, "modules")
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("build the module for %s: %w\n%s", release, err, lastLines(out.String(), 12))
	}
	path := filepath.Join(dir, ModuleName+".ko")
	if _, err := os.Stat(path); err != nil {
		return "", fmt.Errorf("build the module for %s: %w", release, err)
	}
	return path, nil
}

// compilerLine is the line of a configuration that names the compiler, as a package where
// a distribution has several: "gcc-12 (Debian …) …".
var compilerLine = regexp.MustCompile(`(?m)^CONFIG_CC_VERSION_TEXT="(?:[a-z0-9_]+-linux-gnu-)?(gcc(?:-[0-9]+)?)[ "]`)

// compilerOf is the compiler that the kernel was built with; a module that another has
// built may lack flags which that one knew.
func compilerOf(headers string) (string, error) {
	config, err := os.ReadFile(filepath.Join(headers, ".config"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	name := "gcc"
	if line := compilerLine.FindSubmatch(config); line != nil {
		name = string(line[1])
	}
	for _, candidate := range []string{name, "gcc"} {
		if _, err := exec.LookPath(candidate); err == nil {
			return candidate, nil
		}
	}
	return "", &MissingError{"the C compiler " + name, []string{name}}
}

func lastLines(text string, n int) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}
