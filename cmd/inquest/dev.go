package main

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/spf13/pflag"

	"inquest/kernel"
)

var devCommand = &command{
	name:  "dev",
	short: "list the character and block devices, or the disks",
	long: `List the character devices by major number: name, address of struct cdev, and its
operations; then the block devices, with the first disk of each number.

With -d: the disks, and the requests that each has under way, which a machine that
waits for its disks still has in its dump. They are known for disks that blk-mq
serves, ? stands for others.`,
	example: `inquest dev vmcore
inquest dev vmcore -d`,
	setup: func(f *pflag.FlagSet) runFunc {
		disks := f.BoolP("disks", "d", false, "show the disks and their requests under way")
		return func(s *session, _ []string) error {
			k, err := s.typedKernel()
			if err != nil {
				return err
			}
			list, err := k.Disks()
			slices.SortFunc(list, func(a, b kernel.Disk) int {
				return cmp.Or(cmp.Compare(a.Major, b.Major), cmp.Compare(a.Minor, b.Minor), cmp.Compare(a.Addr, b.Addr))
			})
			if *disks {
				if err != nil && len(list) == 0 {
					return err
				}
				s.miss(err)
				return devDisks(s, list)
			}
			s.miss(err)
			return devMajors(s, k, list)
		}
	},
}

type charDeviceJSON struct {
	Major  int    `json:"major"`
	Minor  int    `json:"minor"`
	Minors int    `json:"minors"`
	Name   string `json:"name"`
	Cdev   *hex   `json:"cdev"` // null when each minor number has its own
	Ops    string `json:"operations"`
}

type blockMajorJSON struct {
	Major int    `json:"major"`
	Name  string `json:"name"`
	Disk  *hex   `json:"gendisk"` // the first; null when there is none
	Ops   string `json:"operations"`
}

func devMajors(s *session, k *kernel.Kernel, disks []kernel.Disk) error {
	chars, err := k.CharDevices()
	blocks, blockErr := k.BlockMajors()
	if len(chars)+len(blocks) == 0 && err != nil {
		return err
	}
	s.miss(err)
	s.miss(blockErr)
	slices.SortStableFunc(chars, func(a, b kernel.CharDevice) int { return cmp.Compare(a.Major, b.Major) })
	slices.SortStableFunc(blocks, func(a, b kernel.BlockMajor) int { return cmp.Compare(a.Major, b.Major) })
	charList, blockList := []charDeviceJSON{}, []blockMajorJSON{}
	for _, d := range chars {
		j := charDeviceJSON{Major: d.Major, Minor: d.Minor, Minors: d.Minors, Name: d.Name}
		if d.Cdev != 0 {
			j.Cdev, j.Ops = (*hex)(&d.Cdev), k.Name(d.Ops)
		}
		charList = append(charList, j)
	}
	for _, b := range blocks {
		j := blockMajorJSON{Major: b.Major, Name: b.Name}
		if i := slices.IndexFunc(disks, func(d kernel.Disk) bool { return d.Major == b.Major }); i >= 0 {
			j.Disk, j.Ops = (*hex)(&disks[i].Addr), k.Name(disks[i].Ops)
		}
		blockList = append(blockList, j)
	}
	if s.json {
		return s.writeJSON(struct {
			Chars   []charDeviceJSON `json:"character"`
			Blocks  []blockMajorJSON `json:"block"`
			Missing []string         `json:"missing,omitempty"`
		}{charList, blockList, s.missing()})
	}
	line := func(major int, name string, at *hex, ops string) {
		if at == nil {
			s.printf("%4d      %-18s      (none)\n", major, clean(name))
			return
		}
		s.printf("%4d      %-18s %016x  %s\n", major, clean(name), uint64(*at), clean(ops))
	}
	s.printf("%s\n", s.term.paint(bold, "CHRDEV    NAME                     CDEV        OPERATIONS"))
	for _, j := range charList {
		line(j.Major, j.Name, j.Cdev, j.Ops)
	}
	s.printf("\n%s\n", s.term.paint(bold, "BLKDEV    NAME                   GENDISK       OPERATIONS"))
	for _, j := range blockList {
		line(j.Major, j.Name, j.Disk, j.Ops)
	}
	s.missing()
	return nil
}

func devDisks(s *session, disks []kernel.Disk) error {
	type diskJSON struct {
		Major  int    `json:"major"`
		Minor  int    `json:"minor"`
		Disk   hex    `json:"gendisk"`
		Name   string `json:"name"`
		Queue  hex    `json:"request_queue"`
		Reads  *int   `json:"reads"` // under way; null when unknown
		Writes *int   `json:"writes"`
	}
	list := []diskJSON{}
	for i, d := range disks {
		j := diskJSON{d.Major, d.Minor, hex(d.Addr), d.Name, hex(d.Queue), nil, nil}
		if d.InFlight {
			j.Reads, j.Writes = &disks[i].Reads, &disks[i].Writes
		}
		list = append(list, j)
	}
	if s.json {
		return s.writeJSON(struct {
			Disks   []diskJSON `json:"disks"`
			Missing []string   `json:"missing,omitempty"`
		}{list, s.missing()})
	}
	s.printf("%s\n", s.term.paint(bold, "MAJOR GENDISK            NAME             REQUEST_QUEUE      TOTAL  READ WRITE"))
	for _, j := range list {
		total, reads, writes := "?", "?", "?"
		if j.Reads != nil {
			total, reads, writes = fmt.Sprint(*j.Reads+*j.Writes), fmt.Sprint(*j.Reads), fmt.Sprint(*j.Writes)
		}
		s.printf("%5d %016x   %-16s %016x   %5s %5s %5s\n", j.Major, uint64(j.Disk), clean(j.Name), uint64(j.Queue), total, reads, writes)
	}
	s.missing()
	return nil
}
