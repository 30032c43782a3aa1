package advisory

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
)

// DirectoryVariable names the environment variable with the user's directories, a
// list as in PATH.
const DirectoryVariable = "INQUEST_ADVISORIES"

// maxFile bounds a file, in bytes.
const maxFile = 1 << 20

// Directories returns where the user's own advisories lie: what INQUEST_ADVISORIES
// says, else /etc/inquest/advisories and inquest/advisories below the user's
// configuration directory (XDG_CONFIG_HOME), as far as they are there.
func Directories() []string {
	if list, ok := os.LookupEnv(DirectoryVariable); ok {
		return filepath.SplitList(list)
	}
	dirs := []string{"/etc/inquest/advisories"}
	if config, err := os.UserConfigDir(); err == nil {
		dirs = append(dirs, filepath.Join(config, "inquest", "advisories"))
	}
	return slices.DeleteFunc(dirs, func(dir string) bool {
		info, err := os.Stat(dir)
		return err != nil || !info.IsDir()
	})
}

// LoadUser reads the advisories of directories. One of a later directory takes the
// place of an earlier one's with its id. Those that are right come with the error that
// says, file by file, what is wrong with the others.
func LoadUser(dirs []string) ([]*Advisory, error) {
	var all []*Advisory
	var wrong []error
	for _, dir := range dirs {
		own, err := Load(os.DirFS(dir))
		if err != nil {
			wrong = append(wrong, fmt.Errorf("advisories in %s: %w", dir, err))
		}
		for _, a := range own {
			a.File = filepath.Join(dir, a.File)
		}
		all = Merge(all, own)
	}
	return all, errors.Join(wrong...)
}

// Merge returns both lists as one, by id; of two with the same id, the second's.
func Merge(all, own []*Advisory) []*Advisory {
	merged := slices.Clone(own)
	for _, a := range all {
		if Find(own, a.ID) == nil {
			merged = append(merged, a)
		}
	}
	sortByID(merged)
	return merged
}

// readFile reads a file that is not too large.
func readFile(fsys fs.FS, path string) ([]byte, error) {
	f, err := fsys.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	raw, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, err
	}
	if len(raw) > maxFile {
		return nil, fmt.Errorf("%s: larger than %d bytes", path, maxFile)
	}
	return raw, nil
}
