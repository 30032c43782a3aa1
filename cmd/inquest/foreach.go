package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/pflag"
)

// perTask are the commands that foreach knows, which take tasks as their arguments. It
// is a function, as foreach is itself in the table of commands.
func perTask() []*command {
	return []*command{btCommand, filesCommand, netCommand, psCommand, taskCommand, vmCommand}
}

var foreachCommand = &command{
	name:  "foreach",
	args:  "[STATE | KIND | PID | TASK | NAME]... COMMAND [ARGUMENT]...",
	min:   1,
	max:   -1,
	short: "run bt, files, net, ps, task or vm for many tasks",
	long: `Run a command for all tasks, or for those that are chosen:

  STATE  RU running, IN interruptible, UN uninterruptible, ST stopped, TR traced,
         ID idle kernel thread, PA parked, ZO zombie, DE dead
  KIND   kernel, user, active (on a CPU), gleader (the first thread of a process)
  PID, TASK (the address of a task_struct), NAME (with * and ? as in a shell)

Several states, or several names, pids and addresses, add up; what is of another
sort narrows the choice. A name that is also one of these words, or a command,
stands behind a backslash.

The commands are bt, files, net, ps, task and vm; what follows is theirs.`,
	example: `inquest foreach vmcore UN bt
inquest foreach vmcore bt -R mutex_lock
inquest foreach vmcore user gleader files -R /var/log
inquest foreach vmcore 'kworker/*' UN bt --json
inquest foreach vmcore UN task -R on_cpu,se.exec_start`,
	setup: func(f *pflag.FlagSet) runFunc {
		f.SetInterspersed(false) // what follows the dump may be options of the command
		return runForeach
	},
}

func runForeach(s *session, args []string) error {
	var pick taskChoice
	var cmd *command
	for cmd == nil {
		if len(args) == 0 {
			return s.usagef("which command: %s?", strings.Join(perTaskNames(), ", "))
		}
		word := args[0]
		args = args[1:]
		if name, quoted := strings.CutPrefix(word, `\`); quoted {
			pick.names = append(pick.names, name)
			continue
		}
		if i := slices.IndexFunc(perTask(), func(c *command) bool { return c.name == word }); i >= 0 {
			cmd = perTask()[i]
		} else if strings.HasPrefix(word, "-") {
			return s.usagef("%s: options come behind the command", word)
		} else if !pick.word(word) {
			pick.names = append(pick.names, word)
		}
	}
	flags := pflag.NewFlagSet(cmd.name, pflag.ContinueOnError)
	flags.Usage = func() {}
	run := cmd.setup(flags)
	json := flags.Bool("json", s.json, "")
	if err := flags.Parse(args); err != nil {
		if errors.Is(err, pflag.ErrHelp) {
			return s.usagef("see `inquest help %s` for its options", cmd.name)
		}
		return s.usagef("%s: %v", cmd.name, err)
	}
	if rest := flags.Args(); len(rest) > 0 {
		return s.usagef("%q: the tasks are chosen before %s", rest[0], cmd.name)
	}
	s.json = *json
	k, err := s.typedKernel()
	if err != nil {
		return err
	}
	tasks, err := chosenTasks(s, k, &pick)
	if err != nil {
		return err
	}
	if len(tasks) == 0 {
		return errors.New("no task is so")
	}
	addrs := make([]string, len(tasks))
	for i, t := range tasks {
		addrs[i] = fmt.Sprintf("%x", uint64(t.Addr))
	}
	return run(s, addrs)
}

func perTaskNames() []string {
	var names []string
	for _, c := range perTask() {
		names = append(names, c.name)
	}
	return names
}
