package main

import (
	"encoding/json"
	"errors"
	"fmt"

	"github.com/spf13/pflag"

	"inquest/doctor"
)

const doctorText = `Examines the running machine: has its kernel a known bug, by its code and not by its
version; is one at work; do its packet queues lose packets; would a crash leave a dump?
Without root's rights it says what it could not look at.

--root names a directory with a copy of a machine's files, such as sosreport makes. Of a
FILE, a dump or a kernel (vmlinuz, vmlinux), it examines what there is: the code, and a
dump's log. docs/doctor.md is the guide.`

var doctorGroup = &group{
	name:  "doctor",
	short: "say whether this machine is exposed, and would leave a dump",
	long:  doctorText,
	exit: `0 nothing is exposed; 1 something is; 2 the command line is wrong;
3 the file, or the directory, cannot be read.`,
	alone: true,
	tools: []*tool{{
		name:  "doctor",
		args:  "[FILE]",
		max:   1,
		short: "say whether this machine is exposed, and would leave a dump",
		long:  doctorText,
		example: `inquest doctor
inquest doctor /boot/vmlinuz-6.1.0-56-amd64
inquest doctor --root /tmp/sosreport-web1 --json`,
		setup: func(flags *pflag.FlagSet) toolFunc {
			var e examination
			flags.StringVar(&e.root, "root", "", "examine the machine whose files lie below `DIR`")
			flags.BoolVarP(&e.verbose, "verbose", "v", false, "say also of what is fine what was found")
			flags.BoolVar(&e.json, "json", false, "print JSON")
			return e.run
		},
	}},
}

// examination is what is to be examined, and how it is told.
type examination struct {
	root          string
	verbose, json bool
}

func (e *examination) run(io stdio, args []string) error {
	s, err := e.subject(args)
	if err != nil {
		return err
	}
	defer s.Close()
	report := s.Examine()
	if e.json {
		encoder := json.NewEncoder(io.out)
		encoder.SetIndent("", "  ")
		err = encoder.Encode(report)
	} else {
		term := terminalOf(io.out)
		err = report.Text(io.out, doctor.Style{Width: term.width, Colour: term.colour, Verbose: e.verbose})
	}
	if err == nil && report.Exposed {
		err = errExposed
	}
	return err
}

var errExposed = errors.New("doctor: something is exposed")

// fileError is what is to be examined and cannot be read.
type fileError struct{ err error }

func (e *fileError) Error() string { return fmt.Sprintf("doctor: %v", e.err) }

func (e *fileError) Unwrap() error { return e.err }

func (e *examination) subject(args []string) (*doctor.Subject, error) {
	if len(args) == 0 {
		s, err := doctor.Machine(e.root)
		if err != nil {
			return nil, &fileError{err}
		}
		return s, nil
	}
	if e.root != "" {
		return nil, usageError{"doctor: --root and a FILE do not go together\nSee `inquest help doctor`."}
	}
	s, err := doctor.File(args[0])
	if err != nil {
		return nil, &fileError{err}
	}
	return s, nil
}
