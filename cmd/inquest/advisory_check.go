package main

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/pflag"

	"inquest/advisory"
	"inquest/kernel/image"
	"inquest/lab"
)

var advisoryCheckTool = &tool{
	name:  "check",
	args:  "KERNEL [ID]...",
	min:   1,
	max:   64,
	short: "say what the code of a kernel's files looks like",
	long: `Looks at the code of a kernel that does not run, its modules included, and says of each known
bug, or of those named, whether it is exposed, fixed or unknown, and by what. It is for trying
the signature of an advisory on a kernel that has the bug and on one that has the fix.
KERNEL is a vmlinuz, one with its modules (FILE:DIRECTORY), a directory with an unpacked
package, or a kernel of Debian (debian-6.1, linux-image-amd64/trixie), which is fetched. For the
kernel that runs, and for more than its code, there is "inquest doctor".`,
	example: `inquest advisory check /boot/vmlinuz-6.1.0-44-amd64:/lib/modules/6.1.0-44-amd64
inquest advisory check linux-image-cloud-amd64/bullseye my-bug --advisories .`,
	setup: func(flags *pflag.FlagSet) toolFunc {
		var a advisories
		a.flags(flags)
		return func(io stdio, args []string) error {
			all, err := a.load(io, "check", args[1:])
			if err != nil {
				return err
			}
			img, err := openKernel(args[0], all)
			if err != nil {
				return fmt.Errorf("advisory check: %w", err)
			}
			type answer struct {
				ID       string `json:"id"`
				State    string `json:"state"` // exposed, fixed, unknown
				Function string `json:"function,omitempty"`
				Reason   string `json:"reason,omitempty"`
			}
			answers := []answer{}
			for _, b := range all {
				v := b.CheckCode(img)
				answers = append(answers, answer{b.ID, v.State.String(), v.Function, v.Reason})
			}
			if a.asJSON {
				return printJSON(io, answers)
			}
			for _, b := range answers {
				fmt.Fprintln(io.out, strings.TrimRight(fmt.Sprintf("%-25s %-8s %s", b.ID, b.State, b.Reason), " "))
			}
			return nil
		}
	},
}

// openKernel opens a kernel's file and adds the modules that the advisories look into.
func openKernel(name string, all []*advisory.Advisory) (*image.Image, error) {
	ctx, cancel := untilInterrupted()
	defer cancel()
	k, err := lab.FindKernel(ctx, name, nil)
	if err != nil {
		return nil, err
	}
	img, err := image.Open(k.Image)
	if err != nil || k.Modules == "" {
		return img, err
	}
	var wanted []string
	for _, a := range all {
		wanted = append(wanted, a.Modules()...)
	}
	modules := os.DirFS(k.Modules)
	return img, fs.WalkDir(modules, ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		module, _, ok := strings.Cut(filepath.Base(path), ".ko")
		module = strings.ReplaceAll(module, "-", "_")
		if !ok || !slices.Contains(wanted, module) {
			return nil
		}
		file, err := fs.ReadFile(modules, path)
		if err != nil {
			return err
		}
		if err := img.AddModule(module, file); err != nil {
			return fmt.Errorf("module %s: %w", path, err)
		}
		return nil
	})
}
