package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// apt finds and downloads packages of Debian, by the lists of packages that the
// machine has, or by those of another suite, which it keeps for itself.
type apt struct {
	options []string
}

// aptEnv keeps translations and questions away.
var aptEnv = []string{"LC_ALL=C", "DEBIAN_FRONTEND=noninteractive"}

// listsAge is how old the lists of another suite may become.
const listsAge = 24 * time.Hour

// openApt returns apt for a suite ("bullseye", "sid"), whose lists lie below cache;
// for "" it is the machine's own. The other suite's packages come from wherever the
// machine's come from.
func openApt(ctx context.Context, cache, suite string) (apt, error) {
	if suite == "" {
		return apt{}, nil
	}
	if !safeName(suite) {
		return apt{}, fmt.Errorf("bad name of a suite: %q", suite)
	}
	dir := filepath.Join(cache, "apt", suite)
	for _, sub := range []string{"lists/partial", "archives/partial"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o755); err != nil {
			return apt{}, err
		}
	}
	unlock, err := lockFile(ctx, filepath.Join(dir, "lock"))
	if err != nil {
		return apt{}, err
	}
	defer unlock()
	sources := filepath.Join(dir, "sources.list")
	a := apt{[]string{
		"-oDir::Etc::sourcelist=" + sources, "-oDir::Etc::sourceparts=-",
		"-oDir::State::lists=" + filepath.Join(dir, "lists"), "-oDir::Cache=" + dir,
		"-oDir::Cache::archives=archives", "-oAPT::Sandbox::User=root",
	}}
	done := filepath.Join(dir, "updated")
	if info, err := os.Stat(done); err == nil && time.Since(info.ModTime()) < listsAge {
		return a, nil
	}
	targets, err := runTool(ctx, "", aptEnv, "apt-get", "indextargets", "--format", "$(REPO_URI) $(RELEASE)", "Identifier: Packages")
	if err != nil {
		return apt{}, err
	}
	text, err := sourcesOf(string(targets), suite)
	if err != nil {
		return apt{}, err
	}
	if err := os.WriteFile(sources, []byte(text), 0o644); err != nil {
		return apt{}, err
	}
	if _, err := runTool(ctx, "", aptEnv, "apt-get", append(a.options, "--quiet", "update")...); err != nil {
		return apt{}, fmt.Errorf("fetch the lists of %s: %w", suite, err)
	}
	return a, os.WriteFile(done, nil, 0o644)
}

// errNoMirror is the error for a machine whose packages are not Debian's.
var errNoMirror = errors.New("this machine's package sources have no Debian release (apt-get indextargets)")

// sourcesOf makes a sources.list for a suite out of the archives that the machine
// knows, given as lines of an address and a suite. Security updates lie in an archive
// of their own, which the rolling suites have not.
func sourcesOf(targets, suite string) (string, error) {
	const keyring = "[signed-by=/usr/share/keyrings/debian-archive-keyring.gpg]"
	var main, security string
	for line := range strings.Lines(targets) {
		uri, release, ok := strings.Cut(strings.TrimSpace(line), " ")
		switch {
		case !ok:
		case strings.HasSuffix(release, "-security"):
			security = uri
		case !strings.ContainsAny(release, "-/") && main == "":
			main = uri
		}
	}
	if main == "" {
		return "", errNoMirror
	}
	text := fmt.Sprintf("deb %s %s %s main\n", keyring, main, suite)
	rolling := suite == "sid" || suite == "unstable" || suite == "experimental" || strings.Contains(suite, "-")
	if security != "" && !rolling {
		text += fmt.Sprintf("deb %s %s %s-security main\n", keyring, security, suite)
	}
	return text, nil
}

// show returns a package's control stanza.
func (a apt) show(ctx context.Context, name string) (string, error) {
	out, err := runTool(ctx, "", aptEnv, "apt-cache", append(a.options, "--no-all-versions", "show", name)...)
	if err != nil {
		return "", fmt.Errorf("%w (apt-get update brings the lists of packages)", err)
	}
	return string(out), nil
}

// unpack downloads packages ("name=version") to dir and unpacks them to dir/root.
func (a apt) unpack(ctx context.Context, dir string, list []string) error {
	debs, err := a.download(ctx, dir, list)
	if err != nil {
		return err
	}
	root := filepath.Join(dir, "root")
	if err := os.Mkdir(root, 0o755); err != nil {
		return err
	}
	for _, deb := range debs {
		if _, err := runTool(ctx, dir, nil, "dpkg-deb", "-x", deb, root); err != nil {
			return err
		}
	}
	return nil
}

// unpackFile downloads a package to dir, and takes one file out of it to dir/root.
func (a apt) unpackFile(ctx context.Context, dir, pkg, file string) error {
	debs, err := a.download(ctx, dir, []string{pkg})
	if err != nil {
		return err
	}
	root := filepath.Join(dir, "root")
	if err := os.Mkdir(root, 0o755); err != nil {
		return err
	}
	archive := filepath.Join(dir, "archive.tar")
	for _, deb := range debs {
		if _, err := runTool(ctx, dir, nil, "sh", "-c", `dpkg-deb --fsys-tarfile "$1" >"$2"`, "sh", deb, archive); err != nil {
			return err
		}
		if _, err := runTool(ctx, dir, nil, "tar", "--extract", "--no-same-owner", "--directory", root, "--file", archive, "./"+file); err != nil {
			return err
		}
	}
	return nil
}

// download fetches packages to dir, and returns their files.
func (a apt) download(ctx context.Context, dir string, list []string) ([]string, error) {
	args := append(append(a.options[:len(a.options):len(a.options)], "--quiet", "download"), list...)
	if _, err := runTool(ctx, dir, aptEnv, "apt-get", args...); err != nil {
		return nil, err
	}
	return filepath.Glob(filepath.Join(dir, "*.deb"))
}
