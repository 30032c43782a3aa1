package main

import (
	"fmt"
	"strings"

	"github.com/spf13/pflag"

	"inquest/kernel"
)

var mountCommand = &command{
	name:  "mount",
	args:  "[DIRECTORY | DEVICE | TYPE | ADDRESS]...",
	max:   -1,
	short: "list the mounted file systems",
	long: `List what is mounted in init's namespace, or with -n in that of another task: the
addresses of struct mount and super_block, type, device, directory and options.`,
	example: `inquest mount vmcore
inquest mount vmcore -n 1234
inquest mount vmcore ext4`,
	setup: func(f *pflag.FlagSet) runFunc {
		of := f.StringP("namespace", "n", "", "the mounts that `PID|TASK` sees")
		return func(s *session, args []string) error {
			k, err := s.typedKernel()
			if err != nil {
				return err
			}
			ns, err := mountNamespace(k, *of)
			if err != nil {
				return err
			}
			mounts, err := k.Mounts(ns)
			if err != nil && len(mounts) == 0 {
				return err
			}
			s.miss(err)
			picked := []kernel.Mount{}
			for _, m := range mounts {
				if mountIs(m, args) {
					picked = append(picked, m)
				}
			}
			if len(picked) == 0 && len(args) > 0 {
				return fmt.Errorf("nothing that is mounted is %s", strings.Join(args, " or "))
			}
			if s.json {
				return mountJSON(s, picked)
			}
			mountText(s, picked)
			s.missing()
			return nil
		}
	},
}

// mountNamespace is the namespace of a task, or without one that of init. Before init
// was started the first of all had one of its own.
func mountNamespace(k *kernel.Kernel, task string) (kernel.Addr, error) {
	names := []string{task}
	if task == "" {
		names = []string{"1", "0"}
	}
	var first error
	for _, name := range names {
		tasks, err := findTasks(k, name)
		if err == nil {
			var ns kernel.Addr
			if ns, err = tasks[0].MountNamespace(); err == nil && ns != 0 {
				return ns, nil
			}
			if err == nil {
				err = fmt.Errorf("pid %d has left its namespaces: %w", tasks[0].PID, kernel.ErrNoTask)
			}
		}
		if first == nil {
			first = err
		}
	}
	return 0, fmt.Errorf("find the mount namespace: %w", first)
}

func mountIs(m kernel.Mount, words []string) bool {
	for _, w := range words {
		addr := trim0x(w)
		if w == m.Dir || w == m.Device || w == m.Type || addr == fmt.Sprintf("%x", uint64(m.Addr)) || addr == fmt.Sprintf("%x", uint64(m.SuperBlock)) {
			return true
		}
	}
	return len(words) == 0
}

func mountText(s *session, mounts []kernel.Mount) {
	wide := [...]int{len("TYPE"), len("DEVNAME"), len("DIRNAME")}
	for _, m := range mounts {
		for i, text := range []string{m.Type, m.Device, m.Dir} {
			wide[i] = min(max(wide[i], len(clean(text))), 48)
		}
	}
	line := fmt.Sprintf("     MOUNT           SUPERBLK     %-*s %-*s %-*s OPTIONS", wide[0], "TYPE", wide[1], "DEVNAME", wide[2], "DIRNAME")
	s.printf("%s\n", s.term.paint(bold, line))
	for _, m := range mounts {
		s.printf("%016x %016x %-*s %-*s %-*s %s\n", uint64(m.Addr), uint64(m.SuperBlock), wide[0], clean(m.Type), wide[1], clean(m.Device),
			wide[2], clean(m.Dir), strings.Join(m.Options, ","))
	}
}

func mountJSON(s *session, mounts []kernel.Mount) error {
	type mountJSON struct {
		Mount      hex      `json:"mount"`
		SuperBlock hex      `json:"super_block"`
		Type       string   `json:"type"`
		Device     string   `json:"device"`
		Directory  string   `json:"directory"`
		Options    []string `json:"options"`
	}
	list := []mountJSON{}
	for _, m := range mounts {
		list = append(list, mountJSON{hex(m.Addr), hex(m.SuperBlock), m.Type, m.Device, m.Dir, append([]string{}, m.Options...)})
	}
	return s.writeJSON(struct {
		Mounts  []mountJSON `json:"mounts"`
		Missing []string    `json:"missing,omitempty"`
	}{list, s.missing()})
}
