package main

import (
	"encoding/json"
	"fmt"
	"io"

	"inquest/kernel"
	"inquest/vmcore"
)

// session is an invocation of a command on a dump, which is opened when it is
// first asked for.
type session struct {
	cmd    *command
	out    io.Writer
	json   bool
	term   terminal
	errOut io.Writer

	paths    []string
	dump     *vmcore.Dump
	kernel   *kernel.Kernel
	progress *progress
	failed   []string // what a listing had to leave out
}

func newSession(c *command, io stdio, opts options, paths []string) *session {
	return &session{
		cmd:      c,
		out:      io.out,
		errOut:   io.err,
		json:     opts.json,
		term:     terminalOf(io.out),
		paths:    paths,
		progress: newProgress(io.err),
	}
}

func (s *session) close() {
	s.progress.end()
	if s.dump != nil {
		s.dump.Close()
	}
}

// Dump opens the dump.
func (s *session) Dump() (*vmcore.Dump, error) {
	if s.dump != nil {
		return s.dump, nil
	}
	d, err := vmcore.Open(s.paths...)
	if err != nil {
		return nil, &openError{err}
	}
	d.OnProgress = s.progress.report
	s.dump = d
	return d, nil
}

// Kernel opens the dump and finds the kernel in it.
func (s *session) Kernel() (*kernel.Kernel, error) {
	if s.kernel != nil {
		return s.kernel, nil
	}
	d, err := s.Dump()
	if err != nil {
		return nil, err
	}
	k, err := kernel.Open(d)
	s.progress.end()
	if err != nil {
		return nil, fmt.Errorf("find the kernel in %s: %w", s.paths[0], err)
	}
	s.kernel = k
	return k, nil
}

// typedKernel is Kernel for commands that need symbols and types.
func (s *session) typedKernel() (*kernel.Kernel, error) {
	k, err := s.Kernel()
	if err == nil {
		k.Preload()
	}
	return k, err
}

// usagef builds the error of arguments that the command cannot make sense of.
func (s *session) usagef(format string, args ...any) error { return usagef(s.cmd, format, args...) }

func (s *session) printf(format string, args ...any) { fmt.Fprintf(s.out, format, args...) }

// writeJSON writes one JSON document.
func (s *session) writeJSON(v any) error {
	e := json.NewEncoder(s.out)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	return e.Encode(v)
}

// miss notes what a listing has to do without. A listing goes on with what there is.
func (s *session) miss(err error) {
	const enough = 8
	if all, ok := err.(interface{ Unwrap() []error }); ok {
		for _, err := range all.Unwrap() {
			s.miss(err)
		}
		return
	}
	if err != nil && len(s.failed) < enough {
		s.failed = append(s.failed, err.Error())
	}
}

// missing is what miss noted, for JSON; people read it on standard error, after
// the listing.
func (s *session) missing() []string {
	if !s.json {
		if f, ok := s.out.(interface{ Flush() error }); ok {
			f.Flush()
		}
		for _, text := range s.failed {
			fmt.Fprintf(s.errOut, "inquest: incomplete: %s\n", text)
		}
	}
	return s.failed
}

// hex is a number that JSON has as a string: "0xffffffff81000000".
type hex uint64

func (h hex) MarshalText() ([]byte, error) { return fmt.Appendf(nil, "%#x", uint64(h)), nil }
