package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/pflag"

	"inquest/internal/spelling"
	"inquest/kernel"
)

var modCommand = &command{
	name:    "mod",
	aliases: []string{"lsmod"},
	args:    "[NAME]...",
	max:     -1,
	short:   "list the loaded modules",
	long: `List the loaded modules, or those named: the address of struct module, where its
code begins, the size of what stays after initialisation, state and taint flags
(O out of tree, E unsigned, P proprietary, F forced, C staging).`,
	example: `inquest mod vmcore
inquest mod vmcore nfnetlink_queue --json`,
	complete: completeModule,
	setup: func(*pflag.FlagSet) runFunc {
		return func(s *session, names []string) error {
			k, err := s.typedKernel()
			if err != nil {
				return err
			}
			mods, err := k.Modules()
			if err != nil && len(mods) == 0 {
				return fmt.Errorf("list the modules: %w", err)
			}
			s.miss(err)
			if mods, err = pickModules(mods, names); err != nil {
				return err
			}
			if s.json {
				return modJSON(s, mods)
			}
			modText(s, mods)
			s.missing()
			return nil
		}
	},
}

// pickModules returns the named modules, all without names.
func pickModules(mods []*kernel.Module, names []string) ([]*kernel.Module, error) {
	if len(names) == 0 {
		return mods, nil
	}
	var all []string
	for _, m := range mods {
		all = append(all, m.Name)
	}
	var picked []*kernel.Module
	for _, name := range names {
		// Files are named with dashes as often as modules with underscores.
		i := slices.Index(all, strings.ReplaceAll(name, "-", "_"))
		if i < 0 {
			return nil, fmt.Errorf("no module %s is loaded%s", name, spelling.DidYouMean(spelling.Closest(name, all)))
		}
		picked = append(picked, mods[i])
	}
	return picked, nil
}

func modText(s *session, mods []*kernel.Module) {
	if len(mods) == 0 {
		s.printf("No modules are loaded.\n")
		return
	}
	width := len("NAME")
	for _, m := range mods {
		width = max(width, len(clean(m.Name)))
	}
	s.printf("%s\n", s.term.paint(bold, fmt.Sprintf("     MODULE       %-*s  %16s  %8s  %-9s  TAINTS", width, "NAME", "TEXT BASE", "SIZE", "STATE")))
	for _, m := range mods {
		line := fmt.Sprintf("%016x  %-*s  %016x  %8d  %-9s  %s", uint64(m.Addr), width, clean(m.Name), uint64(textBase(m)), m.Size, m.State, m.Taints)
		s.printf("%s\n", strings.TrimRight(line, " "))
	}
}

// textBase is where a module's code begins, 0 when it has none.
func textBase(m *kernel.Module) kernel.Addr {
	for _, r := range m.Ranges {
		if r.Text && !r.Init {
			return r.Base
		}
	}
	return 0
}

type moduleJSON struct {
	Address hex           `json:"address"`
	Name    string        `json:"name"`
	Base    hex           `json:"base"`
	Size    uint64        `json:"size"`
	State   string        `json:"state"`
	Taints  string        `json:"taints"`
	Ranges  []moduleRange `json:"ranges"`
}

type moduleRange struct {
	Base hex    `json:"base"`
	Size uint64 `json:"size"`
	Text bool   `json:"text"`
	Init bool   `json:"init"`
}

func modJSON(s *session, mods []*kernel.Module) error {
	list := []moduleJSON{}
	for _, m := range mods {
		j := moduleJSON{hex(m.Addr), m.Name, hex(textBase(m)), m.Size, m.State, m.Taints, []moduleRange{}}
		for _, r := range m.Ranges {
			j.Ranges = append(j.Ranges, moduleRange{hex(r.Base), r.Size, r.Text, r.Init})
		}
		list = append(list, j)
	}
	return s.writeJSON(struct {
		Modules []moduleJSON `json:"modules"`
		Missing []string     `json:"missing,omitempty"`
	}{list, s.missing()})
}
