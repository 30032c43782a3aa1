package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/spf13/pflag"

	"inquest/explain"
	"inquest/kernel"
	"inquest/vmcore"
)

var shrinkCommand = &command{
	name:  "shrink",
	short: "write a small dump that still explains the crash",
	long: `Writes a dump, in kdump-compressed format with zstd, that holds only the
pages of memory that Inquest looks at: those that explain --verbose, bt --all --args,
ps, log, mod and slab read, the stacks that were running, and what lies around the
objects of the crash. On the small dump these print what they print on the whole one.

With the kernel's debuginfo crash and drgn open it too: it holds what crash reads when it
starts and for bt, log, ps, mod, sys, struct, runq, kmem -s and foreach bt, and what drgn
needs to find the modules. Of user memory, and of what else they may be asked for, it has
only what shares a page with that.

The slab lists of a machine with more than 8 GiB are left out: they would need the
struct page of every page.

A small dump still holds memory of the machine that crashed: names of programs,
the kernel's log, kernel stacks. It holds no page that only user programs used.`,
	example: `inquest shrink vmcore -o small.kdump`,
	setup: func(flags *pflag.FlagSet) runFunc {
		to := flags.StringP("output", "o", "", "write to `FILE`, which must not exist")
		return func(s *session, _ []string) error {
			if *to == "" {
				return usageError{"shrink: where to? give -o FILE"}
			}
			if err := absent(*to); err != nil {
				return err
			}
			d, err := s.Dump()
			if err != nil {
				return err
			}
			read := d.Record()
			if err := s.readAll(); err != nil {
				return err
			}
			s.readAround()
			readForCrash(s.kernel)
			if read.Len() == 0 {
				return errors.New("no page that a report needs is in this dump")
			}
			size, err := writeFile(*to, func(f *os.File) error { return vmcore.Shrink(f, d, read.Pages()) })
			if err != nil {
				return err
			}
			if s.json {
				return s.writeJSON(map[string]any{"file": *to, "bytes": size, "pages": read.Len(), "from_bytes": d.FileSize})
			}
			s.printf("%s: %d pages in %.1f MiB, 1/%d of the dump's size\n",
				*to, read.Len(), float64(size)/(1<<20), max(1, d.FileSize/max(size, 1)))
			return nil
		}
	},
}

// shrunken are the commands that a small dump must serve as the whole one does.
var shrunken = []struct {
	command *command
	args    []string
}{
	{explainCommand, []string{"--verbose"}},
	{explainCommand, []string{"--json"}},
	{explainCommand, []string{"--format", "html"}},
	{btCommand, []string{"--all", "--args"}},
	{psCommand, nil},
	{logCommand, nil},
	{modCommand, nil},
	{infoCommand, nil},
	{slabCommand, nil},
}

// maxSlabPFN bounds the machines whose slab lists go into a small dump: they need
// vmemmap, 1/64 of all memory.
const maxSlabPFN = 8 << 30 >> 12

// readAll runs those commands on the session's dump, for what they read. One that
// can conclude nothing does not matter; a dump without a kernel does.
func (s *session) readAll() error {
	if _, err := s.Kernel(); err != nil {
		return err
	}
	for _, c := range shrunken {
		if c.command == slabCommand && s.dump.MaxPFN > maxSlabPFN {
			continue
		}
		sub := *s
		sub.out, sub.errOut, sub.term = io.Discard, io.Discard, terminal{}
		flags := pflag.NewFlagSet(c.command.name, pflag.ContinueOnError)
		run := c.command.setup(flags)
		flags.BoolVar(&sub.json, "json", false, "")
		if err := flags.Parse(c.args); err != nil {
			return err
		}
		run(&sub, nil)
	}
	return nil
}

// readAround reads what somebody may want to look at who examines the crash further:
// the stacks of the tasks that were running, and the objects of the findings with what
// lies around them. What is missing is missing.
func (s *session) readAround() {
	k := s.kernel
	touch := func(from, to kernel.Addr) {
		const page, most = 4096, 64 << 10
		from &^= page - 1
		for at := from; at < to && at-from < most; at += page {
			k.U8(at)
		}
	}
	cpus, _ := k.PresentCPUs()
	for _, cpu := range cpus {
		if t, _ := k.Current(cpu); t != nil && t.Stack != 0 {
			touch(t.Stack, t.Stack+kernel.Addr(k.StackSize()))
		}
	}
	c, err := explain.New(k)
	if err != nil {
		return
	}
	const around = 4096
	for _, f := range c.Findings() {
		for _, o := range f.Objects {
			touch(o.Addr-around, o.Addr+kernel.Addr(o.Size)+around)
		}
	}
}

// absent says what is wrong with writing a new file of that name.
func absent(path string) error {
	if _, err := os.Lstat(path); err == nil {
		return fmt.Errorf("%s exists already", path)
	}
	return nil
}

// writeFile writes a new file under a temporary name, so that a failure leaves
// nothing behind, and returns its size.
func writeFile(path string, write func(*os.File) error) (size int64, err error) {
	if err := absent(path); err != nil {
		return 0, err
	}
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return 0, err
	}
	defer os.Remove(f.Name())
	defer f.Close()
	if err := write(f); err != nil {
		return 0, fmt.Errorf("write %s: %w", path, err)
	}
	if size, err = f.Seek(0, io.SeekEnd); err != nil {
		return 0, err
	}
	if err := f.Chmod(0o644); err != nil {
		return 0, err
	}
	if err := f.Close(); err != nil {
		return 0, err
	}
	return size, os.Link(f.Name(), path)
}
