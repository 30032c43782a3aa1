package lab

import (
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// libraryDirs are where the dynamic linker of a 64-bit Debian or Red Hat looks without
// a cache, and so where it looks in a guest.
var libraryDirs = []string{
	"/lib/x86_64-linux-gnu", "/usr/lib/x86_64-linux-gnu",
	"/lib/aarch64-linux-gnu", "/usr/lib/aarch64-linux-gnu",
	"/lib64", "/usr/lib64", "/lib", "/usr/lib",
}

// maxLibraries bounds what one program may need.
const maxLibraries = 256

// libraries returns the paths of a program's interpreter and of all shared libraries
// that it needs, directly or not, as found in dirs. A static program has none.
func libraries(program string, dirs []string) ([]string, error) {
	var found []string
	seen := make(map[string]bool)
	add := func(path string) {
		if !seen[path] {
			seen[path] = true
			found = append(found, path)
		}
	}
	file := program
	for i := 0; ; i++ {
		interpreter, needed, err := linkedTo(file)
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", file, err)
		}
		if interpreter != "" {
			add(interpreter)
		}
		for _, name := range needed {
			path, err := findLibrary(name, dirs)
			if err != nil {
				return nil, fmt.Errorf("%s needs %s: %w", file, name, err)
			}
			add(path)
		}
		switch {
		case i == len(found):
			return found, nil
		case i == maxLibraries:
			return nil, fmt.Errorf("%s needs more than %d libraries", program, maxLibraries)
		}
		file = found[i]
	}
}

// linkedTo reads an ELF file's interpreter and DT_NEEDED entries.
func linkedTo(file string) (interpreter string, needed []string, err error) {
	f, err := elf.Open(file)
	if err != nil {
		return "", nil, err
	}
	defer f.Close()
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			text, err := readAtMost(p.Open(), 4096)
			if err != nil || len(text) == 0 {
				return "", nil, fmt.Errorf("PT_INTERP: %w", err)
			}
			interpreter = string(text[:len(text)-1])
		}
	}
	needed, err = f.ImportedLibraries()
	return interpreter, needed, err
}

func findLibrary(name string, dirs []string) (string, error) {
	for _, dir := range dirs {
		path := filepath.Join(dir, name)
		if _, err := os.Stat(path); err == nil {
			return path, nil
		}
	}
	return "", fs.ErrNotExist
}

// errTooLong is the error for a stream that is longer than it may be.
var errTooLong = errors.New("longer than expected")

// readAtMost reads a whole stream of at most limit bytes.
func readAtMost(r io.Reader, limit int64) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err == nil && int64(len(data)) > limit {
		err = errTooLong
	}
	return data, err
}
