package lab

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"

	"inquest/guard"
)

// guardOption is which of package guard's shields is in force.
var guardOption = Option{
	Name: "guard", Doc: "shield: none, carve-outs before rules that queue, or the kernel module",
	Values: []string{"none", "rule", "hook"},
}

// guardFile is where the guest has the shield's module.
const guardFile = "guard/" + guard.ModuleName + ".ko"

// prepareGuard gives the guest the shield's module, if the option is "hook".
func prepareGuard(ctx context.Context, e *Experiment, image *Initramfs) error {
	if e.Option("guard") != "hook" {
		return nil
	}
	path, err := e.Kernel.GuardModule(ctx, e.Progress)
	if err != nil {
		return err
	}
	return image.Add(guardFile, path)
}

// guardScenarios are what shields have to endure.
var guardScenarios = []*Scenario{{
	Name: "guard/load",
	Doc:  "very many connections, whose SYN/ACKs are held for random times if they are queued",
	Options: []Option{
		guardOption,
		{Name: "connections", Doc: "to be made", Values: []string{"2000"}, Open: true},
		{Name: "clients", Doc: "that make them at the same time", Values: []string{"64"}, Open: true},
		{Name: "hold", Doc: "SYN/ACKs wait for their verdict up to this long; over 1s some are sent again", Values: []string{"100ms"}, Open: true},
		{Name: "late", Doc: "of so many SYN/ACKs one waits 1.5s, so that it is sent again (0: none)", Values: []string{"20"}, Open: true},
		{Name: "reload", Doc: "unload and load the hook, or load the ruleset anew, this often (0s: never)", Values: []string{"0s"}, Open: true},
	},
	Kernel: "nfqbug-6.1", Modules: []string{"nf_tables", "nft_queue", "nfnetlink_queue"}, MemoryMiB: 512, Patience: 20 * time.Minute,
	Prepare: prepareGuard,
	Truth: func(e *Experiment) Truth {
		if e.Option("guard") == "none" && strings.Contains(e.Kernel.Release, "nfqbug") {
			return Truth{Why: "without a shield anything may happen, or nothing"}
		}
		return Truth{Outcome: Alive}
	},
}}

// GuardModule returns the path of package guard's module, built for this kernel now or
// before: with the headers that Debian packages, or, for a kernel of a recipe, with those
// that its source is made to yield, which takes a minute and no new kernel.
func (k *Kernel) GuardModule(ctx context.Context, progress func(string)) (string, error) {
	cache, err := cacheDir()
	if err != nil {
		return "", err
	}
	path, err := k.guardModule(ctx, cache, progress)
	if err != nil {
		return "", fmt.Errorf("build module %s for %s: %w", guard.ModuleName, k.Release, err)
	}
	return path, nil
}

func (k *Kernel) guardModule(ctx context.Context, cache string, progress func(string)) (string, error) {
	digest, err := guardDigest()
	if err != nil {
		return "", err
	}
	id := k.id()
	recipe, version, err := k.recipe()
	if err != nil {
		return "", err
	}
	if recipe != nil {
		id = filepath.Base(k.Root)
	}
	path := filepath.Join(cache, "modules", id, guard.ModuleName+"-"+digest+".ko")
	unlock, err := lockName(ctx, cache, "module-"+id)
	if err != nil {
		return "", err
	}
	defer unlock()
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}
	for _, tool := range []string{"make", "tar", "xz"} {
		if _, err := findTool(tool); err != nil {
			return "", err
		}
	}
	// No = in a path: make takes it for an assignment.
	work := filepath.Join(cache, "build", strings.ReplaceAll(guard.ModuleName+"_"+id, "=", "_"))
	defer os.RemoveAll(work)
	if err := errors.Join(os.RemoveAll(work), os.MkdirAll(work, 0o755), os.MkdirAll(filepath.Dir(path), 0o755)); err != nil {
		return "", err
	}
	headers, compiler := "", "gcc"
	if recipe != nil {
		headers, err = recipe.headers(ctx, cache, version, k, work, progress)
	} else {
		headers, compiler, err = k.debianHeaders(ctx, cache, work, progress)
	}
	if err != nil {
		return "", err
	}
	source := filepath.Join(work, guard.ModuleName)
	if err := os.CopyFS(source, guard.Module()); err != nil {
		return "", err
	}
	progress("compile module " + guard.ModuleName)
	// Headers that were not built with their kernel have no Module.symvers.
	if _, err := runTool(ctx, source, []string{"LC_ALL=C"}, "make", "--silent", "-C", headers, "M="+source, "CC="+compiler,
		"KBUILD_MODPOST_WARN=1", "modules"); err != nil {
		return "", err
	}
	return path, os.Rename(filepath.Join(source, guard.ModuleName+".ko"), path)
}

// recipe is the recipe that the kernel was built by, and the version of its source; nil
// if it was not.
func (k *Kernel) recipe() (*Recipe, string, error) {
	all, err := Recipes()
	if err != nil {
		return nil, "", err
	}
	name, rest, _ := strings.Cut(filepath.Base(k.Root), "_")
	version, digest, _ := strings.Cut(rest, "_")
	for _, r := range all {
		if r.Name == name && r.digest() == digest {
			return r, version, nil
		}
	}
	return nil, "", nil
}

// headers makes the source of a recipe's kernel ready for modules to be built, and
// returns the directory. The kernels of recipes have no CONFIG_MODVERSIONS, so what the
// kernel exports need not be known.
func (r *Recipe) headers(ctx context.Context, cache, version string, k *Kernel, work string, progress func(string)) (string, error) {
	name, suite, _ := strings.Cut(r.Source, "/")
	a, err := openApt(ctx, cache, suite)
	if err != nil {
		return "", err
	}
	source, object := filepath.Join(work, "source"), filepath.Join(work, "object")
	if err := r.unpackSource(ctx, a, name+"="+version, source, progress); err != nil {
		return "", fmt.Errorf("unpack %s: %w", name, err)
	}
	if err := os.Mkdir(object, 0o755); err != nil {
		return "", err
	}
	if err := copyFile(filepath.Join(filepath.Dir(k.Image), "config-"+k.Release), filepath.Join(object, ".config")); err != nil {
		return "", err
	}
	progress("make the headers of " + r.Name)
	_, err = runTool(ctx, source, []string{"LC_ALL=C"}, "make", "--silent", "--jobs="+strconv.Itoa(runtime.NumCPU()), "O="+object, "modules_prepare")
	return object, err
}

// debianHeaders unpacks the headers of a Debian kernel, and returns their directory and
// the compiler.
func (k *Kernel) debianHeaders(ctx context.Context, cache, work string, progress func(string)) (dir, compiler string, err error) {
	a, packages, err := k.headers(ctx, cache)
	if err != nil {
		return "", "", err
	}
	progress("download " + packages.names[0])
	if err := a.unpack(ctx, work, packages.names); err != nil {
		return "", "", err
	}
	root := filepath.Join(work, "root")
	if err := relocateHeaders(root, k.Release); err != nil {
		return "", "", err
	}
	compiler, err = headersCompiler(root, k.Release)
	var missing *MissingToolError
	if errors.As(err, &missing) { // another has done so far, where it knows the flags
		compiler, err = "gcc", nil
	}
	return filepath.Join(root, "usr/src/linux-headers-"+k.Release), compiler, err
}

// guardDigest tells apart what the module's source was and what it has become.
func guardDigest() (string, error) {
	h := sha256.New()
	for _, name := range []string{"Kbuild", guard.ModuleName + ".c"} {
		text, err := fs.ReadFile(guard.Module(), name)
		if err != nil {
			return "", err
		}
		fmt.Fprintf(h, "%s %d\n%s", name, len(text), text)
	}
	return fmt.Sprintf("%x", h.Sum(nil)[:4]), nil
}
