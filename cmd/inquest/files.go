package main

import (
	"fmt"

	"github.com/spf13/pflag"

	"inquest/kernel"
)

var filesCommand = &command{
	name:  "files",
	args:  "[PID | TASK]...",
	max:   -1,
	short: "list the open files of a task",
	long: `List the open files of tasks, or of the one that crashed: number, addresses of
struct file, dentry and inode, type and path; above them the root and the working
directory. A path is as the namespace's root sees it, whatever the task's own root.

Several or all tasks: inquest foreach DUMP files.`,
	example: `inquest files vmcore 1234
inquest files vmcore -R /var/log
inquest foreach vmcore UN files`,
	complete: completeTask,
	setup: func(f *pflag.FlagSet) runFunc {
		ref := f.StringP("ref", "R", "", "only files whose path, or the address of whose struct file, dentry or inode is `WHAT`")
		return func(s *session, args []string) error {
			k, err := s.typedKernel()
			if err != nil {
				return err
			}
			tasks, err := contextTasks(s, k, args)
			if err != nil {
				return err
			}
			list := []filesJSON{}
			for i, t := range tasks {
				j := filesOf(s, k, t, *ref)
				switch {
				case *ref != "" && len(j.Files) == 0:
				case s.json:
					list = append(list, j)
				default:
					if i > 0 {
						s.printf("\n")
					}
					filesText(s, t, j)
				}
			}
			if s.json {
				return s.writeJSON(struct {
					Tasks   []filesJSON `json:"tasks"`
					Missing []string    `json:"missing,omitempty"`
				}{list, s.missing()})
			}
			s.missing()
			return nil
		}
	},
}

type filesJSON struct {
	taskRef
	Root  string     `json:"root"`
	CWD   string     `json:"cwd"`
	Files []fileJSON `json:"files"` // null when the dump does not tell
}

type fileJSON struct {
	FD     int    `json:"fd"`
	File   hex    `json:"file"`
	Dentry hex    `json:"dentry"`
	Inode  hex    `json:"inode"`
	Type   string `json:"type"`
	Path   string `json:"path"`
}

func filesOf(s *session, k *kernel.Kernel, t *kernel.Task, ref string) filesJSON {
	j := filesJSON{taskRef: *refTo(t)}
	var err error
	j.Root, j.CWD, err = k.Directories(t)
	s.miss(err)
	files, err := k.OpenFiles(t)
	s.miss(err)
	if err == nil || len(files) > 0 {
		j.Files = []fileJSON{}
	}
	for _, f := range files {
		file := fileJSON{f.FD, hex(f.File.Addr), hex(f.Dentry), hex(f.Inode), f.Type, f.Path}
		if ref == "" || file.refersTo(ref) {
			j.Files = append(j.Files, file)
		}
	}
	return j
}

// refersTo reports whether -R selects a file.
func (f fileJSON) refersTo(ref string) bool {
	if matches(ref, f.Path) || len(f.Path) > len(ref) && f.Path[:len(ref)+1] == ref+"/" {
		return true
	}
	for _, at := range []hex{f.File, f.Dentry, f.Inode} {
		if fmt.Sprintf("%x", uint64(at)) == trim0x(ref) {
			return true
		}
	}
	return false
}

func filesText(s *session, t *kernel.Task, j filesJSON) {
	s.taskHeader(t)
	if j.Root != "" || j.CWD != "" {
		s.printf("ROOT: %s    CWD: %s\n", clean(j.Root), clean(j.CWD))
	}
	switch {
	case j.Files == nil:
		s.printf("The dump does not tell which files\n")
		return
	case len(j.Files) == 0:
		s.printf("No open files\n")
		return
	}
	s.printf(" FD       FILE            DENTRY           INODE       TYPE PATH\n")
	for _, f := range j.Files {
		s.printf("%3d %016x %016x %016x %-4s %s\n", f.FD, uint64(f.File), uint64(f.Dentry), uint64(f.Inode), f.Type, clean(f.Path))
	}
}
