package main

import (
	"github.com/spf13/pflag"

	"inquest/kernel"
)

var swapCommand = &command{
	name:  "swap",
	short: "list the swap areas",
	long: `List the swap areas: the address of swap_info_struct, whether it is a partition or a
file, its size and how much of it is used, its priority and its path.`,
	example: "inquest swap vmcore",
	setup: func(*pflag.FlagSet) runFunc {
		return func(s *session, _ []string) error {
			k, err := s.typedKernel()
			if err != nil {
				return err
			}
			areas, err := k.Swaps()
			if err != nil && len(areas) == 0 {
				return err
			}
			s.miss(err)
			return swapList(s, areas)
		}
	},
}

func swapList(s *session, areas []kernel.Swap) error {
	type swapJSON struct {
		Info     hex    `json:"swap_info_struct"`
		Type     string `json:"type"`
		Pages    uint64 `json:"pages"`
		Used     uint64 `json:"used_pages"`
		Priority int    `json:"priority"`
		Path     string `json:"path"`
	}
	list := []swapJSON{}
	for _, a := range areas {
		typ := "FILE"
		if a.Partition {
			typ = "PARTITION"
		}
		list = append(list, swapJSON{hex(a.Addr), typ, a.Pages, a.Used, a.Priority, a.Path})
	}
	if s.json {
		return s.writeJSON(struct {
			Swaps   []swapJSON `json:"swaps"`
			Missing []string   `json:"missing,omitempty"`
		}{list, s.missing()})
	}
	s.printf("%s\n", s.term.paint(bold, "SWAP_INFO_STRUCT    TYPE       SIZE       USED     PCT  PRI  FILENAME"))
	for _, j := range list {
		s.printf("%016x  %-9s %9dk %9dk  %3d%%  %3d  %s\n", uint64(j.Info), j.Type, 4*j.Pages, 4*j.Used, 100*j.Used/max(j.Pages, 1), j.Priority, clean(j.Path))
	}
	if len(list) == 0 {
		s.printf("No swap area is in use.\n")
	}
	s.missing()
	return nil
}
