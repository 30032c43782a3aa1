package main

import (
	"fmt"
	"strconv"

	"github.com/spf13/pflag"

	"inquest/kernel"
)

var vmCommand = &command{
	name:  "vm",
	args:  "[PID | TASK]...",
	max:   -1,
	short: "show a task's user memory",
	long: `Show the user memory of tasks, or of the one that crashed: the addresses of
mm_struct and of its page table, the resident and the whole size, and its areas: the
address of vm_area_struct, where it begins and ends, its flags (VM_*, in hexadecimal)
and the file. A kernel thread has none.

Several or all tasks: inquest foreach DUMP vm.`,
	example: `inquest vm vmcore 1
inquest vm vmcore -m
inquest foreach vmcore user gleader vm --json`,
	complete: completeTask,
	setup: func(f *pflag.FlagSet) runFunc {
		mm := f.BoolP("mm", "m", false, "show the mm_struct instead of the areas")
		return func(s *session, args []string) error {
			k, err := s.typedKernel()
			if err != nil {
				return err
			}
			tasks, err := contextTasks(s, k, args)
			if err != nil {
				return err
			}
			all, _ := k.Tasks() // threads count some of the pages, see newTaskMemory
			memory := newTaskMemory(k, all)
			list := []vmJSON{}
			for i, t := range tasks {
				if !s.json && i > 0 {
					s.printf("\n")
				}
				if *mm && !s.json {
					vmObject(s, k, t)
					continue
				}
				j := vmOf(s, k, t, memory)
				if s.json {
					list = append(list, j)
					continue
				}
				vmText(s, t, memory.of(t), j)
			}
			if s.json {
				return s.writeJSON(struct {
					Tasks   []vmJSON `json:"tasks"`
					Missing []string `json:"missing,omitempty"`
				}{list, s.missing()})
			}
			s.missing()
			return nil
		}
	},
}

type vmJSON struct {
	taskRef
	MM    hex            `json:"mm"`
	PGD   hex            `json:"pgd"`
	RSS   *uint64        `json:"rss_kib"` // null when unknown
	Total *uint64        `json:"total_vm_kib"`
	Areas []userAreaJSON `json:"areas"`
}

type userAreaJSON struct {
	VMA    hex    `json:"vma"`
	Start  hex    `json:"start"`
	End    hex    `json:"end"`
	Flags  hex    `json:"flags"`
	Offset uint64 `json:"offset"`
	File   string `json:"file"`
}

func vmOf(s *session, k *kernel.Kernel, t *kernel.Task, memory *taskMemory) vmJSON {
	j := vmJSON{taskRef: *refTo(t), MM: hex(t.MM), Areas: []userAreaJSON{}}
	if size := memory.of(t); !size.unknown {
		rss, total := size.resident*kibPerPage, size.size*kibPerPage
		j.RSS, j.Total = &rss, &total
	}
	if t.MM == 0 {
		return j
	}
	if mm, err := k.Object("mm_struct", t.MM); err == nil {
		pgd, err := mm.Pointer("pgd")
		s.miss(err)
		j.PGD = hex(pgd)
	}
	areas, err := k.VMAs(t.MM)
	s.miss(err)
	for _, v := range areas {
		j.Areas = append(j.Areas, userAreaJSON{hex(v.Addr), hex(v.Start), hex(v.End), hex(v.Flags), v.Offset, v.Path})
	}
	return j
}

func vmText(s *session, t *kernel.Task, size memorySize, j vmJSON) {
	s.taskHeader(t)
	s.printf("       MM               PGD          RSS    TOTAL_VM\n")
	if t.MM == 0 {
		s.printf("       0                 0            0k       0k\n")
		return
	}
	s.printf("%016x  %016x  %sk  %sk\n", uint64(t.MM), uint64(j.PGD), size.kib(size.resident), size.kib(size.size))
	s.printf("      VMA           START       END     FLAGS FILE\n")
	for _, v := range j.Areas {
		s.printf("%016x %10x %10x %s %s\n", uint64(v.VMA), uint64(v.Start), uint64(v.End), strconv.FormatUint(uint64(v.Flags), 16), clean(v.File))
	}
}

// vmObject prints a task's mm_struct.
func vmObject(s *session, k *kernel.Kernel, t *kernel.Task) {
	s.taskHeader(t)
	if t.MM == 0 {
		s.printf("no user memory\n")
		return
	}
	mm, err := k.Object("mm_struct", t.MM)
	if err == nil {
		var v kernel.Value
		if v, err = mm.Value(); err == nil {
			s.printf("%s", cleanLines(v.Format(kernel.Style{Width: s.term.width})))
		}
	}
	if err != nil {
		s.miss(fmt.Errorf("read mm_struct at %v: %w", t.MM, err))
	}
}
