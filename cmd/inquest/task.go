package main

import (
	"strings"

	"github.com/spf13/pflag"

	"inquest/kernel"
)

var taskCommand = &command{
	name:  "task",
	args:  "[PID | TASK]...",
	max:   -1,
	short: "show a task's task_struct, or members of it",
	long: `Show the task_struct of tasks, or of the one that crashed; with -R only some
members, each a path as C writes it: -R comm,se.exec_start,mm->pgd.

Several or all tasks: inquest foreach DUMP task.`,
	example: `inquest task vmcore 1234 -R state,exit_code
inquest foreach vmcore UN task -R 'se.exec_start,signal->oom_score_adj'`,
	complete: completeTask,
	setup: func(f *pflag.FlagSet) runFunc {
		members := f.StringP("ref", "R", "", "only these `MEMBERS`, with commas between")
		hexadecimal := f.BoolP("hex", "x", false, "print numbers in hexadecimal")
		return func(s *session, args []string) error {
			k, err := s.typedKernel()
			if err != nil {
				return err
			}
			p := structPrinter{s: s, k: k, style: kernel.Style{Hex: *hexadecimal, Width: s.term.width}}
			zero, err := k.Object("task_struct", 0)
			if err != nil {
				return err
			}
			if *members != "" {
				p.members = strings.Split(*members, ",")
			}
			for _, m := range p.members {
				if _, err := zero.Member(m); err != nil && !zero.Has(m) {
					return memberError(zero.Type, m, err)
				}
			}
			tasks, err := contextTasks(s, k, args)
			if err != nil {
				return err
			}
			type taskObject struct {
				taskRef
				objectJSON
			}
			list := []taskObject{}
			for i, t := range tasks {
				if !s.json {
					if i > 0 {
						s.printf("\n")
					}
					s.taskHeader(t)
				}
				j := taskObject{*refTo(t), objectJSON{Type: "struct task_struct", Address: hex(t.Addr)}}
				if err := p.object(t.Object, &j.objectJSON); err != nil {
					j.Error = err.Error()
					s.miss(err)
				}
				list = append(list, j)
			}
			if s.json {
				return s.writeJSON(struct {
					Tasks   []taskObject `json:"tasks"`
					Missing []string     `json:"missing,omitempty"`
				}{list, s.missing()})
			}
			s.missing()
			return nil
		}
	},
}
